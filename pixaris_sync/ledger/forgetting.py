"""Forgets what somebody took out of a tracking file by hand, so that it is as if it had never been there.

A line that is gone gives nothing up by itself: tracking files are rotated, cut and restored, and what waits
is carried all the same. A run is given up where its folder is gone too. A record is replaced where another
line tells of its run. Only runs in trouble are forgotten. Whoever brings one back brings a new one: its table
is asked first.
"""

from collections.abc import Collection
from sqlite3 import Connection
from typing import NamedTuple

from pixaris_sync.ledger.datasets import KnownDataset, open_dataset
from pixaris_sync.ledger.known import InspectedRun, inspected_runs
from pixaris_sync.ledger.retry import READ_AGAIN
from pixaris_sync.model import RunState

#: Runs of a dataset in trouble of which no file and no row is under way. What is wrong with a folder makes
#: no state of its run while the table is still to be asked, as it is for each line that was edited.
_IN_TROUBLE = f"""
FROM open_runs r JOIN datasets d ON d.id = r.dataset_id
WHERE r.dataset_id = :dataset_id AND r.committed
    AND (r.state IN ('{RunState.QUARANTINED}', '{RunState.FAILING}') OR r.folder_cause IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id AND f.state = 'uploading')
    AND NOT EXISTS (
        SELECT 1 FROM open_records c WHERE c.run_id = r.id AND c.sends > 0
            AND c.state IN ('sending', 'in_doubt', 'accepted')
    )
"""
#: The last reading of the tracking file has not seen a line of theirs.
_WITHOUT_LINE = f"""
SELECT r.id, r.name {_IN_TROUBLE}
    AND NOT EXISTS (SELECT 1 FROM records c WHERE c.run_id = r.id AND c.reading = d.reading)
"""
#: It has missed the line of a record that no table can hold, and has seen another one of the run.
_REPLACED = "state <> 'synced' AND accepted_at IS NULL AND NOT (taken AND sends > 0)"
_EDITED = f"""
SELECT r.id, r.name, d.reading, EXISTS (
    SELECT 1 FROM records c WHERE c.run_id = r.id AND NOT ({_REPLACED})
) AS is_settled {_IN_TROUBLE}
    AND EXISTS (SELECT 1 FROM records c WHERE c.run_id = r.id AND c.reading = d.reading)
    AND EXISTS (SELECT 1 FROM records c WHERE c.run_id = r.id AND c.reading < d.reading AND {_REPLACED})
"""


class Stock(NamedTuple):
    """A dataset as it is known when its tracking file was read.

    Attributes:
        known: the dataset.
        runs: those that a scan looks at again.
        edited: runs whose lines were replaced: the tracking file is to be read once more.
        without_line: runs in trouble of which no line is left.
    """

    known: KnownDataset
    runs: list[InspectedRun]
    edited: list[str]
    without_line: list[str]


def take_stock(
    db: Connection, now: float, known: KnownDataset, table_id: str, *, synced_too: bool, is_whole: bool
) -> Stock:
    """What is known of a dataset now.

    Args:
        db: a transaction.
        now: seconds since the epoch.
        known: the dataset as it was before.
        table_id: its table's.
        synced_too: synced runs are looked at again, too.
        is_whole: all of its tracking file was read, and its end is not torn.
    """
    edited = forget_edited(db, now, known.id) if is_whole else []
    return Stock(
        open_dataset(db, now, known.key, table_id),
        inspected_runs(db, known.id, synced_too=synced_too),
        edited,
        runs_without_line(db, known.id) if is_whole else [],
    )


def runs_without_line(db: Connection, dataset_id: int) -> list[str]:
    """The runs of a dataset that are given up if their folders are gone; its tracking file was read whole."""
    return [row["name"] for row in db.execute(_WITHOUT_LINE, {"dataset_id": dataset_id})]


def forget_runs(db: Connection, dataset_id: int, names: Collection[str]) -> list[str]:
    """Forget those of these runs that are given up still: their folders and their lines are gone.

    Returns:
        Their names.
    """
    known = db.execute(_WITHOUT_LINE, {"dataset_id": dataset_id}).fetchall()
    given_up = [(row["id"], row["name"]) for row in known if row["name"] in names]
    run_ids = [(run_id,) for run_id, _ in given_up]
    for table in ("records", "files", "packs"):
        db.executemany(f"DELETE FROM {table} WHERE run_id = ?", run_ids)
    db.executemany("DELETE FROM runs WHERE id = ?", run_ids)
    return [name for _, name in given_up]


def forget_edited(db: Connection, now: float, dataset_id: int) -> list[str]:
    """Forget records of runs whose lines were replaced, and let the tracking file be read again.

    What is uploaded of such a run stays known. Where the table has none of its rows, its other lines are new
    when they are read: they may need what clashed before.

    Returns:
        The names of these runs.
    """
    edited = db.execute(_EDITED, {"dataset_id": dataset_id}).fetchall()
    for run in edited:
        which = f"run_id = :id AND ({_REPLACED}) AND (reading < :reading OR NOT :is_settled)"
        db.execute(f"DELETE FROM records WHERE {which}", dict(run))
        if run["is_settled"]:
            db.execute(
                "UPDATE files SET forget_unless_found = 1"
                " WHERE run_id = ? AND state <> 'uploaded' AND content IS NULL",
                (run["id"],),
            )
        else:
            db.execute("DELETE FROM files WHERE run_id = ? AND state <> 'uploaded'", (run["id"],))
        # While no record names it, it cannot count as synced.
        db.execute(
            "UPDATE runs SET committed = ?, state = ?, since = ?, cause = NULL, hint = NULL, held = 0,"
            " signature = NULL, folder_cause = NULL, folder_hint = NULL, quiet_at = NULL WHERE id = ?",
            (run["is_settled"], RunState.PENDING, now, run["id"]),
        )
        db.execute(READ_AGAIN, (run["id"],))
    return [run["name"] for run in edited]
