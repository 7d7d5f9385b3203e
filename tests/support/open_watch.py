"""Proof that files were not opened: the kernel's own word for it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: inotify(7).
_IN_OPEN = 0x20
_EVENTS_BYTES = 4096


class OpenWatch:
    """Whether any of some files or folders was opened, by whatever process."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def happened(self) -> bool:
        """Whether there was one since this was last asked."""
        try:
            return bool(os.read(self._handle, _EVENTS_BYTES))
        except BlockingIOError:
            return False


@contextmanager
def watch_opens(*paths: Path) -> Iterator[OpenWatch]:
    """Watch for these files and folders being opened."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    try:
        for path in paths:
            watch = libc.inotify_add_watch(handle, os.fsencode(path), _IN_OPEN)
            assert watch >= 0, os.strerror(ctypes.get_errno())
        yield OpenWatch(handle)
    finally:
        os.close(handle)
