"""What Prometheus is told: figures of the ledger, and what this process has counted.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows, the moment and not the age
of what happened, a state as a label. Every label has few values, all known beforehand. Projects, datasets and
runs are none of them: there may be thousands, each would be a series of its own for years, and whoever reads
metrics need not know their names; ``status`` and the page show them. The results folder is one, because a
machine may have several, whose textfiles one collector reads.

What was sent and found is counted in the ledger, so that passes that end and begin go on counting. The
process' own numbers are named ``pixaris_sync_process_*``: in a textfile, ``process_*`` are those of whoever
reads it.
"""

import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import anyio
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pixaris_sync import __version__
from pixaris_sync.errors import Failure
from pixaris_sync.monitoring.measured import Histogram, Requests
from pixaris_sync.monitoring.view import Figures
from pixaris_sync.pipeline.context import BUCKET, DATASET, FOLDER, Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.text import printable

T = TypeVar("T")

PREFIX: Final = "pixaris_sync_"
#: The label that every value has.
FOLDER_LABEL: Final = "folder"
#: Why work may rest. Tables, and their changes, have names of their own.
CAUSES: Final = ("bucket", "dataset", "table", "folder", "credentials", "settings", "ledger")
_CAUSE_OF: Final = {BUCKET: "bucket", DATASET: "dataset", FOLDER: "folder"}
#: From a streaming insert to a run that waited for the end of an outage.
_ROW_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 3_600, 14_400, 86_400)


class Metrics:
    """What this process has counted, and how it is shown together with figures of the ledger.

    Args:
        folder: the results folder, which every value is told with.
        limits: asked for what is in force: bytes per second that all uploads may send, and cores that may be
            used; infinite where there is no limit.

    Attributes:
        requests: what was asked of the cloud.
        row_seconds: how long rows took from their lines.
        heartbeats: how often the heartbeat's address answered, and how often it did not.
        engine: what works; None: nothing does.
        ledger_is_read: whether the ledger could be read the last time.
    """

    def __init__(self, folder: Path, limits: Callable[[], tuple[float, float]]) -> None:
        self._folder = printable(str(folder.absolute()))
        self.limits = limits
        self.requests = Requests()
        self.row_seconds = Histogram(_ROW_SECONDS)
        self.heartbeats = {"ok": 0, "failed": 0}
        self.engine: Engine | None = None
        self.ledger_is_read = True
        self._tallies: list[Tally] = []
        self._process = ProcessCollector(namespace=PREFIX.rstrip("_"), registry=None)

    async def follow(self, engine: Engine) -> None:
        """Count what an engine does, until cancelled: then nothing works any more."""
        engine.context.tally.on_row = self.row_seconds.observe
        self._tallies.append(engine.context.tally)
        self.engine = engine
        try:
            await anyio.sleep_forever()
        finally:
            self.engine = None

    def counted(self, count: Callable[[Tally], int]) -> int:
        """What the engines of this process have done together."""
        return sum(map(count, self._tallies))

    def degraded(self) -> frozenset[str]:
        """Which of `CAUSES` keep work from going on now."""
        found = set() if self.ledger_is_read else {"ledger"}
        if self.engine is not None:
            context = self.engine.context
            found |= {_CAUSE_OF.get(name, "table") for name in [*context.troubles]}
            if context.paused is not None:
                found.add("credentials" if context.paused.failure is Failure.CREDENTIALS else "settings")
            if context.gate(FOLDER).last_error is not None:
                found.add("folder")
            if context.journal.trouble is not None:
                found.add("ledger")
        return frozenset(found)

    def exposition(self, figures: Figures | None) -> bytes:
        """Everything in Prometheus' text format, version 0.0.4.

        Args:
            figures: of the ledger; None where it cannot be read: then only what was counted is told.
        """
        self.ledger_is_read = figures is not None
        families = [one.family_of(self) for one in OF_PROCESS]
        if figures is not None:
            families += [one.family_of(figures) for one in OF_LEDGER]
        families += self._process.collect()
        for family in families:
            family.samples = [
                sample._replace(labels={**sample.labels, FOLDER_LABEL: self._folder})
                for sample in family.samples
            ]
        return generate_latest(_Families(families))


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """See `Collector`."""
        return self._families


