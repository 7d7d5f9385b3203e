"""A request's time limit is one of standing still."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import google_crc32c
import pytest

from pixaris_sync.errors import Failure
from pixaris_sync.gcs.bodies import Transfer
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.model import RemoteObject
from tests.support.scripted_gcs import NAME, Script, failure_of, open_store

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 20.0
TIMEOUT_SECONDS = 1.0
CONTENT = bytes(4 * 1024 * 1024)
ANSWER = f'{{"name": "{NAME}", "size": "{len(CONTENT)}", "crc32c": "AAAAAA==", "generation": "1"}}'.encode()

Serve = Callable[[anyio.abc.SocketStream], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, script: Script, folder: Path) -> AsyncIterator[GcsObjectStore]:
    """A store whose service is this."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - a socket's attribute
        url = f"http://127.0.0.1:{port}"
        with anyio.fail_after(PATIENCE_SECONDS):
            async with open_store(script, folder, api_root=url, timeout_seconds=TIMEOUT_SECONDS) as store:
                yield store
        group.cancel_scope.cancel()


async def upload(store: GcsObjectStore, content: bytes = CONTENT) -> RemoteObject:
    crc32c = google_crc32c.value(content)
    return await store.upload(NAME, content, content_type="image/png", crc32c=crc32c, if_generation=0)


async def dribble(stream: anyio.abc.SocketStream) -> None:
    """Answer, a few bytes at a time: in all it takes twice as long as the limit."""
    async with stream:
        await stream.receive()
        await answer_slowly(stream)


async def answer_slowly(stream: anyio.abc.SocketStream) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()
    whole = head + ANSWER
    for start in range(0, len(whole), 8):
        await stream.send(whole[start : start + 8])
        await anyio.sleep(2 * TIMEOUT_SECONDS * 8 / len(whole))


async def take_a_part(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        await stream.receive(1000)
        await anyio.sleep_forever()


async def test_an_answer_may_come_slowly(script: Script, tmp_path: Path) -> None:
    """Goal: a long listing over a slow link. Method: an answer that takes twice the limit in small pieces."""
    async with served(dribble, script, tmp_path) as store:
        found = await store.stat(NAME)
    assert found is not None
    assert found.generation == 1


async def test_a_body_of_which_nothing_moves_is_given_up_after_the_limit(
    script: Script, tmp_path: Path
) -> None:
    """Goal: a dead link is noticed however large the body is. Method: a reader who stops soon."""
    async with served(take_a_part, script, tmp_path) as store:
        assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT


async def test_of_requests_side_by_side_the_one_that_stands_still_is_given_up(
    script: Script, tmp_path: Path
) -> None:
    """Goal: each has a limit of its own. Method: an answer that comes slowly, and meanwhile none."""
    found: list[RemoteObject | None] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            if (await stream.receive(1000)).startswith(b"POST"):
                await anyio.sleep_forever()
            await answer_slowly(stream)

    async def look_up(store: GcsObjectStore) -> None:
        found.append(await store.stat(NAME))

    async with served(serve, script, tmp_path) as store, anyio.create_task_group() as group:
        group.start_soon(look_up, store)
        for _ in range(2):
            await anyio.sleep(TIMEOUT_SECONDS / 4)
            began = anyio.current_time()
            assert (await failure_of(upload(store, b"content"))).failure is Failure.IN_DOUBT
            assert anyio.current_time() - began >= TIMEOUT_SECONDS
    [answered] = found
    assert answered is not None


async def test_a_connection_that_was_closed_tells_nothing() -> None:
    """Goal: the limit holds for a request whose connection breaks. Method: ask before and after."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - a socket's attribute
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        transfer = Transfer(connection=writer.transport)
        assert transfer.moved_bytes() is not None
        writer.close()
        await writer.wait_closed()
        assert transfer.moved_bytes() is None


async def test_where_the_system_tells_nothing_a_body_has_the_time_of_a_slow_link(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: other systems, too. Method: no word of what moves; more time for a larger body."""
    monkeypatch.setattr(Transfer, "moved_bytes", lambda _: None)
    content = bytes(96 * 1024)
    async with served(take_a_part, script, tmp_path) as store:
        began = anyio.current_time()
        assert (await failure_of(upload(store, content))).failure is Failure.IN_DOUBT
        assert anyio.current_time() - began >= TIMEOUT_SECONDS + 1.5


FOUND = RemoteObject(NAME, len(ANSWER), google_crc32c.value(ANSWER), 1)


@pytest.mark.parametrize("told", [True, False], ids=["by the system", "by what arrives"])
async def test_a_download_may_come_slowly(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """Goal: a large image over a slow link, on any system. Method: it takes twice the limit."""
    if not told:
        monkeypatch.setattr(Transfer, "moved_bytes", lambda _: None)
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    async with served(dribble, script, tmp_path) as store:
        await store.download(FOUND, write)
    assert b"".join(pieces) == ANSWER


async def test_a_download_that_stands_still_is_given_up(script: Script, tmp_path: Path) -> None:
    """Goal: a dead link is noticed in the middle of a content. Method: half of it, and nothing more."""

    async def stop_halfway(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode())
            await stream.send(ANSWER[:9])
            await anyio.sleep_forever()

    async def write(_: bytes) -> None: ...

    async with served(stop_halfway, script, tmp_path) as store:
        assert (await failure_of(store.download(FOUND, write))).failure is Failure.TRANSIENT
