"""Transitions of files: claimed, uploaded, rescheduled, quarantined."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from pixaris_sync.ledger.datasets import count_uploaded_files, counting_files
from pixaris_sync.ledger.queues import QUEUES, Statements, statements_of
from pixaris_sync.ledger.runs import LEFT_AS_IT_IS, OBJECT_WRITE_SECONDS, WAITING, update_run_states
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.totals import add_to_totals
from pixaris_sync.model import FileState, FileVersion, Problem, RemoteObject, RowState, RunKey

_Parameters = Mapping[str, Any]

#: The same version of a file as when it was claimed.
_SAME_VERSION = "size = ? AND mtime_ns = ? AND inode = ? AND content_crc32c IS ?"


class UploadTask(NamedTuple):
    """A file claimed for upload.

    Attributes:
        id, run_id: the file's row in the ledger, and its run's.
        run, path: which file of which run.
        version: what the local file looked like when it was taken in.
        content: its bytes where it has no local file (a dict metric).
        generation: the object's generation that it may replace; 0 where none may exist.
        crc32c: the checksum of that object, if known.
        ours: that object holds an earlier version of this file, so a newer one may replace it.
        in_doubt: an upload may have happened already: look before sending.
        sent_crc32c: the checksum of what that upload held, if known.
        session_uri: a resumable session begun earlier for this version.
        attempts: how many attempts have failed.
        had_cause: something was wrong with it when it was claimed.
        stood: its run was synced before this ledger knew it: what the bucket lacks of it was removed.
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
    in_doubt: bool
    sent_crc32c: int | None
    session_uri: str | None
    attempts: int
    had_cause: bool
    stood: bool = False


def claim(db: Connection, now: float, selection: Selection, count: int) -> list[UploadTask]:
    """Claim up to `count` files for upload: newest runs first, small before large within a run.

    The index has each queue in that order already, so they are merged: of the queue with the newest run, what
    comes before the newest run of any other. A claim costs as much as it brings, however much waits.
    """
    claimed: list[UploadTask] = []
    asked: dict[str, Any] = {**selection.parameters, "now": now, "dataset_id": None}
    statements = statements_of(selection)
    heads = _heads(db, statements, asked)
    while heads and len(claimed) < count:
        newest = max(head.newest for head in heads)
        # Mostly one; runs of one name in several datasets share the order of sizes.
        first = [head for head in heads if head.newest == newest]
        heads = [head for head in heads if head.newest < newest]
        above = max((head.newest for head in heads), default="")
        asked |= {"above": above, "count": count - len(claimed)}
        found: list[UploadTask] = []
        for head in first:
            found += _next_of_queue(
                db, statements, asked | {"dataset_id": head.dataset_id, "state": head.state}
            )
        if len(first) > 1:
            found = sorted(found, key=lambda task: task.version.size)
            found = sorted(found, key=lambda task: task.run.run, reverse=True)[: asked["count"]]
        db.executemany(
            "UPDATE files SET state = ?, since = ? WHERE id = ?",
            [(FileState.UPLOADING, now, task.id) for task in found],
        )
        claimed += found
        for head in first:
            heads += _heads(db, statements, asked | {"dataset_id": head.dataset_id}, of=head.state)
    return claimed


class _Head(NamedTuple):
    """A queue that has a file to send, and the newest run that has one in it."""

    newest: str
    dataset_id: int
    state: FileState


def _heads(
    db: Connection, statements: Statements, asked: _Parameters, *, of: FileState | None = None
) -> list[_Head]:
    """The queues that have a file to send, or those `of` one state."""
    return [
        _Head(newest, dataset_id, state)
        for dataset_id, *newest_of_each in db.execute(statements.heads, asked)
        for state, newest in zip(QUEUES, newest_of_each, strict=True)
        if newest is not None and of in (None, state)
    ]


def _next_of_queue(db: Connection, statements: Statements, asked: _Parameters) -> list[UploadTask]:
    run = RunKey("", "", "")
    found: list[UploadTask] = []
    for id_, run_id, project, dataset, name, path, size, mtime_ns, inode, content_crc32c, *rest in db.execute(
        statements.next_of_queue, asked
    ):
        if name != run.run:
            run = RunKey(project, dataset, name)
        content, generation, crc32c, ours, taken, sent_crc32c, session_uri, attempts, cause, stood = rest
        found.append(
            UploadTask(
                id=id_,
                run_id=run_id,
                run=run,
                path=path,
                version=FileVersion(size, mtime_ns, inode, content_crc32c),
                content=content,
                generation=generation,
                crc32c=crc32c,
                ours=bool(ours),
                in_doubt=bool(taken),
                sent_crc32c=sent_crc32c,
                session_uri=session_uri,
                attempts=attempts,
                had_cause=cause is not None,
                stood=bool(stood),
            )
        )
    return found


