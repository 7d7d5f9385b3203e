"""Opens, migrates and checks the ledger's database, and runs transactions on it."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from pixaris_sync.errors import LedgerEmptyError, LedgerError, SyncError
from pixaris_sync.ledger.trouble import damage_in, damage_of, damaged, translated

T = TypeVar("T")
#: What is applied together need not return the same.
Operation = Callable[[sqlite3.Connection], Any]

#: "PXSY": tells a ledger from any other SQLite database.
APPLICATION_ID = 0x50585359
BUSY_TIMEOUT_MS = 10_000
#: SQLite's ``-wal`` file is cut to this length when it is begun anew, whatever length it once needed.
WAL_BYTES_LIMIT = 4 * 1024 * 1024
#: Errors of SQLite's that an operation brings upon itself, as opposed to a disk or a file in trouble.
_OWN_FAULTS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)


@cache
def migrations() -> tuple[tuple[int, str], ...]:
    """The schema's steps in order, as (version, SQL); the files are named ``<version>_<what>.sql``."""
    folder = resources.files(__package__) / "sql"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple((int(name.split("_")[0]), (folder / name).read_text(encoding="utf-8")) for name in files)


@cache
def _tables(version: int) -> frozenset[str]:
    """The tables that a whole ledger of that version has."""
    with closing(sqlite3.connect(":memory:")) as db:
        for number, script in migrations():
            if number <= version:
                db.executescript(script)
        return _tables_of(db)


