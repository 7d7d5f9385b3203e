"""What is read for an upload, and what of it stays in the kernel's cache of pages."""

import ctypes
import mmap
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from PIL import Image

from pixaris_sync.local import page_cache
from pixaris_sync.local.contents import Content, PlannedFile, RunFiles
from pixaris_sync.model import FileVersion, RunKey

RUN = RunKey("project", "dataset", "run")
PATH = "generated_images/image.png"
CHUNK_BYTES = 256 * 1024
#: A kernel that is asked what it has begins to read what it has not, and may be done before it answers; and
#: it may take away what it has at any time. What the program does to the cache it does each time.
TRIES = 20

Reading = Callable[[RunFiles, FileVersion], Awaitable[object]]


async def whole(files: RunFiles, version: FileVersion) -> object:
    [content] = await files.read_batch([PlannedFile(RUN, PATH, version, is_image=True)])
    assert isinstance(content, Content)
    return content.data


async def in_pieces(files: RunFiles, version: FileVersion) -> object:
    await files.verify_large_image(RUN, PATH, version)
    await files.checksum(RUN, PATH, version, chunk_bytes=CHUNK_BYTES)
    source = files.source(RUN, PATH, version)
    offsets = range(0, version.size, CHUNK_BYTES)
    return b"".join([await source.read(offset, CHUNK_BYTES) for offset in offsets])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of a few pieces, which is on the disk and not in the cache."""
    path = tmp_path / str(RUN) / PATH
    path.parent.mkdir(parents=True)
    Image.frombytes("RGB", (700, 700), os.urandom(3 * 700 * 700)).save(path)
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError:
            pytest.skip("this file system cannot tell what is cached")
    evict(path)
    return path


def evict(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_bytes(path) == 0


def version_of(path: Path) -> FileVersion:
    status = path.stat()
    return FileVersion(status.st_size, status.st_mtime_ns, status.st_ino)


def cached_bytes(path: Path) -> int:
    """How much of a file is in memory, by mincore(2)."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        begin = ctypes.c_char.from_buffer(mapped)
        assert ctypes.CDLL(None).mincore(ctypes.byref(begin), ctypes.c_size_t(len(mapped)), pages) == 0
        del begin
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def test_where_nobody_can_tell_all_stays(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an old Python or file system reads as before. Method: no flag, and a kernel that refuses it."""
    with image.open("rb") as file:
        monkeypatch.setattr(page_cache, "_WITHOUT_WAITING", 1 << 30)
        assert page_cache.is_cached(file.fileno())
        monkeypatch.setattr(page_cache, "_WITHOUT_WAITING", None)
        assert page_cache.is_cached(file.fileno())
        monkeypatch.undo()

    def is_cached() -> bool:
        evict(image)
        with image.open("rb") as file:
            return page_cache.is_cached(file.fileno())

    assert not all(is_cached() for _ in range(TRIES))


def test_what_reading_brings_into_the_cache_leaves_it_again(tmp_path: Path, image: Path) -> None:
    """Goal: the cache is the training's. Method: a file that is on the disk alone is read; ask the kernel."""
    content = image.read_bytes()

    def left_bytes() -> int:
        evict(image)
        data = anyio.run(whole, RunFiles(tmp_path), version_of(image))
        left = cached_bytes(image)
        assert data == content
        return left

    assert not all(left_bytes() for _ in range(TRIES))


@pytest.mark.parametrize("read", [whole, in_pieces], ids=["small", "large"])
def test_what_was_in_the_cache_stays(tmp_path: Path, image: Path, read: Reading) -> None:
    """Goal: others who read a file do not notice. Method: one that was read before, and one just written."""
    content = image.read_bytes()

    def stays() -> bool:
        assert anyio.run(read, RunFiles(tmp_path), version_of(image)) == content
        return cached_bytes(image) >= len(content)

    def was_read() -> bool:
        return image.read_bytes() == content and stays()

    def was_written() -> bool:
        return image.write_bytes(content) == len(content) and stays()

    assert any(was_read() for _ in range(TRIES))
    assert any(was_written() for _ in range(TRIES))
