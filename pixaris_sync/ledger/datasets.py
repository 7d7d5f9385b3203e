"""Datasets: which there are, how far their tracking files were read, and why one is refused."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import sub
from sqlite3 import Connection, Row
from typing import NamedTuple

from pixaris_sync.ledger.runs import update_run_states
from pixaris_sync.model import DatasetKey, Problem, TailPosition

_COUNT = """
UPDATE datasets
SET uploaded_files = uploaded_files + ?, open_files = open_files + ?, open_bytes = open_bytes + ?
"""
_OF_RUN = "WHERE id = (SELECT dataset_id FROM runs WHERE id = ?)"
_FILES_OF_RUN = """
SELECT coalesce(sum(state = 'uploaded'), 0), coalesce(sum(state <> 'uploaded'), 0),
    coalesce(sum(iif(state <> 'uploaded', size, 0)), 0)
FROM files WHERE run_id = ?
"""
_DATASET = "SELECT * FROM datasets WHERE project = ? AND dataset = ?"


class KnownDataset(NamedTuple):
    """What the ledger knows of a dataset before a scan."""

    id: int
    key: DatasetKey
    position: TailPosition | None
    read_whole: bool
    adopted: bool


def open_dataset(db: Connection, now: float, key: DatasetKey, table_id: str) -> KnownDataset:
    """Find a dataset, or take it in."""
    db.execute(
        "INSERT INTO datasets (project, dataset, table_id, since) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (key.project, key.dataset, table_id, now),
    )
    return _known_dataset(db.execute(_DATASET, (key.project, key.dataset)).fetchone())


def find_dataset(db: Connection, key: DatasetKey) -> KnownDataset | None:
    """What is known of a dataset; None: nothing."""
    row = db.execute(_DATASET, (key.project, key.dataset)).fetchone()
    return _known_dataset(row) if row else None


def _known_dataset(row: Row) -> KnownDataset:
    return KnownDataset(
        id=row["id"],
        key=DatasetKey(row["project"], row["dataset"]),
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


def count_new_files(db: Connection, dataset_id: int, sizes: Sequence[int], *, uploaded: bool = False) -> None:
    """Count files that were written into ``files``, by their sizes.

    Triggers would count them too, and take longer for each than it takes to write it.
    """
    if sizes:
        counts = (len(sizes), 0, 0) if uploaded else (0, len(sizes), sum(sizes))
        db.execute(f"{_COUNT} WHERE id = ?", (*counts, dataset_id))


def count_uploaded_files(db: Connection, sizes_of_runs: Mapping[int, Sequence[int]]) -> None:
    """Count files that were open and are uploaded, by the sizes of those of each run."""
    db.executemany(
        f"{_COUNT} {_OF_RUN}",
        [(len(sizes), -len(sizes), -sum(sizes), run_id) for run_id, sizes in sizes_of_runs.items()],
    )


@contextmanager
def counting_files(db: Connection, run_ids: Iterable[int]) -> Iterator[None]:
    """Count what becomes of files of these runs meanwhile; deleted ones, which count themselves, excepted."""
    before = {run_id: tuple(db.execute(_FILES_OF_RUN, (run_id,)).fetchone()) for run_id in run_ids}
    yield
    for run_id, counts in before.items():
        after = tuple(db.execute(_FILES_OF_RUN, (run_id,)).fetchone())
        if after != counts:
            db.execute(f"{_COUNT} {_OF_RUN}", (*map(sub, after, counts), run_id))
