"""The emulated BigQuery behaves as the real one where the product relies on it: asked by Google's client."""

import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound
from google.cloud import bigquery

from pixaris_sync.sandbox.bigquery_repairs import split_alter_table
from tests.integration.conftest import TIMEOUT_SECONDS, Cloud

SCHEMA = {"name": "STRING", "steps": "INTEGER", "score": "FLOAT", "done": "BOOLEAN"}

Row = Mapping[str, Any]

_job_numbers = itertools.count()


class Warehouse:
    """The test's dataset in few words; nothing is retried, so that a refusal is seen at once."""

    def __init__(self, client: bigquery.Client, cloud: Cloud) -> None:
        self.client = client
        self.cloud = cloud

    def new_job_id(self) -> str:
        """An id that no test of this sandbox has used: jobs belong to the project, not to a dataset."""
        return f"{self.cloud.dataset}-{next(_job_numbers)}"

    def create(self, table: str, schema: Mapping[str, str] = SCHEMA) -> str:
        fields = [bigquery.SchemaField(name, type_) for name, type_ in schema.items()]
        self.client.create_table(
            bigquery.Table(self.cloud.table(table), schema=fields), retry=None, timeout=TIMEOUT_SECONDS
        )
        return self.cloud.table(table)

    def columns(self, table: str) -> dict[str, str]:
        found = self.client.get_table(table, retry=None, timeout=TIMEOUT_SECONDS)
        return {field.name: field.field_type for field in found.schema}

    def ask(self, sql: str, *, job_id: str | None = None) -> list[tuple[Any, ...]]:
        job = self.client.query(sql, job_id=job_id, retry=None, job_retry=None, timeout=TIMEOUT_SECONDS)
        rows = job.result(retry=None, job_retry=None, timeout=TIMEOUT_SECONDS)
        return [row.values() for row in rows]

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT {columns} FROM `{table}` ORDER BY 1")  # noqa: S608 - the test's own table

    def stream(self, table: str, rows: Sequence[Row], **options: Any) -> dict[int, list[tuple[str, str]]]:
        """Insert, and by row what was refused: reasons and locations."""
        errors = self.client.insert_rows_json(table, rows, retry=None, timeout=TIMEOUT_SECONDS, **options)
        return {
            error["index"]: [(detail["reason"], detail["location"]) for detail in error["errors"]]
            for error in errors
        }

    def load(
        self,
        table: str,
        rows: Sequence[Row],
        *,
        job_id: str | None = None,
        schema: Mapping[str, str] | None = None,
        with_size: bool = False,
        **options: Any,
    ) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", **options)
        if schema is not None:
            config.schema = [bigquery.SchemaField(name, type_) for name, type_ in schema.items()]
        content = "\n".join(json.dumps(row) for row in rows).encode()
        job = self.client.load_table_from_file(
            io.BytesIO(content),
            table,
            # With a size the client sends one multipart request, without it a resumable upload.
            size=len(content) if with_size else None,
            job_id=job_id,
            job_config=config,
            num_retries=0,
            timeout=TIMEOUT_SECONDS,
        )
        job.result(retry=None, timeout=TIMEOUT_SECONDS)
        return job


@pytest.fixture
def warehouse(bigquery_client: bigquery.Client, cloud: Cloud) -> Warehouse:
    return Warehouse(bigquery_client, cloud)


