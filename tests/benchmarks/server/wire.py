"""HTTP/1.1 for the benchmark's server: only what storage clients send, and little time spent on it.

Answers are written `latency_seconds` after their request has arrived whole, as over a long line; requests of
other connections go on meanwhile.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, unquote_plus

from tests.benchmarks.server.bodies import Dechunked, Sink

_REASONS = {200: b"OK", 308: b"Resume Incomplete"}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Request:
    """A request's head. Names of headers are in lower case; the path's segments are unquoted."""

    method: str
    segments: list[str]
    query: dict[str, str]
    headers: dict[bytes, bytes]

    def header(self, name: bytes) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(slots=True)
class Answer:
    """What goes back.

    Attributes:
        status: of HTTP.
        body: of the answer.
        headers: besides those that every answer has.
        at_once: the latency is left out: for whoever asks about the benchmark.
        sent: called when it is on its way.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    at_once: bool = False
    sent: Callable[[], None] | None = None

    def encoded(self) -> bytes:
        """The answer as it goes over the wire."""
        extra = (
            "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) if self.headers else ""
        )
        return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
            self.status,
            _REASONS.get(self.status, b"Refused"),
            extra.encode(),
            len(self.body),
            self.body,
        )


def json_answer(document: Any, status: int = 200, **headers: str) -> Answer:
    """An answer of JSON."""
    return Answer(status, json.dumps(document).encode(), headers)


def refusal(status: int, reason: str, message: str = "") -> Answer:
    """An error as Google's APIs answer with."""
    message = message or reason
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return json_answer({"error": {"code": status, "message": message, "errors": errors}}, status)


#: Told a request's head, it gives a sink for the body and what to call for the answer when that has arrived.
Route = Callable[[Request], tuple[Sink, Callable[[], Answer]]]


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, route: Route, latency_seconds: Callable[[], float]) -> None:
        self._route = route
        self._latency_seconds = latency_seconds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._sink: Sink | None = None
        self._dechunked: Dechunked | None = None
        self._answer: Callable[[], Answer] | None = None
        self._left = 0
        self._closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transports have the methods without the class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._held:
            data, self._held = self._held + data, b""
        while data:
            if self._sink is None:
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    self._held = data
                    return
                self._begin(data[:end])
                data = data[end + 4 :]
            data = self._take(data)

    def _begin(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        method, target, _ = lines[0].split(b" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        path, _, query = target.decode("ascii").partition("?")
        # Some clients send whole addresses.
        if not path.startswith("/"):
            path = "/" + path.split("/", 3)[-1]
        request = Request(
            method.decode("ascii"),
            [unquote(part) for part in path.split("/")[1:]],
            _read_query(query),
            headers,
        )
        self._sink, self._answer = self._route(request)
        self._closes = headers.get(b"connection", b"").lower() == b"close"
        self._left = int(headers.get(b"content-length", 0))
        chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        self._dechunked = Dechunked(self._sink) if chunked else None
        if b"expect" in headers and self._transport is not None:
            self._transport.write(_CONTINUE)
        if not chunked and not self._left:
            self._finish()

    def _take(self, data: bytes) -> bytes:
        """Give the body what belongs to it; what follows it."""
        if self._sink is None:
            return data
        if self._dechunked is not None:
            rest = self._dechunked.feed(data)
            if rest is None:
                return b""
            self._finish()
            return rest
        mine = data if len(data) <= self._left else data[: self._left]
        self._sink.feed(mine)
        self._left -= len(mine)
        if not self._left:
            self._finish()
        return data[len(mine) :]

    def _finish(self) -> None:
        assert self._sink is not None
        assert self._answer is not None
        try:
            self._sink.end()
            answer = self._answer()
        except (ValueError, KeyError, TypeError) as error:
            answer = refusal(400, "badRequest", f"{type(error).__name__}: {error}")
        self._sink = self._answer = None
        latency = 0.0 if answer.at_once else self._latency_seconds()
        if latency:
            self._loop.call_later(latency, self._write, answer, self._closes)
        else:
            self._write(answer, self._closes)

    def _write(self, answer: Answer, closes: bool) -> None:  # noqa: FBT001 - for call_later, which has no keywords
        if answer.sent is not None:
            answer.sent()
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(answer.encoded())
        if closes:
            self._transport.close()


def _read_query(query: str) -> dict[str, str]:
    found = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        found[name] = unquote_plus(value) if "%" in value or "+" in value else value
    return found
