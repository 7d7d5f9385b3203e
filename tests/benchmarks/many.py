"""Folders of very many files: time of passes, size of the ledger, memory, and what an idle daemon uses.

The files are hard links to a few pictures, so that a folder of a million is made in minutes and takes little
disk. Their contents, and so their uploads, are those of real files of that size.
"""

import itertools
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cloud import running_cloud
from tests.benchmarks.contenders import CONTENDERS, OURS, Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.extrapolation import MeasuredShards
from tests.benchmarks.processes import Measured, measure
from tests.benchmarks.results import MEGABYTE
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import command, watching
from tests.benchmarks.sets import (
    PIXARIS_PROJECT,
    RunSet,
    SetShape,
    filled,
    finish_run,
    noise_png,
    run_name,
)

_IMAGES_PER_RUN = 20
_IMAGE_BYTES = 4_000
_RUNS_PER_DATASET = 1_000
#: File systems allow some ten thousand links to a file.
_LINKS_MAX = 30_000
_PASS_SECONDS_MAX = 7_200
_PER_FILE_UNIT = 1e6


@dataclass(frozen=True, slots=True)
class Scale:
    """What one folder cost.

    Attributes:
        files: how many there are.
        first: the pass that carried them.
        second: the pass that found nothing new.
        ledger_bytes: on disk, its journal included.
        idle: what the daemon used afterwards, None where that was not asked for.
    """

    files: int
    first: Measured
    second: Measured
    ledger_bytes: int
    idle: "Idle | None"

    def text(self) -> str:
        """In a few lines."""
        passes = (("first pass", self.first), ("nothing new", self.second))
        lines = [f"{self.files:,} files:"]
        for name, measured in passes:
            lines.append(
                f"  {name}: {measured.wall_seconds:.2f} s, CPU {measured.cpu_seconds:.2f} s, "
                f"{measured.wall_seconds / self.files * _PER_FILE_UNIT:.1f} us a file, "
                f"peak {measured.peak_bytes / MEGABYTE:.0f} MB"
            )
        per_file = self.ledger_bytes / self.files
        lines.append(f"  ledger: {self.ledger_bytes / MEGABYTE:.1f} MB, {per_file:.0f} bytes a file")
        if self.idle:
            lines.append(f"  {self.idle.text()}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Idle:
    """What a daemon used while nothing happened."""

    seconds: float
    cpu_seconds: float
    resident_bytes: int
    settling_seconds: float

    def text(self) -> str:
        """In one line."""
        return (
            f"idle for {self.seconds:g} s: CPU {self.cpu_seconds:.2f} s, resident "
            f"{self.resident_bytes / MEGABYTE:.0f} MB "
            f"(quiet {self.settling_seconds:.0f} s after it was ready)"
        )


def measure_scale(cache: Path, *, files: int, idle_seconds: float, flags: str, listen: bool = False) -> Scale:
    """Carry a folder of `files` files, look again, and watch it idly for `idle_seconds` (0: not at all).

    Args:
        cache: where folders are kept, and scratch folders made.
        files: how many, rounded to whole runs.
        idle_seconds: how long to watch.
        flags: further flags for pixaris-sync.
        listen: it serves the page while it watches, which nobody looks at.
    """
    cores = choose_cores()
    client = frozenset({cores.client})
    runs = linked_folder(cache, files)
    with scratch_folder(cache) as scratch, running_cloud(cores.server) as cloud:
        cloud.reset(0)
        place = Place(runs, cloud.address, scratch, 0)
        first, second = (
            measure(
                command("backfill", f"--json {flags}"),
                environment=CONTENDERS[OURS].environment(place),
                cores=client,
                folder=scratch,
                timeout_seconds=_PASS_SECONDS_MAX,
            )
            for _ in range(2)
        )
        state = sum(path.stat().st_size for path in (scratch / "state").iterdir())
        watch_flags = f"{flags} --listen 127.0.0.1:0" if listen else flags
        idle = _idle(place, client, idle_seconds, watch_flags) if idle_seconds else None
    return Scale(runs.shape.files, first, second, state, idle)


def _idle(place: Place, client: frozenset[int], seconds: float, flags: str) -> Idle:
    with watching(place, client, flags=flags, ready_seconds=600) as running:
        ready = time.monotonic()
        running.wait_until_quiet(timeout_seconds=600)
        settled = time.monotonic()
        before = running.cpu_seconds
        time.sleep(seconds)
        return Idle(seconds, running.cpu_seconds - before, running.resident_bytes, settled - ready)


@dataclass(frozen=True, slots=True)
class Sharded:
    """What a folder cost that shards carried.

    Attributes:
        files: how many there are.
        shards: each of them, one after the other.
        repeated: the first once more, without its ledger: what it had carried is found in the bucket.
        rows: the pass after them, with a new ledger: it finds all files in the bucket and sends all rows.
        ledger_bytes: of each shard, on disk.
    """

    files: int
    shards: tuple[Measured, ...]
    repeated: Measured
    rows: Measured
    ledger_bytes: tuple[int, ...]

    def text(self) -> str:
        """In a few lines, each with the processor time a file that it is about."""
        of_one = self.files / len(self.shards)
        largest = max(self.shards, key=lambda one: one.peak_bytes)
        cpu_seconds = sum(one.cpu_seconds for one in self.shards)
        wall_seconds = sum(one.wall_seconds for one in self.shards)
        carried = Measured(wall_seconds, cpu_seconds, largest.peak_bytes, "")
        rows = (
            ("files, by all shards", carried, self.files),
            ("a shard once more, without its ledger", self.repeated, of_one),
            ("rows, by the pass after them", self.rows, self.files),
        )
        lines = [f"{self.files:,} files in {len(self.shards)} shards, one after the other:"]
        for name, measured, files in rows:
            lines.append(
                f"  {name}: {measured.wall_seconds:.2f} s, CPU {measured.cpu_seconds:.2f} s, "
                f"{measured.cpu_seconds / files * _PER_FILE_UNIT:.1f} us a file, "
                f"peak {measured.peak_bytes / MEGABYTE:.0f} MB"
            )
        lines.append(f"  a shard's ledger: {max(self.ledger_bytes) / of_one:.0f} bytes a file")
        return "\n".join(lines)

    def measured(self, machine: str) -> MeasuredShards:
        """By the file, for what very many would cost."""
        of_one = self.files / len(self.shards)
        return MeasuredShards(
            files=self.files,
            machine=machine,
            shard_cpu_seconds=round(sum(one.cpu_seconds for one in self.shards) / self.files, 7),
            repeated_cpu_seconds=round(self.repeated.cpu_seconds / of_one, 7),
            rows_cpu_seconds=round(self.rows.cpu_seconds / self.files, 7),
            shard_peak_bytes=max(one.peak_bytes for one in self.shards),
            rows_peak_bytes=self.rows.peak_bytes,
            shard_ledger_bytes=round(max(self.ledger_bytes) / of_one, 1),
        )


def measure_shards(cache: Path, *, files: int, shards: int, flags: str) -> Sharded:
    """Carry a folder of `files` files by so many shards, and then its rows.

    Args:
        cache: where folders are kept, and scratch folders made.
        files: how many, rounded to whole runs.
        shards: how many.
        flags: further flags for pixaris-sync.
    """
    cores = choose_cores()
    runs = linked_folder(cache, files)
    with scratch_folder(cache) as scratch, running_cloud(cores.server) as cloud:
        cloud.reset(0)
        environment = CONTENDERS[OURS].environment(Place(runs, cloud.address, scratch, 0))

        def carry(state: str, shard: str) -> Measured:
            return measure(
                command("backfill", f"--json --shard {shard} --state-dir {scratch / state} {flags}"),
                environment=environment,
                cores=frozenset({cores.client}),
                folder=scratch,
                timeout_seconds=_PASS_SECONDS_MAX,
            )

        names = [f"{number}/{shards}" for number in range(1, shards + 1)]
        carried = tuple(carry(f"shard{at}", name) for at, name in enumerate(names))
        ledgers = tuple(
            sum(path.stat().st_size for path in (scratch / f"shard{at}").iterdir()) for at in range(shards)
        )
        repeated = carry("lost", names[0])
        return Sharded(runs.shape.files, carried, repeated, carry("rows", "none"), ledgers)


def ratio_text(scales: Sequence[Scale]) -> str:
    """How the time a file differs between the smallest and the largest folder."""
    small, large = min(scales, key=lambda s: s.files), max(scales, key=lambda s: s.files)
    if small is large:
        return ""
    lines = [f"a file among {large.files:,} against a file among {small.files:,}:"]
    for name, many, few in (
        ("first pass", large.first, small.first),
        ("nothing new", large.second, small.second),
    ):
        ratio = (many.wall_seconds / large.files) / (few.wall_seconds / small.files)
        lines.append(f"  {name}: {ratio:.2f} times the time")
    return "\n".join(lines)


def linked_folder(cache: Path, files: int) -> RunSet:
    """A folder of so many small files in runs, kept in `cache`."""
    runs = max(1, files // _IMAGES_PER_RUN)
    shape = SetShape(
        f"linked-{runs}",
        runs=runs,
        images_per_run=_IMAGES_PER_RUN,
        image_bytes=_IMAGE_BYTES,
        datasets=-(-runs // _RUNS_PER_DATASET),
    )
    place = cache / shape.name
    folder, done = place / "local_results", place / "done"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        folder.mkdir(parents=True)
        _link_runs(shape, place, folder / PIXARIS_PROJECT)
        done.touch()
    return RunSet(shape, folder, "")


def _link_runs(shape: SetShape, place: Path, project: Path) -> None:
    chance = random.Random(shape.name)  # noqa: S311 - a folder is the same everywhere
    picture = noise_png(_IMAGE_BYTES, chance)
    source, links = place / "none", itertools.count()
    for number in range(shape.runs):
        run = project / f"set{number // _RUNS_PER_DATASET}" / run_name(number)
        images = run / "generated_images"
        images.mkdir(parents=True)
        for index in range(shape.images_per_run):
            link = next(links)
            if link % _LINKS_MAX == 0:
                source = place / f"picture_{link}.png"
                source.write_bytes(filled(picture, _IMAGE_BYTES, chance))
            os.link(source, images / f"image_{index:03d}.png")
        finish_run(run, number, chance)
