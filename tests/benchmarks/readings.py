"""What it costs to read everything that is shown, from ledgers of very many files.

The ledgers are made by statements, not by passes: what counts is how much stands in them. Measured is the
time of the processor, as others may be at work beside.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.datasets import count_new_files
from pixaris_sync.ledger.packs import pack
from pixaris_sync.ledger.selection import Work
from pixaris_sync.model import FileState, RowState, RunState
from pixaris_sync.monitoring.metrics import Metrics
from pixaris_sync.monitoring.view import Reader
from pixaris_sync.settings.model import Settings
from tests.benchmarks.scratch import scratch_folder

IMAGES_PER_RUN = 20
RUNS_PER_DATASET = 1_000
_READINGS = 21


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor time in ms: a reading of everything, one of what metrics tell, and their text."""

    ledger: str
    view_ms: float
    numbers_ms: float
    text_ms: float

    def text(self) -> str:
        """In one line."""
        return (
            f"{self.ledger}: everything {self.view_ms:.1f} ms, numbers alone {self.numbers_ms:.1f} ms, "
            f"their text {self.text_ms:.1f} ms"
        )


def fill(db: Connection, runs: int, *, synced: bool, first: int = 0) -> None:
    """Write runs of `IMAGES_PER_RUN` files into a ledger: synced and packed, or all of them waiting.

    Args:
        db: a transaction.
        runs: how many.
        synced: whether they are.
        first: the number of the first, beyond those that are there.
    """
    numbers = range(first, first + runs)
    dataset = {number: first + number // RUNS_PER_DATASET + 1 for number in numbers}
    state = RunState.SYNCED if synced else RunState.PENDING
    row = RowState.SYNCED if synced else RowState.PENDING
    paths = [f"generated_images/image_{index:03d}.png" for index in range(IMAGES_PER_RUN)]
    db.executemany(
        "INSERT INTO datasets (id, project, dataset, table_id, adopted_at, since)"
        " VALUES (?, 'project', ?, ?, 0, 0)",
        [(one, f"dataset{one}", f"project_dataset{one}") for one in sorted({*dataset.values()})],
    )
    db.executemany(
        "INSERT INTO runs (id, dataset_id, name, state, since, signature, committed)"
        " VALUES (?, ?, ?, ?, ?, ?, 1)",
        [(n + 1, dataset[n], _name(n), state, float(n), "s" * 64) for n in numbers],
    )
    db.executemany(
        "INSERT INTO records (dataset_id, run_id, run_name, digest, ordinal, line, reading, payload,"
        " found_at, state, since) VALUES (?, ?, ?, ?, 0, ?, 1, ?, ?, ?, ?)",
        [
            (
                dataset[n],
                n + 1,
                _name(n),
                f"{n:064d}",
                n,
                None if synced else "p" * 500,
                float(n),
                row,
                float(n),
            )
            for n in numbers
        ],
    )
    if synced:
        packed = pack([(path, 4_000, 1, 1, 1, 1) for path in paths])
        db.executemany("INSERT INTO packs (run_id, packed) VALUES (?, ?)", [(n + 1, packed) for n in numbers])
        db.executemany(
            "UPDATE runs SET packed_files = ? WHERE id = ?", [(len(paths), n + 1) for n in numbers]
        )
    else:
        db.executemany(
            "INSERT INTO files (run_id, dataset_id, path, run_name, size, mtime_ns, inode, state, since)"
            " VALUES (?, ?, ?, ?, 4000, 1, 1, ?, 0)",
            ((n + 1, dataset[n], path, _name(n), FileState.PENDING) for n in numbers for path in paths),
        )
        for n in numbers:
            count_new_files(db, dataset[n], [4_000] * len(paths))


def _name(number: int) -> str:
    return f"20240101-{number:06d}_run"


def measure_reading(path: Path, name: str) -> Reading:
    """Read a ledger again and again, and take the medians."""
    settings = Settings(
        gcp_project_id="p",
        gcp_bq_experiment_dataset="p.d",
        gcp_pixaris_bucket_name="b",
        local_results_folder=path.parent,
    )
    metrics = Metrics(path.parent, lambda: (1e6, 1.0))

    def seconds(read: Callable[[Reader], object]) -> float:
        """Of one reading, by somebody who has not looked before."""
        reader = Reader(settings, path, Work)
        try:
            begun = time.thread_time()
            read(reader)
            return time.thread_time() - begun
        finally:
            reader.close()

    def milliseconds(read: Callable[[Reader], object]) -> float:
        return 1000 * statistics.median(seconds(read) for _ in range(_READINGS))

    reader = Reader(settings, path, Work)
    figures = reader.figures()
    reader.close()
    return Reading(
        name,
        view_ms=milliseconds(Reader.read),
        numbers_ms=milliseconds(Reader.figures),
        text_ms=milliseconds(lambda _: metrics.exposition(figures)),
    )


def measure_readings(cache: Path, files: int) -> list[Reading]:
    """Ledgers of so many files: all synced, and all waiting beside as many that are synced."""
    runs = max(1, files // IMAGES_PER_RUN)
    found = []
    with scratch_folder(cache) as scratch:
        path = scratch / "ledger.sqlite3"
        ledger = Ledger.open(path)
        try:
            ledger.write(lambda db: fill(db, runs, synced=True))
            found.append(measure_reading(path, f"{files:,} files synced"))
            ledger.write(lambda db: fill(db, runs, synced=False, first=runs))
            found.append(measure_reading(path, f"{files:,} files synced, {files:,} waiting"))
        finally:
            ledger.close()
    return found
