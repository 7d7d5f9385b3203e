"""One upload through a resumable session of GCS.

    no session ──begin──▶ session ──chunk, chunk, …──▶ object
                            │  ▲
            gone or stuck ──┘  └── a session from before is first asked how much it has

The service keeps what it got of a session for about a week; its URI is a secret that allows the upload
without a token, so it is handed to the caller, who keeps it in the ledger, and stands in no message. The
precondition and the checksum are told when the session begins; the service checks both at the end.

A session that is gone (404, 410), cancelled (499) or refuses to go on (400) is replaced by a new one, once an
upload: the service's documentation says to start over then. So is one from before that answers any other 4xx
which would be final elsewhere: it may be the session's fault. What is final for a new one as well is the
upload's. No such case are the checksum (400), which is the content's, and the precondition (412).

At most one chunk is in memory. Sources: "Perform resumable uploads" of the product's documentation, also for
499, and "Resumable uploads" for what each status asks for.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from gcloud.aio.storage import Storage
from msgspec import Struct

from pixaris_sync.errors import Failure, LocalFileError, SyncError
from pixaris_sync.gcs.answers import Refusal, encode_crc32c, read_object
from pixaris_sync.gcs.bodies import HEAD_BYTES, ContentBody
from pixaris_sync.gcs.connection import NO_TIME_LIMIT, Connection
from pixaris_sync.model import JsonValue, RemoteObject
from pixaris_sync.ports import ByteSource

#: "Client Closed Request", which `HTTPStatus` has no name for.
_CANCELLED = 499
_GONE = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE, _CANCELLED})
_RANGE = re.compile(r"bytes=0-(\d{1,18})")


class ResumableUpload(Struct, frozen=True):
    """What to upload, and how.

    Attributes:
        connection: the way to the bucket.
        name: the object's name.
        source: where the bytes come from.
        content_type: its MIME type.
        crc32c: checksum of the whole content.
        if_generation: the generation to replace, 0 where no object may exist yet.
        chunk_bytes: how much to send at once, a multiple of `store.CHUNK_UNIT_BYTES`.
        metadata: texts of the writer's own.
    """

    connection: Connection
    name: str
    source: ByteSource
    content_type: str
    crc32c: int
    if_generation: int
    chunk_bytes: int
    metadata: Mapping[str, str] | None = None

    async def run(
        self, session_uri: str | None, on_session: Callable[[str], Awaitable[None]]
    ) -> RemoteObject:
        """Go on with `session_uri`, if there is one, else with a new session, to the end.

        Raises:
            ObjectConflictError: the object's generation is another (412).
            LocalFileError: the file changed under the upload.
            SyncError: anything else, with its failure kind.
        """
        if session_uri is not None:
            # It may be from before there was a private endpoint.
            session_uri = self.connection.session_address(session_uri)
            state = await self._put(session_uri, f"bytes */{self.source.size}", b"")
            if isinstance(state, int):
                state = await self._feed(session_uri, state)
            if not isinstance(state, Refusal):
                return state
        session_uri = await self._begin()
        await on_session(session_uri)
        state = await self._feed(session_uri, 0)
        if not isinstance(state, Refusal):
            return state
        if state.status in _GONE:
            raise self._failed("the upload session is gone")
        raise self._refused(state)

    async def _begin(self) -> str:
        operation, subject = "begin the upload of", self.connection.subject(self.name)

        resource: dict[str, JsonValue] = {"name": self.name, "crc32c": encode_crc32c(self.crc32c)}
        if self.metadata:
            resource["metadata"] = dict(self.metadata)

        async def send(storage: Storage) -> str:
            response = await storage.session.post(
                self.connection.upload_url,
                headers=await self.connection.authorization()
                | {
                    "Content-Type": "application/json; charset=UTF-8",
                    "X-Upload-Content-Type": self.content_type,
                    "X-Upload-Content-Length": str(self.source.size),
                },
                params={"uploadType": "resumable", "ifGenerationMatch": str(self.if_generation)},
                data=json.dumps(resource).encode(),
                timeout=NO_TIME_LIMIT,
            )
            async with response:
                if uri := response.headers.get("Location"):
                    return self.connection.session_address(uri)
            raise ValueError("no session URI in the answer")

        answer = await self.connection.request(operation, subject, send)
        if isinstance(answer, Refusal):
            raise answer.error(operation, subject, bucket=self.connection.bucket)
        return answer

    async def _feed(self, uri: str, offset: int) -> RemoteObject | Refusal:
        """Send the content from `offset` on; the refusal when the session cannot go on."""
        size = self.source.size
        while True:
            length = min(self.chunk_bytes, size - offset)
            chunk = await self.source.read(offset, length) if length > 0 else b""
            if len(chunk) != max(length, 0):
                raise LocalFileError(
                    "upload",
                    self.connection.subject(self.name),
                    "the file became shorter while it was sent",
                    failure=Failure.TRANSIENT,
                )
            end = offset + len(chunk)
            span = f"bytes {offset}-{end - 1}/{size}" if chunk else f"bytes */{size}"
            state = await self._put(uri, span, chunk, last=end == size)
            if not isinstance(state, int):
                return state
            if not offset < state <= end:
                raise self._failed("the service does not take any more of the content")
            offset = state

    async def _put(
        self, uri: str, span: str, chunk: bytes, *, last: bool = False
    ) -> RemoteObject | int | Refusal:
        """Send a chunk, or none to ask how things stand.

        Returns:
            The finished object; or how many bytes the session has; or how it refuses to go on.
        """
        operation, subject = "upload", self.connection.subject(self.name)

        async def send(storage: Storage) -> RemoteObject | int:
            response = await storage.session.request(
                "PUT",
                uri,
                # The service goes by the type told at the beginning; some emulators by this one.
                headers={"Content-Range": span},
                data=ContentBody((chunk,), self.content_type),
                timeout=NO_TIME_LIMIT,
                allow_redirects=False,
            )
            async with response:
                if response.status == HTTPStatus.PERMANENT_REDIRECT:
                    return _received_bytes(response.headers.get("Range"))
                return read_object(await response.json())

        checksum = encode_crc32c(self.crc32c) if chunk else ""
        paced_bytes = len(chunk) + HEAD_BYTES if chunk else 0
        answer = await self.connection.request(
            operation, subject, send, writes=last, checksum=checksum, paced_bytes=paced_bytes
        )
        if isinstance(answer, Refusal) and not _ends_session(answer):
            raise self._refused(answer)
        return answer

    def _refused(self, answer: Refusal) -> SyncError:
        return answer.error("upload", self.connection.subject(self.name), bucket=self.connection.bucket)

    def _failed(self, cause: str) -> SyncError:
        return SyncError("upload", self.connection.subject(self.name), cause, failure=Failure.TRANSIENT)


def _ends_session(answer: Refusal) -> bool:
    """Whether a session that answers so is of no more use, though another one may be."""
    if answer.quotes_checksum or answer.status == HTTPStatus.PRECONDITION_FAILED:
        return False
    return answer.status in _GONE or answer.failure is Failure.PERMANENT


def _received_bytes(header: str | None) -> int:
    """How many bytes a session has, from the Range header of its 308; there is none while it has nothing.

    Raises:
        ValueError: the header is something else.
    """
    if header is None:
        return 0
    if (found := _RANGE.fullmatch(header.strip())) is None:
        raise ValueError("no range of received bytes")
    return int(found[1]) + 1
