"""Serves the page, its pictures, metrics and health over HTTP, to whoever may reach the address.

Read-only: GET and HEAD. A request costs at most one reading of the ledger, made in a thread over a connection
of its own, and there is at most one in `_FRESH_SECONDS`. While nobody asks, nothing runs: neither a timer nor
a reading.

Bounds: `_CONNECTIONS_MAX` connections at once, one request in each, `_REQUEST_SECONDS` for all of it, and
`_LINE_BYTES_MAX` for its address and each header.

A browser that visits other pages must not read this one for them. So the name that a request is for must be
one that this machine listens at (a foreign name can be made to lead here: DNS rebinding), and requests that
another site's page has a browser make are refused, but for following a link. See `guards`.
"""

import asyncio
import errno
import hashlib
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib import resources
from time import monotonic
from typing import Final

import anyio
from aiohttp import web
from anyio import to_thread
from msgspec.structs import replace

from pixaris_sync.errors import ConfigurationError, LedgerError, SyncError
from pixaris_sync.ledger.database import get_fact
from pixaris_sync.local.thumbnails import MEDIA_TYPE
from pixaris_sync.monitoring.guards import HEADERS, Names, refusal
from pixaris_sync.monitoring.page import ICON, SCRIPT, STYLE, Moment, page
from pixaris_sync.monitoring.sections import THUMBNAILS
from pixaris_sync.monitoring.thumbnails import Thumbnails
from pixaris_sync.monitoring.view import Reader, View
from pixaris_sync.pipeline.adoption import CHECKED
from pixaris_sync.pipeline.context import FOLDER
from pixaris_sync.pipeline.engine import Engine

log = logging.getLogger(__name__)

_CONNECTIONS_MAX: Final = 64
_LINE_BYTES_MAX: Final = 8 * 1024
_HEADERS_MAX: Final = 64
_REQUEST_SECONDS: Final = 30.0
#: How long the engine and its ledger may take to answer before they count as stuck.
_HEALTH_SECONDS: Final = 5.0
#: What was read so lately is shown again.
_FRESH_SECONDS: Final = 1.0
#: The speed is that of the last so many seconds, if at least so many are known.
_RATE_SECONDS: Final = 60.0
_RATE_SECONDS_MIN: Final = 2.0
#: In so many turns of the loop, what was accepted becomes a connection, or is refused and closed.
_TURNS_OF_ACCEPTING: Final = 4
#: How long an answer that is being given may take when the process ends.
_END_SECONDS: Final = 1.0
_OTHER_ADDRESS: Final = "let --listen name an address of this machine, such as 127.0.0.1:9465"
#: Errors of the system that somebody can do something about, each with what is wrong and what to do.
_CANNOT: Final[Mapping[int | None, tuple[str, str]]] = {
    errno.EADDRINUSE: (
        "another process listens there",
        "end it, or choose another port with --listen; port 0 takes a free one",
    ),
    errno.EADDRNOTAVAIL: ("this machine has no such address", _OTHER_ADDRESS),
    errno.EACCES: ("permission denied", "choose a port from 1024 on with --listen: those below are root's"),
}
_FILES: Final = {
    STYLE: "text/css",
    SCRIPT: "text/javascript",
    ICON: "image/svg+xml",
}
_NO_PICTURE: Final = "/no-picture.svg"

#: What aiohttp says of requests that it cannot read: anybody can send those, and it answers them.
_unheard = logging.getLogger(f"{__name__}.requests")
_unheard.disabled = True


