"""Files of runs, opened without ever leaving the results folder, and read in bounded pieces.

Every file is reached from the results folder one component at a time, each opened relative to the folder
before it and never through a symbolic link, so that no name in a record and no link on the disk leads
elsewhere, not even one that is swapped in meanwhile. Only the results folder's own path may contain links.
Only regular files are opened: a FIFO or a device in a file's place neither blocks nor is touched.

A file is read as the `FileVersion` that was planned or not at all: its size, mtime and inode are compared
before and after reading. Nothing is kept open between calls.

Functions block; the methods of `RunFiles` and `FileSource` run them in threads, those that stream a large
file through aiofiles.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import aiofiles
import google_crc32c
from anyio import to_thread

from pixaris_sync.errors import Failure, LocalFileError
from pixaris_sync.images import image_fault
from pixaris_sync.model import FileVersion, RunKey
from pixaris_sync.names import component_fault, is_utf8, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiofiles.threadpool.binary import AsyncFileIO

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_FILE_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_INODE_MASK: Final = 2**63 - 1
_ROOT_HINT: Final = "make sure that its disk is mounted and that the user who runs pixaris-sync may read it"
_LINK_HINT: Final = "put the file or folder itself there: links below the results folder are not followed"
_IMAGE_HINT: Final = "replace the image by a whole one; one that is still being written is looked at again"
_CHANGED: Final = "it changed while it was read"
_CHANGED_HINT: Final = "wait until nothing writes to the run any more; it is then looked at again"
_PLACE_HINT: Final = (
    "put what Pixaris wrote in its place again, or take its run's line out of the tracking file"
)
#: Errors of the system that stay until somebody acts, each with what is wrong and what to do.
_PERMANENT: Final = {
    errno.ENOENT: ("it does not exist", "put it back, or take its run's line out of the tracking file"),
    errno.ENOTDIR: ("it is no folder", _PLACE_HINT),
    errno.EISDIR: ("it is a folder, not a file", _PLACE_HINT),
    errno.ELOOP: ("it is a symbolic link, which is never followed", _LINK_HINT),
    errno.EACCES: ("permission denied", "let the user who runs pixaris-sync read it"),
    errno.EPERM: ("permission denied", "let the user who runs pixaris-sync read it"),
    errno.ENAMETOOLONG: ("its name is longer than the file system takes", _PLACE_HINT),
    errno.ENXIO: ("it is no regular file", _PLACE_HINT),
}


class MissingFileError(LocalFileError):
    """A file or folder does not exist."""


@dataclass(frozen=True, slots=True)
class Content:
    """All bytes of a file and their crc32c as an unsigned 32-bit integer."""

    data: bytes
    crc32c: int


def local_error(operation: str, subject: str, error: OSError) -> LocalFileError:
    """Translate an error of the system: permanent where only somebody can mend it, else transient."""
    code = error.errno or 0
    if code in _PERMANENT:
        cause, hint = _PERMANENT[code]
        kind = MissingFileError if code == errno.ENOENT else LocalFileError
        return kind(operation, printable(subject), cause, hint=hint)
    cause = os.strerror(code) if code else type(error).__name__
    return LocalFileError(operation, printable(subject), cause, failure=Failure.TRANSIENT)


def version_of(status: os.stat_result) -> FileVersion:
    """The version of a file whose status this is."""
    return FileVersion(status.st_size, status.st_mtime_ns, inode_of(status))


def inode_of(status: os.stat_result) -> int:
    """The inode number without its 64th bit, which overlay file systems set and SQLite cannot store."""
    return status.st_ino & _INODE_MASK


@contextmanager
def opened_folder(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """Open the folder `parts` below `root` and give its handle; it is closed at the end.

    Raises:
        MissingFileError: it does not exist, while `root` does.
        LocalFileError: a part is a symbolic link, no folder, unreadable, or no single path component; or
            (transient) `root` itself cannot be opened.
    """
    try:
        handle = os.open(root, _FOLDER_FLAGS)
    except OSError as error:
        # Transient whatever it is: a disk that is away for a while must not condemn all runs on it.
        cause = local_error("open", str(root), error).cause
        raise LocalFileError(
            "open results folder", printable(str(root)), cause, hint=_ROOT_HINT, failure=Failure.TRANSIENT
        ) from error
    try:
        for index, part in enumerate(parts):
            _check_component(part, subject="/".join(parts))
            below = _open_below(handle, part, subject="/".join(parts[: index + 1]))
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _open_below(folder: int, name: str, *, subject: str) -> int:
    try:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        # O_DIRECTORY with O_NOFOLLOW answers ENOTDIR for a link, as for a file: tell them apart.
        if error.errno == errno.ENOTDIR and _is_link(folder, name):
            error = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        raise local_error("open folder", subject, error) from error


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


@contextmanager
def opened_file(folder: int, name: str, *, subject: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file in an open folder; give its handle and status; it is closed at the end.

    Raises:
        MissingFileError: it does not exist.
        LocalFileError: it is a symbolic link, no regular file, unreadable, or no single path component.
    """
    _check_component(name, subject=subject)
    try:
        # Looked at before it is opened: opening a device can already have an effect.
        check_regular(os.lstat(name, dir_fd=folder), subject=subject)
        handle = os.open(name, _FILE_FLAGS, dir_fd=folder)
    except OSError as error:
        raise local_error("open file", subject, error) from error
    try:
        status = os.fstat(handle)
        check_regular(status, subject=subject)
        yield handle, status
    finally:
        os.close(handle)


