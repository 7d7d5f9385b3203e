"""The emulated storage behaves as the real one where the product relies on it."""

import http.client
import io
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud.storage import Bucket

from tests.integration.cloud import TIMEOUT_SECONDS, Cloud

CHUNK_BYTES = 256 * 1024


@pytest.fixture
def connection(cloud: Cloud) -> Iterator[http.client.HTTPConnection]:
    """A plain connection to the emulator."""
    opened = http.client.HTTPConnection(_address(cloud), timeout=TIMEOUT_SECONDS)
    yield opened
    opened.close()


def _address(cloud: Cloud) -> str:
    return urlsplit(cloud.environment["STORAGE_EMULATOR_HOST"]).netloc


class _Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.content = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    **headers: str,
) -> _Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    return _Answer(connection.getresponse())


def _begin(connection: http.client.HTTPConnection, cloud: Cloud, name: str, query: str = "") -> str:
    """Begin a resumable upload; the path of its session."""
    path = f"/upload/storage/v1/b/{cloud.bucket}/o?uploadType=resumable&name={quote(name)}{query}"
    begun = _ask(connection, "POST", path, b"{}", Content_Type="application/json")
    assert begun.status == 200
    session = urlsplit(begun.headers["Location"])
    return f"{session.path}?{session.query}"


def _upload(bucket: Bucket, name: str, content: bytes, *, resumable: bool, generation: int) -> int:
    blob = bucket.blob(name, chunk_size=CHUNK_BYTES if resumable else None)
    blob.upload_from_file(
        io.BytesIO(content),
        size=None if resumable else len(content),
        if_generation_match=generation,
        retry=None,
        timeout=TIMEOUT_SECONDS,
    )
    assert blob.generation is not None
    return int(blob.generation)


def _read(bucket: Bucket, name: str) -> bytes:
    return bytes(bucket.blob(name).download_as_bytes(retry=None, timeout=TIMEOUT_SECONDS))


@pytest.mark.parametrize("resumable", [False, True], ids=["multipart", "resumable"])
def test_an_upload_replaces_only_the_generation_that_it_names(bucket: Bucket, *, resumable: bool) -> None:
    """Goal: generation preconditions. Method: create, create again, replace an old and the right one."""
    first = _upload(bucket, "a", b"1", resumable=resumable, generation=0)

    with pytest.raises(PreconditionFailed):
        _upload(bucket, "a", b"2", resumable=resumable, generation=0)
    second = _upload(bucket, "a", b"3", resumable=resumable, generation=first)
    with pytest.raises(PreconditionFailed):
        _upload(bucket, "a", b"4", resumable=resumable, generation=first)

    assert second != first
    assert _read(bucket, "a") == b"3"


def test_a_session_is_checked_again_when_it_ends(
    cloud: Cloud, connection: http.client.HTTPConnection
) -> None:
    """Goal: two writers, one object. Method: begin two sessions for a new object, end both."""
    sessions = [_begin(connection, cloud, "raced", "&ifGenerationMatch=0") for _ in range(2)]

    ended = [_ask(connection, "PUT", path, b"x", Content_Range="bytes 0-0/1") for path in sessions]

    assert [answer.status for answer in ended] == [200, 412]
    assert ended[1].json["error"]["errors"][0]["reason"] == "conditionNotMet"


def test_reads_and_deletions_hold_to_generations_too(bucket: Bucket) -> None:
    """Goal: no other generation is read or deleted. Method: name a wrong one."""
    generation = _upload(bucket, "a", b"1", resumable=False, generation=0)
    blob = bucket.blob("a")

    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=generation + 1, retry=None, timeout=TIMEOUT_SECONDS)
    with pytest.raises(PreconditionFailed):
        blob.reload(if_generation_match=generation + 1, retry=None, timeout=TIMEOUT_SECONDS)

    blob.reload(if_generation_match=generation, retry=None, timeout=TIMEOUT_SECONDS)
    assert blob.generation == generation


def test_a_session_tells_what_has_arrived(cloud: Cloud, connection: http.client.HTTPConnection) -> None:
    """Goal: an upload can go on after a crash. Method: ask before, between and after its chunks."""
    session = _begin(connection, cloud, "large")
    total = CHUNK_BYTES + 1
    status = f"bytes */{total}"

    nothing = _ask(connection, "PUT", session, Content_Range=status)
    _ask(connection, "PUT", session, b"x" * CHUNK_BYTES, Content_Range=f"bytes 0-{CHUNK_BYTES - 1}/{total}")
    some = _ask(connection, "PUT", session, Content_Range=status)
    last = _ask(connection, "PUT", session, b"y", Content_Range=f"bytes {CHUNK_BYTES}-{CHUNK_BYTES}/{total}")
    done = _ask(connection, "PUT", session, Content_Range=status)

    assert (nothing.status, nothing.headers["Range"]) == (308, None)
    assert (some.status, some.headers["Range"]) == (308, f"bytes=0-{CHUNK_BYTES - 1}")
    assert last.status == 200
    assert (done.status, done.json["generation"]) == (200, last.json["generation"])


def test_errors_have_a_json_body(cloud: Cloud, connection: http.client.HTTPConnection) -> None:
    """Goal: clients can read why. Method: a bucket and an object that do not exist."""
    upload = "/upload/storage/v1/b/no-such-bucket/o?uploadType=media&name=a"
    for answer in (
        _ask(connection, "POST", upload, b"x", Content_Type="text/plain"),
        _ask(connection, "GET", "/storage/v1/b/no-such-bucket/o"),
        _ask(connection, "GET", f"/storage/v1/b/{cloud.bucket}/o/no-such-object"),
    ):
        assert answer.status == 404
        assert answer.json["error"]["code"] == 404
        assert answer.json["error"]["errors"][0]["reason"] == "notFound"


def test_a_missing_object_is_not_found_by_the_client(bucket: Bucket) -> None:
    """Goal: Google's client maps the answer. Method: download what is not there."""
    with pytest.raises(NotFound):
        _read(bucket, "absent")


def test_connections_stay_open_and_do_not_wait_for_each_other(
    cloud: Cloud, connection: http.client.HTTPConnection
) -> None:
    """Goal: keep-alive, and no client blocks another. Method: an idle connection besides a busy one."""
    idle = http.client.HTTPConnection(_address(cloud), timeout=TIMEOUT_SECONDS)
    idle.connect()
    path = f"/storage/v1/b/{cloud.bucket}/o"

    assert _ask(connection, "GET", path).status == 200
    used = connection.sock
    # A body that no handler reads may not be taken for the next request.
    assert _ask(connection, "POST", "/nowhere", b"GET / HTTP/1.1\r\n\r\n").status == 501
    assert _ask(connection, "GET", path).status == 200

    assert connection.sock is used
    assert _ask(idle, "GET", path).status == 200
    idle.close()


def test_objects_written_at_the_same_time_all_arrive(bucket: Bucket) -> None:
    """Goal: threads do not spoil the storage. Method: eight writers of every byte value, then read all."""
    content = bytes(range(256)) * 40 + b"\r\n"
    writers = [
        threading.Thread(
            target=_upload,
            args=(bucket, f"results/{number}", content),
            kwargs={"resumable": False, "generation": 0},
        )
        for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(TIMEOUT_SECONDS)

    listed = [blob.name for blob in bucket.list_blobs(retry=None, timeout=TIMEOUT_SECONDS)]
    assert listed == [f"results/{number}" for number in range(8)]
    assert all(_read(bucket, name) == content for name in listed)
