"""Transitions that take in what a scan found: runs, their files, records, damaged lines."""

import json
from collections.abc import Collection, Sequence
from sqlite3 import Connection, Row
from typing import NamedTuple

from msgspec import to_builtins

from pixaris_sync.ledger.datasets import count_new_files, counting_files
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.ledger.packs import packed_files, restore
from pixaris_sync.ledger.pruned import note_gone
from pixaris_sync.ledger.runs import (
    LEFT_AS_IT_IS,
    OBJECT_WRITE_SECONDS,
    WAITING,
    forget_misnamed,
    had_all_files,
    update_run_states,
)
from pixaris_sync.model import (
    FileState,
    FileVersion,
    FoundFile,
    Problem,
    RowState,
    RunState,
    Tail,
    TrackingRecord,
)

DAMAGED_HINT = (
    "repair or remove the line; where the run's args.json is whole, put its content in the line's place"
)

_NEW_FILE = f"""
INSERT INTO files
    (run_id, dataset_id, path, run_name, content, size, mtime_ns, inode, content_crc32c, state, since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '{FileState.PENDING}', ?) ON CONFLICT DO NOTHING
"""
#: What is known of one version of a file.
_STAMP = "size, mtime_ns, inode, content_crc32c"
_KNOWN_RUN = """
SELECT id, committed, signature, folder_cause, folder_hint, quiet_at, packed_files, pruned_at FROM runs
WHERE dataset_id = ? AND name = ?
"""

_SENT = f"""
SELECT 1 FROM records
WHERE dataset_id = ? AND digest = ? AND ordinal = 0 AND (sends > 0 OR state = '{RowState.SYNCED}')
"""


class FoundRecord(NamedTuple):
    """A tracking record, and the files whose content stood inline in it."""

    record: TrackingRecord
    inline: tuple[FoundFile, ...] = ()


class FoundRun(NamedTuple):
    """A run that a tracking record names, as its folder looks now.

    `problem` stands for everything wrong with the folder; then no files of the run are taken in.
    `just_written`: its records were seen arriving just now, so no table can hold their rows yet.
    `quiet_at`: files of it may still be arriving; look again then. What is missing until then is no problem.
    `notice`: what is left out of it. `signature` None: its folder was not looked at; then `files` are none.
    """

    name: str
    signature: str | None
    files: tuple[FoundFile, ...] = ()
    records: tuple[FoundRecord, ...] = ()
    problem: Problem | None = None
    just_written: bool = False
    quiet_at: float | None = None
    notice: Notice | None = None


def take_in_runs(db: Connection, now: float, dataset_id: int, runs: Sequence[FoundRun]) -> None:
    """Take in known runs whose folders were looked at again."""
    update_run_states(db, now, [_take_in_run(db, now, dataset_id, run) for run in runs])


def take_in(db: Connection, now: float, dataset_id: int, tail: Tail, runs: Sequence[FoundRun]) -> int:
    """Take in one reading of a tracking file: its records, their runs and files, and the new position.

    A record is known by its digest: neither one that was seen before nor an equal line is a new one.

    Returns:
        How many records are new.
    """
    if tail.from_start:
        db.execute(
            "UPDATE datasets SET reading = reading + 1, repeated_lines = 0 WHERE id = ?", (dataset_id,)
        )
    reading = db.execute("SELECT reading FROM datasets WHERE id = ?", (dataset_id,)).fetchone()[0]
    new = repeated = 0
    touched: list[int] = []
    for run in runs:
        if _is_of_others(db, dataset_id, run):
            continue
        run_id = _take_in_run(db, now, dataset_id, run)
        for found in run.records:
            if _is_repeated(db, dataset_id, found.record, reading):
                repeated += 1
            else:
                new += _take_in_record(
                    db, now, dataset_id, run_id, found, reading, just_written=run.just_written
                )
        touched.append(run_id)
    _take_in_damaged(db, now, dataset_id, tail, reading)
    db.execute(
        "UPDATE datasets SET tail = ?, torn_bytes = ?, read_whole = max(read_whole, ?),"
        " repeated_lines = repeated_lines + ? WHERE id = ?",
        (
            json.dumps(to_builtins(tail.position)),
            tail.torn_bytes,
            not tail.more,
            repeated,
            dataset_id,
        ),
    )
    update_run_states(db, now, touched)
    return new


