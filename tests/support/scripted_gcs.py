"""A local server that answers the storage API by a script, and a store that takes it for Google.

The store's credentials file names the server as the token service too, so that tokens, renewals and messages
without secrets are tested on the way that is used in production.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import anyio
import google_crc32c
import pytest
from aiohttp import web
from google.oauth2.credentials import Credentials

from pixaris_sync.errors import SyncError
from pixaris_sync.gcs.answers import encode_crc32c
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.login.login import Login
from pixaris_sync.model import JsonValue, RemoteObject
from tests.fakes.byte_source import MemorySource
from tests.support.secrets import authorized_user, secrets_in, user_credentials

CONTENT = b"content"
CRC32C = google_crc32c.value(CONTENT)
NAME = "results/p/d/r/args.json"

#: What could lead a store elsewhere: proxies, and credentials of whoever runs the tests.
ENVIRONMENT = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy"),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str
    content_range: str
    content_type: str
    body: bytes


@dataclass
class Script:
    """A server of tokens and of the storage API, which gives each API request the next answer.

    Attributes:
        url: its address.
        answers: what to answer API requests with, in turn.
        token_answers: what to answer token requests with, before it begins to give tokens.
        seen: the API requests that arrived.
        tokens: how many tokens were given.
    """

    url: str = ""
    answers: list[Handler] = field(default_factory=list)
    token_answers: list[Handler] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    tokens: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Seen(
                request.method,
                request.raw_path.partition("?")[0],
                dict(request.query),
                request.headers.get("Authorization", ""),
                request.headers.get("Content-Range", ""),
                request.headers.get("Content-Type", ""),
                await request.read(),
            )
        )
        return await self.answers.pop(0)(request)

    async def give_token(self, request: web.Request) -> web.StreamResponse:
        if self.token_answers:
            return await self.token_answers.pop(0)(request)
        self.tokens += 1
        return web.json_response({"access_token": f"secret-token-{self.tokens}", "expires_in": 3600})


def says(
    status: int,
    body: JsonValue | bytes = b"",
    *,
    headers: dict[str, str] | None = None,
) -> Handler:
    """Answer with a status and a body, JSON unless it is bytes."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=payload, headers=headers)

    return handler


def refuses(
    status: int, reason: str = "", message: str = "", headers: dict[str, str] | None = None
) -> Handler:
    """Answer with Google's error body."""
    body = {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}
    return says(status, body, headers=headers)


def gives_object(content: bytes = CONTENT, crc32c: int | None = None) -> Handler:
    """Answer with an object resource."""
    checksum = google_crc32c.value(content) if crc32c is None else crc32c
    return says(
        200,
        {"name": NAME, "size": str(len(content)), "crc32c": encode_crc32c(checksum), "generation": "7"},
    )


def begins_session(script: Script) -> Handler:
    """Answer with the address of a session."""
    return says(200, headers={"Location": session_uri(script)})


def session_uri(script: Script) -> str:
    return f"{script.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id=secret-session"


async def breaks(request: web.Request) -> web.StreamResponse:
    """Take the request and break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def stops_halfway(request: web.Request) -> web.StreamResponse:
    """Announce an answer and send a part of it."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"name": "')
    assert request.transport is not None
    request.transport.close()
    return response


@asynccontextmanager
async def serve_script() -> AsyncIterator[Script]:
    """A scripted server on a free loopback port."""
    script = Script()
    app = web.Application(client_max_size=0)
    app.router.add_post("/token", script.give_token)
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield script
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_store(
    script: Script, folder: Path, *, api_root: str = "", token_uri: str = "", timeout_seconds: float = 10
) -> AsyncIterator[GcsObjectStore]:
    credentials = folder / "credentials.json"
    credentials.write_text(json.dumps(authorized_user(token_uri or f"{script.url}/token")))
    store = GcsObjectStore(
        "bucket",
        connections_limit=2,
        timeout_seconds=timeout_seconds,
        chunk_bytes=CHUNK_UNIT_BYTES,
        login=Login(timeout_seconds=timeout_seconds, endpoints={"storage": api_root or script.url}),
    )
    with (
        patch.dict(os.environ, GOOGLE_APPLICATION_CREDENTIALS=str(credentials)),
        patch.object(Credentials, "from_authorized_user_info", user_credentials),
    ):
        try:
            yield store
        finally:
            await store.close()


async def upload(store: GcsObjectStore, name: str = NAME) -> RemoteObject:
    return await store.upload(name, CONTENT, content_type="application/json", crc32c=CRC32C, if_generation=0)


async def list_all(store: GcsObjectStore) -> list[RemoteObject]:
    return [remote async for page in store.list("results/") for remote in page]


async def failure_of(call: Awaitable[object]) -> SyncError:
    """The error that a call raises; it and everything chained to it must be free of secrets."""
    with pytest.raises(SyncError) as caught:
        await call
    error: BaseException | None = caught.value
    text = f"{caught.value} {caught.value.hint} {caught.value.args}"
    while error is not None:
        text += f" {error!r} {error}"
        error = error.__cause__ or error.__context__
    assert secrets_in(text, "Bearer") == []
    return caught.value


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


LARGE = bytes(range(256)) * (3 * CHUNK_UNIT_BYTES // 256)


@dataclass
class Resumable:
    """A resumable upload of LARGE, and what it read and told."""

    store: GcsObjectStore
    source: MemorySource = field(default_factory=lambda: MemorySource(LARGE))
    uris: list[str] = field(default_factory=list)

    async def run(self, session_uri: str | None = None) -> RemoteObject:
        async def keep(uri: str) -> None:
            self.uris.append(uri)

        return await self.store.upload_resumable(
            NAME,
            self.source,
            content_type="image/png",
            crc32c=google_crc32c.value(LARGE),
            if_generation=0,
            session_uri=session_uri,
            on_session=keep,
        )


async def hangs(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await anyio.sleep_forever()
    raise AssertionError


def has_bytes(count: int) -> Handler:
    """Answer that a session has so many bytes."""
    return says(308, headers={"Range": f"bytes=0-{count - 1}"} if count else {})
