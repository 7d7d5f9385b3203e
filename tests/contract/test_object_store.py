"""What every ObjectStore promises: the fake, the adapter on emulators, the adapter on a real bucket.

A test that needs what an emulator is known not to have says so, and has to fail there: an emulator that has
learned it is noticed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import anyio
import google_crc32c
import pytest
from msgspec import structs

from pixaris_sync.errors import (
    ConfigurationError,
    Failure,
    LocalFileError,
    ObjectConflictError,
    ObjectGoneError,
    SyncError,
)
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES
from pixaris_sync.model import RemoteObject
from tests.contract.buckets import BucketBackend, Capability
from tests.fakes.byte_source import MemorySource

pytestmark = pytest.mark.anyio

PNG = "image/png"
AWKWARD_NAMES = [
    "plain.png",
    "with space.png",
    "100%.png",
    "%2F.png",
    "what?.png",
    "hash#tag.png",
    "a+b&c=d;e.png",
    "brackets[0]*.png",
    "quote'\".png",
    "back\\slash.png",
    "dots..png",
    "grüße-日本-🎨.png",
    "deep/er/and/deeper.png",
    "colon:at@comma,.png",
    "tilde~bang!.png",
]


def some_bytes(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311 - test data, seeded


async def upload(
    bucket: BucketBackend,
    name: str,
    content: bytes,
    if_generation: int = 0,
    content_type: str = PNG,
    metadata: Mapping[str, str] | None = None,
) -> RemoteObject:
    return await bucket.store.upload(
        bucket.prefix + name,
        content,
        content_type=content_type,
        crc32c=google_crc32c.value(content),
        if_generation=if_generation,
        metadata=metadata,
    )


async def names_listed(bucket: BucketBackend, prefix: str = "") -> list[str]:
    pages = [page async for page in bucket.store.list(bucket.prefix + prefix)]
    return [remote.name.removeprefix(bucket.prefix) for page in pages for remote in page]


@dataclass
class Sessions:
    """Keeps the URIs of begun sessions, as a ledger would."""

    uris: list[str] = field(default_factory=list)

    async def keep(self, uri: str) -> None:
        self.uris.append(uri)


async def upload_resumable(
    bucket: BucketBackend,
    name: str,
    source: MemorySource,
    sessions: Sessions,
    *,
    session_uri: str | None = None,
    if_generation: int = 0,
    crc32c: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> RemoteObject:
    return await bucket.store.upload_resumable(
        bucket.prefix + name,
        source,
        content_type=PNG,
        crc32c=google_crc32c.value(source.content) if crc32c is None else crc32c,
        if_generation=if_generation,
        session_uri=session_uri,
        on_session=sessions.keep,
        metadata=metadata,
    )


async def test_an_existing_bucket_passes_the_check(bucket: BucketBackend) -> None:
    """Goal: the check at start lets work begin. Method: check the bucket that the suite uses."""
    await bucket.store.check()


async def test_a_missing_bucket_is_a_configuration_error_everywhere(bucket: BucketBackend) -> None:
    """Goal: a wrong bucket name is told as such. Method: check, list and upload in no bucket."""
    with pytest.raises(ConfigurationError):
        await bucket.elsewhere.check()
    with pytest.raises(ConfigurationError):
        _ = [page async for page in bucket.elsewhere.list("results/")]
    with pytest.raises(ConfigurationError):
        await bucket.elsewhere.upload(
            "a", b"a", content_type=PNG, crc32c=google_crc32c.value(b"a"), if_generation=0
        )
    with pytest.raises(ConfigurationError):
        await bucket.elsewhere.upload_resumable(
            "a",
            MemorySource(b"a"),
            content_type=PNG,
            crc32c=google_crc32c.value(b"a"),
            if_generation=0,
            session_uri=None,
            on_session=Sessions().keep,
        )


async def test_an_uploaded_object_is_there_as_it_was_sent(bucket: BucketBackend) -> None:
    """Goal: bytes, type and receipt are right. Method: upload, read without the store, compare with stat."""
    content = some_bytes(10_000)
    receipt = await upload(bucket, "a.png", content)
    assert receipt.name == bucket.prefix + "a.png"
    assert receipt.size == len(content)
    assert receipt.crc32c == google_crc32c.value(content)
    assert receipt.generation > 0
    assert await bucket.read(receipt.name) == (content, PNG)
    assert await bucket.store.stat(receipt.name) == receipt


@pytest.mark.parametrize(
    "content",
    [b"", b"\r\n", b"\n--boundary\r\n\r\n--", bytes(range(256)), some_bytes(6 * 1024 * 1024)],
    ids=["empty", "line ends", "like a boundary", "every byte", "over 5 MB"],
)
async def test_any_content_survives_an_upload(bucket: BucketBackend, content: bytes) -> None:
    """Goal: the multipart body damages nothing. Method: contents like its syntax, and a large one."""
    receipt = await upload(bucket, "a.json", content, content_type="application/json")
    assert await bucket.read(receipt.name) == (content, "application/json")


@pytest.mark.parametrize("name", AWKWARD_NAMES)
async def test_every_allowed_name_is_kept(bucket: BucketBackend, name: str) -> None:
    """Goal: names are quoted rightly in bodies, paths and queries. Method: upload, look up, list by it."""
    receipt = await upload(bucket, name, b"content")
    assert receipt.name == bucket.prefix + name
    assert await bucket.store.stat(receipt.name) == receipt
    assert await names_listed(bucket, name) == [name]
    assert await names_listed(bucket) == [name]


@pytest.mark.needs(Capability.DOT_SEGMENTS)
async def test_a_name_with_dot_segments_is_kept(bucket: BucketBackend) -> None:
    """Goal: no part of the way tidies a name up. Method: the same with ``..`` between slashes."""
    receipt = await upload(bucket, "a/../b/./c.png", b"content")
    assert receipt.name == bucket.prefix + "a/../b/./c.png"
    assert await bucket.store.stat(receipt.name) == receipt
    assert await names_listed(bucket, "a/..") == ["a/../b/./c.png"]


async def test_content_that_is_not_its_checksum_is_refused(bucket: BucketBackend) -> None:
    """Goal: damage on the way is noticed and repeatable. Method: send the checksum of other content."""
    with pytest.raises(SyncError) as caught:
        await bucket.store.upload(
            bucket.prefix + "a.png",
            b"damaged",
            content_type=PNG,
            crc32c=google_crc32c.value(b"whole"),
            if_generation=0,
        )
    assert caught.value.failure is Failure.TRANSIENT
    assert await bucket.store.stat(bucket.prefix + "a.png") is None


async def test_a_replaced_object_has_a_higher_generation(bucket: BucketBackend) -> None:
    """Goal: generations tell versions apart. Method: replace an object, naming its generation."""
    first = await upload(bucket, "a.png", b"one")
    second = await upload(bucket, "a.png", b"two", if_generation=first.generation)
    assert second.generation > first.generation
    assert (await bucket.read(second.name))[0] == b"two"


@pytest.mark.needs(Capability.PRECONDITIONS)
async def test_an_upload_that_expects_another_generation_changes_nothing(bucket: BucketBackend) -> None:
    """Goal: nothing is overwritten unasked. Method: expect none, an old one, and one of no object."""
    first = await upload(bucket, "a.png", b"one")
    second = await upload(bucket, "a.png", b"two", if_generation=first.generation)
    for expected in (0, first.generation):
        with pytest.raises(ObjectConflictError):
            await upload(bucket, "a.png", b"three", if_generation=expected)
    with pytest.raises(ObjectConflictError):
        await upload(bucket, "b.png", b"three", if_generation=first.generation)
    assert await bucket.store.stat(second.name) == second
    assert await bucket.store.stat(bucket.prefix + "b.png") is None


@pytest.mark.needs(Capability.PRECONDITIONS)
async def test_one_of_many_that_create_an_object_at_once_succeeds(bucket: BucketBackend) -> None:
    """Goal: looking and writing are one step. Method: different contents at once, none of them to replace."""
    receipts: list[RemoteObject] = []
    refusals: list[SyncError] = []

    async def create(content: bytes) -> None:
        try:
            receipts.append(await upload(bucket, "a.png", content))
        except SyncError as error:
            refusals.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(create, bytes([number]) * 10_000)
    assert [await bucket.store.stat(bucket.prefix + "a.png")] == receipts
    # The service takes about one write a second for an object; of more it may ask for patience instead.
    assert all(isinstance(one, ObjectConflictError) or one.failure is Failure.QUOTA for one in refusals)


async def test_an_absent_object_is_none(bucket: BucketBackend) -> None:
    """Goal: looking up is no error. Method: look up a name that was never written."""
    assert await bucket.store.stat(bucket.prefix + "nothing.png") is None


async def test_a_listing_has_every_object_of_the_prefix_once_and_in_order(bucket: BucketBackend) -> None:
    """Goal: pages join without gap or repetition. Method: more objects than a page, and others."""
    names = [f"p/run/{index:02}.png" for index in range(25)]
    receipts = {}
    for name in reversed(names):
        receipts[name] = await upload(bucket, name, name.encode())
    await upload(bucket, "q/run/00.png", b"other")
    pages = [page async for page in bucket.store.list(bucket.prefix + "p/")]
    assert all(pages)
    assert [remote for page in pages for remote in page] == [receipts[name] for name in names]
    assert await names_listed(bucket, "nothing/") == []


async def test_a_listing_between_two_names_has_each_object_there_once(bucket: BucketBackend) -> None:
    """Goal: parts that are listed side by side miss nothing. Method: bounds that are names, and are none."""
    names = [f"p/{run}/{index:02}.png" for run in ("a", "a-b", "a/c", "b", "ü") for index in range(4)]
    for name in names:
        await upload(bucket, name, name.encode())
    prefix = bucket.prefix + "p/"
    for start, end in pairwise(["", "a", "a-b", "a/c/02.png", "b", "c", ""]):
        bounds = {"start": start and prefix + start, "end": end and prefix + end}
        pages = [page async for page in bucket.store.list(prefix, **bounds)]
        found = [remote.name.removeprefix(prefix) for page in pages for remote in page]
        wanted = [name.removeprefix("p/") for name in names]
        wanted = sorted(name for name in wanted if start <= name and (not end or name < end))
        assert [name for name in found if start <= name and (not end or name < end)] == wanted


async def test_what_a_writer_notes_of_an_object_is_told_again(bucket: BucketBackend) -> None:
    """Goal: the bucket can be a manifest. Method: both kinds of uploads, looked up and listed."""
    told = {"pixaris-sync-version": "3-1700000000000000000"}
    await upload(bucket, "small.png", b"abc", metadata=told)
    await upload_resumable(bucket, "large.png", MemorySource(some_bytes(300_000)), Sessions(), metadata=told)
    for name in ("small.png", "large.png"):
        found = await bucket.store.stat(bucket.prefix + name)
        assert found is not None
        assert found.metadata == told
    pages = [page async for page in bucket.store.list(bucket.prefix)]
    assert [remote.metadata for page in pages for remote in page] == [told, told]


async def folders_listed(bucket: BucketBackend, prefix: str = "") -> list[str]:
    pages = [page async for page in bucket.store.folders(bucket.prefix + prefix)]
    assert all(pages)
    return [name for page in pages for name in page]


async def test_folders_are_told_once_and_in_the_order_of_their_objects(bucket: BucketBackend) -> None:
    """Goal: a listing of folders costs none of what is in them.

    Method: folders with several objects, deep ones, one whose name begins another's, odd names, more than a
    page has; files beside them; a prefix that ends within a name.
    """
    names = ["a-b", "a", "b c%2F?#[]*", "grüße-日本-🎨", *(f"many-{number:02}" for number in range(12))]
    for name in names:
        await upload(bucket, f"p/{name}/run/image.png", b"content")
    await upload(bucket, "p/a/other/deep/er/image.png", b"content")
    await upload(bucket, "p/file.png", b"content")
    await upload(bucket, "q.png", b"content")

    expected = sorted(names, key=lambda name: f"{name}/")
    assert expected.index("a-b") < expected.index("a")
    assert await folders_listed(bucket, "p/") == expected
    assert await folders_listed(bucket) == ["p"]
    assert await folders_listed(bucket, "p/a/") == ["other", "run"]
    assert await folders_listed(bucket, "p/many-1") == ["0", "1"]
    assert await folders_listed(bucket, "p/a/run/") == []
    assert await folders_listed(bucket, "nothing/") == []


async def downloaded(bucket: BucketBackend, found: RemoteObject) -> bytes:
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    await bucket.store.download(found, write)
    assert all(0 < len(piece) <= CHUNK_UNIT_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("content", [b"", bytes(range(256)), some_bytes(2 * CHUNK_UNIT_BYTES + 5)])
async def test_a_download_brings_what_was_uploaded(bucket: BucketBackend, content: bytes) -> None:
    """Goal: pieces of bounded size join to the content. Method: sizes below and above a piece."""
    receipt = await upload(bucket, "grüße %2F?#+;.png", content)
    assert await downloaded(bucket, receipt) == content


@pytest.mark.needs(Capability.GENERATIONS)
async def test_a_download_is_of_the_object_that_was_found(bucket: BucketBackend) -> None:
    """Goal: no version is taken for another. Method: replace the object, then ask for one that never was."""
    first = await upload(bucket, "a.png", b"one")
    second = await upload(bucket, "a.png", b"two", if_generation=first.generation)
    for gone in (first, structs.replace(second, name=bucket.prefix + "b.png")):
        with pytest.raises(ObjectGoneError):
            await downloaded(bucket, gone)
    assert await downloaded(bucket, second) == b"two"


async def test_a_download_from_a_missing_bucket_finds_nothing(bucket: BucketBackend) -> None:
    """Goal: whatever is not there is told alike. Method: download and list folders in no bucket."""
    receipt = await upload(bucket, "a.png", b"one")
    with pytest.raises(ObjectGoneError):
        await downloaded(replace(bucket, store=bucket.elsewhere), receipt)
    with pytest.raises(ConfigurationError):
        await folders_listed(replace(bucket, store=bucket.elsewhere))


async def test_a_download_that_is_not_its_checksum_is_refused(bucket: BucketBackend) -> None:
    """Goal: damage on the way is noticed and repeatable. Method: tell another checksum than the object's."""
    receipt = await upload(bucket, "a.png", b"content")
    with pytest.raises(SyncError) as caught:
        await downloaded(bucket, structs.replace(receipt, crc32c=google_crc32c.value(b"other")))
    assert caught.value.failure is Failure.TRANSIENT


