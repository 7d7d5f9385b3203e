"""The `ObjectStore` on Google Cloud Storage.

Layers, each ignorant of those above:

- this module: what the store is given; the client is imported when the first call needs it;
- `calls`: the requests, of which `resumable` sends a large content in chunks;
- `connection`: connections, time limits, what a failed request has done;
- `tokens`: the login's tokens;
- `bodies`: what a request carries, and an answer;
- `answers`: what the service's answers mean.

Limits. At most `connections_limit` connections are open. A request ends when nothing has moved on its way for
`timeout_seconds`. Waiting for a free connection counts too, so no more calls than connections should be under
way; waiting for bandwidth does not. Memory stays below

    calls under way x (the largest content given to `upload`, or chunk_bytes, + the connection's buffer)
        + listings under way x ports.LIST_PAGE_OBJECTS x about 2 KiB

because contents are sent out of the memory that they are in, a piece at a time.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.footprint import importing, trusting_nobody
from pixaris_sync.limits.bandwidth import Pace
from pixaris_sync.login.login import Login
from pixaris_sync.model import RemoteObject
from pixaris_sync.ports import ByteSource, Listing

if TYPE_CHECKING:
    from pixaris_sync.gcs.calls import GcsCalls

#: Chunks are multiples of this, says the service; only the last may be shorter.
CHUNK_UNIT_BYTES = 256 * 1024


class GcsObjectStore:
    """A bucket as an `ObjectStore`.

    Connections are opened by the first call, in the running event loop; `close` gives them back.

    Args:
        bucket: the bucket's name.
        connections_limit: the most connections to open.
        timeout_seconds: how long a request may stand still (see the module's docstring).
        chunk_bytes: size of a resumable upload's chunks, a multiple of `CHUNK_UNIT_BYTES`.
        emulator_host: address of an emulator, ``host:port`` with or without a scheme; no token is asked for.
        login: whose requests they are; None for an emulator, or for a login of this store's own.
        pace: what uploads hold to: bandwidth, and how fast a bucket may be filled; None for nothing.

    Raises:
        ConfigurationError: a limit is not positive, or `chunk_bytes` is no such multiple.
    """

    def __init__(
        self,
        bucket: str,
        *,
        connections_limit: int,
        timeout_seconds: float,
        chunk_bytes: int,
        emulator_host: str | None = None,
        login: Login | None = None,
        pace: Pace | None = None,
    ) -> None:
        if min(connections_limit, timeout_seconds) <= 0:
            raise ConfigurationError("use", "the connection limits", "they must be positive")
        if chunk_bytes <= 0 or chunk_bytes % CHUNK_UNIT_BYTES:
            cause = f"it is {chunk_bytes}, and no positive multiple of {CHUNK_UNIT_BYTES}"
            raise ConfigurationError("use", "chunk_bytes", cause)

        acting = None if emulator_host else login or Login(timeout_seconds=timeout_seconds)

        def connect() -> "GcsCalls":
            # A heavy import: a pass with nothing new never needs it.
            with importing(), trusting_nobody():
                from pixaris_sync.gcs.calls import GcsCalls  # noqa: PLC0415 - see above
                from pixaris_sync.gcs.connection import Connection  # noqa: PLC0415 - see above

            connection = Connection(
                bucket,
                login=acting,
                api_root=emulator_host or (acting.api_root("storage") if acting else ""),
                connections_limit=connections_limit,
                timeout_seconds=timeout_seconds,
                pace=pace,
            )
            return GcsCalls(connection, chunk_bytes)

        self._connect = connect
        self._connected: GcsCalls | None = None

    @property
    def _calls(self) -> "GcsCalls":
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    async def check(self) -> None:
        """See `ObjectStore.check`.

        An account that may only write objects may not look at the bucket. Its 403 is taken as a yes: it says
        that the credentials are good, and the first upload tells the rest.
        """
        await self._calls.check()

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
        """See `ObjectStore.upload`."""
        return await self._calls.upload(name, content, content_type, crc32c, if_generation, metadata)

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
        """See `ObjectStore.upload_resumable`.

        Raises:
            LocalFileError: the file changed under the upload.
        """
        return await self._calls.upload_resumable(
            name, source, content_type, crc32c, if_generation, session_uri, on_session, metadata
        )

    async def stat(self, name: str) -> RemoteObject | None:
        """See `ObjectStore.stat`."""
        return await self._calls.stat(name)

    def list(self, prefix: str, *, start: str = "", end: str = "") -> Listing:
        """See `ObjectStore.list`.

        Raises:
            ConfigurationError: the bucket does not exist.
        """
        return self._calls.list(prefix, start, end)

    def folders(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        """See `ObjectStore.folders`; raises as `list` does."""
        return self._calls.folders(prefix)

    async def download(self, found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
        """See `ObjectStore.download`.

        A content that is stored compressed (``Content-Encoding: gzip``) is unpacked.
        """
        await self._calls.download(found, write)

    async def close(self) -> None:
        """See `ObjectStore.close`. A later call opens new connections."""
        if self._connected is not None:
            await self._connected.close()
