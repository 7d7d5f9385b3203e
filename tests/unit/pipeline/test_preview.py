"""What ``backfill --dry-run`` foresees, against what the engine then does, on fakes."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli import report
from pixaris_sync.errors import ConfigurationError, Failure, LedgerError, SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import Column, ColumnType, RunKey
from pixaris_sync.pipeline.context import Mode
from tests.support.fake_cloud import TABLE, FakeCloud, object_of, run_name

pytestmark = pytest.mark.anyio

BULK = Mode(bulk=True)
CHANGES = ("upload", "upload_resumable", "create_table", "add_columns", "widen_columns", "stream", "load")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    folder = tmp_path / "local_results"
    folder.mkdir()
    cloud = FakeCloud(folder)
    yield cloud
    cloud.ledger.close()


async def columns_of(cloud: FakeCloud, table: str) -> tuple[Column, ...] | None:
    found = await cloud.sink.describe(table)
    return found and found.columns


async def foresee_and_do(cloud: FakeCloud, mode: Mode = BULK) -> dict[str, Any]:
    """The plan, once it proved to be what a backfill does; it changes nothing itself."""
    ledger = list(cloud.ledger._connection.iterdump())
    plan = await cloud.preview(mode)
    assert list(cloud.ledger._connection.iterdump()) == ledger
    before = {table: await columns_of(cloud, table) for table in cloud.sink.tables}
    sent_before = cloud.store.upload_counts.total()
    synced_before = cloud.overview().runs["synced"]

    tally = await cloud.sync(mode)

    assert cloud.store.upload_counts.total() - sent_before == plan["files"] == tally.files
    assert plan["files_found"] == tally.files_found
    assert (plan["bytes"], plan["bytes_found"]) == (tally.bytes, tally.bytes_found)
    assert plan["rows"] + plan["rows_found"] == tally.rows
    assert cloud.overview().runs["synced"] - synced_before == plan["runs"]
    assert [one["table"] for one in plan["tables_to_create"]] == [
        table for table in cloud.sink.tables if table not in before
    ]
    for one in plan["tables_to_create"]:
        assert one["columns"] == _columns(await columns_of(cloud, one["table"]))
    for table, columns in before.items():
        after = {column["name"]: column["type"] for column in _columns(await columns_of(cloud, table))}
        was = {column["name"]: column["type"] for column in _columns(columns)}
        added = {one["name"]: one["type"] for one in plan["columns_to_add"] if one["table"] == table}
        widened = {one["name"]: one["type"] for one in plan["columns_to_widen"] if one["table"] == table}
        assert {**was, **added, **widened} == after
    return plan


def _columns(columns: tuple[Column, ...] | None) -> list[dict[str, str]]:
    assert columns is not None
    return [{"name": column.name, "type": str(column.type)} for column in columns]


async def test_a_first_plan_is_what_then_happens(cloud: FakeCloud) -> None:
    """Goal: acceptance. Method: runs with images, dict metrics and odd keys; plan, backfill, compare."""
    odd: dict[str, Any] = {"odd key": "x"}
    cloud.store_run(1, images=2, score=1, metric={"a": 1}, **odd)
    cloud.store_run(2, score=2.5)

    plan = await foresee_and_do(cloud)

    assert (plan["runs"], plan["files"], plan["rows"]) == (2, 4, 2)
    assert [one["table"] for one in plan["tables_to_create"]] == [TABLE]
    assert [one["key"] for one in plan["names_rewritten"]] == ["odd key"]
    assert {"name": "score", "type": "FLOAT"} in plan["tables_to_create"][0]["columns"]
    assert plan["not_carried"] == []


async def test_planning_changes_nothing_in_the_cloud(cloud: FakeCloud) -> None:
    """Goal: a dry run is dry. Method: the calls that the fakes saw."""
    cloud.store_run(1, score=1)
    await cloud.sync()
    seen = len(cloud.store.calls), len(cloud.sink.calls)
    cloud.store_run(2, score=2.5, new="x")

    await cloud.preview()

    called = [call.method for call in cloud.store.calls[seen[0] :]]
    called += [call.method for call in cloud.sink.calls[seen[1] :]]
    assert called
    assert not set(called) & set(CHANGES)


async def test_new_columns_and_wider_ones_are_foreseen_across_batches(cloud: FakeCloud) -> None:
    """Goal: the table is followed from batch to batch. Method: batches of one row whose columns drift."""
    cloud.store_run(1, score=1)
    await cloud.sync(BULK)
    cloud.change(load_rows_limit=1, bulk_spacing_seconds=0.0)
    cloud.store_run(2, score=2**53 + 1, fresh=1)
    cloud.store_run(3, score=2.5, fresh="text")
    cloud.store_run(4, score="words", late=True)

    plan = await foresee_and_do(cloud)

    assert [one["name"] for one in plan["columns_to_widen"]] == ["score"]
    added = {one["name"] for one in plan["columns_to_add"]}
    assert {"late", "fresh", "score__string", "score__integer"} <= added


async def test_a_new_table_is_foreseen_as_it_is_after_its_last_batch(cloud: FakeCloud) -> None:
    """Goal: what a later batch widens is planned wide. Method: an integer goes first, a float after it."""
    cloud.change(load_rows_limit=1, bulk_spacing_seconds=0.0)
    cloud.store_run(1, score=0.5)
    cloud.store_run(2, score=1)

    plan = await foresee_and_do(cloud)

    [table] = plan["tables_to_create"]
    assert {"name": "score", "type": "FLOAT"} in table["columns"]
    assert plan["columns_to_widen"] == []


async def test_with_a_lost_ledger_what_is_there_is_found(cloud: FakeCloud) -> None:
    """Goal: nothing is planned twice. Method: sync, lose the ledger, store one run more."""
    cloud.store_run(1, images=2, score=math.nan)
    await cloud.sync()
    cloud.forget_ledger()
    cloud.store_run(2)

    plan = await foresee_and_do(cloud)

    assert (plan["files_found"], plan["rows_found"]) == (2, 1)
    assert (plan["runs"], plan["files"], plan["rows"]) == (2, 1, 1)


async def test_objects_without_their_row_ask_for_the_row_alone(cloud: FakeCloud) -> None:
    """Goal: rows are looked for, not assumed. Method: lose the ledger and one of two rows."""
    cloud.store_run(1)
    gone = cloud.store_run(2)
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    rows[:] = [row for row in rows if row.cells["experiment_run_name"] != gone.run]
    cloud.forget_ledger()

    plan = await foresee_and_do(cloud)

    assert (plan["files"], plan["rows"], plan["rows_found"]) == (0, 1, 1)


async def test_what_cannot_be_carried_is_listed_with_its_cause(cloud: FakeCloud) -> None:
    """Goal: no plan promises too much. Method: no images, no line, a bad line, an object in the way."""
    bare = cloud.store_run(1, images=0)
    cut = RunKey("project", "dataset", run_name(2))
    cloud.path(cut).mkdir()
    blocked = cloud.store_run(3, images=2)
    cloud.store.put(object_of(blocked), b"somebody else's")
    cloud.append("{damaged\n")
    cloud.store_run(4)

    plan = await foresee_and_do(cloud)

    causes = {one["run"]: one["cause"] for one in plan["not_carried"]}
    assert causes == {problem.run: problem.cause for problem in cloud.overview().problems}
    assert {str(bare), str(cut), str(blocked)} < set(causes)
    assert plan["runs"] == 1


async def test_a_selection_limits_the_plan(cloud: FakeCloud) -> None:
    """Goal: the flags of backfill hold for its plan. Method: select the middle one of three runs."""
    for second in (1, 2, 3):
        cloud.store_run(second, images=0 if second == 3 else second)
    mode = Mode(bulk=True, selection=Selection(since=run_name(2), until=run_name(3)))

    plan = await foresee_and_do(cloud, mode)

    assert (plan["runs"], plan["files"], plan["rows"]) == (1, 2, 1)
    assert plan["not_carried"] == []
    assert (await cloud.preview(Mode(selection=Selection(projects=("another",)))))["runs"] == 0


async def test_work_that_was_cut_off_is_looked_up(cloud: FakeCloud) -> None:
    """Goal: a plan after a crash is right. Method: leave an upload claimed that did happen."""
    cloud.store_run(1)
    await cloud.sync(BULK)
    uploading = "UPDATE files SET state = 'uploading', ours = 0, generation = 0, crc32c = NULL"
    cloud.ledger.write(lambda db: db.execute(uploading).rowcount)
    cloud.ledger.write(lambda db: db.execute("UPDATE runs SET state = 'pending'").rowcount)

    plan = await cloud.preview()

    assert (plan["files"], plan["files_found"], plan["runs"]) == (0, 1, 1)
    assert cloud.store.counts["stat"] == 1


async def test_a_load_job_without_an_end_counts_by_what_the_table_shows(cloud: FakeCloud) -> None:
    """Goal: neither promised twice nor begun. Method: the job's answer is lost, with and without its rows."""
    cloud.store_run(1)
    cloud.change(sync_attempts_limit=1)
    lost = SyncError("load rows into table", TABLE, "the answer was lost", failure=Failure.IN_DOUBT)
    cloud.sink.fail_next("load", lost)
    await cloud.sync(Mode(bulk=True, selection=Selection(attempts_limit=1)))
    assert cloud.overview().rows["sending"] == 1

    assert (await cloud.preview())["rows"] == 1
    cloud.sink._tables[TABLE].rows.append(replace(_any_row(), cells=await _row_of_the_only_run(cloud)))
    plan = await cloud.preview()
    assert (plan["rows"], plan["rows_found"], plan["runs"]) == (0, 1, 1)


