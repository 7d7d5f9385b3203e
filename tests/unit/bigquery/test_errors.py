"""What BigQuery's answers and silences mean, asked over real sockets."""

import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.errors import (
    QUOTA_RESTS_SECONDS,
    ConfigurationError,
    Failure,
    TableNotFoundError,
)
from pixaris_sync.model import Column, ColumnType
from tests.support.scripted_bigquery import (
    DATASET,
    DROP,
    HANG,
    PROJECT,
    TABLE,
    UPLOAD_SESSION,
    Answer,
    ScriptedBigQuery,
    error,
    failure_of,
    load_job,
    row,
    table_resource,
)

pytestmark = pytest.mark.anyio

Ask = Callable[[BigQueryRowSink], Awaitable[object]]

READS: dict[str, Ask] = {
    "describe": lambda sink: sink.describe(TABLE),
    "count_rows": lambda sink: sink.count_rows(TABLE, ["run"]),
    "running_loads": lambda sink: sink.running_loads(TABLE),
    "read_rows": lambda sink: sink.read_rows(TABLE, ["run"]),
    "read_table": lambda sink: sink.read_table(TABLE),
    "is_filtered": lambda sink: sink.is_filtered(TABLE),
    "create_table": lambda sink: sink.create_table(TABLE, [Column("a", ColumnType.STRING)]),
    "add_columns": lambda sink: sink.add_columns(TABLE, [Column("a", ColumnType.STRING)]),
    "widen_columns": lambda sink: sink.widen_columns(TABLE, ["a"]),
}
WRITES: dict[str, Ask] = {
    "stream": lambda sink: sink.stream(TABLE, [row("a")]),
    "load": lambda sink: sink.load(TABLE, [row("a")], job_id="job"),
}


@pytest.fixture
async def hasty_sink(server: ScriptedBigQuery) -> AsyncIterator[BigQueryRowSink]:
    sink = BigQueryRowSink(DATASET, PROJECT, emulator_host=server.url, timeout_seconds=0.3, threads_limit=2)
    yield sink
    await sink.close()


CONCURRENT = "Could not serialize access to table x:y.z due to concurrent update"
ANSWERS = [
    (error(400, "invalid"), Failure.PERMANENT),
    (error(400, "invalidQuery"), Failure.PERMANENT),
    (error(401, "authError"), Failure.CREDENTIALS),
    (error(403, "accessDenied"), Failure.PERMISSION),
    (error(403, "billingNotEnabled"), Failure.PERMISSION),
    (error(407, "required"), Failure.TRANSIENT),
    (Answer(400, b"<html>Bad Request</html>"), Failure.TRANSIENT),
    (Answer(403, b"<html>Forbidden</html>"), Failure.TRANSIENT),
    (Answer(403, {"message": "blocked"}), Failure.TRANSIENT),
    (Answer(404, b"<html>Not Found</html>"), Failure.TRANSIENT),
    (Answer(407, b""), Failure.TRANSIENT),
    (Answer(451, b""), Failure.TRANSIENT),
    (error(403, "quotaExceeded"), Failure.QUOTA),
    (error(403, "rateLimitExceeded"), Failure.QUOTA),
    (error(400, "jobRateLimitExceeded"), Failure.QUOTA),
    (error(403, "userRateLimitExceeded"), Failure.QUOTA),
    (error(403, "blocked"), Failure.QUOTA),
    (error(429, "quotaExceeded"), Failure.QUOTA),
    (error(403, "forbidden", details=[{"reason": "RATE_LIMIT_EXCEEDED"}]), Failure.QUOTA),
    (error(400, "invalidQuery", CONCURRENT), Failure.TRANSIENT),
    (error(400, "aborted"), Failure.TRANSIENT),
    (error(412, "conditionNotMet"), Failure.TRANSIENT),
    (error(408, "requestTimeout"), Failure.TRANSIENT),
    (error(413, "uploadTooLarge"), Failure.PERMANENT),
    (error(429, "rateLimitExceeded"), Failure.QUOTA),
    (Answer(429, b"slow down"), Failure.QUOTA),
    (error(400, "jobBackendError"), Failure.TRANSIENT),
    (error(500, "internalError"), Failure.TRANSIENT),
    (error(501, "notImplemented"), Failure.TRANSIENT),
    (Answer(502, b"<html>Bad Gateway</html>"), Failure.TRANSIENT),
    (Answer(502, {"error": "bad gateway"}), Failure.TRANSIENT),
    (error(503, "backendError"), Failure.TRANSIENT),
    (Answer(504, b""), Failure.TRANSIENT),
    (Answer(200, b"<html>Please log in</html>"), Failure.TRANSIENT),
    (DROP, Failure.TRANSIENT),
]


