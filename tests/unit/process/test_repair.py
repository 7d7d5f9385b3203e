"""What is removed from the cloud is taken up again, carried, and nothing else is touched; on fakes."""

import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pixaris_sync.clock import SystemClock
from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.model import DatasetKey, RemoteObject
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.repair import Repair, take_up_until_signal
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink
from tests.support.fake_cloud import TABLE, FakeCloud, object_of, run_name

pytestmark = pytest.mark.anyio

METRIC = "details.json"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    folder = tmp_path / "local_results"
    folder.mkdir()
    cloud = FakeCloud(folder)
    yield cloud
    cloud.ledger.close()


def signs(repair: Repair) -> list[tuple[str, str]]:
    return [(str(finding.sign), finding.subject) for finding in repair.left]


def forget_rows(cloud: FakeCloud, table: str = TABLE) -> None:
    cloud.sink._tables[table].rows.clear()


async def test_a_healthy_state_is_left_alone(cloud: FakeCloud) -> None:
    """Goal: nothing to repair, nothing done. Method: after a sync; ledger and cloud before and after."""
    cloud.store_run(1, images=2, details={"a": 1})
    await cloud.sync()
    objects, rows = dict(cloud.store.objects), cloud.rows()
    before = list(cloud.ledger._connection.iterdump())

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (0, 0, [])
    assert (cloud.store.objects, cloud.rows()) == (objects, rows)
    assert list(cloud.ledger._connection.iterdump()) == before


@pytest.mark.parametrize("path", ["generated_images/0.png", "flow.json", METRIC])
async def test_a_removed_object_comes_back_and_its_row_stays_one(cloud: FakeCloud, path: str) -> None:
    """Goal: each kind of file is restored alone. Method: remove it; count uploads and rows."""
    flow = f"x/project/dataset/{run_name(1)}/flow.json"
    run = cloud.store_run(1, images=2, details={"a": 1}, flow=flow)
    (cloud.path(run) / "flow.json").write_text("{}")
    await cloud.sync()
    content = cloud.store.objects.pop(object_of(run, path)).content
    uploads, rows = cloud.store.counts["upload"], cloud.rows()

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (1, 0, [])
    assert cloud.store.objects[object_of(run, path)].content == content
    assert cloud.store.counts["upload"] == uploads + 1
    assert cloud.rows() == rows
    assert await cloud.differences() == []


async def test_removed_rows_come_back_line_by_line(cloud: FakeCloud) -> None:
    """Goal: of a run's rows the missing one is sent. Method: two lines in one folder, one row deleted."""
    cloud.store_run(1, score=1.5)
    cloud.store_run(1, score=2.5)
    cloud.store_run(2)
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    rows[:] = [row for row in rows if row.cells.get("score") != 1.5]

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (0, 1, [])
    assert sorted(row.get("score", 0.0) for row in cloud.rows()) == [0.0, 1.5, 2.5]
    assert await cloud.differences() == []


async def test_everything_that_was_removed_comes_back(cloud: FakeCloud) -> None:
    """Goal: a table and a bucket that were emptied are whole again. Method: remove all, twice in a row.

    The second time, load jobs of the first repair are known to the service by their ids.
    """
    for second in range(4):
        cloud.store_run(second, images=2, details={"a": second}, score=second / 2)
    await cloud.sync()
    objects = {name: stored.content for name, stored in cloud.store.objects.items()}
    for _ in range(2):
        cloud.store.objects.clear()
        del cloud.sink._tables[TABLE]

        repair = await cloud.repair()

        assert (repair.objects, repair.rows, repair.left) == (12, 4, [])
        assert {name: stored.content for name, stored in cloud.store.objects.items()} == objects
        assert sorted(row["score"] for row in cloud.rows()) == [0.0, 0.5, 1.0, 1.5]
        assert await cloud.differences() == []
        assert cloud.overview().runs["synced"] == 4


