"""How the BigQuery adapter asks: what it sends, when it waits, what it loads into memory."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from email import message_from_bytes
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from pixaris_sync.bigquery import sql
from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.bigquery.wire import INSERT_BYTES_MAX
from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.model import Column, ColumnType, OutgoingRow
from pixaris_sync.rules.names import JOB_ID_PREFIX
from tests.support.scripted_bigquery import (
    DATASET,
    HANG,
    LOCATION,
    PROJECT,
    TABLE,
    Answer,
    ScriptedBigQuery,
    error,
    load_job,
    table_resource,
)

pytestmark = pytest.mark.anyio

ROWS = [
    OutgoingRow("a", {"experiment_run_name": "run", "steps": 2**53, "score": float("inf")}),
    OutgoingRow("b", {"experiment_run_name": "ü\n", "steps": -(2**53) + 1, "good": True, "score": "NaN"}),
]
ON_THE_WIRE = [
    {"experiment_run_name": "run", "steps": str(2**53), "score": "Infinity"},
    {"experiment_run_name": "ü\n", "steps": -(2**53) + 1, "good": True, "score": "NaN"},
]
NO_ROWS = Answer(body={"jobComplete": True, "schema": {"fields": []}, "totalRows": "0", "rows": []})


@pytest.fixture
async def sink(server: ScriptedBigQuery) -> AsyncIterator[BigQueryRowSink]:
    sink = BigQueryRowSink(
        f"other-project.{DATASET}", PROJECT, emulator_host=server.url, timeout_seconds=10, threads_limit=2
    )
    yield sink
    await sink.close()


NAMES = Answer(
    body={
        "jobComplete": True,
        "jobReference": {"projectId": PROJECT, "jobId": "names", "location": LOCATION},
        "schema": {"fields": [{"name": "experiment_run_name", "type": "STRING"}]},
        "totalRows": "0",
        "rows": [],
    }
)


class TestRequests:
    @pytest.mark.parametrize(
        ("statistics", "rows", "filtered"),
        [
            ({}, None, False),
            ({"rowLevelSecurityStatistics": {"rowLevelSecurityApplied": True}}, 1, True),
            ({"rowLevelSecurityStatistics": {"rowLevelSecurityApplied": True}}, 0, False),
            ({"rowLevelSecurityStatistics": {"rowLevelSecurityApplied": False}}, None, False),
            ({"dataMaskingStatistics": {"dataMaskingApplied": True}}, None, True),
        ],
    )
    async def test_statistics_of_a_query_tell_whether_rows_are_hidden(
        self,
        server: ScriptedBigQuery,
        sink: BigQueryRowSink,
        statistics: dict[str, Any],
        rows: int | None,
        *,
        filtered: bool,
    ) -> None:
        """Goal: a row that does not show is not taken for deleted.

        Method: each kind of statistics of a query that shows no row; a policy hides some, or none.
        """
        reference = {"projectId": PROJECT, "jobId": "names", "location": LOCATION}
        job = {"jobReference": reference, "configuration": {"jobType": "QUERY", "query": {"query": "x"}}}
        table = [] if rows is None else [Answer(body={**table_resource().body, "numRows": str(rows)})]
        server.script(NAMES, Answer(body={**job, "statistics": statistics}), *table)

        assert await sink.is_filtered(TABLE) is filtered
        assert not server.left
        query, look = (asked for asked in server.asked if "/queries" in asked.path or "/jobs/" in asked.path)
        assert query.json["query"] == sql.all_names(sql.table_path("other-project", DATASET, TABLE))
        assert look.path.endswith("/jobs/names")

    async def test_rows_are_streamed_with_their_insert_ids(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the wire holds what BigQuery reads without loss. Method: look at the request."""
        server.script(Answer(body={}))
        await sink.stream(TABLE, ROWS)
        (asked,) = server.asked
        assert asked.path.endswith(f"/projects/other-project/datasets/{DATASET}/tables/{TABLE}/insertAll")
        assert asked.json == {
            "rows": [
                {"json": cells, "insertId": row.row_id} for row, cells in zip(ROWS, ON_THE_WIRE, strict=True)
            ]
        }

    @pytest.mark.parametrize(
        ("names", "clustering"),
        [(["score", "experiment_run_name"], {"fields": ["experiment_run_name"]}), (["score"], None)],
    )
    async def test_a_table_is_created_clustered_by_run(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, names: list[str], clustering: object
    ) -> None:
        """Goal: a query bills what it asks for. Method: look at the request, with that column and without."""
        server.script(table_resource())
        await sink.create_table(TABLE, [Column(name, ColumnType.STRING) for name in names])
        assert server.asked[-1].json.get("clustering") == clustering

    async def test_a_row_over_the_limit_is_not_sent(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: what the service never takes is refused for good. Method: one huge cell; no request."""
        huge = OutgoingRow("a", {"note": "x" * INSERT_BYTES_MAX})
        with pytest.raises(SyncError) as caught:
            await sink.stream(TABLE, [huge])
        assert caught.value.failure is Failure.PERMANENT
        assert not server.asked

    async def test_a_load_job_appends_to_a_table_that_exists(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the job does that and nothing else. Method: its configuration, id, place and lines."""
        server.script(load_job("job-1", "DONE"))
        await sink.load(TABLE, ROWS, job_id="job-1")
        asked = server.asked[-1]
        assert asked.path == f"/upload/bigquery/v2/projects/{PROJECT}/jobs"
        kind = asked.headers["Content-Type"].encode()
        whole = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + asked.body)
        begin_part, lines_part = (
            cast("bytes", part.get_payload(decode=True)) for part in whole.walk() if not part.is_multipart()
        )
        begin = json.loads(begin_part)
        assert begin["jobReference"] == {"jobId": "job-1", "projectId": PROJECT, "location": LOCATION}
        assert begin["configuration"]["load"] == {
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "writeDisposition": "WRITE_APPEND",
            "createDisposition": "CREATE_NEVER",
            "destinationTable": {"projectId": "other-project", "datasetId": DATASET, "tableId": TABLE},
        }
        assert [json.loads(line) for line in lines_part.decode().splitlines()] == ON_THE_WIRE

    async def test_a_query_names_runs_as_parameters_and_asks_past_the_cache(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: no name becomes SQL, no answer is stale. Method: look at the request."""
        server.script(NO_ROWS)
        assert await sink.read_rows(TABLE, ["it's"]) == []
        asked = server.asked[-1].json
        assert asked["useQueryCache"] is False
        assert asked["location"] == LOCATION
        (parameter,) = asked["queryParameters"]
        assert parameter["parameterValue"] == {"arrayValues": [{"value": "it's"}]}

    async def test_the_dataset_is_asked_for_its_location_once(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: a steady state of one request a call. Method: two reads after check; count."""
        server.script(NO_ROWS, NO_ROWS)
        await sink.check()
        for _ in range(2):
            await sink.read_rows(TABLE, ["run"])
        assert [asked.method for asked in server.asked] == ["GET", "POST", "POST"]


class TestWaitingForLoadJobs:
    async def test_a_running_job_is_followed_to_its_end(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: load returns when rows are in. Method: pending, running, done; each look names the place."""
        server.script(load_job("job", "PENDING"), load_job("job", "RUNNING"), load_job("job", "DONE"))
        await sink.load(TABLE, ROWS, job_id="job")
        assert not server.left
        looks = [asked for asked in server.asked if asked.path.endswith("/jobs/job")]
        assert [look.query["location"] for look in looks] == [[LOCATION]] * 2

    async def test_a_job_that_exists_is_waited_for_instead(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: 409 is the same as having begun it. Method: 409, then the job, running and done."""
        existing = load_job("job", "RUNNING", project="other-project")
        server.script(error(409, "duplicate"), existing, load_job("job", "DONE"))
        await sink.load(TABLE, ROWS, job_id="job")
        assert not server.left
        assert server.asked[-2].query["location"] == [LOCATION]

    async def test_a_job_of_that_id_for_another_table_is_an_error(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: somebody else's success is not ours. Method: the job that 409 leads to loads elsewhere."""
        server.script(error(409, "duplicate"), load_job("job", "DONE", table="elsewhere"))
        with pytest.raises(SyncError) as caught:
            await sink.load(TABLE, ROWS, job_id="job")
        assert caught.value.failure is Failure.PERMANENT

    async def test_load_jobs_of_ours_that_have_not_ended_are_listed(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: whoever asks a table knows what may still come. Method: jobs of ours and of others."""
        ours, later = f"{JOB_ID_PREFIX}1", f"{JOB_ID_PREFIX}2"
        jobs = [
            load_job(ours, "PENDING", project="other-project"),
            load_job("theirs", "PENDING"),
            load_job(later, "RUNNING", project="other-project"),
            load_job(f"{JOB_ID_PREFIX}3", "RUNNING", project="other-project", table="elsewhere"),
        ]
        server.script(Answer(body={"jobs": [job.body for job in jobs]}))
        assert await sink.running_loads(TABLE) == {ours, later}
        assert server.asked[-1].query["stateFilter"] == ["pending", "running"]

    async def test_a_job_that_does_not_end_is_in_doubt(self, server: ScriptedBigQuery) -> None:
        """Goal: the wait is bounded. Method: a job that keeps running, and a short timeout."""
        sink = BigQueryRowSink(
            DATASET, PROJECT, emulator_host=server.url, timeout_seconds=0.3, threads_limit=1
        )
        server.script(*[load_job("job", "RUNNING")] * 100)
        with pytest.raises(SyncError) as caught:
            await sink.load(TABLE, ROWS, job_id="job")
        await sink.close()
        assert caught.value.failure is Failure.IN_DOUBT
        assert server.left > 50, "the pauses grow"
        server.forget_script()


class TestCancellation:
    async def test_a_read_is_abandoned(self, server: ScriptedBigQuery, sink: BigQueryRowSink) -> None:
        """Goal: draining does not wait for reads. Method: cancel one that gets no answer yet."""
        server.script(HANG)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sink.describe, TABLE)
            await anyio.to_thread.run_sync(server.hanging.wait)
            tasks.cancel_scope.cancel()
        assert not server.released.is_set()
        server.released.set()

    async def test_a_write_is_waited_for(self, server: ScriptedBigQuery, sink: BigQueryRowSink) -> None:
        """Goal: no row goes in after its sender has gone. Method: cancel a stream; its answer ends it."""
        server.script(HANG)
        ended: list[bool] = []

        async def stream() -> None:
            try:
                await sink.stream(TABLE, ROWS)
            except SyncError:  # what came of it is told even so
                ended.append(server.released.is_set())

        async def release() -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                assert not ended
                server.released.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream)
            await anyio.to_thread.run_sync(server.hanging.wait)
            tasks.start_soon(release)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert ended == [True]


class TestConstruction:
    @pytest.mark.parametrize("name", ["", "project.", "."])
    def test_a_name_that_is_no_dataset_is_refused(self, name: str) -> None:
        """Goal: a wrong setting is told at once. Method: names without a dataset."""
        with pytest.raises(ConfigurationError):
            BigQueryRowSink(name, PROJECT, emulator_host=None, timeout_seconds=1, threads_limit=1)

    @pytest.mark.parametrize(("timeout", "threads"), [(0, 1), (-1, 1), (1, 0)])
    def test_limits_are_positive(self, timeout: float, threads: int) -> None:
        """Goal: limits are checked at the start. Method: zero and less."""
        with pytest.raises(ValueError, match="positive"):
            BigQueryRowSink(
                DATASET, PROJECT, emulator_host=None, timeout_seconds=timeout, threads_limit=threads
            )

    def test_importing_it_imports_no_client(self) -> None:
        """Goal: start-up stays quick. Method: a fresh interpreter constructs one, then lists modules."""
        code = (
            "import sys; from pixaris_sync.bigquery.sink import BigQueryRowSink as Sink;"
            "Sink('d', 'p', emulator_host=None, timeout_seconds=1, threads_limit=1);"
            "print([n for n in sys.modules if n.startswith(('google.', 'requests', 'pandas'))])"
        )
        answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert answer.stdout.strip() == "[]"


class TestStatements:
    def test_no_name_ends_its_quotes(self) -> None:
        """Goal: names stay names. Method: backticks, backslashes, dots and line ends come out escaped."""
        assert sql.quoted("a`b\\`c\n") == "`a\\`b\\\\\\`c\\n`"
        assert sql.table_path("p", "d", "a.b`") == "`p`.`d`.`a.b\\``"

    def test_all_columns_go_into_one_statement(self) -> None:
        """Goal: one metadata update however many columns. Method: every type at once."""
        columns = [Column(kind.value, kind) for kind in ColumnType if kind is not ColumnType.OTHER]
        assert sql.add_columns("`t`", columns) == (
            "ALTER TABLE `t` ADD COLUMN IF NOT EXISTS `STRING` STRING, "
            "ADD COLUMN IF NOT EXISTS `BOOLEAN` BOOL, ADD COLUMN IF NOT EXISTS `INTEGER` INT64, "
            "ADD COLUMN IF NOT EXISTS `FLOAT` FLOAT64"
        )
        assert sql.widen_columns("`t`", ["a", "b"]) == (
            "ALTER TABLE `t` ALTER COLUMN `a` SET DATA TYPE FLOAT64, ALTER COLUMN `b` SET DATA TYPE FLOAT64"
        )
