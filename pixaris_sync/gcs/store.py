"""The object store on Google Cloud Storage, through gcloud-aio-storage.

Every method sends what it must and nothing else: an upload is one request, without a look before or after.

Limits. At most `connections_limit` connections are open. A request has `timeout_seconds`, and on top, for its
body, the time that the slowest uplink would need. Waiting for a free connection counts too, so no more calls
than connections should be under way; waiting for bandwidth does not. Memory stays below

    calls under way x (the largest content given to `upload`, or chunk_bytes, + the connection's buffer)
        + listings under way x LIST_PAGE_OBJECTS x about 2 KiB

because contents are sent out of the memory that they are in, a piece at a time.

Sources: the JSON API's reference for ``objects.insert``, ``objects.list``, ``objects.get`` and
``buckets.get``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

from gcloud.aio.storage import Storage
from yarl import URL

from pixaris_sync.errors import ConfigurationError, Failure
from pixaris_sync.gcs.answers import Refusal, compared, encode_crc32c, read_object, read_page
from pixaris_sync.gcs.bodies import MULTIPART_HEAD_BYTES, multipart_body
from pixaris_sync.gcs.connection import GOOGLE_API_ROOT, NO_TIME_LIMIT, Connection
from pixaris_sync.gcs.resumable import CHUNK_UNIT_BYTES, ResumableUpload
from pixaris_sync.limits.bandwidth import Pace
from pixaris_sync.model import RemoteObject
from pixaris_sync.ports import ByteSource

#: The service's largest page of a listing.
LIST_PAGE_OBJECTS = 1000

_OBJECT_FIELDS = "name,size,crc32c,generation"


class GcsObjectStore:
    """A bucket, as `pixaris_sync.ports.ObjectStore` describes it.

    Connections are opened by the first call, in the running event loop; `close` gives them back.

    Args:
        bucket: the bucket's name.
        connections_limit: the most connections to open.
        timeout_seconds: limit of one request without its body (see the module's docstring).
        chunk_bytes: size of a resumable upload's chunks, a multiple of `CHUNK_UNIT_BYTES`.
        emulator_host: address of an emulator, ``host:port`` with or without a scheme; no token is asked for.
        service_file: path of a credentials file; None for the Application Default Credentials.
        api_root: where the API is served, for private endpoints; an emulator's address goes before it.
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
        service_file: str | None = None,
        api_root: str = GOOGLE_API_ROOT,
        pace: Pace | None = None,
    ) -> None:
        if min(connections_limit, timeout_seconds) <= 0:
            raise ConfigurationError("use", "the connection limits", "they must be positive")
        if chunk_bytes <= 0 or chunk_bytes % CHUNK_UNIT_BYTES:
            cause = f"it is {chunk_bytes}, and no positive multiple of {CHUNK_UNIT_BYTES}"
            raise ConfigurationError("use", "chunk_bytes", cause)
        self._chunk_bytes = chunk_bytes
        self._connection = Connection(
            bucket,
            emulator_host=emulator_host,
            api_root=api_root,
            service_file=service_file,
            connections_limit=connections_limit,
            timeout_seconds=timeout_seconds,
            pace=pace,
        )

    async def check(self) -> None:
        """Make sure that the bucket is there and may be used.

        An account that may only write objects may not look at the bucket. Its 403 is taken as a yes: it says
        that the credentials are good, and the first upload tells the rest.

        Raises:
            ConfigurationError: it is not there, or credentials are missing or refused.
            SyncError: it could not be asked (transient).
        """
        operation, subject = "reach", f"bucket {self._connection.bucket}"

        async def send(storage: Storage) -> Mapping[str, object]:
            return await storage.get_bucket_metadata(
                self._connection.bucket_in_path,
                params={"fields": "name"},
                timeout=NO_TIME_LIMIT,  # type: ignore[arg-type]  # handed on to the session, which takes it
            )

        answer = await self._connection.request(operation, subject, send)
        if isinstance(answer, Refusal) and answer.failure is not Failure.PERMISSION:
            raise answer.error(operation, subject, bucket=self._connection.bucket)

    async def upload(
        self, name: str, content: bytes, *, content_type: str, crc32c: int, if_generation: int
    ) -> RemoteObject:
        """Create or replace an object in one request; the service checks `crc32c`, the answer's is compared.

        Args:
            name: the object's name.
            content: all of it.
            content_type: its MIME type.
            crc32c: checksum of `content` as an unsigned 32-bit integer.
            if_generation: the generation to replace, 0 where no object may exist yet.

        Raises:
            ObjectConflictError: the object's generation is another (412).
            SyncError: anything else, with its failure kind.
        """
        operation, subject = "upload", self._connection.subject(name)
        checksum = encode_crc32c(crc32c)
        # Where no object may be, as nearly always, the address is the same for all.
        address = URL(
            f"{self._connection.upload_url}?uploadType=multipart&ifGenerationMatch={if_generation}",
            encoded=True,
        )

        # The client's own upload copies the content twice more, and quotes and parses the address each time.
        async def send(storage: Storage) -> RemoteObject:
            response = await storage.session.post(
                address,  # type: ignore[arg-type]  # as in `stat`
                headers=await self._connection.authorization(),
                data=multipart_body(name, content, content_type, checksum),  # type: ignore[arg-type]
                timeout=NO_TIME_LIMIT,
                params=None,
            )
            return read_object(await response.json(encoding="utf-8", content_type=None))

        await self._connection.next_object()
        answer = await self._connection.request(
            operation,
            subject,
            send,
            writes=True,
            checksum=checksum,
            paced_bytes=len(content) + MULTIPART_HEAD_BYTES,
        )
        if isinstance(answer, Refusal):
            raise answer.error(operation, subject, bucket=self._connection.bucket)
        return compared(answer, crc32c, operation, subject)

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
        """Create or replace an object through a resumable session, in chunks of bounded memory.

        Args:
            name: the object's name.
            source: where the bytes come from.
            content_type: its MIME type.
            crc32c: checksum of the whole content, sent when the session begins.
            if_generation: the generation to replace, 0 where no object may exist yet.
            session_uri: a session begun earlier for the same content, to go on with; one that has
                expired is replaced by a new one.
            on_session: awaited with the URI of a session begun here, before any byte is sent.

        Raises:
            ObjectConflictError: the object's generation is another (412).
            LocalFileError: the file changed under the upload.
            SyncError: anything else, with its failure kind.
        """
        upload = ResumableUpload(
            self._connection, name, source, content_type, crc32c, if_generation, self._chunk_bytes
        )
        await self._connection.next_object()
        answer = await upload.run(session_uri, on_session)
        return compared(answer, crc32c, "upload", self._connection.subject(name))

    async def stat(self, name: str) -> RemoteObject | None:
        """Look one object up; None when it does not exist.

        Raises:
            SyncError: it could not be looked up, with its failure kind.
        """
        operation, subject = "look up", self._connection.subject(name)

        # The client would hand its address over as text, and text is quoted anew on the way: reserved
        # characters such as the semicolon come out bare. An address that is marked as quoted stays.
        address = URL(
            f"{self._connection.bucket_url}/o/{quote(name, safe='')}?fields={_OBJECT_FIELDS}", encoded=True
        )

        async def send(storage: Storage) -> RemoteObject:
            response = await storage.session.get(
                address,  # type: ignore[arg-type]  # an address object is what the client makes of a text
                headers=await self._connection.authorization(),
                timeout=NO_TIME_LIMIT,
            )
            return read_object(await response.json(encoding="utf-8", content_type=None))

        answer = await self._connection.request(operation, subject, send)
        if not isinstance(answer, Refusal):
            return answer
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        raise answer.error(operation, subject, bucket=self._connection.bucket)

    async def list(self, prefix: str) -> AsyncIterator[Sequence[RemoteObject]]:
        """List all objects whose names start with `prefix`, a page at a time, in name order.

        Raises:
            ConfigurationError: the bucket does not exist.
            SyncError: anything else, with its failure kind.
        """
        operation, subject = "list", self._connection.subject(prefix)
        params = {
            "prefix": prefix,
            "fields": f"items({_OBJECT_FIELDS}),nextPageToken",
            "maxResults": str(LIST_PAGE_OBJECTS),
        }

        async def send(storage: Storage) -> tuple[tuple[RemoteObject, ...], str]:
            return read_page(
                await storage.list_objects(
                    self._connection.bucket_in_path,
                    params=dict(params),
                    timeout=NO_TIME_LIMIT,  # type: ignore[arg-type]  # as in `check`
                )
            )

        while True:
            answer = await self._connection.request(operation, subject, send)
            if isinstance(answer, Refusal):
                raise answer.error(operation, subject, bucket=self._connection.bucket)
            page, next_page = answer
            if page:
                yield page
            if not next_page:
                return
            params["pageToken"] = next_page

    async def close(self) -> None:
        """Give connections back. Safe to call twice; a later call opens new ones."""
        await self._connection.close()