def _tables_of(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"))


class Ledger:
    """An open ledger. Use from one thread at a time.

    Durability: WAL with ``synchronous=FULL``, so that a committed transaction survives the loss of power.
    Many writers are served by committing their changes together (see `journal`), not by weakening this.

    Making one is a single transaction: a file is either without any table, and then nothing is lost by making
    it anew, or whole. One that has some tables only is damaged.

    Secrecy: the addresses of open resumable uploads are the only secret in it. ``secure_delete`` overwrites
    what is deleted with zeros in the file itself; copies in SQLite's ``-wal`` file go when that is used
    again, and with the file when the last process closes the ledger. All of it is private to the user.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._suspected = False

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the ledger at `path`, making or migrating it unless it is only read.

        Raises:
            LedgerDamagedError: its content is damaged, as far as opening it shows.
            LedgerEmptyError: for `read_only`, nothing was ever written to it.
            LedgerError: it is no ledger, or of a newer version; PERMISSION where the folder cannot be
                written to, TRANSIENT where the disk is full or in trouble; for `read_only`, also when there
                is none.
        """
        try:
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # Made before SQLite does, so that no other user can ever read it.
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
            raise translated("open ledger", path, error) from None
        ledger = cls(path, connection)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            ledger._check_version(read_only=read_only)
            if not read_only:
                if not ledger._version():
                    # Only before its first page is written: then unused space can be given back.
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_LIMIT}")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
                ledger._migrate()
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                # A statement of ours does not fit: the schema is not what the version says.
                raise damaged(path, str(error)) from None
            raise translated("open ledger", path, error) from None
        except LedgerError:
            connection.close()
            raise
        return ledger

    @classmethod
    def in_memory(cls, *, copy_of: Path | None = None) -> Self:
        """A ledger in memory, which is gone when it is closed; nothing is written to disk.

        Args:
            copy_of: the ledger that it begins as a copy of, where there is one at that path. Another process
                may be working with it.

        Raises:
            LedgerError: that ledger is damaged, no ledger, of a newer version, or cannot be read.
        """
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        ledger = cls(copy_of or Path(":memory:"), connection)
        try:
            if copy_of is not None and copy_of.exists():
                peek(copy_of, lambda source: source.backup(connection))
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            ledger._check_version(read_only=False)
            ledger._migrate()
        except (OSError, sqlite3.Error) as error:
            connection.close()
            raise translated("read ledger", ledger.path, error) from None
        except LedgerError:
            connection.close()
            raise
        return ledger

    def _check_version(self, *, read_only: bool) -> None:
        known = migrations()[-1][0]
        # All of one moment: another process may be making it now.
        self._connection.execute("BEGIN")
        version = self._version()
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        tables = _tables_of(self._connection)
        self._connection.execute("ROLLBACK")
        if application != APPLICATION_ID and tables >= _tables(1):
            raise damaged(self.path, "it has all tables and not the mark of a ledger")
        if (version or application or tables) and application != APPLICATION_ID:
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
        if version == 0 and tables:
            raise damaged(self.path, "it has tables and no version: it is only half made")
        if read_only and version == 0:
            raise LedgerEmptyError(
                "read ledger",
                str(self.path),
                "nothing was ever written to it",
                hint="run `pixaris-sync sync`: it begins anew, nothing is lost",
            )
        if read_only and version < known:
            raise LedgerError(
                "read ledger",
                str(self.path),
                f"its version {version} is older than this program's {known}",
                hint="run `pixaris-sync sync` once: it upgrades the ledger",
            )
        missing = _tables(version) - tables
        if missing:
            raise damaged(self.path, f"it lacks tables: {', '.join(sorted(missing))}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        steps = migrations()
        if self._version() >= steps[-1][0]:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        # Asked again: another process may have migrated it while this one waited.
        version = self._version()
        for number, script in steps:
            if number > version:
                for statement in _statements(script):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number}")
        self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._connection.execute("COMMIT")

    def apply(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations in one durable transaction, in order.

        One that raises is undone alone, and the exception stands in its place in the answer, while the
        others' results stand in theirs. For that they may be run twice.

        Raises:
            LedgerDamagedError: its content turned out to be damaged.
            LedgerError: the transaction as a whole failed (disk full, I/O error); nothing was changed.
        """
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                results = [operation(db) for operation in operations]
            except Exception as error:
                if _is_about_the_file(error):
                    raise
                db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
                results = _apart(db, operations)
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            raise translated("write ledger", self.path, error) from None
        self._suspect(results)
        return results

    def _suspect(self, results: Sequence[Any]) -> None:
        """What nobody thought of may come of a damaged ledger, once; then it is not the ledger that is odd.

        Raises:
            LedgerDamagedError: it does.
        """
        if self._suspected or not any(
            isinstance(result, Exception) and not isinstance(result, SyncError) for result in results
        ):
            return
        self._suspected = True
        if (found := self.damage()) is not None:
            raise damaged(self.path, found)

    def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run one operation in a transaction of its own; its exception is raised here."""
        [result] = self.apply([operation])
        if isinstance(result, BaseException):
            raise result
        return cast("T", result)

    def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run an operation that only reads, on one consistent snapshot."""
        db = self._connection
        try:
            db.execute("BEGIN")
            try:
                return operation(db)
            finally:
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translated("read ledger", self.path, error) from None

    def changes_of_others(self) -> int:
        """A number that changes when another process has written (SQLite's ``data_version``)."""
        try:
            with closing(self._connection.execute("PRAGMA data_version")) as cursor:
                return int(cursor.fetchone()[0])
        except sqlite3.Error as error:
            raise translated("read ledger", self.path, error) from None

    def damage(self) -> str | None:
        """What SQLite's check of the whole file finds wrong, or None; it takes time like the file's size."""
        return damage_of(self._connection)

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        self._connection.close()


def _is_about_the_file(error: Exception) -> bool:
    """Whether it is a full disk, an I/O error or a damaged file: nothing that a savepoint could mend."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULTS)


def _apart(db: sqlite3.Connection, operations: Sequence[Operation]) -> list[Any]:
    """Run operations, each in a savepoint of its own."""
    results: list[Any] = []
    for operation in operations:
        db.execute("SAVEPOINT operation")
        try:
            results.append(operation(db))
        except Exception as error:
            if _is_about_the_file(error):
                raise
            db.execute("ROLLBACK TO operation")
            results.append(error)
        db.execute("RELEASE operation")
    return results


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one at a time: ``executescript`` would end the open transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def peek(path: Path, question: Callable[[sqlite3.Connection], T]) -> T:
    """Ask a database that another process may be working with, and leave no trace beside it.

    To read a database in WAL mode makes its ``-wal`` and ``-shm`` files, unless it is declared immutable.
    Without a ``-wal`` file no process has it open, so it is; whether that held shows afterwards. So it may be
    asked twice.

    Raises:
        OSError: it cannot be looked at.
        sqlite3.Error: it cannot be read.
    """
    before = _resting(path)
    if before is not None:
        # Read while it is written, it can look damaged.
        with suppress(sqlite3.Error):
            answer = _ask(path, question, "mode=ro&immutable=1")
            if before == _resting(path):
                return answer
    return _ask(path, question, "mode=ro")


def _resting(path: Path) -> tuple[int, int] | None:
    """Size and mtime of a database that no process has open; None where one may."""
    if path.with_name(f"{path.name}-wal").exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _ask(path: Path, question: Callable[[sqlite3.Connection], T], parameters: str) -> T:
    uri = f"{path.resolve().as_uri()}?{parameters}"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000)) as source:
        return question(source)


def check_on_disk(path: Path) -> str | None:
    """What is wrong with a ledger as it stands on the disk, whatever a process that works with it remembers.

    None where nothing is, or where it cannot be looked at just now.
    """
    try:
        return peek(path, damage_of)
    except OSError:
        return None
    except sqlite3.Error as error:
        return damage_in(error)


def get_fact(db: sqlite3.Connection, name: str) -> str | None:
    """What was written down under a name."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def set_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    """Write something down under a name."""
    db.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (name, value),
    )
