"""What a call of ``store_results`` says: the run's images, its saved arguments, and its record.

Values become what JSON can hold, and what GCPExperimentHandler would make of them in the end: numbers of
NumPy are numbers, what has no place in JSON is its text. An image or a dict among the arguments is saved as a
file of its own. Nothing of the caller's is kept but the images, and nothing is changed.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any, Final

from msgspec import Struct, field
from PIL import Image

from pixaris_sync.errors import SyncError
from pixaris_sync.model import JsonValue
from pixaris_sync.rules.contract import (
    ARGS_FILE,
    IMAGE_SUFFIXES,
    NESTING_LEVELS_MAX,
    RUN_NAME_KEY,
)
from pixaris_sync.text import is_utf8

#: The longest name of a file (NAME_MAX of Linux), in bytes.
FILE_NAME_BYTES_MAX: Final = 255
#: The argument that holds images in a list, each with the name of the node that takes it.
PILLOW_IMAGES: Final = "pillow_images"
_NODE, _PICTURE = "node_name", "pillow_image"
#: What GCPExperimentHandler puts before the names of images that were an input.
_INPUT: Final = "z_"
_TIMESTAMP: Final = "timestamp"
#: The record around a value is a level, too.
_DEPTH_MAX: Final = NESTING_LEVELS_MAX - 1
#: What separates folders, ends a string of the system's, or is in no object's name.
_UNUSABLE: Final = re.compile("[/\0\r\n]")


class SavedFile(Struct, frozen=True):
    """Stands in a record for the path of a file in the run's folder, which is not known yet."""

    name: str


class NewRun(Struct, frozen=True):
    """A run that is to be stored.

    Attributes:
        images: what goes to ``generated_images``, by the name of the file.
        arguments: images and JSON texts that go to the run's folder, by the name of the file.
        values: the record, without the run's time and name.
    """

    images: Mapping[str, Image.Image]
    arguments: Mapping[str, Image.Image | str]
    values: Mapping[str, JsonValue | SavedFile]

    def record(self, folder: str, name: str, timestamp: str) -> dict[str, JsonValue]:
        """The record of the run, once its place is known.

        Args:
            folder: the run's folder, as the paths of saved arguments begin with it.
            name: the run's name, with which Pixaris finds it.
            timestamp: when it was stored, as ``YYYYmmdd-HHMMSS``; an argument of this name goes before it.
        """
        found = {
            key: os.path.join(folder, value.name) if isinstance(value, SavedFile) else value
            for key, value in self.values.items()
        }
        return {_TIMESTAMP: timestamp, **found, RUN_NAME_KEY: name}

    def detached(self) -> "NewRun":
        """The same with copies of all images: whatever the caller does to its own, this stays."""
        arguments = {
            name: value.copy() if isinstance(value, Image.Image) else value
            for name, value in self.arguments.items()
        }
        images = {name: image.copy() for name, image in self.images.items()}
        return NewRun(images, arguments, self.values)

    @property
    def image_bytes(self) -> int:
        """How much memory its images take, about."""
        images = [*self.images.values()]
        images += [value for value in self.arguments.values() if isinstance(value, Image.Image)]
        return sum(image.width * image.height * _pixel_bytes(image.mode) for image in images)


class _Reader(Struct):
    """Reads arguments and metrics, and collects what becomes a file."""

    inputs: list[tuple[str, Image.Image]] = field(default_factory=list)
    arguments: dict[str, Image.Image | str] = field(default_factory=dict)
    values: dict[str, JsonValue | SavedFile] = field(default_factory=dict)

    def take_argument(self, key: str, value: object) -> None:
        """An image or a dict is saved. `PILLOW_IMAGES` are images, and have no place in a record."""
        if key == PILLOW_IMAGES and (inputs := _pillow_images(value)) is not None:
            self.inputs += inputs
        elif isinstance(value, Mapping) and _is_usable(f"{key}.json"):
            self._save(key, f"{key}.json", json.dumps(self._plain(value, key)))
        else:
            self.take_metric(key, value)

    def take_metric(self, key: str, value: object) -> None:
        """A dict among metrics stands in the record itself."""
        if isinstance(value, Image.Image) and _is_usable(f"{key}.png"):
            self._save(key, f"{key}.png", value)
        else:
            self._set(key, self._plain(value, key))

    def _save(self, key: str, file_name: str, content: Image.Image | str) -> None:
        self._set(key, SavedFile(file_name))
        self.arguments[file_name] = content

    def _set(self, key: str, value: JsonValue | SavedFile) -> None:
        """A metric goes before an argument of the same name, and stands in its place."""
        before = self.values.get(key)
        if isinstance(before, SavedFile):
            del self.arguments[before.name]
        self.values[key] = value

    def _plain(self, value: Any, place: str, depth: int = 0) -> JsonValue:  # noqa: ANN401, PLR0911 - any value
        """What JSON can hold of a value that stands at `place`; an image in it goes to the generated ones."""
        if depth >= _DEPTH_MAX:
            raise SyncError(
                "store argument",
                place.partition(".")[0],
                f"it is nested more than {_DEPTH_MAX} levels deep",
                hint="give it as a text, or without what refers to itself",
            )
        match value:
            case None | bool():
                return value
            case str():
                return str.__str__(value)
            case int():
                return _printable(int(value))
            case float():
                return float(value)
            case Image.Image():
                self.inputs.append((f"{_INPUT}{place}.png", value))
                return self.inputs[-1][0]
            case Mapping():
                keys = {_key(key): one for key, one in value.items()}
                return {key: self._plain(one, f"{place}.{key}", depth + 1) for key, one in keys.items()}
            case list() | tuple():
                return [self._plain(one, f"{place}.{at}", depth + 1) for at, one in enumerate(value)]
        plain = _listed(value)
        return str(value) if plain is value else self._plain(plain, place, depth + 1)


