"""Whom connections to the bucket trust, also where its address is an emulator's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pixaris_sync.errors import SyncError
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.monitoring.heartbeat import Heartbeat
from tests.support.google import tls_of, write_authority

pytestmark = pytest.mark.anyio

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n" + b'{"name":"bucket"}'
)


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A server that the company's authority vouches for, and that says that a bucket is there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        writer.write(_ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls_of(tmp_path, "localhost"))
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.fixture(params=[True, False], ids=["trusted", "strange"])
def trusted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """Whether a variable names the authority."""
    if request.param:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(write_authority(tmp_path)))
    return bool(request.param)


async def test_an_emulator_by_https_is_trusted_as_google_is(address: str, *, trusted: bool) -> None:
    """Goal: no connection is made that is not verified. Method: a server of an authority, known and not."""
    store = GcsObjectStore(
        "bucket", emulator_host=address, connections_limit=1, timeout_seconds=5, chunk_bytes=256 * 1024
    )
    try:
        if trusted:
            await store.check()
            return
        with pytest.raises(SyncError, match="no secure connection"):
            await store.check()
    finally:
        await store.close()


async def test_a_heartbeat_by_https_is_trusted_so_too(address: str, *, trusted: bool) -> None:
    """Goal: the same of the address that is told that all is well. Method: the same."""
    heartbeat = Heartbeat(address)
    await heartbeat.beat()
    assert heartbeat.counts == {"ok": int(trusted), "failed": int(not trusted)}