def test_columns_added_in_one_statement_are_known_everywhere_at_once(warehouse: Warehouse) -> None:
    """Goal: an added column can be used at once. Method: ALTER with several actions, then every use."""
    table = warehouse.create("runs")

    warehouse.ask(
        f"ALTER TABLE `{table}` ADD COLUMN IF NOT EXISTS `name` STRING, "
        "ADD COLUMN IF NOT EXISTS `size` INT64, ADD COLUMN IF NOT EXISTS `ratio` FLOAT64"
    )

    assert warehouse.columns(table) == {**SCHEMA, "size": "INTEGER", "ratio": "FLOAT"}
    described = warehouse.ask(
        "SELECT column_name, data_type FROM "  # noqa: S608 - the test's own dataset
        f"`{warehouse.cloud.dataset_ref}.INFORMATION_SCHEMA.COLUMNS` WHERE column_name IN ('size', 'ratio')"
    )
    assert sorted(described) == [("ratio", "FLOAT64"), ("size", "INT64")]
    assert warehouse.stream(table, [{"name": "streamed", "size": 1, "ratio": 0.5}]) == {}
    warehouse.load(table, [{"name": "loaded", "size": 2, "ratio": 1.5}])
    assert warehouse.rows(table, "name, size, ratio") == [("loaded", 2, 1.5), ("streamed", 1, 0.5)]


def test_a_widened_column_keeps_its_values_and_takes_fractions(warehouse: Warehouse) -> None:
    """Goal: INT64 becomes FLOAT64. Method: widen two columns in one statement, twice, and use them."""
    table = warehouse.create("runs", {"a": "INTEGER", "b": "INTEGER"})
    warehouse.stream(table, [{"a": 1, "b": 2}])
    widen = (
        f"ALTER TABLE `{table}` ALTER COLUMN `a` SET DATA TYPE FLOAT64, "
        "ALTER COLUMN `b` SET DATA TYPE FLOAT64"
    )

    warehouse.ask(widen)
    warehouse.ask(widen)

    assert warehouse.columns(table) == {"a": "FLOAT", "b": "FLOAT"}
    assert warehouse.stream(table, [{"a": 1.5, "b": "NaN"}]) == {}
    assert warehouse.rows(table)[0] == (1.0, 2.0)


def test_a_column_is_never_narrowed(warehouse: Warehouse) -> None:
    """Goal: what BigQuery refuses is refused. Method: FLOAT64 to INT64, which DuckDB would do."""
    table = warehouse.create("runs")

    with pytest.raises(BadRequest, match="assignable"):
        warehouse.ask(f"ALTER TABLE `{table}` ALTER COLUMN `score` SET DATA TYPE INT64")

    assert warehouse.columns(table) == SCHEMA


def test_a_statement_whose_second_action_fails_changes_nothing(warehouse: Warehouse) -> None:
    """Goal: ALTER is all or nothing. Method: add a new column and, without IF NOT EXISTS, an existing one."""
    table = warehouse.create("runs")

    with pytest.raises(BadRequest):
        warehouse.ask(f"ALTER TABLE `{table}` ADD COLUMN `fresh` STRING, ADD COLUMN `name` STRING")

    assert warehouse.columns(table) == SCHEMA
    assert warehouse.stream(table, [{"name": "still usable"}]) == {}


@pytest.mark.parametrize(
    ("sql", "actions"),
    [
        (
            "ALTER TABLE `a, b` ADD COLUMN x STRUCT<y INT64, z STRING>, DROP COLUMN w;",
            [
                "ALTER TABLE `a, b` ADD COLUMN x STRUCT<y INT64, z STRING>",
                "ALTER TABLE `a, b` DROP COLUMN w",
            ],
        ),
        (
            "alter table if exists p.add.t add column n NUMERIC(10, 2)",
            ["alter table if exists p.add.t add column n NUMERIC(10, 2)"],
        ),
        ("SELECT 1, 2", []),
        ("ALTER TABLE t", []),
        ("ALTER TABLE `t ADD COLUMN", []),
    ],
)
def test_an_alter_statement_is_split_at_its_actions_only(sql: str, actions: list[str]) -> None:
    """Goal: commas in types and names split nothing. Method: statements and their expected parts."""
    assert split_alter_table(sql) == actions


def test_unknown_fields_refuse_the_row_and_stop_its_neighbours(warehouse: Warehouse) -> None:
    """Goal: 200 with insertErrors, nothing stored. Method: one bad row between good ones."""
    table = warehouse.create("runs")

    errors = warehouse.stream(table, [{"name": "a"}, {"name": "b", "novel": 1}, {"name": "c"}])

    assert errors == {0: [("stopped", "")], 1: [("invalid", "novel")], 2: [("stopped", "")]}
    assert warehouse.rows(table) == []


