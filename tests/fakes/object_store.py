"""A strict bucket in memory: the ObjectStore port without a cloud, with faults that tests can order.

It holds what the real service promises: generations are unique and grow, preconditions hold, checksums are
checked, names are refused by the documented rules, listings are paged in name order, an upload is seen whole
or not at all. Every call is logged before anything else happens to it, so a log shows refused calls too.

A call goes through: log, delay, ordered fault (nothing is done), the work, lost answer (all is done).
`faults_fired` counts what took effect; a test of a fault asserts that it is not 0.
"""

from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio.lowlevel
import google_crc32c
from msgspec.structs import replace

from pixaris_sync.errors import (
    ConfigurationError,
    Failure,
    LocalFileError,
    ObjectConflictError,
    ObjectGoneError,
    SyncError,
)
from pixaris_sync.model import RemoteObject
from pixaris_sync.ports import ByteSource, Clock, Listing

_NAME_BYTES_MAX = 1024
#: What a bucket takes doubles in this time: https://cloud.google.com/storage/docs/request-rate.
_DOUBLING_SECONDS = 20 * 60.0
#: A rate is what was written in so long.
_RATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object with its content."""

    remote: RemoteObject
    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a method of the port: `name` is the object, or the prefix of a listing, or empty."""

    method: str
    name: str


@dataclass(slots=True)
class _Session:
    """A resumable session: what it was begun with, and what it has got."""

    name: str
    size: int
    content_type: str
    crc32c: int
    if_generation: int
    metadata: Mapping[str, str] | None
    received: bytearray = field(default_factory=bytearray)
    finished: RemoteObject | None = None