async def test_a_download_that_cannot_be_written_says_so(bucket: BucketBackend) -> None:
    """Goal: a full disk is no broken connection. Method: a writer that fails."""
    receipt = await upload(bucket, "a.png", b"content")

    async def write(_: bytes) -> None:
        raise LocalFileError("write", "a.png", "No space left on device")

    with pytest.raises(LocalFileError):
        await bucket.store.download(receipt, write)
    assert await downloaded(bucket, receipt) == b"content"


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        CHUNK_UNIT_BYTES - 1,
        CHUNK_UNIT_BYTES,
        CHUNK_UNIT_BYTES + 1,
        2 * CHUNK_UNIT_BYTES,
        3 * CHUNK_UNIT_BYTES + 5,
    ],
)
async def test_a_resumable_upload_brings_any_size(bucket: BucketBackend, size: int) -> None:
    """Goal: chunks join to the file, one in memory at a time. Method: sizes around multiples of a chunk."""
    source, sessions = MemorySource(some_bytes(size)), Sessions()
    receipt = await upload_resumable(bucket, "a.png", source, sessions)
    assert (receipt.size, receipt.crc32c) == (size, google_crc32c.value(source.content))
    assert await bucket.read(receipt.name) == (source.content, PNG)
    assert await bucket.store.stat(receipt.name) == receipt
    assert len(sessions.uris) == 1
    assert sum(length for _, length in source.reads) == size
    assert all(length <= CHUNK_UNIT_BYTES for _, length in source.reads)


