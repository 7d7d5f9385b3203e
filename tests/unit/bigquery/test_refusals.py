"""What BigQuery says of rows and load jobs that it refuses, asked over real sockets."""

import pytest

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.errors import (
    Failure,
    JobFailedError,
    TableNotFoundError,
    UnknownColumnError,
)
from pixaris_sync.model import JsonValue, OutgoingRow, RowRefusal
from tests.support.scripted_bigquery import (
    DROP,
    TABLE,
    Answer,
    ScriptedBigQuery,
    error,
    failure_of,
    load_job,
    row,
    table_resource,
)

pytestmark = pytest.mark.anyio


def insert_errors(*entries: tuple[int, str, str]) -> Answer:
    """Index, reason and location each."""
    told = [
        {
            "index": index,
            "errors": [{"reason": reason, "location": location, "message": "why", "debugInfo": ""}],
        }
        for index, reason, location in entries
    ]
    return Answer(body={"kind": "bigquery#tableDataInsertAllResponse", "insertErrors": told})


class TestInsertErrors:
    async def refusals(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, *rows: OutgoingRow
    ) -> tuple[RowRefusal, ...]:
        server.script(table_resource(("experiment_run_name", "STRING"), ("Steps", "INTEGER")))
        return await sink.stream(TABLE, rows)

    @pytest.mark.parametrize(
        ("cells", "location", "unknown"),
        [
            ({"new": 1}, "new", True),
            ({"steps": "many"}, "steps", False),
            ({"steps": 2**63}, "steps", False),
            ({"steps": 7}, "Steps", True),
            ({"new": 1}, "", True),
            ({"steps": "many"}, "", False),
        ],
        ids=[
            "no such column",
            "another type",
            "out of range",
            "known to tables.get but not to streaming",
            "no location, a key without column",
            "no location, all keys have columns",
        ],
    )
    async def test_an_unknown_field_is_told_from_a_bad_value(
        self,
        server: ScriptedBigQuery,
        sink: BigQueryRowSink,
        cells: dict[str, JsonValue],
        location: str,
        unknown: bool,  # noqa: FBT001 - an expected value
    ) -> None:
        """Goal: BigQuery gives both the reason "invalid". Method: the table's columns decide."""
        server.script(insert_errors((0, "stopped", ""), (1, "invalid", location)))
        refusals = await self.refusals(server, sink, row("a"), row("b", **cells))
        assert refusals[0] == RowRefusal(0, "stopped", stopped=True)
        assert (refusals[1].stopped, refusals[1].unknown_column) == (False, unknown)
        assert refusals[1].cause == (f"{location}: why" if location else "why")

    @pytest.mark.parametrize("reason", ["backendError", "internalError", "timeout", "rateLimitExceeded"])
    async def test_rows_that_failed_by_the_service_are_in_doubt(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, reason: str
    ) -> None:
        """Goal: a row's own backend error refuses nothing for good. Method: one among ``insertErrors``."""
        server.script(insert_errors((0, reason, "")))
        assert (await failure_of(sink.stream(TABLE, [row("a")]))).failure is Failure.IN_DOUBT

    async def test_only_stopped_rows_need_no_look_at_the_table(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: no needless request. Method: an answer with stopped rows only; one request was made."""
        server.script(insert_errors((0, "stopped", "")))
        assert await sink.stream(TABLE, [row("a")]) == (RowRefusal(0, "stopped", stopped=True),)
        assert len(server.asked) == 1


COUNTED = ("invalid", "JSON table encountered too many errors, giving up. Rows: 1; errors: 1.")


class TestLoadJobs:
    @pytest.mark.parametrize(
        ("reason", "failure"),
        [
            ("accessDenied", Failure.PERMISSION),
            ("backendError", Failure.TRANSIENT),
            ("stopped", Failure.TRANSIENT),
            ("internalError", Failure.TRANSIENT),
            ("rateLimitExceeded", Failure.QUOTA),
            ("quotaExceeded", Failure.QUOTA),
            ("resourcesExceeded", Failure.PERMANENT),
        ],
    )
    async def test_a_job_fails_by_its_reason(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, reason: str, failure: Failure
    ) -> None:
        """Goal: a job that ended is never in doubt. Method: a job done with each reason."""
        server.script(load_job("job", "DONE", (reason, "why")))
        caught = await failure_of(sink.load(TABLE, [row("a")], job_id="job"))
        assert (caught.failure, caught.cause) == (failure, "why")

    async def test_bad_data_is_named_by_the_errors_the_job_collected(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the cause helps. Method: a result that only counts, beside one that explains."""
        said = "Could not convert value 'string_value: \"many\"' to integer. Field: steps"
        server.script(load_job("job", "DONE", COUNTED, ("invalid", said)))
        server.script(table_resource(("experiment_run_name", "STRING"), ("steps", "INTEGER")))
        caught = await failure_of(sink.load(TABLE, [row("a", steps="many")], job_id="job"))
        assert (type(caught), caught.failure, caught.cause) == (JobFailedError, Failure.PERMANENT, said)

    async def test_a_column_that_the_table_lacks_is_told_by_looking_at_it(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: not by the job's words. Method: a job failed as "invalid"; the table has no such column."""
        server.script(load_job("job", "DONE", COUNTED))
        server.script(table_resource(("experiment_run_name", "STRING")))
        caught = await failure_of(sink.load(TABLE, [row("a", steps=1)], job_id="job"))
        assert isinstance(caught, UnknownColumnError)
        assert "steps" in caught.cause

    async def test_a_job_for_a_missing_table_says_so(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: one class for one fact, however it is told. Method: the job ends with notFound."""
        server.script(load_job("job", "DONE", ("notFound", "Not found: Table x")))
        assert isinstance(await failure_of(sink.load(TABLE, [row("a")], job_id="job")), TableNotFoundError)

    @pytest.mark.parametrize(
        "answer", [error(503, "backendError"), error(404, "notFound"), error(401, "x"), DROP]
    )
    async def test_a_job_that_cannot_be_followed_is_in_doubt(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, answer: Answer
    ) -> None:
        """Goal: a running job is not begun again under a new id. Method: the first look at it fails."""
        server.script(load_job("job", "RUNNING"), answer)
        assert (await failure_of(sink.load(TABLE, [row("a")], job_id="job"))).failure is Failure.IN_DOUBT

    async def test_a_job_that_is_known_but_not_found_is_in_doubt(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: "exists already" counts. Method: 409 for the upload, then 404 for the job."""
        server.script(error(409, "duplicate"), error(404, "notFound"))
        assert (await failure_of(sink.load(TABLE, [row("a")], job_id="job"))).failure is Failure.IN_DOUBT