class Described(NamedTuple, Generic[T]):
    """A metric, as it is made from a source.

    Attributes:
        name: without `PREFIX`.
        family: how Prometheus treats its values.
        labels: their names.
        meaning: in a sentence.
        values: what it tells, by the values of its labels.
    """

    name: str
    family: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    labels: tuple[str, ...]
    meaning: str
    values: Callable[[T], Iterable[tuple[Sequence[str], float | Histogram]]]

    def family_of(self, source: T) -> Metric:
        """The metric with its values."""
        family = self.family(PREFIX + self.name, self.meaning, labels=self.labels)
        for labels, value in self.values(source):
            if isinstance(value, Histogram):
                assert isinstance(family, HistogramMetricFamily)  # noqa: S101 - nothing else has one
                buckets = [(_bound(bound), count) for bound, count in value.cumulative()]
                family.add_metric(labels, buckets, value.sum)
            else:
                assert not isinstance(family, HistogramMetricFamily)  # noqa: S101 - the same
                family.add_metric(labels, float(value))
        return family


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else f"{value:g}"


def _one(value: Callable[[T], float | None]) -> Callable[[T], Iterable[tuple[Sequence[str], float]]]:
    """A metric without labels; None: it has no value now."""

    def values(source: T) -> Iterable[tuple[Sequence[str], float]]:
        found = value(source)
        return [] if found is None else [((), found)]

    return values


def _by_state(counts: dict[str, int]) -> Iterable[tuple[Sequence[str], float]]:
    return [((state,), count) for state, count in counts.items()]


def _disk_free(figures: Figures) -> float | None:
    try:
        return shutil.disk_usage(figures.ledger.parent).free
    except OSError:
        return None