@contextmanager
def listening(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Listen at a host and port; 0 takes a free one. Connections wait until `serve` takes them.

    Raises:
        ConfigurationError: that is not possible; the cause says why.
    """
    host, port = address
    try:
        # IPv4 first, where a name has both: whoever writes numbers writes those.
        found = sorted(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), key=lambda one: one[0])
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_CONNECTIONS_MAX)
            listener.setblocking(False)  # noqa: FBT003 - socket's own
        except OSError as error:
            raise _cannot_listen(host, port, error) from None
        yield listener


async def serve(
    engine: Engine,
    *,
    listener: socket.socket,
    named: str,
    reader: Reader,
    metrics: Callable[[], bytes] | None = None,
    limits: Callable[[], str] = str,
) -> None:
    """Serve until cancelled.

    Args:
        engine: what is shown.
        listener: as `listening` gives it.
        named: the host as the settings name it.
        reader: of the engine's ledger, for nobody else; it is closed at the end.
        metrics: gives them in Prometheus' text format 0.0.4; it is called in the thread that uses `reader`,
            and may use it too. None: there are none.
        limits: says what the process holds to.
    """
    names = Names(named, listener.getsockname()[0])
    log.info("serving status and metrics at http://%s/", names.shown(listener.getsockname()[1]))
    if not names.loopback:
        log.warning(
            "everybody who reaches %s:%d sees the names of projects, datasets and runs, problems, and small "
            "pictures of the images; there is no password",
            *listener.getsockname()[:2],
        )
    site = _Site(engine, names, reader, metrics, limits)
    server = web.Server(site.answer)
    loop = asyncio.get_running_loop()

    def connected() -> asyncio.BaseProtocol:
        if len(server.connections) >= _CONNECTIONS_MAX:
            return _Refused()
        connection = _Connection(
            server,
            loop=loop,
            logger=_unheard,
            access_log=_unheard,
            keepalive_timeout=_REQUEST_SECONDS,
            lingering_time=0,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            max_headers=_HEADERS_MAX,
        )
        loop.call_later(_REQUEST_SECONDS, connection.force_close)
        return connection

    accepting = await loop.create_server(connected, sock=listener)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.wait_for_start)
            await anyio.sleep_forever()
    finally:
        loop.remove_reader(listener)
        with anyio.CancelScope(shield=True):
            # What was accepted just now becomes a connection first: closing the server would leave it open.
            for _ in range(_TURNS_OF_ACCEPTING):
                await asyncio.sleep(0)
            accepting.close()
            await server.shutdown(_END_SECONDS)
            await site.close()


class _Refused(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(web.RequestHandler):
    """A connection; what cannot be read is refused with the same headers as everything else."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del request, exc, message
        return _finished(_text(status, "this request cannot be read"))


class _Site:
    """What is answered."""

    def __init__(
        self,
        engine: Engine,
        names: Names,
        reader: Reader,
        metrics: Callable[[], bytes] | None,
        limits: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._names = names
        self._reader = reader
        self._metrics = metrics
        self._limits = limits
        self._since = time.time()
        self._started = False
        self._thumbnails = Thumbnails(engine.context.settings.local_results_folder)
        # The reader and what is made of a view belong to one thread at a time.
        self._reading = anyio.CapacityLimiter(1)
        self._view: View | None = None
        self._read_at = float("-inf")
        self._made: tuple[View, Moment, bytes, str] | None = None
        self._rates: deque[tuple[float, int]] = deque()
        self._routes: dict[str, Callable[[web.BaseRequest], Awaitable[web.Response]]] = {
            "/": self._page,
            "/healthz": self._health,
            "/readyz": self._readiness,
            **({} if metrics is None else {"/metrics": self._exposition}),
            **{path: partial(_file, path) for path in _FILES},
        }

    async def wait_for_start(self) -> None:
        """Note when the engine has looked through the folder."""
        await self._engine.started()
        self._started = True

    async def close(self) -> None:
        """Give back what this holds."""
        self._thumbnails.close()
        await to_thread.run_sync(self._reader.close, limiter=self._reading)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        try:
            response = await self._answer(request)
        except LedgerError as error:
            response = _text(503, str(error))
        except Exception:
            log.exception("a request for %s could not be answered", request.path)
            response = _text(500, "this could not be answered; the log says why")
        return _finished(response)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if refused := refusal(request.headers, request.path, self._names):
            return _text(*refused)
        route = self._routes.get(request.path)
        if route is None and request.path.startswith(THUMBNAILS):
            route = self._picture
        if route is None:
            return _text(404, "there is nothing here")
        if request.method not in ("GET", "HEAD"):
            refused_method = _text(405, "this only shows: GET and HEAD")
            refused_method.headers["Allow"] = "GET, HEAD"
            return refused_method
        return await route(request)

    async def _page(self, request: web.BaseRequest) -> web.Response:
        moment = self._moment()
        content, etag = await to_thread.run_sync(self._current, moment, limiter=self._reading)
        response = web.Response(body=content, content_type="text/html", charset="utf-8")
        return _unless_known(request, response, etag, kept=False)

    async def _exposition(self, _: web.BaseRequest) -> web.Response:
        assert self._metrics is not None  # noqa: S101 - for the type checker: else there is no such route
        content = await to_thread.run_sync(self._metrics, limiter=self._reading)
        return web.Response(
            body=content, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _health(self, _: web.BaseRequest) -> web.Response:
        """200 while the engine's loop and its ledger answer."""
        trouble: SyncError | None = self._engine.context.journal.trouble
        if trouble is None:
            with anyio.move_on_after(_HEALTH_SECONDS):
                await self._engine.describe()
                return web.json_response({"status": "ok"})
        cause = str(trouble) if trouble else f"the ledger has not answered for {_HEALTH_SECONDS:g} s"
        return web.json_response({"status": "failing", "cause": cause}, status=503)

    async def _readiness(self, _: web.BaseRequest) -> web.Response:
        """200 once the folder was looked through, and bucket and dataset were seen."""
        if self._started and await self._engine.context.apply(get_fact, CHECKED) is not None:
            return web.json_response({"status": "ready"})
        cause = (
            "the destination could not be asked yet"
            if self._started
            else "the results folder is being listed"
        )
        return web.json_response({"status": "not ready", "cause": cause}, status=503)

    async def _picture(self, request: web.BaseRequest) -> web.Response:
        try:
            picture = await self._thumbnails.get(request.path.removeprefix(THUMBNAILS))
        except KeyError:
            return _text(404, "there is no picture of this id")
        if picture is None:
            return web.Response(body=_content(_NO_PICTURE), content_type="image/svg+xml")
        response = web.Response(body=picture.content, content_type=MEDIA_TYPE)
        return _unless_known(request, response, picture.etag)

    def _moment(self) -> Moment:
        context = self._engine.context
        held = str(context.hold).removeprefix("paused ") if context.hold.since is not None else None
        paused = context.journal.trouble or held or context.paused or context.gate(FOLDER).last_error
        return Moment(
            since=self._since,
            started=self._started,
            paused=str(paused) if paused else "",
            resting=tuple(f"{name} rests: {error}" for name, error in context.troubles.items()),
            limits=self._limits(),
        )

    # -- in the thread -----------------------------------------------------------------------------------

    def _look(self) -> View:
        now = monotonic()
        if self._view is None or now - self._read_at > _FRESH_SECONDS:
            self._view = self._reader.read()
            self._read_at = now
            self._rates.append((now, self._view.totals.bytes_sent))
            while now - self._rates[0][0] > _RATE_SECONDS:
                self._rates.popleft()
        return self._view

    def _current(self, moment: Moment) -> tuple[bytes, str]:
        """The page, and what tells it from others."""
        view = self._look()
        moment = replace(moment, bytes_per_second=self._rate())
        if self._made is None or self._made[:2] != (view, moment):
            content = page(view, moment, self._thumbnails.id_of)
            self._made = view, moment, content, hashlib.blake2b(content, digest_size=16).hexdigest()
        return self._made[2:]

    def _rate(self) -> float | None:
        (first_at, first), (last_at, last) = self._rates[0], self._rates[-1]
        seconds = last_at - first_at
        return (last - first) / seconds if seconds >= _RATE_SECONDS_MIN and last > first else None


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")


async def _file(path: str, request: web.BaseRequest) -> web.Response:
    content = _content(path)
    response = web.Response(body=content, content_type=_FILES[path], charset="utf-8")
    return _unless_known(request, response, hashlib.blake2b(content, digest_size=16).hexdigest())


@cache
def _content(path: str) -> bytes:
    return (resources.files(__package__) / "web" / path.removeprefix("/")).read_bytes()


def _unless_known(
    request: web.BaseRequest, response: web.Response, etag: str, *, kept: bool = True
) -> web.Response:
    """The response, or that the asker has it; `kept`: a browser may keep it, and asks whether it holds."""
    if any(known.value == etag for known in request.if_none_match or ()):
        response = web.Response(status=304)
    response.etag = etag
    if kept:
        response.headers["Cache-Control"] = "private, no-cache"
    return response


def _finished(response: web.Response) -> web.Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.force_close()
    return response


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    if isinstance(error, socket.gaierror):
        cause, hint = "no address of this name is known", _OTHER_ADDRESS
    else:
        cause, hint = _CANNOT.get(error.errno, (error.strerror or str(error), _OTHER_ADDRESS))
    return ConfigurationError("listen at", f"{host}:{port}", cause, hint=hint)
