"""Writes a results folder as LocalExperimentHandler does, fast, and remembers what must become of it.

The order is Pixaris' own: images, args saved as files, ``args.json``, then the tracking line. Images are tiny
whole PNGs made by hand. All times on disk are the virtual clock's, so that ages are, too.

What it remembers is the model that `invariants` holds the cloud against: each version that each object may
hold, and each record that must become one row.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import astuple

from pixaris_sync.model import RunKey
from tests.fakes.virtual_clock import VirtualClock

TRACKING_FILE = "experiment_tracking.jsonl"
#: A key whose value no other record has.
MARKER = "marker"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_HEADER = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
_PIXEL = _chunk(b"IDAT", zlib.compress(b"\0\x80"))
_END = _chunk(b"IEND", b"")


def png(number: int, size: int = 0) -> bytes:
    """A whole PNG of one pixel that no other number makes; `size` adds so many bytes."""
    text = b"n\0" + str(number).encode()
    padding = _chunk(b"paDd", b"x" * size) if size else b""
    return _HEADER + _chunk(b"tEXt", text) + padding + _PIXEL + _END


@dataclass(eq=False)
class StoredRun:
    """A run and what must be in the bucket for it.

    Attributes:
        key: which.
        versions: by path, each whole content that stood there, in order; empty: none was whole yet.
        pruned: its folder was deleted, as somebody does who knows that it is synced.
    """

    key: RunKey
    versions: dict[str, list[bytes]] = field(default_factory=dict)
    pruned: bool = False

    def object_name(self, path: str) -> str:
        return f"results/{self.key.project}/{self.key.dataset}/{self.key.run}/{path}"

    @property
    def table(self) -> str:
        return f"{self.key.project}_{self.key.dataset}_experiment_results"


@dataclass(frozen=True)
class StoredRecord:
    """A tracking line that was written whole."""

    run: StoredRun
    marker: int
    values: Mapping[str, Any]


class LocalFolder:
    """A ``local_results`` folder.

    Attributes:
        root: the folder.
        runs: every run stored so far.
        records: every line written whole so far, oldest first.
        named_before_seconds: how long ago the time in new runs' names is: long for what is copied in.
    """

    def __init__(self, root: Path, clock: VirtualClock) -> None:
        root.mkdir()
        self.root = root
        self.runs: list[StoredRun] = []
        self.records: list[StoredRecord] = []
        self.named_before_seconds = 0.0
        self._by_key: dict[RunKey, StoredRun] = {}
        self._clock = clock
        self._numbers = 0
        self._tick = 0

    def store(
        self,
        project: str = "p",
        dataset: str = "d",
        name: str = "run",
        *,
        images: int = 2,
        image_bytes: int = 0,
        saved: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
        commit: bool = True,
    ) -> StoredRun:
        """Store a run.

        Args:
            project: of the run.
            dataset: of the run.
            name: what follows the clock's time in the run's name.
            images: how many images it has.
            image_bytes: how much larger than a tiny one each image is.
            saved: names of args to save as files, ``<key>.png`` or ``<key>.json``.
            values: what its record says besides; dicts are metrics.
            commit: whether to append the tracking line.
        """
        run = self.folder(project, dataset, name)
        for index in range(images):
            self.put_image(run, f"generated_images/image{index}.png", size=image_bytes)
        for path in saved:
            content = (
                png(self._number()) if path.endswith(".png") else json.dumps({"n": self._number()}).encode()
            )
            self.put(run, path, content)
        if commit:
            self.commit(run, values, saved=saved)
        return run

    def folder(self, project: str, dataset: str, name: str) -> StoredRun:
        """Make a run's folder, or take the one that is there."""
        run = self.name_run(project, dataset, name)
        if not self.path(run, "generated_images").exists():
            self.path(run, "generated_images").mkdir(parents=True)
            for path in ("generated_images", ""):
                self._stamp(self.path(run, path))
        return run

    def name_run(self, project: str, dataset: str, name: str) -> StoredRun:
        """A run by that name, without a folder yet, or the one that is there."""
        key = RunKey(project, dataset, f"{self.timestamp()}_{name}")
        return self.find(key) or self._add(key)

    def forget_folder(self, run: StoredRun) -> None:
        """Remove what is there of a run's folder."""
        shutil.rmtree(self.path(run, ""))

    def announce(self, project: str, dataset: str, name: str, *, images: int) -> StoredRun:
        """A run of yesterday that is copied in as rsync does it: its line is there, its images come later."""
        yesterday = datetime.fromtimestamp(self._clock.now() - 86400.0, UTC).strftime("%Y%m%d-%H%M%S")
        run = self._add(RunKey(project, dataset, f"{yesterday}_{name}"))
        run.versions = {f"generated_images/image{index}.png": [] for index in range(images)}
        self.commit(run)
        return run

    def rename_dataset(self, project: str, dataset: str, other: str) -> None:
        """Rename a dataset's folder; what its records say of it stays."""
        (self.root / project / dataset).rename(self.root / project / other)
        for run in self.runs:
            if (run.key.project, run.key.dataset) == (project, dataset):
                del self._by_key[run.key]
                run.key = RunKey(project, other, run.key.run)
                self._by_key[run.key] = run

    def find(self, key: RunKey) -> StoredRun | None:
        """The run of that key, if there is one."""
        return self._by_key.get(key)

    def _add(self, key: RunKey) -> StoredRun:
        run = self._by_key[key] = StoredRun(key)
        self.runs.append(run)
        return run

    def timestamp(self) -> str:
        """The time as Pixaris writes it."""
        named_at = self._clock.now() - self.named_before_seconds
        return datetime.fromtimestamp(named_at, UTC).strftime("%Y%m%d-%H%M%S")

    def put_image(self, run: StoredRun, path: str, *, size: int = 0) -> None:
        """Write or replace an image by a new one."""
        self.put(run, path, png(self._number(), size))

    def put_damaged_image(self, run: StoredRun, path: str) -> None:
        """Write an image that is cut short."""
        self._write(self.path(run, path), png(self._number())[:-9])
        run.versions.setdefault(path, [])

    def put(self, run: StoredRun, path: str, content: bytes) -> None:
        """Write or replace a file of a run."""
        self._write(self.path(run, path), content)
        run.versions.setdefault(path, []).append(content)

    def commit(
        self,
        run: StoredRun,
        values: Mapping[str, Any] | None = None,
        *,
        saved: Sequence[str] = (),
        torn_bytes: int | None = None,
    ) -> StoredRecord:
        """Write ``args.json`` and append the tracking line; `torn_bytes`: only so much of it.

        What a torn line is missing is appended by `mend_line`.
        """
        marker = self._number()
        record: dict[str, Any] = {"timestamp": run.key.run[:15], "experiment_run_name": run.key.run}
        for path in saved:
            # As the training process saw it, which ran beside the results folder.
            record[path.rpartition(".")[0]] = "/".join([self.root.name, *astuple(run.key), path])
        record |= {MARKER: marker, **(values or {})}
        stored = StoredRecord(run, marker, record)
        text = json.dumps(record).encode()
        self._write(self.path(run, "args.json"), text)
        for key, value in record.items():
            if isinstance(value, dict):
                run.versions.setdefault(f"{key}.json", []).append(json.dumps(value).encode())
        line = text + b"\n"
        self.append(run, line if torn_bytes is None else line[:torn_bytes])
        if torn_bytes is None:
            self.records.append(stored)
        return stored

    def mend_line(self, stored: StoredRecord, torn_bytes: int) -> None:
        """Write the rest of a torn line."""
        line = json.dumps(stored.values).encode() + b"\n"
        self.append(stored.run, line[torn_bytes:])
        self.records.append(stored)

    def repeat_line(self, stored: StoredRecord, run: StoredRun | None = None) -> None:
        """Append an equal line; for another `run` of that name, in another dataset, it is another record."""
        self.append(run or stored.run, json.dumps(stored.values).encode() + b"\n")
        if run is not None:
            self.records.append(StoredRecord(run, stored.marker, stored.values))

    def copy(self, record: StoredRecord, project: str, dataset: str) -> StoredRecord | None:
        """Copy a run into another dataset with its line; None where one of its name is there already."""
        key = RunKey(project, dataset, record.run.key.run)
        if self.find(key):
            return None
        run = self._add(key)
        for path, versions in record.run.versions.items():
            if path.startswith("generated_images/"):
                self.put(run, path, versions[-1])
            elif isinstance(record.values.get(path.removesuffix(".json")), dict):
                run.versions[path] = [versions[-1]]
        self._write(self.path(run, "args.json"), json.dumps(record.values).encode())
        self.repeat_line(record, run)
        return self.records[-1]

    def prune(self, run: StoredRun) -> None:
        """Delete a run's folder; its line stays."""
        shutil.rmtree(self.path(run, ""))
        self._stamp(self.path(run, "").parent)
        run.pruned = True

    def append(self, run: StoredRun, data: bytes) -> None:
        """Append bytes to the tracking file of a run's dataset."""
        path = self.tracking_file(run)
        with path.open("ab") as file:
            file.write(data)
        self._stamp(path)

    def tracking_file(self, run: StoredRun) -> Path:
        return self.root / run.key.project / run.key.dataset / TRACKING_FILE

    def path(self, run: StoredRun, path: str) -> Path:
        return self.root / run.key.project / run.key.dataset / run.key.run / path

    def _write(self, path: Path, content: bytes) -> None:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            self._stamp(path.parent.parent)
        path.write_bytes(content)
        self._stamp(path)
        self._stamp(path.parent)

    def _stamp(self, path: Path) -> None:
        self._tick += 1
        # No two stamps are equal, so that no change goes unseen because it came in the same instant.
        stamp = int(self._clock.now()) * 1_000_000_000 + self._tick
        os.utime(path, ns=(stamp, stamp))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers
