"""Carries what waits in a spool to the cloud, with the engine of this package.

One thread of a process carries at a time; whoever waits for it finds its own run carried, mostly. Where
another process owns the spool, it does the work, and this one looks on until its run is there. Nothing of the
process is changed for that: no signals, no logging, no priorities.
"""

import logging
import os
import random
import shlex
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from msgspec import Struct

from pixaris_sync.clock import SystemClock
from pixaris_sync.errors import Failure, FolderOwnedError, LedgerError, SyncError
from pixaris_sync.handlers.claims import ClaimingStore
from pixaris_sync.handlers.portal import run as run_anywhere
from pixaris_sync.handlers.spool import empty, recover_all
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.overview import WorkLeft, problems, standing, unsynced_runs
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import RunKey, RunState
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.process.ownership import STORE_RESULTS
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.wiring import found_ledger, ports, work_as_owner
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted, printable

log = logging.getLogger(__name__)

#: How often it is looked whether another process has carried a run, and how long at most: it may have a
#: backlog, and carries the run all the same.
_LOOK_SECONDS: Final = 0.1
_OTHERS_SECONDS: Final = 60.0
_WAITING: Final = (RunState.FAILING, RunState.PENDING)


class Stand(Struct, frozen=True):
    """Where a run, or a whole spool, stands.

    Attributes:
        state: a run's; of a spool the worst; None: the ledger knows nothing of it yet.
        cause, hint: why, where something is wrong.
        runs: how many are not in the cloud.
        denied: the account may not do what they need.
    """

    state: RunState | None
    cause: str = ""
    hint: str = ""
    runs: int = 0
    denied: bool = False


def carry(settings: Settings, run: RunKey | None = None) -> None:
    """Carry everything that waits in a spool, and return when `run` is in its table.

    Where something that passes keeps it back, that is told in one warning: the run goes later. Without `run`
    it is about all runs, and that is an error.

    Args:
        settings: as `spool.spool_settings` gives them.
        run: whose row somebody waits for.

    Raises:
        ConfigurationError: bucket, dataset, settings or credentials are missing or unusable.
        SyncError: the account may not do it (PERMISSION), somebody must act before the run can be carried,
            or, without `run`, something stays. Whatever is raised, runs stay in the spool.
    """
    with _one_at_a_time(settings.local_results_folder):
        try:
            stand = _carried(settings, run)
        except SyncError as error:
            error.add_note(_note(settings))
            raise
    if stand.state is RunState.SYNCED:
        return
    subject = printable(str(run or settings.local_results_folder))
    if run is None or stand.denied or stand.state not in (None, *_WAITING):
        failure = Failure.PERMISSION if stand.denied else Failure.PERMANENT
        if stand.state in (None, *_WAITING) and not stand.denied:
            failure = Failure.TRANSIENT
        stay = counted(stand.runs, "run stays", "runs stay")
        cause = stand.cause if run is not None else f"{stay} in the spool: {stand.cause}"
        kept = SyncError("carry", subject, cause, hint=stand.hint, failure=failure)
        kept.add_note(_note(settings))
        raise kept
    log.warning(
        "run %s waits in spool %s: %s; the next call carries it, or: %s",
        subject,
        printable(str(settings.local_results_folder)),
        stand.cause,
        command(settings),
    )


def command(settings: Settings) -> str:
    """The command that carries a spool."""
    flags = {
        "--local-results-folder": str(settings.local_results_folder),
        "--gcp-project-id": settings.gcp_project_id,
        "--gcp-bq-experiment-dataset": settings.gcp_bq_experiment_dataset,
        "--gcp-pixaris-bucket-name": settings.gcp_pixaris_bucket_name,
    }
    words = [word for flag in flags.items() for word in flag]
    return shlex.join(["pixaris-sync", "sync", *words, "--accept-runs-without-images"])


def tell_of_exit(settings: Settings, error: RuntimeError) -> None:
    """Say that the interpreter ended before everything was carried."""
    folder = printable(str(settings.local_results_folder))
    log.warning("runs wait in spool %s: %s; to carry them: %s", folder, error, command(settings))


def is_known(settings: Settings, run: RunKey) -> bool:
    """Whether the ledger of a spool knows a run of this name, also where its folder is gone."""
    return _asked(settings, partial(_stand_of_run, run=run)) not in (None, Stand(None))


def _note(settings: Settings) -> str:
    return f"nothing is lost: what is not in the cloud stays in {settings.local_results_folder}"