def next_upload_at(db: Connection, selection: Selection) -> float | None:
    """When the next file that waits for another attempt is due; None when none waits."""
    value: float | None = db.execute(statements_of(selection).next_attempt, selection.parameters).fetchone()[
        0
    ]
    return value


def _unchanged(task: UploadTask) -> tuple[int, int, int, int, int | None]:
    """Values for ``id = ?`` and `_SAME_VERSION`."""
    version = task.version
    return (task.id, version.size, version.mtime_ns, version.inode, version.content_crc32c)


class Receipt(NamedTuple):
    """An object holds a file's content; or `remote` is None: it does not, and that is left as it is.

    `was_there`: somebody had put it there before (this ledger's predecessor, another machine), so the run's
    rows may be there as well: they are in doubt and looked for before they are sent. `sent`: it was sent now;
    else it was found there.
    """

    task: UploadTask
    remote: RemoteObject | None
    was_there: bool
    sent: bool = True


_CONFIRM = f"""
UPDATE files SET state = 'uploaded', since = ?, crc32c = ?, generation = ?, ours = 1, taken = 0,
    sent_crc32c = NULL, session_uri = NULL, content = NULL, attempts = 0, next_attempt_at = 0, cause = NULL,
    hint = NULL, forget_unless_found = 0
WHERE id = ? AND {_SAME_VERSION}
"""
_LEAVE = f"UPDATE files SET {LEFT_AS_IT_IS} WHERE id = ? AND {_SAME_VERSION}"
#: For a file that changed on the way: the object is a version behind, and is what the newer one may replace.
_CONFIRM_OLDER = f"""
UPDATE files SET state = 'pending', since = ?, crc32c = ?, generation = ?, ours = 1, taken = 0,
    sent_crc32c = NULL, next_attempt_at = ?
WHERE id = ? AND NOT ({_SAME_VERSION})
"""


def confirm_uploads(db: Connection, now: float, receipts: Sequence[Receipt]) -> None:
    """Record that objects hold files' contents, or that nobody wants them to."""
    held = confirmed = [receipt for receipt in receipts if receipt.remote is not None]
    values = [(now, *_object(receipt), *_unchanged(receipt.task)) for receipt in held]
    if db.executemany(_CONFIRM, values).rowcount < len(held):
        same = f"SELECT 1 FROM files WHERE id = ? AND {_SAME_VERSION}"
        confirmed = [one for one in held if db.execute(same, _unchanged(one.task)).fetchone()]
    sizes: defaultdict[int, list[int]] = defaultdict(list)
    for receipt in confirmed:
        sizes[receipt.task.run_id].append(receipt.task.version.size)
    count_uploaded_files(db, sizes)
    ids = {receipt.task.id for receipt in confirmed}
    others = [receipt for receipt in receipts if receipt.task.id not in ids]
    with counting_files(db, {receipt.task.run_id for receipt in others}):
        as_before = [_leave_or_confirm_older(db, now, receipt) for receipt in others]
    sent = [receipt.task.version.size for receipt in held if not receipt.was_there]
    found = [receipt.task.version.size for receipt in held if receipt.was_there]
    add_to_totals(
        db, files_sent=len(sent), bytes_sent=sum(sent), files_found=len(found), bytes_found=sum(found)
    )
    for receipt in receipts:
        if receipt.was_there:
            db.execute(
                f"UPDATE records SET {DOUBT} WHERE run_id = :run_id AND state IN (:unasked, :pending)",
                {**doubt(now), "run_id": receipt.task.run_id},
            )
    # A run that has open files as before, and no cause that has gone, is where it was.
    runs = {receipt.task.run_id for receipt in receipts}
    to_update = {receipt.task.run_id for receipt in receipts if receipt.task.had_cause}
    if not all(as_before):
        to_update = runs
    open_file = "SELECT 1 FROM open_files WHERE run_id = ? LIMIT 1"
    to_update |= {run for run in runs - to_update if db.execute(open_file, (run,)).fetchone() is None}
    update_run_states(db, now, sorted(to_update))


def _leave_or_confirm_older(db: Connection, now: float, receipt: Receipt) -> bool:
    """Record what became of a file that is not confirmed; whether it is as it was when it was claimed."""
    unchanged = _unchanged(receipt.task)
    if receipt.remote is None:
        left = db.execute(_LEAVE, (now, *unchanged)).rowcount
        # One that changed on the way is looked at as it is now.
        unclaim(db, now, receipt.task, in_doubt=False)
        return left > 0
    again_at = now + OBJECT_WRITE_SECONDS
    db.execute(_CONFIRM_OLDER, (now, *_object(receipt), again_at, *unchanged))
    return False


