"""Opens the ledger for work, and rebuilds it where it is damaged.

A ledger that was not closed in order is checked whole before it is trusted. A damaged one is set aside, never
deleted, and an empty one takes its place: the next scan fills it from the local folder, and comparing with
the cloud finds what is there already. That costs listings and reads, no second row.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from pixaris_sync.errors import LedgerDamagedError, LedgerError
from pixaris_sync.ledger.database import Ledger, get_fact, set_fact
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.model import Problem

log = logging.getLogger(__name__)

#: Under this name the ledger remembers that somebody works with it; found at start, they did not finish.
IN_USE = "in_use_since"
#: What SQLite keeps beside a database.
_COMPANIONS = ("-wal", "-shm")


@contextmanager
def working_ledger(path: Path, *, now: float) -> Iterator[Ledger]:
    """The ledger at `path` to work with, made, migrated or rebuilt as needed; its owner calls this.

    Args:
        path: where it is.
        now: seconds since the epoch, for names and notices.

    Raises:
        LedgerError: it cannot be opened or written, is another program's, or of a newer version.
    """
    ledger, aside = _open(path, now)
    with closing(ledger):
        ledger.write(partial(set_fact, name=IN_USE, value=repr(now)))
        if aside is not None:
            ledger.write(partial(_tell, now=now, path=path, aside=aside))
        yield ledger
        # A ledger in trouble stays marked and is checked at the next start.
        with suppress(LedgerError):
            ledger.write(_finish)


def _open(path: Path, now: float) -> tuple[Ledger, Path | None]:
    try:
        ledger = Ledger.open(path)
    except LedgerDamagedError as error:
        damage: str | None = error.cause
    else:
        damage = ledger.damage() if ledger.read(partial(get_fact, name=IN_USE)) is not None else None
        if damage is None:
            return ledger, None
        ledger.close()
    aside = _set_aside(path, now)
    log.error("the ledger %s is damaged (%s): it is kept as %s and rebuilt", path, damage, aside.name)
    return Ledger.open(path), aside


def _set_aside(path: Path, now: float) -> Path:
    stamp = datetime.fromtimestamp(now, tz=UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        path.rename(aside)
        for companion in _COMPANIONS:
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


def _finish(db: Connection) -> None:
    db.execute("DELETE FROM facts WHERE name = ?", (IN_USE,))
