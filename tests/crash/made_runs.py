"""Runs that are made from a text, so that whoever finds one later knows what it must be."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.stored_runs import picture

#: What a run's record has that tells which run it is: names say little, as several runs have the same.
MARKER = "marker"
#: Runs of Pixaris' own handler. It overwrites an image whose name is another's up to the first point.
PIXARIS = "pixaris"
_NAMES = ("run", "epoch")
_SIZES = ((8, 6), (8, 6), (220, 160))
_MASK, _FLOW = "mask", "flow"


@dataclass(frozen=True, slots=True)
class MadeRun:
    """What is given to ``store_results``.

    Attributes:
        name: the run's; others have the same.
        images: by name.
        metrics: numbers.
        args: with its marker, and at times an image and a dict.
    """

    name: str
    images: Mapping[str, Image.Image]
    metrics: Mapping[str, Any]
    args: Mapping[str, Any]

    @property
    def files(self) -> set[str]:
        """What must stand in its folder, beside ``args.json``; its images keep their names."""
        saved = {_MASK: f"{_MASK}.png", _FLOW: f"{_FLOW}.json"}
        return {f"generated_images/{name}" for name in self.images} | {
            file for key, file in saved.items() if key in self.args
        }

    def fault_of(self, read: Mapping[str, Path]) -> str:
        """What is wrong with its files, by their paths in the run; nothing where they are whole and right."""
        if read.keys() != self.files:
            return f"its files are {sorted(read)} instead of {sorted(self.files)}"
        for file, path in read.items():
            key = Path(file).stem
            if file.endswith(".json"):
                if json.loads(path.read_bytes()) != self.args[key]:
                    return f"{file} is {path.read_bytes()!r}"
                continue
            expected = self.images[Path(file).name] if "/" in file else self.args[key]
            try:
                with Image.open(path) as image:
                    found = image.mode, image.size, image.tobytes()
            except (OSError, SyntaxError) as error:
                return f"{file} is no image: {error}"
            if found != (expected.mode, expected.size, expected.tobytes()):
                return f"{file} has other pixels"
        return ""


def made_run(marker: str) -> MadeRun:
    """The run of a marker, the same whenever it is asked for."""
    chance = random.Random(marker)  # noqa: S311 - tests need no secrecy
    names = ["0.png", "1.png"][: chance.randint(1, 2)]
    if not marker.startswith(PIXARIS) and chance.random() < 0.5:
        names += ["shot.a.png", "shot.b.png"]
    size = chance.choice(_SIZES)
    images = {name: Image.frombytes("RGB", size, chance.randbytes(size[0] * size[1] * 3)) for name in names}
    args: dict[str, Any] = {MARKER: marker, "seed": chance.getrandbits(40)}
    if chance.random() < 0.3:
        args[_MASK] = picture(chance.randrange(256))
    if chance.random() < 0.3:
        args[_FLOW] = {"steps": chance.randint(1, 50), "name": marker}
    name = chance.choice(_NAMES)
    # In its second, Pixaris' own handler would put a run into the folder of another one.
    name = f"{name}-{marker}" if marker.startswith(PIXARIS) else name
    return MadeRun(name, images, {"score": chance.random()}, args)
