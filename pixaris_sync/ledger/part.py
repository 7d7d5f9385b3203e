"""How much of a selection is in which state, counted run by run: there are no counters for a part."""

from collections import Counter
from sqlite3 import Connection

from pixaris_sync.ledger.numbers import WAITS, Numbers, as_without_process
from pixaris_sync.ledger.progress import DatasetProgress
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, FileState, RowState, RunState


def numbers_of(db: Connection, selection: Selection, *, at_work: bool = True) -> Numbers:
    """Count what is selected, as `numbers.numbers` counts everything; `at_work` as there.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    selected, values = selection.of_runs(), selection.parameters
    of_runs = f"FROM datasets d CROSS JOIN runs r ON r.dataset_id = d.id AND {selected}"
    runs = dict.fromkeys(map(str, RunState), 0)
    runs.update(map(tuple, db.execute(f"SELECT r.state, count(*) {of_runs} GROUP BY r.state", values)))
    damaged = _damaged(db, selection).total()
    runs[RunState.QUARANTINED] += damaged
    files, pending_bytes = dict.fromkeys(map(str, FileState), 0), 0
    by_state = (
        "SELECT f.state, count(*) AS files, coalesce(sum(iif(f.state IN ('uploaded', 'quarantined')"
        " OR d.cause IS NOT NULL OR (r.state = 'quarantined' AND r.folder_cause IS NOT NULL), 0, f.size)), 0)"
        f" AS waiting {of_runs} CROSS JOIN files f ON f.run_id = r.id GROUP BY f.state"
    )
    for row in db.execute(by_state, values):
        files[row["state"]] = row["files"]
        pending_bytes += row["waiting"]
    packed = f"SELECT coalesce(sum(r.packed_files), 0) {of_runs}"
    files[FileState.UPLOADED] += db.execute(packed, values).fetchone()[0]
    rows = dict.fromkeys(map(str, RowState), 0)
    # Rows that were never sent and wait for a run that somebody must act on are in quarantine, too.
    rows_by_state = (
        "SELECT iif(r.state = 'quarantined' AND c.sends = 0 AND c.state IN ('pending', 'in_doubt'),"
        f" 'quarantined', c.state), count(*) {of_runs} CROSS JOIN records c ON c.run_id = r.id GROUP BY 1"
    )
    rows.update(map(tuple, db.execute(rows_by_state, values)))
    rows[RowState.QUARANTINED] += damaged
    if not at_work:
        as_without_process(files, rows)
    oldest = (
        "SELECT min(coalesce((SELECT min(c.found_at) FROM open_records c WHERE c.run_id = r.id), r.since))"
        f" {of_runs} AND {WAITS}"
    )
    last = f"SELECT max(c.since) {of_runs} CROSS JOIN records c ON c.run_id = r.id AND c.state = 'synced'"
    return Numbers(
        runs,
        files,
        rows,
        pending_bytes,
        db.execute(oldest, values).fetchone()[0],
        db.execute(last, values).fetchone()[0],
    )


def waiting_outside(db: Connection, selection: Selection) -> int:
    """How many runs wait that are not selected."""
    count: int = db.execute(
        f"SELECT count(*) FROM open_runs r CROSS JOIN datasets d ON d.id = r.dataset_id AND {WAITS}"
        f" AND NOT ({selection.of_runs()})",
        selection.parameters,
    ).fetchone()[0]
    return count


def progress_of(db: Connection, selection: Selection) -> list[DatasetProgress]:
    """How far the selected runs of every dataset are, as `progress.dataset_progress` tells of all.

    Datasets of which nothing can be selected are left out.
    """
    selected, values = selection.of_runs(), selection.parameters
    of_runs = f"FROM datasets d CROSS JOIN runs r ON r.dataset_id = d.id AND {selected}"
    runs: dict[int, dict[str, int]] = {}
    for row in db.execute(f"SELECT d.id, r.state, count(*) AS runs {of_runs} GROUP BY d.id, r.state", values):
        runs.setdefault(row["id"], dict.fromkeys(map(str, RunState), 0))[row["state"]] = row["runs"]
    under_way = (
        f"SELECT d.id, count(*) {of_runs} AND r.state = 'pending' AND (EXISTS"
        " (SELECT 1 FROM open_files f WHERE f.run_id = r.id AND f.state = 'uploading') OR EXISTS"
        " (SELECT 1 FROM open_records c WHERE c.run_id = r.id AND c.state = 'sending')) GROUP BY d.id"
    )
    moving: dict[int, int] = dict(map(tuple, db.execute(under_way, values)))
    of_files = (
        "SELECT d.id, count(*) AS files, coalesce(sum(f.size), 0) AS bytes, sum(f.state = 'uploading') AS"
        f" uploading {of_runs} CROSS JOIN open_files f ON f.run_id = r.id AND f.state <> 'quarantined'"
        " GROUP BY d.id"
    )
    files = {row["id"]: row for row in db.execute(of_files, values)}
    of_rows = (
        f"SELECT d.id, count(*) {of_runs} CROSS JOIN open_records c ON c.run_id = r.id"
        " AND c.state <> 'quarantined' GROUP BY d.id"
    )
    rows: dict[int, int] = dict(map(tuple, db.execute(of_rows, values)))
    damaged = _damaged(db, selection)
    found = []
    datasets = f"SELECT id, project, dataset, cause FROM datasets d WHERE {selection.of_datasets}"
    for one in db.execute(f"{datasets} ORDER BY project, dataset", values).fetchall():
        of_dataset = runs.get(one["id"], dict.fromkeys(map(str, RunState), 0))
        of_dataset[RunState.QUARANTINED] += damaged[one["id"]]
        left = files.get(one["id"])
        found.append(
            DatasetProgress(
                key=DatasetKey(one["project"], one["dataset"]),
                runs=of_dataset,
                under_way=moving.get(one["id"], 0),
                files_left=left["files"] if left else 0,
                bytes_left=left["bytes"] if left else 0,
                rows_left=rows.get(one["id"], 0),
                uploading=left["uploading"] if left else 0,
                cause=one["cause"] or "",
            )
        )
    return found


def _damaged(db: Connection, selection: Selection) -> Counter[int]:
    """How many lines name no run, by dataset."""
    rows = db.execute(
        "SELECT d.id, count(*) AS lines FROM records c JOIN datasets d ON d.id = c.dataset_id"
        f" WHERE c.run_id IS NULL AND {selection.of_lines} GROUP BY d.id",
        selection.parameters,
    )
    return Counter({row["id"]: row["lines"] for row in rows})
