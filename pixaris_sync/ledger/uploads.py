"""Transitions of files: claimed, uploaded, put off, quarantined; and what adoption finds in the bucket."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection, Row

from pixaris_sync.ledger.selection import SELECTED_DATASETS, Selection, selected
from pixaris_sync.ledger.standing import OBJECT_WRITE_SECONDS, Problem, settle_runs
from pixaris_sync.model import FileState, FileVersion, RemoteObject, RowState, RunKey

#: Files that wait, as the index over open files knows them; the second condition is that index's own.
_WAITING = f"""
f.state = 'pending' AND f.state <> 'uploaded' AND f.dataset_id = d.id AND {selected("f.rank")}
"""
#: Files that may be sent: their dataset was compared with the bucket, and nothing speaks against them.
_SENDABLE = f"""
FROM datasets d CROSS JOIN files f INDEXED BY files_open CROSS JOIN runs r
WHERE {_WAITING} AND r.id = f.run_id AND d.adopted_at IS NOT NULL AND d.cause IS NULL
  AND r.folder_cause IS NULL AND f.attempts < :attempts_limit
"""
#: Datasets that files may be sent of, and the newest run of each that has a file waiting.
_HEADS = f"""
SELECT (SELECT f.rank FROM files f WHERE {_WAITING} ORDER BY f.rank DESC LIMIT 1) AS newest, d.id
FROM datasets d WHERE d.adopted_at IS NOT NULL AND d.cause IS NULL AND {SELECTED_DATASETS}
"""
_NEXT_OF_DATASET = f"""
SELECT f.*, r.name, d.project, d.dataset {_SENDABLE}
  AND d.id = :dataset_id AND f.rank >= :floor AND f.next_attempt_at <= :now
