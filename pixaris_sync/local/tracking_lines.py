"""Tracking files as bytes: whole lines out of arbitrary blocks, records out of lines.

Everything here is a function of its arguments; `tracking_file` brings the bytes. Two layers, each usable
alone:

1. `LineReader` cuts blocks into lines. Only a line that ends with a newline counts as read; what follows the
   last newline is torn and waits, or counts as a record once it is `unfinished` for long. It hashes what it
   has read, so that a file rewritten in place is noticed.
2. `read_line` makes one line a record, a `Suspect` (no whole record: a case for `damaged_lines`), a damaged
   line (readable, but no record that can be carried) or nothing (blank).

Memory: one block plus at most `LINE_BYTES_MAX` of an unfinished line.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Final, NamedTuple

from pixaris_sync.errors import LocalFileError, SyncError
from pixaris_sync.model import DamagedLine, DatasetKey, JsonValue, TrackingRecord
from pixaris_sync.rules.contract import parse_record
from pixaris_sync.text import printable

if TYPE_CHECKING:
    from hashlib import _Hash

#: A longer line is damaged and is never held in memory. Pixaris' lines are some kilobytes long.
LINE_BYTES_MAX: Final = 64 * 1024 * 1024

_JSON_HINT: Final = "Pixaris writes ASCII JSON; correct the file by hand or remove what is damaged"


class RawLine(NamedTuple):
    """A line that ended with a newline.

    `number` is 1-based, `digest` the hex SHA-256 of its bytes without the newline; `content` are these bytes,
    or None for a line of more than `LINE_BYTES_MAX`.
    """

    number: int
    digest: str
    content: bytes | None


class Suspect(NamedTuple):
    """A line that is no whole JSON record, and why."""

    line: RawLine
    cause: str


class LineReader:
    """Cuts a tracking file, fed in blocks of any size, into lines.

    Args:
        offset: where in the file the first block begins; the start of a line.
        line: how many lines stand before it.
        hasher: SHA-256 of the `offset` bytes before it; it is not changed.
        line_bytes_max: longer lines are reported without their content.
    """

    def __init__(
        self,
        *,
        offset: int = 0,
        line: int = 0,
        hasher: "_Hash | None" = None,
        line_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        self._offset = offset
        self._line = line
        self._hasher = hasher.copy() if hasher is not None else hashlib.sha256()
        self._line_bytes_max = line_bytes_max
        self._held: list[bytes] = []
        self._held_bytes = 0
        #: For a line too long to hold: hashes of the file up to here, and of the line up to here.
        self._beyond: tuple[_Hash, _Hash] | None = None

    @property
    def offset(self) -> int:
        """Bytes of the file up to the end of the last whole line."""
        return self._offset

    @property
    def line(self) -> int:
        """Whole lines up to `offset`."""
        return self._line

    @property
    def torn_bytes(self) -> int:
        """Bytes fed after `offset`."""
        return self._held_bytes

    @property
    def hasher(self) -> "_Hash":
        """SHA-256 of the file up to `offset`, as a copy."""
        return self._hasher.copy()

    @property
    def unfinished(self) -> RawLine | None:
        """What was fed after `offset`, as the line that it would be; None where it is too long to be held."""
        if self._beyond is not None:
            return None
        content = b"".join(self._held)
        return RawLine(self._line + 1, hashlib.sha256(content).hexdigest(), content)

    def feed(self, block: bytes) -> list[RawLine]:
        """Take the next block and return the lines that end in it."""
        lines: list[RawLine] = []
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            self._hold(block[start:end])
            lines.append(self._finish())
            start = end + 1
        self._hold(block[start:])
        return lines

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._beyond is None and self._held_bytes > self._line_bytes_max:
            self._beyond = self._hasher.copy(), hashlib.sha256()
            for held in self._held:
                self._hash_beyond(held)
            self._held.clear()
        if self._beyond is not None:
            self._hash_beyond(part)
        elif part:
            self._held.append(part)

    def _hash_beyond(self, part: bytes) -> None:
        assert self._beyond is not None  # noqa: S101 - for the type checker; _hold sets it first
        for hasher in self._beyond:
            hasher.update(part)

    def _finish(self) -> RawLine:
        self._line += 1
        if self._beyond is not None:
            self._hasher, line_hasher = self._beyond
            finished = RawLine(self._line, line_hasher.hexdigest(), None)
        else:
            content = b"".join(self._held)
            self._hasher.update(content)
            finished = RawLine(self._line, hashlib.sha256(content).hexdigest(), content)
        self._hasher.update(b"\n")
        self._offset += self._held_bytes + 1
        self._held.clear()
        self._held_bytes = 0
        self._beyond = None
        return finished


def read_line(dataset: DatasetKey, line: RawLine) -> TrackingRecord | Suspect | DamagedLine | None:
    r"""Tell what a line is.

    Args:
        dataset: whose tracking file it is.
        line: the line; ``\r`` at its end and a byte order mark at its beginning are ignored.

    Returns:
        A record; a `Suspect` where the line is no JSON object; a `DamagedLine` where it is one, but no record
        that can be carried (no ``experiment_run_name``, a name that GCS refuses), or is too long to be held;
        None for a blank line.
    """
    if line.content is None:
        return DamagedLine(line.digest, line.number, "the line is longer than any record may be")
    if not line.content.strip():
        return None
    try:
        values = load_json(line.content, _subject(dataset, line))
    except SyncError as error:
        return Suspect(line, error.cause)
    if not isinstance(values, dict):
        # An array of fragments, a bare number: the piece of a record can be JSON by itself.
        return Suspect(line, f"it is no JSON object but of type {type(values).__name__}")
    try:
        return parse_record(dataset, values, line.number)
    except SyncError as error:
        return DamagedLine(line.digest, line.number, error.cause)


def load_json(text: bytes, subject: str) -> JsonValue:
    """Parse the JSON text of a tracking line or a file of a run; a byte order mark may come first.

    Args:
        text: UTF-8; Pixaris writes ASCII. ``NaN``, ``Infinity`` and ``-Infinity`` are read.
        subject: which file or line it is, for the error.

    Raises:
        LocalFileError: it is no UTF-8 or no JSON, is nested too deeply, or holds an integer of more digits
            than Python converts.
    """
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        cause = f"byte {error.start} is no UTF-8"
    except json.JSONDecodeError as error:
        cause = f"it is no JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        cause = "it is nested too deeply"
    except ValueError:
        cause = "it holds an integer of too many digits"
    raise LocalFileError("read JSON from", subject, cause, hint=_JSON_HINT)


def _subject(dataset: DatasetKey, line: RawLine) -> str:
    return printable(f"{dataset}, line {line.number}")
