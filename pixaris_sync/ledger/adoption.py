"""What a listing of the bucket tells of a dataset's files, before anything of them is sent."""

from collections.abc import Mapping
from itertools import pairwise
from sqlite3 import Connection
from typing import Final

from pixaris_sync.ledger.runs import update_run_states
from pixaris_sync.ledger.uploads import DOUBT, Receipt, UploadTask, confirm_uploads, doubt
from pixaris_sync.model import FileState, FileVersion, Problem, RemoteObject, RunKey
from pixaris_sync.ports import LIST_PAGE_OBJECTS
from pixaris_sync.rules.shards import is_carried

#: The name of a run, and of one that is not before it in the order of objects: a part of a listing.
Part = tuple[str, str]
#: So many files' objects are listed in one part.
FILES_OF_A_PART: Final = 20_000
PARTS_LIMIT: Final = 16
#: Names of runs that are read from the ledger at once.
RUNS_LIMIT: Final = 500

#: A file of a dataset's run of which nothing is known in the bucket.
_UNSENT = (
    "path = ? AND run_id = (SELECT id FROM runs WHERE dataset_id = ? AND name = ?) AND state <> 'uploaded'"
    " AND NOT ours AND NOT taken"
)
_TASK = f"""
SELECT id, run_id, size, mtime_ns, inode, content_crc32c, content, attempts, cause FROM files WHERE {_UNSENT}
    AND state = '{FileState.PENDING}'
"""
#: By state, the first run of a dataset that has files in it: the index has them in this order.
_FIRST_IN_STATE = """
SELECT run_name FROM files WHERE state = ? AND state <> 'uploaded' AND dataset_id = ?
ORDER BY run_name LIMIT 1
"""


def compare_anew(db: Connection, dataset_id: int) -> None:
    """Let a dataset wait until it has been compared with the bucket once more."""
    db.execute("UPDATE datasets SET adopted_at = NULL WHERE id = ?", (dataset_id,))


