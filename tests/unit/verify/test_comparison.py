"""What `verify` says of a folder, a ledger and a cloud that agree or do not, on fakes."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.model import Cell, Column, ColumnType, DatasetKey, RemoteObject, RunKey
from pixaris_sync.rules.contract import record_digest
from pixaris_sync.verify import Finding, Kind, Sign
from pixaris_sync.verify.rows import frame_rows, represents
from tests.fakes.object_store import FakeObjectStore
from tests.support.fake_cloud import TABLE, FakeCloud, object_of, run_name

pytestmark = pytest.mark.anyio

OTHER = DatasetKey("project", "other")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    folder = tmp_path / "local_results"
    folder.mkdir()
    cloud = FakeCloud(folder)
    yield cloud
    cloud.ledger.close()


def of_kind(findings: list[Finding], kind: Kind) -> list[Finding]:
    return [finding for finding in findings if finding.kind is kind]


def row(run: RunKey) -> str:
    return f"{TABLE}:{run.run}"


async def test_everything_is_the_same_after_a_sync(cloud: FakeCloud) -> None:
    """Goal: no false alarm. Method: sync runs with images, saved files, dict metrics and odd values."""
    cloud.store_run(1, images=3, score=0.5, steps=7, sharp=True, note="x", metric={"a": 1}, gone=None)
    odd: dict[str, Any] = {"odd key-1": "y"}
    cloud.store_run(2, score=math.nan, steps=2**70, **odd)
    third = cloud.store_run(3, flow=f"elsewhere/project/dataset/{run_name(3)}/flow.json", score=1)
    (cloud.path(third) / "flow.json").write_text("{}")
    await cloud.sync()

    findings = await cloud.verify()

    assert {finding.sign for finding in findings} == {Sign.SAME}
    assert Counter(finding.kind for finding in findings) == {Kind.OBJECT: 7, Kind.ROW: 3, Kind.LEDGER: 3}


async def test_an_object_that_is_gone_is_missing_and_belies_the_ledger(cloud: FakeCloud) -> None:
    """Goal: a deleted object is found, though the ledger says synced. Method: delete one of two."""
    run = cloud.store_run(1, images=2)
    await cloud.sync()
    del cloud.store.objects[object_of(run)]

    found = [finding for finding in await cloud.verify() if finding.sign is not Sign.SAME]

    assert [(f.sign, f.subject) for f in found] == [("-", object_of(run)), ("*", str(run))]
    assert found[0].hint == "`pixaris-sync sync --repair` restores what was removed from the cloud"
    assert (found[0].run, found[0].source) == (run, "generated_images/0.png")
    assert "the ledger says synced" in found[1].detail


@pytest.mark.parametrize("content", [b"short", None], ids=["another size", "the same size"])
async def test_an_object_with_another_content_differs(cloud: FakeCloud, content: bytes | None) -> None:
    """Goal: content counts, not presence. Method: replace an object, once by one of equal length."""
    run = cloud.store_run(1)
    await cloud.sync()
    size = cloud.store.objects[object_of(run)].remote.size
    cloud.store.put(object_of(run), content or bytes(size))

    assert await cloud.differences() == [("*", "object", object_of(run)), ("*", "ledger", str(run))]


async def test_objects_that_nobody_here_knows_are_extra(cloud: FakeCloud) -> None:
    """Goal: what others wrote shows. Method: an object in a synced run, one of a run from elsewhere."""
    run = cloud.store_run(1)
    await cloud.sync()
    foreign = RunKey("project", "dataset", "20200101-000000_elsewhere")
    for extra in (object_of(foreign), object_of(run, "generated_images/extra.png")):
        cloud.store.put(extra, b"x")
    cloud.store.put("results/another_project/dataset/run/generated_images/0.png", b"x")

    assert await cloud.differences() == [
        ("+", "object", object_of(foreign)),
        ("+", "object", object_of(run, "generated_images/extra.png")),
    ]


async def test_a_file_changed_after_its_upload_differs_and_the_finding_says_so(cloud: FakeCloud) -> None:
    """Goal: the person learns which side changed. Method: change the local file after a sync."""
    run = cloud.store_run(1)
    await cloud.sync()
    (cloud.path(run) / "generated_images" / "0.png").write_bytes(b"another")

    [found] = [f for f in of_kind(await cloud.verify(), Kind.OBJECT) if f.sign is Sign.DIFFERS]

    assert "7 bytes here" in found.detail
    assert "changed after it was uploaded" in found.detail


async def test_a_file_deleted_after_its_upload_is_compared_by_the_ledger(cloud: FakeCloud) -> None:
    """Goal: cleaning up at home is no difference, objects still count. Method: delete files, then objects."""
    run = cloud.store_run(1, images=2)
    await cloud.sync()
    for name in ("0.png", "1.png"):
        (cloud.path(run) / "generated_images" / name).unlink()

    findings = of_kind(await cloud.verify(), Kind.OBJECT)

    assert [f.sign for f in findings] == ["=", "="]
    assert all("as the ledger knows it" in f.detail for f in findings)
    cloud.store.put(object_of(run), b"damaged")
    del cloud.store.objects[object_of(run, "generated_images/1.png")]
    assert [f.sign for f in of_kind(await cloud.verify(), Kind.OBJECT)] == ["*", "-"]


async def test_a_row_that_is_gone_is_missing(cloud: FakeCloud) -> None:
    """Goal: a deleted row is found. Method: delete one of two."""
    first, _ = cloud.store_run(1), cloud.store_run(2)
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    rows[:] = [there for there in rows if there.cells["experiment_run_name"] != first.run]

    assert await cloud.differences() == [("-", "row", row(first)), ("*", "ledger", str(first))]
    [found] = [f for f in of_kind(await cloud.verify(), Kind.ROW) if f.sign is not Sign.SAME]
    assert found.hint == "`pixaris-sync sync --repair` restores what was removed from the cloud"
    assert found.run == first
    assert found.source


async def test_what_others_added_and_where_links_lead_makes_no_difference(cloud: FakeCloud) -> None:
    """Goal: others may work with tables. Method: a filled column, links into another bucket, a new type."""
    cloud.store_run(1, details={"a": 1}, steps=7)
    await cloud.sync()
    cells = cloud.sink._tables[TABLE].rows[0].cells
    cloud.sink._tables[TABLE].add([Column("review", ColumnType.STRING)], 0.0)
    cells["review"] = "good"
    cells["details"] = str(cells["details"]).replace("bucket/results", "another/results")
    cells["steps"] = "7"

    assert await cloud.differences() == []


@pytest.mark.parametrize("value", [9.5, None, "a link to another object"])
async def test_a_corrected_row_differs_also_beside_another_of_its_run(
    cloud: FakeCloud, value: float | str | None
) -> None:
    """Goal: a row is known by its run, and each record gets the row most like it.

    Method: two lines in one folder; correct, empty or relink a cell of the one; then delete the other row.
    """
    run = cloud.store_run(1, images=2, score=0.5, seed=1, words="one")
    cloud.store_run(1, images=2, score=1.5, seed=2, words="two")
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    [second] = [row for row in rows if row.cells["words"] == "two"]
    key = "words" if isinstance(value, str) else "score"
    second.cells[key] = value
    differs = ("*", "row", row(run))

    assert await cloud.differences() == [differs, ("*", "ledger", str(run))]
    [found] = [f for f in of_kind(await cloud.verify(), Kind.ROW) if f.sign is not Sign.SAME]
    assert found.detail == f"other values than in the record: {key}"
    rows[:] = [second]
    assert sorted(await cloud.differences()) == sorted(
        [("-", "row", row(run)), differs, ("*", "ledger", str(run))]
    )
    [lost] = [f for f in of_kind(await cloud.verify(), Kind.ROW) if f.sign is Sign.MISSING]
    first = json.loads(cloud.tracking().read_text().splitlines()[0])
    assert lost.source == record_digest(first)


async def test_a_row_that_may_be_hidden_is_not_called_missing(cloud: FakeCloud) -> None:
    """Goal: nobody is told to send again what is there. Method: a row access policy hides a table's rows."""
    run = cloud.store_run(1)
    await cloud.sync()
    cloud.sink.hidden = {TABLE}

    [found] = [f for f in await cloud.verify() if f.sign is not Sign.SAME]

    assert (found.sign, found.kind, found.subject) == (Sign.ERROR, Kind.ROW, row(run))
    assert "row access policy" in found.detail
    assert found.source == ""


