"""An HTTP server that answers as a test says, in BigQuery's place."""

import json
import socket
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pixaris_sync.errors import SyncError
from pixaris_sync.model import JsonValue, OutgoingRow
from tests.support.secrets import ACCESS_TOKEN, SESSION_ID

PROJECT, DATASET, TABLE, LOCATION = "the-project", "the_dataset", "the_table", "EU"
UPLOAD_SESSION = SESSION_ID
DATASET_RESOURCE = {
    "datasetReference": {"projectId": PROJECT, "datasetId": DATASET},
    "location": LOCATION,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body of JSON or bytes. `way` "drop" breaks the connection, "hang" stays silent first."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    way: str = "answer"


DROP = Answer(way="drop")
HANG = Answer(way="hang")


def error(
    status: int,
    reason: str,
    message: str = "it says why",
    *,
    details: Sequence[Mapping[str, str]] = (),
    **headers: str,
) -> Answer:
    """An error as Google's APIs answer with; `details` are ``google.rpc.ErrorInfo``."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    body = {"error": {"code": status, "message": message, "errors": errors, "details": [*details]}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def row(row_id: str, **cells: JsonValue) -> OutgoingRow:
    """A row of the run called run."""
    return OutgoingRow(row_id, {"experiment_run_name": "run", **cells})


async def failure_of(request: Awaitable[object]) -> SyncError:
    """The error that a request ends in."""
    with pytest.raises(SyncError) as caught:
        await request
    return caught.value


def table_resource(*fields: tuple[str, str]) -> Answer:
    """The answer of ``tables.get`` for a table of these fields: name and type each."""
    reference = {"projectId": PROJECT, "datasetId": DATASET, "tableId": TABLE}
    schema = {"fields": [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in fields]}
    return Answer(body={"tableReference": reference, "schema": schema})


def load_job(
    job_id: str, state: str, *errors: tuple[str, str], table: str = TABLE, project: str = PROJECT
) -> Answer:
    """The answer of ``jobs.get`` for a load job; `errors` are reason and message, the first its result."""
    protos = [{"reason": kind, "message": message} for kind, message in errors]
    status: dict[str, Any] = {"state": state}
    if protos:
        status |= {"errorResult": protos[0], "errors": protos}
    destination = {"projectId": project, "datasetId": DATASET, "tableId": table}
    return Answer(
        body={
            "jobReference": {"projectId": PROJECT, "jobId": job_id, "location": LOCATION},
            "configuration": {"jobType": "LOAD", "load": {"destinationTable": destination}},
            "status": status,
        }
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class ScriptedBigQuery:
    """Answers ``datasets.get`` by `dataset`, tokens by `token`, all else as `script` was told, in order."""

    def __init__(self) -> None:
        self.dataset = Answer(body=DATASET_RESOURCE)
        self.token = Answer(body={"access_token": ACCESS_TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        self.asked: list[Asked] = []
        self.url = ""
        self.hanging = threading.Event()
        self.released = threading.Event()
        self._script: deque[Answer] = deque()

    def script(self, *answers: Answer) -> None:
        """Append answers."""
        self._script.extend(answers)

    def forget_script(self) -> None:
        """Take back the answers that were not asked for."""
        self._script.clear()

    def script_session(self, *answers: Answer) -> None:
        """Append the answer that begins a resumable upload, as of a large load job, and then these."""
        location = f"{self.url}/upload?upload_id={UPLOAD_SESSION}"
        self.script(Answer(200, {}, {"Location": location}), *answers)

    @property
    def left(self) -> int:
        """How many answers were not asked for."""
        return len(self._script)

    def next_answer(self, asked: Asked) -> Answer:
        """What to answer now."""
        self.asked.append(asked)
        if asked.path == "/token":
            return self.token
        if asked.method == "GET" and asked.path.endswith(f"/datasets/{DATASET}"):
            return self.dataset
        return self._script.popleft() if self._script else error(501, "unscripted", "the script has ended")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The sink ends its connections with a reset, those too that wait for a further request.
        if not isinstance(sys.exception(), ConnectionResetError):
            super().handle_error(request, client_address)


@contextmanager
def scripted_bigquery() -> Iterator[ScriptedBigQuery]:
    """Run one on a free port of the loopback interface."""
    script = ScriptedBigQuery()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self._body()
            url = urlsplit(self.path)
            asked = Asked(self.command, url.path, parse_qs(url.query), self.headers, body)
            answer = script.next_answer(asked)
            if answer.way == "hang":
                script.hanging.set()
                script.released.wait()
            if answer.way != "answer":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - http.server's names

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        script.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
