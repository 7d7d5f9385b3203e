"""What is seen of a dataset without Google's client is what that would have seen; of all else it is asked."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pixaris_sync.bigquery.inspection import BigQueryDatasetInspection
from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.errors import ConfigurationError, Failure
from tests.support.scripted_bigquery import (
    DATASET,
    DATASET_RESOURCE,
    DROP,
    LOCATION,
    PROJECT,
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

LACKING = error(404, "notFound", "Not found: Table")
PAGE = Answer(404, b"<html>Please log in</html>", {"Content-Type": "text/html"})


@pytest.fixture
async def sink(server: ScriptedBigQuery) -> AsyncIterator[BigQueryDatasetInspection]:
    sink = BigQueryDatasetInspection(
        f"{PROJECT}.{DATASET}",
        PROJECT,
        emulator_host=server.url,
        timeout_seconds=10,
        threads_limit=2,
        glances=True,
    )
    yield sink
    await sink.close()


def is_without_client(sink: BigQueryRowSink) -> bool:
    return sink._calls is None


async def test_a_dataset_that_is_there_is_seen_at_a_glance(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection
) -> None:
    """Goal: a first run asks without the client. Method: check and facts; each value is read as by it."""
    server.dataset = Answer(
        body={
            **DATASET_RESOURCE,
            "defaultTableExpirationMs": "3600000",
            "defaultPartitionExpirationMs": "60000",
            "defaultEncryptionConfiguration": {"kmsKeyName": "key"},
            "type": "LINKED",
        }
    )
    await sink.check()
    seen = await sink.facts()
    assert is_without_client(sink)
    by_client = await sink._ask(lambda calls: calls.facts())  # type: ignore[attr-defined]
    assert seen == by_client
    assert (seen.table_seconds, seen.partition_seconds, seen.key, seen.read_only) == (3600, 60, "key", True)
    asked = [(one.method, one.path) for one in server.asked]
    assert asked == [("GET", f"/bigquery/v2/projects/{PROJECT}/datasets/{DATASET}")] * 3


async def test_a_table_that_is_not_there_is_seen_once(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection
) -> None:
    """Goal: files need not wait for the client, nor rows for two looks. Method: describe twice."""
    server.script(LACKING)
    assert await sink.describe(TABLE) is None
    assert is_without_client(sink)
    server.script(table_resource(("score", "FLOAT")))
    found = await sink.describe(TABLE)
    assert found is not None
    assert not is_without_client(sink)


@pytest.mark.parametrize(
    "answer",
    [
        PAGE,
        error(403, "accessDenied"),
        error(404, "other"),
        error(503, "backendError"),
        Answer(200, b"?"),
    ],
    ids=["page", "denied", "odd", "away", "no JSON"],
)
async def test_what_is_no_plain_answer_is_asked_anew(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection, answer: Answer
) -> None:
    """Goal: nothing is taken for absence that is none. Method: such an answer, and then the table."""
    server.script(answer, table_resource(("score", "FLOAT")))
    assert await sink.describe(TABLE) is not None
    assert not is_without_client(sink)


async def test_a_connection_that_breaks_says_nothing(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection
) -> None:
    """Goal: the same. Method: it breaks for each attempt of aiohttp, which makes two."""
    server.script(DROP, DROP, table_resource(("score", "FLOAT")))
    assert await sink.describe(TABLE) is not None


async def test_a_table_of_a_dataset_that_is_not_there_is_no_empty_one(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection
) -> None:
    """Goal: a wrong dataset is told. Method: 404 for both, as the service answers; check, then describe."""
    server.dataset = error(404, "notFound", "Not found: Dataset")
    server.script(LACKING, LACKING)
    for asked in (sink.check(), sink.describe(TABLE)):
        caught = await failure_of(asked)
        assert isinstance(caught, ConfigurationError)
        assert "no such dataset" in caught.cause
    server.forget_script()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_told_as_by_the_client(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection, status: int
) -> None:
    """Goal: one way to tell what is wrong. Method: the dataset refuses."""
    server.dataset = error(status, "accessDenied", "you may not")
    caught = await failure_of(sink.check())
    assert isinstance(caught, ConfigurationError)
    assert caught.failure in (Failure.CREDENTIALS, Failure.PERMISSION)


async def test_no_redirect_is_followed(server: ScriptedBigQuery, sink: BigQueryDatasetInspection) -> None:
    """Goal: nobody else is asked, or believed. Method: the dataset has moved to where all would be well."""
    server.dataset = Answer(302, {}, {"Location": f"{server.url}/elsewhere"})
    server.script(Answer(body=DATASET_RESOURCE))
    await failure_of(sink.check())
    assert server.left == 1
    server.forget_script()


async def test_where_the_dataset_is_needs_no_second_question(
    server: ScriptedBigQuery, sink: BigQueryDatasetInspection
) -> None:
    """Goal: no request twice. Method: check, then a load job, which must name the place."""
    await sink.check()
    server.script(load_job("job", "DONE"))
    await sink.load(TABLE, [row("a")], job_id="job")
    assert [one.method for one in server.asked] == ["GET", "POST"]
    assert f'"location": "{LOCATION}"'.encode() in server.asked[-1].body


async def test_an_empty_place_is_none(server: ScriptedBigQuery, sink: BigQueryDatasetInspection) -> None:
    """Goal: what is no dataset resource is not believed. Method: JSON of other shapes."""
    odd = {**DATASET_RESOURCE, "defaultTableExpirationMs": "x"}
    bodies: list[Any] = [{}, [], {"datasetReference": {"datasetId": "another"}}, odd]
    for body in bodies:
        server.dataset = Answer(body=body)
        glance = await sink._at_first()
        assert glance is not None
        assert await glance.dataset() is None
