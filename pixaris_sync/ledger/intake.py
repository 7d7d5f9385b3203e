"""Transitions that take in what a scan found."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from sqlite3 import Connection, Row

from pixaris_sync.ledger.lines import ordinal_of, take_in_damaged
from pixaris_sync.ledger.packs import packed_files, restore
from pixaris_sync.ledger.runs import OBJECT_WRITE_SECONDS, Problem, update_run_states
from pixaris_sync.model import (
    DatasetKey,
    FileState,
    FileVersion,
    FoundFile,
    RowState,
    RunState,
    Tail,
    TailPosition,
    TrackingRecord,
)

#: In the place of a file's mtime: it is forgotten, unless the next inspection of its run finds it.
LEFT_OUT_UNLESS_FOUND = -1


#: In the place of a record's reading: it was refused, and is judged anew when its line is read again.
JUDGED_ANEW = -1


_NEW_FILE = """
INSERT INTO files (run_id, dataset_id, path, rank, content, size, mtime_ns, inode, state, since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_KNOWN_RUN = """
SELECT id, committed, signature, folder_cause, folder_hint, packed_files FROM runs
WHERE dataset_id = ? AND name = ?
"""


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """What the ledger knows of a dataset before a scan."""

    id: int
    key: DatasetKey
    position: TailPosition | None
    read_whole: bool
    adopted: bool


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A tracking record, and the files whose content stood inline in it."""

    record: TrackingRecord
    inline: tuple[FoundFile, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run that a tracking record names, as its folder looks now.

    `problem` stands for everything wrong with the folder; then no files of the run are taken in.
    """

    name: str
    signature: str
    files: tuple[FoundFile, ...] = ()
    records: tuple[FoundRecord, ...] = ()
    problem: Problem | None = None


def open_dataset(db: Connection, now: float, key: DatasetKey, table_id: str) -> KnownDataset:
    """Find a dataset, or take it in."""
    db.execute(
        "INSERT INTO datasets (project, dataset, table_id, since) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (key.project, key.dataset, table_id, now),
    )
    row = db.execute(
        "SELECT * FROM datasets WHERE project = ? AND dataset = ?", (key.project, key.dataset)
    ).fetchone()
    return KnownDataset(
        id=row["id"],
        key=key,
        position=TailPosition(**json.loads(row["tail"])) if row["tail"] else None,
        read_whole=bool(row["read_whole"]),
        adopted=row["adopted_at"] is not None,
    )


def refuse_dataset(db: Connection, now: float, dataset_id: int, problem: Problem | None) -> None:
    """Say why nothing of a dataset can be synced; None lifts that."""
    cause, hint = (problem.cause, problem.hint) if problem else (None, None)
    changed = db.execute(
        "UPDATE datasets SET cause = ?, hint = ?, since = ? WHERE id = ? AND cause IS NOT ?",
        (cause, hint, now, dataset_id, cause),
    ).rowcount
    if changed:
        runs = db.execute("SELECT id FROM runs WHERE dataset_id = ?", (dataset_id,)).fetchall()
        update_run_states(db, now, [row["id"] for row in runs])


def take_in_runs(db: Connection, now: float, dataset_id: int, runs: Sequence[FoundRun]) -> None:
    """Take in known runs whose folders were looked at again."""
    update_run_states(db, now, [_take_in_run(db, now, dataset_id, run) for run in runs])


def take_in(db: Connection, now: float, dataset_id: int, tail: Tail, runs: Sequence[FoundRun]) -> int:
    """Take in one reading of a tracking file: its records, their runs and files, and the new position.

    A record seen before is not a new record: it is known by its digest and by how many equal ones stand
    before it in the same reading of the file.

    Returns:
        How many records are new.
    """
    if tail.from_start:
        db.execute("UPDATE datasets SET reading = reading + 1 WHERE id = ?", (dataset_id,))
    reading = db.execute("SELECT reading FROM datasets WHERE id = ?", (dataset_id,)).fetchone()[0]
    new = 0
    touched: list[int] = []
    for run in runs:
        run_id = _take_in_run(db, now, dataset_id, run)
        for found in run.records:
            new += _take_in_record(db, now, dataset_id, run_id, found, reading)
        touched.append(run_id)
    take_in_damaged(db, now, dataset_id, tail, reading)
    db.execute(
        "UPDATE datasets SET tail = ?, torn_bytes = ?, read_whole = max(read_whole, ?) WHERE id = ?",
        (
            json.dumps(asdict(tail.position)),
            tail.torn_bytes,
            not tail.more,
            dataset_id,
        ),
    )
    update_run_states(db, now, touched)
    return new


def _take_in_run(db: Connection, now: float, dataset_id: int, run: FoundRun) -> int:
    known = db.execute(_KNOWN_RUN, (dataset_id, run.name)).fetchone()
    problem = run.problem
    if known is None:
        run_id = db.execute(
            "INSERT INTO runs (dataset_id, name, state, since, committed, signature, folder_cause,"
            " folder_hint) VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
            (dataset_id, run.name, RunState.PENDING, now, run.signature, *_texts(problem)),
        ).lastrowid
        assert run_id is not None  # noqa: S101 - an INSERT always has one
        if problem is None:
            _take_in_new(db, now, dataset_id, run_id, run.name, run.files)
        return run_id
    run_id = int(known["id"])
    if problem is not None and _all_uploaded(db, known) and _all_known(db, dataset_id, run.records):
        # What the folder has lost since is in the bucket already.
        problem = None
    looked = (1, run.signature, *_texts(problem))
    if (known["committed"], known["signature"], known["folder_cause"], known["folder_hint"]) != looked:
        db.execute(
            "UPDATE runs SET committed = ?, signature = ?, folder_cause = ?, folder_hint = ? WHERE id = ?",
            (*looked, run_id),
        )
    if run.problem is None:
        _take_in_files(db, now, dataset_id, known, run)
    return run_id


def _texts(problem: Problem | None) -> tuple[str, str] | tuple[None, None]:
    return (problem.cause, problem.hint) if problem else (None, None)


def _take_in_files(db: Connection, now: float, dataset_id: int, known: Row, run: FoundRun) -> None:
    """Take in the files of a known run as they are now; what is as it was is only compared."""
    run_id = known["id"]
    if known["packed_files"] is None:
        rows = db.execute("SELECT path, size, mtime_ns, inode FROM files WHERE run_id = ?", (run_id,))
        stamps = {row[0]: tuple(row)[1:] for row in rows}
    else:
        stamps = {file.path: file[1:4] for file in packed_files(db, run_id)}
    new = [file for file in run.files if file.path not in stamps]
    changed = [one for one in run.files if one.path in stamps and stamps[one.path] != _stamp(one.version)]
    if new or changed:
        restore(db, run_id)
    _take_in_new(db, now, dataset_id, run_id, run.name, new)
    for file in changed:
        _take_in_file(db, now, dataset_id, run_id, run.name, file)
    if any(mtime_ns == LEFT_OUT_UNLESS_FOUND for _, mtime_ns, _ in stamps.values()):
        db.execute(
            "DELETE FROM files WHERE run_id = ? AND mtime_ns = ? AND state IN ('pending', 'quarantined')",
            (run_id, LEFT_OUT_UNLESS_FOUND),
        )


def _take_in_new(
    db: Connection, now: float, dataset_id: int, run_id: int, rank: str, files: Sequence[FoundFile]
) -> None:
    """Take in files of a run that are not known yet."""
    db.executemany(_NEW_FILE, [_new_file(now, dataset_id, run_id, rank, file) for file in files])


def _new_file(now: float, dataset_id: int, run_id: int, rank: str, file: FoundFile) -> tuple[object, ...]:
    return (run_id, dataset_id, file.path, rank, file.content, *_stamp(file.version), FileState.PENDING, now)


def _all_uploaded(db: Connection, known: Row) -> bool:
    total, uploaded = db.execute(
        "SELECT count(*), coalesce(sum(state = ?), 0) FROM files WHERE run_id = ?",
        (FileState.UPLOADED, known["id"]),
    ).fetchone()
    return bool(known["packed_files"] or (total and total == uploaded))


def _all_known(db: Connection, dataset_id: int, records: Sequence[FoundRecord]) -> bool:
    known = "SELECT 1 FROM records WHERE dataset_id = ? AND digest = ?"
    return all(db.execute(known, (dataset_id, found.record.digest)).fetchone() for found in records)


def _take_in_file(
    db: Connection, now: float, dataset_id: int, run_id: int, rank: str, file: FoundFile
) -> None:
    version = file.version
    if db.execute(_NEW_FILE, _new_file(now, dataset_id, run_id, rank, file)).rowcount:
        return
    known = db.execute("SELECT * FROM files WHERE run_id = ? AND path = ?", (run_id, file.path)).fetchone()
    if (known["size"], known["mtime_ns"], known["inode"]) == _stamp(version):
        return
    # A newer version of the same file; whether its content differs too shows when it is read.
    db.execute(
        "UPDATE files SET size = ?, mtime_ns = ?, inode = ?, content = ?, session_uri = NULL WHERE id = ?",
        (*_stamp(version), file.content, known["id"]),
    )
    if known["state"] != FileState.UPLOADING:
        # Attempts go on being counted while it waits: a file that is rewritten without end must not keep a
        # pass alive.
        db.execute(
            "UPDATE files SET state = ?, since = ?, attempts = iif(state = ?, attempts, 0),"
            " next_attempt_at = iif(state = ?, min(since, ?) + ?, 0), cause = NULL, hint = NULL WHERE id = ?",
            (
                FileState.PENDING,
                now,
                FileState.PENDING,
                FileState.UPLOADED,
                now,
                OBJECT_WRITE_SECONDS,
                known["id"],
            ),
        )


def _stamp(version: FileVersion) -> tuple[int, int, int]:
    return (version.size, version.mtime_ns, version.inode)


def _take_in_record(
    db: Connection, now: float, dataset_id: int, run_id: int, found: FoundRecord, reading: int
) -> int:
    record = found.record
    ordinal = ordinal_of(db, dataset_id, record.digest, reading)
    db.execute(
        "DELETE FROM records WHERE dataset_id = ? AND digest = ? AND ordinal = ? AND reading = ?",
        (dataset_id, record.digest, ordinal, JUDGED_ANEW),
    )
    known = db.execute(
        "UPDATE records SET reading = ?, line = ? WHERE dataset_id = ? AND digest = ? AND ordinal = ?",
        (reading, record.line, dataset_id, record.digest, ordinal),
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
        "INSERT INTO records (dataset_id, run_id, rank, digest, ordinal, line, reading, payload, state,"
        " since, found_at, cause, hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            dataset_id,
            run_id,
            record.run.run,
            record.digest,
            ordinal,
            record.line,
            reading,
            json.dumps(record.values),
            RowState.QUARANTINED if clash else RowState.PENDING,
            now,
            now,
            clash.cause if clash else None,
            clash.hint if clash else None,
        ),
    )
    return 1


def _clash(db: Connection, run_id: int, inline: Sequence[FoundFile]) -> Problem | None:
    """Whether another record of the same run holds another dict under the same name."""
    for file in inline:
        known = db.execute(
            "SELECT size, mtime_ns, inode FROM files WHERE run_id = ? AND path = ?", (run_id, file.path)
        ).fetchone()
        if known is not None and tuple(known) != _stamp(file.version):
            return Problem(
                f"another record of the same run has another {file.path}: one object cannot hold both",
                "two runs were stored under one name in the same second; store one of them again",
            )
    return None
