"""The emulated BigQuery behaves as the real one for load jobs and job ids: asked by Google's client."""

import math

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound
from google.cloud import bigquery

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import SCHEMA, Row, Warehouse


@pytest.mark.parametrize("with_size", [False, True], ids=["resumable", "multipart"])
def test_a_load_job_id_runs_once_and_can_be_found_again(warehouse: Warehouse, *, with_size: bool) -> None:
    """Goal: deterministic job ids make loads idempotent. Method: the same id twice, for both uploads."""
    table = warehouse.create("runs")

    job_id = warehouse.new_job_id()

    first = warehouse.load(table, [{"name": "a"}], job_id=job_id, with_size=with_size)
    with pytest.raises(Conflict) as refused:
        warehouse.load(table, [{"name": "b"}], job_id=job_id, with_size=with_size)

    assert refused.value.errors[0]["reason"] == "duplicate"
    found = warehouse.client.get_job(job_id, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    assert isinstance(found, bigquery.LoadJob)
    assert (found.state, found.output_rows, first.output_rows) == ("DONE", 1, 1)
    assert warehouse.rows(table, "name") == [("a",)]


def test_a_query_job_id_runs_once(warehouse: Warehouse) -> None:
    """Goal: the same for statements. Method: an INSERT under one id, twice."""
    table = warehouse.create("runs")
    insert = f"INSERT INTO `{table}` (name) VALUES ('a')"  # noqa: S608 - the test's own table

    job_id = warehouse.new_job_id()

    warehouse.ask(insert, job_id=job_id)
    with pytest.raises(Conflict):
        warehouse.ask(insert, job_id=job_id)

    assert warehouse.rows(table, "name") == [("a",)]


def test_an_upload_begun_under_an_id_that_is_used_meanwhile_is_refused_at_its_end(
    warehouse: Warehouse,
) -> None:
    """Goal: no id runs twice, whenever its uploads began. Method: begin two sessions, then end both."""
    table = warehouse.create("runs")
    project, dataset, name = table.split(".")
    job = {
        "jobReference": {"projectId": project, "jobId": warehouse.new_job_id()},
        "configuration": {
            "load": {
                "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": name},
                "sourceFormat": "NEWLINE_DELIMITED_JSON",
            }
        },
    }
    http = warehouse.client._http
    base = warehouse.cloud.environment["BIGQUERY_EMULATOR_HOST"]
    sessions = [
        http.post(
            f"{base}/upload/bigquery/v2/projects/{project}/jobs?uploadType=resumable",
            json=job,
            timeout=TIMEOUT_SECONDS,
        ).headers["Location"]
        for _ in range(2)
    ]
    content = b'{"name": "a"}'
    headers = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}

    statuses = [
        http.put(session, data=content, headers=headers, timeout=TIMEOUT_SECONDS).status_code
        for session in sessions
    ]

    assert statuses == [200, 409]
    assert warehouse.rows(table, "name") == [("a",)]


def test_a_load_makes_a_new_table_from_its_schema(warehouse: Warehouse) -> None:
    """Goal: first rows of a new table. Method: load with a schema where there is no table."""
    table = warehouse.cloud.table("fresh")

    job = warehouse.load(table, [{"name": "a", "score": 1}, {"steps": 2}], schema=SCHEMA)

    assert job.output_rows == 2
    assert warehouse.columns(table) == SCHEMA
    assert warehouse.rows(table) == [(None, 2, None, None), ("a", None, 1.0, None)]


@pytest.mark.parametrize(
    "row", [{"novel": 1}, {"steps": "many"}, {"score": math.nan}], ids=["unknown", "type", "bare NaN"]
)
@pytest.mark.parametrize("exists", [True, False], ids=["existing table", "new table"])
def test_a_load_with_one_bad_row_fails_and_leaves_nothing(
    warehouse: Warehouse, row: Row, *, exists: bool
) -> None:
    """Goal: loads are atomic, their failure is the job's. Method: a bad row behind a good one."""
    table = warehouse.create("runs") if exists else warehouse.cloud.table("runs")

    job_id = warehouse.new_job_id()

    with pytest.raises(BadRequest):
        warehouse.load(table, [{"name": "a"}, row], job_id=job_id, schema=SCHEMA)

    failed = warehouse.client.get_job(job_id, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    assert failed.state == "DONE"
    assert failed.error_result is not None
    assert failed.error_result["reason"] == "invalid"
    if exists:
        assert warehouse.rows(table) == []
    else:
        with pytest.raises(NotFound):
            warehouse.columns(table)


def test_a_load_ignores_unknown_values_when_it_is_told_to(warehouse: Warehouse) -> None:
    """Goal: ignoreUnknownValues. Method: a row with a field too many."""
    table = warehouse.create("runs")

    warehouse.load(table, [{"name": "a", "novel": 1}], ignore_unknown_values=True)

    assert warehouse.rows(table, "name") == [("a",)]


def test_a_load_may_not_bring_columns_that_its_table_lacks(warehouse: Warehouse) -> None:
    """Goal: a schema does not extend a table by itself. Method: load with one column more."""
    table = warehouse.create("runs")

    with pytest.raises(BadRequest, match="does not match"):
        warehouse.load(table, [{"name": "a"}], schema={**SCHEMA, "novel": "STRING"})

    assert warehouse.columns(table) == SCHEMA