async def test_a_doubled_row_is_extra(cloud: FakeCloud) -> None:
    """Goal: exactly once is checked. Method: double a row."""
    run = cloud.store_run(1, score=1.5)
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    rows.append(replace(rows[0]))

    assert await cloud.differences() == [("+", "row", row(run))]


async def test_equal_lines_ask_for_one_row(cloud: FakeCloud) -> None:
    """Goal: a line that stands there twice explains no doubled row. Method: one row, two, and none."""
    run = cloud.store_run(1, score=1.5)
    cloud.append(cloud.tracking().read_text())
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    assert len(rows) == 1
    assert await cloud.differences() == []
    rows.append(replace(rows[0]))
    assert await cloud.differences() == [("+", "row", row(run))]
    rows.clear()
    assert await cloud.differences() == [("-", "row", row(run)), ("*", "ledger", str(run))]


async def test_a_row_with_other_values_differs_and_names_the_columns(cloud: FakeCloud) -> None:
    """Goal: each value counts. Method: change one cell, empty another."""
    run = cloud.store_run(1, score=1.5, note="x", seed=1)
    await cloud.sync()
    cells = cloud.sink._tables[TABLE].rows[0].cells
    cells["score"] = 2.5
    del cells["note"]

    [found] = [f for f in of_kind(await cloud.verify(), Kind.ROW) if f.sign is not Sign.SAME]

    assert (found.sign, found.subject) == (Sign.DIFFERS, row(run))
    assert found.detail.endswith("record: score, note")


