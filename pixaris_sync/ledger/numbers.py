"""How many runs, files and rows are in each state: from counters and indexes alone, however many there are.

Files are many and change often, so that whoever changes one counts (see `datasets.count_new_files` and its
neighbours): a trigger would take longer than the change itself. Runs and rows are counted in their indexes.
"""

from sqlite3 import Connection
from typing import Final

from msgspec import Struct

from pixaris_sync.ledger.database import get_fact
from pixaris_sync.ledger.rows import LAST_SYNCED
from pixaris_sync.model import FileState, RowState, RunState


class Numbers(Struct, frozen=True):
    """How much is in which state.

    Attributes:
        runs, files, rows: how many are in each state; every state is there.
        pending_bytes: size of the files that wait for their upload or are on their way.
        oldest_pending_at: since when the run that waits longest has been waiting; None: none waits.
        last_synced_at: when a row was last read back; None: never.
    """

    runs: dict[str, int]
    files: dict[str, int]
    rows: dict[str, int]
    pending_bytes: int
    oldest_pending_at: float | None
    last_synced_at: float | None


_OPEN_RUNS: Final = "SELECT state, count(*) FROM open_runs GROUP BY state"
#: Of every dataset, what its counters say. Those of finished runs are packed.
_FILES: Final = """
SELECT coalesce(sum(uploaded_files + packed_files), 0) AS uploaded, coalesce(sum(open_files), 0) AS open,
    coalesce(sum(iif(cause IS NULL, open_bytes, 0)), 0) AS open_bytes
FROM datasets
"""
#: There are few of them, but for those that wait.
_FILES_THAT_DO_NOT_WAIT: Final = f"""
SELECT state, count(*) AS files FROM open_files
WHERE state IN ('{FileState.UPLOADING}', '{FileState.IN_DOUBT}', '{FileState.QUARANTINED}') GROUP BY state
"""
#: Nothing of these is on its way: files in quarantine, and all files of runs whose folder is damaged.
_BYTES_THAT_REST: Final = f"""
SELECT coalesce(sum(size), 0) FROM (
    SELECT f.size FROM open_files f CROSS JOIN datasets d
    WHERE f.state = '{FileState.QUARANTINED}' AND d.id = f.dataset_id AND d.cause IS NULL
    UNION ALL
    SELECT f.size FROM datasets d CROSS JOIN runs r INDEXED BY runs_damaged CROSS JOIN open_files f
    WHERE r.dataset_id = d.id AND r.folder_cause IS NOT NULL
        AND d.cause IS NULL AND f.run_id = r.id AND f.state <> '{FileState.QUARANTINED}'
)
"""
#: In the order of the index of what waits for each table, which is not that of their states alone.
_OPEN_ROWS: Final = """
SELECT state, count(*) AS rows FROM open_records GROUP BY dataset_id, ready, state
"""
#: Rows that were never sent and wait for a run that somebody must act on.
_ROWS_IN_QUARANTINE: Final = f"""
SELECT c.state, count(*) AS rows FROM open_runs r CROSS JOIN open_records c
WHERE r.state = '{RunState.QUARANTINED}' AND c.run_id = r.id AND c.sends = 0
    AND c.state IN ('pending', 'in_doubt')
GROUP BY c.state
"""
#: A condition over runs r: they wait, or fail and are tried again.
WAITS: Final = f"r.state IN ('{RunState.PENDING}', '{RunState.FAILING}') AND r.committed"
#: The first record of one that waits; then the first of those that wait without a record and for longer.
_OLDEST_BY_RECORD: Final = f"""
SELECT c.found_at FROM records c INDEXED BY records_waiting CROSS JOIN runs r
WHERE c.state <> 'synced' AND r.id = c.run_id AND {WAITS} ORDER BY c.found_at LIMIT 1
"""
_OLDEST_WITHOUT: Final = f"""
SELECT min(r.since) FROM datasets d CROSS JOIN open_runs r WHERE r.dataset_id = d.id AND {WAITS}
    AND r.since < ? AND NOT EXISTS (SELECT 1 FROM open_records c WHERE c.run_id = r.id)
"""


def numbers(db: Connection, *, at_work: bool = True) -> Numbers:
    """Count everything.

    Args:
        db: a transaction.
        at_work: a process goes on with this ledger; else what was under way is in doubt.
    """
    runs = dict.fromkeys(map(str, RunState), 0)
    runs.update(map(tuple, db.execute(_OPEN_RUNS)))
    runs[RunState.SYNCED] = _one(db, "SELECT count(*) FROM runs") - sum(runs.values())
    # A damaged line is a run that nobody can name.
    runs[RunState.QUARANTINED] += _one(db, "SELECT count(*) FROM records WHERE run_id IS NULL")
    files, pending_bytes = _files(db)
    rows = _rows(db)
    if not at_work:
        as_without_process(files, rows)
    last = get_fact(db, LAST_SYNCED)
    return Numbers(runs, files, rows, pending_bytes, oldest_waiting_at(db), float(last) if last else None)


def as_without_process(files: dict[str, int], rows: dict[str, int]) -> None:
    """Count what was under way as in doubt: no process works with the ledger."""
    files[FileState.IN_DOUBT] += files[FileState.UPLOADING]
    rows[RowState.IN_DOUBT] += rows[RowState.SENDING]
    files[FileState.UPLOADING] = rows[RowState.SENDING] = 0


def _one(db: Connection, sql: str, *parameters: float) -> int:
    return int(db.execute(sql, parameters).fetchone()[0])


def _files(db: Connection) -> tuple[dict[str, int], int]:
    """Files by their states, and the size of those that wait."""
    files = dict.fromkeys(map(str, FileState), 0)
    files.update(map(tuple, db.execute(_FILES_THAT_DO_NOT_WAIT)))
    counted = db.execute(_FILES).fetchone()
    files[FileState.PENDING] = counted["open"] - sum(files.values())
    files[FileState.UPLOADED] = counted["uploaded"]
    return files, counted["open_bytes"] - _one(db, _BYTES_THAT_REST)


def _rows(db: Connection) -> dict[str, int]:
    """Rows by their states."""
    rows = dict.fromkeys(map(str, RowState), 0)
    for row in db.execute(_OPEN_ROWS):
        rows[row["state"]] += row["rows"]
    rows[RowState.SYNCED] = _one(db, "SELECT count(*) FROM records") - sum(rows.values())
    for row in db.execute(_ROWS_IN_QUARANTINE):
        rows[row["state"]] -= row["rows"]
        rows[RowState.QUARANTINED] += row["rows"]
    return rows


def oldest_waiting_at(db: Connection) -> float | None:
    """Since when the run that waits longest has been waiting."""
    found = db.execute(_OLDEST_BY_RECORD).fetchone()
    by_record = float("inf") if found is None else found[0]
    without = db.execute(_OLDEST_WITHOUT, (by_record,)).fetchone()[0]
    return without if without is not None else None if found is None else by_record
