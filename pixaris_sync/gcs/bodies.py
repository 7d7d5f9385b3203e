"""Bodies with the content of objects, piece by piece: sent out of the memory that they are in, or received.

Sources: "Upload an object in a single-request upload, with metadata" and "Transcoding of gzip-compressed
files" of the product's documentation, RFC 2046, 5.1.1, for multipart bodies, and linux/tcp.h for what a
socket tells of itself.
"""

import json
import secrets
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

import aiohttp
import google_crc32c
from msgspec import Struct

from pixaris_sync.limits.bandwidth import PIECE_BYTES, PacedBody
from pixaris_sync.model import RemoteObject

if TYPE_CHECKING:
    import asyncio

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.connector import Connection
    from aiohttp.http_writer import StreamWriter

#: Unlike any content: 128 random bits, chosen anew by each process.
_BOUNDARY = secrets.token_hex(16)
_METADATA_HEAD = f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode("ascii")
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode("ascii")

#: Bodies up to this are joined: to copy them costs less than to send their parts.
JOINED_BYTES_MAX = 16 * 1024
#: Larger ones are sent in such pieces, unless they are held to a pace: larger pieces gain nothing. Where one
#: is enough, nobody waits until the connection has taken it.
UNPACED_PIECE_BYTES = 256 * 1024

#: No piece of what is downloaded is larger, before it is unpacked and after.
RECEIVED_PIECE_BYTES: Final = 256 * 1024
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS

MULTIPART_CONTENT_TYPE = f"multipart/related; boundary={_BOUNDARY}"

#: A request's line and headers, about; Google's tokens alone have some 200 bytes.
HEAD_BYTES = 500
#: The same, and what a multipart body has around its content.
MULTIPART_HEAD_BYTES = HEAD_BYTES + 350


class Transfer(Struct):
    """How far a request has come.

    Attributes:
        pace: what its content holds to on the way; None: nothing.
        begun: something of its content has left this machine.
        waits: it waits for its turn, by its pace.
        received_bytes: so much of the content of its answer has been handed on.
        connection: what it goes through; None until there is one.
    """

    pace: PacedBody | None = None
    begun: bool = False
    waits: bool = False
    received_bytes: int = 0
    connection: "asyncio.BaseTransport | None" = None

    def moved_bytes(self) -> tuple[int, int] | None:
        """How many bytes the other end has acknowledged and has sent on this connection; None: who knows.

        What was handed to the system says nothing of that: it holds back megabytes.
        """
        if self.connection is None:
            return None
        try:
            info = self.connection.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES
            )
            acknowledged, received = struct.unpack_from("=QQ", info, _TCP_INFO_MOVED)
        except (AttributeError, OSError, ValueError, struct.error):
            # No connection over TCP, or one that has been closed, which each event loop tells in its own way.
            return None
        return acknowledged, received

    async def turn(self, byte_count: int) -> None:
        """Wait until the next piece may be sent."""
        if self.pace is not None:
            self.waits = True
            await self.pace.piece(byte_count)
            self.waits = False


#: Where ``tcpi_bytes_acked`` and ``tcpi_bytes_received`` stand in Linux' ``tcp_info``, and where they end.
_TCP_INFO_MOVED = 120
_TCP_INFO_BYTES = 136

_transfer: ContextVar[Transfer | None] = ContextVar("_transfer", default=None)


def begin_transfer(pace: PacedBody | None = None) -> Transfer:
    """Follow the next request that is sent from here; its content tells how far it has come."""
    transfer = Transfer(pace)
    _transfer.set(transfer)
    return transfer


class TracedRequest(aiohttp.ClientRequest):
    """A request that tells its transfer which connection it got."""

    async def send(self, conn: "Connection") -> aiohttp.ClientResponse:
        """See `aiohttp.ClientRequest`."""
        if (transfer := _transfer.get()) is not None:
            transfer.connection = conn.transport
        return await super().send(conn)


