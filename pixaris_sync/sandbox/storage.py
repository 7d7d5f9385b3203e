"""A Google Cloud Storage that runs here: ``python -m pixaris_sync.sandbox.storage --bucket B``.

Starts gcp-storage-emulator with what it lacks. It listens on the loopback interface unless told otherwise,
and ends on SIGTERM or SIGINT with exit code 0. Mended, with what was seen:

- Preconditions are ignored. Here ``ifGenerationMatch`` holds for uploads (for a resumable one at its begin
  and at its end), reads, changes and deletions: 412 ``conditionNotMet``.
- Generations are ignored where one is asked for. Here an object has its newest alone: 404 for any other, as
  the service answers where a bucket keeps no versions.
- Most errors have no body. Here they have the JSON that the service answers with.
- A resumable session without a byte says that it has the first one, and forgets its object once it is
  complete. Here it says so, and repeats its last answer.
- One connection at a time, a new one for each request. Here connections stay open and are served in threads;
  the storage itself is used by one request at a time.
- Objects are listed with their checksums whatever key they are under. Here, where a bucket has a key of its
  customer's, they are not, as the service does it.
- The list of all objects is written anew for every upload. Here it is not: see `kept_storage`.
"""

import argparse
import io
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

from pixaris_sync.sandbox import child
from pixaris_sync.sandbox.kept_storage import KeptStorage