def new_run(
    images: Iterable[tuple[Image.Image, str]],
    metric_values: Mapping[Any, Any],
    args: Mapping[Any, Any],
    *,
    named: Callable[[Sequence[str]], list[str]],
) -> NewRun:
    """Read what a call of ``store_results`` was given.

    Args:
        images: pictures, each with its name.
        metric_values: metrics by name.
        args: arguments by name.
        named: the names of files for those of images, as `local_names` and `cloud_names` give them.

    Raises:
        SyncError: a value is nested too deeply, or refers to itself.
    """
    reader = _Reader()
    for key, value in args.items():
        reader.take_argument(_key(key), value)
    for key, value in metric_values.items():
        reader.take_metric(_key(key), value)
    pairs = [(str(name), image) for image, name in images] + reader.inputs
    files = named([name for name, _ in pairs])
    pictures = {file: image for file, (_, image) in zip(files, pairs, strict=True)}
    return NewRun(pictures, reader.arguments, reader.values)


def local_names(names: Sequence[str]) -> list[str]:
    """The files that LocalExperimentHandler gives images: their names up to the first point, as PNG.

    Where that would be one file for several images, each has its whole name, which Pixaris lists by the
    small letters of its suffix alone.
    """
    visible = [_visible(name) for name in names]
    short = [f"{name.partition('.')[0]}.png" for name in visible]
    images_of = Counter(short)
    return _distinct(
        [
            file if images_of[file] == 1 else f"{name.removesuffix('.png')}.png"
            for file, name in zip(short, visible, strict=True)
        ]
    )


def cloud_names(names: Sequence[str]) -> list[str]:
    """The files that GCPExperimentHandler gives images: their names, whose suffix says the format.

    A name without a suffix that Pixaris lists gets one.
    """
    visible = map(_visible, names)
    return _distinct([n if n.lower().endswith(IMAGE_SUFFIXES) else f"{n}.png" for n in visible])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names cut to what a file can have, each that stood before with a number."""
    found: dict[str, None] = {}
    for name in names:
        stem, _, suffix = name.rpartition(".")
        endings = chain([f".{suffix}"], (f"_{number}.{suffix}" for number in count(2)))
        found[next(file for file in (_cut(stem, ending) for ending in endings) if file not in found)] = None
    return list(found)


def _cut(stem: str, ending: str) -> str:
    return cut(stem, FILE_NAME_BYTES_MAX - len(ending.encode())) + ending


def cut(name: str, bytes_max: int) -> str:
    """The beginning of a name that has so many bytes at most."""
    return name.encode()[:bytes_max].decode(errors="ignore")


def _visible(name: str) -> str:
    """A tame name, with a mark before it where the file would be hidden: that is not carried to the cloud."""
    tamed = tame(name)
    return tamed if tamed and not tamed.startswith(".") else f"_{tamed}"


def tame(name: str) -> str:
    """A name without what no file or object can have in its own."""
    return _UNUSABLE.sub("_", name.encode(errors="replace").decode())


def _is_usable(file_name: str) -> bool:
    """Whether a saved argument can be called so: a reader knows it by its name."""
    if _UNUSABLE.search(file_name) or "\\" in file_name or file_name == ARGS_FILE:
        return False
    return is_utf8(file_name) and len(file_name.encode()) <= FILE_NAME_BYTES_MAX


def _pillow_images(value: object) -> list[tuple[str, Image.Image]] | None:
    """The images that GCPExperimentHandler takes out of `PILLOW_IMAGES`; None where there are none in it."""
    if not isinstance(value, list | tuple) or not value:
        return None
    inputs = []
    for item in value:
        image = item.get(_PICTURE) if isinstance(item, Mapping) else None
        if not isinstance(image, Image.Image) or _NODE not in item:
            return None
        inputs.append((f"{_INPUT}{item[_NODE]}".replace(" ", "_") + ".png", image))
    return inputs


def _key(key: object) -> str:
    """A key as JSON has it."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(_printable(int(key)))
    if key is None or isinstance(key, bool | float):
        return json.dumps(key)
    return str(key)


def _listed(value: Any) -> Any:  # noqa: ANN401 - any value
    """What a number or an array of NumPy, a tensor or a series is in Python; any other value as it is.

    A number wider than Python's has none to give, and a class, as a dtype is given, nothing to list.
    """
    tolist = None if isinstance(value, type) else getattr(value, "tolist", None)
    plain = tolist() if callable(tolist) else value
    return value if type(plain) is type(value) else plain


def _printable(number: int) -> int | str:
    """A number, or its digits to the base of 16 where Python refuses to print so many to that of 10."""
    try:
        str(number)
    except ValueError:
        return hex(number)
    return number


def _pixel_bytes(mode: str) -> int:
    """How many bytes of memory Pillow takes for a pixel, about: it keeps three and four channels in four."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4