_COUNTER, _GAUGE, _HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
OF_LEDGER: Final[tuple[Described[Figures], ...]] = (
    Described("runs", _GAUGE, ("state",), "Runs.", lambda figures: _by_state(figures.numbers.runs)),
    Described(
        "files", _GAUGE, ("state",), "Files of runs.", lambda figures: _by_state(figures.numbers.files)
    ),
    Described(
        "rows",
        _GAUGE,
        ("state",),
        "Rows, one for each tracking record.",
        lambda figures: _by_state(figures.numbers.rows),
    ),
    Described(
        "pending_bytes",
        _GAUGE,
        (),
        "Size of the files that wait for their upload or are on their way.",
        _one(lambda figures: figures.numbers.pending_bytes),
    ),
    Described(
        "oldest_pending_timestamp_seconds",
        _GAUGE,
        (),
        "When the run was found that waits longest; absent while none waits.",
        _one(lambda figures: figures.numbers.oldest_pending_at),
    ),
    Described(
        "last_success_timestamp_seconds",
        _GAUGE,
        (),
        "When a row was last read back from its table; absent before the first.",
        _one(lambda figures: figures.numbers.last_synced_at),
    ),
    Described(
        "files_sent_total",
        _COUNTER,
        (),
        "Files sent to the bucket since the ledger was made.",
        _one(lambda figures: figures.totals.files_sent),
    ),
    Described(
        "sent_bytes_total",
        _COUNTER,
        (),
        "Size of the files that were sent.",
        _one(lambda figures: figures.totals.bytes_sent),
    ),
    Described(
        "files_found_total",
        _COUNTER,
        (),
        "Files that were to be sent, and that the bucket had already, since the ledger was made.",
        _one(lambda figures: figures.totals.files_found),
    ),
    Described(
        "found_bytes_total",
        _COUNTER,
        (),
        "Size of the files that the bucket had already.",
        _one(lambda figures: figures.totals.bytes_found),
    ),
    Described(
        "ledger_bytes",
        _GAUGE,
        (),
        "Size of the ledger on its disk.",
        _one(lambda figures: figures.ledger_bytes),
    ),
    Described(
        "ledger_filesystem_avail_bytes", _GAUGE, (), "What is free on the ledger's disk.", _one(_disk_free)
    ),
)
OF_PROCESS: Final[tuple[Described[Metrics], ...]] = (
    Described(
        "build_info",
        _GAUGE,
        ("version", "python"),
        "The version of pixaris-sync and of Python; its value is 1.",
        lambda _: [((__version__, platform.python_version()), 1)],
    ),
    Described(
        "at_work",
        _GAUGE,
        (),
        "Whether a process works on the results folder: 1, or 0 once it has ended.",
        _one(lambda metrics: metrics.engine is not None),
    ),
    Described(
        "exposed_timestamp_seconds",
        _GAUGE,
        (),
        "When these numbers were put together: it tells how old a textfile is.",
        _one(lambda _: time.time()),
    ),
    Described(
        "degraded",
        _GAUGE,
        ("cause",),
        "Whether something keeps work from going on: 1 or 0.",
        lambda metrics: [((cause,), cause in metrics.degraded()) for cause in CAUSES],
    ),
    Described(
        "paused",
        _GAUGE,
        (),
        "Whether somebody has paused the work: 1 or 0.",
        _one(lambda metrics: metrics.engine is not None and metrics.engine.context.hold.since is not None),
    ),
    Described(
        "records_found_total",
        _COUNTER,
        (),
        "Tracking records that this process took in.",
        _one(lambda metrics: metrics.counted(lambda tally: tally.records)),
    ),
    Described(
        "rows_synced_total",
        _COUNTER,
        (),
        "Rows that this process read back from their tables.",
        _one(lambda metrics: metrics.counted(lambda tally: tally.rows)),
    ),
    Described(
        "line_to_row_seconds",
        _HISTOGRAM,
        (),
        "Time from taking a tracking line in to reading its row back, of the rows that this process sent.",
        lambda metrics: [((), metrics.row_seconds)],
    ),
    Described(
        "requests_total",
        _COUNTER,
        ("service", "kind", "outcome"),
        "Requests of this process to the bucket and the tables.",
        lambda metrics: [
            ((*kind, outcome), count) for (kind, outcome), count in [*metrics.requests.counts.items()]
        ],
    ),
    Described(
        "request_duration_seconds",
        _HISTOGRAM,
        ("service", "kind"),
        "How long these requests took.",
        lambda metrics: [*metrics.requests.seconds.items()],
    ),
    Described(
        "retries_total",
        _COUNTER,
        (),
        "Attempts of this process at the bucket or a table that failed and are repeated.",
        _one(lambda metrics: metrics.counted(lambda tally: tally.retries)),
    ),
    Described(
        "heartbeats_total",
        _COUNTER,
        ("outcome",),
        "How often this process asked the heartbeat's address.",
        lambda metrics: [((outcome,), count) for outcome, count in metrics.heartbeats.items()],
    ),
    Described(
        "uploads",
        _GAUGE,
        (),
        "Uploads that are under way.",
        _one(lambda metrics: metrics.engine.context.concurrency.under_way if metrics.engine else None),
    ),
    Described(
        "uploads_limit",
        _GAUGE,
        (),
        "How many uploads there may be at once now; it adapts itself.",
        _one(lambda metrics: metrics.engine.context.concurrency.limit if metrics.engine else None),
    ),
    Described(
        "bandwidth_limit_bytes_per_second",
        _GAUGE,
        (),
        "What all uploads together may send; +Inf without a limit.",
        _one(lambda metrics: metrics.limits()[0]),
    ),
    Described(
        "processor_limit_cores",
        _GAUGE,
        (),
        "How much of the processor may be used; +Inf without a limit.",
        _one(lambda metrics: metrics.limits()[1]),
    ),
)
