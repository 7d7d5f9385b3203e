"""Commands on a pseudo-terminal, and what somebody sees there: on the screen, and by scrolling back.

A terminal emulator (pyte) obeys what was written, so that a line which was overwritten, glued to another or
left behind shows as people would see it.
"""

import fcntl
import os
import pty
import struct
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyte
import pyte.modes
from pyte.screens import StaticDefaultDict

from tests.support.command_line import TIMEOUT_SECONDS, CommandLine
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess

ROWS = 24
#: A program that draws writes a whole picture at once, and then nothing for longer than this.
CALM_SECONDS = 0.05
#: More than any test prints.
SCROLLBACK_ROWS = 20_000
#: The environment of a usual terminal, whatever this process has.
PLAIN: dict[str, str | None] = {
    "TERM": "xterm-256color",
    **dict.fromkeys(("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")),
}


class _Row(StaticDefaultDict[int, Any]):
    """A row that may go on in the next one."""

    goes_on = False


class _Screen(pyte.HistoryScreen):
    """A screen that remembers which rows are one line, which the terminal broke at its edge."""

    def __init__(self, columns: int, rows: int) -> None:
        self._drawing = False
        super().__init__(columns, rows, history=SCROLLBACK_ROWS, ratio=0.5)

    def reset(self) -> None:
        super().reset()
        # It is a `defaultdict` of rows.
        self.buffer.default_factory = lambda: _Row(default=self.default_char)  # type: ignore[attr-defined]

    def draw(self, data: str) -> None:
        self._drawing = True
        super().draw(data)
        self._drawing = False

    def linefeed(self) -> None:
        self.buffer[self.cursor.y].goes_on = self._drawing  # type: ignore[attr-defined] # see `reset`
        super().linefeed()

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:  # noqa: FBT001, FBT002 - as the base
        super().erase_in_line(how, private)
        self.buffer[self.cursor.y].goes_on = False  # type: ignore[attr-defined]

    @property
    def rows(self) -> list[Any]:
        """Every row from the first to the cursor's."""
        shown = [self.buffer[y] for y in range(self.lines)]
        return [*self.history.top, *shown]

    def text_of(self, row: Any) -> str:
        """What stands in a row, without blanks at its end; those of before may be wider."""
        columns = max(self.columns, max(row, default=-1) + 1)
        return "".join(row[x].data for x in range(columns)).rstrip()


class Seen:
    """What a terminal of so many columns shows of what is written to it."""

    def __init__(self, columns: int = 80, rows: int = ROWS) -> None:
        self._screen = _Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Obey these bytes."""
        with self._lock:
            self._stream.feed(data)

    def resize(self, columns: int) -> None:
        """Another width; what stands there is cut, as by terminals that do not break lines anew."""
        with self._lock:
            self._screen.resize(self._screen.lines, columns)

    def rows(self) -> list[str]:
        """The rows of the screen, without blanks at their ends."""
        with self._lock:
            return [self._screen.text_of(self._screen.buffer[y]) for y in range(self._screen.lines)]

    def lines(self) -> list[str]:
        """All lines by scrolling back, and on the screen; those that the terminal broke are whole again.

        Blank lines are left out.
        """
        found, begun = [], ""
        with self._lock:
            for row in self._screen.rows:
                begun += self._screen.text_of(row).ljust(self._screen.columns if row.goes_on else 0)
                if not row.goes_on:
                    found.append(begun)
                    begun = ""
        return [line for line in [*found, begun] if line.strip()]

    @property
    def cursor_shows(self) -> bool:
        """Whether there is a cursor."""
        return pyte.modes.DECTCEM in self._screen.mode


class Terminal:
    """A command on a terminal of its own, for as long as the context is open.

    Args:
        command_line: on what.
        arguments: of the command.
        columns: the terminal's width.
        rows: its height.
        stdout: the command's stdout, where it is not the terminal.
        answers: whether the terminal is the command's stdin, too: see `type`.
        variables: of its environment; None takes one away.

    Attributes:
        seen: what the terminal shows.
        written: all bytes that the command wrote to it.
    """

    def __init__(
        self,
        command_line: CommandLine,
        *arguments: str,
        columns: int = 80,
        rows: int = ROWS,
        stdout: Path | None = None,
        answers: bool = False,
        **variables: str | None,
    ) -> None:
        usual = {
            "TERM": "xterm-256color",
            "COLUMNS": None,
            "LINES": None,
            "NO_COLOR": None,
            "FORCE_COLOR": None,
        }
        self._command_line = command_line.but(**{**usual, **variables})
        self._arguments = arguments
        self._size = (rows, columns)
        self._stdout = stdout
        self._answers = answers
        self.seen = Seen(columns, rows)
        self.written = b""
        self._ours, self._theirs = -1, -1
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._ours, self._theirs = pty.openpty()
        self._set_size()
        stdout = self._stdout.open("w") if self._stdout else None
        try:
            streams: dict[str, Any] = {"stdin": self._theirs} if self._answers else {}
            self._process = self._command_line.start(
                *self._arguments, stdout=stdout or self._theirs, stderr=self._theirs, **streams
            )
        finally:
            os.close(self._theirs)
            if stdout:
                stdout.close()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.wait()
        os.close(self._ours)

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The command's process."""
        assert self._process is not None
        return self._process

    def resize(self, columns: int) -> None:
        """Make the terminal another width."""
        self._size = (self._size[0], columns)
        self._set_size()
        self.seen.resize(columns)

    def type(self, text: str) -> None:
        """Type on the terminal's keyboard."""
        os.write(self._ours, text.encode())

    def answer(self, question: str, text: str, *, times: int = 1) -> None:
        """Wait until a question that begins so has been asked so often, and type this and Enter.

        A prompt may be written in two pieces: what is typed between them is echoed there.
        """

        def is_asked() -> bool:
            count = sum(line.startswith(question) for line in self.seen.lines())
            return count == times and self.written.endswith(b": ")

        eventually(is_asked, f"{question!r} is asked {times} times")
        self.type(f"{text}\n")

    def calm_lines(self) -> list[str]:
        """`Seen.lines` at a moment at which nothing has been written for a while, and is whole."""
        while True:
            written = len(self.written)
            time.sleep(CALM_SECONDS)
            lines = self.seen.lines()
            if len(self.written) == written:
                return lines

    def wait(self) -> int:
        """Wait for the command's end, and until all that it wrote is seen.

        Returns:
            Its exit code.
        """
        code = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        return code

    def _set_size(self) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: nobody has the other side open any more.
                return
            if not data:
                return
            self.written += data
            self.seen.write(data)
