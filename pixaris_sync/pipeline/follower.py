"""Keeps a following engine awake: file events, periodic rounds, and changes of the ledger.

Events only say "look again": a lost one costs time until the next round, never a run. Where events cannot be
had (inotify limits, network file systems) rounds are made more often instead.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import anyio

from pixaris_sync.errors import LedgerError, LocalFileError, SyncError
from pixaris_sync.local.watch import Changed
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.rounds import Rounds
from pixaris_sync.ports import Clock

log = logging.getLogger(__name__)

#: How often the ledger is asked whether another process (``retry``) has changed it.
LEDGER_POLL_SECONDS = 2.0
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
        rescan_interval_seconds: how often to make a round, events or not.
    """
    rounds = Rounds(engine)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_rescan, engine, rounds, clock, rescan_interval_seconds)
        tasks.start_soon(_watch_ledger, engine, clock)
        try:
            async for changed in changes():
                if changed.everything:
                    await _look(rounds.make)
                for key in changed.datasets:
                    engine.scan_soon(key, ScanDepth.NEW_LINES)
        except SyncError as error:
            log.warning("%s; looking every %g s instead (%s)", error, POLL_SECONDS, error.hint)
            await _rescan(engine, rounds, clock, min(POLL_SECONDS, rescan_interval_seconds))


async def _rescan(engine: Engine, rounds: Rounds, clock: Clock, interval_seconds: float) -> None:
    looked_at = clock.elapsed()
    while True:
        await clock.sleep(interval_seconds)
        if clock.elapsed() - looked_at < EVERYTHING_SECONDS:
            await _look(rounds.make)
        else:
            looked_at = clock.elapsed()
            await _look(partial(engine.scan_all_soon, ScanDepth.EVERYTHING))


async def _look(look: Callable[[], Awaitable[None]]) -> None:
    try:
        await look()
    except LocalFileError as error:
        # A folder on a network that is unreachable; it is looked at again.
        log.warning("%s", error)


async def _watch_ledger(engine: Engine, clock: Clock) -> None:
    journal = engine.context.journal
    seen = await journal.changes_of_others()
    while True:
        await clock.sleep(LEDGER_POLL_SECONDS)
        try:
            now = await journal.changes_of_others()
        except LedgerError as error:
            # The journal says so, and waits, when something is to be written.
            log.debug("%s", error)
            continue
        if now != seen:
            seen = now
            await _look(partial(engine.scan_all_soon, ScanDepth.NEW_LINES))