class TestAnswers:
    @pytest.mark.parametrize(("answer", "failure"), ANSWERS)
    @pytest.mark.parametrize("name", READS)
    async def test_a_read_or_repeatable_change_fails_by_what_the_answer_means(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, name: str, answer: Answer, failure: Failure
    ) -> None:
        """Goal: each answer has one meaning, whoever asked. Method: every answer to every request."""
        server.script(answer)
        caught = await failure_of(READS[name](sink))
        assert caught.failure is failure
        assert TABLE in caught.subject
        assert caught.cause
        assert "\n" not in caught.cause

    @pytest.mark.parametrize(("answer", "failure"), ANSWERS)
    @pytest.mark.parametrize("name", WRITES)
    async def test_a_write_that_may_have_been_done_is_in_doubt(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, name: str, answer: Answer, failure: Failure
    ) -> None:
        """Goal: no row is sent again unseen. Method: every answer to what carries rows."""
        if name == "load":
            server.script(answer)
        else:
            server.script(answer)
        caught = await failure_of(WRITES[name](sink))
        assert caught.failure is (Failure.IN_DOUBT if failure is Failure.TRANSIENT else failure)

    @pytest.mark.parametrize("name", [*READS, *WRITES])
    async def test_nothing_is_retried_here(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, name: str
    ) -> None:
        """Goal: one place retries, and it is another. Method: a retryable answer; count the requests."""
        server.script(error(503, "backendError"))
        await failure_of((READS | WRITES)[name](sink))
        assert len([asked for asked in server.asked if not asked.path.endswith(DATASET)]) == 1

    @pytest.mark.parametrize("name", [*READS, *WRITES])
    async def test_no_connection_means_that_nothing_was_done(self, name: str) -> None:
        """Goal: an offline machine is never in doubt. Method: a port at which nobody listens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{free.getsockname()[1]}"
            sink = BigQueryRowSink(DATASET, PROJECT, emulator_host=host, timeout_seconds=5, threads_limit=1)
            caught = await failure_of((READS | WRITES)[name](sink))
            await sink.close()
        assert caught.failure is Failure.TRANSIENT
        assert caught.cause.startswith("no connection")

    @pytest.mark.parametrize(
        ("name", "failure"), [("describe", Failure.TRANSIENT), ("stream", Failure.IN_DOUBT)]
    )
    async def test_silence_ends_with_the_timeout(
        self, server: ScriptedBigQuery, hasty_sink: BigQueryRowSink, name: str, failure: Failure
    ) -> None:
        """Goal: every wait is bounded. Method: a server that reads and never answers."""
        server.script(HANG)
        caught = await failure_of((READS | WRITES)[name](hasty_sink))
        assert caught.failure is failure
        assert caught.cause.startswith("no answer in time")

    async def test_the_service_says_how_long_to_wait(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: Retry-After is passed on. Method: seconds, a date, nonsense, nothing."""
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
        waits = []
        for asked in ("7", later, "soon", ""):
            server.script(error(429, "rateLimitExceeded", Retry_After=asked))
            waits.append((await failure_of(sink.describe(TABLE))).retry_after_seconds)
        assert waits[0] == 7
        assert waits[1] is not None
        assert 80 < waits[1] <= 100
        assert waits[2:] == [None, None]

    @pytest.mark.parametrize("status", [400, 403, 429])
    async def test_a_quota_that_is_used_up_is_left_alone_for_minutes(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, status: int
    ) -> None:
        """Goal: the load jobs of a day do not come back in seconds. Method: answers, and a job that ended."""
        waits = []
        for asked in ("", "7", "900"):
            server.script(error(status, "quotaExceeded", Retry_After=asked))
            waits.append((await failure_of(sink.describe(TABLE))).retry_after_seconds)
        server.script(load_job("job", "DONE", ("quotaExceeded", "too many imports or query appends")))
        waits.append((await failure_of(sink.load(TABLE, [row("a")], job_id="job"))).retry_after_seconds)
        assert waits == [QUOTA_RESTS_SECONDS, QUOTA_RESTS_SECONDS, 900, QUOTA_RESTS_SECONDS]

    async def test_a_change_that_meets_another_one_is_tried_again(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: of machines that change a table together none is refused for good.

        Method: each answer that tells of another change, to an ALTER.
        """
        found = []
        for answer in (
            error(409, "aborted"),
            error(412, "conditionNotMet"),
            error(400, "invalidQuery", CONCURRENT),
        ):
            server.script(answer)
            found.append((await failure_of(sink.widen_columns(TABLE, ["steps"]))).failure)
        assert found == [Failure.TRANSIENT] * 3

    async def test_a_denied_permission_is_named(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the user learns which permission is missing. Method: the message arrives, with a hint."""
        said = "Access Denied: Permission bigquery.tables.updateData denied on table x"
        server.script(error(403, "accessDenied", said))
        caught = await failure_of(sink.stream(TABLE, [row("a")]))
        assert caught.cause == said
        assert caught.hint.startswith("grant bigquery.tables.updateData on the dataset")
        assert "BigQuery Data Editor" in caught.hint

    async def test_a_denied_query_names_what_the_service_does_not(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the same where only the table is named. Method: Google's refusal of a SELECT."""
        server.script(error(403, "accessDenied", "User does not have permission to query table x."))
        caught = await failure_of(sink.count_rows(TABLE, ["run"]))
        assert caught.cause.endswith("query table x (it needs bigquery.tables.getData)")
        assert caught.hint.startswith("grant bigquery.tables.getData on the dataset")

    async def test_a_load_job_that_is_denied_says_what_to_grant(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: a hint there too. Method: a job that was begun, and ended so."""
        said = "Access Denied: Permission bigquery.tables.updateData denied on table x"
        server.script(load_job("job", "DONE", ("accessDenied", said)))
        caught = await failure_of(sink.load(TABLE, [row("a")], job_id="job"))
        assert caught.failure is Failure.PERMISSION
        assert caught.hint.startswith("grant bigquery.tables.updateData on the dataset")

    async def test_no_message_holds_an_upload_session(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: errors carry no keys. Method: failing uploads; search all text, the traceback too."""
        # As for a load job of several megabytes.
        monkeypatch.setattr("google.cloud.bigquery.client._MAX_MULTIPART_SIZE", 1)
        for answer in (DROP, error(500, "internalError"), Answer(502, b"?"), Answer(500, {"error": {}})):
            server.script_session(answer)
            caught = await failure_of(sink.load(TABLE, [row("a")], job_id="job"))
            told = [str(caught), repr(caught), caught.hint, *traceback.format_exception(caught)]
            assert not any(UPLOAD_SESSION in text or server.url in text for text in told)


class TestCredentials:
    async def test_missing_credentials_are_a_matter_of_configuration(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Goal: without a key nothing starts, and the hint helps. Method: a key file that is not there."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no-such-key.json"))
        sink = BigQueryRowSink(DATASET, PROJECT, emulator_host=None, timeout_seconds=5, threads_limit=1)
        caught = await failure_of(sink.check())
        assert isinstance(caught, ConfigurationError)
        assert caught.failure is Failure.CREDENTIALS
        assert "gcloud auth" in caught.hint

    @pytest.mark.parametrize("status", [401, 403])
    async def test_check_turns_a_refusal_into_configuration(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink, status: int
    ) -> None:
        """Goal: no work starts without access. Method: the dataset refuses; check says so."""
        server.dataset = error(status, "accessDenied", "you may not")
        caught = await failure_of(sink.check())
        assert isinstance(caught, ConfigurationError)
        assert caught.failure in (Failure.CREDENTIALS, Failure.PERMISSION)

    async def test_check_leaves_a_passing_failure_as_it_is(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: an outage is no misconfiguration. Method: 503 for the dataset."""
        server.dataset = error(503, "backendError")
        caught = await failure_of(sink.check())
        assert not isinstance(caught, ConfigurationError)
        assert caught.failure is Failure.TRANSIENT


class TestNotFound:
    async def test_a_missing_dataset_is_told_from_a_missing_table(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: one status, two facts. Method: 404 with the dataset there, then without."""
        server.script(error(404, "notFound"))
        assert await sink.describe(TABLE) is None
        server.script(error(404, "notFound"))
        server.dataset = error(404, "notFound")
        assert isinstance(await failure_of(sink.describe(TABLE)), ConfigurationError)

    async def test_a_table_that_queries_do_not_find_yet_is_not_empty(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: rows that are there are not sent again. Method: the query says 404, ``tables.get`` not."""
        server.script(error(404, "notFound"), table_resource(("a", "STRING")))
        caught = await failure_of(sink.read_rows(TABLE, ["run"]))
        assert isinstance(caught, TableNotFoundError)
        assert caught.failure is Failure.TRANSIENT

    async def test_streaming_into_a_missing_table_says_so(
        self, server: ScriptedBigQuery, sink: BigQueryRowSink
    ) -> None:
        """Goal: the caller can create it or wait. Method: ``insertAll`` answers 404."""
        server.script(error(404, "notFound"))
        caught = await failure_of(sink.stream(TABLE, [row("a")]))
        assert isinstance(caught, TableNotFoundError)
        assert caught.failure is Failure.TRANSIENT
