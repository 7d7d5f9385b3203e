"""Which IAM permissions Google asks of a request, recorded and refused in front of emulators.

A `Guard` is the rule of the proxies. It judges each request by method, path, query and body, by what Google
documents for that method, and never by what this program's own table says:

- Cloud Storage: "IAM permissions for JSON methods" (objects.insert needs storage.objects.delete too where an
  object is replaced; an account that may not list gets 403 for an object that is not there). The address of
  an upload session is a key by itself.
- BigQuery: "IAM Permissions" of each method in the REST reference (discovery document of 9 October 2026); for
  load jobs "Permissions to load data into BigQuery", for ALTER TABLE and CREATE TABLE "Required permissions"
  in "Data definition language". Of its own jobs an account needs nothing but what it began them with.

A request that it does not know fails the test.
"""

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit

from tests.support.proxy import Answer, Proxies, Request, refusal

ACCOUNT = "robot@the-project.iam.gserviceaccount.com"
_JOBS = "bigquery.jobs.create"
_QUOTED = r"`(?:[^`\\]|\\.)+`"
#: What a statement needs beside the job that it is.
_STATEMENTS = (
    (r"SELECT 1", ()),
    (r"\s*SELECT\b.*\bFROM\b.*", ("bigquery.tables.getData",)),
    (rf"ALTER TABLE {_QUOTED}.*", ("bigquery.tables.get", "bigquery.tables.update")),
    (rf"CREATE TABLE {_QUOTED}.*", ("bigquery.tables.create",)),
)
_LOAD = ("bigquery.tables.create", "bigquery.tables.updateData", "bigquery.tables.update")
_INSERT = ("bigquery.tables.updateData", "bigquery.tables.get", "bigquery.datasets.get")
_PROJECT = r"/bigquery/v2/projects/[^/]+"
_TABLES = rf"{_PROJECT}/datasets/[^/]+/tables"
#: Requests to BigQuery that are told apart by method and path alone.
_BIGQUERY = {
    rf"GET {_PROJECT}/datasets/[^/]+": ("bigquery.datasets.get",),
    rf"GET {_TABLES}": ("bigquery.tables.list",),
    rf"POST {_TABLES}": ("bigquery.tables.create",),
    rf"GET {_TABLES}/[^/]+": ("bigquery.tables.get",),
    rf"POST {_TABLES}/[^/]+/insertAll": _INSERT,
    rf"GET {_PROJECT}/jobs": (),
    rf"GET {_PROJECT}/jobs/[^/]+": (_JOBS,),
    # The destination is a table of whoever asked.
    rf"GET {_PROJECT}/queries/[^/]+": (_JOBS,),
}
_BUCKET = r"/storage/v1/b/[^/]+"
_STORAGE = {
    rf"GET {_BUCKET}/iam/testPermissions": (),
    rf"GET {_BUCKET}/o": ("storage.objects.list",),
    rf"GET (/download)?{_BUCKET}/o/.+": ("storage.objects.get",),
}


