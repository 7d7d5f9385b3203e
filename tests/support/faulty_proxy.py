"""A loopback proxy in front of an emulator that behaves like a bad network: refuses, resets, delays, loses.

Faults are drawn from a seeded generator, one draw a request. Which request meets which draw depends on the
order in which real processes send them, so a seed repeats the weather and not each drop of rain.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.http_messages import Message, read_answer, read_request
from tests.support.proxy import Request

_HEAD_BYTES_MAX = 1024 * 1024
_SILENCE_SECONDS_MAX = 30.0
_STOP_SECONDS = 20.0
_GONE = (ConnectionError, asyncio.IncompleteReadError)


class Fault(StrEnum):
    """What may befall a request, or a connection."""

    #: The connection is reset as soon as it is made.
    RESET_CONNECTION = "connection reset"
    #: The request is not passed on, the connection is reset.
    LOST_REQUEST = "request lost"
    #: The request is served, the connection is reset instead of an answer.
    LOST_ANSWER = "answer lost"
    #: The request is not passed on, and no answer comes for as long as the client waits.
    SWALLOWED_REQUEST = "request swallowed"
    #: The request is served, and no answer comes for as long as the client waits.
    WITHHELD_ANSWER = "answer withheld"
    #: The request is served, and the connection is reset in the middle of the answer.
    CUT_ANSWER = "answer cut"
    #: The request is passed on a little later.
    DELAY = "delay"
    #: Nothing listens for a while, and what was connected is reset.
    OFFLINE = "offline"


class Moment(StrEnum):
    """When an observer is called."""

    #: The whole request is there and will be passed on; it has not been yet.
    ARRIVED = "arrived"
    #: The answer is there; the client has not seen any of it.
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the emulator's: its status and its content."""

    status: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Weather:
    """How often what goes wrong.

    Attributes:
        chances: of a request to meet a fault; for RESET_CONNECTION: of a connection.
        delay_seconds: the shortest and the longest DELAY.
        requests_between_outages: the fewest and the most.
        outage_seconds: the shortest and the longest time OFFLINE.
    """

    chances: Mapping[Fault, float]
    delay_seconds: tuple[float, float] = (0.01, 0.3)
    requests_between_outages: tuple[int, int] = (60, 200)
    outage_seconds: tuple[float, float] = (0.2, 1.0)


Observer = Callable[[Moment, Request, Answer | None], None]


