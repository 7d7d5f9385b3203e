"""Opens the ledger for work, and rebuilds it where it is damaged.

A ledger is checked whole before it is trusted, and where work meets damage all the same, it begins anew. A
damaged one is set aside, never deleted, and an empty one takes its place: the next scan fills it from the
local folder, and comparing with the cloud finds what is there already. That costs listings and reads, no
second row.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from pixaris_sync.errors import LedgerDamagedError, LedgerError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.model import Problem

log = logging.getLogger(__name__)
T = TypeVar("T")

#: What SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm")
#: In the name of one that was damaged, before the time.
SET_ASIDE = ".damaged-"
#: A ledger that is damaged again this soon is on a disk that keeps nothing.
DAMAGED_AGAIN_SECONDS = 3600.0


def work_with(path: Path, work: Callable[[Ledger], T], *, now: Callable[[], float] = time.time) -> T:
    """Do `work` with the ledger at `path`, made, migrated or rebuilt as needed; its owner calls this.

    Where the work ends because the ledger turns out to be damaged, it is set aside, and the work is done once
    more with a new one.

    Args:
        path: where it is.
        work: what to do; it must be fit to be done again. Its errors may come in groups.
        now: seconds since the epoch, for names and notices.

    Raises:
        LedgerDamagedError: a new ledger was damaged within an hour, too; it is set aside as well.
        LedgerError: it cannot be opened or written, is another program's, or of a newer version.
    """
    rebuilt_at: float | None = None
    while True:
        with closing(_open(path, now())) as ledger:
            try:
                return work(ledger)
            except (LedgerDamagedError, BaseExceptionGroup) as error:
                if (damage := _damage_in(error)) is None:
                    raise
        _rebuild(path, now(), damage.cause).close()
        if rebuilt_at is not None and now() - rebuilt_at < DAMAGED_AGAIN_SECONDS:
            raise LedgerDamagedError(
                "use ledger",
                str(path),
                f"it was rebuilt a moment ago and is damaged again ({damage.cause})",
                hint="its disk does not keep what is written to it: replace it, or choose another folder "
                "with --state-dir",
            )
        rebuilt_at = now()


def _damage_in(error: BaseException) -> LedgerDamagedError | None:
    """The damage among errors that ended several tasks together."""
    while isinstance(error, BaseExceptionGroup):
        group = error.subgroup(LedgerDamagedError)
        if group is None:
            return None
        error = group.exceptions[0]
    return error if isinstance(error, LedgerDamagedError) else None


def _open(path: Path, now: float) -> Ledger:
    try:
        ledger = Ledger.open(path)
    except LedgerDamagedError as error:
        return _rebuild(path, now, error.cause)
    if (damage := ledger.damage()) is None:
        return ledger
    ledger.close()
    return _rebuild(path, now, damage)


def _rebuild(path: Path, now: float, damage: str) -> Ledger:
    """Set a damaged ledger aside and make a new one, which tells of it."""
    aside = _set_aside(path, now)
    log.error("the ledger %s is damaged (%s): it is kept as %s and rebuilt", path, damage, aside.name)
    ledger = Ledger.open(path)
    ledger.write(partial(_tell, now=now, path=path, aside=aside))
    return ledger


def _set_aside(path: Path, now: float) -> Path:
    stamp = datetime.fromtimestamp(now, tz=UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}{SET_ASIDE}{stamp}")
    try:
        path.rename(aside)
        for companion in COMPANIONS:
            with suppress(FileNotFoundError):
                path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    except OSError as error:
        raise LedgerError(
            "set aside damaged ledger",
            str(path),
            error.strerror or str(error),
            hint="move it away by hand; the next start makes a new one",
        ) from None
    return aside


def _tell(db: Connection, *, now: float, path: Path, aside: Path) -> None:
    cause = f"it was damaged and is rebuilt from the local folder and the cloud; the old one is {aside.name}"
    hint = "look after the disk; once you need the old one no more, delete it"
    take_in_notices(db, now, "ledger", [Notice(path.name, Problem(cause, hint), quarantined=False)])
