"""The requests to a bucket, one method each, through gcloud-aio-storage.

Every method sends what it must and nothing else: an upload is one request, without a look before or after.
Importing this module imports the client: `store` does so when the first request is due.

Sources: the JSON API's reference for ``objects.insert``, ``objects.list``, ``objects.get`` (``alt=media`` is
the content) and ``buckets.get``.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

from gcloud.aio.storage import Storage
from yarl import URL

from pixaris_sync.errors import ConfigurationError, Failure, ObjectGoneError, SyncError
from pixaris_sync.gcs.answers import Refusal, compared, encode_crc32c, read_object, read_page
from pixaris_sync.gcs.bodies import MULTIPART_HEAD_BYTES, RECEIVED_PIECE_BYTES, Content, multipart_body
from pixaris_sync.gcs.connection import NO_TIME_LIMIT, Connection
from pixaris_sync.gcs.resumable import ResumableUpload
from pixaris_sync.model import JsonValue, RemoteObject
from pixaris_sync.ports import LIST_PAGE_OBJECTS, ByteSource, Listing

T = TypeVar("T")

_OBJECT_FIELDS = "name,size,crc32c,generation,metadata"


class GcsCalls:
    """Requests to one bucket. Every method raises as the same one of `ObjectStore`.

    Args:
        connection: the way to the bucket.
        chunk_bytes: size of a resumable upload's chunks.
    """

    def __init__(self, connection: Connection, chunk_bytes: int) -> None:
        self.connection = connection
        self._chunk_bytes = chunk_bytes

    async def check(self) -> None:
        """Look at the bucket's metadata; an account that may not is taken to be one that may write."""
        operation, subject = "reach", f"bucket {self.connection.bucket}"

        async def send(storage: Storage) -> Mapping[str, object]:
            return await storage.get_bucket_metadata(
                self.connection.bucket_in_path,
                params={"fields": "name"},
                timeout=NO_TIME_LIMIT,  # type: ignore[arg-type]  # handed on to the session, which takes it
            )

        answer = await self.connection.request(operation, subject, send)
        if not isinstance(answer, Refusal):
            return
        error = answer.error(operation, subject, bucket=self.connection.bucket)
        if answer.failure is Failure.PERMISSION and answer.status == HTTPStatus.FORBIDDEN:
            return
        if answer.failure in (Failure.TRANSIENT, Failure.QUOTA) or isinstance(error, ConfigurationError):
            raise error
        # A name that is none, a bucket whose readers are to pay: nothing will ever be carried there.
        raise ConfigurationError(
            operation,
            subject,
            error.cause,
            hint=error.hint or "correct the setting gcp_pixaris_bucket_name",
            failure=error.failure,
        )

    async def upload(
        self,
        name: str,
        content: bytes,
        content_type: str,
        crc32c: int,
        if_generation: int,
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """Send metadata and content in one request."""
        operation, subject = "upload", self.connection.subject(name)
        checksum = encode_crc32c(crc32c)
        # Where no object may be, as nearly always, the address is the same for all.
        address = URL(
            f"{self.connection.upload_url}?uploadType=multipart&ifGenerationMatch={if_generation}",
            encoded=True,
        )

        # The client's own upload copies the content twice more, and quotes and parses the address each time.
        async def send(storage: Storage) -> RemoteObject:
            response = await storage.session.post(
                address,  # type: ignore[arg-type]  # as in `stat`
                headers=await self.connection.authorization(),
                data=multipart_body(name, content, content_type, checksum, metadata),  # type: ignore[arg-type]
                timeout=NO_TIME_LIMIT,
                params=None,
            )
            return read_object(await response.json())

        await self.connection.next_object()
        answer = await self.connection.request(
            operation,
            subject,
            send,
            writes=True,
            checksum=checksum,
            paced_bytes=len(content) + MULTIPART_HEAD_BYTES,
        )
        if isinstance(answer, Refusal):
            raise answer.error(operation, subject, bucket=self.connection.bucket)
        return compared(answer, crc32c, len(content), operation, subject)

    async def upload_resumable(
        self,
        name: str,
        source: ByteSource,
        content_type: str,
        crc32c: int,
        if_generation: int,
        session_uri: str | None,
        on_session: Callable[[str], Awaitable[None]],
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """Send metadata, then content in chunks."""
        upload = ResumableUpload(
            self.connection, name, source, content_type, crc32c, if_generation, self._chunk_bytes, metadata
        )
        await self.connection.next_object()
        answer = await upload.run(session_uri, on_session)
        return compared(answer, crc32c, source.size, "upload", self.connection.subject(name))

    async def stat(self, name: str) -> RemoteObject | None:
        """Ask for an object's metadata."""
        operation, subject = "look up", self.connection.subject(name)

        # The client would hand its address over as text, and text is quoted anew on the way: reserved
        # characters such as the semicolon come out bare. An address that is marked as quoted stays.
        address = URL(f"{self._object_url(name)}?fields={_OBJECT_FIELDS}", encoded=True)

        async def send(storage: Storage) -> RemoteObject:
            response = await storage.session.get(
                address,  # type: ignore[arg-type]  # an address object is what the client makes of a text
                headers=await self.connection.authorization(),
                timeout=NO_TIME_LIMIT,
            )
            return read_object(await response.json())

        answer = await self.connection.request(operation, subject, send)
        if not isinstance(answer, Refusal):
            return answer
        if answer.status == HTTPStatus.NOT_FOUND and not answer.in_between:
            return None
        raise answer.error(operation, subject, bucket=self.connection.bucket)

    def list(self, prefix: str, start: str = "", end: str = "") -> Listing:
        """Ask for one page after another."""
        bounds = {"startOffset": start, "endOffset": end}
        asked = {name: bound for name, bound in bounds.items() if bound}
        return self._pages(prefix, asked, "items", f"items({_OBJECT_FIELDS})", read_object)

    def folders(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        """Ask for one page after another, of what a slash ends."""

        def read(entry: JsonValue) -> str:
            name: str = entry.removeprefix(prefix).removesuffix("/")
            return name

        return self._pages(prefix, {"delimiter": "/"}, "prefixes", "prefixes", read)

    async def _pages(
        self,
        prefix: str,
        asked: Mapping[str, str],
        entries: str,
        fields: str,
        read: Callable[[JsonValue], T],
    ) -> AsyncGenerator[Sequence[T], None]:
        operation, subject = "list", self.connection.subject(prefix)
        params = {
            **asked,
            "prefix": prefix,
            "fields": f"{fields},nextPageToken",
            "maxResults": str(LIST_PAGE_OBJECTS),
        }

        async def send(storage: Storage) -> tuple[tuple[T, ...], str]:
            answer = await storage.list_objects(
                self.connection.bucket_in_path,
                params=dict(params),
                timeout=NO_TIME_LIMIT,  # type: ignore[arg-type]  # as in `check`
            )
            return read_page(answer, entries, read)

        while True:
            answer = await self.connection.request(operation, subject, send)
            if isinstance(answer, Refusal):
                raise answer.error(operation, subject, bucket=self.connection.bucket)
            page, next_page = answer
            if page:
                yield page
            if not next_page:
                return
            params["pageToken"] = next_page

    async def download(self, found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
        """Ask for the content of one generation, and hand it on as it comes."""
        operation, subject = "download", self.connection.subject(found.name)
        address = URL(f"{self._object_url(found.name)}?alt=media&generation={found.generation}", encoded=True)

        async def send(storage: Storage) -> bool:
            response = await storage.session.get(
                address,  # type: ignore[arg-type]  # as in `stat`
                headers=await self.connection.authorization(),
                timeout=NO_TIME_LIMIT,
                auto_decompress=False,
            )
            content = Content(response.headers.get("Content-Encoding", ""))
            async with response:
                async for received in response.content.iter_chunked(RECEIVED_PIECE_BYTES):
                    for piece in content.pieces(received):
                        await write(piece)
            return content.is_of(found)

        answer = await self.connection.request(operation, subject, send)
        if isinstance(answer, Refusal):
            # Where content is asked for, the service refuses in plain text, as a proxy might.
            if answer.in_between or answer.status == HTTPStatus.NOT_FOUND:
                now = await self.stat(found.name)
                if now is None or now.generation != found.generation:
                    raise ObjectGoneError(operation, subject, "the object was deleted or replaced")
            raise answer.error(operation, subject, bucket=self.connection.bucket)
        if not answer:
            cause = "what arrived is not what is stored: its checksum is another one"
            raise SyncError(operation, subject, cause, failure=Failure.TRANSIENT)

    def _object_url(self, name: str) -> str:
        return f"{self.connection.bucket_url}/o/{quote(name, safe='')}"

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        await self.connection.close()
