"""What the ledger's counters must say, by looking at every run, file and row of it."""

from sqlite3 import Connection

from pixaris_sync.ledger.database import get_fact
from pixaris_sync.ledger.numbers import Numbers
from pixaris_sync.ledger.packs import packed_files
from pixaris_sync.ledger.rows import LAST_SYNCED
from pixaris_sync.model import FileState, RowState, RunState


def slow_numbers(db: Connection) -> Numbers:
    """See `pixaris_sync.ledger.numbers.numbers`, while a process is at work."""
    runs = _count(db, "SELECT state, count(*) FROM runs GROUP BY state", RunState)
    runs[RunState.QUARANTINED] += len(db.execute("SELECT 1 FROM records WHERE run_id IS NULL").fetchall())
    files = _count(db, "SELECT state, count(*) FROM files GROUP BY state", FileState)
    packs = [row["run_id"] for row in db.execute("SELECT run_id FROM packs").fetchall()]
    files[FileState.UPLOADED] += sum(len(packed_files(db, run)) for run in packs)
    rows = _count(
        db,
        "SELECT iif(r.state = 'quarantined' AND c.sends = 0 AND c.state IN ('pending', 'in_doubt'),"
        " r.state, c.state), count(*) FROM records c LEFT JOIN runs r ON r.id = c.run_id GROUP BY 1",
        RowState,
    )
    last = get_fact(db, LAST_SYNCED)
    return Numbers(
        runs=runs,
        files=files,
        rows=rows,
        pending_bytes=db.execute(
            "SELECT coalesce(sum(f.size), 0) FROM files f JOIN runs r ON r.id = f.run_id"
            " JOIN datasets d ON d.id = r.dataset_id WHERE f.state NOT IN ('uploaded', 'quarantined')"
            " AND r.folder_cause IS NULL AND d.cause IS NULL"
        ).fetchone()[0],
        oldest_pending_at=db.execute(
            "SELECT min(coalesce((SELECT min(c.found_at) FROM records c"
            " WHERE c.run_id = r.id AND c.state <> 'synced'), r.since))"
            " FROM runs r WHERE r.state IN ('pending', 'failing') AND r.committed"
        ).fetchone()[0],
        last_synced_at=float(last) if last else None,
    )


def _count(
    db: Connection, sql: str, states: type[RunState] | type[FileState] | type[RowState]
) -> dict[str, int]:
    return {**dict.fromkeys(map(str, states), 0), **dict(map(tuple, db.execute(sql).fetchall()))}
