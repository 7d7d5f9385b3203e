"""Opens folders and files of runs, without ever leaving the results folder.

Every file is reached from the results folder one component at a time, each opened relative to the folder
before it and never through a symbolic link, so that no name in a record and no link on the disk leads
elsewhere, not even one that is swapped in meanwhile. Only the results folder's own path may contain links.
What a disk has under another spelling of the same name is opened as well (`_spelling`, `opened_run`). Only
regular files are opened: a FIFO or a device in a file's place neither blocks nor is touched.

Functions block.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pixaris_sync.errors import Failure, LocalFileError, open_files_hint
from pixaris_sync.model import FileVersion, RunKey
from pixaris_sync.rules.contract import FIRST_IMAGES, GENERATED_IMAGES, same_name
from pixaris_sync.rules.names import component_fault
from pixaris_sync.text import is_utf8, printable

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_FILE_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_INODE_MASK: Final = 2**63 - 1
_ROOT_HINT: Final = "make sure that its disk is mounted and that the user who runs pixaris-sync may read it"
_LINK_HINT: Final = "put the file or folder itself there: links below the results folder are not followed"
_GIVE_UP: Final = "give the run up: delete its folder and its line of the tracking file"
_PLACE_HINT: Final = f"put what Pixaris wrote in its place again, or {_GIVE_UP}"
_FOLDER_HINT: Final = f"put it back, or {_GIVE_UP}"
_IMAGE_HINT: Final = "put it back, or let `pixaris-sync retry` go on without it"
_ARGUMENT_HINT: Final = "put it back, or take its key out of the run's line of the tracking file"
_READ_HINT: Final = "let the user who runs pixaris-sync read it"
#: Errors of the system that stay until somebody acts, each with what is wrong and what to do.
_PERMANENT: Final = {
    errno.ENOENT: ("it does not exist", _FOLDER_HINT),
    errno.ENOTDIR: ("it is no folder", _PLACE_HINT),
    errno.EISDIR: ("it is a folder, not a file", _PLACE_HINT),
    errno.ELOOP: ("it is a symbolic link, which is never followed", _LINK_HINT),
    errno.EACCES: ("permission denied", _READ_HINT),
    errno.EPERM: ("permission denied", _READ_HINT),
    errno.ENAMETOOLONG: ("its name is longer than the file system takes", _PLACE_HINT),
    errno.ENXIO: ("it is no regular file", _PLACE_HINT),
}


class MissingFileError(LocalFileError):
    """A file or folder does not exist."""


def local_error(operation: str, subject: str, error: OSError) -> LocalFileError:
    """Translate an error of the system: permanent where only somebody can mend it, else transient."""
    code = error.errno or 0
    if code in _PERMANENT:
        cause, hint = _PERMANENT[code]
        kind = MissingFileError if code == errno.ENOENT else LocalFileError
        return kind(operation, printable(subject), cause, hint=hint)
    cause = os.strerror(code) if code else type(error).__name__
    hint = open_files_hint(error)
    return LocalFileError(operation, printable(subject), cause, hint=hint, failure=Failure.TRANSIENT)


def version_of(status: os.stat_result) -> FileVersion:
    """The version of a file whose status this is."""
    return FileVersion(status.st_size, mtime_ns_of(status), inode_of(status))


def inode_of(status: os.stat_result) -> int:
    """The inode number without its 64th bit, which overlay file systems set and SQLite cannot store."""
    return status.st_ino & _INODE_MASK


def mtime_ns_of(status: os.stat_result) -> int:
    """The mtime in ns since the epoch, as SQLite can store it: times beyond the year 2262 wrap around."""
    return (status.st_mtime_ns + 2**63) % 2**64 - 2**63


def changed_ns_of(status: os.stat_result) -> int:
    """When a file or folder last changed, in ns since the epoch: unlike mtime, nobody can set it."""
    return status.st_ctime_ns


@contextmanager
def opened_folder(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """Open the folder `parts` below `root` and give its handle; it is closed at the end.

    Raises:
        MissingFileError: it does not exist, while `root` does.
        LocalFileError: a part is a symbolic link, no folder, unreadable, or no single path component; or
            (transient) `root` itself cannot be opened.
    """
    handle = _open_folder(root, parts)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def opened_run(root: Path, run: RunKey, folders: Sequence[str] = ()) -> Iterator[int]:
    """Open a run's folder, or the one that `folders` name in it. Raises as `opened_folder`.

    A slash in a run's name leads into a folder. Where the folder does not exist, a backslash is taken for one
    too, as Windows made the folder, and for ``generated_images`` what Pixaris 0.1.0 called it.
    """
    handle = _open_run(root, run, tuple(folders))
    try:
        yield handle
    finally:
        os.close(handle)


def _open_run(root: Path, run: RunKey, folders: tuple[str, ...]) -> int:
    missing: MissingFileError | None = None
    places = [folders, (FIRST_IMAGES,)] if folders == (GENERATED_IMAGES,) else [folders]
    for name in dict.fromkeys((run.run, same_name(run.run) if "\\" in run.run else run.run)):
        for place in places:
            try:
                return _open_folder(root, (run.project, run.dataset, *name.split("/"), *place))
            except MissingFileError as error:
                missing = missing or error
    assert missing is not None  # noqa: S101 - for the type checker: something was tried
    raise missing


def _open_folder(root: Path, parts: Sequence[str]) -> int:
    try:
        handle = os.open(root, _FOLDER_FLAGS)
    except OSError as error:
        # Transient whatever it is: a disk that is not mounted for a while must not quarantine all runs on it.
        cause, hint = local_error("open", str(root), error).cause, open_files_hint(error) or _ROOT_HINT
        raise LocalFileError(
            "open results folder", printable(str(root)), cause, hint=hint, failure=Failure.TRANSIENT
        ) from error
    try:
        for index, part in enumerate(parts):
            _check_component(part, subject="/".join(parts))
            below = _open_below(handle, part, subject="/".join(parts[: index + 1]))
            os.close(handle)
            handle = below
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def listed(folder: int, subject: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List an open folder; a failure of the system while it is listed becomes a `LocalFileError`."""
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise local_error("list folder", subject, error) from error


