"""A loopback HTTP proxy in front of an emulator: for each request a rule decides what becomes of it."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

#: Requests that carry content of objects, those that carry rows, and of these the ones that nothing makes
#: harmless when they are repeated.
UPLOADS = r"^(POST|PUT) /upload/storage/"
DELIVERIES = r"^(POST|PUT) .*(/insertAll|/upload/bigquery/.*/jobs)$"
STREAMS = r"^POST .*/insertAll$"

_TIMEOUT_SECONDS = 60.0
_SILENCE_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.02
#: Rules may wait: so many requests at most wait in them at the same time.
_THREADS_MAX = 64
#: Headers of one connection, which are not passed on (RFC 9110, 7.6.1); the length is counted anew.
_OWN_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived: `target` is its path and query as they were sent, `agent` is who sent it."""

    method: str
    target: str
    body: bytes
    agent: str = ""

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
    """An answer: the emulator's, or one that a rule gives in its place."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, reason: str, message: str) -> Answer:
    """An error with the JSON of Google's services."""
    reasons = [{"message": message, "domain": "global", "reason": reason}]
    content = {"error": {"code": status, "message": message, "errors": reasons}}
    return Answer(status, json.dumps(content).encode())


def unavailable() -> Answer:
    """What a service answers that is not well."""
    return refusal(503, "backendError", "try later")


class Loss(StrEnum):
    """What may be lost of a request; its connection is reset in the end."""

    #: The request is not passed on.
    REQUEST = "request lost"
    #: The request is served, and nothing comes instead of an answer.
    ANSWER = "answer lost"
    #: The request is served, and the connection ends in the middle of the answer.
    HALF_ANSWER = "answer cut"
    #: The request is not passed on, and the connection stays open for as long as the client waits.
    SWALLOWED_REQUEST = "request swallowed"
    #: The request is served, and the connection stays open for as long as the client waits.
    WITHHELD_ANSWER = "answer withheld"