async def test_the_session_is_told_before_any_byte_is_read(bucket: BucketBackend) -> None:
    """Goal: a crash can always find the session again. Method: look for its URI at the first read."""
    sessions = Sessions()
    known_at_read: list[int] = []
    source = MemorySource(some_bytes(10), on_read=lambda: known_at_read.append(len(sessions.uris)))
    await upload_resumable(bucket, "a.png", source, sessions)
    assert known_at_read == [1]


@pytest.mark.needs(Capability.PARTIAL_SESSIONS)
async def test_a_resumable_upload_goes_on_in_the_middle(bucket: BucketBackend) -> None:
    """Goal: what arrived is not sent again. Method: break off at the third chunk, then name the session."""
    content, sessions = some_bytes(4 * CHUNK_UNIT_BYTES + 7), Sessions()
    with pytest.raises(LocalFileError):
        await upload_resumable(
            bucket, "a.png", MemorySource(content, breaks_at=2 * CHUNK_UNIT_BYTES), sessions
        )
    assert await bucket.store.stat(bucket.prefix + "a.png") is None
    rest = MemorySource(content)
    receipt = await upload_resumable(bucket, "a.png", rest, sessions, session_uri=sessions.uris[0])
    assert rest.reads[0] == (2 * CHUNK_UNIT_BYTES, CHUNK_UNIT_BYTES)
    assert len(sessions.uris) == 1
    assert await bucket.read(receipt.name) == (content, PNG)


