"""The BigQuery API as far as its own client uses it for what pixaris-sync and Pixaris do."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.benchmarks.server.bodies import Collected, Related, Sink
from tests.benchmarks.server.tables import (
    Found,
    NoSuchTableError,
    Table,
    UnknownStatementError,
    cells,
    execute,
)
from tests.benchmarks.server.wire import Answer, Request, json_answer, refusal

_LOCATION = "US"


class Warehouse:
    """All datasets; every dataset that is asked for exists. Jobs are done as soon as they are there.

    Attributes:
        counts: requests by kind.
        tables: by project, dataset and id.
        load_jobs: how many there were, by table.
        host: the server's own address, for the addresses of sessions.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.counts: Counter[str] = Counter()
        self.tables: dict[tuple[str, str, str], Table] = {}
        self.load_jobs: Counter[tuple[str, str, str]] = Counter()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._found: dict[str, Found] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)

    def route(self, request: Request) -> tuple[Sink, Callable[[], Answer]]:
        """Requests below ``/bigquery/v2`` and ``/upload/bigquery/v2``."""
        body = Collected()
        segments = request.segments
        if segments[0] == "upload":
            if request.query.get("uploadType") == "multipart":
                boundary = request.header(b"content-type").partition("boundary=")[2].strip("\"'; ")
                related = Related(boundary.encode(), body)
                return related, lambda: self._load(json.loads(related.metadata), body.data)
            return body, lambda: self._upload(request, body.data)
        project, route = segments[3], (request.method, *segments[4:])
        return body, lambda: self._answer(project, route, request.query, body.data)

    def arrived_at(self, run: str) -> float | None:
        """When a run's first row arrived, on the machine's monotonic clock; None while it has not."""
        return next((t.arrived[run] for t in self.tables.values() if run in t.arrived), None)

    def row_count(self) -> int:
        """How many rows are stored."""
        return sum(len(table.rows) for table in self.tables.values())

    def told(self) -> dict[str, dict[str, int]]:
        """Of each table how many rows it has, of how many runs, and how many load jobs there were."""
        return {
            key[-1]: {"rows": len(table.rows), "runs": len(table.arrived), "load_jobs": self.load_jobs[key]}
            for key, table in self.tables.items()
        }

    def _answer(  # noqa: PLR0911 - one return a route
        self, project: str, route: tuple[str, ...], query: dict[str, str], body: bytes
    ) -> Answer:
        match route:
            case ("GET", "datasets", dataset):
                return self._dataset(project, dataset)
            case ("POST", "datasets", dataset, "tables"):
                return self._create(project, dataset, json.loads(body))
            case ("GET", "datasets", dataset, "tables", table):
                return self._table(project, dataset, table)
            case ("POST", "datasets", dataset, "tables", table, "insertAll"):
                return self._insert((project, dataset, table), json.loads(body)["rows"])
            case ("GET", "datasets", dataset, "tables", table, "data"):
                return self._data((project, dataset, table))
            case ("POST", "queries"):
                return self._query(project, json.loads(body))
            case ("GET", "queries", job):
                return self._results(project, job)
            case ("POST", "jobs"):
                return self._begin_job(project, json.loads(body))
            case ("GET", "jobs", *job):
                return self._told_of_jobs(job)
        self.counts["bq.other"] += 1
        return refusal(404, "notFound", f"not served: {' '.join(route)} {sorted(query)}")

    def _told_of_jobs(self, job: list[str]) -> Answer:
        if not job:
            # Whoever lists them asks for those that run, and none does.
            self.counts["bq.jobs.list"] += 1
            return json_answer({"kind": "bigquery#jobList"})
        self.counts["bq.jobs.get"] += 1
        return json_answer(self._jobs[job[0]]) if job[0] in self._jobs else refusal(404, "notFound")

    def _dataset(self, project: str, dataset: str) -> Answer:
        self.counts["bq.datasets.get"] += 1
        reference = {"projectId": project, "datasetId": dataset}
        return json_answer(
            {"datasetReference": reference, "location": _LOCATION, "id": f"{project}:{dataset}"}
        )

    def _table(self, project: str, dataset: str, table: str) -> Answer:
        self.counts["bq.tables.get"] += 1
        found = self.tables.get((project, dataset, table))
        if found is None:
            return _no_table(f"{project}:{dataset}.{table}")
        return json_answer(_table_resource((project, dataset, table), found))

    def _create(self, project: str, dataset: str, definition: dict[str, Any]) -> Answer:
        self.counts["bq.tables.insert"] += 1
        key = (project, dataset, definition["tableReference"]["tableId"])
        if key in self.tables:
            return refusal(409, "duplicate", "Already Exists: Table")
        self.tables[key] = Table(list(definition["schema"]["fields"]))
        return json_answer(_table_resource(key, self.tables[key]))

    def _insert(self, key: tuple[str, str, str], rows: list[dict[str, Any]]) -> Answer:
        self.counts["bq.insert"] += 1
        table = self.tables.get(key)
        if table is None:
            return _no_table(".".join(key))
        errors = [
            {
                "index": index,
                "errors": [{"reason": "invalid", "location": unknown[0], "message": "no such field"}],
            }
            for index, row in enumerate(rows)
            if (unknown := table.unknown_columns(row["json"]))
        ]
        if errors:
            return json_answer({"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": errors})
        table.append([row["json"] for row in rows])
        return json_answer({"kind": "bigquery#tableDataInsertAllResponse"})

    def _data(self, key: tuple[str, str, str]) -> Answer:
        self.counts["bq.data"] += 1
        table = self.tables.get(key)
        if table is None:
            return _no_table(".".join(key))
        rows = cells(table.fields, table.rows)
        return json_answer({"kind": "bigquery#tableDataList", "totalRows": str(len(rows)), "rows": rows})

    def _query(self, project: str, query: dict[str, Any]) -> Answer:
        self.counts["bq.query"] += 1
        found = self._execute(query)
        if isinstance(found, Answer):
            return found
        job = f"query-{next(self._numbers)}"
        self._found[job] = found
        self._jobs[job] = _job_resource(project, job, {"query": query})
        return json_answer(_results_resource(project, job, found))

    def _results(self, project: str, job: str) -> Answer:
        self.counts["bq.results"] += 1
        if job not in self._found:
            return refusal(404, "notFound")
        return json_answer(_results_resource(project, job, self._found[job]))

    def _begin_job(self, project: str, definition: dict[str, Any]) -> Answer:
        self.counts["bq.jobs.insert"] += 1
        configuration = definition["configuration"]
        job = definition["jobReference"].get("jobId") or f"job-{next(self._numbers)}"
        if job in self._jobs:
            return refusal(409, "duplicate", "Already Exists: Job")
        found = self._execute(configuration["query"])
        if isinstance(found, Answer):
            return found
        self._found[job] = found
        self._jobs[job] = _job_resource(project, job, configuration)
        return json_answer(self._jobs[job])

    def _execute(self, query: dict[str, Any]) -> Found | Answer:
        parameters = {
            parameter["name"]: [
                value["value"] for value in parameter["parameterValue"].get("arrayValues", ())
            ]
            for parameter in query.get("queryParameters", ())
        }
        try:
            return execute(query["query"], parameters, self.tables)
        except NoSuchTableError as error:
            return _no_table(str(error))
        except UnknownStatementError as error:
            return refusal(400, "invalidQuery", f"this server does not know: {error}")

    def _upload(self, request: Request, body: bytes) -> Answer:
        upload_id = request.query.get("upload_id")
        if upload_id is None:
            self.counts["bq.load.session"] += 1
            upload_id = str(next(self._numbers))
            self._sessions[upload_id] = {"definition": json.loads(body), "data": b""}
            address = "/".join(request.segments)
            location = f"{self.host}/{address}?uploadType=resumable&upload_id={upload_id}"
            return json_answer({}, 200, Location=location)
        self.counts["bq.load.piece"] += 1
        session = self._sessions[upload_id]
        session["data"] += body
        total = request.header(b"content-range").rpartition("/")[2]
        if total == "*" or (total and int(total) > len(session["data"])):
            return Answer(308, b"", {"Range": f"bytes=0-{len(session['data']) - 1}"})
        del self._sessions[upload_id]
        return self._load(session["definition"], session["data"])

    def _load(self, definition: dict[str, Any], data: bytes) -> Answer:
        self.counts["bq.load"] += 1
        reference, configuration = definition["jobReference"], definition["configuration"]
        job = reference["jobId"]
        if job in self._jobs:
            return refusal(409, "duplicate", "Already Exists: Job")
        destination = configuration["load"]["destinationTable"]
        key = (destination["projectId"], destination["datasetId"], destination["tableId"])
        resource = self._jobs[job] = _job_resource(reference["projectId"], job, configuration)
        self.load_jobs[key] += 1
        table = self.tables.get(key)
        if table is None:
            resource["status"]["errorResult"] = {"reason": "notFound", "message": "Not found: Table"}
            return json_answer(resource)
        rows = [json.loads(line) for line in data.splitlines() if line]
        if any(table.unknown_columns(row) for row in rows):
            resource["status"]["errorResult"] = {"reason": "invalid", "message": "no such field"}
        else:
            table.append(rows)
        return json_answer(resource)


