"""What is told of the work while it lasts, as the settings ask for it."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from msgspec import Struct, field

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.selection import Work
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.service import Beside
from pixaris_sync.rules.addresses import host_and_port
from pixaris_sync.settings.kinds import Secret
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    from pixaris_sync.monitoring.heartbeat import Heartbeat
    from pixaris_sync.monitoring.metrics import Metrics
    from pixaris_sync.monitoring.view import Reader


class Monitored(Struct):
    """The ports that an engine is to work with, and what is to run beside it."""

    store: ObjectStore
    sink: RowSink
    beside: list[Beside] = field(default_factory=list)


@asynccontextmanager
async def monitored(
    settings: Settings, mode: Mode, ledger: Path, throttle: Throttle, *, store: ObjectStore, sink: RowSink
) -> AsyncIterator[Monitored]:
    """Count, show and tell what settings ask for; nothing is imported for what they do not.

    The metrics' file is written a last time at the end, when the engine has ended.

    Raises:
        ConfigurationError: the page's address cannot be listened at.
    """
    # A pass asks it once, at its end.
    beats = settings.heartbeat_url if mode.follow else None
    listen = settings.listen if mode.follow else None
    work = Monitored(store, sink)
    if not (beats or listen or settings.metrics_textfile):
        yield work
        return
    from pixaris_sync.monitoring.view import Reader

    def new_reader() -> Reader:
        return Reader(settings, ledger, lambda: Work(selection=mode.selection), mode.selection)

    async with AsyncExitStack() as stack:
        metrics = None
        if listen or settings.metrics_textfile:
            metrics = _measure(work, settings, throttle)
        if beats is not None:
            heartbeat, reader = _heartbeat(beats), new_reader()
            stack.callback(reader.close)
            if metrics is not None:
                metrics.heartbeats = heartbeat.counts
            read = partial(reader.in_thread, reader.read)
            work.beside.append(partial(heartbeat.beat_while_all_is_well, read=read))
        if metrics is not None and settings.metrics_textfile is not None:
            from pixaris_sync.monitoring.textfile import Textfile

            reader = new_reader()
            stack.callback(reader.close)
            textfile = Textfile(settings.metrics_textfile, metrics, partial(reader.in_thread, reader.figures))
            work.beside.append(textfile.keep)
            stack.push_async_callback(textfile.write_last)
        if metrics is not None and listen is not None:
            limits = partial(_limits_text, throttle)
            work.beside.append(_page(listen, new_reader(), metrics, limits, stack))
        yield work


def _measure(work: Monitored, settings: Settings, throttle: Throttle) -> "Metrics":
    """Count what the engine does, and what it asks of the services."""
    from pixaris_sync.monitoring.measured import MeasuredSink, MeasuredStore
    from pixaris_sync.monitoring.metrics import Metrics

    metrics = Metrics(settings.local_results_folder, partial(_limits, throttle))
    work.store = MeasuredStore(work.store, metrics.requests)
    work.sink = MeasuredSink(work.sink, metrics.requests)
    work.beside.append(metrics.follow)
    return metrics


def _page(
    address: str, reader: "Reader", metrics: "Metrics", limits: Callable[[], str], stack: AsyncExitStack
) -> Beside:
    """Serve the page with its metrics, once the engine runs; it closes the reader."""
    from pixaris_sync.monitoring.server import listening, serve

    host, port = host_and_port(address)
    listener = stack.enter_context(listening((host, port)))

    def exposition() -> bytes:
        try:
            return metrics.exposition(reader.figures())
        except LedgerError:
            return metrics.exposition(None)

    return partial(serve, listener=listener, named=host, reader=reader, metrics=exposition, limits=limits)


def beat_once(settings: Settings) -> None:
    """Tell the heartbeat's address, if there is one, that a pass has ended with everything synced."""
    if settings.heartbeat_url is not None:
        anyio.run(_heartbeat(settings.heartbeat_url).beat)


def _heartbeat(url: Secret) -> "Heartbeat":
    from pixaris_sync.monitoring.heartbeat import Heartbeat

    return Heartbeat(url.reveal())


def _limits_text(throttle: Throttle) -> str:
    return str(throttle.in_force)


def _limits(throttle: Throttle) -> tuple[float, float]:
    in_force = throttle.in_force
    rate, percent = in_force.rate, in_force.limits.max_cpu_percent
    return math.inf if rate is None else rate, math.inf if percent is None else percent / 100