def check_regular(status: os.stat_result, *, subject: str) -> None:
    """Make sure that a status, taken without following links, is that of a regular file.

    Raises:
        LocalFileError: it is a symbolic link or anything else.
    """
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISLNK(status.st_mode):
        code = errno.ELOOP
    else:
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
    raise local_error("open file", subject, OSError(code, os.strerror(code)))


def _check_component(name: str, *, subject: str) -> None:
    fault = component_fault(name) or (None if is_utf8(name) else "is not valid UTF-8")
    if fault:
        raise LocalFileError("open", printable(subject), f"its part {name!r} {fault}")


class FileSource:
    """A large file to upload in pieces: a `ports.ByteSource`.

    Each piece opens the file anew and compares its version: an upload of hours holds no handle.
    """

    def __init__(self, root: Path, run: RunKey, path: str, version: FileVersion) -> None:
        self._root = root
        self._run = run
        self._path = path
        self._version = version

    @property
    def size(self) -> int:
        """The file's length in bytes when the upload was planned."""
        return self._version.size

    async def read(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only at the end of the file.

        Raises:
            LocalFileError: the file is gone or unreadable, or (transient) no longer the planned version.
        """
        wanted = max(0, min(length, self._version.size - offset))
        async with self._opened() as file:
            await file.seek(offset)
            return b"".join([piece async for piece in _pieces(file, wanted, wanted)])

    async def checksum(self, chunk_bytes: int) -> int:
        """The crc32c of the whole file, holding `chunk_bytes` at a time. Raises as `read`."""
        crc32c = 0
        async with self._opened() as file:
            async for piece in _pieces(file, self._version.size, chunk_bytes):
                crc32c = extend_crc32c(crc32c, piece)
        return crc32c

    @asynccontextmanager
    async def _opened(self) -> "AsyncIterator[AsyncFileIO]":
        """Open the planned version, and make sure at the end that it still is."""
        planned = partial(_planned_handle, self._root, self._run, self._path, self._version)
        handle = await to_thread.run_sync(planned)
        subject = f"{self._run}/{self._path}"
        async with aiofiles.open(handle, "rb", buffering=0) as file:
            try:
                yield file
            except OSError as error:
                raise local_error("read", subject, error) from error
            _check_version(os.fstat(handle), self._version, subject, _CHANGED)


async def _pieces(file: "AsyncFileIO", length: int, chunk_bytes: int) -> "AsyncIterator[bytes]":
    """Read on for `length` bytes, or to the end of the file: then it changed, and its version says so."""
    while length > 0 and (piece := await file.read(min(length, chunk_bytes))):
        length -= len(piece)
        yield piece


class RunFiles:
    """The files of all runs below one results folder, `root`.

    Methods take the run, the path relative to its folder (with forward slashes), and the planned version.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read_whole(self, run: RunKey, path: str, version: FileVersion) -> Content:
        """Read a file at once; it takes ``version.size`` bytes of memory.

        Raises:
            LocalFileError: it is gone, unreadable, a link or no regular file; or (transient) it is no longer
                the planned version, or changed while it was read.
        """
        return await to_thread.run_sync(self._read_whole, run, path, version)

    async def checksum(self, run: RunKey, path: str, version: FileVersion, *, chunk_bytes: int) -> int:
        """The file's crc32c as an unsigned integer, holding `chunk_bytes` at a time; raises the same."""
        return await self.source(run, path, version).checksum(chunk_bytes)

    def source(self, run: RunKey, path: str, version: FileVersion) -> FileSource:
        """The file in pieces, for a resumable upload."""
        return FileSource(self._root, run, path, version)

    async def verify_image(self, run: RunKey, path: str, content: bytes) -> None:
        """Make sure that an image that was read is whole, without decoding it. Raises LocalFileError."""
        await to_thread.run_sync(_verify_image, f"{run}/{path}", io.BytesIO(content))

    async def verify_large_image(self, run: RunKey, path: str, version: FileVersion) -> None:
        """The same for an image on disk, of which at most one chunk is held. Raises as `read_whole` too."""
        await to_thread.run_sync(partial(self._verify_large_image, run, path, version))

    def _read_whole(self, run: RunKey, path: str, version: FileVersion) -> Content:
        with _planned_file(self._root, run, path, version) as handle:
            data = _read_exactly(handle, 0, version.size)
        return Content(data, extend_crc32c(0, data))

    def _verify_large_image(self, run: RunKey, path: str, version: FileVersion) -> None:
        with (
            _planned_file(self._root, run, path, version) as handle,
            os.fdopen(os.dup(handle), "rb") as file,
        ):
            _verify_image(f"{run}/{path}", file)


def extend_crc32c(crc32c: int, data: bytes) -> int:
    """The crc32c, as an unsigned 32-bit integer, of what `crc32c` covers followed by `data`."""
    extended: int = google_crc32c.extend(crc32c, data)
    return extended


@contextmanager
def _planned_file(root: Path, run: RunKey, path: str, version: FileVersion) -> Iterator[int]:
    """Open a run's file, which must be the planned version before and after."""
    subject = f"{run}/{path}"
    handle = _planned_handle(root, run, path, version)
    try:
        try:
            yield handle
        except OSError as error:
            raise local_error("read", subject, error) from error
        except LocalFileError:
            # A file that is being written is cut only for now: that is the truer cause.
            _check_version(os.fstat(handle), version, subject, _CHANGED)
            raise
        _check_version(os.fstat(handle), version, subject, _CHANGED)
    finally:
        os.close(handle)


def _planned_handle(root: Path, run: RunKey, path: str, version: FileVersion) -> int:
    """A handle on a run's file, which must be the planned version; whoever takes it closes it."""
    *folders, name = path.split("/")
    subject = f"{run}/{path}"
    with (
        opened_folder(root, [run.project, run.dataset, run.run, *folders]) as folder,
        opened_file(folder, name, subject=subject) as (handle, status),
    ):
        _check_version(status, version, subject, "it is no longer the version that was planned")
        return os.dup(handle)


def _check_version(status: os.stat_result, version: FileVersion, subject: str, cause: str) -> None:
    if version_of(status) != version:
        raise LocalFileError("read", printable(subject), cause, hint=_CHANGED_HINT, failure=Failure.TRANSIENT)


def _read_exactly(handle: int, offset: int, length: int) -> bytes:
    """Read `length` bytes unless the file ends before: then it changed, and its version says so."""
    pieces: list[bytes] = []
    end = offset + length
    while offset < end and (piece := os.pread(handle, end - offset, offset)):
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _verify_image(subject: str, file: BinaryIO) -> None:
    try:
        fault = image_fault(file)
    except OSError as error:
        raise local_error("read", subject, error) from error
    if fault:
        cause = f"image cannot be verified: {fault}"
        raise LocalFileError("verify image", printable(subject), cause, hint=_IMAGE_HINT)