def _no_table(name: str) -> Answer:
    return refusal(404, "notFound", f"Not found: Table {name}")


def _table_resource(key: tuple[str, str, str], table: Table) -> dict[str, Any]:
    project, dataset, name = key
    return {
        "kind": "bigquery#table",
        "id": f"{project}:{dataset}.{name}",
        "tableReference": {"projectId": project, "datasetId": dataset, "tableId": name},
        "schema": {"fields": table.fields},
        "type": "TABLE",
        "location": _LOCATION,
        "numRows": str(len(table.rows)),
    }


def _job_resource(project: str, job: str, configuration: dict[str, Any]) -> dict[str, Any]:
    kind = "LOAD" if "load" in configuration else "QUERY"
    return {
        "kind": "bigquery#job",
        "id": f"{project}:{_LOCATION}.{job}",
        "jobReference": {"projectId": project, "jobId": job, "location": _LOCATION},
        "configuration": {"jobType": kind, **configuration},
        "status": {"state": "DONE"},
        "statistics": {},
    }


def _results_resource(project: str, job: str, found: Found) -> dict[str, Any]:
    return {
        "kind": "bigquery#queryResponse",
        "jobReference": {"projectId": project, "jobId": job, "location": _LOCATION},
        "jobComplete": True,
        "schema": {"fields": found.fields},
        "rows": found.rows,
        "totalRows": str(len(found.rows)),
        "cacheHit": False,
    }