def _any_row() -> Any:
    from tests.fakes.row_table import StoredRow  # noqa: PLC0415 - used here alone

    return StoredRow({}, "elsewhere", "load", -math.inf)


async def _row_of_the_only_run(cloud: FakeCloud) -> dict[str, Any]:
    other = FakeCloud(cloud.folder)
    await other.sync()
    other.ledger.close()
    [cells] = other.rows()
    return dict(cells)


@pytest.mark.parametrize("part", ["bucket", "dataset", "folder"])
async def test_a_missing_destination_or_folder_ends_it(cloud: FakeCloud, part: str) -> None:
    """Goal: no plan for what cannot be. Method: take each part away."""
    cloud.store_run(1)
    if part == "bucket":
        cloud.store.missing = True
    elif part == "dataset":
        cloud.sink.dataset_exists = False
    else:
        cloud.change(local_results_folder=cloud.folder / "nowhere")

    with pytest.raises(ConfigurationError):
        await cloud.preview()


async def test_a_cloud_that_does_not_answer_ends_it(cloud: FakeCloud) -> None:
    """Goal: no half plan. Method: listing, columns and rows fail in turn, transiently."""
    cloud.store_run(1)
    down = SyncError("ask", "the cloud", "503", failure=Failure.TRANSIENT)
    cloud.store.fail_next("list", down)
    with pytest.raises(ExceptionGroup):
        await cloud.preview()
    cloud.sink.fail_next("describe", down)
    with pytest.raises(ExceptionGroup):
        await cloud.preview()
    await cloud.sync()
    cloud.forget_ledger()
    cloud.sink.fail_next("count_rows", down)
    with pytest.raises(ExceptionGroup):
        await cloud.preview()
    assert (cloud.store.faults_fired, cloud.sink.faults_fired.total()) == (1, 2)


