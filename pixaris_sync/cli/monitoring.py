"""What is told of the work while it lasts, as the settings ask for it."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import SecretStr

from pixaris_sync.ledger.selection import Work
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.service import Beside
from pixaris_sync.settings import Settings

if TYPE_CHECKING:
    from pixaris_sync.monitoring.heartbeat import Heartbeat


@dataclass(slots=True)
class Monitored:
    """The ports that an engine is to work with, and what is to run beside it."""

    store: ObjectStore
    sink: RowSink
    beside: list[Beside] = field(default_factory=list)


@asynccontextmanager
async def monitored(
    settings: Settings, mode: Mode, ledger: Path, throttle: Throttle, *, store: ObjectStore, sink: RowSink
) -> AsyncIterator[Monitored]:
    """Count and tell what settings ask for; nothing is imported for what they do not.

    The metrics' file is written a last time at the end, when the engine has ended.
    """
    # A pass asks it once, at its end.
    beats = settings.heartbeat_url if mode.follow else None
    if beats is None and settings.metrics_textfile is None:
        yield Monitored(store, sink)
        return
    from pixaris_sync.monitoring.view import Reader

    work = Monitored(store, sink)
    reader = Reader(settings, ledger, Work)
    textfile, heartbeat = None, None
    if beats is not None:
        heartbeat = _heartbeat(beats)
        work.beside.append(
            partial(heartbeat.beat_while_all_is_well, read=partial(reader.in_thread, reader.read))
        )
    if settings.metrics_textfile is not None:
        from pixaris_sync.monitoring.measured import MeasuredSink, MeasuredStore
        from pixaris_sync.monitoring.metrics import Metrics
        from pixaris_sync.monitoring.textfile import Textfile

        metrics = Metrics(settings.local_results_folder, partial(_limits, throttle))
        if heartbeat is not None:
            metrics.heartbeats = heartbeat.counts
        work.store, work.sink = MeasuredStore(store, metrics.requests), MeasuredSink(sink, metrics.requests)
        textfile = Textfile(settings.metrics_textfile, metrics, partial(reader.in_thread, reader.figures))
        work.beside += [metrics.follow, textfile.keep]
    try:
        yield work
    finally:
        if textfile is not None:
            await textfile.write_last()
        reader.close()


def beat_once(settings: Settings) -> None:
    """Tell the heartbeat's address, if there is one, that a pass has ended with everything synced."""
    if settings.heartbeat_url is not None:
        anyio.run(_heartbeat(settings.heartbeat_url).beat)


def _heartbeat(url: SecretStr) -> "Heartbeat":
    from pixaris_sync.monitoring.heartbeat import Heartbeat

    return Heartbeat(url.get_secret_value())


def _limits(throttle: Throttle) -> tuple[float, float]:
    limits = throttle.limits
    rate, percent = limits.bandwidth_limit_bytes_per_second, limits.max_cpu_percent
    return math.inf if rate is None else rate, math.inf if percent is None else percent / 100
