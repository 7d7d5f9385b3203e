"""A loopback HTTP proxy in front of an emulator: it counts, and refuses, delays or drops what a test says."""

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

#: Requests that carry content of objects, and those that carry rows.
UPLOADS = r"^(POST|PUT) /upload/storage/"
DELIVERIES = r"^(POST|PUT) .*(/insertAll|/upload/bigquery/.*/jobs)$"

_TIMEOUT_SECONDS = 60.0
#: Headers of one connection, which are not passed on (RFC 9110, 7.6.1); the length is counted anew.
_OWN_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived: `target` is its path and query as they were sent."""

    method: str
    target: str
    body: bytes

    @property
    def path(self) -> str:
        """The path, unquoted."""
        return unquote(urlsplit(self.target).path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def matches(self, pattern: str) -> bool:
        """Whether a regular expression finds something in ``METHOD path``."""
        return re.search(pattern, str(self)) is not None

    def mentions(self, text: str) -> bool:
        """Whether a text stands in the address or in the body."""
        return text in unquote(self.target) or text.encode() in self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the proxy's own."""

    status: int
    content: Any


def refusal(status: int, reason: str, message: str) -> Answer:
    """An error with the JSON of Google's services."""
    reasons = [{"message": message, "domain": "global", "reason": reason}]
    return Answer(status, {"error": {"code": status, "message": message, "errors": reasons}})


def unavailable() -> Answer:
    """What a service answers that is not well."""
    return refusal(503, "backendError", "try later")


def _pass_on(_: Request) -> Answer | None:
    return None


def _note_nothing(_: Request) -> None:
    pass


class Proxy:
    """A running proxy.

    Attributes:
        url: where it answers.
        seen: all requests so far, in order of arrival.
        decide: called in the thread of each request, before it is passed on; it may wait. An answer is
            given instead of passing the request on.
        conclude: called once the emulator has answered, before its answer is passed on.
    """

    def __init__(self, upstream: str, url: str) -> None:
        self.url = url
        self.upstream = upstream
        self.seen: list[Request] = []
        self.decide: Callable[[Request], Answer | None] = _pass_on
        self.conclude: Callable[[Request], None] = _note_nothing

    def count(self, pattern: str) -> int:
        """How many requests so far match a regular expression, as ``METHOD path``."""
        return sum(request.matches(pattern) for request in list(self.seen))


@dataclass(frozen=True, slots=True)
class Proxies:
    """A proxy for each emulator."""

    storage: Proxy
    bigquery: Proxy

    @property
    def seen(self) -> list[str]:
        """All requests so far."""
        return [str(request) for request in [*self.storage.seen, *self.bigquery.seen]]

    @property
    def uploads(self) -> int:
        """How many requests so far carried content of objects."""
        return self.storage.count(UPLOADS)

    @property
    def deliveries(self) -> int:
        """How many requests so far carried rows; a load job makes two of them."""
        return self.bigquery.count(DELIVERIES)

    @property
    def environment(self) -> dict[str, str]:
        """What points at them."""
        return {"STORAGE_EMULATOR_HOST": self.storage.url, "BIGQUERY_EMULATOR_HOST": self.bigquery.url}

    def decide(self, rule: Callable[[Request], Answer | None]) -> None:
        """Let both decide so."""
        self.storage.decide = self.bigquery.decide = rule

    def forget(self) -> None:
        """Begin to count anew."""
        self.storage.seen.clear()
        self.bigquery.seen.clear()


@contextmanager
def proxy_for(upstream: str) -> Iterator[Proxy]:
    """Run a proxy for the emulator at the URL `upstream`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy = Proxy(upstream, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join(_TIMEOUT_SECONDS)
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client keeps its connections open for longer than the test lasts.
    block_on_close = False
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        # A client that is killed breaks its connections.
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        request = Request(self.command, self.path, self._read_body())
        proxy = self.server.proxy
        proxy.seen.append(request)
        answer = proxy.decide(request)
        if answer is None:
            self._forward(request, proxy.upstream)
        else:
            content = json.dumps(answer.content).encode()
            self._send(answer.status, [("Content-Type", "application/json")], content)

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    def _forward(self, request: Request, upstream: str) -> None:
        connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=_TIMEOUT_SECONDS)
        # The Host header stays that of the proxy: the emulators make the addresses of upload sessions of it.
        headers = {name: text for name, text in self.headers.items() if name.lower() not in _OWN_HEADERS}
        headers["Content-Length"] = str(len(request.body))
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, text in headers.items():
                connection.putheader(name, text)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            content = answer.read()
            self.server.proxy.conclude(request)
            kept = [(name, text) for name, text in answer.getheaders() if name.lower() not in _OWN_HEADERS]
            self._send(answer.status, kept, content)
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, text in headers:
            self.send_header(name, text)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
