"""The buckets that the ObjectStore suite runs against, and what is true of each."""

import enum
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
from gcloud.aio.storage import Storage

from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.ports import ObjectStore
from tests.fakes.object_store import FakeObjectStore
from tests.support.installed_emulators import FAKE_GCS_SERVER

REAL_BUCKET = os.environ.get("PIXARIS_SYNC_TEST_GCP_BUCKET", "")
REAL_PROJECT = os.environ.get("PIXARIS_SYNC_TEST_GCP_PROJECT", "")


class Capability(enum.StrEnum):
    """What the service does and an emulator may not."""

    PRECONDITIONS = "generation preconditions hold"
    CHECKSUMS_OF_CHUNKS = "the checksum of a resumable upload is checked, however many chunks it has"
    FRESH_SESSIONS = "a session that has nothing yet can be asked and gone on with"
    PARTIAL_SESSIONS = "a session that has a part can be asked and gone on with"
    FINISHED_SESSIONS = "a session that has all repeats its answer"
    GENERATIONS = "a generation that is asked for is told, and no other"
    DOT_SEGMENTS = "names may have '..' between slashes"


#: What was seen instead, by backend. A test that needs it is run all the same, and has to fail.
DIFFERENCES: Mapping[str, Mapping[Capability, str]] = {
    "emulator": {
        Capability.PRECONDITIONS: "it ignores ifGenerationMatch",
        Capability.GENERATIONS: "it ignores generation",
        Capability.FRESH_SESSIONS: "it says that the first byte is there",
        Capability.FINISHED_SESSIONS: "it forgets a session once it is complete",
        Capability.DOT_SEGMENTS: "it keeps objects in a file system, which refuses such names",
    },
    "sandbox": {
        Capability.DOT_SEGMENTS: "it keeps objects in a file system, which refuses such names",
    },
    # Version 1.56.1; of the sessions it is known (issues 1362 and 2354 of fsouza/fake-gcs-server).
    FAKE_GCS_SERVER: {
        Capability.CHECKSUMS_OF_CHUNKS: "it forgets the checksum with the first chunk of several",
        Capability.FRESH_SESSIONS: "asked about a session, it finishes it, and refuses the checksum",
        Capability.PARTIAL_SESSIONS: "asked about a session, it finishes it: a part becomes the object",
        Capability.FINISHED_SESSIONS: "it forgets a session once it is complete",
    },
}


@dataclass(frozen=True)
class BucketBackend:
    """An object store under test.

    Attributes:
        store: the store; chunks of a resumable upload have CHUNK_UNIT_BYTES.
        elsewhere: a store of a bucket that does not exist.
        read: content and content type of an object, read without the store.
        prefix: what the names of a test's objects begin with.
    """

    store: ObjectStore
    elsewhere: ObjectStore
    read: Callable[[str], Awaitable[tuple[bytes, str]]]
    prefix: str


async def fake_bucket() -> AsyncIterator[BucketBackend]:
    """A bucket in memory."""
    store, elsewhere = FakeObjectStore(page_objects=10, chunk_bytes=CHUNK_UNIT_BYTES), FakeObjectStore()
    elsewhere.missing = True

    async def read(name: str) -> tuple[bytes, str]:
        stored = store.objects[name]
        return stored.content, stored.content_type

    yield BucketBackend(store=store, elsewhere=elsewhere, read=read, prefix="results/")


async def emulated_bucket(url: str) -> AsyncIterator[BucketBackend]:
    """The adapter on a new bucket of an emulator."""
    name = f"pixaris-sync-contract-{uuid.uuid4().hex[:8]}"
    async with aiohttp.ClientSession() as session:
        created = await session.post(f"{url}/storage/v1/b?project=contract", json={"name": name})
        async with created:
            assert created.ok
    async for backend in _adapter(name, prefix="results/", emulator_host=url):
        yield backend


async def real_bucket() -> AsyncIterator[BucketBackend]:
    """The adapter on the real bucket, which is tidied up afterwards."""
    prefix = f"pixaris-sync-contract/{uuid.uuid4().hex}/"
    async for backend in _adapter(REAL_BUCKET, prefix=prefix, emulator_host=None):
        yield backend
        async with aiohttp.ClientSession() as session:
            client = _client(session, None)
            async for page in backend.store.list(prefix):
                for remote in page:
                    await client.delete(REAL_BUCKET, remote.name)


async def _adapter(name: str, *, prefix: str, emulator_host: str | None) -> AsyncIterator[BucketBackend]:
    stores = [
        GcsObjectStore(
            bucket,
            emulator_host=emulator_host,
            connections_limit=4,
            timeout_seconds=30,
            chunk_bytes=CHUNK_UNIT_BYTES,
        )
        for bucket in (name, f"{name}-{uuid.uuid4().hex[:8]}")
    ]
    async with aiohttp.ClientSession() as session:
        client = _client(session, emulator_host)

        async def read(object_name: str) -> tuple[bytes, str]:
            metadata = await client.download_metadata(name, object_name)
            return await client.download(name, object_name), metadata["contentType"]

        yield BucketBackend(store=stores[0], elsewhere=stores[1], read=read, prefix=prefix)
    for store in stores:
        await store.close()


def _client(session: aiohttp.ClientSession, emulator_host: str | None) -> Storage:
    return Storage(
        session=session,  # type: ignore[arg-type]  # declared for its twin without asyncio
        api_root=emulator_host,
    )
