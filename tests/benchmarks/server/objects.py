"""A bucket service that knows what it was sent: names, sizes, checksums, metadata; not the contents.

What can be downloaded are objects that it made itself, and others where it was told to keep their contents.

The JSON API of Google Cloud Storage as far as upload clients use it, and of the XML API the PUT of an object
(https://cloud.google.com/storage/docs/xml-api/put-object-upload), by which obstore uploads. Checksums are
true; ``md5Hash`` is left out, as the service does for composed objects, unless it is asked for: computing it
takes many times as long as everything else.
"""

import base64
import hashlib
import itertools
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import google_crc32c

from tests.benchmarks.server.bodies import Collected, Content, Related, Sink
from tests.benchmarks.server.uploads import Uploads
from tests.benchmarks.server.wire import Answer, Request, json_answer, refusal

_TIME = "2026-01-01T00:00:00.000Z"
_PAGE_OBJECTS = 1000
_IMAGES_PER_RUN = 100


def encoded_crc32c(crc32c: int) -> str:
    """A checksum as the service tells it."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def inventory_digest(checksums: Mapping[str, int]) -> str:
    """One value for the names and checksums of many objects."""
    digest = hashlib.sha256()
    for name in sorted(checksums):
        digest.update(f"{name}\0{checksums[name]}\n".encode())
    return digest.hexdigest()


def made_content(name: str, size: int) -> bytes:
    """The content of an object that the server made: noise that follows from its name."""
    return hashlib.shake_128(name.encode()).digest(size)


@dataclass(slots=True)
class StoredObject:
    """What is known of an object."""

    bucket: str
    name: str
    size: int
    crc32c: int
    generation: int
    content_type: str
    metadata: dict[str, Any]
    md5: str
    kept: bytes | None = None

    def resource(self) -> dict[str, Any]:
        """As the JSON API tells it."""
        resource: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "size": str(self.size),
            "crc32c": encoded_crc32c(self.crc32c),
            "timeCreated": _TIME,
            "updated": _TIME,
            "storageClass": "STANDARD",
            "etag": f"e{self.generation}",
        }
        if self.md5:
            resource["md5Hash"] = self.md5
        if self.metadata:
            resource["metadata"] = self.metadata
        return resource


@dataclass(slots=True)
class Session:
    """A resumable upload that is under way."""

    bucket: str
    query: dict[str, str]
    metadata: dict[str, Any]
    content_type: str
    content: Content


class Objects:
    """All buckets; every bucket that is asked for exists.

    Attributes:
        counts: requests by kind.
        uploads: when uploads came and went.
        stored: how often an object was created or replaced.
        refused: how many uploads a precondition has refused.
        objects: what is stored, by bucket and name.
        host: the server's own address, for the addresses of sessions.
    """

    def __init__(
        self, host: str, *, with_md5: bool, keeps: bool = False, uploads: Uploads | None = None
    ) -> None:
        self.host = host
        self._keeps = keeps
        self.uploads = uploads or Uploads()
        self._with_md5 = with_md5
        self.counts: Counter[str] = Counter()
        self.objects: dict[str, dict[str, StoredObject]] = {}
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1_700_000_000_000_000)
        self._names: dict[str, list[str]] = {}
        self.stored = self.refused = 0

    def route(self, request: Request) -> tuple[Sink, Callable[[], Answer]]:
        """Requests below ``/storage/v1/b`` and ``/upload/storage/v1/b``."""
        segments = request.segments
        if segments[0] == "upload":
            return self._watched(*self._route_upload(request, segments[4]))
        body = Collected()
        bucket = segments[3] if len(segments) > 3 else ""
        match segments[4:]:
            case [] if bucket:
                return body, lambda: self._bucket(bucket)
            case ["o"]:
                return body, lambda: self._list(bucket, request.query)
            case ["o", *name] if request.query.get("alt") == "media":
                return body, lambda: self._download(bucket, "/".join(name))
            case ["o", *name]:
                return body, lambda: self._look_up(bucket, "/".join(name))
        return body, self._unknown

    def route_put(self, request: Request) -> tuple[Sink, Callable[[], Answer]]:
        """An upload by the XML API: ``PUT /<bucket>/<object>``."""
        content = self._content()
        bucket, *name = request.segments
        return self._watched(content, lambda: self._put(bucket, "/".join(name), request, content))

    def seed(self, bucket: str, objects: int, *, datasets: int, size: int) -> None:
        """Make objects, a hundred images a run, evenly in this many datasets of one project."""
        named = self.objects.setdefault(bucket, {})
        for number in range(objects):
            run = number // datasets // _IMAGES_PER_RUN
            name = f"results/bench/set{number % datasets}/run{run}/generated_images/{number:06d}.png"
            checksum = google_crc32c.value(made_content(name, size))
            generation = next(self._numbers)
            named[name] = StoredObject(bucket, name, size, checksum, generation, "image/png", {}, "")
        self._names.pop(bucket, None)

    def checksums(self) -> dict[str, int]:
        """Checksums by bucket and name."""
        return {f"{b}/{name}": o.crc32c for b, named in self.objects.items() for name, o in named.items()}

    def _watched(self, sink: Sink, finish: Callable[[], Answer]) -> tuple[Sink, Callable[[], Answer]]:
        """Take down when an upload came and went, or refuse it where there are too many."""
        if not self.uploads.begin():
            self.counts["gcs.refused"] += 1
            finish, sink = self._too_many, Collected()

        def answered() -> Answer:
            stored_before = self.stored
            try:
                answer = finish()
            except BaseException:
                self.uploads.end(stored=False)
                raise
            answer.sent = partial(self.uploads.end, stored=self.stored > stored_before)
            return answer

        return sink, answered

    def _too_many(self) -> Answer:
        return refusal(503, "backendError", "too many uploads at the same time")

    def _unknown(self) -> Answer:
        self.counts["gcs.other"] += 1
        return refusal(404, "notFound")

    def _route_upload(self, request: Request, bucket: str) -> tuple[Sink, Callable[[], Answer]]:
        query = request.query
        if "upload_id" in query:
            return self._route_piece(request, query["upload_id"])
        match query.get("uploadType"):
            case "resumable":
                body = Collected()
                return body, lambda: self._begin(bucket, request, body.data)
            case "multipart":
                content = self._content()
                boundary = request.header(b"content-type").partition("boundary=")[2].strip("\"'; ")
                related = Related(boundary.encode(), content)
                return related, lambda: self._multipart(bucket, query, related, content)
            case _:
                content = self._content()
                kind = request.header(b"content-type")
                return content, lambda: self._media(bucket, query, content, kind)

    def _content(self) -> Content:
        return Content(with_md5=self._with_md5, keeps=self._keeps)

    def _media(self, bucket: str, query: dict[str, str], content: Content, kind: str) -> Answer:
        self.counts["gcs.upload.media"] += 1
        return self._store(bucket, query["name"], query, {}, content, kind)

    def _multipart(self, bucket: str, query: dict[str, str], related: Related, content: Content) -> Answer:
        self.counts["gcs.upload.multipart"] += 1
        metadata = json.loads(related.metadata)
        name = metadata.get("name") or query["name"]
        return self._store(bucket, name, query, metadata, content, related.content_type)

    def _put(self, bucket: str, name: str, request: Request, content: Content) -> Answer:
        self.counts["gcs.upload.put"] += 1
        told = request.header(b"x-goog-if-generation-match")
        query = {"ifGenerationMatch": told} if told else {}
        stored = self._stored(bucket, name, query, {}, content, request.header(b"content-type"))
        if isinstance(stored, Answer):
            return stored
        return Answer(
            headers={
                "ETag": f'"{stored.generation}"',
                "x-goog-generation": str(stored.generation),
                "x-goog-hash": f"crc32c={encoded_crc32c(stored.crc32c)}",
            }
        )

    def _begin(self, bucket: str, request: Request, body: bytes) -> Answer:
        self.counts["gcs.upload.session"] += 1
        metadata = json.loads(body) if body else {}
        kind = metadata.get("contentType") or request.header(b"x-upload-content-type")
        upload_id = str(next(self._numbers))
        self._sessions[upload_id] = Session(bucket, request.query, metadata, kind, self._content())
        location = (
            f"{self.host}/upload/storage/v1/b/{bucket}/o?uploadType=resumable"
            f"&upload_id={upload_id}&name={request.query.get('name', '')}"
        )
        return json_answer({}, 200, **{"Location": location, "X-GUploader-UploadID": upload_id})

    def _route_piece(self, request: Request, upload_id: str) -> tuple[Sink, Callable[[], Answer]]:
        session = self._sessions.get(upload_id)
        if session is None:
            return Collected(), lambda: refusal(404, "notFound")
        total = request.header(b"content-range").rpartition("/")[2]
        return session.content, lambda: self._piece(upload_id, session, total)

    def _piece(self, upload_id: str, session: Session, total: str) -> Answer:
        self.counts["gcs.upload.piece"] += 1
        if total == "*" or (total and int(total) > session.content.size):
            received = {"Range": f"bytes=0-{session.content.size - 1}"} if session.content.size else {}
            return Answer(308, b"", received)
        del self._sessions[upload_id]
        name = session.metadata.get("name") or session.query["name"]
        return self._store(
            session.bucket, name, session.query, session.metadata, session.content, session.content_type
        )

    def _store(
        self,
        bucket: str,
        name: str,
        query: dict[str, str],
        metadata: dict[str, Any],
        content: Content,
        kind: str,
    ) -> Answer:
        stored = self._stored(bucket, name, query, metadata, content, kind)
        return stored if isinstance(stored, Answer) else json_answer(stored.resource())

    def _stored(
        self,
        bucket: str,
        name: str,
        query: dict[str, str],
        metadata: dict[str, Any],
        content: Content,
        kind: str,
    ) -> StoredObject | Answer:
        """The object that is stored now, or why it is not."""
        named = self.objects.setdefault(bucket, {})
        before = named.get(name)
        expected = query.get("ifGenerationMatch")
        if expected is not None and int(expected) != (before.generation if before else 0):
            self.refused += 1
            return refusal(412, "conditionNotMet")
        told = metadata.get("crc32c")
        if told and told != encoded_crc32c(content.crc32c):
            return refusal(400, "invalid", "the checksum is another")
        if before is None:
            self._names.pop(bucket, None)
        stored = StoredObject(
            bucket,
            name,
            content.size,
            content.crc32c,
            next(self._numbers),
            metadata.get("contentType") or kind or "application/octet-stream",
            metadata.get("metadata") or {},
            base64.b64encode(content.md5.digest()).decode() if content.md5 else "",
            None if content.kept is None else bytes(content.kept),
        )
        named[name] = stored
        self.stored += 1
        return stored

    def _bucket(self, bucket: str) -> Answer:
        self.counts["gcs.bucket"] += 1
        resource = {
            "kind": "storage#bucket",
            "id": bucket,
            "name": bucket,
            "location": "US",
            "locationType": "multi-region",
            "storageClass": "STANDARD",
            "metageneration": "1",
            "timeCreated": _TIME,
            "updated": _TIME,
            "projectNumber": "1",
            "etag": "e1",
        }
        return json_answer(resource)

    def _look_up(self, bucket: str, name: str) -> Answer:
        self.counts["gcs.object"] += 1
        stored = self.objects.get(bucket, {}).get(name)
        return refusal(404, "notFound") if stored is None else json_answer(stored.resource())

    def _download(self, bucket: str, name: str) -> Answer:
        self.counts["gcs.download"] += 1
        stored = self.objects.get(bucket, {}).get(name)
        if stored is None:
            return refusal(404, "notFound")
        content = made_content(name, stored.size) if stored.kept is None else stored.kept
        if google_crc32c.value(content) != stored.crc32c:
            return refusal(501, "notImplemented", "contents of what was uploaded are not kept")
        checksum = f"crc32c={encoded_crc32c(stored.crc32c)}"
        return Answer(200, content, {"x-goog-hash": checksum, "x-goog-generation": str(stored.generation)})

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
        self.counts["gcs.list"] += 1
        named = self.objects.get(bucket, {})
        names = self._names.get(bucket)
        if names is None:
            names = self._names[bucket] = sorted(named)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("maxResults", _PAGE_OBJECTS)), _PAGE_OBJECTS)
        position = bisect_left(names, max(prefix, query.get("pageToken", "")))
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        while position < len(names) and len(items) + len(prefixes) < limit:
            name = names[position]
            if not name.startswith(prefix):
                break
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            if end < 0:
                items.append(named[name].resource())
                position += 1
            else:
                folder = name[: end + len(delimiter)]
                prefixes.append(folder)
                position = bisect_left(names, folder[:-1] + chr(ord(folder[-1]) + 1), position)
        page: dict[str, Any] = {"kind": "storage#objects"}
        if items:
            page["items"] = items
        if prefixes:
            page["prefixes"] = prefixes
        if position < len(names) and names[position].startswith(prefix):
            page["nextPageToken"] = names[position]
        return json_answer(page)