class FaultyProxy:
    """A running proxy; use as a context.

    Args:
        upstream: URL of the emulator.
        seed: of the faults.
        weather: which faults, how often.
        observe: called for each request that is passed on and for each answer, in threads, one at a time for
            each request; the request waits for it.

    Attributes:
        url: where it answers.
        fired: how often each fault has happened.
        failures: what went wrong in the proxy or in its observer; a test that used it should find none.
    """

    def __init__(self, upstream: str, seed: str, weather: Weather, observe: Observer) -> None:
        self._upstream = urlsplit(upstream)
        self._random = random.Random(seed)  # noqa: S311 - faults need no secrecy
        self._weather: Weather | None = weather
        self._observe = observe
        # Bound and never listening, it keeps the port while nothing listens there.
        self._keeper = _bound(0)
        self._port: int = self._keeper.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.fired: Counter[Fault] = Counter()
        self.failures: list[str] = []
        self._until_outage = self._draw_calm(weather)
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_STOP_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_STOP_SECONDS)
        self._keeper.close()

    def heal(self) -> None:
        """No more faults from here on; an outage that has begun still ends by itself."""
        self._weather = None

    # -- life --------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._listen()
        self._started.set()
        await self._ended.wait()
        self._close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        # No asyncio.Server: it forgets to close what connects in the moment in which it is closed.
        self._listener = _bound(self._port)
        self._listener.settimeout(0)
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for writer in list(self._clients):
            _reset(writer)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            self._spawn(self._converse(connection))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_offline(self, seconds: float) -> None:
        self._close()
        await asyncio.sleep(seconds)
        self._listen()

    # -- chance ------------------------------------------------------------------------------------------

    def _draw_calm(self, weather: Weather) -> int:
        return self._random.randint(*weather.requests_between_outages)

    def _draw(self) -> Fault | None:
        """What befalls the next request."""
        weather = self._weather
        if weather is None:
            return None
        self._until_outage -= 1
        if self._until_outage <= 0:
            self._until_outage = self._draw_calm(weather)
            return Fault.OFFLINE
        chance = self._random.random()
        for fault, share in weather.chances.items():
            if fault is Fault.RESET_CONNECTION:
                continue
            chance -= share
            if chance < 0:
                return fault
        return None

    def _connection_is_reset(self) -> bool:
        weather = self._weather
        chance = weather.chances.get(Fault.RESET_CONNECTION, 0.0) if weather else 0.0
        return self._random.random() < chance

    # -- serving -----------------------------------------------------------------------------------------

    async def _converse(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_HEAD_BYTES_MAX)
        self._clients.add(writer)
        try:
            if self._connection_is_reset():
                self.fired[Fault.RESET_CONNECTION] += 1
                _reset(writer)
                return
            while (message := await read_request(reader)) is not None:
                if not await self._serve(message, reader, writer):
                    return
        except _GONE:
            pass  # The client was killed, or reset by an outage.
        except asyncio.CancelledError:
            pass  # The test is over.
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failures.append(repr(error))
        finally:
            self._clients.discard(writer)
            _reset(writer)

    async def _serve(
        self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve a request; whether the connection goes on."""
        request = Request(message.first_line[0], message.first_line[1], message.body)
        fault = self._draw()
        if fault is not None:
            self.fired[fault] += 1
        if fault is Fault.OFFLINE and self._weather is not None:
            seconds = self._random.uniform(*self._weather.outage_seconds)
            self._spawn(self._go_offline(seconds))
            return False
        if fault in (Fault.LOST_REQUEST, Fault.SWALLOWED_REQUEST):
            if fault is Fault.SWALLOWED_REQUEST:
                await _wait_for_the_client_to_leave(reader)
            return False
        if fault is Fault.DELAY and self._weather is not None:
            await asyncio.sleep(self._random.uniform(*self._weather.delay_seconds))
        await self._tell(Moment.ARRIVED, request, None)
        answer = await self._forward(message, request)
        await self._tell(Moment.ANSWERED, request, Answer(int(answer.first_line[1]), answer.body))
        if fault is Fault.WITHHELD_ANSWER:
            await _wait_for_the_client_to_leave(reader)
        elif fault is Fault.CUT_ANSWER:
            writer.write(answer.raw[: len(answer.raw) * 2 // 3])
            await writer.drain()
        elif fault is not Fault.LOST_ANSWER:
            writer.write(answer.raw)
            await writer.drain()
            if answer.ends_connection:
                writer.write_eof()
                await _wait_for_the_client_to_leave(reader)
                return False
            return True
        return False

    async def _tell(self, moment: Moment, request: Request, answer: Answer | None) -> None:
        try:
            await asyncio.to_thread(self._observe, moment, request, answer)
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failures.append(repr(error))

    async def _forward(self, message: Message, request: Request) -> Message:
        assert self._upstream.hostname is not None
        reader, writer = await asyncio.open_connection(
            self._upstream.hostname, self._upstream.port, limit=_HEAD_BYTES_MAX
        )
        try:
            writer.write(message.raw)
            await writer.drain()
            return await read_answer(reader, bodiless=request.method == "HEAD")
        finally:
            _reset(writer)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST where anything was left unsaid (SO_LINGER of no time, socket(7))."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _wait_for_the_client_to_leave(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError, *_GONE):
        async with asyncio.timeout(_SILENCE_SECONDS_MAX):
            await reader.read(1)