@pytest.mark.parametrize(
    "cells",
    [
        {"steps": "many"},
        {"steps": 1.5},
        {"steps": True},
        {"steps": 2**63},
        {"score": "high"},
        {"score": True},
        {"done": "perhaps"},
        {"done": 1},
        {"name": {"first": "a"}},
        {"name": ["a"]},
    ],
)
def test_values_of_the_wrong_type_are_refused_one_by_one(warehouse: Warehouse, cells: Row) -> None:
    """Goal: `invalid` for the field and no row, not an error of the server. Method: one bad cell each."""
    table = warehouse.create("runs")

    assert warehouse.stream(table, [cells]) == {0: [("invalid", next(iter(cells)))]}
    assert warehouse.rows(table) == []


def test_other_types_are_checked_too(warehouse: Warehouse) -> None:
    """Goal: no error of the server for any type. Method: a value that is no timestamp, and no array."""
    table = warehouse.create("events", {"at": "TIMESTAMP", "data": "BYTES"})

    assert warehouse.stream(table, [{"at": "yesterday"}]) == {0: [("invalid", "at")]}
    assert warehouse.stream(table, [{"data": "no base64!"}]) == {0: [("invalid", "data")]}
    assert warehouse.stream(table, [{"at": "2026-01-02T03:04:05Z", "data": "YQ=="}]) == {}


def test_skipping_and_ignoring_work_where_they_are_asked_for(warehouse: Warehouse) -> None:
    """Goal: skipInvalidRows and ignoreUnknownValues as documented. Method: a row that each one saves."""
    table = warehouse.create("runs")

    skipped = warehouse.stream(table, [{"name": "a"}, {"novel": 1}], skip_invalid_rows=True)
    ignored = warehouse.stream(table, [{"name": "b", "novel": 1}], ignore_unknown_values=True)

    assert skipped == {1: [("invalid", "novel")]}
    assert ignored == {}
    assert warehouse.rows(table, "name") == [("a",), ("b",)]


@pytest.mark.parametrize("way", ["stream", "load"])
def test_strings_stand_for_numbers_and_truth_values(warehouse: Warehouse, way: str) -> None:
    """Goal: the documented JSON forms. Method: NaN, infinities, big integers and booleans as strings."""
    table = warehouse.create("runs")
    rows: list[Row] = [
        {"name": "1", "steps": str(2**63 - 1), "score": "NaN", "done": "true"},
        {"name": "2", "steps": -(2**63), "score": "Infinity", "done": "FALSE"},
        {"NAME": 3, "steps": 4.0, "score": "-Infinity", "done": None},
        {"name": "4", "score": "2.5"},
    ]

    if way == "stream":
        assert warehouse.stream(table, rows) == {}
    else:
        warehouse.load(table, rows)

    first, *others = warehouse.rows(table)
    assert first[:2] == ("1", 2**63 - 1)
    assert math.isnan(first[2])
    assert first[3] is True
    assert others == [
        ("2", -(2**63), math.inf, False),
        ("3", 4, -math.inf, None),
        ("4", None, 2.5, None),
    ]


def test_an_insert_id_is_stored_once(warehouse: Warehouse) -> None:
    """Goal: de-duplication per table. Method: one id twice in a request, again later, in another table."""
    table, other = warehouse.create("runs"), warehouse.create("others")

    assert warehouse.stream(table, [{"name": "a"}, {"name": "a"}], row_ids=["1", "1"]) == {}
    assert warehouse.stream(table, [{"name": "a"}, {"name": "b"}], row_ids=["1", "2"]) == {}
    assert warehouse.stream(table, [{"name": "c"}, {"name": "c"}], row_ids=[None, None]) == {}
    assert warehouse.stream(other, [{"name": "a"}], row_ids=["1"]) == {}

    assert warehouse.rows(table, "name") == [("a",), ("b",), ("c",), ("c",)]
    assert warehouse.rows(other, "name") == [("a",)]


