"""Puts files of runs in their places, each run whole or not at all, and never over a file that is there.

They wait in a hidden folder of their dataset's folder, as runs that are stored do (`storing`), and get their
names when all of them are on the disk. Folders are reached as `safe_open` says: never through a link. What
was put in place of a run is taken back where the rest of it cannot be put there. Functions block.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.safe_open import MissingFileError, local_error, opened_folder, opened_run
from pixaris_sync.local.storing import (
    COMMIT,
    PREFIX,
    RUN,
    append,
    locked,
    make_hidden,
    remove_hidden,
    rename_run,
    sync_folder,
    write_file,
)
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.rules.contract import GENERATED_IMAGES
from pixaris_sync.text import printable

_LINK_HINT: Final = "put the folder itself there"
_WRITE_HINT: Final = "let the results folder be written, with room enough, then pull again"


@contextmanager
def writing(subject: str) -> Iterator[None]:
    """Translate what the disk says.

    Raises:
        LocalFileError: it refused.
    """
    try:
        yield
    except OSError as error:
        failed = local_error("write", subject, error)
        failed.hint = failed.hint or _WRITE_HINT
        raise failed from error


@contextmanager
def dataset_folder(root: Path, key: DatasetKey) -> Iterator[Path]:
    """A dataset's folder, which is made, by a path that leads to the opened folder itself.

    Folders that were made and are empty at the end are removed.

    Raises:
        LocalFileError: it is a link or no folder, or cannot be made.
    """
    with ExitStack() as made:
        for parts in ((), (key.project,)):
            name = (key.project, key.dataset)[len(parts)]
            above = made.enter_context(opened_folder(root, parts))
            with writing(str(key)), suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
                made.callback(_remove_empty, above, name)
        folder = made.enter_context(opened_folder(root, (key.project, key.dataset)))
        yield Path(f"/proc/self/fd/{folder}")


def _remove_empty(above: int, name: str) -> None:
    with suppress(OSError):
        os.rmdir(name, dir_fd=above)


@contextmanager
def waiting_room(folder: Path) -> Iterator[Path]:
    """A hidden folder in a dataset's folder, with one in it for the files of a run; it is removed at the end.

    Raises:
        OSError: the disk refused.
    """
    hidden, handle = make_hidden(folder, PREFIX)
    try:
        (hidden / RUN).mkdir()
        yield hidden / RUN
    finally:
        remove_hidden(hidden)
        os.close(handle)


def free_bytes(folder: Path) -> int:
    """How much may be written to the disk of a folder."""
    return shutil.disk_usage(folder).free


def store_run(folder: Path, tracking_file: str, run: RunKey, files: Path, lines: bytes) -> None:
    """Give the files of a run, which has no folder yet, its name, and append its lines, if any.

    Whoever finds the hidden folder of a process that was ended here, as the next one that stores or pulls a
    run does, ends what was begun.

    Raises:
        OSError: the disk refused, or the run has a folder by now; nothing of it is there.
    """
    *above, _ = run.run.split("/")
    for depth in range(len(above)):
        if (folder / "/".join(above[: depth + 1])).is_symlink():
            raise refused(
                run, "", "a part of its path is a symbolic link, which is never followed", _LINK_HINT
            )
    hidden = files.parent
    sync_folder(files)
    if not lines:
        rename_run(files, folder, run.run)
        return
    with locked(folder / tracking_file) as tracking:
        commit = {"name": run.run, "tracking_file": tracking_file, "line": lines.decode("ascii")}
        write_file(hidden / COMMIT, json.dumps(commit).encode("ascii"))
        sync_folder(hidden)
        rename_run(files, folder, run.run)
        try:
            append(tracking, lines, folder)
        except BaseException:
            with suppress(OSError):
                (folder / run.run).rename(files)
            raise


def complete_run(
    root: Path, folder: Path, tracking_file: str, run: RunKey, files: Mapping[str, Path], lines: bytes
) -> None:
    """Put files into the folder that a run has, by path, and append its lines, if any.

    Raises:
        OSError: the disk refused, or a file has come meanwhile; nothing of it is there.
        LocalFileError: its folder cannot be opened.
    """
    with ExitStack() as opened, ExitStack() as taken_back:
        run_folder = opened.enter_context(opened_run(root, run))
        images = run_folder
        if any("/" in path for path in files):
            try:
                images = opened.enter_context(opened_run(root, run, (GENERATED_IMAGES,)))
            except MissingFileError:
                os.mkdir(GENERATED_IMAGES, dir_fd=run_folder)
                images = opened.enter_context(opened_run(root, run, (GENERATED_IMAGES,)))
        for path, file in files.items():
            place = images if "/" in path else run_folder
            name = path.rpartition("/")[2]
            _put(file, place, name)
            taken_back.callback(_take_back, place, name)
        for place in {images, run_folder}:
            os.fsync(place)
        if lines:
            with locked(folder / tracking_file) as tracking:
                append(tracking, lines, folder)
        taken_back.pop_all()


def is_there(root: Path, run: RunKey) -> bool:
    """Whether a run has a folder.

    Raises:
        LocalFileError: what has its name is none, or cannot be opened.
    """
    try:
        with opened_run(root, run):
            return True
    except MissingFileError:
        return False


def _put(file: Path, folder: int, name: str) -> None:
    """Give a file a name in an open folder, where nothing has it."""
    try:
        os.link(file, name, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        with suppress(FileNotFoundError):
            os.lstat(name, dir_fd=folder)
            raise FileExistsError(name) from None
        os.rename(file, name, dst_dir_fd=folder)


def _take_back(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def refused(run: RunKey, path: str, cause: str, hint: str) -> LocalFileError:
    """An error about a file of a run that cannot be put in its place."""
    return LocalFileError("write", printable(f"{run}/{path}".rstrip("/")), cause, hint=hint)