def _is_of_others(db: Connection, dataset_id: int, run: FoundRun) -> bool:
    """Whether an unknown run's records were sent under other names: folders that told these have gone."""
    if db.execute(_KNOWN_RUN, (dataset_id, run.name)).fetchone():
        return False
    digests = [found.record.digest for found in run.records]
    return bool(digests) and all(db.execute(_SENT, (dataset_id, digest)).fetchone() for digest in digests)


def rehearse(db: Connection, now: float, dataset_id: int, run: FoundRun) -> None:
    """Take a run in and undo that: what is in the way is raised."""
    db.execute("SAVEPOINT rehearsal")
    try:
        run_id = _take_in_run(db, now, dataset_id, run)
        for found in run.records:
            _take_in_record(db, now, dataset_id, run_id, found, -1, just_written=run.just_written)
        update_run_states(db, now, [run_id])
    finally:
        db.execute("ROLLBACK TO rehearsal")
        db.execute("RELEASE rehearsal")


def _take_in_run(db: Connection, now: float, dataset_id: int, run: FoundRun) -> int:
    run_id = _take_in_folder(db, now, dataset_id, run)
    take_in_notices(db, now, f"run {run_id}", [run.notice] if run.notice else [])
    return run_id


def _take_in_folder(db: Connection, now: float, dataset_id: int, run: FoundRun) -> int:
    known = db.execute(_KNOWN_RUN, (dataset_id, run.name)).fetchone()
    problem, quiet_at = run.problem, run.quiet_at
    if known is None:
        run_id = db.execute(
            "INSERT INTO runs (dataset_id, name, state, since, committed, signature, folder_cause,"
            " folder_hint, quiet_at) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)",
            (dataset_id, run.name, RunState.PENDING, now, run.signature, *_looked(problem, quiet_at)),
        ).lastrowid
        assert run_id is not None  # noqa: S101 - an INSERT always has one
        if problem is None:
            _take_in_new(db, now, dataset_id, run_id, run.name, run.files)
        return run_id
    run_id = int(known["id"])
    if run.signature is None:
        if not _all_known(db, dataset_id, run.records):
            db.execute("UPDATE runs SET committed = 1, signature = NULL WHERE id = ?", (run_id,))
        return run_id
    was_quiet = known["quiet_at"] is None
    if problem is None:
        found_more = _take_in_files(db, now, dataset_id, known, run)
        stirred = not _all_known(db, dataset_id, run.records) or (
            known["signature"] != run.signature
            and db.execute("SELECT 1 FROM open_records WHERE run_id = ? LIMIT 1", (run_id,)).fetchone()
        )
        if was_quiet and not found_more and not stirred:
            quiet_at = None
    elif was_quiet and _all_known(db, dataset_id, run.records) and _needs_no_folder(db, known):
        # What the folder has lost since is in the bucket already, or somebody has let it go; what it has
        # gained is news.
        found_more = _take_in_files(db, now, dataset_id, known, run)
        problem, quiet_at = None, quiet_at if found_more else None
    looked = (1, run.signature, *_looked(problem, quiet_at))
    if tuple(known)[1:6] != looked:
        db.execute(
            "UPDATE runs SET committed = ?, signature = ?, folder_cause = ?, folder_hint = ?, quiet_at = ?"
            " WHERE id = ?",
            (*looked, run_id),
        )
    return run_id


def _looked(problem: Problem | None, quiet_at: float | None) -> tuple[str | None, str | None, float | None]:
    """Values for ``folder_cause``, ``folder_hint``, ``quiet_at``; what may still arrive is no problem yet."""
    if quiet_at is not None:
        return None, None, quiet_at
    return (*_texts(problem), None)


def _texts(problem: Problem | None) -> tuple[str, str] | tuple[None, None]:
    return (problem.cause, problem.hint) if problem else (None, None)


def _take_in_files(db: Connection, now: float, dataset_id: int, known: Row, run: FoundRun) -> bool:
    """Take in the files of a known run as they are now; what is as it was is only compared.

    Returns:
        Whether there are new ones, or newer versions.
    """
    run_id = known["id"]
    if known["packed_files"] is None:
        rows = db.execute(f"SELECT path, {_STAMP} FROM files WHERE run_id = ?", (run_id,))
        versions = {row[0]: FileVersion(*tuple(row)[1:]) for row in rows}
    else:
        versions = {file.path: file.version for file in packed_files(db, run_id)}
    note_gone(db, now, known, versions, {file.path for file in run.files})
    new = [file for file in run.files if file.path not in versions]
    changed = [file for file in run.files if versions.get(file.path, file.version) != file.version]
    if new or changed:
        restore(db, run_id)
    _take_in_new(db, now, dataset_id, run_id, run.name, new)
    for file in changed:
        _take_in_file(db, now, dataset_id, run_id, run.name, file)
    _forget_unless_found(db, now, run_id, {file.path for file in run.files})
    return bool(new or changed)


