"""One bad thing stops nothing else: an odd time, a table that may not be altered, or that others altered."""

import os
from pathlib import Path

import pytest
from google.cloud.storage import Bucket

from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import Answer, Proxies, Request, Rule, refusal
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, store_run

TABLE = f"{PROJECT}_{DATASET}_experiment_results"
#: Seconds since the epoch, in ns: beyond what 64 bits hold, and as far before the epoch.
YEAR_2300_NS = 10_413_792_000 * 10**9
YEAR_1902_NS = -2_145_916_800 * 10**9


def refusing_changes(status: int, reason: str) -> Rule:
    """Refuse each statement that alters a table."""

    def rule(request: Request) -> Answer | None:
        if request.mentions("ALTER TABLE"):
            return refusal(status, reason, "this table may not be altered")
        return None

    return rule


def test_line_1_a_file_with_a_time_beyond_all_calendars_stops_nothing(
    command_line: CommandLine, pixaris: Reader, bucket: Bucket
) -> None:
    """Goal: a time says nothing of a run's content. Method: images of 2300 and 1902; all commands."""
    runs = [store_run(command_line.folder, f"run{number}") for number in range(3)]
    for run, time_ns in zip(runs, (YEAR_2300_NS, YEAR_1902_NS), strict=False):
        image = run.folder / "generated_images" / "image_0.png"
        os.utime(image, ns=(time_ns, time_ns))
        assert image.stat().st_mtime_ns == time_ns, "the file system of this test cannot hold such a time"

    command_line.sync()

    assert pixaris.runs() == sorted(run.name for run in runs)
    assert len(list(bucket.list_blobs())) == 3
    assert command_line.sync()["files_uploaded"] == 0
    assert command_line.run("verify").code == 0
    assert command_line.run("status").code == 0


@pytest.mark.parametrize(
    ("status", "reason"), [pytest.param(400, "invalid", marks=pytest.mark.large), (403, "accessDenied")]
)
def test_line_2_only_rows_that_need_a_refused_change_wait(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, status: int, reason: str
) -> None:
    """Goal: a table that may not be altered takes what fits.

    Method: among four runs one has a new key; changes are refused; then they are allowed.
    """
    store_run(proxied.folder, "before", metrics={"score": 1})
    settled = proxied.having(
        table_settle_seconds=0, retry_delay_seconds_min=0.01, retry_delay_seconds_max=0.02
    )
    settled.sync()
    runs = [
        store_run(proxied.folder, f"run{number}", metrics={"score": 2, **({"new": 1} if number == 1 else {})})
        for number in range(4)
    ]
    proxies.bigquery.rule = refusing_changes(status, reason)

    settled.run("sync")

    assert set(pixaris.runs()) >= {run.name for run in runs} - {runs[1].name}
    told = {problem["run"]: problem["cause"] for problem in proxied.status()["problems"]}
    assert {name for name in told if name.startswith(PROJECT)} == {str(runs[1].key)}
    assert "may not be altered" in told[str(runs[1].key)]
    proxies.bigquery.rule = lambda _: None
    assert settled.run("retry", "--all").code == 0
    settled.sync()
    assert len(pixaris.runs()) == 5
    assert list(pixaris.frame()["new"].dropna()) == [1]


@pytest.mark.large
def test_line_2_a_widening_that_is_refused_for_good_ends_beside(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: no value is lost for a column that stays as it is. Method: refuse it; a float, an integer."""
    store_run(proxied.folder, "a", metrics={"score": 1})
    settled = proxied.having(table_settle_seconds=0)
    settled.sync()
    store_run(proxied.folder, "b", metrics={"score": 0.5})
    store_run(proxied.folder, "c", metrics={"score": 2})

    def rule(request: Request) -> Answer | None:
        if request.mentions("SET DATA TYPE"):
            return refusal(400, "invalid", "a column of this table keeps its type")
        return None

    proxies.bigquery.rule = rule
    settled.sync()

    frame = pixaris.frame()
    assert list(frame["score"].dropna()) == [1, 2]
    assert list(frame["score__float"].dropna()) == [0.5]
    assert settled.run("verify").code == 0


def test_line_3_watch_sees_that_others_made_a_table_anew(
    command_line: CommandLine, pixaris: Reader, warehouse: Warehouse, tmp_path: Path
) -> None:
    """Goal: a service of months knows a table as it is. Method: another type under a running `watch`."""
    settled = command_line.having(table_settle_seconds=0)
    with Watching(settled, tmp_path, "--rescan-interval-seconds", "86400") as watch:

        def arrives(run: StoredRun) -> None:
            watch.until(lambda: run.name in pixaris.runs(), f"the row of {run.name}")

        arrives(store_run(command_line.folder, "before", metrics={"score": 1}))
        arrives(store_run(command_line.folder, "still", metrics={"score": 2}))
        warehouse.ask(f"DROP TABLE `{warehouse.cloud.table(TABLE)}`")
        warehouse.create(
            TABLE, {"timestamp": "TIMESTAMP", "experiment_run_name": "STRING", "score": "STRING"}
        )
        after = [
            store_run(command_line.folder, f"after{number}", metrics={"score": 3}) for number in range(2)
        ]
        for run in after:
            arrives(run)
        assert watch.end() == 0

    assert list(pixaris.frame()["score"]) == ["3", "3"]
    assert command_line.status()["problems"] == []
