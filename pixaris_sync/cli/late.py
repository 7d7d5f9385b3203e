"""A bucket whose client is imported when it is first needed: a pass with nothing new never needs it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from pixaris_sync.model import RemoteObject
from pixaris_sync.ports import ByteSource, ObjectStore


class LateStore:
    """An `ObjectStore` that is made by the first call that needs it; see there for what calls promise.

    Args:
        make: imports and makes the store.
    """

    def __init__(self, make: Callable[[], ObjectStore]) -> None:
        self._make = make
        self._made: ObjectStore | None = None

    @property
    def _store(self) -> ObjectStore:
        if self._made is None:
            self._made = self._make()
        return self._made

    async def check(self) -> None:
        """See `ObjectStore.check`."""
        await self._store.check()

    def upload(
        self, name: str, content: bytes, *, content_type: str, crc32c: int, if_generation: int
    ) -> Coroutine[Any, Any, RemoteObject]:
        """See `ObjectStore.upload`."""
        return self._store.upload(
            name, content, content_type=content_type, crc32c=crc32c, if_generation=if_generation
        )

    async def upload_resumable(
        self,
        name: str,
        source: ByteSource,
        *,
        content_type: str,
        crc32c: int,
        if_generation: int,
        session_uri: str | None,
        on_session: Callable[[str], Awaitable[None]],
    ) -> RemoteObject:
        """See `ObjectStore.upload_resumable`."""
        return await self._store.upload_resumable(
            name,
            source,
            content_type=content_type,
            crc32c=crc32c,
            if_generation=if_generation,
            session_uri=session_uri,
            on_session=on_session,
        )

    async def stat(self, name: str) -> RemoteObject | None:
        """See `ObjectStore.stat`."""
        return await self._store.stat(name)

    def list(self, prefix: str) -> AsyncIterator[Sequence[RemoteObject]]:
        """See `ObjectStore.list`."""
        return self._store.list(prefix)

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        if self._made is not None:
            await self._made.close()