def _forget_unless_found(db: Connection, now: float, run_id: int, found: Collection[str]) -> None:
    """Of files that were taken up again, keep what this inspection found, and what is on its way."""
    asked = db.execute(
        "SELECT id, path, state FROM open_files WHERE run_id = ? AND forget_unless_found", (run_id,)
    ).fetchall()
    kept = [(row["id"],) for row in asked if row["path"] in found]
    gone = [(row["id"],) for row in asked if row["path"] not in found and row["state"] != FileState.UPLOADING]
    db.executemany("UPDATE files SET forget_unless_found = 0 WHERE id = ?", kept)
    with counting_files(db, [run_id] if gone else []):
        left = f"UPDATE files SET {LEFT_AS_IT_IS} WHERE id = ? AND ours"
        db.executemany(left, [(now, *file) for file in gone])
    db.executemany("DELETE FROM files WHERE id = ? AND state <> 'uploaded'", gone)


def _take_in_new(
    db: Connection, now: float, dataset_id: int, run_id: int, run_name: str, files: Sequence[FoundFile]
) -> None:
    """Take in files of a run that are not known yet."""
    distinct: dict[str, FoundFile] = {}
    for file in files:
        distinct.setdefault(file.path, file)
    new = distinct.values()
    db.executemany(_NEW_FILE, [_new_file(now, dataset_id, run_id, run_name, file) for file in new])
    count_new_files(db, dataset_id, [file.version.size for file in new])


def _new_file(now: float, dataset_id: int, run_id: int, run_name: str, file: FoundFile) -> tuple[object, ...]:
    return (run_id, dataset_id, file.path, run_name, file.content, *_stamp(file.version), now)


def _needs_no_folder(db: Connection, known: Row) -> bool:
    """Whether a run's files are all uploaded, or were: all of its rows are synced, or were sent once."""
    files, uploaded = db.execute(
        "SELECT count(*), coalesce(sum(state = ?), 0) FROM files WHERE run_id = ?",
        (FileState.UPLOADED, known["id"]),
    ).fetchone()
    return bool(known["packed_files"] or (files and files == uploaded) or had_all_files(db, known["id"]))


def _all_known(db: Connection, dataset_id: int, records: Sequence[FoundRecord]) -> bool:
    known = "SELECT 1 FROM records WHERE dataset_id = ? AND digest = ?"
    return all(db.execute(known, (dataset_id, found.record.digest)).fetchone() for found in records)


def _take_in_file(
    db: Connection, now: float, dataset_id: int, run_id: int, run_name: str, file: FoundFile
) -> None:
    version = file.version
    if db.execute(_NEW_FILE, _new_file(now, dataset_id, run_id, run_name, file)).rowcount:
        count_new_files(db, dataset_id, [version.size])
        return
    known = db.execute(
        f"SELECT id, state, {_STAMP} FROM files WHERE run_id = ? AND path = ?", (run_id, file.path)
    ).fetchone()
    if FileVersion(*tuple(known)[2:]) == version:
        return
    with counting_files(db, [run_id]):
        _take_in_version(db, now, known, file)


def _take_in_version(db: Connection, now: float, known: Row, file: FoundFile) -> None:
    """Take in a newer version of the same file; whether its content differs too shows when it is read."""
    db.execute(
        f"UPDATE files SET ({_STAMP}) = (?, ?, ?, ?), content = ?, session_uri = NULL, stood = 0,"
        " taken = taken OR state = 'uploaded' AND crc32c IS NULL WHERE id = ?",
        (*_stamp(file.version), file.content, known["id"]),
    )
    if known["state"] != FileState.UPLOADING:
        # Attempts go on being counted while it waits: a file that is rewritten without end must not keep a
        # pass alive.
        db.execute(
            f"UPDATE files SET state = {WAITING}, since = :now,"
            " attempts = iif(state IN (:pending, :in_doubt), attempts, 0),"
            " next_attempt_at = iif(state = :uploaded, min(since, :now) + :spacing, 0),"
            " cause = NULL, hint = NULL WHERE id = :id",
            {
                "now": now,
                "pending": FileState.PENDING,
                "in_doubt": FileState.IN_DOUBT,
                "uploaded": FileState.UPLOADED,
                "spacing": OBJECT_WRITE_SECONDS,
                "id": known["id"],
            },
        )


