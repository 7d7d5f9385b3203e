"""How far every dataset is, and which runs were synced last."""

from collections import Counter
from sqlite3 import Connection, Row
from typing import Final, NamedTuple

from pixaris_sync.ledger.packs import packed_files
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.model import DatasetKey, FileState, RowState, RunKey, RunState
from pixaris_sync.rules.contract import GENERATED_IMAGES

#: So many images of a run are named.
IMAGES_NAMED: Final = 4


class DatasetProgress(NamedTuple):
    """How far a dataset is.

    Attributes:
        runs: how many are in each state; every state is there. A damaged line counts as a quarantined one.
        under_way: pending runs of which a file or row is on its way; where no process is at work, it was.
        files_left, bytes_left: what waits to be uploaded or is on its way, without what is quarantined.
        rows_left: rows that are not synced, without those that are quarantined.
        uploading: files that are on their way.
        cause: why nothing of it can be synced, if so.
    """

    key: DatasetKey
    runs: dict[str, int]
    under_way: int
    files_left: int
    bytes_left: int
    rows_left: int
    uploading: int
    cause: str


class SyncedRun(NamedTuple):
    """A run as it was synced.

    Attributes:
        files, bytes: of its images and args, and of metrics that became objects.
        images: how many of the files are generated images.
        first_images: paths of the first `IMAGES_NAMED` of them, relative to the run's folder.
        found_at: when its tracking line was taken in.
        synced_at: when its last row was read back; both in seconds since the epoch.
    """

    run: RunKey
    files: int
    bytes: int
    images: int
    first_images: tuple[str, ...]
    found_at: float
    synced_at: float

    @property
    def seconds(self) -> float:
        """How long it took from its line to its row."""
        return max(0.0, self.synced_at - self.found_at)


#: Synced runs are what no other state has.
_RUNS: Final = """
SELECT dataset_id, NULL AS state, count(*) AS runs FROM runs GROUP BY dataset_id
UNION ALL SELECT dataset_id, state, count(*) FROM open_runs GROUP BY dataset_id, state
"""
#: A damaged line is a run that nobody can name.
_DAMAGED: Final = "SELECT dataset_id, count(*) AS lines FROM records WHERE run_id IS NULL GROUP BY dataset_id"
#: Files that do not wait: a dataset counts its open files, and these are few.
_FILES: Final = f"""
SELECT dataset_id, state, count(*) AS files, sum(size) AS bytes FROM open_files
WHERE state IN ('{FileState.UPLOADING}', '{FileState.QUARANTINED}') GROUP BY state, dataset_id
"""
#: In the order of the index. Damaged lines, which are no rows, are in quarantine.
_ROWS: Final = f"""
SELECT dataset_id, count(*) AS rows FROM open_records WHERE state <> '{RowState.QUARANTINED}'
GROUP BY dataset_id, ready
"""
_UNDER_WAY: Final = f"""
SELECT r.dataset_id, count(*) AS runs FROM open_runs r WHERE r.state = '{RunState.PENDING}' AND r.id IN (
    SELECT run_id FROM open_files WHERE state = '{FileState.UPLOADING}'
    UNION SELECT run_id FROM records WHERE delivery_id IS NOT NULL AND state = '{RowState.SENDING}'
) GROUP BY r.dataset_id
"""


def dataset_progress(db: Connection) -> list[DatasetProgress]:
    """How far every dataset is, in order of their names."""
    runs: dict[int, dict[str, int]] = {}
    for row in db.execute(_RUNS):
        of_dataset = runs.setdefault(row["dataset_id"], dict.fromkeys(map(str, RunState), 0))
        if row["state"] is None:
            of_dataset[RunState.SYNCED] += row["runs"]
        else:
            of_dataset[row["state"]] += row["runs"]
            of_dataset[RunState.SYNCED] -= row["runs"]
    for row in db.execute(_DAMAGED):
        of_dataset = runs.setdefault(row["dataset_id"], dict.fromkeys(map(str, RunState), 0))
        of_dataset[RunState.QUARANTINED] += row["lines"]
    files = {(row["dataset_id"], row["state"]): row for row in db.execute(_FILES)}
    rows: Counter[int] = Counter()
    for row in db.execute(_ROWS):
        rows[row["dataset_id"]] += row["rows"]
    under_way = {row["dataset_id"]: row["runs"] for row in db.execute(_UNDER_WAY)}
    found = db.execute(
        "SELECT id, project, dataset, cause, open_files, open_bytes FROM datasets ORDER BY project, dataset"
    )
    return [
        _progress(
            one,
            runs.get(one["id"]),
            under_way.get(one["id"], 0),
            files.get((one["id"], FileState.UPLOADING)),
            files.get((one["id"], FileState.QUARANTINED)),
            rows[one["id"]],
        )
        for one in found
    ]


def _progress(
    dataset: Row,
    runs: dict[str, int] | None,
    under_way: int,
    uploading: Row | None,
    quarantined: Row | None,
    rows: int,
) -> DatasetProgress:
    return DatasetProgress(
        key=DatasetKey(dataset["project"], dataset["dataset"]),
        runs=runs or dict.fromkeys(map(str, RunState), 0),
        under_way=under_way,
        files_left=dataset["open_files"] - (quarantined["files"] if quarantined else 0),
        bytes_left=dataset["open_bytes"] - (quarantined["bytes"] if quarantined else 0),
        rows_left=rows,
        uploading=uploading["files"] if uploading else 0,
        cause=dataset["cause"] or "",
    )


_LAST_SYNCED: Final = """
SELECT r.id, r.packed_files, r.name, d.project, d.dataset, c.found_at, c.since
FROM records c INDEXED BY records_synced
    CROSS JOIN runs r ON r.id = c.run_id CROSS JOIN datasets d ON d.id = r.dataset_id
WHERE c.state = 'synced' AND r.state = 'synced'
"""


def last_synced_runs(db: Connection, count: int, selection: Selection = EVERYTHING) -> list[SyncedRun]:
    """The selected runs that were synced last, latest first; at most `count`."""
    limited = f" AND {selection.of_runs()}" if selection.is_limited else ""
    rows = db.execute(
        f"{_LAST_SYNCED}{limited} ORDER BY c.since DESC LIMIT :count",
        {**selection.parameters, "count": count},
    )
    return [_synced(db, row) for row in rows.fetchall()]


def _synced(db: Connection, row: Row) -> SyncedRun:
    files = _files(db, row["id"], is_packed=row["packed_files"] is not None)
    images = [path for path, _ in files if path.startswith(f"{GENERATED_IMAGES}/")]
    return SyncedRun(
        RunKey(row["project"], row["dataset"], row["name"]),
        len(files),
        sum(size for _, size in files),
        len(images),
        tuple(images[:IMAGES_NAMED]),
        row["found_at"],
        row["since"],
    )


def _files(db: Connection, run_id: int, *, is_packed: bool) -> list[tuple[str, int]]:
    """Paths and sizes, in order of the paths."""
    if is_packed:
        return [(file.path, file.size) for file in packed_files(db, run_id)]
    found = db.execute("SELECT path, size FROM files WHERE run_id = ? ORDER BY path", (run_id,))
    return [(row["path"], row["size"]) for row in found]
