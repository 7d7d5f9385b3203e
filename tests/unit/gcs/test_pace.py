"""Uploads that hold to a pace: whole requests of the real store, in virtual time, over a fake transport."""

from collections.abc import Sequence
from typing import Any, Self

import anyio
import pytest

from pixaris_sync.errors import SyncError
from pixaris_sync.gcs.answers import encode_crc32c
from pixaris_sync.gcs.bodies import HEAD_BYTES
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.limits.bandwidth import (
    BURST_SECONDS,
    BYTES_PER_SECOND_MIN,
    WRITES_PER_SECOND_START,
    Bandwidth,
    Pace,
)
from tests.fakes.byte_source import MemorySource
from tests.fakes.virtual_clock import VirtualClock

RATE = 1_000_000


class Transport:
    """Takes requests as aiohttp's session does, in no time of its own; notes when each byte left.

    Attributes:
        sent: time and number of bytes, headers included.
        open_seconds: how long each request was open.
    """

    closed = False

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, int]] = []
        self.open_seconds: list[float] = []

    async def post(self, *_: Any, **options: Any) -> "Answer":
        return await self.request("POST", "", **options)

    async def request(
        self,
        _method: str,
        _url: str,
        *,
        data: Any = b"",
        **_: Any,
    ) -> "Answer":
        began = self.clock.elapsed()
        if not isinstance(data, bytes):
            self.sent.append((began, HEAD_BYTES))
            await data.write(self)
        self.open_seconds.append(self.clock.elapsed() - began)
        return Answer()

    async def write(self, piece: bytes | memoryview, *, drain: bool = True) -> None:  # noqa: ARG002 - as called
        self.sent.append((self.clock.elapsed(), len(piece)))

    async def close(self) -> None:
        self.closed = True

    @property
    def bytes(self) -> int:
        return sum(count for _, count in self.sent)


class Answer:
    """An answer that names an object, and a session."""

    status = 200
    headers = {"Location": "https://storage.googleapis.com/session"}  # noqa: RUF012 - as in an answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def json(self, **_: Any) -> dict[str, str]:
        return {"name": "a", "size": "1", "crc32c": CHECKSUM, "generation": "1"}


CHECKSUM = encode_crc32c(0)


def upload_all(
    sizes: Sequence[int], *, rate: float | None = RATE, emulated: bool = True, resumable: bool = False
) -> Transport:
    clock = VirtualClock()
    transport = Transport(clock)
    store = GcsObjectStore(
        "bucket",
        connections_limit=len(sizes),
        timeout_seconds=10,
        chunk_bytes=CHUNK_UNIT_BYTES,
        emulator_host="127.0.0.1:1" if emulated else None,
        pace=Pace(Bandwidth(rate), clock),
    )

    async def upload(size: int) -> None:
        content = bytes(size)
        options: dict[str, Any] = {"content_type": "image/png", "crc32c": 0, "if_generation": 0}
        if not resumable:
            await store.upload("a", content, **options)
            return

        async def keep(_: str) -> None:
            pass

        await store.upload_resumable("a", MemorySource(content), **options, session_uri=None, on_session=keep)

    async def go() -> None:
        connection = store._calls.connection
        storage, _ = connection._open()
        await connection._session.close()  # type: ignore[union-attr]
        storage.session._session = transport  # type: ignore[assignment]
        connection._session = transport  # type: ignore[assignment]
        connection._token = None
        async with anyio.create_task_group() as tasks:
            for size in sizes:
                tasks.start_soon(upload, size)

    clock.run(go)
    return transport


@pytest.mark.parametrize(
    "sizes", [pytest.param([4_096] * 2_000, marks=pytest.mark.large), [100_000] * 100, [5_000_000] * 3]
)
@pytest.mark.parametrize("rate", [BYTES_PER_SECOND_MIN, RATE, 20_000_000])
def test_uploads_take_as_long_as_the_limit_says(sizes: list[int], rate: int) -> None:
    """Goal: within 5 %, small files with their headers too. Method: all bytes against the time they took."""
    transport = upload_all(sizes, rate=rate)
    took = transport.clock.elapsed()
    assert transport.bytes > sum(sizes)
    assert transport.bytes / took == pytest.approx(rate, rel=0.05, abs=64 * 1024 / took)


def test_no_request_is_open_for_longer_than_its_time_limit() -> None:
    """Goal: waiting for bandwidth is no time-out. Method: the slowest rate, 64 uploads for 20 minutes."""
    transport = upload_all([1_250_000] * 64, rate=BYTES_PER_SECOND_MIN)
    assert transport.clock.elapsed() > 1_200
    assert max(transport.open_seconds) < 25


def test_a_request_that_stands_still_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: that limit, on the clock of the test above. Method: a connection that takes nothing any more."""

    async def stand_still(transport: Transport, _: bytes | memoryview) -> None:
        await transport.clock.sleep(3_600)

    monkeypatch.setattr(Transport, "write", stand_still)
    with pytest.RaisesGroup(pytest.RaisesExc(SyncError, match="no answer within the time limit")):
        upload_all([1_250_000], rate=BYTES_PER_SECOND_MIN)


def test_resumable_uploads_hold_to_it_too() -> None:
    """Goal: one limit for all. Method: chunks of files in sessions."""
    transport = upload_all([1_500_000] * 4, resumable=True)
    assert transport.clock.elapsed() == pytest.approx(transport.bytes / RATE, abs=0.2)


def test_without_a_limit_nothing_waits() -> None:
    """Goal: no limit, no cost. Method: virtual time does not pass."""
    assert upload_all([1_500_000] * 4, rate=None).clock.elapsed() == 0


def test_a_bucket_of_google_is_given_time_to_grow_and_an_emulator_needs_none() -> None:
    """Goal: Google's guideline. Method: more uploads at once than a second may have, at both."""
    sizes = [10] * 3_000
    assert upload_all(sizes, rate=None).clock.elapsed() == 0
    took = upload_all(sizes, rate=None, emulated=False).clock.elapsed()
    assert took == pytest.approx(3_000 / WRITES_PER_SECOND_START, abs=BURST_SECONDS + 0.01)
