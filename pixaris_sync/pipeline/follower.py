"""Keeps a following engine awake: file events, periodic rounds, and changes of the ledger.

Events only say "look again": a lost one costs time until the next round, never a run. Where events cannot be
had (inotify limits, network file systems) rounds are made more often instead.

A round through the results folder finds what events may have missed, at the price of what has changed. It
compares the status of each dataset's folder and tracking file with what the round before it saw, and has
those datasets scanned in which there is a difference, and those of which the ledger says that they are not
finished: runs that wait, are damaged or are being stored can change below what is compared. A round over
years of finished runs costs three looks at the disk for each dataset.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import NamedTuple

import anyio
from anyio import to_thread

from pixaris_sync.errors import LedgerError, LocalFileError, SyncError
from pixaris_sync.ledger.known import unfinished_datasets
from pixaris_sync.local.results_folder import DatasetStatus, LocalResults
from pixaris_sync.local.watch import Changed
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.orphans import CLOCK_TICK_SECONDS
from pixaris_sync.ports import Clock

log = logging.getLogger(__name__)

#: How often the ledger is asked whether another process (``retry``) has changed it, and the folders of runs
#: that were copied in lately are looked at.
LEDGER_POLL_SECONDS = 2.0
#: Without events everything is looked at this often.
POLL_SECONDS = 2.0
#: How often the folders of synced runs are looked at too, and all of the ledger.
EVERYTHING_SECONDS = 3600.0


class _Sight(NamedTuple):
    """What a round saw: datasets (None: it could not be looked into, or not be relied on), and problems."""

    datasets: dict[DatasetKey, DatasetStatus | None]
    problems: tuple[str, ...] = ()


class Rounds:
    """Makes rounds for an engine that follows.

    What is seen is seen before it is scanned, so that what changes in between is found by the next round.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen = _Sight({})

    async def make(self) -> None:
        """Have scanned soon what has changed since the last round, or is not finished.

        Raises:
            LocalFileError: the results folder itself cannot be read.
        """
        engine, before = self._engine, self._seen
        if not await engine.folder_is_there():
            return
        seen = await to_thread.run_sync(partial(_look_around, engine.context.results))
        if seen.datasets.keys() != before.datasets.keys() or seen.problems != before.problems:
            # It also notes what is wrong with the results folder itself.
            await engine.scan_all_soon(ScanDepth.FOLDERS)
        else:
            unfinished = await engine.context.apply(unfinished_datasets)
            for key, status in seen.datasets.items():
                if key in unfinished or status is None or status != before.datasets[key]:
                    engine.scan_soon(key, ScanDepth.FOLDERS)
        reliable = {key: self._reliable(status) for key, status in seen.datasets.items()}
        self._seen = _Sight(reliable, seen.problems)

    def _reliable(self, status: DatasetStatus | None) -> DatasetStatus | None:
        """What changes right after a change may leave the same times."""
        if status is None or abs(self._engine.context.age_seconds(status.changed_ns)) < CLOCK_TICK_SECONDS:
            return None
        return status


def _look_around(results: LocalResults) -> _Sight:
    found = results.datasets()
    statuses: dict[DatasetKey, DatasetStatus | None] = {}
    for key in found.keys:
        try:
            statuses[key] = results.status(key)
        except LocalFileError:
            statuses[key] = None  # The scan tells why.
    return _Sight(statuses, tuple(str(problem) for problem in found.problems))


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
        tasks.start_soon(_poll, engine, clock)
        while True:
            try:
                await _pass_on(engine, rounds, changes())
            except SyncError as error:
                if await engine.folder_is_there():
                    log.warning("%s; looking every %g s instead (%s)", error, POLL_SECONDS, error.hint)
                    await _rescan(engine, rounds, clock, min(POLL_SECONDS, rescan_interval_seconds))
                # Watching begins anew when the folder is back.
                await clock.sleep(POLL_SECONDS)


async def _pass_on(engine: Engine, rounds: Rounds, changes: AsyncIterator[Changed]) -> None:
    """Have looked at what changes tell of, until another folder is in the place of one that was watched."""
    async for changed in changes:
        if changed.everything:
            await _look(rounds.make)
        for key in changed.datasets:
            engine.scan_soon(key, ScanDepth.NEW_LINES)
        for run in changed.runs:
            engine.inspect_soon(run)


async def _rescan(engine: Engine, rounds: Rounds, clock: Clock, interval_seconds: float) -> None:
    looked_at = clock.elapsed()
    while True:
        await clock.sleep(interval_seconds)
        if clock.elapsed() - looked_at < EVERYTHING_SECONDS:
            await _look(rounds.make)
        else:
            looked_at = clock.elapsed()
            await engine.context.journal.check()
            await _look(partial(engine.scan_all_soon, ScanDepth.EVERYTHING))


async def _look(look: Callable[[], Awaitable[None]]) -> None:
    try:
        await look()
    except LocalFileError as error:
        # A folder on a network that is unreachable; it is looked at again.
        log.warning("%s", error)


async def _poll(engine: Engine, clock: Clock) -> None:
    """Look after what no event tells of."""
    journal = engine.context.journal
    seen = await journal.changes_of_others()
    while True:
        await clock.sleep(LEDGER_POLL_SECONDS)
        await engine.folder_is_there()
        if engine.arrivals.any_lately:
            for run in await to_thread.run_sync(lambda: list(engine.arrivals.stirred())):
                engine.inspect_soon(run)
        try:
            now = await journal.changes_of_others()
        except LedgerError as error:
            # The journal says so, and waits, when something is to be written.
            log.debug("%s", error)
            continue
        if now != seen:
            seen = now
            await _look(partial(engine.scan_all_soon, ScanDepth.NEW_LINES))
