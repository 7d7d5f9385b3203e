"""A terminal without a window: what a command prints into it, as it would stand on the screen."""

import fcntl
import os
import pty
import select
import struct
import termios
import threading
from contextlib import suppress
from typing import Any, Self

import pyte


class Terminal:
    """A pseudo-terminal and the screen behind it; use as a context, `options` being for `Popen`.

    Attributes:
        printed: every byte so far.
    """

    def __init__(self, columns: int, lines: int = 40) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.printed = b""

    def __enter__(self) -> Self:
        self._ours, self._theirs = pty.openpty()
        self.resize(self._screen.columns, self._screen.lines)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._reader.join()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def options(self) -> dict[str, Any]:
        """Where a process prints that runs in it."""
        return {"stdout": self._theirs, "stderr": self._theirs}

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size, as somebody who draws at its corner."""
        with self._lock:
            self._screen.resize(lines, columns)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def columns(self) -> int:
        """Its width."""
        return int(self._screen.columns)

    @property
    def shown(self) -> list[str]:
        """The lines on the screen, without blanks at their ends and empty lines at its end."""
        with self._lock:
            lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor shows."""
        with self._lock:
            return not self._screen.cursor.hidden

    def _read(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._ours], [], [], 0.05)[0]:
                continue
            with suppress(OSError):
                part = os.read(self._ours, 65536)
                with self._lock:
                    self.printed += part
                    self._stream.feed(part)
