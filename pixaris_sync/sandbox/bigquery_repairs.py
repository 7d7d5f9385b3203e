# ruff: noqa: SLF001 - repairs reach into the one pinned version of the emulator
"""What bqemulator does differently from BigQuery, mended by replacing functions of that one pinned version.

Each repair names what was seen. Patching another project's functions is accepted here and nowhere else: the
emulator is pinned in the ``sandbox`` extra, and the product must not be bent to an emulator's shape.
Rows are mended in `bigquery_writes`, requests and job ids in `bigquery_front`.
"""

import re
import unicodedata
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import sqlglot
from bqemulator.api.routes import jobs as job_routes
from bqemulator.api.routes import tables as table_routes
from bqemulator.api.routes import upload as upload_routes
from bqemulator.catalog import ddl_sync
from bqemulator.catalog.etag import generate_etag
from bqemulator.catalog.models import TableFieldSchema, TableMeta, TableSchema
from bqemulator.domain.errors import InvalidQueryError, ResourceRef
from bqemulator.jobs import error_mapper, executor
from bqemulator.storage import engine, sql_identifiers
from sqlglot import exp
from sqlglot.dialects.bigquery import BigQuery

from pixaris_sync.sandbox import bigquery_writes

if TYPE_CHECKING:
    from collections.abc import Callable

    from bqemulator.api.dependencies import AppContext
    from bqemulator.catalog.models import JobMeta

#: The job id that the upload being served asked for; the emulator would mint one of its own.
requested_job_id: ContextVar[str | None] = ContextVar("requested_job_id", default=None)

_LEGACY_TYPE_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_TABLE_ID_CATEGORIES = ("L", "M", "N", "Pc", "Pd", "Zs")
_TABLE_ID_BYTES_MAX = 1024
_FLOATS = {"FLOAT", "FLOAT64"}


def install() -> None:
    """Mend the emulator's modules; to be called once, before its server is made."""
    _start_without_geography()
    _speak_of_resources_as_bigquery()
    _accept_every_table_id()
    _accept_dashes_in_projects()
    _answer_with_legacy_type_names()
    _alter_tables_fully()
    _keep_the_ids_of_uploaded_jobs()
    bigquery_writes.install()


def keep_no_history(context: "AppContext") -> None:
    """Stop copying the whole table after every write.

    Seen: each insert stores a copy of the table for time travel, kept for days, so that a stream of single
    rows takes quadratic time and memory. Snapshots that a statement asks for are still made.
    """
    capture = context.snapshots.capture

    def capture_on_demand(project: str, dataset: str, table: str, *, kind: str = "AUTO") -> Any:  # noqa: ANN401 - the emulator's own record, passed through
        return capture(project, dataset, table, kind=kind) if kind == "USER" else None

    context.snapshots.capture = capture_on_demand


def _start_without_geography() -> None:
    """The emulator starts without DuckDB's spatial extension.

    Seen: it downloads the extension at every start and ends where it cannot. Only GEOGRAPHY needs it, which
    Pixaris never stores.
    """

    def load_nothing(_: engine.DuckDBEngine) -> None:
        pass

    engine.DuckDBEngine._load_spatial = load_nothing


def _speak_of_resources_as_bigquery() -> None:
    """Messages name resources in the service's words.

    Seen: ``Not found: table:project.dataset.table``. Real: ``Not found: Table project:dataset.table``, and
    Pixaris creates a missing table only when it reads those very words.
    """

    def name_resource(reference: ResourceRef) -> str:
        inner = [part for part in (reference.dataset_id, reference.resource_id) if part is not None]
        if reference.kind == "job":
            inner.insert(0, "US")
        return f"{reference.kind.capitalize()} {reference.project_id}:{'.'.join(inner)}"

    find_prefix: Callable[..., str] = error_mapper._extract_schema_prefix

    def find_prefix_with_colon(raw: str, *, duckdb_sql: str | None = None) -> str:
        return find_prefix(raw, duckdb_sql=duckdb_sql).replace(".", ":", 1)

    ResourceRef.format = name_resource
    error_mapper._extract_schema_prefix = find_prefix_with_colon


