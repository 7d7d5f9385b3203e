"""What Prometheus is told: values, names, labels."""

import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio.lowlevel
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.ledger import retry, rows, uploads
from pixaris_sync.ledger.numbers import Numbers
from pixaris_sync.ledger.selection import Work
from pixaris_sync.ledger.totals import Totals
from pixaris_sync.limits.concurrency import AdaptiveConcurrency
from pixaris_sync.monitoring.metrics import CAUSES, OF_LEDGER, OF_PROCESS, PREFIX, Described, Metrics
from pixaris_sync.monitoring.view import Figures, Reader
from pixaris_sync.pipeline.context import BUCKET, CHANGING, DATASET, FOLDER, Tally
from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.settings.model import Settings
from tests.support.ledgers import NOW, PROBLEM, RUN, Book, file, found_run, record
from tests.support.prometheus import promtool

FIGURES = Figures(Numbers({}, {}, {}, 0, None, None), Totals(0, 0, 0, 0), Path("/x/ledger.sqlite3"), 0)
Values = dict[tuple[str, ...], float]
OTHER = "20240102-000001_y"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "local_results", lambda: (math.inf, 0.5))


@pytest.fixture
def shown(book: Book, metrics: Metrics, tmp_path: Path) -> Iterator["Shown"]:
    settings = Settings(
        gcp_project_id="p",
        gcp_bq_experiment_dataset="p.d",
        gcp_pixaris_bucket_name="b",
        local_results_folder=tmp_path / "local_results",
    )
    reader = Reader(settings, book.ledger.path, Work)
    yield Shown(metrics, reader)
    reader.close()


class Shown:
    """The text of metrics, by names."""

    def __init__(self, metrics: Metrics, reader: Reader) -> None:
        self._metrics = metrics
        self._reader = reader

    def text(self) -> str:
        return self._metrics.exposition(self._reader.figures()).decode()

    def values(self, name: str) -> Values:
        """By the values of its labels but the folder's."""
        return values_of(self.text(), name)