@dataclass(frozen=True, slots=True)
class Outage:
    """Nothing listens for a while; the request is lost, and every connection is reset."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """A request is held back, and let go some time after its client has left; there is no answer.

    Attributes:
        seconds: how long after.
        whole: its holder is a proxy, which has taken the whole request and passes it on in any case. Else
            these are packets in the network: where the client ends its connection with a reset, they come to
            nothing.
    """

    seconds: float
    whole: bool


#: Called for each request before it is passed on, in a thread of its own: it may wait. None passes it on.
Rule = Callable[[Request], Answer | Loss | Outage | Held | None]


def held_until(released: threading.Event, pattern: str = UPLOADS) -> Rule:
    """Let uploads, or what else matches a pattern, wait for an event."""

    def rule(request: Request) -> None:
        if request.matches(pattern):
            released.wait(_TIMEOUT_SECONDS)

    return rule


class Proxy:
    """A running proxy; use as a context.

    Args:
        upstream: URL of the emulator.

    Attributes:
        url: where it answers.
        seen: all requests so far, in order of arrival.
        rule: decides what becomes of a request.
        answered: called in a thread with each answer of the emulator, before any of it is passed on.
        refuses: asked at each new connection whether to reset it at once.
        held: how many requests are held back.
        let_go, dropped: how many that were held were passed on after all, and how many came to nothing.
        failures: what went wrong in the proxy, in its rule, or in `answered`; a test should find none.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        # Bound and never listening, it keeps the port while nothing listens there.
        self._keeper = _bound(0)
        self._port: int = self._keeper.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.seen: list[Request] = []
        self.rule: Rule = lambda _: None
        self.answered: Callable[[Request, Answer], None] = lambda _request, _answer: None
        self.refuses: Callable[[], bool] = lambda: False
        self.failures: list[str] = []
        self.held = self.let_go = self.dropped = 0
        self._clients: set[asyncio.Transport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._started = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS_MAX)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_TIMEOUT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_TIMEOUT_SECONDS)
        self._keeper.close()
        self._threads.shutdown(wait=False)

    def count(self, pattern: str) -> int:
        """How many requests so far match a regular expression, as ``METHOD path``."""
        return sum(request.matches(pattern) for request in list(self.seen))

    # -- connections -------------------------------------------------------------------------------------

    async def _main(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._server = _Server(self._serve, access_log=None, auto_decompress=False)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        # The emulators may close what is idle at any moment: each request has a connection of its own.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=timeout
        ) as self._session:
            self._listen()
            self._started.set()
            await self._ended.wait()
            self._close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.shutdown(0)

    def _listen(self) -> None:
        # No asyncio.Server: it forgets to close what connects in the moment in which it is closed.
        self._listener = _bound(self._port)
        self._listener.settimeout(0)
        self._listener.listen()
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for client in list(self._clients):
            # One that has ended has no protocol any more.
            if isinstance(connection := client.get_protocol(), _Connection):
                connection.was_reset = True
            _reset(client)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            if self.refuses():
                _let_reset(connection)
                connection.close()
            else:
                self._spawn(self._connect(connection))

    async def _connect(self, connection: socket.socket) -> None:
        client, _ = await self._loop.connect_accepted_socket(self._server, connection)
        self._clients = {known for known in self._clients if not known.is_closing()} | {client}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_offline(self, seconds: float) -> None:
        self._close()
        await asyncio.sleep(seconds)
        self._listen()

    # -- requests ----------------------------------------------------------------------------------------

    async def _serve(self, message: web.BaseRequest) -> web.StreamResponse:
        client = message.transport
        try:
            if response := await self._answer(message):
                return response
        except (ConnectionError, web.RequestPayloadError):
            pass  # The client was killed, or reset by an outage.
        except aiohttp.ClientConnectionError:
            pass  # The emulator broke the connection: so does this end.
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failures.append(repr(error))
        if client is not None:
            _reset(client)
        return web.Response()

    async def _answer(self, message: web.BaseRequest) -> web.Response | None:
        """Do with a request what the rule says; the answer to give, or None: the connection is to end."""
        try:
            body = await message.content.read()
        except RuntimeError as error:
            # So aiohttp says that the client has gone while it sent.
            raise ConnectionError(str(error)) from error
        request = Request(message.method, message.raw_path, body, message.headers.get("User-Agent", ""))
        self.seen.append(request)
        outcome = await self._in_thread(self.rule, request)
        if isinstance(outcome, Answer):
            headers = {"Content-Type": "application/json", **outcome.headers}
            return web.Response(status=outcome.status, body=outcome.content, headers=headers)
        if isinstance(outcome, Outage):
            self._spawn(self._go_offline(outcome.seconds))
            return None
        if isinstance(outcome, Held):
            self.held += 1
            self._spawn(self._hold(message, request, outcome))
        if isinstance(outcome, Held) or outcome is Loss.SWALLOWED_REQUEST:
            await _wait_for_the_client_to_leave(message)
        if isinstance(outcome, Held) or outcome in (Loss.REQUEST, Loss.SWALLOWED_REQUEST):
            return None
        response = await self._forward(message, request)
        content = response.body
        assert isinstance(content, bytes)
        await self._in_thread(self.answered, request, Answer(response.status, content))
        if outcome is Loss.WITHHELD_ANSWER:
            await _wait_for_the_client_to_leave(message)
        elif outcome is Loss.HALF_ANSWER and message.transport is not None:
            announced = (
                f"HTTP/1.1 {response.status} x\r\nContent-Length: {len(content) or 1}\r\n\r\n".encode()
            )
            message.transport.write(announced + content[: len(content) // 2])
        return response if outcome is None else None

    async def _hold(self, message: web.BaseRequest, request: Request, held: Held) -> None:
        connection = message.protocol
        assert isinstance(connection, _Connection)
        try:
            await _wait_for_the_client_to_leave(message)
            # Only then is it known how it left.
            await asyncio.sleep(_POLL_SECONDS)
            if not held.whole and connection.was_reset:
                self.dropped += 1
                return
            await asyncio.sleep(held.seconds)
            await self._forward(message, request)
            self.let_go += 1
        except aiohttp.ClientConnectionError as error:
            self.failures.append(repr(error))
        finally:
            self.held -= 1

    async def _in_thread(self, act: Callable[..., Any], *arguments: object) -> Any:
        return await self._loop.run_in_executor(self._threads, act, *arguments)

    async def _forward(self, message: web.BaseRequest, request: Request) -> web.Response:
        # The Host header stays that of the proxy: the emulators make the addresses of upload sessions of it.
        headers = [item for item in message.headers.items() if item[0].lower() not in _OWN_HEADERS]
        async with self._session.request(
            request.method,
            URL(self._upstream + request.target, encoded=True),
            headers=headers,
            data=request.body,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        ) as answer:
            content = await answer.read()
        kept = [item for item in answer.headers.items() if item[0].lower() not in _OWN_HEADERS]
        return web.Response(status=answer.status, body=content, headers=kept)


class _Connection(web.RequestHandler):
    """Knows whether it was reset; a request's client may be killed while a rule is still being asked."""

    was_reset = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.was_reset |= isinstance(exc, ConnectionResetError)
        super().connection_lost(exc)


class _Server(web.Server):
    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)


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

    def set_rule(self, rule: Rule) -> None:
        """Let both follow a rule."""
        self.storage.rule = self.bigquery.rule = rule

    def forget(self) -> None:
        """Begin to count anew."""
        self.storage.seen.clear()
        self.bigquery.seen.clear()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(client: asyncio.Transport) -> None:
    """Close with RST, whatever was left unsaid."""
    with contextlib.suppress(OSError):
        _let_reset(client.get_extra_info("socket"))
    client.abort()


def _let_reset(connection: socket.socket) -> None:
    """Let a connection close with RST (SO_LINGER of no time, socket(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _wait_for_the_client_to_leave(message: web.BaseRequest) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE_SECONDS_MAX):
            # aiohttp tells of it by cancelling the whole handler, or not at all.
            while message.transport is not None and not message.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
