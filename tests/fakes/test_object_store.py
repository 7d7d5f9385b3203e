"""The faults that FakeObjectStore can be ordered to have: each is counted, and leaves what it says."""

import google_crc32c
import pytest
from msgspec.structs import replace

from pixaris_sync.errors import ConfigurationError, Failure, ObjectConflictError, SyncError
from pixaris_sync.model import RemoteObject
from tests.fakes.byte_source import MemorySource
from tests.fakes.object_store import Call, FakeObjectStore

pytestmark = pytest.mark.anyio


class CountingClock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def elapsed(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


async def upload(store: FakeObjectStore, name: str = "a", content: bytes = b"content") -> RemoteObject:
    return await store.upload(
        name, content, content_type="image/png", crc32c=google_crc32c.value(content), if_generation=0
    )


async def upload_resumable(
    store: FakeObjectStore, source: MemorySource, uris: list[str], session_uri: str | None = None
) -> RemoteObject:
    async def keep(uri: str) -> None:
        uris.append(uri)

    return await store.upload_resumable(
        "a",
        source,
        content_type="image/png",
        crc32c=google_crc32c.value(source.content),
        if_generation=0,
        session_uri=session_uri,
        on_session=keep,
    )


async def test_an_ordered_failure_does_nothing_and_is_used_up() -> None:
    """Goal: faults come as ordered. Method: two failures in a row, then success."""
    store = FakeObjectStore()
    store.fail_next("upload", SyncError("upload", "a", "503", failure=Failure.TRANSIENT), times=2)
    assert store.faults_pending == 2
    for _ in range(2):
        with pytest.raises(SyncError):
            await upload(store)
        assert store.objects == {}
    await upload(store)
    assert (store.faults_fired, store.faults_pending) == (2, 0)
    assert store.calls == [Call("upload", "a")] * 3
    assert store.counts["upload"] == 3
    assert store.upload_counts == {"a": 1}


async def test_a_lost_answer_leaves_the_work_done() -> None:
    """Goal: in doubt means done, here. Method: lose the answer, look, and try again."""
    store = FakeObjectStore()
    store.lose_answer_next("upload")
    with pytest.raises(SyncError) as caught:
        await upload(store)
    assert caught.value.failure is Failure.IN_DOUBT
    assert store.faults_fired == 1
    assert await store.stat("a") == store.uploads[0]
    with pytest.raises(ObjectConflictError):
        await upload(store)
    assert store.upload_counts == {"a": 1}


async def test_a_lost_answer_waits_for_a_call_that_does_something() -> None:
    """Goal: a refused call has no answer to lose. Method: order it, be refused, then succeed."""
    store = FakeObjectStore()
    store.put("a", b"theirs")
    store.lose_answer_next("upload")
    with pytest.raises(ObjectConflictError):
        await upload(store)
    assert store.faults_pending == 1
    with pytest.raises(SyncError):
        await upload(store, "b")
    assert store.faults_fired == 1


async def test_a_bucket_under_its_owners_key_lists_no_checksums() -> None:
    """Goal: as the service does it. Method: list and look up the same object."""
    store = FakeObjectStore()
    receipt = await upload(store)
    store.listings_without_checksums = True
    assert [page async for page in store.list("")] == [(replace(receipt, crc32c=None),)]
    assert await store.stat("a") == receipt
    assert store.faults_fired == 1


async def test_a_cut_session_keeps_what_it_has() -> None:
    """Goal: resuming can be tested by bytes. Method: cut in the middle of a chunk, then go on."""
    store, uris = FakeObjectStore(chunk_bytes=4), list[str]()
    source = MemorySource(b"0123456789")
    store.cut_session_after(6)
    with pytest.raises(SyncError) as caught:
        await upload_resumable(store, source, uris)
    assert caught.value.failure is Failure.TRANSIENT
    assert (store.bytes_received, store.objects, store.faults_fired) == (6, {}, 1)
    await upload_resumable(store, source, uris, uris[0])
    assert store.bytes_received == 10
    assert store.objects["a"].content == source.content
    assert len(uris) == 1


async def test_expired_sessions_begin_anew() -> None:
    """Goal: an expiry costs the bytes, not the upload. Method: expire between cut and retry."""
    store, uris = FakeObjectStore(chunk_bytes=4), list[str]()
    source = MemorySource(b"0123456789")
    store.cut_session_after(4)
    with pytest.raises(SyncError):
        await upload_resumable(store, source, uris)
    store.expire_sessions()
    await upload_resumable(store, source, uris, uris[0])
    assert store.bytes_received == 14
    assert len(uris) == 2


async def test_delays_pass_by_the_clock() -> None:
    """Goal: slowness needs no waiting. Method: delay a method by a clock that only counts."""
    clock = CountingClock()
    store = FakeObjectStore(clock=clock)
    store.delay("stat", 5)
    await store.stat("a")
    await upload(store)
    assert clock.seconds == 5


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\rb", "x" * 1025, ".well-known/acme-challenge/a"])
async def test_names_that_the_service_refuses_are_refused(name: str) -> None:
    """Goal: the fake is as strict as the service. Method: one name for each documented rule."""
    store = FakeObjectStore()
    with pytest.raises(SyncError) as caught:
        await upload(store, name)
    assert caught.value.failure is Failure.PERMANENT
    assert store.objects == {}


async def test_a_missing_bucket_takes_nothing() -> None:
    """Goal: the bucket can vanish under a test. Method: set it missing, then upload."""
    store = FakeObjectStore()
    store.missing = True
    with pytest.raises(ConfigurationError):
        await upload(store)


async def test_a_download_that_is_cut_has_written_a_part_and_can_be_repeated() -> None:
    """Goal: what half a download leaves can be tested. Method: order a cut, download twice."""
    store, pieces = FakeObjectStore(chunk_bytes=3), list[bytes]()
    found = store.put("a", b"content")
    store.cut_download_next()
    assert store.faults_pending == 1

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    with pytest.raises(SyncError) as caught:
        await store.download(found, write)
    assert caught.value.failure is Failure.TRANSIENT
    assert (pieces, store.faults_fired, store.faults_pending) == ([b"con"], 1, 0)
    await store.download(found, write)
    assert b"".join(pieces[1:]) == b"content"
