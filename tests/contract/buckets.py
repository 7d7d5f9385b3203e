"""The buckets that the ObjectStore suite runs against, and what is true of each."""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from gcloud.aio.storage import Storage

from pixaris_sync.ports import ObjectStore
from pixaris_sync.storage import GcsObjectStore
from pixaris_sync.storage_session import CHUNK_UNIT_BYTES
from tests.fakes.object_store import FakeObjectStore

EMULATED_BUCKET = "pixaris-sync-contract"
REAL_BUCKET = os.environ.get("PIXARIS_SYNC_TEST_GCP_BUCKET", "")
REAL_PROJECT = os.environ.get("PIXARIS_SYNC_TEST_GCP_PROJECT", "")


@dataclass(frozen=True)
class BucketBackend:
    """An object store under test, and what is true of the bucket behind it.

    Attributes:
        store: the store; chunks of a resumable upload have CHUNK_UNIT_BYTES.
        elsewhere: a store of a bucket that does not exist.
        read: content and content type of an object, read without the store.
        prefix: what the names of a test's objects begin with.
        holds_preconditions: generation preconditions are enforced.
        holds_sessions: a session tells truly what it has, also when that is nothing, or all of it.
        takes_dot_segments: names may have ``..`` between slashes.
    """

    store: ObjectStore
    elsewhere: ObjectStore
    read: Callable[[str], Awaitable[tuple[bytes, str]]]
    prefix: str
    holds_preconditions: bool = True
    holds_sessions: bool = True
    takes_dot_segments: bool = True


def fake_bucket() -> BucketBackend:
    """A bucket in memory."""
    store, elsewhere = FakeObjectStore(page_objects=10, chunk_bytes=CHUNK_UNIT_BYTES), FakeObjectStore()
    elsewhere.missing = True

    async def read(name: str) -> tuple[bytes, str]:
        stored = store.objects[name]
        return stored.content, stored.content_type

    return BucketBackend(store=store, elsewhere=elsewhere, read=read, prefix="results/")


async def google_bucket(emulator_host: str | None) -> AsyncIterator[BucketBackend]:
    """The adapter on an emulator's bucket, or else on the real one, which is tidied up afterwards."""
    name = EMULATED_BUCKET if emulator_host else REAL_BUCKET
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
    prefix = "results/" if emulator_host else f"pixaris-sync-contract/{uuid.uuid4().hex}/"
    async with aiohttp.ClientSession() as session:
        client = Storage(
            session=session,  # type: ignore[arg-type]  # declared for its twin without asyncio
            api_root=f"http://{emulator_host}" if emulator_host else None,
        )

        async def read(object_name: str) -> tuple[bytes, str]:
            metadata = await client.download_metadata(name, object_name)
            return await client.download(name, object_name), metadata["contentType"]

        yield BucketBackend(
            store=stores[0],
            elsewhere=stores[1],
            read=read,
            prefix=prefix,
            holds_preconditions=emulator_host is None,
            holds_sessions=emulator_host is None,
            takes_dot_segments=emulator_host is None,
        )
        if emulator_host is None:
            async for page in stores[0].list(prefix):
                for remote in page:
                    await client.delete(name, remote.name)
    for store in stores:
        await store.close()