def _open_below(folder: int, name: str, *, subject: str) -> int:
    try:
        return os.open(spelling(folder, name), _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        # O_DIRECTORY with O_NOFOLLOW answers ENOTDIR for a link, as for a file: tell them apart.
        if error.errno == errno.ENOTDIR and _is_link(folder, name):
            error = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        raise local_error("open folder", subject, error) from error


def spelling(folder: int, name: str) -> str:
    """How an open folder spells a name: so, or, where nothing is called so, as the one entry that equals it.

    A Mac may take letters with marks apart (Unicode's NFD), and so they stay where its disk is copied, while
    records have them as they were typed (mostly NFC).
    """
    if name.isascii() or _exists(folder, name):
        return name
    alike = [form for form in _forms(name) if form != name and _exists(folder, form)]
    if not alike:
        # HFS+ takes apart by rules of its own.
        normal = unicodedata.normalize("NFC", name)
        alike = [entry for entry in os.listdir(folder) if unicodedata.normalize("NFC", entry) == normal]
    return alike[0] if len(alike) == 1 else name


def _forms(name: str) -> set[str]:
    return {unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}


def _exists(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # Opening it tells what is wrong.
    return True


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


@contextmanager
def opened_file(folder: int, name: str, *, subject: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file as `open_file` does; it is closed at the end."""
    handle, status = open_file(folder, name, subject=subject)
    try:
        yield handle, status
    finally:
        os.close(handle)


def open_file(folder: int, name: str, *, subject: str) -> tuple[int, os.stat_result]:
    """Open a regular file in an open folder; give its handle, which the caller closes, and its status.

    Raises:
        MissingFileError: it does not exist.
        LocalFileError: it is a symbolic link, no regular file, unreadable, or no single path component.
    """
    _check_component(name, subject=subject)
    try:
        name = spelling(folder, name)
        # Looked at before it is opened: opening a device can already have an effect.
        check_regular(os.lstat(name, dir_fd=folder), subject=subject)
        handle = os.open(name, _FILE_FLAGS, dir_fd=folder)
    except OSError as error:
        failed = local_error("open file", subject, error)
        if isinstance(failed, MissingFileError):
            # Its record names a saved argument; images are all that their folder holds.
            failed.hint = _IMAGE_HINT if f"/{GENERATED_IMAGES}/" in subject else _ARGUMENT_HINT
        raise failed from error
    try:
        status = os.fstat(handle)
        check_regular(status, subject=subject)
    except BaseException:
        os.close(handle)
        raise
    return handle, status


def check_regular(status: os.stat_result, *, subject: str) -> None:
    """Make sure that a status, taken without following links, is that of a regular file.

    Raises:
        LocalFileError: it is a symbolic link or anything else.
    """
    if (fault := irregularity(status)) is not None:
        raise local_error("open file", subject, fault)


def irregularity(status: os.stat_result) -> OSError | None:
    """What opening it would fail with, if only regular files could be opened; None: it is one."""
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISLNK(status.st_mode):
        code = errno.ELOOP
    else:
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
    return OSError(code, os.strerror(code))


def _check_component(name: str, *, subject: str) -> None:
    fault = component_fault(name) or (None if is_utf8(name) else "is not valid UTF-8")
    if fault:
        raise LocalFileError("open", printable(subject), f"its part {name!r} {fault}")
