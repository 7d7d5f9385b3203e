"""Folders of runs to carry: what ``LocalExperimentHandler`` leaves behind, of sizes that can be told exactly.

Each image is a valid PNG of noise, so that checking it costs what it costs for a generated picture. Its size
is exact: an ancillary chunk fills it up and makes every file's content its own.
"""

import io
import json
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from PIL import Image

from tests.benchmarks.server.objects import inventory_digest

PIXARIS_PROJECT = "bench"
TRACKING_FILE = "experiment_tracking.jsonl"
_DONE_FILE = "set.json"
_FOLDER = "local_results"
_CHUNK_OVERHEAD_BYTES = 12
#: Distinct pictures in a set; their contents are repeated with another filling.
_PICTURES = 8
#: Six bits of eight: noise, but something is left for the compression to do.
_SIX_BITS = bytes(value & 0xFC for value in range(256))


@dataclass(frozen=True, slots=True)
class SetShape:
    """How many runs of how many images of which size, in how many datasets.

    With `uneven`, the first of these has half of all runs.
    """

    name: str
    runs: int
    images_per_run: int
    image_bytes: int
    datasets: int
    uneven: bool = False

    @property
    def files(self) -> int:
        """How many files are to be carried."""
        return self.runs * self.images_per_run

    def dataset_of(self, number: int) -> str:
        """The dataset of the `number`-th run."""
        if self.uneven:
            number = 0 if number % 2 else 1 + number // 2 % (self.datasets - 1)
        return f"set{number % self.datasets}"

    def described(self) -> str:
        """In words."""
        size = (
            f"{self.image_bytes / 1_000_000:g} MB"
            if self.image_bytes >= 1_000_000
            else f"{self.image_bytes / 1000:g} KB"
        )
        return f"{self.files:,} x {size} in {self.runs:,} runs"


