"""A results folder that means harm, and what stands outside of it and must never be read.

What is forbidden to read holds *canaries*: numbers that stand nowhere else, in contents and in names.
Whatever is wrong with a folder, its `sound` runs must arrive, and no canary may.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.engine.local_folder import png

TRACKING_FILE: Final = "experiment_tracking.jsonl"
IMAGES: Final = "generated_images"


class HostileFolder:
    """A ``local_results`` folder in `folder`, beside what is forbidden to read.

    Attributes:
        random: where all chance comes from.
        root: the results folder.
        outside: what stands beside it: files, and a whole results folder.
        canaries: what stands in forbidden places only.
        forbidden: files and folders below `root` that nobody may open.
        sound: runs with which nothing is wrong, as paths of the names that their records have.
        too_deep: folders of datasets that cannot be carried for the slash in their names.
        metrics: every dict that a record holds, as JSON text; they become objects without local files.
        mutated: datasets whose records may hold other dicts than those in `metrics`.
    """

    def __init__(self, folder: Path, random: Random) -> None:
        self.random = random
        self.root = folder / "local_results"
        self.outside = folder / "outside"
        self.canaries: list[str] = []
        self.forbidden: list[Path] = []
        self.sound: list[Path] = []
        self.too_deep: list[Path] = []
        self.metrics: set[str] = set()
        self.mutated: set[Path] = set()
        self._numbers = 0
        self._locked: list[tuple[Path, int]] = []
        self.root.mkdir(exist_ok=True)
        self.outside.mkdir()
        self._lay_canaries()
        for _ in range(2):
            self.sound_run(self.root / "calm" / "plain")

    # What is forbidden.

    def canary(self) -> str:
        """A number that stands nowhere else; new each time."""
        self.canaries.append(str(10**39 + self.random.getrandbits(120)))
        return self.canaries[-1]

    def canary_image(self) -> bytes:
        return png(int(self.canary()))

    def lay_run(self, path: Path) -> None:
        """A whole run that is forbidden to read, and the tracking line that names it."""
        for image in ("canary.png", f"{self.canary()}.png"):
            write(path / IMAGES / image, self.canary_image())
        write(path / "pose.png", self.canary_image())
        write(path / "pose.json", json.dumps({"canary": self.canary()}).encode())
        record = {"timestamp": path.name[:15], "experiment_run_name": path.name, "canary": self.canary()}
        write(path / "args.json", json.dumps(record).encode())
        with (path.parent / TRACKING_FILE).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _lay_canaries(self) -> None:
        self.lay_run(self.outside / "project" / "dataset" / self.run_name())
        for name, content in (("secret.png", self.canary_image()), ("secret.json", b'{"a": %d}')):
            write(self.outside / name, content.replace(b"%d", self.canary().encode()))
        for below in (("calm", "feedback_iterations"), (".hidden", "dataset"), ("calm", ".hidden")):
            dataset = self.root.joinpath(*below)
            self.lay_run(dataset / self.run_name())
            self.forbidden.append(dataset)

    # What is allowed.

    def number(self) -> int:
        """Another one each time."""
        self._numbers += 1
        return self._numbers

    def run_name(self, name: str = "run") -> str:
        number = self.number()
        return f"20250101-{number // 3600:02}{number // 60 % 60:02}{number % 60:02}_{name}"

    def dataset(self) -> Path:
        """A dataset of its own for one kind of harm; its first run is sound."""
        dataset = self.root / "hostile" / f"hostile{self.number()}"
        self.sound_run(dataset)
        return dataset

    def sound_run(self, dataset: Path) -> Path:
        run = self.run(dataset)
        self.track(run, {"score": self.number() / 7})
        self.sound.append(run)
        return run

    def run(self, dataset: Path, name: str | None = None, *, images: int = 1) -> Path:
        """A run's folder with images and without a tracking line."""
        run = dataset / (self.run_name() if name is None else name)
        (run / IMAGES).mkdir(parents=True)
        for number in range(images):
            write(run / IMAGES / f"{number}.png", png(self.number()))
        return run

    def record(self, run: Path, values: Mapping[str, Any]) -> dict[str, Any]:
        return self.record_of(run.name, values)

    def record_of(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a run by its name, which may have slashes."""
        record = {"timestamp": name[:15], "experiment_run_name": name, **values}
        self.metrics.update(json.dumps(value) for value in record.values() if isinstance(value, dict))
        return record

    def track(self, run: Path, values: Mapping[str, Any], *, end: bytes = b"\n") -> bytes:
        """Write a run's ``args.json`` and its tracking line; the line."""
        line = json.dumps(self.record(run, values)).encode()
        write(run / "args.json", line)
        self.append(run.parent, line + end)
        return line

    def append(self, dataset: Path, data: bytes) -> None:
        with (dataset / TRACKING_FILE).open("ab") as file:
            file.write(data)

    def lock(self, path: Path) -> None:
        """Take all permissions away. `unlock` gives them back, for whoever cleans up."""
        self._locked.append((path, path.stat().st_mode))
        path.chmod(0)

    def unlock(self) -> None:
        for path, mode in self._locked:
            path.chmod(mode)

    def forbidden_paths(self) -> list[Path]:
        """Every file and folder that nobody may open; links are no places of their own."""
        found = []
        for top in (self.outside, *self.forbidden):
            for folder, _, files in os.walk(top):
                found.append(Path(folder))
                found += [path for name in files if not (path := Path(folder) / name).is_symlink()]
        return found


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def mirrored(hostile: HostileFolder, original: Path) -> Path:
    """A copy outside, names, sizes and times alike, with canaries in the place of contents."""
    copy = hostile.outside / f"mirror{hostile.number()}" / original.name
    copy.parent.mkdir()
    if original.is_dir():
        shutil.copytree(original, copy)
    else:
        shutil.copy2(original, copy)
    files = [copy] if copy.is_file() else [path for path in copy.rglob("*") if path.is_file()]
    for file in files:
        status, content = file.stat(), hostile.canary_image()
        if file.suffix != ".png":
            content = json.dumps({"canary": hostile.canary()}).encode() + b"\n"
        file.write_bytes(content.ljust(status.st_size, b" "))
        os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return copy
