"""The columns that a table gains: their types and order by commit order, and no more changes than allowed."""

from pathlib import Path

import pytest

from pixaris_sync.limits.bandwidth import UPDATES_LIMIT, UPDATES_SECONDS
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine

TABLE = "p_d_experiment_results"


def columns_of(machine: Machine) -> dict[str, ColumnType]:
    """The table's columns in their order."""
    return {column.name: column.type for column in machine.sink._tables[TABLE].columns.values()}


def several(machine: Machine, count: int, **values: object) -> list[StoredRun]:
    return [machine.local.store(name=f"run{number:02}", values=values) for number in range(count)]


@pytest.mark.parametrize(
    ("oldest", "newest", "kind"),
    [("high", 1, ColumnType.STRING), (1, "high", ColumnType.STRING), (1, 0.5, ColumnType.FLOAT)],
)
def test_waiting_records_share_the_type_of_a_new_column(
    folder: Path, oldest: object, newest: object, kind: ColumnType
) -> None:
    """Goal: the order of sending makes no companion.

    Method: one value in the oldest run, another in all later ones, which are sent first, two at once.
    """
    machine = Machine(folder, stream_rows_limit=2)
    machine.local.store(name="run0", values={"first": "x", "score": oldest, "last": "x"})
    for number in range(1, 6):
        machine.local.store(name=f"run{number}", values={"last": "x", "score": newest})

    machine.run_pass()

    machine.check_everything_arrived()
    found = columns_of(machine)
    assert found["score"] is kind
    assert [name for name in found if name in ("first", "score", "last")] == ["first", "score", "last"]
    assert not [name for name in found if name.startswith("score__")]
    assert machine.sink.counts["create_table"] + machine.sink.counts["add_columns"] == 1


def test_a_record_whose_files_are_missing_has_its_say(machine: Machine) -> None:
    """Goal: what is sent later fits as well. Method: the only text waits for an image that is mended."""
    late = machine.local.store(name="run0", values={"score": "high"})
    image = "generated_images/image0.png"
    late.versions[image].clear()
    machine.local.put_damaged_image(late, image)
    machine.local.store(name="run1", values={"score": 1})
    machine.run_pass()
    machine.local.put_image(late, image)
    machine.clock.let_pass(machine.settings.young_file_seconds)
    machine.release()

    machine.run_pass()

    machine.check_everything_arrived()
    assert columns_of(machine)["score"] is ColumnType.STRING
    assert "score__string" not in columns_of(machine)


def test_a_column_that_is_refused_holds_up_its_own_record_alone(folder: Path) -> None:
    """Goal: one bad run never stops another, though columns are added together.

    Method: the service refuses a column that an old record needs; newer ones need another, sent one by one.
    """
    machine = Machine(folder, stream_rows_limit=1)
    machine.local.store(name="first")
    machine.run_pass()
    bad = machine.local.store(name="run0", values={"odd": "x"})
    for number in (1, 2):
        machine.local.store(name=f"run{number}", values={"fine": number})
    machine.sink.refuse_column = "odd"

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 1)
    assert machine.state_of(bad)[0] == "quarantined"
    assert columns_of(machine)["fine"] is ColumnType.INTEGER
    machine.sink.refuse_column = None
    machine.release()
    machine.run_pass()
    machine.check_everything_arrived()


def test_flexible_columns_of_others_get_their_values(machine: Machine) -> None:
    """Goal: a column under the key's own name is used. Method: others' columns, one of another case."""
    names = ("learning rate", "top-k", "größe", "1st", "Score")
    machine.sink.make_plain_table(TABLE)
    machine.sink._tables[TABLE].add([Column(name, ColumnType.FLOAT) for name in names], 0.0)
    before = columns_of(machine)
    values = {"learning rate": 0.5, "top-k": 3, "größe": 1.5, "1st": 1, "score": 2}
    machine.local.store(values=values)

    machine.run_pass()

    machine.check_everything_arrived()
    assert columns_of(machine) == before
    [row] = machine.sink.stored(TABLE)
    assert {name: row.cells[name] for name in names} == dict(zip(names, values.values(), strict=True))


def test_load_jobs_into_a_table_keep_to_what_is_allowed(folder: Path) -> None:
    """Goal: the service never has to refuse an update. Method: 12 jobs at once, and the table made before."""
    machine = Machine(folder, load_rows_limit=1)
    several(machine, 12)

    machine.run_pass(bulk=True)

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 12
    assert machine.sink.refused_updates.total() == 0
    assert machine.clock.elapsed_seconds >= 12 // UPDATES_LIMIT * UPDATES_SECONDS


def test_an_update_that_others_have_used_up_is_tried_again(machine: Machine) -> None:
    """Goal: a refusal passes by itself. Method: somebody else alters the table as often as is allowed."""
    machine.local.store(name="first")
    machine.run_pass()
    machine.let_tables_settle()

    async def alter() -> None:
        for number in range(5):
            await machine.sink.add_columns(TABLE, [Column(f"theirs{number}", ColumnType.STRING)])

    machine.clock.run(alter)
    machine.local.store(name="second", values={"ours": 1})

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.refused_updates.total() >= 1


def test_streamed_rows_do_not_wait_for_the_pace_of_updates(machine: Machine) -> None:
    """Goal: watching is as fast as before. Method: runs one by one into a settled table."""
    machine.local.store(name="first")
    machine.run_pass()
    machine.let_tables_settle()
    began = ended = 0.0

    async def store(engine: Engine) -> None:
        nonlocal began, ended
        await machine.clock.sleep(30.0)
        began = machine.clock.elapsed()
        for number in range(3 * UPDATES_LIMIT):
            engine.scan_soon(machine.local.store(name=f"run{number:02}").key.dataset_key)
            await machine.clock.sleep(0.1)
        ended = machine.clock.elapsed()
        await machine.clock.sleep(30.0)

    machine.follow(store)

    machine.check_everything_arrived()
    assert machine.sink.counts["stream"] == 3 * UPDATES_LIMIT
    assert ended - began < UPDATES_SECONDS / 2


def test_who_waits_for_the_pace_ends_when_told_to(folder: Path) -> None:
    """Goal: a service stops promptly. Method: drain it while a table waits; the rows are sent later, once."""
    machine = Machine(folder, load_rows_limit=1)
    several(machine, 8)
    drained_at = 0.0

    async def stop_soon(_: Engine) -> None:
        nonlocal drained_at
        await machine.clock.sleep(1.0)
        drained_at = machine.clock.elapsed()

    left = machine.follow(stop_soon)

    assert machine.clock.elapsed() - drained_at < 0.5
    assert left.waiting == 8 - (UPDATES_LIMIT - 1)
    machine.run_pass()
    machine.check_everything_arrived()