SHAPES = {
    shape.name: shape
    for shape in (
        SetShape("A", runs=200, images_per_run=10, image_bytes=100_000, datasets=2),
        SetShape("B", runs=20, images_per_run=10, image_bytes=5_000_000, datasets=1),
        SetShape("C", runs=1000, images_per_run=20, image_bytes=4_000, datasets=4),
        SetShape("tiny", runs=4, images_per_run=3, image_bytes=4_000, datasets=2),
    )
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk: its dataset, its folder, its record."""

    dataset: str
    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunSet:
    """A set on disk.

    Attributes:
        shape: what it is made of.
        folder: its ``local_results`` folder.
        digest: what `inventory_digest` says of a bucket that holds the set and nothing else.
    """

    shape: SetShape
    folder: Path
    digest: str

    def files(self) -> Iterator[tuple[Path, str]]:
        """Every image, and the name of its object."""
        for run in self.runs():
            for path in sorted((run.folder / "generated_images").iterdir()):
                yield path, f"results/{path.relative_to(self.folder)}"

    def runs(self) -> Iterator[RunFolder]:
        """Every run, in the order of storing within its dataset."""
        for tracking in sorted(self.folder.glob(f"*/*/{TRACKING_FILE}")):
            for line in tracking.read_text().splitlines():
                record = json.loads(line)
                yield RunFolder(tracking.parent.name, tracking.parent / record["experiment_run_name"], record)

    def warm(self) -> None:
        """Read everything once, so that whoever reads next finds it in memory.

        Some programs, rclone among them, tell the kernel to drop what they have read; who comes after one of
        those would be measured with a disk that the others never touched.
        """
        for folder, _, names in os.walk(self.folder):
            for name in names:
                Path(folder, name).read_bytes()


def run_set(name: str, cache: Path, *, bucket: str) -> RunSet:
    """The set of this name, made unless `cache` holds it already.

    Args:
        name: one of `SHAPES`.
        cache: where sets are kept.
        bucket: where the set will be carried, for its digest.

    Raises:
        KeyError: there is no such set.
    """
    return made_set(SHAPES[name], cache, bucket=bucket)


def made_set(shape: SetShape, cache: Path, *, bucket: str) -> RunSet:
    """A set of this shape, made unless `cache` holds it already; see `run_set`."""
    place = cache / shape.name
    folder = place / _FOLDER
    done = place / _DONE_FILE
    document = {"shape": asdict(shape), "bucket": bucket}
    if done.exists():
        kept = json.loads(done.read_text())
        if kept["made_as"] == document:
            return RunSet(shape, folder, kept["digest"])
    shutil.rmtree(place, ignore_errors=True)
    folder.mkdir(parents=True)
    checksums = {f"{bucket}/{name}": crc32c for name, crc32c in _make(shape, folder)}
    digest = inventory_digest(checksums)
    done.write_text(json.dumps({"made_as": document, "digest": digest}))
    return RunSet(shape, folder, digest)


def _make(shape: SetShape, folder: Path) -> Iterator[tuple[str, int]]:
    """Write the runs; the names and checksums of their objects."""
    chance = random.Random(shape.name)  # noqa: S311 - a set is the same everywhere
    pictures = [noise_png(shape.image_bytes, chance) for _ in range(_PICTURES)]
    for number in range(shape.runs):
        dataset = shape.dataset_of(number)
        run = run_name(number)
        images = folder / PIXARIS_PROJECT / dataset / run / "generated_images"
        images.mkdir(parents=True)
        for index in range(shape.images_per_run):
            content = filled(pictures[(number + index) % _PICTURES], shape.image_bytes, chance)
            path = images / f"image_{index:03d}.png"
            path.write_bytes(content)
            yield f"results/{path.relative_to(folder)}", google_crc32c.value(content)
        finish_run(images.parent, number, chance)


def run_name(number: int) -> str:
    """The folder of the run that was stored as the `number`-th, one a minute."""
    minutes, days, months = number % 1440, number // 1440 % 28, number // 40320 % 12
    years = number // 483_840
    return f"{2024 + years}{months + 1:02d}{days + 1:02d}-{minutes // 60:02d}{minutes % 60:02d}00_run{number}"


def finish_run(run: Path, number: int, chance: random.Random) -> None:
    """Write what ``LocalExperimentHandler`` writes after the images: ``args.json`` and the tracking line."""
    record = {
        "timestamp": run.name[:15],
        "workflow_apiformat_json": "workflows/flux_dev.json",
        "seed": number,
        "max_parallel_jobs": 4,
        "guidance": round(chance.uniform(1, 9), 2),
        "prompt": "a red kettle on a wooden table, studio light",
        "clip_score": chance.random(),
        "aesthetic_score": chance.random() * 10,
        "experiment_run_name": run.name,
    }
    (run / "args.json").write_text(json.dumps(record))
    with (run.parent / TRACKING_FILE).open("a") as file:
        file.write(json.dumps(record) + "\n")


def noise_png(size_max: int, chance: random.Random) -> bytes:
    """A PNG of noise, really compressed, with room for a filling up to `size_max` bytes."""
    side = int((size_max / 2.3) ** 0.5)
    while True:
        pixels = chance.randbytes(side * side * 3).translate(_SIX_BITS)
        buffer = io.BytesIO()
        Image.frombytes("RGB", (side, side), pixels).save(buffer, "PNG", compress_level=6)
        if len(buffer.getvalue()) <= size_max - _CHUNK_OVERHEAD_BYTES - 16:
            return buffer.getvalue()
        side -= max(1, side // 50)


def filled(picture: bytes, size: int, chance: random.Random) -> bytes:
    """`picture` with a chunk of noise before its end, `size` bytes in all."""
    end = picture[-_CHUNK_OVERHEAD_BYTES:]
    noise = chance.randbytes(size - len(picture) - _CHUNK_OVERHEAD_BYTES)
    body = b"noIs" + noise
    chunk = len(noise).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return picture[:-_CHUNK_OVERHEAD_BYTES] + chunk + end