async def test_a_pass_that_makes_a_removed_table_anew_says_what_restores_its_rows(
    cloud: FakeCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: nobody believes that old rows are there. Method: remove a table, store a run; do as it says."""
    cloud.store_run(1)
    await cloud.sync()
    assert "made anew" not in caplog.text
    del cloud.sink._tables[TABLE]
    cloud.store_run(2)

    await cloud.sync()

    assert "was removed, and is made anew: `pixaris-sync sync --repair` restores the rows" in caplog.text
    assert [row["experiment_run_name"] for row in cloud.rows()] == [run_name(2)]
    assert (await cloud.repair()).rows == 1
    assert await cloud.differences() == []


async def test_what_a_lost_ledger_found_is_repaired_too(cloud: FakeCloud) -> None:
    """Goal: it does not matter who sent it. Method: lose the ledger and objects, sync, lose a row, repair."""
    run = cloud.store_run(1, images=2, details={"a": 1})
    other = cloud.store_run(2)
    await cloud.sync()
    cloud.forget_ledger()
    del cloud.store.objects[object_of(run)], cloud.store.objects[object_of(run, METRIC)]
    await cloud.sync()
    assert object_of(run) not in cloud.store.objects
    rows = cloud.sink._tables[TABLE].rows
    rows[:] = [row for row in rows if row.cells["experiment_run_name"] != other.run]

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (2, 1, [])
    assert await cloud.differences() == []
    assert len(cloud.rows()) == 2


async def test_what_is_there_and_differs_stays(cloud: FakeCloud) -> None:
    """Goal: nothing is overwritten or corrected. Method: another object, a corrected cell, a lost column."""
    run = cloud.store_run(1, score=1.5, note="x")
    await cloud.sync()
    cloud.store.put(object_of(run), b"another")
    cells = cloud.sink._tables[TABLE].rows[0].cells
    cells["score"] = 2.5
    del cells["note"]

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.unrestored) == (0, 0, 0)
    assert signs(repair) == [("*", object_of(run)), ("*", f"{TABLE}:{run.run}")]
    assert repair.left[1].detail.endswith("record: score, note")
    assert cloud.store.objects[object_of(run)].content == b"another"
    assert [row["score"] for row in cloud.rows()] == [2.5]


async def test_what_nobody_has_any_more_is_told(cloud: FakeCloud) -> None:
    """Goal: no false promise. Method: the file, or the line, is gone here as well."""
    first, second = cloud.store_run(1, images=2), cloud.store_run(2)
    await cloud.sync()
    (cloud.path(first) / "generated_images" / "0.png").unlink()
    del cloud.store.objects[object_of(first)]
    cloud.tracking().write_text("")
    forget_rows(cloud)

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.unrestored) == (0, 0, 3)
    assert sorted(signs(repair)) == [
        ("-", f"{TABLE}:{first.run}"),
        ("-", f"{TABLE}:{second.run}"),
        ("-", object_of(first)),
    ]
    assert {finding.hint for finding in repair.left} == {"restore it from a backup"}
    assert cloud.rows() == []


async def test_a_run_that_was_pruned_here_in_part_is_restored_as_far_as_it_goes(cloud: FakeCloud) -> None:
    """Goal: history at home is no obstacle. Method: prune files and a run; remove an object and rows."""
    first = cloud.store_run(1, images=2, flow=f"x/project/dataset/{run_name(1)}/flow.json")
    (cloud.path(first) / "flow.json").write_text("{}")
    second = cloud.store_run(2)
    await cloud.sync()
    (cloud.path(first) / "generated_images" / "1.png").unlink()
    (cloud.path(first) / "flow.json").unlink()
    shutil.rmtree(cloud.path(second))
    del cloud.store.objects[object_of(first)]
    forget_rows(cloud)

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (1, 2, [])
    assert await cloud.differences() == []
    assert len(cloud.rows()) == 2


async def test_files_of_runs_without_a_line_come_back(cloud: FakeCloud) -> None:
    """Goal: a rotated tracking file does not keep objects away. Method: empty it, remove an object."""
    run = cloud.store_run(1)
    await cloud.sync()
    cloud.tracking().write_text("")
    del cloud.store.objects[object_of(run)]

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (1, 0, [])
    assert await cloud.differences() == []


async def test_an_object_that_somebody_puts_there_meanwhile_is_not_overwritten(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the generation guards it. Method: another content arrives between comparison and upload."""
    run = cloud.store_run(1)
    await cloud.sync()
    del cloud.store.objects[object_of(run)]
    upload = FakeObjectStore.upload

    async def be_late(store: FakeObjectStore, name: str, *args: Any, **options: Any) -> RemoteObject:
        store.put(name, b"theirs")
        return await upload(store, name, *args, **options)

    monkeypatch.setattr(FakeObjectStore, "upload", be_late)

    await cloud.repair()

    assert cloud.store.objects[object_of(run)].content == b"theirs"
    assert cloud.overview().runs["quarantined"] == 1


async def test_a_row_that_the_table_took_and_does_not_show_is_sent_again(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the hint of such a row is true. Method: a taken row vanishes at once; repair, as it says."""
    cloud.store_run(1)
    await cloud.sync()
    cloud.change(visibility_timeout_seconds=0.0)
    load = FakeRowSink.load

    async def load_in_vain(sink: FakeRowSink, table: str, *args: Any, **options: Any) -> None:
        await load(sink, table, *args, **options)
        sink._tables[table].rows.pop()

    cloud.store_run(2)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(FakeRowSink, "load", load_in_vain)
        await cloud.sync()
    [problem] = cloud.overview().problems
    assert "`pixaris-sync sync --repair`" in problem.hint

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.left) == (0, 1, [])
    assert len(cloud.rows()) == 2
    assert await cloud.differences() == []


async def test_a_table_that_cannot_be_read_is_left_and_the_rest_repaired(cloud: FakeCloud) -> None:
    """Goal: one trouble hides nothing else. Method: the first table's reading breaks off."""
    cloud.store_run(1)
    other = cloud.store_run(2, dataset=DatasetKey("project", "other"))
    await cloud.sync()
    del cloud.store.objects[object_of(other)]
    cloud.sink.fail_next("read_table", SyncError("read table", TABLE, "503", failure=Failure.TRANSIENT))

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, signs(repair)) == (1, 0, [("!", TABLE)])
    assert repair.unrestored == 1
    assert await cloud.differences() == []


async def test_a_signal_ends_a_comparison(cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: whoever ends it is obeyed, and nothing is half done. Method: SIGTERM while it lists."""
    run = cloud.store_run(1)
    await cloud.sync()
    del cloud.store.objects[object_of(run)]

    async def hang(_: FakeObjectStore, prefix: str) -> AsyncIterator[list[RemoteObject]]:
        assert prefix
        signal.raise_signal(signal.SIGTERM)
        await anyio.sleep_forever()
        yield []

    throttle = Throttle(cloud.settings, cloud.ledger.path, SystemClock())
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(FakeObjectStore, "list", hang)
        repair, interruption = await take_up_until_signal(
            cloud.settings, cloud.ledger, cloud.store, cloud.sink, clock=SystemClock(), throttle=throttle
        )
    assert (repair, interruption.number) == (None, signal.SIGTERM)
    again, interruption = await take_up_until_signal(
        cloud.settings, cloud.ledger, cloud.store, cloud.sink, clock=SystemClock(), throttle=throttle
    )
    assert again is not None
    assert (again.objects, interruption.number) == (1, None)


async def test_rows_that_are_hidden_are_not_sent_again(cloud: FakeCloud) -> None:
    """Goal: a row access policy doubles nothing. Method: repair while it hides rows, and when it is gone."""
    run = cloud.store_run(1)
    await cloud.sync()
    cloud.sink.hidden = {TABLE}

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, repair.unrestored) == (0, 0, 1)
    assert signs(repair) == [("!", f"{TABLE}:{run.run}")]
    assert len(cloud.rows()) == 1
    cloud.sink.hidden = set()
    assert await cloud.differences() == []


async def test_rows_that_lost_their_names_are_not_sent_again(cloud: FakeCloud) -> None:
    """Goal: the deleted column may be that of the names. Method: take the name from the row; give it back."""
    run = cloud.store_run(1)
    await cloud.sync()
    cells = cloud.sink._tables[TABLE].rows[0].cells
    name = cells.pop("experiment_run_name")

    repair = await cloud.repair()

    assert (repair.rows, signs(repair)) == (0, [("!", f"{TABLE}:{run.run}")])
    assert "experiment_run_name" in repair.left[0].hint
    assert len(cloud.rows()) == 1
    cells["experiment_run_name"] = name
    assert await cloud.differences() == []


async def test_rows_of_a_shared_table_come_back_to_their_own_datasets(cloud: FakeCloud) -> None:
    """Goal: runs of one name are not mixed up. Method: of two in a table, one deleted, one corrected."""
    one = cloud.store_run(1, dataset=DatasetKey("a_b", "c"), details={"a": 1}, score=1.0)
    two = cloud.store_run(1, dataset=DatasetKey("a", "b_c"), details={"a": 2}, score=1.0)
    await cloud.sync()
    table = "a_b_c_experiment_results"
    rows = cloud.sink._tables[table].rows
    rows[:] = [
        replace(row, cells={**row.cells, "score": 2.0})
        for row in rows
        if str(two) in str(row.cells["details"])
    ]

    repair = await cloud.repair()

    assert (repair.objects, repair.rows, signs(repair)) == (0, 1, [("*", f"{table}:{two.run}")])
    scores = {str(one) in str(row["details"]): row["score"] for row in cloud.rows(table)}
    assert scores == {True: 1.0, False: 2.0}
    assert len(cloud.rows(table)) == 2