async def test_rows_that_nobody_here_knows_are_extra(cloud: FakeCloud) -> None:
    """Goal: rows of other machines show. Method: a row of an unknown run, one without a run's name."""
    cloud.store_run(1)
    await cloud.sync()
    rows = cloud.sink._tables[TABLE].rows
    rows.append(replace(rows[0], cells={"experiment_run_name": "elsewhere"}))
    rows.append(replace(rows[0], cells={"timestamp": "x"}))

    assert await cloud.differences() == [
        ("+", "row", f"{TABLE}:(no run name)"),
        ("+", "row", f"{TABLE}:elsewhere"),
    ]


async def test_a_row_whose_tracking_line_is_gone_counts_by_the_ledger(cloud: FakeCloud) -> None:
    """Goal: a rotated tracking file is no difference, but the row still counts. Method: empty the file."""
    run = cloud.store_run(1)
    await cloud.sync()
    cloud.tracking().write_text("")

    assert await cloud.differences() == []
    cloud.sink._tables[TABLE].rows.clear()
    assert await cloud.differences() == [("-", "row", row(run)), ("*", "ledger", str(run))]


async def test_a_run_stored_since_is_missing_whatever_the_ledger_knows(cloud: FakeCloud) -> None:
    """Goal: the tracking file is read anew. Method: store a run after the sync."""
    cloud.store_run(1)
    await cloud.sync()
    run = cloud.store_run(2)

    assert await cloud.differences() == [
        ("-", "object", object_of(run)),
        ("-", "row", row(run)),
        ("-", "ledger", str(run)),
    ]
    hints = {f.hint for f in await cloud.verify() if f.sign is Sign.MISSING and f.kind is not Kind.LEDGER}
    assert hints == {"`pixaris-sync sync` carries what waits, `pixaris-sync status` tells why it does"}


async def test_a_ledger_that_lags_behind_the_cloud_differs(cloud: FakeCloud) -> None:
    """Goal: a wrong ledger is found. Method: make it forget that a complete run is synced."""
    run = cloud.store_run(1)
    await cloud.sync()
    cloud.ledger.write(lambda db: db.execute("UPDATE runs SET state = 'pending'").rowcount)

    [found] = [f for f in await cloud.verify() if f.sign is not Sign.SAME]

    assert (found.sign, found.kind, found.subject) == (Sign.DIFFERS, Kind.LEDGER, str(run))
    assert found.detail == "all of it is in the cloud, but the ledger says pending"


async def test_quarantined_and_incomplete_runs_are_missing_with_their_cause(cloud: FakeCloud) -> None:
    """Goal: what is not carried shows why. Method: a run without images, one without a line, a bad line."""
    bare = cloud.store_run(1, images=0)
    cut = RunKey("project", "dataset", run_name(2))
    cloud.path(cut).mkdir()
    cloud.append("{damaged\n")
    await cloud.sync()

    findings = await cloud.verify()

    details = {f.subject: f.detail for f in findings if f.sign is Sign.MISSING}
    assert set(details) == {row(bare), str(bare), str(cut), "project/dataset/experiment_tracking.jsonl:2"}
    assert "no image" in details[str(bare)]
    assert "incomplete: args.json is missing" in details[str(cut)]
    assert details["project/dataset/experiment_tracking.jsonl:2"].startswith("damaged line: ")
    assert not [f for f in findings if f.sign not in (Sign.SAME, Sign.MISSING)]


async def test_a_dataset_whose_names_are_refused_is_not_asked_for(cloud: FakeCloud) -> None:
    """Goal: its runs show with the rule, the cloud is not bothered. Method: a name BigQuery refuses."""
    run = cloud.store_run(1, dataset=DatasetKey("project", "what!"))
    await cloud.sync()
    asked = len(cloud.store.calls), cloud.sink.counts["read_table"]

    [found] = await cloud.verify()

    assert (found.sign, found.subject) == (Sign.MISSING, str(run))
    assert "'!'" in found.detail
    assert (len(cloud.store.calls) - 1, cloud.sink.counts["read_table"]) == asked


