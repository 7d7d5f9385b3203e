"""How long a run takes from its tracking line to its visible row, one run after another.

The time begins before the line is written and ends when the server has the row, by its own note of the
machine's monotonic clock. The table is not new: rows of new tables go by load jobs for a while, on purpose,
which `table_settle_seconds` sets.
"""

import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cloud import BUCKET, Cloud, running_cloud
from tests.benchmarks.contenders import Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import watching
from tests.benchmarks.sets import (
    PIXARIS_PROJECT,
    RunSet,
    SetShape,
    filled,
    finish_run,
    noise_png,
    run_set,
)

_IMAGES, _IMAGE_BYTES = 3, 100_000
_POLL_SECONDS = 0.002
#: What is said of a run that did not come.
_TIMEOUT_SECONDS = 120.0
_WARMING_RUNS = 3
_PAUSE_SECONDS_MAX = 0.3


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from tracking line to row, and whether a backfill went on all the while."""

    seconds: list[float]
    beside_backfill: bool

    def text(self) -> str:
        """In one line."""
        ordered = sorted(self.seconds)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return (
            f"{'beside a backfill' if self.beside_backfill else 'alone'}: {len(ordered)} runs, "
            f"median {statistics.median(ordered) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, "
            f"most {ordered[-1] * 1000:.0f} ms"
        )


def watch_latency(
    cache: Path, *, runs: int, backfill_copies: int, flags: str, table_settle_seconds: float
) -> Latencies:
    """Measure one daemon.

    Args:
        cache: where sets are kept, and scratch folders made.
        runs: how many runs to write.
        backfill_copies: how often set C lies in the folder when the daemon starts; 0 for an empty folder.
        flags: further flags for ``watch``.
        table_settle_seconds: see the module's docstring.

    Returns:
        The latencies; with a backfill, those of the runs that were written while it went on.

    Raises:
        TimeoutError: a run's row did not come.
    """
    cores = choose_cores()
    shape = SetShape("live", runs=runs, images_per_run=_IMAGES, image_bytes=_IMAGE_BYTES, datasets=1)
    settle = {
        "PIXARIS_SYNC_TABLE_SETTLE_SECONDS": str(table_settle_seconds),
        # What is written here must not wait, whatever is set. A backlog stands for one of years, but was
        # linked just now, and would be waited for.
        "PIXARIS_SYNC_STILL_FOLDER_SECONDS": "0" if backfill_copies else "5",
    }
    with scratch_folder(cache) as scratch, running_cloud(cores.server) as cloud:
        folder = scratch / "local_results"
        (folder / PIXARIS_PROJECT).mkdir(parents=True)
        cloud.reset(0)
        place = Place(RunSet(shape, folder, ""), cloud.address, scratch, 0)
        writer = _Writer(folder / PIXARIS_PROJECT / "live", cloud)
        with watching(place, frozenset({cores.client}), flags=flags, extra=settle):
            for _ in range(_WARMING_RUNS):
                writer.measure_one()
        backlog = _link_copies(folder, cache, backfill_copies)
        with watching(place, frozenset({cores.client}), flags=flags, extra=settle):
            if not backlog:
                writer.measure_one()
            return Latencies(list(_measured(writer, cloud, runs, backlog)), bool(backlog))


def _measured(writer: "_Writer", cloud: Cloud, runs: int, backlog: int) -> Iterator[float]:
    for _ in range(runs):
        seconds = writer.measure_one()
        uploads = sum(n for kind, n in cloud.counts().items() if kind.startswith("gcs.upload"))
        if backlog and uploads - writer.runs * _IMAGES >= backlog:
            return
        yield seconds


class _Writer:
    """Writes runs as Pixaris does, and waits for each one's row."""

    def __init__(self, dataset: Path, cloud: Cloud) -> None:
        self.runs = 0
        self._dataset = dataset
        self._cloud = cloud
        self._chance = random.Random(1)  # noqa: S311 - the same in every measurement
        self._picture = noise_png(_IMAGE_BYTES, self._chance)

    def measure_one(self) -> float:
        """Write a run; seconds from its line to its row."""
        # A pause of any length, so that no step of the daemon's own timers is always met.
        time.sleep(self._chance.uniform(0, _PAUSE_SECONDS_MAX))
        run = self._dataset / f"{time.strftime('%Y%m%d-%H%M%S')}_live{self.runs}"
        (run / "generated_images").mkdir(parents=True)
        for index in range(_IMAGES):
            content = filled(self._picture, _IMAGE_BYTES, self._chance)
            (run / "generated_images" / f"image_{index}.png").write_bytes(content)
        begun = time.monotonic()
        finish_run(run, self.runs, self._chance)
        self.runs += 1
        deadline = begun + _TIMEOUT_SECONDS
        while (arrived := self._cloud.arrived_at(run.name)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no row for {run.name} after {_TIMEOUT_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        return arrived - begun


def _link_copies(folder: Path, cache: Path, copies: int) -> int:
    """Put set C into the folder as so many projects; how many files that are."""
    if not copies:
        return 0
    runs = run_set("C", cache, bucket=BUCKET)
    for number in range(copies):
        shutil.copytree(runs.folder / PIXARIS_PROJECT, folder / f"old{number}", copy_function=os.link)
    return runs.shape.files * copies


def write_latencies(path: Path, found: list[Latencies]) -> None:
    """Every latency, for machines."""
    path.write_text(
        json.dumps([{"beside_backfill": one.beside_backfill, "seconds": one.seconds} for one in found]) + "\n"
    )
