"""A doorbell: rings when something happens in one of some folders, so that a task can sleep until then.

It is the kernel's inotify(7), asked for nothing but that: what has happened is for others to find out. While
nothing happens nobody wakes, neither a thread nor the event loop.

It goes on ringing until it is hushed, also while nobody listens. So *hush, then look, then wait* loses
nothing: what happens after the look ends the wait. The kernel keeps a bounded number of events, which loses
nothing either: a full bell rings too.
"""

import ctypes
import os
import weakref
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import anyio

#: What rings, by ``linux/inotify.h``: MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE,
#: DELETE_SELF, MOVE_SELF. Reading does not.
_RINGS: Final = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
#: IN_ONLYDIR and IN_DONT_FOLLOW.
_FOLDERS_ONLY: Final = 0x0100_0000 | 0x0200_0000
_READ_BYTES: Final = 64 * 1024


class Doorbell:
    """Rings at what happens to folders and directly in them. Close it in the end.

    Args:
        folders: which; links in their place are refused.

    Raises:
        FileNotFoundError: one of them is gone.
        OSError: there is no such bell: another system, or a limit of inotify is reached.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        libc = _libc()
        # IN_NONBLOCK and IN_CLOEXEC have the values of these.
        self._handle = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        # Also where it is forgotten, as after an error.
        self._close = weakref.finalize(self, os.close, self._handle)
        for folder in folders:
            _checked(libc.inotify_add_watch(self._handle, os.fsencode(folder), _RINGS | _FOLDERS_ONLY))

    async def wait(self) -> None:
        """Return once something has happened since the last `hush`."""
        await anyio.wait_readable(self._handle)

    def hush(self) -> None:
        """Forget what has happened so far. Does not block."""
        with suppress(BlockingIOError):
            while os.read(self._handle, _READ_BYTES):
                pass

    def close(self) -> None:
        """Give it back to the kernel; nobody may wait for it any more. Safe to call twice."""
        self._close()


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        raise OSError(None, "this system has no inotify")
    return libc


def _checked(answer: int) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer
