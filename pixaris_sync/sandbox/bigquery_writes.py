# ruff: noqa: SLF001 - repairs reach into the one pinned version of the emulator
"""Rows on their way into the emulator's tables: ``insertAll`` and load jobs of newline-delimited JSON.

Seen in the emulator: unknown fields are dropped silently, a value of the wrong type answers 500, insert ids
are not looked at, a load's unknown fields are ignored, and ``outputRows`` counts the whole table.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bqemulator.api.routes import jobs as job_routes
from bqemulator.api.routes import tabledata
from bqemulator.api.routes import upload as upload_routes
from bqemulator.catalog.etag import generate_etag
from bqemulator.catalog.models import JobMeta, TableMeta
from bqemulator.domain.errors import DomainError, ResourceRef, ValidationError, resource_not_found
from bqemulator.jobs import executor
from bqemulator.storage.arrow_bridge import bq_rows_to_arrow
from bqemulator.storage.sql_identifiers import quoted_table_ref
from msgspec import Struct

from pixaris_sync.sandbox.bigquery_rows import CheckedRow, Problem, check_row

if TYPE_CHECKING:
    from bqemulator.api.dependencies import AppContext

#: How long an insertId is remembered. The service says: about a minute.
INSERT_ID_SECONDS = 60.0

_JSON_FORMATS = {"NEWLINE_DELIMITED_JSON", "JSON"}

JsonObject = dict[str, Any]


class LoadRefusedError(Exception):
    """A load job's data does not fit its table. The message is in the service's words."""


def install() -> None:
    """Let every load job go through `execute_load_job` and `_load_file`."""
    job_routes.execute_load_job = execute_load_job
    upload_routes.execute_load_job = execute_load_job
    executor._load_path_into_target = _load_file


# -- streaming --------------------------------------------------------------------------------


class InsertIds:
    """The insertIds of the last minute: rows that carry one of them are taken and not stored again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], float] = {}

    def keep_new(self, table: TableMeta, rows: Sequence[JsonObject]) -> list[JsonObject]:
        """The rows whose insertId was not seen lately, each id once; rows without an id are always new."""
        now = time.monotonic()
        self._seen = {key: until for key, until in self._seen.items() if until > now}
        fresh: list[JsonObject] = []
        within: set[tuple[object, ...]] = set()
        for row in rows:
            key = self._key(table, row)
            if key is not None and (key in self._seen or key in within):
                continue
            if key is not None:
                within.add(key)
            fresh.append(row)
        return fresh

    def remember(self, table: TableMeta, rows: Sequence[JsonObject]) -> None:
        """Note the ids of rows that were stored."""
        until = time.monotonic() + INSERT_ID_SECONDS
        self._seen.update({key: until for row in rows if (key := self._key(table, row)) is not None})

    @staticmethod
    def _key(table: TableMeta, row: JsonObject) -> tuple[object, ...] | None:
        insert_id = row.get("insertId")
        if not insert_id:
            return None
        # The creation time keeps a table apart from an earlier one of its name.
        return (table.project_id, table.dataset_id, table.table_id, table.creation_time, insert_id)


async def insert_all(
    context: "AppContext",
    place: tuple[str, str, str],
    body: JsonObject,
    insert_ids: InsertIds,
) -> JsonObject:
    """Answer ``tabledata.insertAll`` as BigQuery does.

    Raises:
        NotFoundError: there is no such table.
        ValidationError: the request holds no rows.
    """
    table = context.catalog.get_table(*place)
    if table is None:
        raise resource_not_found(ResourceRef("table", *place))
    rows: list[JsonObject] = body.get("rows") or []
    if not rows:
        raise ValidationError("No rows present in the request.")
    checked = [
        _check(table, row.get("json") or {}, ignore_unknown=body.get("ignoreUnknownValues", False))
        for row in rows
    ]
    refused = {i: row.problems for i, row in enumerate(checked) if row.problems}
    answer: JsonObject = {"kind": "bigquery#tableDataInsertAllResponse"}
    if refused:
        answer["insertErrors"] = [_invalid(i, problems) for i, problems in refused.items()]
        if not body.get("skipInvalidRows", False):
            answer["insertErrors"] += [_stopped(i) for i in range(len(rows)) if i not in refused]
            answer["insertErrors"].sort(key=lambda error: error["index"])
            return answer
    taken = [
        {"insertId": rows[i].get("insertId"), "json": row.values}
        for i, row in enumerate(checked)
        if i not in refused
    ]
    fresh = insert_ids.keep_new(table, taken)
    async with context.engine.write_lock():
        store_rows(context, table, [row["json"] for row in fresh])
        context.snapshots.record_change(*place)
    insert_ids.remember(table, fresh)
    return answer


