"""Small ledgers for tests: datasets, runs, records and files in a line each."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar

from pixaris_sync.ledger import adoption, datasets, intake, pending_rows, uploads
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.intake import FoundRecord, FoundRun
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import (
    DamagedLine,
    DatasetKey,
    FileVersion,
    FoundFile,
    Problem,
    RemoteObject,
    RunKey,
    Tail,
    TailPosition,
    TrackingRecord,
)

T = TypeVar("T")
SHOES = DatasetKey("shop", "shoes")
TABLE = "shop_shoes_experiment_results"
RUN = "20240101-000001_x"
NOW = 1_700_000_000.0
ALL = Selection()
PROBLEM = Problem("it failed", "mend it")


def opened(folder: Path) -> Ledger:
    """A new ledger; SQLite need not wait for the disk in tests of logic."""
    ledger = Ledger.open(folder / "state" / "ledger.sqlite3")
    ledger._connection.execute("PRAGMA synchronous = OFF")
    return ledger


def record(run: str = RUN, *, line: int = 1, digest: str | None = None, **values: Any) -> TrackingRecord:
    content = {"experiment_run_name": run, **values}
    text = json.dumps(content, sort_keys=True)
    return TrackingRecord(RunKey(SHOES.project, SHOES.dataset, run), content, digest or text, line)


def file(
    path: str = "generated_images/a.png", *, size: int = 10, mtime_ns: int = 5, inode: int = 7
) -> FoundFile:
    return FoundFile(path, FileVersion(size, mtime_ns, inode))


def inline(path: str, content: bytes) -> FoundFile:
    return FoundFile(path, FileVersion(len(content), 0, 0, sum(content)), content)


def found_run(
    *records: TrackingRecord | FoundRecord,
    name: str = RUN,
    files: Sequence[FoundFile] = (),
    problem: Problem | None = None,
    signature: str = "signature",
    just_written: bool = True,
    quiet_at: float | None = None,
) -> FoundRun:
    found = tuple(one if isinstance(one, FoundRecord) else FoundRecord(one) for one in records)
    return FoundRun(name, signature, tuple(files), found, problem, just_written, quiet_at)


def tail(
    records: Sequence[TrackingRecord] = (),
    *,
    damaged: Sequence[DamagedLine] = (),
    from_start: bool = False,
    more: bool = False,
    torn_bytes: int = 0,
    offset: int = 100,
) -> Tail:
    position = TailPosition(1, 2, offset, 3, offset, len(records), "digest")
    return Tail(position, from_start, tuple(records), tuple(damaged), torn_bytes, more)


class Book:
    """A ledger with a hand on it: transitions and questions at a time that tests set."""

    def __init__(self, folder: Path | None) -> None:
        self.ledger = opened(folder) if folder else Ledger.in_memory()
        self.now = NOW

    def do(self, transition: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Apply ``transition(db, now, ...)``."""

        def operation(db: Connection) -> T:
            return transition(db, self.now, *args, **kwargs)

        result: T = self.ledger.write(operation)
        return result

    def ask(self, question: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Ask ``question(db, ...)``."""

        def operation(db: Connection) -> T:
            return question(db, *args, **kwargs)

        result: T = self.ledger.read(operation)
        return result

    def select(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self.ledger._connection.execute(sql, parameters).fetchall()]

    def one(self, sql: str, *parameters: Any) -> dict[str, Any]:
        [row] = self.select(sql, *parameters)
        return row

    def run_state(self, name: str = RUN) -> tuple[str, str | None]:
        row = self.one("SELECT state, cause FROM runs WHERE name = ?", name)
        return row["state"], row["cause"]

    def states(self, table: str) -> list[str]:
        return [row["state"] for row in self.select(f"SELECT state FROM {table} ORDER BY id")]  # noqa: S608 - a literal

    def dataset(self, key: DatasetKey = SHOES, *, adopted: bool = True) -> int:
        table = f"{key.project}_{key.dataset}_experiment_results"
        known = self.do(datasets.open_dataset, key, table)
        if adopted and not known.adopted:
            self.do(adoption.adopted, known.id)
        return known.id

    def take(self, *runs: FoundRun, dataset_id: int | None = None, **options: Any) -> int:
        """Take in one reading that holds the records of these runs."""
        records = [one.record for run in runs for one in run.records]
        known = self.dataset() if dataset_id is None else dataset_id
        return self.do(intake.take_in, known, tail(records, **options), runs)

    def claim(
        self, count: int = 100, selection: Selection = ALL, *, later_seconds: float = 0.0
    ) -> list[uploads.UploadTask]:
        found: list[uploads.UploadTask] = self.ledger.write(
            lambda db: uploads.claim(db, self.now + later_seconds, selection, count)
        )
        return found

    def upload(self, task: uploads.UploadTask, *, was_there: bool = False) -> None:
        self.do(uploads.confirm_uploads, [uploads.Receipt(task, remote(task), was_there)])

    def upload_all(self) -> None:
        while tasks := self.claim():
            for task in tasks:
                self.upload(task)

    def ready(
        self, count: int = 100, selection: Selection = ALL, table: str = TABLE
    ) -> list[pending_rows.PendingRow]:
        return self.do(pending_rows.ready_rows, selection, table, count)

    def table_backlogs(self, selection: Selection = ALL) -> list[Any]:
        return self.do(pending_rows.table_backlogs, selection)


def remote(task: uploads.UploadTask, *, crc32c: int | None = None, generation: int = 1) -> RemoteObject:
    checksum = crc32c or task.version.content_crc32c or 99
    return RemoteObject(f"results/{task.run}/{task.path}", task.version.size, checksum, generation)


def values_of(row: pending_rows.PendingRow) -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads(row.payload)
    return values
