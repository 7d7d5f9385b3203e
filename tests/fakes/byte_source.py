"""A file in memory, for uploads in pieces."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pixaris_sync.errors import LocalFileError


@dataclass
class MemorySource:
    """A ByteSource over bytes.

    Attributes:
        content: what it holds when the upload is planned.
        breaks_at: the offset from which on the file is gone; None for never.
        missing_bytes: how much shorter the file is than it was planned.
        on_read: called before each read.
        reads: offset and length of each read, in order.
    """

    content: bytes
    breaks_at: int | None = None
    missing_bytes: int = 0
    on_read: Callable[[], None] = lambda: None
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.content)

    async def read(self, offset: int, length: int) -> bytes:
        self.on_read()
        if self.breaks_at is not None and offset >= self.breaks_at:
            raise LocalFileError("read", "file", "it is gone")
        self.reads.append((offset, length))
        return self.content[: self.size - self.missing_bytes][offset : offset + length]
