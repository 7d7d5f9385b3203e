"""Removes files of runs, each only as the file that was proven: the one place that removes anything.

What was read through an open handle is known by its size, its times, its inode and its checksum. Right before
it is removed it is looked at again, relative to the opened folder that holds it, and a file that was written,
replaced or touched since stays. No link is followed, no folder removed. Functions block.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.contents import extend_crc32c
from pixaris_sync.local.safe_open import (
    MissingFileError,
    changed_ns_of,
    local_error,
    opened_file,
    opened_run,
    spelling,
    version_of,
)
from pixaris_sync.model import FileVersion, RunKey
from pixaris_sync.text import printable

_READ_BYTES: Final = 1024 * 1024
_CHANGED: Final = "it has changed since it was compared with the bucket"
_CHANGED_HINT: Final = "`pixaris-sync sync` carries what is new; then prune again"


class ReadFile(NamedTuple):
    """A file as it was read: its path in the run's folder, what it looked like, and its crc32c."""

    path: str
    version: FileVersion
    changed_ns: int
    crc32c: int


def read_files(
    root: Path, run: RunKey, paths: Sequence[str], *, throttle: Callable[[], None] = lambda: None
) -> list[ReadFile]:
    """Read files of a run, and tell what they are; those that do not exist are left out.

    Args:
        root: the results folder.
        run: whose files.
        paths: relative to its folder, with slashes.
        throttle: called between pieces.

    Raises:
        LocalFileError: one is a link, no regular file, cannot be read, or changed while it was read.
    """
    found = []
    for path in paths:
        *folders, name = path.split("/")
        subject = f"{run}/{path}"
        try:
            with (
                opened_run(root, run, folders) as folder,
                opened_file(folder, name, subject=subject) as (handle, before),
            ):
                crc32c = 0
                try:
                    while piece := os.read(handle, _READ_BYTES):
                        crc32c = extend_crc32c(crc32c, piece)
                        throttle()
                except OSError as error:
                    raise local_error("read", subject, error) from error
                read = ReadFile(path, version_of(before), changed_ns_of(before), crc32c)
                _check_same(os.fstat(handle), read, subject)
        except MissingFileError:
            continue
        found.append(read)
    return found


def check_unchanged(root: Path, run: RunKey, files: Sequence[ReadFile]) -> None:
    """Make sure that files of a run are still the ones that were read; those that are gone are left out.

    Raises:
        LocalFileError: one is another one.
    """
    for read in files:
        *folders, name = read.path.split("/")
        subject = f"{run}/{read.path}"
        with suppress(MissingFileError), opened_run(root, run, folders) as folder:
            try:
                status = os.lstat(spelling(folder, name), dir_fd=folder)
            except OSError as error:
                raise local_error("remove", subject, error) from error
            _check_same(status, read, subject)


def remove(root: Path, run: RunKey, read: ReadFile) -> bool:
    """Remove a file of a run, if it is still the one that was read.

    Returns:
        Whether it was there.

    Raises:
        LocalFileError: it is another one, or cannot be removed.
    """
    *folders, name = read.path.split("/")
    subject = f"{run}/{read.path}"
    try:
        with opened_run(root, run, folders) as folder:
            spelled = spelling(folder, name)
            try:
                _check_same(os.lstat(spelled, dir_fd=folder), read, subject)
                os.unlink(spelled, dir_fd=folder)
            except OSError as error:
                raise local_error("remove", subject, error) from error
    except MissingFileError:
        return False
    return True


def _check_same(status: os.stat_result, read: ReadFile, subject: str) -> None:
    if (version_of(status), changed_ns_of(status)) != (read.version, read.changed_ns):
        raise LocalFileError("remove", printable(subject), _CHANGED, hint=_CHANGED_HINT)
