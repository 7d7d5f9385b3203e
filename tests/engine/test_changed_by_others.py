"""What others change, lose or remove: named cases, each of a kind that the simulation draws by chance."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from pixaris_sync.errors import Failure, JobFailedError, SyncError
from pixaris_sync.model import Column, ColumnType, RunState
from pixaris_sync.pipeline.engine import Engine
from tests.engine.crash_points import CrashError
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.fakes.row_sink import Method

TABLE = "p_d_experiment_results"
IMAGE = "generated_images/image0.png"


def settled(machine: Machine, **values: object) -> StoredRun:
    """A table that has been there for long: rows go by stream."""
    run = machine.local.store(name="first", values=values)
    machine.run_pass()
    machine.let_tables_settle()
    return run


def rows(machine: Machine) -> int:
    return len(machine.sink.stored(TABLE))


def remove_objects(machine: Machine, run: StoredRun) -> list[str]:
    """A lifecycle rule strikes; the names of the objects that are gone."""
    names = [run.object_name(path) for path in run.versions]
    for name in names:
        machine.invariants.object_removed(name)
    return names


def remove_rows(machine: Machine) -> None:
    """Somebody deletes all rows."""
    with machine.ledger() as ledger:
        states = ledger.read(machine.invariants.row_states)
    stored = machine.sink.stored(TABLE)
    machine.invariants.rows_removed(TABLE, stored, states)
    machine.sink.remove_rows(TABLE, stored)


def copied_before_rows_went(machine: Machine) -> bytes:
    """Let a pass do all there is to do; the copy of the ledger has the files uploaded and no row sent."""
    machine.sink.deny(TABLE, "stream")
    machine.run_pass()
    machine.release()
    copy = machine.copy_ledger()
    machine.sink.deny(TABLE, None)
    machine.run_pass()
    return copy


def kill_while_a_job_is_queued(machine: Machine, seconds: float) -> None:
    """A process begins a load job, which waits for so long, and is killed meanwhile."""
    machine.sink.load_queued_seconds = seconds

    async def kill(_engine: Engine) -> None:
        await machine.clock.sleep(10.0)
        machine.crash_points.arm("step", 1)
        await machine.clock.sleep(1.0)

    with pytest.raises(CrashError):
        machine.follow(kill)
    assert len(machine.sink.queued) == 1
    machine.sink.load_queued_seconds = 0.0


def test_a_lost_ledger_and_removed_objects(machine: Machine) -> None:
    """Goal: a run whose row stands was synced.

    Method: all objects of a run are removed and the ledger is lost; a pass sends neither row nor object.
    """
    gone = machine.local.store()
    kept = machine.local.store(name="kept", saved=["config.json"])
    machine.run_pass()
    names = remove_objects(machine, gone)
    machine.lose_ledger()
    machine.store.uploads.clear()

    left = machine.run_pass()

    assert (left.waiting, left.quarantined, rows(machine)) == (0, 0, 2)
    assert machine.store.uploads == []
    assert names[0] not in machine.store.objects
    assert [machine.state_of(run)[0] for run in (gone, kept)] == ["synced", "synced"]
    machine.check_everything_arrived()


@pytest.mark.parametrize("touched", ["filled", "corrected", "retyped", "all"])
def test_a_lost_ledger_and_touched_rows(machine: Machine, touched: str) -> None:
    """Goal: a row is known by its run. Method: reviews, a correction, a type changed, or all three."""
    for number in range(3):
        machine.local.store(name=f"run{number}", values={"score": number, "loss": number / 3})
    machine.run_pass()
    table = machine.sink.table(TABLE)
    if touched in ("filled", "all"):
        table.add([Column("review", ColumnType.STRING)], machine.clock.now())
        for row in table.rows:
            row.cells["review"] = "good"
    if touched in ("corrected", "all"):
        table.rows[0].cells["score"] = 99
        table.rows[1].cells["timestamp"] = "corrected"
    if touched in ("retyped", "all"):
        table.make_text("score")
        table.make_text("loss")
    machine.lose_ledger()

    left = machine.run_pass()

    assert (left.waiting, left.quarantined, rows(machine)) == (0, 0, 3)
    machine.check_everything_arrived()


@pytest.mark.parametrize("bulk", [False, True])
def test_a_column_with_a_default(machine: Machine, *, bulk: bool) -> None:
    """Goal: what others have BigQuery fill in makes no other row.

    Method: a timestamp that streamed rows get and loaded ones do not; passes go on for hours.
    """
    settled(machine)
    table = machine.sink.table(TABLE)
    table.add([Column("created_at", ColumnType.OTHER)], -float("inf"))
    table.defaults["created_at"] = datetime.fromtimestamp(machine.clock.now(), UTC)
    machine.local.store(name="second")
    for _ in range(3):
        machine.run_pass(bulk=bulk)
        machine.clock.let_pass(3600.0)

    assert rows(machine) == 2
    assert ("created_at" in machine.sink.stored(TABLE)[-1].cells) is not bulk
    machine.check_everything_arrived()


def test_hidden_rows_are_not_sent_again_and_not_called_synced(machine: Machine) -> None:
    """Goal: loaded but not readable is a state with a cause.

    Method: a row access policy hides a table while a service follows: what it saw arrive is sent once. For
    hours passes find what others may have sent, and send nothing of it. Then the policy is lifted.
    """
    first = settled(machine)
    machine.invariants.rows_hidden(TABLE, {})
    machine.invariants.shown.update(machine.invariants.visible_rows())
    machine.sink.hidden.add(TABLE)
    hidden: list[StoredRun] = []

    async def train(engine: Engine) -> None:
        await machine.clock.sleep(30.0)
        for number in range(2):
            hidden.append(machine.local.store(name=f"run{number}"))
            engine.scan_soon(hidden[-1].key.dataset_key)
            await machine.clock.sleep(300.0)

    machine.follow(train)
    unseen = machine.local.store(name="unseen")
    for _ in range(5):
        machine.run_pass(bulk=True)
        machine.clock.let_pass(1800.0)

    assert rows(machine) == 3
    assert machine.state_of(first)[0] == "synced"
    for run in hidden:
        state, cause = machine.state_of(run)
        assert state == "failing"
        assert "took the row and does not show it" in cause
    state, cause = machine.state_of(unseen)
    assert state == "failing"
    assert "hides rows from this account" in cause
    machine.sink.hidden.clear()
    machine.run_pass()
    assert rows(machine) == 4
    machine.check_everything_arrived()


def test_hidden_for_good_costs_ever_less(machine: Machine) -> None:
    """Goal: nothing is asked without end. Method: a service follows for a week; its questions are counted."""
    settled(machine)
    machine.invariants.shown.update(machine.invariants.visible_rows())
    machine.sink.hidden.add(TABLE)

    async def wait(engine: Engine) -> None:
        await machine.clock.sleep(30.0)
        engine.scan_soon(machine.local.store(name="hidden").key.dataset_key)
        await machine.clock.sleep(86400.0)
        machine.sink.counts.clear()
        await machine.clock.sleep(6 * 86400.0)

    machine.follow(wait)

    assert rows(machine) == 2
    assert machine.sink.counts["count_rows"] <= 6 * 24 + 1
    assert machine.sink.counts["stream"] + machine.sink.counts["load"] == 0


def test_a_load_job_that_ended_well_is_not_loaded_again(machine: Machine) -> None:
    """Goal: accepted is never repeated. Method: the loaded row is removed before it is read back."""
    machine.local.store()

    def removed_at_once(method: Method, table: str | None) -> None:
        if method == "load" and table is not None and machine.sink.jobs:
            machine.sink.table(table).rows.clear()
            machine.sink._seen[table] = 0

    answer = machine.sink._answer

    def answer_and_remove(method: Method, table: str | None) -> None:
        answer(method, table)
        removed_at_once(method, table)

    machine.sink._answer = answer_and_remove  # type: ignore[method-assign] # somebody is as fast as that
    for _ in range(5):
        machine.run_pass()
        machine.clock.let_pass(3600.0)

    assert machine.sink.counts["load"] == 1
    assert rows(machine) == 0


@pytest.mark.parametrize("seconds", [0.0, 19.0])
@pytest.mark.parametrize("killed", [False, True])
def test_a_row_that_an_outage_held_back(machine: Machine, seconds: float, *, killed: bool) -> None:
    """Goal: no request that takes effect late makes a second row.

    Method: the network goes away under a streaming insert, whose sender is killed or gives up; minutes later
    it is back, and the insert arrives some time after that, when nothing remembers its insertId any more.
    """
    settled(machine)
    machine.sink.dedup_seconds = 0.0
    faults = machine.cloud_faults
    faults.chances["held_back"] = 1.0
    faults.held_back_seconds = lambda _: seconds  # type: ignore[method-assign, assignment]
    faults.is_orphan = lambda _: True  # type: ignore[method-assign, assignment]

    async def go_away(engine: Engine) -> None:
        engine.scan_soon(machine.local.store(name="second").key.dataset_key)
        await machine.clock.sleep(10.0)
        faults.outages.add(TABLE)
        if killed:
            machine.crash_points.arm("step", 1)
        await machine.clock.sleep(300.0)
        faults.outages.clear()
        faults.chances.clear()
        await machine.clock.sleep(300.0)

    if killed:
        with pytest.raises(CrashError):
            machine.follow(go_away)
        machine.run_pass(attempts_limit=1)
        machine.clock.let_pass(100.0)
        faults.outages.clear()
        faults.chances.clear()
        machine.run_pass()
    else:
        machine.follow(go_away)

    assert faults.fired["held_back_stream"] == 1
    assert (machine.sink.counts["stream"], rows(machine)) == (1, 2)
    machine.check_everything_arrived()


@pytest.mark.parametrize("others_too", [False, True])
def test_a_load_job_that_is_still_queued_when_the_ledger_is_lost(
    machine: Machine, *, others_too: bool
) -> None:
    """Goal: what comes later is waited for.

    Method: a process is killed while its job waits for its turn; its ledger is lost, and perhaps the objects
    that would tell that something was sent.
    """
    run = machine.local.store()
    kill_while_a_job_is_queued(machine, 300.0)
    machine.lose_ledger()
    if others_too:
        machine.clock.let_pass(2.0)
        remove_objects(machine, run)

    machine.run_pass()

    assert rows(machine) == 1
    assert machine.sink.counts["load"] == 1
    machine.check_everything_arrived()


def test_a_load_job_that_somebody_cancels_is_begun_again(machine: Machine) -> None:
    """Goal: what passes by itself is never made permanent. Method: cancel the job while it is queued."""
    machine.local.store()
    machine.sink.load_queued_seconds = 60.0

    async def cancel(_engine: Engine) -> None:
        await machine.clock.sleep(10.0)
        machine.sink.cancel_job(next(iter(machine.sink.queued)))
        await machine.clock.sleep(300.0)

    machine.follow(cancel)

    assert len(machine.sink.jobs) == 2
    machine.check_everything_arrived()


def test_an_older_ledger_comes_back(machine: Machine) -> None:
    """Goal: what it does not know was sent is asked for.

    Method: a copy is made while rows wait; they are sent by stream and by load; the copy comes back.
    """
    settled(machine)
    for number in range(3):
        machine.local.store(name=f"run{number}")
    copy = copied_before_rows_went(machine)
    assert rows(machine) == 4
    machine.put_ledger_back(copy)
    machine.store.uploads.clear()

    machine.run_pass()

    assert rows(machine) == 4
    assert machine.store.uploads == []
    machine.check_everything_arrived()


def test_an_older_ledger_and_a_newer_version_of_a_file(machine: Machine) -> None:
    """Goal: what has changed here is carried, though the row stood before this ledger knew it.

    Method: a copy is made before the row goes; then it goes; the copy comes back, and the image is changed.
    """
    settled(machine)
    run = machine.local.store(name="second")
    copy = copied_before_rows_went(machine)
    machine.put_ledger_back(copy)
    machine.clock.let_pass(10.0)
    machine.local.put_image(run, IMAGE)
    # The change is seen before the table answers.
    machine.cloud_faults.latency_seconds = 1.0

    machine.run_pass()

    assert rows(machine) == 2
    machine.check_everything_arrived()


def test_equal_rows_of_one_run(machine: Machine) -> None:
    """Goal: records that map to equal rows have a row each, and count as synced each by its own.

    Method: 1.0 and 1, null and "None", a default given and left out; the answer of the second insert is lost.
    """
    run = settled(machine, score=0.5, note="x")
    for one, other in (
        ({"score": 1.0}, {"score": 1}),
        ({"note": None}, {"note": "None"}),
        ({}, {"generation_params": ""}),
    ):
        run = machine.local.store(name=f"run{len(machine.local.runs)}", commit=False)
        machine.local.commit(run, one)
        machine.run_pass()
        machine.local.commit(run, other)
        machine.sink.fail_next("stream", SyncError("stream", TABLE, "no answer", failure=Failure.IN_DOUBT))
        machine.run_pass()

    assert rows(machine) == 7
    machine.check_everything_arrived()


def test_deleted_in_the_cloud_stays_deleted(machine: Machine) -> None:
    """Goal: nothing is sent by itself that was synced.

    Method: rows and objects go, then the table; passes of each kind change nothing.
    """
    run = settled(machine)
    remove_objects(machine, run)
    remove_rows(machine)
    for full in (False, True):
        machine.run_pass(full=full)
        assert (rows(machine), machine.store.objects) == (0, {})
    machine.sink.drop(TABLE)
    machine.run_pass(full=True)

    assert machine.sink.tables == []
    assert machine.state_of(run)[0] == "synced"


def test_a_lost_ledger_and_deleted_rows(machine: Machine) -> None:
    """Goal: nobody can tell a deleted row from one that was never sent: it is sent once, and arrives.

    Method: the row went by a load job of the very same rows, which must not be taken for the new one.
    """
    machine.local.store()
    machine.run_pass()
    remove_rows(machine)
    machine.lose_ledger()

    machine.run_pass()

    assert rows(machine) == 1
    assert len(machine.sink.jobs) == 2
    machine.check_everything_arrived()


@pytest.mark.parametrize("refused", [False, True])
def test_a_lost_ledger_and_pruned_runs(folder: Path, *, refused: bool) -> None:
    """Goal: they are history, and nobody needs to put them back.

    Method: folders of synced runs are deleted, one without images among them, and the ledger is lost;
    perhaps the table may not be read at first, and `retry` follows.
    """
    machine = Machine(folder, accept_runs_without_images=True)
    runs = [machine.local.store(name=f"run{images}", images=images) for images in (0, 2)]
    machine.run_pass()
    for run in runs:
        machine.local.prune(run)
    machine.lose_ledger()
    if refused:
        machine.sink.deny(TABLE, "count_rows")
        machine.run_pass()
        assert machine.state_of(runs[0])[0] == "quarantined"
        machine.sink.deny(TABLE, None)
        machine.release()

    left = machine.run_pass()

    assert (left.waiting, left.quarantined, rows(machine)) == (0, 0, 2)
    machine.check_everything_arrived()


def test_a_lost_ledger_and_a_run_that_is_pruned_while_its_objects_are_found(folder: Path) -> None:
    """Goal: history stays history whenever its folder goes. Method: after each transaction of the adoption.

    Two datasets share their table, so that a name does not tell whose row stands there.
    """
    for commits in range(1, 100):
        (root := folder / str(commits)).mkdir()
        machine = Machine(root)
        runs = [machine.local.store("a_b", "c"), machine.local.store("a", "b_c", name="other")]
        machine.run_pass()
        machine.lose_ledger()
        machine.crash_points.arm("commit", commits)
        try:
            machine.run_pass()
        except CrashError:
            for run in runs:
                machine.local.prune(run)
        machine.crash_points.arm("", 0)
        machine.run_pass()
        assert machine.check().runs[RunState.SYNCED] == len(runs)
        machine.check_everything_arrived()
        if not machine.crashes:
            break
    assert commits > 5


@pytest.mark.parametrize("noticed", [False, True])
def test_a_table_that_was_made_anew_without_what_it_took(machine: Machine, *, noticed: bool) -> None:
    """Goal: only then is a row sent again that was accepted.

    Method: its table is copied too early; another run may need a column then, so that the new table is known.
    """
    settled(machine)

    async def replace_table(engine: Engine) -> None:
        machine.sink.visible_after_seconds = 60.0
        engine.scan_soon(machine.local.store(name="second").key.dataset_key)
        await machine.clock.sleep(20.0)
        columns = list(machine.sink.table(TABLE).columns.values())
        stored = machine.sink.stored(TABLE)
        machine.invariants.rows_removed(TABLE, stored[1:], {}, dropped=True)
        machine.sink.recreate(TABLE, columns, stored[:1])
        machine.sink.visible_after_seconds = 0.0
        if noticed:
            engine.scan_soon(machine.local.store(name="third", values={"note": "x"}).key.dataset_key)
        await machine.clock.sleep(3600.0)

    machine.follow(replace_table)

    assert rows(machine) == 2 + noticed
    machine.check_everything_arrived()


def test_a_record_that_is_synced_may_have_either_row_of_its_run(machine: Machine) -> None:
    """Goal: which row is a synced record's is not known, so none is kept from the others for that.

    Method: datasets share a table; of a run's two records only the second has a link that tells its dataset.
    An older ledger, which knows the first alone, comes back.
    """
    other = machine.local.store("a", "b_c", "other")
    run = machine.local.store("a_b", "c", "run")
    machine.run_pass()
    copy = machine.copy_ledger()
    machine.local.commit(run, {"curve": {"a": 1}})
    machine.run_pass()
    assert len(machine.sink.stored(other.table)) == 3
    machine.put_ledger_back(copy)

    machine.run_pass()

    assert len(machine.sink.stored(other.table)) == 3
    machine.check_everything_arrived()


def test_a_copy_of_a_run_does_not_take_the_row_of_one_that_may_not_be_read(machine: Machine) -> None:
    """Goal: a row that was taken is its record's, even where it could not be read back.

    Method: two datasets share a table; a run's row is taken and may not be read, so that it waits; a copy
    of the run comes into the other dataset.
    """
    other = machine.local.store("a", "b_c", "other")
    machine.run_pass()
    record = machine.local.commit(machine.local.store("a_b", "c", "run", commit=False))
    machine.sink.deny(other.table, "read_rows")
    machine.run_pass()
    assert machine.state_of(record)[0] == "failing"
    machine.sink.deny(other.table, None)
    assert machine.local.copy(record, "a", "b_c")

    machine.run_pass()

    assert len(machine.sink.stored(other.table)) == 3
    machine.check_everything_arrived()


def test_an_older_ledger_that_was_sending_by_a_load_job(machine: Machine) -> None:
    """Goal: its job may have failed since, and the rows have come by another one.

    Method: a process is killed while its job is queued, and a copy of its ledger is made; the job fails, the
    next process sends anew, and the copy comes back.
    """
    machine.local.store()
    machine.local.store(name="other")
    machine.sink.fail_next_job(JobFailedError("load", TABLE, "not now", failure=Failure.TRANSIENT))
    kill_while_a_job_is_queued(machine, 60.0)
    copy = machine.copy_ledger()
    machine.run_pass()
    assert rows(machine) == 2
    machine.put_ledger_back(copy)

    machine.run_pass()

    assert rows(machine) == 2
    machine.check_everything_arrived()


def test_the_row_of_a_load_job_under_way_answers_for_no_other_record(folder: Path) -> None:
    """Goal: a row is its own record's.

    Method: of a run's two records one is refused, and the process is killed while the other one's job is
    queued; the first is taken up again, and asked for when that job has ended.
    """
    machine = Machine(folder, load_rows_limit=1)
    run = machine.local.store(values={"note": "one"})
    machine.local.commit(run, {"note": "other"})
    refusal = JobFailedError("load", TABLE, "it is bad", failure=Failure.PERMANENT)
    machine.sink.fail_next_job(refusal)
    kill_while_a_job_is_queued(machine, 8.0)
    machine.release()

    machine.run_pass()

    assert rows(machine) == 2
    machine.check_everything_arrived()


def test_a_clock_that_was_set_back_does_not_make_a_new_table_old(folder: Path) -> None:
    """Goal: streaming into a new table may lose rows. Method: set the clock back a day, and store runs."""
    machine = Machine(folder, load_rows_limit=1, stream_rows_limit=1)
    machine.local.store(name="first")
    machine.sink.new_table_swallows_seconds = 0.6 * machine.settings.table_settle_seconds
    machine.run_pass()
    machine.clock.jump(-86400.0)
    for name in ("second", "third"):
        machine.local.store(name=name)

    machine.run_pass()

    assert machine.sink.swallowed == []
    machine.check_everything_arrived()


def test_time_stops_where_a_queued_job_runs(machine: Machine) -> None:
    """Goal: the model itself. Method: nobody waits for a job; its row arrives at its very second."""
    machine.local.store()
    kill_while_a_job_is_queued(machine, 90.0)
    [job] = machine.sink.queued.values()
    machine.clock.run(partial(machine.clock.sleep, 600.0))
    [row] = machine.sink.stored(TABLE)
    assert row.visible_at == pytest.approx(job.due_at, abs=0.01)
