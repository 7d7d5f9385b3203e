"""How GcsObjectStore asks for folders and contents, and what it makes of answers that are not whole."""

import gzip
import zlib

import google_crc32c
import pytest
from aiohttp import web

from pixaris_sync.errors import ConfigurationError, Failure, ObjectGoneError
from pixaris_sync.gcs.bodies import RECEIVED_PIECE_BYTES
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.model import RemoteObject
from tests.support.scripted_gcs import (
    CONTENT,
    CRC32C,
    NAME,
    Handler,
    Script,
    failure_of,
    gives_object,
    refuses,
    says,
)

pytestmark = pytest.mark.anyio

FOUND = RemoteObject(NAME, len(CONTENT), CRC32C, 7)


async def download(store: GcsObjectStore, found: RemoteObject = FOUND) -> bytes:
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    await store.download(found, write)
    assert all(0 < len(piece) <= RECEIVED_PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


async def test_folders_are_asked_for_page_by_page(store: GcsObjectStore, script: Script) -> None:
    """Goal: the service tells names alone. Method: two pages, of which the first has only files."""
    script.answers = [
        says(200, {"nextPageToken": "more", "items": [{}]}),
        says(200, {"prefixes": ["results/a b/", "results/c/"]}),
    ]
    assert [page async for page in store.folders("results/")] == [("a b", "c")]
    first, second = (seen.query for seen in script.seen)
    assert first == {
        "prefix": "results/",
        "delimiter": "/",
        "fields": "prefixes,nextPageToken",
        "maxResults": "1000",
    }
    assert second == first | {"pageToken": "more"}


async def test_a_download_asks_for_the_generation_that_was_found(
    store: GcsObjectStore, script: Script
) -> None:
    """Goal: one request, for the very object, with a token. Method: read it."""
    script.answers = [says(200, CONTENT)]
    assert await download(store) == CONTENT
    (seen,) = script.seen
    assert (seen.method, seen.path) == ("GET", "/storage/v1/b/bucket/o/results%2Fp%2Fd%2Fr%2Fargs.json")
    assert seen.query == {"alt": "media", "generation": "7"}
    assert seen.authorization == "Bearer secret-token-1"


async def stops(request: web.Request) -> web.StreamResponse:
    """Send a part of the content."""
    response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
    await response.prepare(request)
    await response.write(CONTENT[:3])
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    "answer",
    [
        stops,
        says(200, CONTENT[:3]),
        says(200, b"another"),
        says(200, b"another", headers={"Content-Encoding": "gzip"}),
        says(200, gzip.compress(CONTENT)[:-9], headers={"Content-Encoding": "gzip"}),
        says(503),
        says(302, headers={"Location": "http://127.0.0.1:9/"}),
    ],
    ids=["broken off", "shorter", "other", "no gzip", "half of a gzip", "503", "redirect"],
)
async def test_a_content_that_is_not_whole_can_be_asked_for_again(
    store: GcsObjectStore, script: Script, answer: Handler
) -> None:
    """Goal: nothing but the stored bytes passes, and no redirect is followed. Method: one damage each."""
    script.answers = [answer]
    assert (await failure_of(download(store))).failure is Failure.TRANSIENT
    assert len(script.seen) == 1


@pytest.mark.parametrize("stored", [True, False], ids=["stored compressed", "compressed on the way"])
@pytest.mark.parametrize("size", [0, 7, RECEIVED_PIECE_BYTES, 40 * RECEIVED_PIECE_BYTES + 1])
async def test_a_compressed_content_is_unpacked_and_checked(
    store: GcsObjectStore, script: Script, size: int, *, stored: bool
) -> None:
    """Goal: what comes is the content, in pieces of bounded size.

    Method: the checksum is that of the compressed bytes, as the service tells it, or of the content. A
    content that shrinks a thousandfold.
    """
    content = bytes(size)
    packed = gzip.compress(content)
    known = packed if stored else content
    script.answers = [says(200, packed, headers={"Content-Encoding": "gzip"})]
    found = RemoteObject(NAME, len(known), google_crc32c.value(known), 7)
    assert zlib.crc32(await download(store, found)) == zlib.crc32(content)


async def test_without_a_checksum_the_size_must_do(store: GcsObjectStore, script: Script) -> None:
    """Goal: an object whose checksum nobody tells can be read. Method: the right size, and another."""
    unknown = RemoteObject(NAME, len(CONTENT), None, 7)
    script.answers = [says(200, CONTENT), says(200, CONTENT[:3])]
    assert await download(store, unknown) == CONTENT
    assert (await failure_of(download(store, unknown))).failure is Failure.TRANSIENT


@pytest.mark.parametrize(
    "now", [refuses(404, "notFound"), says(200, {"name": NAME, "size": "1", "generation": "8"})]
)
async def test_an_object_that_was_deleted_or_replaced_is_gone(
    store: GcsObjectStore, script: Script, now: Handler
) -> None:
    """Goal: the service's plain text is not taken for a proxy's. Method: it answers so; a look-up tells."""
    script.answers = [says(404, b"No such object: bucket/name"), now]
    assert isinstance(await failure_of(download(store)), ObjectGoneError)


async def test_a_refusal_in_plain_text_is_explained_by_a_look_up(
    store: GcsObjectStore, script: Script
) -> None:
    """Goal: a missing permission is told as such, a proxy too. Method: both answers, then the object's."""
    message = "x@y.z does not have storage.objects.get access to the object."
    script.answers = [says(403, message.encode()), refuses(403, "forbidden", message)]
    denied = await failure_of(download(store))
    assert denied.failure is Failure.PERMISSION
    assert "storage.objects.get" in denied.hint
    script.answers = [says(404, b"<html>"), gives_object()]
    assert (await failure_of(download(store))).failure is Failure.TRANSIENT
    script.answers = [refuses(401), refuses(401)]
    assert isinstance(await failure_of(download(store)), ConfigurationError)
