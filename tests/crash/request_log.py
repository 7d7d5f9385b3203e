"""Every request that reaches the emulators, checked before it does."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit

from pixaris_sync.model import RunKey
from tests.crash.network_faults import Moment
from tests.support.proxy import Answer, Request

_STORAGE = re.compile(r"/(upload/)?storage/")
_LOAD = re.compile(r"/(resumable/)?upload/bigquery/")
_RUN_NAME = re.compile(rb'"experiment_run_name":\s*"([^"\\]+)"')
#: Statements that take rows or tables away, or change or add rows behind the back of insertAll and load jobs.
_HARMFUL = re.compile(r"\b(DELETE|UPDATE|TRUNCATE|DROP|MERGE|INSERT)\b", re.IGNORECASE)
_OK = (200, 201)


class RequestKind(StrEnum):
    """What a request is about."""

    UPLOAD = "upload in one request"
    SESSION = "begin of a resumable session"
    CHUNK = "chunk of a resumable session"
    LOOK_UP = "object looked up"
    LISTING = "objects listed"
    STREAM = "streaming insert"
    LOAD = "load job"
    QUERY = "query or ALTER TABLE"
    OTHER = "other"


def kind_of(request: Request) -> RequestKind:
    """What a request is about."""
    parts = urlsplit(request.target)
    path = parts.path
    if _STORAGE.match(path):
        upload_type = parse_qs(parts.query).get("uploadType", [""])[0]
        if request.method == "PUT":
            return RequestKind.CHUNK
        if request.method == "POST":
            return RequestKind.SESSION if upload_type == "resumable" else RequestKind.UPLOAD
        return RequestKind.LISTING if path.endswith("/o") else RequestKind.LOOK_UP
    if path.endswith("/insertAll"):
        return RequestKind.STREAM
    if _LOAD.match(path):
        return RequestKind.LOAD
    return RequestKind.QUERY if path.endswith("/queries") else RequestKind.OTHER


class RequestLog:
    """Notes what all machines send, in the threads of their proxies.

    A row becomes visible at the earliest when the request that carries it is passed on. So, when one is about
    to be, every object of its run must have been finished: the emulator has answered that it is there.

    Args:
        objects_of_runs: names of the objects that each committed run must have, looked up when needed.

    Attributes:
        generations: of each object, every generation that ever was and its crc32c.
        requests: how many requests of each kind arrived.
        rows_sent: how many rows were on their way, those sent again included.
        violations: what must never be.
    """

    def __init__(self, objects_of_runs: Callable[[], dict[RunKey, set[str]]]) -> None:
        self._objects_of_runs = objects_of_runs
        self._expected: dict[str, set[str]] = {}
        self._lock = threading.Lock()
        self.generations: dict[str, dict[int, str]] = defaultdict(dict)
        self.requests: dict[RequestKind, int] = defaultdict(int)
        self.rows_sent = 0
        self.violations: list[str] = []

    def observe(self, moment: Moment, request: Request, answer: Answer | None) -> None:
        """Take one request or answer down; an observer of `NetworkFaults`."""
        kind = kind_of(request)
        with self._lock:
            if moment is Moment.ARRIVED:
                self.requests[kind] += 1
                self._check(kind, request)
            elif (
                answer is not None
                and kind in (RequestKind.UPLOAD, RequestKind.CHUNK)
                and answer.status in _OK
            ):
                finished = json.loads(answer.content)
                self.generations[finished["name"]][int(finished["generation"])] = finished["crc32c"]

    def _check(self, kind: RequestKind, request: Request) -> None:
        if request.method in ("DELETE", "PATCH") or "/rewriteTo/" in request.path:
            self.violations.append(f"asked to delete or change: {request}")
        if kind is RequestKind.QUERY and _HARMFUL.search(json.loads(request.body)["query"]):
            self.violations.append(f"asked to delete or change: {request.body!r}")
        if kind in (RequestKind.STREAM, RequestKind.LOAD):
            for name in _RUN_NAME.findall(request.body):
                self.rows_sent += 1
                self._check_row(kind, name.decode())

    def _check_row(self, kind: RequestKind, run: str) -> None:
        if run not in self._expected:
            self._expected = {key.run: names for key, names in self._objects_of_runs().items()}
        if run not in self._expected:
            self.violations.append(f"a row of a run that is not committed was sent by {kind}: {run}")
            return
        missing = self._expected[run] - self.generations.keys()
        if missing:
            self.violations.append(f"the row of {run} was sent by {kind} before {sorted(missing)}")