async def test_a_table_without_permission_is_not_carried_and_others_are(cloud: FakeCloud) -> None:
    """Goal: as the engine, one table's refusal is its own. Method: its columns may not be read."""
    run = cloud.store_run(1)
    cloud.sink.fail_next("describe", SyncError("read", TABLE, "403", failure=Failure.PERMISSION))

    plan = await cloud.preview()

    assert [(one["run"], one["cause"]) for one in plan["not_carried"]] == [
        (str(run), f"cannot read {TABLE}: 403")
    ]
    assert (plan["runs"], plan["rows"], plan["tables_to_create"]) == (0, 0, [])


async def test_the_plan_reads_well(cloud: FakeCloud) -> None:
    """Goal: short, aligned text. Method: print one with something of everything."""
    cloud.sink.put_table(TABLE, [Column("score", ColumnType.INTEGER)])
    odd: dict[str, Any] = {"odd key": "x"}
    cloud.store_run(1, score=0.5, **odd)
    cloud.store_run(2, images=0)

    text = report.preview_text(await cloud.preview())

    lines = text.splitlines()
    assert lines[0].startswith("would carry    1 run: 1 file (")
    assert f"widen column   {TABLE}.score to FLOAT" in lines
    assert f"add column     {TABLE}.timestamp STRING" in lines
    assert any(line.startswith(f'rename         {TABLE}: "odd key" to odd_key_') for line in lines)
    assert any(
        line.startswith(f"not carried    project/dataset/{run_name(2)}: quarantined") for line in lines
    )
    assert lines[-1] == "nothing was changed"