def _accept_every_table_id() -> None:
    """Table ids may hold letters of any script, marks, numbers, connectors, dashes and spaces.

    Seen: ids with spaces or other scripts are refused although the documentation allows them.
    """
    check_id: Callable[[str, str], str] = sql_identifiers._validate_sql_id

    def check_any_id(value: str, kind: str) -> str:
        if kind != "table":
            return check_id(value, kind)
        fits = 0 < len(value.encode()) <= _TABLE_ID_BYTES_MAX
        if fits and all(unicodedata.category(letter).startswith(_TABLE_ID_CATEGORIES) for letter in value):
            return value
        return check_id(value, kind)

    sql_identifiers._validate_sql_id = check_any_id
    # The emulator finds the table in DuckDB's message with a pattern of its own, which knows no spaces.
    error_mapper._DUCKDB_SCHEMA_TABLE_RE = re.compile(
        r'"(?P<schema>[A-Za-z0-9_\-]+__[A-Za-z0-9_\-]+)"\."(?P<table>[^"]+)"'
    )


def _accept_dashes_in_projects() -> None:
    """The name of a project with dashes in it needs no backquotes: ``FROM my-project.dataset.table``.

    Seen: such a name is read, but handed to DuckDB without quotes, which takes the dash for a minus sign.
    """
    parser = BigQuery.Parser
    parse_part = parser._parse_table_part

    def parse_quoted(self: Any, schema: bool = False) -> exp.Expr | None:  # noqa: ANN401, FBT001, FBT002 - as the parser has it
        part = parse_part(self, schema)
        if isinstance(part, exp.Identifier) and "-" in part.name:
            part.set("quoted", True)  # noqa: FBT003 - the value of an argument
        return part

    parser._parse_table_part = parse_quoted  # type: ignore[method-assign]


def _answer_with_legacy_type_names() -> None:
    """``tables.get`` answers INTEGER, FLOAT, BOOLEAN and RECORD.

    Seen: columns made by SQL come back as INT64, FLOAT64 and BOOL, which the real API never answers with.
    """
    render = table_routes._field_to_rest

    def render_legacy(field: TableFieldSchema) -> dict[str, Any]:
        return _with_legacy_names(render(field))

    table_routes._field_to_rest = render_legacy


def _with_legacy_names(rendered: dict[str, Any]) -> dict[str, Any]:
    named = {**rendered, "type": _LEGACY_TYPE_NAMES.get(rendered["type"].upper(), rendered["type"])}
    if "fields" in rendered:
        named["fields"] = [_with_legacy_names(field) for field in rendered["fields"]]
    return named


def _keep_the_ids_of_uploaded_jobs() -> None:
    """A load job that comes with its data keeps the id that the client gave it.

    Seen: uploads ignore ``jobReference``, so that no later request can find the job.
    """
    mint = upload_routes._new_job_id

    def name_job() -> str:
        return requested_job_id.get() or mint()

    upload_routes._new_job_id = name_job
    # Seen: Google's client sends the data part of a multipart upload as */*, which is refused.
    upload_routes._PERMITTED_MEDIA_CONTENT_TYPES += ("*/*",)


def _alter_tables_fully() -> None:
    """``ALTER TABLE`` takes several actions, and the catalog learns of what it changed.

    Seen: DuckDB takes one action a statement; ``tables.get`` does not show columns added by SQL, and every
    later ``insertAll`` into such a table answers 500.
    """
    execute = job_routes.execute_query_job

    async def execute_repaired(
        project_id: str,
        job_id: str,
        bq_sql: str,
        query_params: list[dict[str, Any]] | None,
        ctx: "AppContext",
        **options: Any,  # noqa: ANN401 - passed through
    ) -> "JobMeta":
        actions = split_alter_table(bq_sql)
        if not actions:
            return await execute(project_id, job_id, bq_sql, query_params, ctx, **options)
        before = _table_of(actions[0], project_id, ctx)
        job: JobMeta | None = None
        ctx.engine.execute("BEGIN TRANSACTION")
        try:
            for action in actions:
                _check_new_type(action, before)
                job = await execute(project_id, job_id, action, query_params, ctx, **options)
            if before is not None:
                refresh_catalog(before, ctx)
            ctx.engine.execute("COMMIT")
        except BaseException:
            ctx.engine.execute("ROLLBACK")
            raise
        assert job is not None  # noqa: S101 - there is at least one action
        query = {**job.configuration["query"], "query": bq_sql}
        return job.model_copy(update={"configuration": {**job.configuration, "query": query}})

    job_routes.execute_query_job = execute_repaired
    executor.execute_query_job = execute_repaired