def _object(receipt: Receipt) -> tuple[int | None, int]:
    """Checksum and generation of the object that holds a file's content."""
    assert receipt.remote is not None  # noqa: S101 - whoever asks knows
    return receipt.remote.crc32c, receipt.remote.generation


def _waiting(taken: bool) -> FileState:  # noqa: FBT001 - the column's name
    """Where a file waits that may have been uploaded, or not; see `runs.WAITING`."""
    return FileState.IN_DOUBT if taken else FileState.PENDING


def keep_session(db: Connection, task: UploadTask, session_uri: str, crc32c: int) -> None:
    """Remember a resumable session before its first byte is sent; not for a file that changed on the way."""
    note_sent(db, task, crc32c)
    db.execute(
        f"UPDATE files SET session_uri = ? WHERE id = ? AND {_SAME_VERSION}",
        (session_uri, *_unchanged(task)),
    )


def note_sent(db: Connection, task: UploadTask, crc32c: int) -> None:
    """Remember what an upload holds whose end may stay unknown: such an object is our own, whatever comes."""
    db.execute("UPDATE files SET sent_crc32c = ? WHERE id = ?", (crc32c, task.id))


def reschedule_upload(
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
    taken = in_doubt or task.in_doubt
    db.execute(
        "UPDATE files SET state = ?, since = ?, taken = ?, attempts = attempts + ?, next_attempt_at = ?,"
        " cause = ?, hint = ? WHERE id = ?",
        (_waiting(taken), now, taken, attempts, next_attempt_at, problem.cause, problem.hint, task.id),
    )
    update_run_states(db, now, [task.run_id])


def quarantine_upload(
    db: Connection, now: float, task: UploadTask, problem: Problem, *, gone: bool = False
) -> None:
    """Quarantine a file: somebody must act. One that changed on the way is tried as it is now instead.

    `gone`: it does not exist. No file has its inode from then on, so that it is another version, which is
    tried, whatever comes back.
    """
    same = db.execute(
        "UPDATE files SET state = ?, since = ?, attempts = attempts + 1, session_uri = NULL, cause = ?,"
        f" hint = ?, inode = iif(?, 0, inode) WHERE id = ? AND {_SAME_VERSION}",
        (FileState.QUARANTINED, now, problem.cause, problem.hint, gone, *_unchanged(task)),
    ).rowcount
    if not same:
        db.execute(
            f"UPDATE files SET state = {WAITING}, since = ?, attempts = 0, next_attempt_at = 0, cause = NULL,"
            " hint = NULL WHERE id = ?",
            (now, task.id),
        )
    update_run_states(db, now, [task.run_id])


def unclaim(db: Connection, now: float, task: UploadTask, *, in_doubt: bool) -> None:
    """Give back a file whose upload was not finished because the process is stopping."""
    taken = in_doubt or task.in_doubt
    db.execute(
        "UPDATE files SET state = ?, since = ?, taken = ? WHERE id = ? AND state = ?",
        (_waiting(taken), now, taken, task.id, FileState.UPLOADING),
    )


#: Others may have sent a row just now: one that is to be asked for still is, and is in doubt afterwards.
DOUBT = """
taken = 1, since = :now, looked_at = NULL, next_attempt_at = 0,
    state = iif(state = :pending, :in_doubt, state)
"""


def doubt(now: float) -> dict[str, object]:
    """Values for `DOUBT`."""
    return {
        "now": now,
        "unasked": RowState.UNASKED,
        "pending": RowState.PENDING,
        "in_doubt": RowState.IN_DOUBT,
    }


def make_uploads_due(db: Connection) -> None:
    """Let what was rescheduled be tried at once, as if it had not failed before."""
    db.execute(
        "UPDATE files SET attempts = 0, next_attempt_at = 0"
        " WHERE id IN (SELECT id FROM open_files WHERE state IN (?, ?))"
        " AND (attempts > 0 OR next_attempt_at > 0)",
        (FileState.PENDING, FileState.IN_DOUBT),
    )


def recover_uploads(db: Connection, now: float) -> int:
    """At start: uploads that a crash left unfinished are in doubt.

    What was rescheduled is due at once: whoever starts the program wants it tried.
    """
    make_uploads_due(db)
    return db.execute(
        "UPDATE files SET state = ?, since = ?, taken = 1"
        " WHERE id IN (SELECT id FROM open_files WHERE state = ?)",
        (FileState.IN_DOUBT, now, FileState.UPLOADING),
    ).rowcount
