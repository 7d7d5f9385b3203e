"""Whether a folder is one or two levels off: a parent of the results folder, a project, a dataset or a run.

A results folder is told by what `LocalExperimentHandler` leaves two levels below it: a tracking file, or
folders with the names of runs. Where one stands there, the folder is right, whatever else is in it; where
none stands anywhere, nothing can be said. Names with a slash make datasets that stand deeper. So a folder is
taken for a parent of the results folder only where the one below is called so, or other things lie beside it.

Blocking; it looks at no more than `LOOKS_LIMIT` folders, and at some in a right one. Links are not followed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from pixaris_sync.rules.contract import ARGS_FILE, FEEDBACK_FOLDER, GENERATED_IMAGES, STAMPED

LOOKS_LIMIT: Final = 2_000
#: A dataset stands so many levels below the results folder.
_DATASET_DEPTH: Final = 2
#: How far above the results folder it is still looked for.
_LEVELS_ABOVE: Final = 2
_RESULTS: Final = "results"


#: Unlike methods of Path they raise nothing where a folder may not be entered: whoever works in it tells.
_is_folder: Final = os.path.isdir
_is_file: Final = os.path.isfile


class Misplaced(NamedTuple):
    """What a folder is instead of a results folder, and which is the right one."""

    cause: str
    right: Path


class _Looks(Struct):
    """What is left of `LOOKS_LIMIT`."""

    left: int = LOOKS_LIMIT


def misplaced(root: Path, tracking_file: str) -> Misplaced | None:
    """What a folder is instead of a results folder; None: it is one, or nothing can be said."""
    looks = _Looks()
    if any(_dataset_folders(root, tracking_file, _DATASET_DEPTH, looks)) or _holds_feedback(root, looks):
        return None
    if _is_dataset(root, tracking_file, looks):
        return Misplaced("it is the folder of one dataset", root.parent.parent)
    if _is_folder(root / GENERATED_IMAGES) and _is_file(root / ARGS_FILE):
        return Misplaced("it is the folder of one run", root.parent.parent.parent)
    if any(_dataset_folders(root, tracking_file, 1, looks)):
        return Misplaced("it is the folder of one project", root.parent)
    for levels in range(1, _LEVELS_ABOVE + 1):
        found = next(_dataset_folders(root, tracking_file, _DATASET_DEPTH + levels, looks), None)
        if found is not None and _lies_in(root, found.parent.parent):
            return Misplaced("the results folder lies in it", found.parent.parent)
    return None


def _holds_feedback(root: Path, looks: _Looks) -> bool:
    """Whether a folder in it is one of a project with feedback."""
    return any(_is_folder(root / project / FEEDBACK_FOLDER) for project in _folders(root, looks))


def _lies_in(root: Path, right: Path) -> bool:
    """Whether a folder is a parent of another one, and that one no project with a slash in its name."""
    if _RESULTS in right.name.lower():
        return True
    return any(len(_visible(folder)) > 1 for folder in right.parents if folder.is_relative_to(root))


def _dataset_folders(folder: Path, tracking_file: str, depth: int, looks: _Looks) -> Iterator[Path]:
    """The datasets' folders that stand exactly so many levels below a folder."""
    for name in _folders(folder, looks):
        below = folder / name
        if depth > 1:
            yield from _dataset_folders(below, tracking_file, depth - 1, looks)
        elif name != FEEDBACK_FOLDER and _is_dataset(below, tracking_file, looks):
            yield below


def _is_dataset(folder: Path, tracking_file: str, looks: _Looks) -> bool:
    if os.path.lexists(folder / tracking_file):
        return True
    return any(STAMPED.match(name) for name in _folders(folder, looks))


def _folders(folder: Path, looks: _Looks) -> list[str]:
    """The names of the visible folders in a folder; none where it cannot be listed."""
    if looks.left <= 0:
        return []
    looks.left -= 1
    return visible_folders(folder)


def visible_folders(folder: Path) -> list[str]:
    """The sorted names of the folders in a folder that are not hidden; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _visible(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