async def test_a_listing_that_fails_is_one_error_and_the_others_go_on(cloud: FakeCloud) -> None:
    """Goal: one permission less hides nothing else. Method: the first dataset's listing is denied."""
    cloud.store_run(1)
    other = cloud.store_run(2, dataset=OTHER)
    await cloud.sync()
    del cloud.store.objects[object_of(other)]
    cloud.store.fail_next("list", SyncError("list", "bucket", "403", failure=Failure.PERMISSION))

    assert await cloud.differences() == [
        ("!", "object", "project/dataset"),
        ("-", "object", object_of(other)),
        ("*", "ledger", str(other)),
    ]
    assert cloud.store.faults_fired == 1
    cloud.store.fail_next("list", SyncError("list", "bucket", "403", failure=Failure.PERMISSION))
    ledger = of_kind(await cloud.verify(), Kind.LEDGER)
    assert [finding.subject for finding in ledger] == [str(other)], "it is not known that the first is synced"


async def test_what_a_listing_tells_no_checksum_of_is_looked_up(cloud: FakeCloud) -> None:
    """Goal: unknown is not different. Method: objects of each kind in a bucket under its owner's key."""
    runs = [cloud.store_run(second) for second in range(4)]
    await cloud.sync()
    same, changed, longer, unclear = map(object_of, runs)
    cloud.store.put(changed, bytes(len(cloud.store.objects[changed].content)))
    cloud.store.put(longer, cloud.store.objects[longer].content + b"x")
    cloud.store.put(f"{object_of(runs[0])}.other", b"x")
    cloud.store.listings_without_checksums = True
    before = cloud.store.counts
    stat = cloud.store.stat

    async def look_up(name: str) -> RemoteObject | None:
        if name == unclear:
            raise SyncError("look up", name, "503", failure=Failure.TRANSIENT)
        return await stat(name)

    cloud.store.stat = look_up  # type: ignore[method-assign]

    findings = {finding.subject: finding.sign for finding in of_kind(await cloud.verify(), Kind.OBJECT)}

    assert findings == {
        same: Sign.SAME,
        f"{same}.other": Sign.EXTRA,
        changed: Sign.DIFFERS,
        longer: Sign.DIFFERS,
        unclear: Sign.ERROR,
    }
    assert cloud.store.counts - before == {"check": 1, "list": 1, "stat": 2}


async def test_a_table_that_cannot_be_read_is_one_error_and_the_others_go_on(cloud: FakeCloud) -> None:
    """Goal: as for listings. Method: the first table's reading breaks off."""
    cloud.store_run(1)
    other = cloud.store_run(2, dataset=OTHER)
    await cloud.sync()
    cloud.sink._tables["project_other_experiment_results"].rows.clear()
    cloud.sink.fail_next("read_table", SyncError("read table", TABLE, "503", failure=Failure.TRANSIENT))

    assert await cloud.differences() == [
        ("!", "row", TABLE),
        ("-", "row", f"project_other_experiment_results:{other.run}"),
        ("*", "ledger", str(other)),
    ]
    assert cloud.sink.faults_fired["read_table"] == 1


