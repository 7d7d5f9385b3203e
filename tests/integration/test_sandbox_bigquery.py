"""The emulated BigQuery behaves as the real one for tables and streaming: asked by Google's client."""

import math
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, NotFound
from google.cloud import bigquery

from pixaris_sync.sandbox.bigquery_repairs import split_alter_table
from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import SCHEMA, Row, Warehouse


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
        warehouse.client.get_dataset("nowhere", retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
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


@pytest.mark.parametrize("project", ["pixaris-sandbox", "my-2nd-project", "a-b-c-1"])
def test_a_project_with_dashes_needs_no_backquotes(warehouse: Warehouse, project: str) -> None:
    """Goal: Pixaris' own statements work, which quote no table. Method: each kind that names one."""
    dataset = warehouse.cloud.dataset
    body = {"datasetReference": {"projectId": project, "datasetId": dataset}}
    warehouse.client.create_dataset(bigquery.Dataset.from_api_repr(body), exists_ok=True)
    table = f"{project}.{dataset}.votes"

    def ask(statement: str) -> list[tuple[Any, ...]]:
        return warehouse.ask(statement.replace("votes", table))

    ask("CREATE TABLE votes (name STRING, likes INT64)")
    ask("ALTER TABLE votes ADD COLUMN `misc` STRING, ADD COLUMN comment STRING")
    ask("INSERT INTO votes (name, likes, comment) VALUES ('a', 3, 'x-y'), ('a', 1, 'z')")
    ask("UPDATE votes SET misc = 'b-c' WHERE likes-1 = 0")
    assert warehouse.stream(table, [{"name": "d", "likes": 5}]) == {}

    totals = """
        SELECT
            name,
            SUM(each.likes-1) AS likes,
            STRING_AGG(IF(likes > 0 AND comment <> "z", comment, NULL), ', ') AS comments
        FROM
            votes AS each
        GROUP BY
            name
        ORDER BY
            name;
    """
    assert ask(totals) == [("a", 2, "x-y"), ("d", 4, None)]
    joined = "SELECT one.misc FROM votes one JOIN votes other USING (name) WHERE one.likes = 1"
    assert ask(joined) == [("b-c",), ("b-c",)]


def test_frames_are_read_without_the_storage_api(warehouse: Warehouse) -> None:
    """Goal: ``to_dataframe`` as Pixaris calls it reaches no service. Method: more rows than a page."""
    table = warehouse.create("runs")
    warehouse.load(table, [{"steps": number} for number in range(12_000)])

    frame = warehouse.client.query(f"SELECT steps FROM `{table}`", retry=NO_RETRY).result().to_dataframe()  # noqa: S608 - the test's own table

    assert sorted(frame["steps"]) == list(range(12_000))