_NOT_MET = "At least one of the pre-conditions you specified did not hold."
_CHECKSUMS = {"crc32c", "md5Hash"}
_REASONS = {
    HTTPStatus.BAD_REQUEST: "invalid",
    HTTPStatus.NOT_FOUND: "notFound",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.PRECONDITION_FAILED: "conditionNotMet",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal, or the end of standard input with ``--stop-with-stdin``, ends it."""
    options = _parser().parse_args(arguments)
    reserved = child.reserve_stdout()
    child.end_on_signals()
    if options.stop_with_stdin:
        child.stop_with_parent()
    emulator.Response, emulator.Router = Response, Router
    objects._resumable_incomplete = _answer_incomplete  # noqa: SLF001 - a repair of the pinned version
    storage = _open_storage(options.data_dir)
    if storage.get_bucket(options.bucket) is None:
        buckets.create_bucket(options.bucket, storage)
        storage.commit()
    with Server((options.host, options.port), storage) as server:
        child.announce_ready(reserved, options.host, server.server_address[1])
        server.serve_forever()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pixaris_sync.sandbox.storage")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--bucket", required=True, help="bucket to create where it is not there yet")
    parser.add_argument("--data-dir", type=Path, help="keep the data here (default: in memory)")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input ends")
    return parser


def _open_storage(data_dir: Path | None) -> Storage:
    return MemoryStorage(use_memory_fs=True) if data_dir is None else MendedKeptStorage(data_dir)


class _Mended:
    """Buckets and objects, where keys of customers show."""

    buckets: dict[str, Any]

    def get_file_list(
        self,
        bucket_name: str,
        *arguments: Any,  # noqa: ANN401 - passed through
        **options: Any,  # noqa: ANN401 - passed through
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """List objects; those under a customer's key without checksums."""
        storage: Any = super()
        files, prefixes = storage.get_file_list(bucket_name, *arguments, **options)
        if "defaultKmsKeyName" in self.buckets[bucket_name].get("encryption", {}):
            files = [{name: file[name] for name in file.keys() - _CHECKSUMS} for file in files]
        return files, prefixes


class MemoryStorage(_Mended, Storage):  # type: ignore[misc]  # the emulator has no types
    """Buckets and objects that end with the process."""

    def _write_config_to_file(self) -> None:
        """Nobody reads the list of all objects."""

    def commit(self) -> None:
        """Nothing is kept."""


class MendedKeptStorage(_Mended, KeptStorage):
    """Buckets and objects in a folder."""


class Server(ThreadingHTTPServer):
    """The listener, with what its requests share.

    Attributes:
        storage: the emulator's buckets and objects; use it under `lock`.
        lock: held by the one request that is served.
        finished: the last answers of completed resumable sessions, by upload id.
    """

    daemon_threads = True
    block_on_close = False
    # As many connections may come at once as a pass opens: the listener of the library takes five.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], storage: Storage) -> None:
        super().__init__(address, RequestHandler)
        self.storage = storage
        self.lock = threading.Lock()
        self.finished: dict[str, dict[str, Any]] = {}


class Response(emulator.Response):  # type: ignore[misc]  # the emulator has no types
    """An answer whose errors have the service's JSON."""

    def close(self) -> None:
        """Send the answer."""
        if self.status >= HTTPStatus.BAD_REQUEST and not self._content:
            self.json(_error(HTTPStatus(self.status), HTTPStatus(self.status).phrase))
        super().close()


class RequestHandler(emulator.RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Serves the requests of one connection, each by a `Router`."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer leave in one packet; with two, the client's delayed acknowledgement counts.
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - passed through
        super().__init__(arguments[-1].storage, *arguments)


class Router(emulator.Router):  # type: ignore[misc]  # the emulator has no types
    """Answers one request: what the emulator lacks here, the rest by the emulator."""

    def handle(self, method: str) -> None:
        """Read the whole request, answer into memory, send the answer."""
        handler = self._request_handler
        body = emulator._read_raw_data(handler) or b""  # noqa: SLF001 - as the emulator reads it
        del handler.headers["Transfer-Encoding"]
        del handler.headers["Content-Length"]
        handler.headers["Content-Length"] = str(len(body))
        connection = (handler.rfile, handler.wfile)
        handler.rfile, handler.wfile = io.BytesIO(body), io.BytesIO()
        try:
            with handler.server.lock:
                self._answer(method, body)
                handler.server.storage.commit()
            answer = handler.wfile.getvalue()
        finally:
            handler.rfile, handler.wfile = connection
        handler.wfile.write(answer)

    def _answer(self, method: str, body: bytes) -> None:
        handler = self._request_handler
        finished = handler.server.finished
        url = urlsplit(handler.path)
        query = parse_qs(url.query)
        session = query.get("upload_id", [""])[0]
        if session in finished:
            self._send(HTTPStatus.OK, finished[session])
        elif not self._precondition_holds(method, url.path, query, body):
            failed = HTTPStatus.PRECONDITION_FAILED
            self._send(failed, _error(failed, _NOT_MET, header="If-Match"))
        elif not self._generation_is(query.get("generation"), self._target(method, url.path, query, body)):
            self._send(HTTPStatus.NOT_FOUND, _error(HTTPStatus.NOT_FOUND, "No such object"))
        else:
            name = self._session_object(session)
            super().handle(method)
            if name is not None and session not in handler.storage.resumable:
                finished[session] = handler.storage.get_file_obj(*name)

    def _send(self, status: HTTPStatus, content: object) -> None:
        response = Response(self._request_handler)
        response.status = status
        response.json(content)
        response.close()

    def _session_object(self, session: str) -> tuple[str, str] | None:
        resource = self._request_handler.storage.resumable.get(session)
        return None if resource is None else (resource["bucket"], resource["name"])

    def _precondition_holds(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> bool:
        expected = query.get("ifGenerationMatch")
        target = None if expected is None else self._target(method, path, query, body)
        return self._generation_is(expected, target)

    def _generation_is(self, expected: list[str] | None, target: tuple[str, str] | None) -> bool:
        """Whether an object has the generation that is asked for, if one is; 0 is that of none."""
        if expected is None or target is None:
            return True
        try:
            generation = self._request_handler.storage.get_file_obj(*target)["generation"]
        except NotFound:
            generation = "0"
        return bool(generation == expected[0])

    def _target(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[str, str] | None:
        """The bucket and object that a request is about; None where it is about none."""
        _, found, place = path.partition("/b/")
        bucket, _, name = place.partition("/o")
        if not found:
            return None
        if name.startswith("/"):
            return unquote(bucket), unquote(name[1:])
        session = query.get("upload_id")
        if session:
            return self._session_object(session[0])
        if method != "POST":
            return None
        if "name" in query:
            return unquote(bucket), query["name"][0]
        handler = self._request_handler
        handler.rfile = io.BytesIO(body)
        sent = emulator._read_data(handler, query)  # noqa: SLF001 - as the emulator reads it
        handler.rfile = io.BytesIO(body)
        metadata = sent.get("meta", sent) if isinstance(sent, dict) else {}
        return (unquote(bucket), metadata["name"]) if "name" in metadata else None


def _answer_incomplete(response: Any, storage: Storage, upload_id: str, fallback_end: int = 0) -> None:  # noqa: ANN401, ARG001 - the signature of the function replaced
    """Say how much of an upload has arrived: no ``Range`` where nothing has."""
    response.status = objects.GoogleHTTPStatus.RESUME_INCOMPLETE
    received = storage.get_resumable_byte_count(upload_id)
    if received > 0:
        response["Range"] = f"bytes=0-{received - 1}"


def _error(status: HTTPStatus, message: str, *, header: str = "") -> dict[str, Any]:
    detail = {"message": message, "domain": "global", "reason": _REASONS.get(status, "backendError")}
    if header:
        detail |= {"locationType": "header", "location": header}
    return {"error": {"code": int(status), "message": message, "errors": [detail]}}


if __name__ == "__main__":
    sys.exit(main())