def test_a_refused_row_does_not_use_its_insert_id_up(warehouse: Warehouse) -> None:
    """Goal: stopped rows can be sent again as they are. Method: the same request without its bad row."""
    table = warehouse.create("runs")

    warehouse.stream(table, [{"name": "a"}, {"novel": 1}], row_ids=["1", "2"])

    assert warehouse.stream(table, [{"name": "a"}], row_ids=["1"]) == {}
    assert warehouse.rows(table, "name") == [("a",)]


@pytest.mark.parametrize("with_size", [False, True], ids=["resumable", "multipart"])
def test_a_load_job_id_runs_once_and_can_be_found_again(warehouse: Warehouse, *, with_size: bool) -> None:
    """Goal: deterministic job ids make loads idempotent. Method: the same id twice, for both uploads."""
    table = warehouse.create("runs")

    job_id = warehouse.new_job_id()

    first = warehouse.load(table, [{"name": "a"}], job_id=job_id, with_size=with_size)
    with pytest.raises(Conflict) as refused:
        warehouse.load(table, [{"name": "b"}], job_id=job_id, with_size=with_size)

    assert refused.value.errors[0]["reason"] == "duplicate"
    found = warehouse.client.get_job(job_id, retry=None, timeout=TIMEOUT_SECONDS)
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

    failed = warehouse.client.get_job(job_id, retry=None, timeout=TIMEOUT_SECONDS)
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


def test_what_is_missing_is_named_in_the_services_words(warehouse: Warehouse) -> None:
    """Goal: Pixaris finds its "Not found: Table". Method: every way to ask for what is not there."""
    place = f"{warehouse.cloud.project}:{warehouse.cloud.dataset}"
    absent = warehouse.cloud.table("absent")

    with pytest.raises(NotFound, match=f"Not found: Table {place}.absent"):
        warehouse.columns(absent)
    with pytest.raises(NotFound, match=f"Not found: Table {place}.absent"):
        warehouse.stream(absent, [{"name": "a"}])
    with pytest.raises(NotFound, match=f"Not found: Table {place}.absent"):
        warehouse.rows(absent)
    with pytest.raises(NotFound, match=f"Not found: Dataset {warehouse.cloud.project}:nowhere"):
        warehouse.client.get_dataset("nowhere", retry=None, timeout=TIMEOUT_SECONDS)
    with pytest.raises(NotFound):
        warehouse.load(f"{warehouse.cloud.project}.nowhere.t", [{"name": "a"}], schema=SCHEMA)


@pytest.mark.parametrize("name", ["with space", "with-dash", "Größe", "数据_1"])
def test_table_ids_may_hold_what_the_documentation_allows(warehouse: Warehouse, name: str) -> None:
    """Goal: odd project names work. Method: create, change, fill and read a table of that name."""
    table = warehouse.create(name)

    warehouse.ask(f"ALTER TABLE `{table}` ADD COLUMN IF NOT EXISTS `more` STRING")
    assert warehouse.stream(table, [{"name": "a", "more": "b"}]) == {}
    warehouse.load(table, [{"name": "c"}])

    assert warehouse.rows(table, "name, more") == [("a", "b"), ("c", None)]
    with pytest.raises(BadRequest):
        warehouse.create(f"{name};")


def test_frames_are_read_without_the_storage_api(warehouse: Warehouse) -> None:
    """Goal: ``to_dataframe`` as Pixaris calls it reaches no service. Method: more rows than a page."""
    table = warehouse.create("runs")
    warehouse.load(table, [{"steps": number} for number in range(12_000)])

    frame = warehouse.client.query(f"SELECT steps FROM `{table}`", retry=None).result().to_dataframe()  # noqa: S608 - the test's own table

    assert sorted(frame["steps"]) == list(range(12_000))