def parts_to_list(db: Connection, dataset_id: int) -> list[Part]:
    """Parts of a dataset's objects that together hold whatever its unsent files may have become.

    Each begins with a run's name and ends before another, or, where that is empty, with the last object. They
    are about equally large, and can be listed side by side. None: there is nothing to look for.
    """
    states = (FileState.PENDING, FileState.IN_DOUBT)
    found = [db.execute(_FIRST_IN_STATE, (state, dataset_id)).fetchone() for state in states]
    names = [row[0] for row in found if row is not None]
    if not names:
        return []
    first = min(names)
    files = db.execute("SELECT open_files FROM datasets WHERE id = ?", (dataset_id,)).fetchone()[0]
    count = min(PARTS_LIMIT, 1 + files // FILES_OF_A_PART)
    later = "FROM runs WHERE dataset_id = ? AND name >= ?"
    runs = db.execute(f"SELECT count(*) {later}", (dataset_id, first)).fetchone()[0]
    nth = f"SELECT name {later} ORDER BY name LIMIT 1 OFFSET ?"
    bounds = [
        db.execute(nth, (dataset_id, first, runs * part // count)).fetchone()[0] for part in range(1, count)
    ]
    return list(pairwise([*dict.fromkeys([first, *bounds]), ""]))


def unsent_runs(db: Connection, dataset_id: int, after: str) -> list[str]:
    """The next runs of a dataset after that name of which files wait, in the order of their names."""
    rows = db.execute(
        "SELECT r.name FROM runs r WHERE r.dataset_id = ? AND r.name > ? AND r.state <> 'synced'"
        " AND EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id) ORDER BY r.name LIMIT ?",
        (dataset_id, after, RUNS_LIMIT),
    )
    return [name for (name,) in rows]


def listed_by_run(db: Connection, dataset_id: int, shards: int) -> bool:
    """Whether it takes fewer requests to list the objects of each waiting run than those of all runs.

    `shards`: how many there are; this ledger knows the runs of one of them.
    """
    files, runs = db.execute(
        "SELECT open_files, (SELECT count(*) FROM open_runs r WHERE r.dataset_id = d.id) FROM datasets d"
        " WHERE d.id = ?",
        (dataset_id,),
    ).fetchone()
    return bool(runs < files * shards / LIST_PAGE_OBJECTS)


def adopt_objects(
    db: Connection, now: float, dataset_id: int, objects: Mapping[tuple[str, str], RemoteObject]
) -> int:
    """Note the objects of one listing page that are files of this dataset; keys are (run, path).

    What a shard carried as it is now is uploaded. Of other files it shows when they are read. A file whose
    object's checksum the listing does not tell is in doubt: it is looked up when it is its turn.

    Returns:
        How many were known files.
    """
    found = 0
    carried: list[Receipt] = []
    for (run, path), remote in objects.items():
        file = (path, dataset_id, run)
        if task := _carried(db, file, remote):
            found += 1
            carried.append(Receipt(task, remote, was_there=True, sent=False))
            continue
        if remote.crc32c is None:
            db.execute(
                f"UPDATE files SET state = ?, since = ? WHERE {_UNSENT} AND state = ?",
                (FileState.IN_DOUBT, now, *file, FileState.PENDING),
            )
        found += db.execute(
            f"UPDATE files SET crc32c = ?, generation = ?, taken = ? WHERE {_UNSENT}",
            (remote.crc32c, remote.generation, remote.crc32c is None, *file),
        ).rowcount
    if carried:
        confirm_uploads(db, now, carried)
    return found


def _carried(db: Connection, file: tuple[str, int, str], remote: RemoteObject) -> UploadTask | None:
    """The file that a shard made this object of, if it is as it was then."""
    if not remote.metadata or remote.crc32c is None:
        return None
    row = db.execute(_TASK, file).fetchone()
    if row is None:
        return None
    version = FileVersion(row["size"], row["mtime_ns"], row["inode"], row["content_crc32c"])
    if not is_carried(remote, version):
        return None
    return UploadTask(
        id=row["id"],
        run_id=row["run_id"],
        run=RunKey("", "", file[2]),
        path=file[0],
        version=version,
        content=row["content"],
        generation=0,
        crc32c=None,
        ours=False,
        in_doubt=False,
        sent_crc32c=None,
        session_uri=None,
        attempts=row["attempts"],
        had_cause=row["cause"] is not None,
    )


def adopted(db: Connection, now: float, dataset_id: int, *, listed: bool = True) -> None:
    """The bucket was compared with the ledger: from here on, files and rows of the dataset may be sent.

    Runs without files have nothing in the bucket that would tell whether their row was sent just now: it is
    in doubt. Where the bucket could not be `listed`, nothing tells so of any run.
    """
    db.execute("UPDATE datasets SET adopted_at = ? WHERE id = ?", (now, dataset_id))
    adoption_failed(db, now, dataset_id, None)
    db.execute(
        f"UPDATE records SET {DOUBT} WHERE dataset_id = :dataset_id AND state IN (:unasked, :pending)"
        " AND NOT (:listed AND EXISTS (SELECT 1 FROM files f WHERE f.run_id = records.run_id))",
        {**doubt(now), "dataset_id": dataset_id, "listed": listed},
    )


def adoption_failed(db: Connection, now: float, dataset_id: int, problem: Problem | None) -> None:
    """Say why a dataset cannot be compared with the bucket now, so that its runs wait; None: nothing is."""
    cause, hint = (problem.cause, problem.hint) if problem else (None, None)
    changed = db.execute(
        "UPDATE datasets SET trouble = ?, trouble_hint = ? WHERE id = ? AND trouble IS NOT ?",
        (cause, hint, dataset_id, cause),
    ).rowcount
    if changed:
        waiting = db.execute("SELECT id FROM open_runs WHERE dataset_id = ?", (dataset_id,))
        update_run_states(db, now, [row["id"] for row in waiting.fetchall()])
