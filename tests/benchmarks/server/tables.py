"""Tables of rows, and the few statements that are asked of them.

It is no SQL engine: it knows the statements that pixaris-sync and Pixaris send, and refuses others.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Any

#: The column that names a row's run.
RUN_COLUMN = "experiment_run_name"

_API_TYPES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_PATH = re.compile(r"`([^`]+)`(?:\.`([^`]+)`)?(?:\.`([^`]+)`)?")
_LOOSE = re.IGNORECASE | re.DOTALL
_SELECT = re.compile(r"\s*SELECT\s+(.+?)\s+FROM\s+(`[^`]+`(?:\.`[^`]+`)*)\s*(WHERE\s+.*)?$", _LOOSE)
_ALTER = re.compile(r"\s*ALTER\s+TABLE\s+(`[^`]+`(?:\.`[^`]+`)*)\s+(.*)$", _LOOSE)
_ADD = re.compile(r"ADD COLUMN (?:IF NOT EXISTS )?`([^`]+)` (\w+)", re.IGNORECASE)
_WIDEN = re.compile(r"ALTER COLUMN `([^`]+)` SET DATA TYPE (\w+)", re.IGNORECASE)
_IN_RUNS = re.compile(rf"WHERE\s+`?{RUN_COLUMN}`?\s+IN\s+UNNEST\(@(\w+)\)\s*$", re.IGNORECASE)


class UnknownStatementError(ValueError):
    """A statement that this server does not know."""


class NoSuchTableError(LookupError):
    """There is no such table."""


@dataclass(slots=True)
class Table:
    """Columns and rows. Names of columns compare without case, as in BigQuery.

    Attributes:
        fields: the columns as the API tells them.
        rows: in the order of their arrival.
        arrived: when a run's first row arrived, on the machine's monotonic clock.
    """

    fields: list[dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)
    _by_run: dict[str, list[int]] = field(default_factory=dict)

    def unknown_columns(self, row: dict[str, Any]) -> list[str]:
        """The row's keys for which there is no column."""
        known = {column["name"].casefold() for column in self.fields}
        return [name for name in row if name.casefold() not in known]

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Store rows, all of them known to fit."""
        now = time.monotonic()
        for row in rows:
            run = row.get(RUN_COLUMN, "")
            self._by_run.setdefault(run, []).append(len(self.rows))
            self.arrived.setdefault(run, now)
            self.rows.append(row)

    def of_runs(self, runs: list[str]) -> list[dict[str, Any]]:
        """The rows of these runs."""
        return [self.rows[index] for run in runs for index in self._by_run.get(run, ())]

    def add_column(self, name: str, kind: str) -> None:
        """Add a column, unless it is there."""
        if not self.unknown_columns({name: None}):
            return
        self.fields.append(
            {"name": name, "type": _API_TYPES.get(kind.upper(), kind.upper()), "mode": "NULLABLE"}
        )

    def widen_column(self, name: str, kind: str) -> None:
        """Change a column's type."""
        for column in self.fields:
            if column["name"].casefold() == name.casefold():
                column["type"] = _API_TYPES.get(kind.upper(), kind.upper())


@dataclass(slots=True)
class Found:
    """What a statement found: columns, and rows in the API's form."""

    fields: list[dict[str, Any]]
    rows: list[dict[str, Any]]


def cells(fields: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the form of ``getQueryResults``."""
    found = []
    for row in rows:
        folded = {name.casefold(): value for name, value in row.items()}
        values = (folded.get(column["name"].casefold()) for column in fields)
        found.append({"f": [{"v": _as_text(value)} for value in values]})
    return found


def execute(
    statement: str, parameters: dict[str, list[str]], tables: dict[tuple[str, str, str], Table]
) -> Found:
    """Execute a statement.

    Args:
        statement: in GoogleSQL.
        parameters: array parameters by name.
        tables: by project, dataset and id.

    Raises:
        UnknownStatementError: the statement is none of those known here.
        NoSuchTableError: there is no such table.
    """
    if altered := _ALTER.match(statement):
        table = _find(altered[1], tables)
        for name, kind in _ADD.findall(altered[2]):
            table.add_column(name, kind)
        for name, kind in _WIDEN.findall(altered[2]):
            table.widen_column(name, kind)
        return Found([], [])
    selected = _SELECT.match(statement)
    if selected is None:
        raise UnknownStatementError(statement)
    table = _find(selected[2], tables)
    rows = table.rows
    if selected[3]:
        condition = _IN_RUNS.match(selected[3])
        if condition is None:
            raise UnknownStatementError(statement)
        rows = table.of_runs(parameters[condition[1]])
    fields = table.fields
    if selected[1] != "*":
        wanted = [name.strip().strip("`").casefold() for name in selected[1].split(",")]
        named = {column["name"].casefold(): column for column in fields}
        fields = [named[name] for name in wanted]
    return Found(fields, cells(fields, rows))


def _find(path: str, tables: dict[tuple[str, str, str], Table]) -> Table:
    parts = ".".join(part for part in (_PATH.match(path) or [""]).groups() if part).split(".")  # type: ignore[union-attr]
    if len(parts) != 3 or (key := (parts[0], parts[1], parts[2])) not in tables:
        raise NoSuchTableError(path)
    return tables[key]


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