@pytest.mark.needs(Capability.FRESH_SESSIONS)
async def test_a_session_that_has_nothing_yet_is_gone_on_with(bucket: BucketBackend) -> None:
    """Goal: a crash right after the beginning costs nothing. Method: break off at the first read."""
    content, sessions = some_bytes(2 * CHUNK_UNIT_BYTES), Sessions()
    with pytest.raises(LocalFileError):
        await upload_resumable(bucket, "a.png", MemorySource(content, breaks_at=0), sessions)
    receipt = await upload_resumable(
        bucket, "a.png", MemorySource(content), sessions, session_uri=sessions.uris[0]
    )
    assert await bucket.read(receipt.name) == (content, PNG)
    assert len(sessions.uris) == 1


async def test_an_unknown_session_is_replaced(bucket: BucketBackend) -> None:
    """Goal: an expired session does not stop an upload. Method: name one that the service does not know."""
    content, sessions = some_bytes(CHUNK_UNIT_BYTES + 1), Sessions()
    with pytest.raises(LocalFileError):
        await upload_resumable(bucket, "a.png", MemorySource(content, breaks_at=0), sessions)
    source = MemorySource(content)
    receipt = await upload_resumable(
        bucket, "a.png", source, sessions, session_uri=f"{sessions.uris[0]}-unknown"
    )
    assert len(sessions.uris) == 2
    assert source.reads[0][0] == 0
    assert await bucket.read(receipt.name) == (content, PNG)


