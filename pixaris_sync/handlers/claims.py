"""Lets the engine count the objects with which runs took their names as sent by itself.

Any other object that is there before it sends one is another writer's, whose row may be on its way as well:
then it waits for as long as a row can be late, half a minute. Only the call that took the name knows better,
while it lasts. Where it ends before the engine has written the object down, the engine waits, as it must.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from pixaris_sync.model import RemoteObject, RunKey
from pixaris_sync.ports import ByteSource, Listing, ObjectStore
from pixaris_sync.rules.contract import object_name

#: What this process created, by spool and name.
_created: Final[dict[tuple[Path, str], RemoteObject]] = {}
# The parent carries what it has begun.
os.register_at_fork(after_in_child=_created.clear)


class ClaimingStore:
    """A bucket, see `ports.ObjectStore`, that remembers what is created with texts of its writer's own.

    Such an object is not listed, and whoever uploads the same is given it as if it had just been created.

    Args:
        store: the bucket.
        spool: whose runs take their names there.
    """

    def __init__(self, store: ObjectStore, spool: Path) -> None:
        self._store = store
        self._spool = spool
        self.check = store.check
        self.stat = store.stat
        self.folders = store.folders
        self.download = store.download
        self.close = store.close

    async def upload(
        self,
        name: str,
        content: bytes,
        *,
        content_type: str,
        crc32c: int,
        if_generation: int,
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """See `ports.ObjectStore`; with `metadata` it takes a name."""
        created = self._taken(name, crc32c, if_generation)
        if created is None:
            created = await self._store.upload(
                name,
                content,
                content_type=content_type,
                crc32c=crc32c,
                if_generation=if_generation,
                metadata=metadata,
            )
            if metadata is not None:
                _created[self._spool, name] = created
        return created

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
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """See `ports.ObjectStore`."""
        created = self._taken(name, crc32c, if_generation)
        return created or await self._store.upload_resumable(
            name,
            source,
            content_type=content_type,
            crc32c=crc32c,
            if_generation=if_generation,
            session_uri=session_uri,
            on_session=on_session,
            metadata=metadata,
        )

    async def list(self, prefix: str, *, start: str = "", end: str = "") -> Listing:
        """See `ports.ObjectStore`; without what took a name."""
        async for page in self._store.list(prefix, start=start, end=end):
            yield [one for one in page if _created.get((self._spool, one.name)) != one]

    def _taken(self, name: str, crc32c: int, if_generation: int) -> RemoteObject | None:
        """What this process created so already; it is told once."""
        created = _created.get((self._spool, name))
        if created is None or if_generation or created.crc32c != crc32c:
            return None
        return _created.pop((self._spool, name), None)


def forget(spool: Path, run: RunKey) -> None:
    """Let an object count as another writer's from here on, where the engine has not come to it."""
    begin = object_name(run, "")
    for key in [*_created]:
        if key[0] == spool and key[1].startswith(begin):
            _created.pop(key, None)