class FakeObjectStore:
    """A bucket in memory.

    Args:
        clock: what delays wait by; needed only for delays.
        page_objects: size of a page of a listing.
        chunk_bytes: size of a chunk of a resumable upload.

    Attributes:
        objects: what is in the bucket, by name.
        calls: every call, in order.
        uploads: every object that an upload created or replaced, in order.
        bytes_received: content bytes that arrived, refused and repeated ones included.
        faults_fired: how many faults took effect.
        missing: set it, and the bucket does not exist.
        listings_without_checksums: set it, and the bucket is encrypted with a key of its owner's.
        stats_without_checksums: set it, and its objects are, with a key that nobody else has.
        writes_per_second_limit: how many objects may be written per second at first; None: any number. It
            needs a clock.
        refused_writes: how many were too many.
        closed: how often `close` was called.
    """

    def __init__(
        self, *, clock: Clock | None = None, page_objects: int = 1000, chunk_bytes: int = 256 * 1024
    ) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.calls: list[Call] = []
        self.uploads: list[RemoteObject] = []
        self.bytes_received = 0
        self.faults_fired = 0
        self.missing = False
        self.listings_without_checksums = False
        self.stats_without_checksums = False
        self.writes_per_second_limit: float | None = None
        self.refused_writes = 0
        self._written: deque[float] = deque()
        self._first_written: float | None = None
        self._clock = clock
        self._page_objects = page_objects
        self._chunk_bytes = chunk_bytes
        self._generation = 1_700_000_000_000_000
        self._sessions: dict[str, _Session] = {}
        self._faults: defaultdict[str, deque[SyncError]] = defaultdict(deque)
        self._lost_answers: Counter[str] = Counter()
        self._delays_seconds: dict[str, float] = {}
        self._cut_after_bytes: int | None = None
        self._downloads_to_cut = 0

    # What tests order and look at.

    def fail_next(self, method: str, error: SyncError, *, times: int = 1) -> None:
        """Let the next calls of `method` raise `error` and do nothing; orders are served in turn."""
        self._faults[method].extend([error] * times)

    def lose_answer_next(self, method: str, *, times: int = 1) -> None:
        """Let the next calls of `method` that succeed do all their work and then raise IN_DOUBT."""
        self._lost_answers[method] += times

    def delay(self, method: str, seconds: float) -> None:
        """Let every call of `method` wait first, by the clock; 0 ends that."""
        self._delays_seconds[method] = seconds

    def cut_session_after(self, received_bytes: int) -> None:
        """Break the next resumable upload off, TRANSIENT, once its session has so many bytes."""
        self._cut_after_bytes = received_bytes

    def cut_download_next(self, *, times: int = 1) -> None:
        """Break the next downloads off, TRANSIENT, after their first piece."""
        self._downloads_to_cut += times

    def expire_sessions(self) -> None:
        """Forget all resumable sessions."""
        self._sessions.clear()

    @property
    def faults_pending(self) -> int:
        """How many ordered faults have not taken effect yet."""
        return (
            sum(map(len, self._faults.values()))
            + self._lost_answers.total()
            + (self._cut_after_bytes is not None)
            + self._downloads_to_cut
        )

    @property
    def counts(self) -> Counter[str]:
        """How often each method was called."""
        return Counter(call.method for call in self.calls)

    @property
    def upload_counts(self) -> Counter[str]:
        """How often each object was created or replaced by an upload."""
        return Counter(remote.name for remote in self.uploads)

    def put(
        self, name: str, content: bytes, *, content_type: str = "application/octet-stream"
    ) -> RemoteObject:
        """Place an object as somebody else would have: it is neither logged nor counted as an upload."""
        return self._store(name, content, content_type, google_crc32c.value(content))

    # The port.

    async def check(self) -> None:
        await self._enter("check", "")
        self._need_bucket("reach", "")
        self._leave("check", "")

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
        await self._enter("upload", name)
        self._need_bucket("upload", name)
        _need_name(name)
        self._need_capacity(name)
        self.bytes_received += len(content)
        self._need_generation(name, if_generation)
        _need_checksum(name, content, crc32c)
        remote = self._store(name, content, content_type, crc32c, metadata)
        self.uploads.append(remote)
        self._leave("upload", name)
        return remote

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
        await self._enter("upload_resumable", name)
        self._need_bucket("upload", name)
        _need_name(name)
        session = self._sessions.get(session_uri or "")
        if session is None:
            self._need_capacity(name)
            self._need_generation(name, if_generation)
            session = _Session(name, source.size, content_type, crc32c, if_generation, metadata)
            uri = f"fake://session/{len(self._sessions)}-{self._next_generation()}"
            self._sessions[uri] = session
            await on_session(uri)
        elif (session.name, session.size, session.crc32c) != (name, source.size, crc32c):
            raise SyncError("upload", name, "the session was begun for another content")
        remote = session.finished or await self._feed(session, source)
        self._leave("upload_resumable", name)
        return remote

    async def stat(self, name: str) -> RemoteObject | None:
        await self._enter("stat", name)
        found = self.objects.get(name)
        self._leave("stat", name)
        if found and self.stats_without_checksums:
            return replace(found.remote, crc32c=None)
        return found.remote if found else None

    async def list(self, prefix: str, *, start: str = "", end: str = "") -> Listing:
        after = ""
        while True:
            await self._enter("list", prefix)
            self._need_bucket("list", prefix)
            names = sorted(
                name
                for name in self.objects
                if name.startswith(prefix) and max(start, after) <= name != after and (not end or name < end)
            )
            page = names[: self._page_objects]
            self._leave("list", prefix)
            if page:
                yield tuple(self._listed(self.objects[name].remote) for name in page)
            if len(names) <= self._page_objects:
                return
            after = page[-1]

    async def folders(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        found = {
            name[: name.index("/", len(prefix)) + 1]
            for name in self.objects
            if name.startswith(prefix) and "/" in name[len(prefix) :]
        }
        names = [name.removeprefix(prefix).removesuffix("/") for name in sorted(found)]
        for start in range(0, len(names) or 1, self._page_objects):
            await self._enter("folders", prefix)
            self._need_bucket("list", prefix)
            self._leave("folders", prefix)
            if page := names[start : start + self._page_objects]:
                yield tuple(page)

    async def download(self, found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
        await self._enter("download", found.name)
        stored = self.objects.get(found.name)
        if stored is None or stored.remote.generation != found.generation:
            raise ObjectGoneError("download", found.name, "the object was deleted or replaced")
        for start in range(0, len(stored.content), self._chunk_bytes):
            await write(stored.content[start : start + self._chunk_bytes])
            if self._downloads_to_cut:
                self._downloads_to_cut -= 1
                self.faults_fired += 1
                raise SyncError("download", found.name, "the connection broke", failure=Failure.TRANSIENT)
            await anyio.lowlevel.checkpoint()
        if found.crc32c not in (None, stored.remote.crc32c):
            cause = "what arrived is not what is stored"
            raise SyncError("download", found.name, cause, failure=Failure.TRANSIENT)
        self._leave("download", found.name)

    async def close(self) -> None: ...

    # How it works.

    def _listed(self, remote: RemoteObject) -> RemoteObject:
        if not self.listings_without_checksums:
            return remote
        self.faults_fired += 1
        return replace(remote, crc32c=None)

    async def _enter(self, method: str, name: str) -> None:
        self.calls.append(Call(method, name))
        await anyio.lowlevel.checkpoint()
        if seconds := self._delays_seconds.get(method):
            assert self._clock is not None, "a delay needs a clock"
            await self._clock.sleep(seconds)
        if self._faults[method]:
            self.faults_fired += 1
            raise self._faults[method].popleft()

    def _leave(self, method: str, name: str) -> None:
        if self._lost_answers[method]:
            self._lost_answers[method] -= 1
            self.faults_fired += 1
            raise SyncError(method, name, "the answer was lost", failure=Failure.IN_DOUBT)

    async def _feed(self, session: _Session, source: ByteSource) -> RemoteObject:
        while (offset := len(session.received)) < session.size:
            length = min(self._chunk_bytes, session.size - offset)
            chunk = await source.read(offset, length)
            if len(chunk) != length:
                raise LocalFileError("upload", session.name, "the file became shorter")
            if self._cut_after_bytes is not None and offset + length > self._cut_after_bytes:
                session.received += chunk[: max(self._cut_after_bytes - offset, 0)]
                self.bytes_received += max(self._cut_after_bytes - offset, 0)
                self._cut_after_bytes = None
                self.faults_fired += 1
                raise SyncError("upload", session.name, "the connection broke", failure=Failure.TRANSIENT)
            session.received += chunk
            self.bytes_received += length
            await anyio.lowlevel.checkpoint()
        content = bytes(session.received)
        try:
            self._need_generation(session.name, session.if_generation)
            _need_checksum(session.name, content, session.crc32c)
        except SyncError:
            self._sessions = {uri: other for uri, other in self._sessions.items() if other is not session}
            raise
        session.finished = self._store(
            session.name, content, session.content_type, session.crc32c, session.metadata
        )
        self.uploads.append(session.finished)
        return session.finished

    def _store(
        self,
        name: str,
        content: bytes,
        content_type: str,
        crc32c: int,
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        told = dict(metadata) if metadata else None
        remote = RemoteObject(name, len(content), crc32c, self._next_generation(), told)
        self.objects[name] = StoredObject(remote, content, content_type)
        return remote

    def _next_generation(self) -> int:
        self._generation += 1
        return self._generation

    def _need_bucket(self, operation: str, name: str) -> None:
        if self.missing:
            raise ConfigurationError(operation, name, "there is no such bucket")

    def _need_capacity(self, name: str) -> None:
        """Refuse a write beyond what the bucket has grown to take."""
        if self.writes_per_second_limit is None:
            return
        assert self._clock is not None, "a rate needs a clock"
        now, written = self._clock.elapsed(), self._written
        if self._first_written is None:
            self._first_written = now
        while written and written[0] <= now - _RATE_SECONDS:
            written.popleft()
        doublings = (now - self._first_written) // _DOUBLING_SECONDS
        if len(written) >= self.writes_per_second_limit * 2.0**doublings * _RATE_SECONDS:
            self.refused_writes += 1
            raise SyncError("upload", name, "429 rateLimitExceeded", failure=Failure.QUOTA)
        written.append(now)

    def _need_generation(self, name: str, expected: int) -> None:
        found = self.objects.get(name)
        if (found.remote.generation if found else 0) != expected:
            raise ObjectConflictError("upload", name, "the object's generation is not the expected one")


def _need_name(name: str) -> None:
    """Refuse what the service's "Object naming guidelines" call invalid."""
    fits = 1 <= len(name.encode()) <= _NAME_BYTES_MAX
    if not fits or name in (".", "..") or set(name) & {"\r", "\n"} or name.startswith(".well-known/acme-"):
        raise SyncError("upload", name, "400 invalid: the name is refused")


def _need_checksum(name: str, content: bytes, crc32c: int) -> None:
    if google_crc32c.value(content) != crc32c:
        raise SyncError("upload", name, "the checksum is not the content's", failure=Failure.TRANSIENT)