ORDER BY f.rank DESC, f.size LIMIT :count
"""


@dataclass(frozen=True, slots=True)
class UploadTask:
    """A file claimed for upload.

    Attributes:
        id, run_id: the file's row in the ledger, and its run's.
        run, path: which file of which run.
        version: what the local file looked like when it was taken in.
        content: its bytes where it has no local file (a dict metric).
        generation: the object's generation that it may replace; 0 where none may exist.
        crc32c: the checksum of that object, if known.
        ours: that object holds an earlier version of this file, so a newer one may replace it.
        looked: False where an upload may have happened already: look before sending.
        sent_crc32c: the checksum of what that upload held, if known.
        session_uri: a resumable session begun earlier for this version.
        attempts: how many attempts have failed.
        had_cause: something was wrong with it when it was claimed.
    """

    id: int
    run_id: int
    run: RunKey
    path: str
    version: FileVersion
    content: bytes | None
    generation: int
    crc32c: int | None
    ours: bool
    looked: bool
    sent_crc32c: int | None
    session_uri: str | None
    attempts: int
    had_cause: bool


def _task(row: Row) -> UploadTask:
    return UploadTask(
        id=row["id"],
        run_id=row["run_id"],
        run=RunKey(row["project"], row["dataset"], row["name"]),
        path=row["path"],
        version=FileVersion(row["size"], row["mtime_ns"], row["inode"]),
        content=row["content"],
        generation=row["generation"],
        crc32c=row["crc32c"],
        ours=bool(row["ours"]),
        looked=bool(row["looked"]),
        sent_crc32c=row["sent_crc32c"],
        session_uri=row["session_uri"],
        attempts=row["attempts"],
        had_cause=row["cause"] is not None,
    )


def claim(db: Connection, now: float, selection: Selection, count: int) -> list[UploadTask]:
    """Claim up to `count` files for upload: newest runs first, small before large within a run.

    Each dataset's index is in that order already; those that cannot change the answer are not looked into, so
    that a claim costs as much as it brings, however much waits.
    """
    rows: list[Row] = []
    heads = [tuple(head) for head in db.execute(_HEADS, selection.parameters) if head["newest"] is not None]
    for newest, dataset_id in sorted(heads, reverse=True):
        floor = rows[-1]["rank"] if len(rows) == count else ""
        if newest < floor:
            break
        rows += db.execute(
            _NEXT_OF_DATASET,
            {**selection.parameters, "dataset_id": dataset_id, "floor": floor, "now": now, "count": count},
        )
        rows = sorted(rows, key=_size)
        rows = sorted(rows, key=_rank, reverse=True)[:count]
    db.executemany(
        "UPDATE files SET state = ?, since = ? WHERE id = ?",
        [(FileState.UPLOADING, now, row["id"]) for row in rows],
    )
    return [_task(row) for row in rows]


def _rank(row: Row) -> str:
    return str(row["rank"])


def _size(row: Row) -> int:
    return int(row["size"])


def next_upload_at(db: Connection, selection: Selection) -> float | None:
    """When the next file that waits for another attempt is due; None when none waits."""
    value: float | None = db.execute(
        f"SELECT min(f.next_attempt_at) {_SENDABLE}", selection.parameters
    ).fetchone()[0]
    return value


def _unchanged(task: UploadTask) -> tuple[int, int, int, int]:
    return (task.id, task.version.size, task.version.mtime_ns, task.version.inode)


@dataclass(frozen=True, slots=True)
class Receipt:
    """An object holds a file's content.

    `was_there`: somebody had put it there before (this ledger's predecessor, another machine), so the run's
    rows may be there as well: they are in doubt and looked for before they are sent.
    """

    task: UploadTask
    remote: RemoteObject
    was_there: bool


_CONFIRM = """
UPDATE files SET state = 'uploaded', since = ?, crc32c = ?, generation = ?, ours = 1, looked = 1,
    sent_crc32c = NULL, session_uri = NULL, content = NULL, attempts = 0, next_attempt_at = 0, cause = NULL,
    hint = NULL
WHERE id = ? AND size = ? AND mtime_ns = ? AND inode = ?
"""
#: For a file that changed on the way: the object is a version behind, and is what the newer one may replace.
_CONFIRM_OLDER = f"""
UPDATE files SET state = 'pending', since = ?1, crc32c = ?2, generation = ?3, ours = 1, looked = 1,
    sent_crc32c = NULL, next_attempt_at = ?1 + {OBJECT_WRITE_SECONDS}
WHERE id = ?4 AND NOT (size = ?5 AND mtime_ns = ?6 AND inode = ?7)
"""


def confirm_uploads(db: Connection, now: float, receipts: Sequence[Receipt]) -> None:
    """Record that objects hold files' contents."""
    values = [
        (now, receipt.remote.crc32c, receipt.remote.generation, *_unchanged(receipt.task))
        for receipt in receipts
    ]
    confirmed = db.executemany(_CONFIRM, values).rowcount
    if confirmed < len(receipts):
        db.executemany(_CONFIRM_OLDER, values)
    for receipt in receipts:
        if receipt.was_there:
            db.execute(
                "UPDATE records SET state = ?, since = ?, next_attempt_at = 0, taken = 1"
                " WHERE run_id = ? AND state = ?",
                (RowState.IN_DOUBT, now, receipt.task.run_id, RowState.PENDING),
            )
    # A run that has open files as before, and no cause that has gone, is where it was.
    runs = {receipt.task.run_id for receipt in receipts}
    settled = {receipt.task.run_id for receipt in receipts if receipt.task.had_cause}
    if confirmed < len(receipts):
        settled = runs
    open_file = "SELECT 1 FROM files WHERE run_id = ? AND state <> 'uploaded' LIMIT 1"
    settled |= {run for run in runs - settled if db.execute(open_file, (run,)).fetchone() is None}
    settle_runs(db, now, sorted(settled))


def keep_session(db: Connection, task: UploadTask, session_uri: str, crc32c: int) -> None:
    """Remember a resumable session before its first byte is sent; not for a file that changed on the way."""
    note_sent(db, task, crc32c)
    db.execute(
        "UPDATE files SET session_uri = ? WHERE id = ? AND size = ? AND mtime_ns = ? AND inode = ?",
        (session_uri, *_unchanged(task)),
    )


def note_sent(db: Connection, task: UploadTask, crc32c: int) -> None:
    """Remember what an upload holds whose end may stay unknown: such an object is our own, whatever comes."""
    db.execute("UPDATE files SET sent_crc32c = ? WHERE id = ?", (crc32c, task.id))


def put_off_upload(
    db: Connection,
    now: float,
    task: UploadTask,
    problem: Problem,
    *,
    next_attempt_at: float,
    in_doubt: bool,
    attempts: int = 1,
) -> None:
    """An attempt failed and a later one may succeed. `in_doubt`: it may have succeeded all the same.

    `attempts` is how many it counts as: as many as a pass makes leave it for a later pass.
    """
    db.execute(
        "UPDATE files SET state = ?, since = ?, attempts = attempts + ?, next_attempt_at = ?,"
        " looked = iif(?, 0, looked), cause = ?, hint = ? WHERE id = ?",
        (FileState.PENDING, now, attempts, next_attempt_at, in_doubt, problem.cause, problem.hint, task.id),
    )
    settle_runs(db, now, [task.run_id])


def give_up_upload(db: Connection, now: float, task: UploadTask, problem: Problem) -> None:
    """Quarantine a file: somebody must act. One that changed on the way is tried as it is now instead."""
    same = db.execute(
        "UPDATE files SET state = ?, since = ?, attempts = attempts + 1, session_uri = NULL, cause = ?,"
        " hint = ? WHERE id = ? AND size = ? AND mtime_ns = ? AND inode = ?",
        (FileState.QUARANTINED, now, problem.cause, problem.hint, *_unchanged(task)),
    ).rowcount
    if not same:
        db.execute(
            "UPDATE files SET state = ?, since = ?, attempts = 0, next_attempt_at = 0, cause = NULL,"
            " hint = NULL WHERE id = ?",
            (FileState.PENDING, now, task.id),
        )
    settle_runs(db, now, [task.run_id])


def unclaim(db: Connection, now: float, task: UploadTask, *, in_doubt: bool) -> None:
    """Give back a file whose upload was not finished because the process is stopping."""
    db.execute(
        "UPDATE files SET state = ?, since = ?, looked = iif(?, 0, looked) WHERE id = ? AND state = ?",
        (FileState.PENDING, now, in_doubt, task.id, FileState.UPLOADING),
    )


def adopt_objects(db: Connection, dataset_id: int, objects: Mapping[tuple[str, str], RemoteObject]) -> int:
    """Note the objects of one listing page that are files of this dataset; keys are (run, path).

    Returns:
        How many were known files.
    """
    found = 0
    for (run, path), remote in objects.items():
        found += db.execute(
            "UPDATE files SET crc32c = ?, generation = ?, ours = 0 WHERE path = ? AND state <> 'uploaded'"
            " AND run_id = (SELECT id FROM runs WHERE dataset_id = ? AND name = ?)",
            (remote.crc32c, remote.generation, path, dataset_id, run),
        ).rowcount
    return found


def adopted(db: Connection, now: float, dataset_id: int, *, listed: bool = True) -> None:
    """The bucket was compared with the ledger: from here on, files and rows of the dataset may be sent.

    Runs without files have nothing in the bucket that would tell whether their row was sent: look for it.
    Where the bucket could not be `listed`, nothing tells so of any run.
    """
    db.execute("UPDATE datasets SET adopted_at = ? WHERE id = ?", (now, dataset_id))
    adoption_failed(db, now, dataset_id, None)
    db.execute(
        "UPDATE records SET state = ?, since = ?, taken = 1 WHERE dataset_id = ? AND state = ?"
        " AND NOT (? AND EXISTS (SELECT 1 FROM files f WHERE f.run_id = records.run_id))",
        (RowState.IN_DOUBT, now, dataset_id, RowState.PENDING, listed),
    )


def adoption_failed(db: Connection, now: float, dataset_id: int, problem: Problem | None) -> None:
    """Say why a dataset cannot be compared with the bucket now, so that its runs wait; None: nothing is."""
    cause, hint = (problem.cause, problem.hint) if problem else (None, None)
    changed = db.execute(
        "UPDATE datasets SET trouble = ?, trouble_hint = ? WHERE id = ? AND trouble IS NOT ?",
        (cause, hint, dataset_id, cause),
    ).rowcount
    if changed:
        waiting = db.execute("SELECT id FROM runs WHERE dataset_id = ? AND state <> 'synced'", (dataset_id,))
        settle_runs(db, now, [row["id"] for row in waiting.fetchall()])


def recover_uploads(db: Connection, now: float) -> int:
    """At start: uploads that a crash left unfinished are in doubt; look before sending again.

    What was put off is due at once: whoever starts the program wants it tried.
    """
    db.execute(
        "UPDATE files SET attempts = 0, next_attempt_at = 0 WHERE state = 'pending' AND state <> 'uploaded'"
        " AND (attempts > 0 OR next_attempt_at > 0)"
    )
    return db.execute(
        "UPDATE files SET state = ?, since = ?, looked = 0 WHERE state = 'uploading' AND state <> 'uploaded'",
        (FileState.PENDING, now),
    ).rowcount