def test_a_long_list_of_what_is_not_carried_is_cut() -> None:
    """Goal: years of trouble fit on a screen. Method: one problem more than are shown."""
    lists = ("tables_to_create", "columns_to_add", "columns_to_widen", "names_rewritten")
    amounts = ("runs", "files", "bytes", "rows", "files_found", "bytes_found", "rows_found")
    nothing = {**{key: [] for key in lists}, **dict.fromkeys(amounts, 0)}
    problems = [
        {"run": f"p/d/{n}", "state": "incomplete", "cause": "x"} for n in range(report.PROBLEMS_SHOWN + 1)
    ]

    lines = report.preview_text({**nothing, "not_carried": problems}).splitlines()

    assert lines[-2] == "not carried    and 1 more: --json lists all"
    assert len(lines) == report.PROBLEMS_SHOWN + 4


def test_a_copy_of_a_ledger_leaves_no_trace(tmp_path: Path) -> None:
    """Goal: a dry run does not even make SQLite's side files. Method: copy a resting ledger, look around."""
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger.open(path)
    ledger.write(lambda db: db.execute("INSERT INTO facts VALUES ('a', 'b')").rowcount)
    ledger.close()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path, *tmp_path.iterdir())}

    copy = Ledger.in_memory(copy_of=path)
    copy.write(lambda db: db.execute("INSERT INTO facts VALUES ('c', 'd')").rowcount)

    assert copy.read(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()[0]) == 2
    assert {file: file.stat().st_mtime_ns for file in (tmp_path, *tmp_path.iterdir())} == before
    copy.close()
    again = Ledger.open(path)
    assert again.read(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()[0]) == 1
    again.close()


def test_a_copy_has_what_a_running_process_has_written(tmp_path: Path) -> None:
    """Goal: planning beside a daemon. Method: copy a ledger that is open and not checkpointed."""
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger.open(path)
    ledger.write(lambda db: db.execute("INSERT INTO facts VALUES ('a', 'b')").rowcount)

    copy = Ledger.in_memory(copy_of=path)

    assert copy.read(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()[0]) == 1
    copy.close()
    ledger.close()


def test_a_copy_of_nothing_is_a_new_ledger_and_one_of_rubbish_an_error(tmp_path: Path) -> None:
    """Goal: both ends are clear. Method: no file; a file that is no database."""
    fresh = Ledger.in_memory(copy_of=tmp_path / "none.sqlite3")
    assert fresh.read(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()[0]) == 0
    fresh.close()
    assert not list(tmp_path.iterdir())
    rubbish = tmp_path / "rubbish.sqlite3"
    rubbish.write_bytes(b"no database" * 100)

    with pytest.raises(LedgerError, match="rubbish"):
        Ledger.in_memory(copy_of=rubbish)
