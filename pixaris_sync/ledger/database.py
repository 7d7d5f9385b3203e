"""Opens, migrates and checks the ledger's database, and runs transactions on it."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pixaris_sync.errors import LedgerError

Operation = Callable[[sqlite3.Connection], Any]

#: "PXSY": tells a ledger from any other SQLite database.
APPLICATION_ID = 0x50585359
BUSY_TIMEOUT_MS = 10_000


def migrations() -> list[tuple[int, str]]:
    """The schema's steps in order, as (version, SQL); the files are named ``<version>_<what>.sql``."""
    folder = resources.files(__package__) / "sql"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.split("_")[0]), (folder / name).read_text(encoding="utf-8")) for name in files]


class Ledger:
    """An open ledger. Use from one thread at a time.

    Durability: WAL with ``synchronous=FULL``, so that a committed transaction survives the loss of power.
    Many writers are served by committing their changes together (see `journal`), not by weakening this.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the ledger at `path`, making or migrating it unless it is only read.

        Raises:
            LedgerError: it is damaged, no ledger, of a newer version, or the folder cannot be written;
                for `read_only`, also when there is none.
        """
        hint = "check the folder's owner, its permissions and the free space"
        try:
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Made before SQLite does, so that nobody else can ever read it.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            mode = "ro" if read_only else "rw"
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_TIMEOUT_MS / 1000,
            )
        except (OSError, sqlite3.Error) as error:
            raise LedgerError("open ledger", str(path), str(error), hint=hint) from None
        ledger = cls(path, connection)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            ledger._migrate(read_only=read_only)
        except sqlite3.Error as error:
            connection.close()
            raise LedgerError("open ledger", str(path), str(error), hint=hint) from None
        except LedgerError:
            connection.close()
            raise
        return ledger

    def _migrate(self, *, read_only: bool) -> None:
        steps = migrations()
        known = steps[-1][0]
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version and application != APPLICATION_ID:
            raise LedgerError(
                "open ledger",
                str(self.path),
                "this is another program's database",
                hint="choose another --state-dir",
            )
        if version > known:
            raise LedgerError(
                "open ledger",
                str(self.path),
                f"its version {version} is newer than this program's {known}",
                hint="upgrade pixaris-sync, or choose another --state-dir",
            )
        if read_only and version < known:
            raise LedgerError(
                "read ledger",
                str(self.path),
                f"its version {version} is older than this program's {known}",
                hint="run `pixaris-sync sync` once: it upgrades the ledger",
            )
        for number, script in steps:
            if number > version:
                self._connection.executescript(
                    f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID};"
                    f"PRAGMA user_version = {number}; COMMIT;"
                )

    def apply(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations in one durable transaction, in order.

        Each has its own savepoint: one that raises is undone alone, and the exception stands in its place
        in the answer, while the others' results stand in theirs.

        Raises:
            LedgerError: the transaction as a whole failed (disk full, I/O error); nothing was changed.
        """
        results: list[Any] = []
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            for operation in operations:
                db.execute("SAVEPOINT operation")
                try:
                    results.append(operation(db))
                except sqlite3.OperationalError:
                    raise
                except Exception as error:  # noqa: BLE001 - handed to whoever asked for the operation
                    db.execute("ROLLBACK TO operation")
                    results.append(error)
                db.execute("RELEASE operation")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise LedgerError(
                "write ledger",
                str(self.path),
                str(error),
                hint="check the free space and the disk; nothing was lost, the change is tried again",
            ) from None
        return results

    def write(self, operation: Operation) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Run one operation in a transaction of its own; its exception is raised here."""
        [result] = self.apply([operation])
        if isinstance(result, BaseException):
            raise result
        return result

    def read(self, operation: Operation) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Run an operation that only reads, on one consistent snapshot."""
        db = self._connection
        try:
            db.execute("BEGIN")
            try:
                return operation(db)
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise LedgerError("read ledger", str(self.path), str(error)) from None

    def changes_of_others(self) -> int:
        """A number that changes when another process has written (SQLite's ``data_version``)."""
        with closing(self._connection.execute("PRAGMA data_version")) as cursor:
            return int(cursor.fetchone()[0])

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        self._connection.close()
