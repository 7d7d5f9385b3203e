"""The engine in a process: until it is done, or a signal ends it; while it follows, what keeps it awake."""

import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import WorkLeft
from pixaris_sync.local.mounts import network_filesystem
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.ports import Clock, ObjectStore, RowSink
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.signals import ExitCode, Interruption, interruptible
from pixaris_sync.process.systemd import Notifier, tell_status
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    from pixaris_sync.local.watch import Changed

log = logging.getLogger(__name__)
T = TypeVar("T")

Beside = Callable[[Engine], Coroutine[Any, Any, None]]


def in_event_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in the event loop of libuv: a small file takes an eighth less of the processor in it."""
    return anyio.run(work, backend_options={"use_uvloop": True})


async def run_engine(  # noqa: PLR0913 - all that it works with, by name
    settings: Settings,
    mode: Mode,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    *,
    clock: Clock,
    throttle: Throttle,
    beside: Sequence[Beside] = (),
    forced_code: ExitCode,
) -> tuple[WorkLeft | None, Interruption]:
    """Run the engine until it is done, or until a signal ends it.

    Args:
        settings: where, and how much at once.
        mode: which kind of pass.
        ledger: an open ledger of an owned folder.
        store: the bucket; it stays the caller's.
        sink: the dataset; it stays the caller's.
        clock: time.
        throttle: what the engine holds to; its limits can be changed meanwhile.
        beside: what runs beside the engine, and is cancelled at its end: progress, pages, summaries.
        forced_code: what the process exits with after a second signal, where it has not ended by itself.

    Returns:
        What is left (None where it was abandoned), and whether it was interrupted.
    """
    notifier = Notifier()
    left: WorkLeft | None = None
    engine = Engine(
        settings=settings,
        mode=mode,
        ledger=ledger,
        store=store,
        sink=sink,
        clock=clock,
        jitter=random.Random(),  # noqa: S311 - jitter needs no secrecy
        throttle_seconds=throttle.throttle_seconds,
        hold=throttle.hold,
    )

    def finish() -> None:
        # Who asked for the pause wanted work to wait, and after this nobody may be there to do it.
        throttle.end_pause()
        engine.finish()

    async with interruptible(
        engine.drain,
        finish=finish if mode.follow and settings.sync_at_stop else None,
        drain_timeout_seconds=settings.drain_timeout_seconds,
        clock=clock,
        notifier=notifier,
        forced_code=forced_code,
    ) as (tasks, interruption):
        await tasks.start(throttle.listen)
        work = [partial(one, engine) for one in beside]
        if mode.follow:
            work.append(partial(_keep_following, engine, settings, clock, notifier))
        left = await engine.run(*work)
    return left, interruption


async def _keep_following(engine: Engine, settings: Settings, clock: Clock, notifier: Notifier) -> None:
    from pixaris_sync.pipeline.follower import follow  # noqa: PLC0415 - a pass does without

    await engine.started()
    notifier.tell(READY="1", STATUS="catching up")
    async with anyio.create_task_group() as tasks:
        if notifier.listens:
            tasks.start_soon(tell_status, notifier, clock, engine.describe, engine.stirs)
        await follow(
            engine,
            partial(_changes, settings),
            clock=clock,
            rescan_interval_seconds=settings.rescan_interval_seconds,
        )


def _changes(settings: Settings) -> "AsyncIterator[Changed]":
    """Begin to watch: by events, or by polling where other machines write without any."""
    from pixaris_sync.local.watch import changes  # noqa: PLC0415 - a pass does without

    folder = settings.local_results_folder
    kind = network_filesystem(folder, below=True)
    if kind is not None:
        log.info("%s, or a part of it, is on %s: it is polled, as no events tell of others", folder, kind)
    return changes(
        folder,
        anyio.Event(),
        polling=kind is not None,
        tracking_file=settings.dataset_tracking_file_name,
    )