def _carried(settings: Settings, run: RunKey | None) -> Stand:
    """Carry as the owner, or wait while another process does, and say how it ended."""
    begun = time.monotonic()
    while True:
        # Another thread, or another process, may have carried it meanwhile.
        if run is not None and (stand := _looked_up(settings, run)).state not in (None, *_WAITING):
            return stand
        try:
            work = partial(_work, settings, run)
            return work_as_owner(settings, STORE_RESULTS, work, selection=_selection(settings), waits=False)
        except FolderOwnedError as error:
            stand = _looked_up(settings, run)
            if stand.state is RunState.FAILING:
                return stand
            if time.monotonic() - begun > _OTHERS_SECONDS:
                return Stand(stand.state, error.cause, error.hint, stand.runs)
        time.sleep(_LOOK_SECONDS)


def _work(settings: Settings, run: RunKey | None, ledger: Ledger) -> Stand:
    recover_all(settings)
    left = run_anywhere(partial(_pass, settings, ledger))
    stand = ledger.read(lambda db: _stand(db, settings, run, left))
    empty(settings, ledger)
    return stand


def _selection(settings: Settings) -> Selection:
    return Selection(attempts_limit=settings.sync_attempts_limit)


async def _pass(settings: Settings, ledger: Ledger) -> WorkLeft:
    clock = SystemClock()
    throttle = Throttle(settings, ledger.path, clock)
    async with ports(settings, pace=throttle.pace) as (store, sink):
        engine = Engine(
            settings=settings,
            mode=Mode(selection=_selection(settings)),
            ledger=ledger,
            store=ClaimingStore(store, settings.local_results_folder),
            sink=sink,
            clock=clock,
            jitter=random.Random(),  # noqa: S311 - jitter needs no secrecy
            throttle_seconds=throttle.throttle_seconds,
        )
        return await engine.run()


def _looked_up(settings: Settings, run: RunKey | None) -> Stand:
    """How it stands by the ledger, which another process may be working with."""
    found = _asked(settings, lambda db: _stand(db, settings, run, None))
    return found or Stand(None, "it was not looked at yet")


def _asked(settings: Settings, question: Callable[[Connection], Stand]) -> Stand | None:
    path = found_ledger(settings).path
    try:
        if not may_exist(path):
            return None
        with closing(Ledger.open(path, read_only=True)) as ledger:
            return ledger.read(question)
    except LedgerError:
        return None  # Whoever works with it tells what is wrong.


def _stand(db: Connection, settings: Settings, run: RunKey | None, left: WorkLeft | None) -> Stand:
    stand = _stand_of_all(db, settings) if run is None else _stand_of_run(db, run)
    denied = left is not None and left.denied and stand.state in _WAITING
    if stand.cause or stand.state is RunState.SYNCED:
        return Stand(stand.state, stand.cause, stand.hint, stand.runs, denied)
    # What keeps it back may be told of another.
    told = [one for one in problems(db, Selection(), settings.dataset_tracking_file_name) if one.cause]
    first = next((one for one in told if one.state == RunState.FAILING), None)
    if first is None:
        return Stand(stand.state, "it waits for its turn", "", stand.runs, denied)
    return Stand(stand.state, first.cause, first.hint, stand.runs, denied)


def _stand_of_run(db: Connection, run: RunKey) -> Stand:
    found = standing(db, run)
    return Stand(RunState(found.state), found.cause, found.hint, 1) if found else Stand(None)


def _stand_of_all(db: Connection, settings: Settings) -> Stand:
    unsynced = unsynced_runs(db)
    order = (RunState.QUARANTINED, RunState.INCOMPLETE, RunState.FAILING, RunState.PENDING)
    state = next((one for one in order if one in unsynced), RunState.SYNCED)
    told = problems(db, Selection(), settings.dataset_tracking_file_name)
    damaged = next((one for one in told if one.state == RunState.QUARANTINED), None)
    if damaged is not None:
        state = RunState.QUARANTINED
    worst = next((one for one in told if one.state == state and one.cause), None)
    runs = sum(unsynced.values())
    return Stand(state, worst.cause if worst else "", worst.hint if worst else "", runs)


_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def _one_at_a_time(folder: Path) -> threading.Lock:
    return _locks[folder]


# A child has none of its parent's threads, one of which may hold a lock.
os.register_at_fork(after_in_child=_locks.clear)