class ContentBody(aiohttp.Payload):
    """A body made of parts that are never joined, unless they are small.

    Args:
        parts: the body, in order.
        content_type: of the body.
    """

    _autoclose = True  # Nothing to give back.

    def __init__(self, parts: Sequence[bytes], content_type: str) -> None:
        super().__init__(parts, content_type=content_type)
        self._parts = parts
        self._size: int = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The whole body as text."""
        return b"".join(self._parts).decode(encoding, errors)

    async def write(self, writer: "AbstractStreamWriter") -> None:
        """Send it, waiting wherever the connection is slower, or has to be."""
        transfer = _transfer.get() or Transfer()
        transfer.begun = True
        if transfer.pace is None:
            waits = self._size > UNPACED_PIECE_BYTES
            for piece in self._pieces(UNPACED_PIECE_BYTES):
                await cast("StreamWriter", writer).write(piece, drain=waits)
            return
        # The headers have left, or leave with the first piece.
        await transfer.turn(HEAD_BYTES)
        for piece in self._pieces(PIECE_BYTES):
            await transfer.turn(len(piece))
            await writer.write(piece)

    def _pieces(self, piece_bytes: int) -> Iterator[bytes | memoryview]:
        if self._size <= min(piece_bytes, JOINED_BYTES_MAX):
            yield b"".join(self._parts)
            return
        for part in self._parts:
            view = memoryview(part)
            for start in range(0, len(part), piece_bytes):
                yield view[start : start + piece_bytes]


def multipart_body(
    name: str, content: bytes, content_type: str, checksum: str, metadata: Mapping[str, str] | None = None
) -> ContentBody:
    """Metadata and content of an object in one request.

    Args:
        name: the object's name.
        content: all of it.
        content_type: its MIME type.
        checksum: its crc32c, as the API writes it.
        metadata: texts of the writer's own.
    """
    own = f', "metadata": {json.dumps(dict(metadata))}' if metadata else ""
    # The checksum is in base64: nothing of it needs to be escaped.
    resource = f'{{"crc32c": "{checksum}", "name": {json.dumps(name)}{own}}}'
    between = f"{resource}\r\n--{_BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n".encode("ascii")
    return ContentBody((_METADATA_HEAD + between, content, _TAIL), MULTIPART_CONTENT_TYPE)


class Content:
    """What has arrived of an object's content.

    An object whose metadata says that its content is compressed comes as it is stored to whoever takes gzip,
    and its checksum is that of the compressed bytes. What the service compresses on the way alone has the
    checksum of the content.

    Args:
        encoding: the answer's Content-Encoding; gzip is unpacked.
    """

    def __init__(self, encoding: str) -> None:
        self._unpacker = zlib.decompressobj(_GZIP_BITS) if encoding.strip().lower() == "gzip" else None
        self._transfer = _transfer.get() or Transfer()
        #: Size and checksum of what came, and of what it was unpacked to.
        self._arrived, self._unpacked = (0, 0), (0, 0)

    def pieces(self, received: bytes) -> Iterator[bytes]:
        """The content that is in what was received.

        Raises:
            ValueError: it is not compressed as its encoding says.
        """
        self._transfer.received_bytes += len(received)
        self._arrived = _extended(self._arrived, received)
        if self._unpacker is None:
            yield received
            return
        piece = None
        # A full piece may not have been all that was unpacked.
        while received or piece is None or len(piece) == RECEIVED_PIECE_BYTES:
            try:
                piece = self._unpacker.decompress(received, RECEIVED_PIECE_BYTES)
            except zlib.error as error:
                raise ValueError("no gzip") from error
            received = self._unpacker.unconsumed_tail
            self._unpacked = _extended(self._unpacked, piece)
            if piece:
                yield piece

    def is_of(self, found: RemoteObject) -> bool:
        """Whether this is all of an object; by its size alone where no checksum of it is known."""
        if self._unpacker is not None and not self._unpacker.eof:
            return False
        ways = (self._arrived,) if self._unpacker is None else (self._arrived, self._unpacked)
        if found.crc32c is None:
            return any(size == found.size for size, _ in ways)
        return any(crc32c == found.crc32c for _, crc32c in ways)


def _extended(before: tuple[int, int], piece: bytes) -> tuple[int, int]:
    size, crc32c = before
    return size + len(piece), google_crc32c.extend(crc32c, piece)