@pytest.mark.needs(Capability.FINISHED_SESSIONS)
async def test_a_finished_session_gives_its_object_without_sending(bucket: BucketBackend) -> None:
    """Goal: a lost last answer costs one question. Method: name the session of a finished upload."""
    sessions = Sessions()
    content = some_bytes(CHUNK_UNIT_BYTES + 1)
    receipt = await upload_resumable(bucket, "a.png", MemorySource(content), sessions)
    again = MemorySource(content)
    assert await upload_resumable(bucket, "a.png", again, sessions, session_uri=sessions.uris[0]) == receipt
    assert again.reads == []
    assert len(sessions.uris) == 1


@pytest.mark.needs(Capability.PRECONDITIONS)
async def test_a_resumable_upload_that_expects_another_generation_changes_nothing(
    bucket: BucketBackend,
) -> None:
    """Goal: the precondition holds here too. Method: expect no object where one is."""
    first = await upload(bucket, "a.png", b"one")
    with pytest.raises(ObjectConflictError):
        await upload_resumable(bucket, "a.png", MemorySource(b"two"), Sessions())
    assert await bucket.store.stat(first.name) == first
    second = await upload_resumable(
        bucket, "a.png", MemorySource(b"two"), Sessions(), if_generation=first.generation
    )
    assert second.generation > first.generation


@pytest.mark.needs(Capability.CHECKSUMS_OF_CHUNKS)
async def test_resumable_content_that_is_not_its_checksum_is_refused_and_can_be_sent_anew(
    bucket: BucketBackend,
) -> None:
    """Goal: a session with damaged bytes poisons nothing. Method: a wrong checksum, then the right one."""
    source, sessions = MemorySource(some_bytes(CHUNK_UNIT_BYTES + 1)), Sessions()
    with pytest.raises(SyncError) as caught:
        await upload_resumable(bucket, "a.png", source, sessions, crc32c=1)
    assert caught.value.failure is Failure.TRANSIENT
    assert await bucket.store.stat(bucket.prefix + "a.png") is None
    receipt = await upload_resumable(bucket, "a.png", source, sessions, session_uri=sessions.uris[0])
    assert await bucket.read(receipt.name) == (source.content, PNG)


async def test_a_file_that_became_shorter_is_not_uploaded(bucket: BucketBackend) -> None:
    """Goal: half a file is never an object. Method: a source that has less than it says."""
    source = MemorySource(some_bytes(CHUNK_UNIT_BYTES + 10), missing_bytes=5)
    with pytest.raises(LocalFileError):
        await upload_resumable(bucket, "a.png", source, Sessions())
    assert await bucket.store.stat(bucket.prefix + "a.png") is None


async def test_closing_twice_does_no_harm(bucket: BucketBackend) -> None:
    """Goal: shutting down needs no care. Method: close before and after use, twice."""
    await bucket.store.close()
    await bucket.store.check()
    await bucket.store.close()
    await bucket.store.close()
