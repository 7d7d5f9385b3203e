"""Contents of runs' files: small ones whole and several at once, large ones in pieces of bounded size.

A file is read as the `FileVersion` that was planned or not at all: its size, mtime and inode are compared
before and after reading. It is opened as `safe_open` says. Nothing is kept open between calls. A small file
leaves the `page_cache` as it was; a large one is read three times, and stays there for that.

All of it runs in threads; large files are streamed through aiofiles.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

import google_crc32c
from anyio import to_thread

from pixaris_sync.errors import DamagedImageError, Failure, LocalFileError
from pixaris_sync.local.images import image_fault
from pixaris_sync.local.page_cache import forget, is_cached
from pixaris_sync.local.safe_open import (
    MissingFileError,
    inode_of,
    local_error,
    mtime_ns_of,
    open_file,
    opened_file,
    opened_run,
)
from pixaris_sync.model import FileVersion, RunKey
from pixaris_sync.text import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiofiles.threadpool.binary import AsyncFileIO

_IMAGE_HINT: Final = "replace the image by a whole one; one that is still being written is looked at again"
_NOT_PLANNED: Final = "it is no longer the version that was planned"
_CHANGED: Final = "it changed while it was read"
_CHANGED_HINT: Final = "wait until nothing writes to the run any more; it is then looked at again"


class Content(NamedTuple):
    """All bytes of a file and their crc32c as an unsigned 32-bit integer."""

    data: bytes
    crc32c: int


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
        # Imported when a large file comes: small ones are read without.
        import aiofiles  # noqa: PLC0415 - see above

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


class PlannedFile(NamedTuple):
    """A file to be read: `path` relative to the run's folder, with slashes; `is_image`: verify it."""

    run: RunKey
    path: str
    version: FileVersion
    is_image: bool


class RunFiles:
    """The files of all runs below one results folder, `root`.

    Methods take the run, the path relative to its folder (with forward slashes), and the planned version.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read_batch(self, batch: Sequence[PlannedFile]) -> list[Content | Exception]:
        """Read files at once, and verify the images among them without decoding them.

        It takes one thread and as much memory as the files have bytes. A folder is opened once for files that
        follow each other.

        Returns:
            In the same order, contents, or what is wrong: the file is gone, unreadable, a link or no regular
            file, or a damaged image; or (transient) it is no longer the planned version, or changed while it
            was read. Or an exception of any other kind, which is about that file alone.
        """
        return await to_thread.run_sync(self._read_batch, batch)

    async def checksum(self, run: RunKey, path: str, version: FileVersion, *, chunk_bytes: int) -> int:
        """The file's crc32c as an unsigned integer, holding `chunk_bytes` at a time.

        Raises:
            LocalFileError: as `read_batch` returns it.
        """
        return await self.source(run, path, version).checksum(chunk_bytes)

    def source(self, run: RunKey, path: str, version: FileVersion) -> FileSource:
        """The file in pieces, for a resumable upload."""
        return FileSource(self._root, run, path, version)

    async def verify_large_image(self, run: RunKey, path: str, version: FileVersion) -> None:
        """Make sure that an image is whole, of which at most one chunk is held.

        Raises:
            LocalFileError: as `read_batch` returns it.
        """
        await to_thread.run_sync(partial(self._verify_large_image, run, path, version))

    def is_missing(self, run: RunKey, path: str) -> bool:
        """Whether there is no such file at this moment. Blocks."""
        *folders, name = path.split("/")
        try:
            with (
                opened_run(self._root, run, folders) as folder,
                opened_file(folder, name, subject=f"{run}/{path}"),
            ):
                return False
        except LocalFileError as error:
            return isinstance(error, MissingFileError)

    def _read_batch(self, batch: Sequence[PlannedFile]) -> list[Content | Exception]:
        read: list[Content | Exception] = []
        with _last_folder(self._root) as folder_of:
            for planned in batch:
                try:
                    read.append(_read_whole(folder_of, planned))
                except Exception as error:  # noqa: BLE001 - the others of the batch go on
                    read.append(error)
        return read

    def _verify_large_image(self, run: RunKey, path: str, version: FileVersion) -> None:
        *folders, name = path.split("/")
        subject = f"{run}/{path}"
        with (
            opened_run(self._root, run, folders) as folder,
            _planned_file(folder, name, version, subject) as handle,
            os.fdopen(os.dup(handle), "rb") as file,
        ):
            _verify_image(subject, file)


def extend_crc32c(crc32c: int, data: bytes) -> int:
    """The crc32c, as an unsigned 32-bit integer, of what `crc32c` covers followed by `data`."""
    extended: int = google_crc32c.extend(crc32c, data)
    return extended


@contextmanager
def _last_folder(root: Path) -> Iterator[Callable[[RunKey, list[str]], int]]:
    """Give a function that opens folders and keeps the last one open: files follow each other by folder."""
    with ExitStack() as stack:
        last: tuple[RunKey, list[str]] | None = None
        handle = -1

        def open_folder(run: RunKey, folders: list[str]) -> int:
            nonlocal last, handle
            if (run, folders) != last:
                last = None
                stack.close()
                handle = stack.enter_context(opened_run(root, run, folders))
                last = run, folders
            return handle

        yield open_folder


def _read_whole(folder_of: Callable[[RunKey, list[str]], int], planned: PlannedFile) -> Content:
    *folders, name = planned.path.split("/")
    subject = f"{planned.run}/{planned.path}"
    folder = folder_of(planned.run, folders)
    with _planned_file(folder, name, planned.version, subject) as handle:
        was_cached = is_cached(handle)
        data = _read_exactly(handle, 0, planned.version.size)
        if not was_cached:
            forget(handle)
        if planned.is_image:
            _verify_image(subject, data)
    return Content(data, extend_crc32c(0, data))


@contextmanager
def _planned_file(folder: int, name: str, version: FileVersion, subject: str) -> Iterator[int]:
    """Open a file in an open folder, which must be the planned version before and after."""
    handle, status = open_file(folder, name, subject=subject)
    try:
        _check_version(status, version, subject, _NOT_PLANNED)
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
    """A handle on a run's file, which must be the planned version; the caller closes it."""
    *folders, name = path.split("/")
    subject = f"{run}/{path}"
    with (
        opened_run(root, run, folders) as folder,
        opened_file(folder, name, subject=subject) as (handle, status),
    ):
        _check_version(status, version, subject, _NOT_PLANNED)
        return os.dup(handle)


def _check_version(status: os.stat_result, version: FileVersion, subject: str, cause: str) -> None:
    # Compared without making a version of it, which would cost time for every file.
    found = (status.st_size, mtime_ns_of(status), inode_of(status))
    if found != (version.size, version.mtime_ns, version.inode):
        raise LocalFileError("read", printable(subject), cause, hint=_CHANGED_HINT, failure=Failure.TRANSIENT)


def _read_exactly(handle: int, offset: int, length: int) -> bytes:
    """Read `length` bytes unless the file ends before: then it changed, and its version says so."""
    pieces: list[bytes] = []
    end = offset + length
    while offset < end and (piece := os.pread(handle, end - offset, offset)):
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _verify_image(subject: str, image: bytes | BinaryIO) -> None:
    try:
        fault = image_fault(image)
    except OSError as error:
        raise local_error("read", subject, error) from error
    if fault:
        cause = f"image cannot be verified: {fault}"
        raise DamagedImageError("verify image", printable(subject), cause, hint=_IMAGE_HINT)