def values_of(text: str, name: str) -> Values:
    return {
        tuple(value for label, value in sample.labels.items() if label != "folder"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == PREFIX + name
    }


def test_what_stands_in_the_ledger_is_told(book: Book, shown: Shown) -> None:
    """Goal: runs, files, rows, bytes and moments. Method: a synced run, and one of which a file failed."""
    book.take(found_run(record(), files=[file(size=10)]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    book.now = NOW + 60
    book.take(found_run(record(OTHER), name=OTHER, files=[file(size=7), file("args/b.png", size=100)]))
    [task] = book.claim(1)
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW + 90, in_doubt=False)
    found = {state: count for (state,), count in shown.values("runs").items() if count}
    assert found == {"synced": 1, "failing": 1}
    assert {state: count for (state,), count in shown.values("files").items() if count} == {
        "uploaded": 1,
        "pending": 2,
    }
    assert shown.values("rows")[("synced",)] == 1
    assert shown.values("pending_bytes") == {(): 107}
    assert shown.values("oldest_pending_timestamp_seconds") == {(): NOW + 60}
    assert shown.values("last_success_timestamp_seconds") == {(): NOW}
    assert shown.values("files_sent_total") == {(): 1}
    assert shown.values("sent_bytes_total") == {(): 10}
    assert shown.values("ledger_bytes")[()] > 0
    assert shown.values("ledger_filesystem_avail_bytes")[()] > 0


def test_what_is_not_known_is_left_out(shown: Shown) -> None:
    """Goal: no year 1970. Method: an empty ledger; what counts is there from the beginning."""
    text = shown.text()
    assert values_of(text, "oldest_pending_timestamp_seconds") == {}
    assert values_of(text, "last_success_timestamp_seconds") == {}
    assert values_of(text, "files_sent_total") == {(): 0}
    assert {state for (state,) in values_of(text, "runs")} >= {"pending", "synced", "quarantined"}


def test_a_ledger_that_cannot_be_read_is_a_cause(metrics: Metrics) -> None:
    """Goal: the process' own numbers are told all the same. Method: no view."""
    text = metrics.exposition(None).decode()
    degraded = values_of(text, "degraded")
    assert degraded == {(cause,): float(cause == "ledger") for cause in CAUSES}
    assert values_of(text, "runs") == {}
    assert values_of(text, "at_work") == {(): 0}
    assert values_of(text, "bandwidth_limit_bytes_per_second") == {(): math.inf}
    assert values_of(text, "processor_limit_cores") == {(): 0.5}


@pytest.mark.anyio
async def test_every_cause_is_told_while_it_lasts(metrics: Metrics) -> None:
    """Goal: degraded by cause. Method: an engine's own words for what rests, in each of their forms."""
    denied = SyncError("sign in", "here", "expired", failure=Failure.CREDENTIALS)
    gates = {FOLDER: SimpleNamespace(last_error=None)}
    context: Any = SimpleNamespace(
        troubles={},
        paused=None,
        gate=gates.__getitem__,
        journal=SimpleNamespace(trouble=None),
        tally=Tally(),
        hold=Hold(),
    )

    def degraded() -> set[str]:
        return {cause for (cause,), told in values_of(text(), "degraded").items() if told}

    def text() -> str:
        return metrics.exposition(FIGURES).decode()

    async with anyio.create_task_group() as tasks:
        engine: Any = SimpleNamespace(context=context)
        tasks.start_soon(metrics.follow, engine)
        await anyio.lowlevel.checkpoint()
        context.concurrency = AdaptiveConcurrency(5)
        assert (degraded(), values_of(text(), "at_work")) == (set(), {(): 1})
        assert values_of(text(), "uploads_limit") == {(): 5}
        assert values_of(text(), "paused") == {(): 0}
        context.hold.begin(1.0)
        assert values_of(text(), "paused") == {(): 1}
        context.troubles = dict.fromkeys((BUCKET, DATASET, "some_table", f"{CHANGING}x"), PROBLEM)
        assert degraded() == {"bucket", "dataset", "table"}
        context.troubles, context.paused = {}, denied
        assert degraded() == {"credentials"}
        context.paused = ConfigurationError("find", "b", "no such bucket")
        gates[FOLDER].last_error = context.journal.trouble = denied
        assert degraded() == {"settings", "folder", "ledger"}
        context.tally.on_row(3.0)
        context.tally.rows = 2
        tasks.cancel_scope.cancel()
    assert (degraded(), values_of(text(), "at_work")) == (set(), {(): 0})
    assert values_of(text(), "line_to_row_seconds_sum") == {(): 3.0}
    assert values_of(text(), "rows_synced_total") == {(): 2}


def test_every_value_tells_its_folder_and_no_name_of_a_run(book: Book, shown: Shown, tmp_path: Path) -> None:
    """Goal: textfiles of two folders go together; few series. Method: all labels of a busy ledger."""
    book.take(found_run(record(), files=[file(size=10)]))
    labels = [
        sample.labels for family in text_string_to_metric_families(shown.text()) for sample in family.samples
    ]
    assert {one["folder"] for one in labels} == {str(tmp_path / "local_results")}
    assert not [one for one in labels if {"shop", "shoes", RUN} & {*one.values()}]
    assert {name for one in labels for name in one} == {"folder", "state", "cause", "outcome", "le"} | {
        "version",
        "python",
    }


def test_names_and_meanings_keep_the_conventions(shown: Shown) -> None:
    """Goal: names that Prometheus' people expect. Method: its own check of every metric."""
    text = shown.text()
    checked = subprocess.run(
        [promtool(), "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout + checked.stderr == b""


def test_every_metric_has_a_name_of_its_own_and_a_meaning() -> None:
    """Goal: a table that can be read. Method: names, labels and sentences of all."""
    every: tuple[Described[Any], ...] = (*OF_LEDGER, *OF_PROCESS)
    assert len({one.name for one in every}) == len(every)
    for one in every:
        assert re.fullmatch(r"[a-z_]+", one.name)
        assert one.meaning.endswith(".")
        assert one.name.endswith("_total") == (one.family.__name__ == "CounterMetricFamily")


def test_quarantine_is_a_state(book: Book, shown: Shown) -> None:
    """Goal: what somebody must act on. Method: a run is quarantined, then taken up again."""
    book.take(found_run(record(), files=[file()]))
    [task] = book.claim()
    book.do(uploads.quarantine_upload, task, PROBLEM)
    assert shown.values("runs")[("quarantined",)] == 1
    book.do(retry.retry_runs, book.ask(retry.find_runs, RUN))
    assert shown.values("runs")[("quarantined",)] == 0
