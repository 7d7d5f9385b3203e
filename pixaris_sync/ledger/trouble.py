"""What an error of SQLite's or of the system means for a ledger: damage, a refused place, a disk in trouble.

A disk in trouble passes or is mended, and the work goes on where it was. A place that refuses a ledger is for
somebody to mend. Damage is mended by `rescue`, which makes a new ledger.
"""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from pixaris_sync.errors import Failure, LedgerDamagedError, LedgerError, open_files_hint

#: SQLite's primary result codes for a file whose content is damaged.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: The same for what may be wrong with the folder.
_REFUSED: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
#: Python reports text that is no UTF-8 without a result code. Nothing else is ever stored.
_UNDECODABLE: Final = "Could not decode to UTF-8"
#: Errors of the system about a path that stay until somebody acts.
_PLACE_FAULTS: Final = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    }
)


def damage_of(db: sqlite3.Connection) -> str | None:
    """What SQLite's check of the whole file finds wrong, or None; it takes time like the file's size."""
    try:
        found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return damage_in(error)
    return None if found == "ok" else " ".join(found.split())


def damage_in(error: sqlite3.Error) -> str | None:
    """What an error says of the file's content; None where it says nothing of that."""
    # Errors that Python raises by itself have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return str(error) if code in _DAMAGED or str(error).startswith(_UNDECODABLE) else None


def damaged(path: Path, cause: str) -> LedgerDamagedError:
    """The error for a ledger whose content is damaged."""
    return LedgerDamagedError(
        "use ledger",
        str(path),
        cause,
        hint="run `pixaris-sync sync`, or restart the service: it sets the damaged ledger aside, deletes "
        "nothing, rebuilds it from the local folder and the cloud",
    )


def translated(operation: str, path: Path, error: OSError | sqlite3.Error) -> LedgerError:
    """What an error of SQLite's or of the system means for the ledger at `path`."""
    refusal, cause = error if isinstance(error, OSError) else None, str(error)
    if isinstance(error, sqlite3.Error):
        if (found := damage_in(error)) is not None:
            return damaged(path, found)
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _REFUSED:
            # SQLite does not say why.
            refusal = _refusal(path)
    failure, hint = Failure.TRANSIENT, "look after its disk and the free space there; nothing was lost"
    if refusal is not None:
        cause, hint = refusal.strerror or cause, open_files_hint(refusal) or hint
        if refusal.errno in _PLACE_FAULTS:
            failure = Failure.PERMISSION
            hint = "let the user who runs pixaris-sync write to its folder, or choose another --state-dir"
    return LedgerError(operation, str(path), cause, hint=hint, failure=failure)


def _refusal(path: Path) -> OSError | None:
    """Why no file can be written beside `path`; None: it can."""
    probe = path.with_name(f"{path.name}.probe")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        probe.unlink()
    except OSError as error:
        return error
    return None