def split_alter_table(sql: str) -> list[str]:
    """An ``ALTER TABLE`` as statements of one action each; nothing for any other statement."""
    try:
        tokens = sqlglot.tokenize(sql, read="bigquery")
    except sqlglot.errors.TokenError:
        return []
    words = [token.text.upper() for token in tokens]
    if words[:2] != ["ALTER", "TABLE"]:
        return []
    starts = (i for i in range(3, len(words)) if words[i] in {"ADD", "ALTER", "DROP", "SET", "RENAME"})
    first = next((i for i in starts if words[i - 1] != "."), None)
    if first is None:
        return []
    # Token positions are inclusive at both ends.
    head = sql[: tokens[first].start]
    end = len(sql)
    if words[-1] == ";":
        end = tokens[-1].start
    actions: list[str] = []
    depth = 0
    begin = tokens[first].start
    for token in tokens[first:]:
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            actions.append(sql[begin : token.start])
            begin = token.end + 1
    actions.append(sql[begin:end])
    return [f"{head}{action.strip()}" for action in actions]


def refresh_catalog(before: TableMeta, context: "AppContext") -> None:
    """Give the catalog the columns that DuckDB has; what did not change keeps its description."""
    place = (before.project_id, before.dataset_id, before.table_id)
    known = {field.name: field for field in before.schema_.fields}
    found = ddl_sync._introspect_schema(*place, context).fields
    fields = tuple(
        known[field.name]
        if field.name in known and _storage_type(known[field.name]) == _storage_type(field)
        else field
        for field in found
    )
    now = context.clock.now()
    context.catalog.update_table(
        before.model_copy(
            update={
                "schema_": TableSchema(fields=fields),
                "last_modified_time": now,
                "etag": generate_etag(*place, str(now)),
            }
        )
    )


def _storage_type(field: TableFieldSchema) -> str:
    """The type as introspection can see it: several BigQuery types share a DuckDB column type."""
    name = _LEGACY_TYPE_NAMES.get(field.type.upper(), field.type.upper())
    return name if name in {"INTEGER", "FLOAT", "BOOLEAN"} else "other"


def _table_of(sql: str, project_id: str, context: "AppContext") -> TableMeta | None:
    """The table that an ``ALTER TABLE`` of one action names; None when it is not there or not readable."""
    tree = sqlglot.parse_one(sql, read="bigquery")
    if not isinstance(tree, exp.Alter) or not isinstance(tree.this, exp.Table):
        return None
    place = ddl_sync._split_target(tree.this, project_id)
    return context.catalog.get_table(*place)


def _check_new_type(sql: str, table: TableMeta | None) -> None:
    """Refuse to narrow a column, which DuckDB would do and BigQuery does not."""
    tree = sqlglot.parse_one(sql, read="bigquery")
    if table is None or not isinstance(tree, exp.Alter):
        return
    types = {field.name.casefold(): field.type.upper() for field in table.schema_.fields}
    for action in tree.args["actions"]:
        target = action.args.get("dtype") if isinstance(action, exp.AlterColumn) else None
        if target is None:
            continue
        current = types.get(action.name.casefold(), "")
        wanted = target.sql(dialect="bigquery").upper()
        if _LEGACY_TYPE_NAMES.get(current, current) == _LEGACY_TYPE_NAMES.get(wanted, wanted):
            continue
        if current in {"INTEGER", "INT64"} and wanted in _FLOATS | {"NUMERIC", "BIGNUMERIC"}:
            continue
        raise InvalidQueryError(
            "ALTER TABLE ALTER COLUMN SET DATA TYPE requires that the existing column type "
            f"({current}) is assignable to the new type ({wanted})",
            location="query",
        )
