"""Keeps a following engine awake: file events, a periodic look at everything, and changes of the ledger.

Events only say "look again": a lost one costs time until the next periodic look, never a run. Where events
cannot be had (inotify limits, network file systems) the periodic look is made more often instead.
"""

import logging
from collections.abc import AsyncIterator, Callable

import anyio

from pixaris_sync.errors import LedgerError, LocalFileError, SyncError
from pixaris_sync.pipeline.discovery import Look
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.ports import Clock
from pixaris_sync.watch import Changed

log = logging.getLogger(__name__)

#: How often the ledger is asked whether another process (``retry``) has changed it.
LEDGER_POLL_SECONDS = 1.0
#: Without events everything is looked at this often.
POLL_SECONDS = 2.0
#: How often the folders of synced runs are looked at too.
EVERYTHING_SECONDS = 3600.0


async def follow(
    engine: Engine,
    changes: Callable[[], AsyncIterator[Changed]],
    *,
    clock: Clock,
    rescan_interval_seconds: float,
) -> None:
    """Keep `engine` awake until cancelled.

    Args:
        engine: a following engine that runs beside this.
        changes: begins to watch; yields where to look again.
        clock: time.
        rescan_interval_seconds: how often to look at everything, events or not.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_rescan, engine, clock, rescan_interval_seconds)
        tasks.start_soon(_watch_ledger, engine, clock)
        try:
            async for changed in changes():
                if changed.everything:
                    await _look_at_all(engine, Look.FOLDERS)
                for key in changed.datasets:
                    engine.look_at(key, Look.NEWS)
        except SyncError as error:
            log.warning("%s; looking every %g s instead (%s)", error, POLL_SECONDS, error.hint)
            await _rescan(engine, clock, min(POLL_SECONDS, rescan_interval_seconds))


async def _rescan(engine: Engine, clock: Clock, interval_seconds: float) -> None:
    looked_at = clock.elapsed()
    while True:
        await clock.sleep(interval_seconds)
        if clock.elapsed() - looked_at < EVERYTHING_SECONDS:
            await _look_at_all(engine, Look.FOLDERS)
        else:
            looked_at = clock.elapsed()
            await _look_at_all(engine, Look.EVERYTHING)


async def _look_at_all(engine: Engine, look: Look) -> None:
    try:
        await engine.look_at_all(look)
    except LocalFileError as error:
        # A folder on a network that is away now; it is looked at again.
        log.warning("%s", error)


async def _watch_ledger(engine: Engine, clock: Clock) -> None:
    seen = await engine.ledger_changes()
    while True:
        await clock.sleep(LEDGER_POLL_SECONDS)
        try:
            now = await engine.ledger_changes()
        except LedgerError as error:
            # Whoever writes to it says so, and waits.
            log.debug("%s", error)
            continue
        if now != seen:
            seen = now
            await _look_at_all(engine, Look.NEWS)
