"""What the benchmark's server does with the body of a request while it arrives: as little as is truthful.

Contents of objects are checksummed piece by piece and dropped, so that memory and time stay small whatever
the size of an upload. Bodies of JSON are collected.
"""

import hashlib
from typing import Protocol

import google_crc32c

#: The longest boundary of multipart bodies (RFC 2046, 5.1.1), and what stands around the last one.
_TAIL_BYTES = 70 + len("\r\n----\r\n")


class Sink(Protocol):
    """Takes the body of one request."""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""

    def end(self) -> None:
        """No piece follows."""


class Collected:
    """Keeps the body."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """See `Sink`."""
        self._pieces.append(data)

    def end(self) -> None:
        """See `Sink`."""

    @property
    def data(self) -> bytes:
        """The whole body."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class Content:
    """Checksums the body, which is the content of an object or the next piece of it.

    Attributes:
        size: bytes so far, those of earlier pieces included.
        crc32c: their checksum.
        md5: their other checksum, where it is asked for.
        kept: the bytes themselves, where they are to be kept.
    """

    __slots__ = ("crc32c", "kept", "md5", "size")

    def __init__(self, *, with_md5: bool, keeps: bool = False) -> None:
        self.size = 0
        self.crc32c = 0
        self.md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None
        self.kept = bytearray() if keeps else None

    def feed(self, data: bytes) -> None:
        """See `Sink`."""
        self.size += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        if self.md5 is not None:
            self.md5.update(data)
        if self.kept is not None:
            self.kept += data

    def end(self) -> None:
        """See `Sink`."""


class Related:
    """A ``multipart/related`` body: a part of JSON, and one that goes to another sink.

    Line ends may be bare line feeds, as one of the clients writes them.

    Attributes:
        metadata: the first part, once it is there.
        content_type: the type of the second part, or empty.
    """

    __slots__ = ("_boundary", "_held", "_in_content", "_target", "content_type", "metadata")

    def __init__(self, boundary: bytes, target: Sink) -> None:
        self._boundary = b"--" + boundary
        self._target = target
        self._held = b""
        self._in_content = False
        self.metadata = b""
        self.content_type = ""

    def feed(self, data: bytes) -> None:
        """See `Sink`."""
        if not self._in_content:
            held = self._held + data
            begin = self._read_head(held)
            if begin < 0:
                self._held = held
                return
            self._in_content = True
            self._held, data = b"", held[begin:]
        # Where the last boundary begins, which is no part of the content, shows at the end only: the last
        # piece is held back. Whole pieces are passed on without a copy.
        if len(data) >= _TAIL_BYTES:
            self._target.feed(self._held)
            self._held = data
        else:
            held = self._held + data
            self._target.feed(held[:-_TAIL_BYTES])
            self._held = held[-_TAIL_BYTES:]

    def end(self) -> None:
        """See `Sink`.

        Raises:
            ValueError: the body is no such body.
        """
        end = self._held.rfind(self._boundary + b"--")
        if not self._in_content or end < 0:
            raise ValueError("no multipart body of two parts")
        end -= 2 if self._held[end - 2 : end] == b"\r\n" else 1
        self._target.feed(self._held[:end])
        self._target.end()

    def _read_head(self, held: bytes) -> int:
        """Take the first part and the headers of the second; where the content begins, or -1."""
        line_end = held.find(b"\n")
        newline = b"\r\n" if held[line_end - 1 : line_end] == b"\r" else b"\n"
        headers_end = held.find(newline * 2)
        part_end = held.find(newline + self._boundary, headers_end + 1)
        content = held.find(newline * 2, part_end + len(newline))
        if min(line_end, headers_end, part_end, content) < 0:
            return -1
        self.metadata = held[headers_end + 2 * len(newline) : part_end]
        for line in held[part_end + len(newline) : content].split(newline)[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-type":
                self.content_type = value.strip().decode("latin-1")
        return content + 2 * len(newline)


class Dechunked:
    """Undoes chunked transfer coding (RFC 9112, 7.1) before another sink; trailers are skipped."""

    __slots__ = ("_held", "_left", "_target")

    def __init__(self, target: Sink) -> None:
        self._target = target
        self._held = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take the next piece.

        Returns:
            What follows the body, possibly nothing, once it has ended; else None.
        """
        held = self._held + data if self._held else data
        position = 0
        while True:
            if self._left > 2:  # more than the line end after the chunk's data
                piece = held[position : position + self._left - 2]
                self._target.feed(piece)
                position += len(piece)
                self._left -= len(piece)
            if self._left:
                if len(held) - position < self._left or self._left > 2:
                    break
                position += self._left
                self._left = 0
            line_end = held.find(b"\r\n", position)
            if line_end < 0:
                break
            size = int(held[position:line_end].split(b";")[0], 16)
            if size == 0:
                end = held.find(b"\r\n\r\n", line_end)
                if end < 0:
                    break
                return held[end + 4 :]
            position = line_end + 2
            self._left = size + 2
        self._held = held[position:]
        return None
