"""Runs of which the cloud has everything and this machine no longer has the files.

``prune`` writes its intent down here before it removes the first file of a run, so that whatever ends it, the
run is whole or known as pruned. A ledger that does not know of it, as a new one, finds the row in the table
and nothing in the folder: then what the bucket has of the run is taken in (`take_in_objects`). A run is
pruned no more as soon as a scan finds all of its files again.
"""

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection, Row
from typing import NamedTuple

from pixaris_sync.ledger.datasets import count_new_files
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.ledger.packs import restore
from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import FileState, FileVersion, RemoteObject, RowState, RunKey, RunState

#: It is synced, by all that the ledger knows now.
_AT_REST = f"state = '{RunState.SYNCED}' AND committed AND quiet_at IS NULL AND folder_cause IS NULL"
#: A local file that was never looked at here: whatever comes in its place is a newer version.
_UNSEEN = -1


class SelectedRun(NamedTuple):
    """A run that a tracking record names, and where it stands by the ledger; `cause` may be empty."""

    id: int
    key: RunKey
    state: RunState
    cause: str


def selected_runs(db: Connection, selection: Selection) -> list[SelectedRun]:
    """The selected runs that a record names, by project, dataset and name."""
    rows = db.execute(
        "SELECT r.id, d.project, d.dataset, r.name, r.state, r.cause FROM runs r"
        f" JOIN datasets d ON d.id = r.dataset_id WHERE r.committed AND {selection.of_runs()}"
        " ORDER BY d.project, d.dataset, r.name",
        selection.parameters,
    )
    return [
        SelectedRun(
            row["id"],
            RunKey(row["project"], row["dataset"], row["name"]),
            RunState(row["state"]),
            row["cause"] or "",
        )
        for row in rows
    ]


def begin_prune(db: Connection, now: float, run_id: int) -> bool:
    """Write down that files of a run are going to be removed, if it is synced still; whether it is."""
    return bool(
        db.execute(
            f"UPDATE runs SET pruned_at = coalesce(pruned_at, ?) WHERE id = ? AND {_AT_REST}", (now, run_id)
        ).rowcount
    )


def leave_whole(db: Connection, run_id: int) -> None:
    """No file of a run is gone after all."""
    db.execute("UPDATE runs SET pruned_at = NULL WHERE id = ?", (run_id,))


def note_gone(
    db: Connection, now: float, run: Row, known: Mapping[str, FileVersion], found: Collection[str]
) -> None:
    """Note whether a run's folder has all of its local files that are `known`, by those `found` in it."""
    gone = any(path not in found for path, version in known.items() if version.content_crc32c is None)
    if gone == (run["pruned_at"] is not None):
        return
    if gone:
        db.execute("UPDATE runs SET pruned_at = ? WHERE id = ?", (now, run["id"]))
    else:
        leave_whole(db, run["id"])
        take_in_notices(db, now, scope_of(run["id"]), [])


def count_pruned(db: Connection, selection: Selection) -> int:
    """How many of the selected runs are pruned."""
    count: int = db.execute(
        "SELECT count(*) FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.pruned_at IS NOT NULL AND r.state = '{RunState.SYNCED}' AND {selection.of_runs()}",
        selection.parameters,
    ).fetchone()[0]
    return count


def pruned_since(db: Connection, run_id: int) -> float | None:
    """Since when a run is pruned; None: it is not."""
    row = db.execute("SELECT pruned_at FROM runs WHERE id = ?", (run_id,)).fetchone()
    return row["pruned_at"] if row else None


def lacking_runs(db: Connection, rows: Sequence[PendingRow]) -> dict[RunKey, int]:
    """The runs of these rows whose folders lack something, and of which this ledger has sent nothing."""
    found: dict[RunKey, int] = {}
    for row in rows:
        if row.state is not RowState.UNASKED or row.sends:
            continue
        run = db.execute(
            "SELECT r.id FROM records c JOIN runs r ON r.id = c.run_id"
            " WHERE c.id = ? AND c.digest = ? AND (r.folder_cause IS NOT NULL OR r.quiet_at IS NOT NULL)",
            (row.id, row.digest),
        ).fetchone()
        if run is not None:
            found[row.run] = run["id"]
    return found


def take_in_objects(
    db: Connection,
    now: float,
    run_id: int,
    objects: Collection[tuple[str, RemoteObject]],
    notice: Notice | None,
) -> None:
    """Take in what the bucket has of a run whose files are not here, by path; what is known stays as it is.

    `notice`: what is to be said of the run; it is said until its files are back.
    """
    restore(db, run_id)
    run = db.execute("SELECT dataset_id, name FROM runs WHERE id = ?", (run_id,)).fetchone()
    if run is None:
        return
    taken = [
        remote.size
        for path, remote in objects
        if db.execute(
            "INSERT INTO files (run_id, dataset_id, path, run_name, size, mtime_ns, inode, crc32c,"
            " generation, ours, state, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (
                *(run_id, run["dataset_id"], path, run["name"], remote.size, _UNSEEN, _UNSEEN),
                *(remote.crc32c, remote.generation, FileState.UPLOADED, now),
            ),
        ).rowcount
    ]
    count_new_files(db, run["dataset_id"], taken, uploaded=True)
    if taken or notice:
        db.execute("UPDATE runs SET pruned_at = ? WHERE id = ?", (now, run_id))
    take_in_notices(db, now, scope_of(run_id), [notice] if notice else [])


def scope_of(run_id: int) -> str:
    """The scope of what is said of a run whose files are not here."""
    return f"pruned {run_id}"