def _check(table: TableMeta, values: JsonObject, *, ignore_unknown: bool) -> CheckedRow:
    """Check a row by our rules, then let the emulator try the column types that we leave to it."""
    checked = check_row(values, table.schema_.fields, ignore_unknown=ignore_unknown)
    problems = list(checked.problems)
    for field in tabledata._build_arrow_schema(tabledata._fields_raw_from_schema(table.schema_.fields)):
        if field.name in checked.values:
            try:
                bq_rows_to_arrow([{"json": {field.name: checked.values[field.name]}}], _schema_of(field))
            except (ValueError, TypeError, OverflowError):
                value = checked.values[field.name]
                problems.append(Problem(field.name, f"Cannot convert value (bad value): {value}"))
    return CheckedRow(checked.values, problems)


def _schema_of(field: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    import pyarrow as pa  # noqa: PLC0415 - heavy, and only the emulator's process needs it

    return pa.schema([field])


def _invalid(index: int, problems: Sequence[Problem]) -> JsonObject:
    return {
        "index": index,
        "errors": [
            {"reason": "invalid", "location": problem.location, "debugInfo": "", "message": problem.message}
            for problem in problems
        ],
    }


def _stopped(index: int) -> JsonObject:
    return {
        "index": index,
        "errors": [{"reason": "stopped", "location": "", "debugInfo": "", "message": ""}],
    }


def store_rows(context: "AppContext", table: TableMeta, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append checked rows, columns by name, and count them in the catalog. All rows or none."""
    if not rows:
        return
    fields = list(table.schema_.fields)
    schema = tabledata._build_arrow_schema(tabledata._fields_raw_from_schema(fields))
    arrow = bq_rows_to_arrow([{"json": row} for row in rows], schema)
    view = f"__bqemu_rows_{uuid4().hex[:12]}"
    target = quoted_table_ref(table.project_id, table.dataset_id, table.table_id)
    projection = tabledata._build_insert_select(fields, view)
    context.engine.connection.register(view, arrow)
    try:
        context.engine.execute(f"INSERT INTO {target} BY NAME SELECT {projection} FROM {view}")  # noqa: S608 - the emulator's own quoting
    finally:
        context.engine.connection.unregister(view)
    context.catalog.update_table(table.model_copy(update={"num_rows": table.num_rows + len(rows)}))


# -- load jobs --------------------------------------------------------------------------------


class _Destination(Struct, frozen=True):
    place: tuple[str, str, str]
    existed: bool
    rows_before: int


_run_load_job = executor.execute_load_job


async def execute_load_job(
    project_id: str,
    job_id: str,
    config: JsonObject,
    ctx: "AppContext",
) -> JobMeta:
    """Run a load job; one that cannot be done is done with an error, loads nothing and leaves no table.

    Seen: some failures answer 400 and leave no job behind, and a failed load leaves the table it created.
    """
    reference = config.get("load", {}).get("destinationTable", {})
    place = (
        reference.get("projectId", project_id),
        reference.get("datasetId", ""),
        reference.get("tableId", ""),
    )
    table = ctx.catalog.get_table(*place)
    goal = _Destination(place, existed=table is not None, rows_before=table.num_rows if table else 0)
    try:
        _check_schema(table, place, config["load"], ctx)
        job = await _run_load_job(project_id, job_id, config, ctx)
    except Exception as error:  # noqa: BLE001 - every failure of a load is the job's result, not the request's
        _drop_if_created(goal, ctx)
        return _failed_load(project_id, job_id, config, error, ctx)
    after = ctx.catalog.get_table(*place)
    loaded = (after.num_rows if after else 0) - goal.rows_before
    if config["load"].get("writeDisposition") == "WRITE_TRUNCATE":
        loaded += goal.rows_before
    statistics = {"load": {**job.statistics.get("load", {}), "outputRows": str(loaded)}}
    return job.model_copy(update={"statistics": statistics})


def _check_schema(
    table: TableMeta | None, place: tuple[str, str, str], load: JsonObject, context: "AppContext"
) -> None:
    """A load into an existing table may not bring a schema with other columns; a new one needs a schema."""
    given: list[JsonObject] = (load.get("schema") or {}).get("fields") or []
    if table is None:
        if context.catalog.get_dataset(*place[:2]) is None:
            raise resource_not_found(ResourceRef("dataset", *place[:2]))
        if load.get("createDisposition") == "CREATE_NEVER":
            raise resource_not_found(ResourceRef("table", *place))
        if not given and not load.get("autodetect") and load.get("sourceFormat") in _JSON_FORMATS:
            raise LoadRefusedError("No schema specified on job or table.")
        return
    known = {field.name.casefold() for field in table.schema_.fields}
    unknown = [field["name"] for field in given if field["name"].casefold() not in known]
    if unknown:
        name = f"{place[0]}:{place[1]}.{place[2]}"
        raise LoadRefusedError(
            f"Provided Schema does not match Table {name}. Cannot add fields (field: {unknown[0]})"
        )


def _load_file(path: str, job: Any, context: "AppContext") -> None:  # noqa: ANN401 - the emulator's own record
    """Load one staged file; JSON by our rules, other formats by the emulator's.

    Raises:
        LoadRefusedError: a row does not fit the table; nothing is loaded then.
    """
    if job.source_format not in _JSON_FORMATS:
        executor._LOAD_FORMAT_HANDLERS[job.source_format](path, job.target_ref, context)
        return
    table = context.catalog.get_table(job.project_id, job.dataset_id, job.table_id)
    if table is None:
        raise resource_not_found(ResourceRef("table", job.project_id, job.dataset_id, job.table_id))
    ignore_unknown = bool(job.raw_config.get("ignoreUnknownValues", False))
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        row = _check(table, _parse_line(line, number), ignore_unknown=ignore_unknown)
        if row.problems:
            problem = row.problems[0]
            raise LoadRefusedError(
                "Error while reading data, error message: JSON processing encountered too many errors, "
                f"giving up. Rows: {number}; errors: 1; {problem.message} Field: {problem.location}"
            )
        rows.append(row.values)
    store_rows(context, table, rows)


def _parse_line(line: str, number: int) -> JsonObject:
    try:
        parsed = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise LoadRefusedError(f"Error while reading data, error message: row {number}: {error}") from None
    if not isinstance(parsed, dict):
        raise LoadRefusedError(f"Error while reading data, error message: row {number} is no object")
    return parsed


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON value")


def _drop_if_created(goal: _Destination, context: "AppContext") -> None:
    if not goal.existed and context.catalog.get_table(*goal.place) is not None:
        context.engine.execute(f"DROP TABLE IF EXISTS {quoted_table_ref(*goal.place)}")
        context.catalog.delete_table(*goal.place, not_found_ok=True)


def _failed_load(
    project_id: str, job_id: str, config: JsonObject, error: Exception, context: "AppContext"
) -> JobMeta:
    now = context.clock.now()
    reason = error.bq_reason if isinstance(error, DomainError) else "invalid"
    return JobMeta(
        project_id=project_id,
        job_id=job_id,
        job_type="LOAD",
        state="DONE",
        configuration=config,
        statistics={"load": {"outputRows": "0"}},
        error_result={"reason": reason, "message": str(error)},
        creation_time=now,
        start_time=now,
        end_time=now,
        etag=generate_etag(project_id, job_id, str(now)),
    )
