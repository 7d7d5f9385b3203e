"""Whole HTTP/1.1 messages from a stream, as they came and decoded."""

import asyncio
from dataclasses import dataclass, field

_BODILESS = (204, 304)


@dataclass(slots=True)
class Message:
    """A request or an answer as it came: `raw` is all of it, `body` what its encoding means."""

    first_line: list[str]
    raw: bytes
    body: bytes
    ends_connection: bool = False


@dataclass(slots=True)
class _Head:
    first_line: list[str]
    raw: bytes
    fields: dict[str, str] = field(default_factory=dict)


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return _Head(first.split(" ", 2), raw, {name.strip().lower(): text.strip() for name, _, text in pairs})


async def read_request(reader: asyncio.StreamReader) -> Message | None:
    """Read a request; None where the connection ends before one begins."""
    try:
        head = await _read_head(reader)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    raw, body = await _read_body(reader, head)
    return Message(head.first_line, head.raw + raw, body)


async def read_answer(reader: asyncio.StreamReader, *, bodiless: bool) -> Message:
    """Read an answer. `bodiless`: it is one to HEAD."""
    head = await _read_head(reader)
    status = int(head.first_line[1])
    if bodiless or status in _BODILESS:
        return Message(head.first_line, head.raw, b"")
    if "content-length" in head.fields or "transfer-encoding" in head.fields:
        raw, body = await _read_body(reader, head)
        return Message(head.first_line, head.raw + raw, body)
    body = await reader.read(-1)
    return Message(head.first_line, head.raw + body, body, ends_connection=True)


async def _read_body(reader: asyncio.StreamReader, head: _Head) -> tuple[bytes, bytes]:
    """The body as it was sent, and decoded (RFC 9112, 6 and 7.1)."""
    if "chunked" not in head.fields.get("transfer-encoding", ""):
        body = await reader.readexactly(int(head.fields.get("content-length", "0")))
        return body, body
    raw, decoded = bytearray(), bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        raw += line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        chunk = await reader.readexactly(size + 2)
        raw += chunk
        decoded += chunk[:-2]
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        raw += line
    return bytes(raw), bytes(decoded)