@dataclass
class Guard:
    """Records which permissions are used, and refuses what needs one that is lacking.

    Args:
        upstream: URL of the storage emulator, which knows which objects are there.

    Attributes:
        used: permissions that requests needed so far.
        lacking: permissions that the account does not have.
        refused: permissions for whose lack something was refused.
        unknown: requests that nothing is known of.
    """

    upstream: str
    used: set[str] = field(default_factory=set)
    lacking: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of_storage(self, request: Request) -> Answer | None:
        """The rule of the proxy before the bucket."""
        if request.matches(rf"^GET {_BUCKET}/iam/testPermissions$"):
            asked = parse_qs(urlsplit(request.target).query)["permissions"]
            held = [name for name in asked if name not in self.lacking]
            return Answer(200, json.dumps({"permissions": held}).encode())
        needed = self._storage_needs(request)
        missing = self._note(request, needed)
        if missing is None:
            return None
        kind = "bucket" if missing in ("storage.buckets.get", "storage.objects.list") else "object"
        said = (
            f"{ACCOUNT} does not have {missing} access to the Google Cloud Storage {kind}. "
            f"Permission '{missing}' denied on resource (or it may not exist)."
        )
        if "alt=media" in request.target:
            # Where content is asked for, the service refuses in plain text.
            return Answer(403, said.encode(), {"Content-Type": "text/html; charset=UTF-8"})
        return refusal(403, "forbidden", said)

    def of_bigquery(self, request: Request) -> Answer | None:
        """The rule of the proxy before the tables."""
        missing = self._note(request, _bigquery_needs(request))
        if missing is None:
            return None
        parts = request.path.split("/")
        project = parts[parts.index("projects") + 1]
        tables = re.findall(r"`([^`]+)`\.`([^`]+)`\.`([^`]+)`", request.body.decode(errors="replace"))
        table = ":".join((project, ".".join(tables[0][1:]))) if tables else f"{project}:dataset.table"
        if missing == _JOBS:
            what, said = (
                f"Project {project}",
                f"User does not have {missing} permission in project {project}.",
            )
        elif missing == "bigquery.tables.getData":
            # The one refusal that does not name the permission.
            what = f"Table {table}"
            said = f"User does not have permission to query table {table}, or perhaps it does not exist."
        elif missing in ("bigquery.datasets.get", "bigquery.tables.create", "bigquery.tables.list"):
            dataset = table.partition(".")[0]
            what = f"Dataset {dataset}"
            said = f"Permission {missing} denied on dataset {dataset} (or it may not exist)."
        else:
            what = f"Table {table}"
            said = f"Permission {missing} denied on table {table} (or it may not exist)."
        return refusal(403, "accessDenied", f"Access Denied: {what}: {said}")

    def _storage_needs(self, request: Request) -> tuple[str, ...] | None:
        query = parse_qs(urlsplit(request.target).query)
        if request.matches(rf"^GET {_BUCKET}$"):
            # What names no fields is asked without a token, for the time alone: any refusal tells it.
            return ("storage.buckets.get",) if query else ()
        if request.matches(rf"^(POST|PUT) /upload{_BUCKET}/o$"):
            if "upload_id" in query:
                return ()
            name = query["name"][0] if "name" in query else _named_in_body(request.body)
            replaces = query.get("ifGenerationMatch") != ["0"] and self._is_there(request, name)
            return ("storage.objects.create", *(("storage.objects.delete",) if replaces else ()))
        needed = _known(_STORAGE, request)
        if needed == ("storage.objects.get",) and "storage.objects.list" in self.lacking:
            name = re.sub(r".*?/o/", "", urlsplit(request.target).path, count=1)
            if not self._is_there(request, name, quoted=True):
                return (*needed, "storage.objects.list")
        return needed

    def _is_there(self, request: Request, name: str, *, quoted: bool = False) -> bool:
        bucket = re.search(r"/b/([^/]+)/", request.path)
        assert bucket
        path = name if quoted else quote(name, safe="")
        try:
            with urllib.request.urlopen(f"{self.upstream}/storage/v1/b/{bucket[1]}/o/{path}", timeout=20):  # noqa: S310 - an emulator on loopback
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def _note(self, request: Request, needed: tuple[str, ...] | None) -> str | None:
        """Record what a request needs; the permission for whose lack it is refused, if it is."""
        with self._lock:
            if needed is None:
                self.unknown.append(f"{request.method} {request.target} {request.body[:200]!r}")
                return None
            self.used.update(needed)
            missing = next((name for name in needed if name in self.lacking), None)
            if missing:
                self.refused.add(missing)
            return missing


def _known(table: dict[str, tuple[str, ...]], request: Request) -> tuple[str, ...] | None:
    return next((needed for pattern, needed in table.items() if request.matches(f"^{pattern}$")), None)


def _named_in_body(body: bytes) -> str:
    """The object's name, in the metadata of an upload: the first JSON object of the body."""
    document, _ = json.JSONDecoder().raw_decode(body.decode("utf-8", "replace"), body.index(b"{"))
    name: str = document["name"]
    return name


def _bigquery_needs(request: Request) -> tuple[str, ...] | None:
    if request.matches(rf"^(POST|PUT) /(resumable/)?upload{_PROJECT}/jobs$"):
        begun = "upload_id" not in request.target
        assert not begun or b'"load"' in request.body
        return (_JOBS, *_LOAD) if begun else ()
    if request.matches(rf"^POST {_PROJECT}/(queries|jobs)$"):
        document = json.loads(request.body)
        query = document.get("configuration", document)
        statement = query["query"]["query"] if isinstance(query.get("query"), dict) else query["query"]
        for pattern, needed in _STATEMENTS:
            if re.fullmatch(pattern, statement, re.DOTALL):
                return (_JOBS, *needed)
        return None
    return _known(_BIGQUERY, request)


@contextmanager
def guarded(proxies: Proxies, upstream: str) -> Iterator[Guard]:
    """Let a guard stand before both services; at the end, every request must have been known."""
    guard = Guard(upstream)
    proxies.storage.rule, proxies.bigquery.rule = guard.of_storage, guard.of_bigquery
    yield guard
    assert guard.unknown == []