async def test_a_file_that_changes_while_it_is_read_is_an_error(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: nothing is said of what could not be compared. Method: replace a file after it was listed."""
    run = cloud.store_run(1)
    await cloud.sync()
    image = cloud.path(run) / "generated_images" / "0.png"
    listing = FakeObjectStore.list

    def change_and_list(store: FakeObjectStore, prefix: str) -> Any:
        image.write_bytes(bytes(image.stat().st_size + 1))
        return listing(store, prefix)

    monkeypatch.setattr(FakeObjectStore, "list", change_and_list)

    assert await cloud.differences() == [("!", "object", object_of(run))]


async def test_an_unreadable_tracking_file_is_an_error_of_its_dataset_alone(cloud: FakeCloud) -> None:
    """Goal: rows do not all seem to be too many. Method: a link in the place of the tracking file."""
    cloud.store_run(1)
    cloud.store_run(2, dataset=OTHER)
    await cloud.sync()
    moved = cloud.tracking().rename(cloud.folder.parent / "moved.jsonl")
    cloud.tracking().symlink_to(moved)

    assert await cloud.differences() == [("!", "row", "project/dataset")]


async def test_without_credentials_nothing_is_compared(cloud: FakeCloud) -> None:
    """Goal: one clear end, not an error for each table. Method: credentials expire at the first table."""
    cloud.store_run(1)
    await cloud.sync()
    cloud.sink.fail_next("read_table", SyncError("read", TABLE, "401", failure=Failure.CREDENTIALS))

    with pytest.raises(SyncError, match="401"):
        await cloud.verify()


async def test_a_missing_bucket_ends_it(cloud: FakeCloud) -> None:
    """Goal: a wrong destination is no list of differences. Method: take the bucket away."""
    cloud.store_run(1)
    await cloud.sync()
    cloud.store.missing = True

    with pytest.raises(ConfigurationError):
        await cloud.verify()


async def test_datasets_that_share_a_table_are_compared_together(cloud: FakeCloud) -> None:
    """Goal: neither sees the other's rows as extra. Method: two datasets whose table ids are equal."""
    one = cloud.store_run(1, dataset=DatasetKey("a_b", "c"))
    two = cloud.store_run(1, dataset=DatasetKey("a", "b_c"), score=1.0)
    await cloud.sync()

    assert await cloud.differences() == []
    rows = cloud.sink._tables["a_b_c_experiment_results"].rows
    rows[:] = [there for there in rows if "score" in there.cells]
    assert await cloud.differences() == [
        ("-", "row", f"a_b_c_experiment_results:{one.run}"),
        ("*", "ledger", str(one)),
    ]
    assert one.run == two.run


async def test_requests_do_not_grow_with_the_objects(cloud: FakeCloud) -> None:
    """Goal: listings only. Method: count the calls for 60 objects in pages of 25."""
    cloud.store = FakeObjectStore(page_objects=25)
    for second in range(6):
        cloud.store_run(second, images=10)
    await cloud.sync()
    before, asked = cloud.store.counts, cloud.sink.counts.copy()

    findings = await cloud.verify()

    assert len(of_kind(findings, Kind.OBJECT)) == 60
    assert cloud.store.counts - before == {"check": 1, "list": 3}
    assert cloud.sink.counts - asked == {"check": 1, "read_table": 1}


async def test_nothing_is_changed(cloud: FakeCloud) -> None:
    """Goal: comparing is not mending. Method: compare the ledger's content before and after."""
    cloud.store_run(1)
    await cloud.sync()
    cloud.store_run(2)
    before = list(cloud.ledger._connection.iterdump())

    await cloud.verify()

    assert list(cloud.ledger._connection.iterdump()) == before


def test_a_finding_is_a_document_for_machines() -> None:
    """Goal: the JSON lines are stable. Method: compare one."""
    finding = Finding(Sign.MISSING, Kind.OBJECT, "results/p/d/r/a.png", "not in the bucket")

    assert finding.document == {
        "sign": "-",
        "kind": "object",
        "subject": "results/p/d/r/a.png",
        "detail": "not in the bucket",
        "hint": "",
    }
    assert [sign.name.lower() for sign in Sign] == ["same", "missing", "extra", "differs", "error"]


SCORE = Column("score", ColumnType.FLOAT)


@pytest.mark.parametrize(
    ("value", "stored", "same"),
    [
        (math.nan, None, True),
        (None, None, True),
        (1.5, None, False),
        (1.5, 1.5, True),
        (math.nan, 1.5, False),
    ],
)
async def test_nan_in_a_frame_is_nan_or_null(
    cloud: FakeCloud, value: float | None, stored: float | None, *, same: bool
) -> None:
    """Goal: a frame's NaN is what the record asks for, and never a number. Method: each pair once."""
    cells = [Cell("name", ColumnType.STRING, "x"), Cell("score", ColumnType.FLOAT, value)]
    cloud.sink.put_table("t", [Column("name", ColumnType.STRING), SCORE], [{"name": "x", "score": stored}])
    frame = await cloud.sink.read_table("t")
    assert frame is not None

    [read] = frame_rows(frame)

    assert represents(cells, read) is same


def test_a_frame_gives_native_values_without_nulls() -> None:
    """Goal: large integers stay exact, missing cells vanish. Method: a frame as Google makes it."""
    frame = pd.DataFrame(
        {
            "run": pd.Series(["a", None], dtype="object"),
            "steps": pd.Series([2**62 + 1, None], dtype="Int64"),
            "done": pd.Series([None, True], dtype="boolean"),
            "score": pd.Series([None, 0.5], dtype="float64"),
        }
    )

    first, second = frame_rows(frame)

    assert first.keys() == {"run", "steps", "score"}
    assert (first["run"], first["steps"]) == ("a", 2**62 + 1)
    assert type(first["steps"]) is int
    assert math.isnan(first["score"])
    assert second == {"done": True, "score": 0.5}