def _stamp(version: FileVersion) -> tuple[int, int, int, int | None]:
    """Values for `_STAMP`."""
    return (version.size, version.mtime_ns, version.inode, version.content_crc32c)


def _is_repeated(db: Connection, dataset_id: int, record: TrackingRecord, reading: int) -> bool:
    """Whether the same reading of the file has seen an equal line before, another one than this.

    The last line may have been a record before its newline came.
    """
    seen = db.execute(
        "SELECT reading, line FROM records WHERE dataset_id = ? AND digest = ? AND ordinal = 0",
        (dataset_id, record.digest),
    ).fetchone()
    return seen is not None and seen["reading"] == reading and seen["line"] != record.line


def _take_in_record(
    db: Connection,
    now: float,
    dataset_id: int,
    run_id: int,
    found: FoundRecord,
    reading: int,
    *,
    just_written: bool,
) -> int:
    record = found.record
    before = db.execute(
        "DELETE FROM records WHERE dataset_id = ? AND digest = ? AND ordinal = 0 AND (judge_anew"
        " OR run_id <> ? AND sends = 0 AND state <> ?) RETURNING sends, run_id",
        (dataset_id, record.digest, run_id, RowState.SYNCED),
    ).fetchall()
    for row in before:
        if row["run_id"] != run_id:
            forget_misnamed(db, row["run_id"])
            just_written = False
    known = db.execute(
        "UPDATE records SET reading = ?, line = ? WHERE dataset_id = ? AND digest = ? AND ordinal = 0",
        (reading, record.line, dataset_id, record.digest),
    ).rowcount
    if known:
        return 0
    if found.inline:
        restore(db, run_id)
    clash = _clash(db, run_id, found.inline)
    if clash is None:
        for file in found.inline:
            _take_in_file(db, now, dataset_id, run_id, record.run.run, file)
    db.execute(
        "INSERT INTO records (dataset_id, run_id, run_name, digest, ordinal, line, reading, payload, state,"
        " since, found_at, sends, cause, hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            dataset_id,
            run_id,
            record.run.run,
            record.digest,
            0,
            record.line,
            reading,
            json.dumps(record.values),
            RowState.QUARANTINED if clash else RowState.PENDING if just_written else RowState.UNASKED,
            now,
            now,
            before[0]["sends"] if before else 0,
            clash.cause if clash else None,
            clash.hint if clash else None,
        ),
    )
    return 1


def _clash(db: Connection, run_id: int, inline: Sequence[FoundFile]) -> Problem | None:
    """Whether another record of the same run holds another dict under the same name."""
    for file in inline:
        known = db.execute(
            f"SELECT {_STAMP} FROM files WHERE run_id = ? AND path = ?", (run_id, file.path)
        ).fetchone()
        if known is not None and tuple(known) != _stamp(file.version):
            return Problem(
                f"another record of the same run has another {file.path}: one object cannot hold both",
                "two runs were stored under one name in the same second; store one of them again, and take "
                "its line out of the tracking file",
            )
    return None


def _ordinal_of(db: Connection, dataset_id: int, digest: str, reading: int) -> int:
    """How many damaged lines of this digest the same reading of the file has seen before."""
    count: int = db.execute(
        "SELECT count(*) FROM records WHERE dataset_id = ? AND digest = ? AND reading = ?",
        (dataset_id, digest, reading),
    ).fetchone()[0]
    return count


def _take_in_damaged(db: Connection, now: float, dataset_id: int, tail: Tail, reading: int) -> None:
    """Take in the damaged lines of a reading; those of earlier ones are forgotten at its end."""
    for damaged in tail.damaged:
        db.execute(
            "INSERT INTO records (dataset_id, digest, ordinal, line, reading, state, since, found_at, cause,"
            " hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET line = excluded.line, reading = excluded.reading, cause = excluded.cause",
            (
                dataset_id,
                damaged.digest,
                _ordinal_of(db, dataset_id, damaged.digest, reading),
                damaged.line,
                reading,
                RowState.QUARANTINED,
                now,
                now,
                damaged.cause,
                DAMAGED_HINT,
            ),
        )
    if not tail.more:
        # A damaged line that this reading did not see any more was repaired or removed.
        db.execute(
            "DELETE FROM records WHERE dataset_id = ? AND run_id IS NULL AND reading < ?",
            (dataset_id, reading),
        )
