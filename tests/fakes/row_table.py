"""A table of `FakeRowSink`: what it holds and what it takes. Knows no clock."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from pixaris_sync.errors import NameRefusedError, SyncError
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow, RowRefusal

Way = Literal["stream", "load"]

_FLOAT_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED_PREFIXES = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")

#: As ``to_dataframe`` of google-cloud-bigquery makes them; None is what pandas makes of text.
_FRAME_TYPES = {ColumnType.BOOLEAN: "boolean", ColumnType.INTEGER: "Int64", ColumnType.FLOAT: "float64"}


@dataclass(slots=True)
class StoredRow:
    """A row of a table, and how and when it came there."""

    cells: dict[str, JsonValue]
    row_id: str
    way: Way
    visible_at: float


@dataclass(slots=True)
class Table:
    """Columns by casefolded name, rows in the order of their arrival, and the insertIds seen lately."""

    created_at: float
    columns: dict[str, Column] = field(default_factory=dict)
    added_at: dict[str, float] = field(default_factory=dict)
    rows: list[StoredRow] = field(default_factory=list)
    insert_ids: dict[str, float] = field(default_factory=dict)
    #: Columns with a default, by name: streamed rows get it, those of load jobs stay NULL.
    defaults: dict[str, JsonValue] = field(default_factory=dict)

    def column(self, name: str) -> Column | None:
        return self.columns.get(name.casefold())

    def add(self, columns: Sequence[Column], added_at: float) -> None:
        for column in columns:
            self.columns[column.name.casefold()] = column
            self.added_at[column.name.casefold()] = added_at

    def widen(self, name: str) -> None:
        column = self.columns[name.casefold()]
        self.columns[name.casefold()] = Column(column.name, ColumnType.FLOAT)
        for row in self.rows:
            if column.name in row.cells:
                row.cells[column.name] = float(row.cells[column.name])

    def make_text(self, name: str) -> None:
        """Turn a column into STRING, as CAST prints what stands in it."""
        column = self.columns[name.casefold()]
        self.columns[name.casefold()] = Column(column.name, ColumnType.STRING)
        for row in self.rows:
            if column.name in row.cells:
                value = row.cells[column.name]
                row.cells[column.name] = str(value).lower() if isinstance(value, bool) else str(value)

    def column_bytes(self, names: Collection[str] | None) -> int:
        """What a query bills that reads these columns of all rows; None: every column."""
        return sum(
            _billed_bytes(value)
            for row in self.rows
            for name, value in row.cells.items()
            if names is None or name in names
        )

    def refusals(self, rows: Sequence[OutgoingRow], *, known_before: float) -> tuple[RowRefusal, ...]:
        """What ``insertAll`` says of these rows; columns added after `known_before` are unknown to it."""
        refused: dict[int, RowRefusal] = {}
        for index, row in enumerate(rows):
            for name, value in row.cells.items():
                column = self.column(name)
                if column is None or self.added_at[name.casefold()] > known_before:
                    cause = f"no such field: {name}"
                    refused[index] = RowRefusal(index, cause, stopped=False, unknown_column=True)
                elif value is not None and not fits(value, column.type):
                    cause = f"{name}: {value!r} is no {column.type}"
                    refused.setdefault(index, RowRefusal(index, cause, stopped=False))
        if not refused:
            return ()
        stopped = (RowRefusal(index, "stopped", stopped=True) for index in range(len(rows)))
        return tuple(refused.get(refusal.index, refusal) for refusal in stopped)

    def insert(
        self, rows: Sequence[OutgoingRow], now: float, dedup_seconds: float, visible_after_seconds: float
    ) -> None:
        """Take streamed rows, but for insertIds seen within `dedup_seconds`."""
        for row in rows:
            if now - self.insert_ids.get(row.row_id, -math.inf) < dedup_seconds:
                continue
            self.insert_ids[row.row_id] = now
            self.append(row, "stream", now + visible_after_seconds)

    def append(self, row: OutgoingRow, way: Way, visible_at: float) -> None:
        cells = {}
        for name, value in row.cells.items():
            column = self.columns[name.casefold()]
            if value is not None:
                cells[column.name] = _stored(value, column.type)
        if way == "stream":
            cells = {**self.defaults, **cells}
        self.rows.append(StoredRow(cells, row.row_id, way, visible_at))

    def frame(self, rows: Sequence[Mapping[str, JsonValue]]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                column.name: pd.Series(
                    [row.get(column.name) for row in rows], dtype=_FRAME_TYPES.get(column.type)
                )
                for column in self.columns.values()
            }
        )


def check_columns(operation: str, table: str, columns: Sequence[Column], existing: Iterable[Column]) -> None:
    """Refuse what BigQuery refuses in new columns beside `existing` ones."""
    names = {column.name.casefold() for column in existing}
    for column in columns:
        name = column.name.casefold()
        if column.type is ColumnType.OTHER:
            raise NameRefusedError(operation, table, f"{column.name} has no type")
        if not _COLUMN_NAME.fullmatch(name) or name.startswith(_RESERVED_PREFIXES):
            raise SyncError(operation, table, f"{column.name!r} is no name of a column")
        if name in names:
            raise SyncError(operation, table, f"there are two columns {column.name}")
        names.add(name)


def fits(value: JsonValue, column: ColumnType) -> bool:
    """Whether a column of this type takes the value without any conversion."""
    match column:
        case ColumnType.STRING:
            return isinstance(value, str)
        case ColumnType.BOOLEAN:
            return isinstance(value, bool)
        case ColumnType.INTEGER:
            return type(value) is int and -(2**63) <= value < 2**63
        case ColumnType.FLOAT:
            return type(value) in (int, float) or (isinstance(value, str) and value in _FLOAT_WORDS)
        case ColumnType.OTHER:
            return False


def _billed_bytes(value: JsonValue) -> int:
    """As https://cloud.google.com/bigquery/pricing#data counts: text 2 and its UTF-8, others at most 8."""
    return 2 + len(value.encode()) if isinstance(value, str) else 8


def _stored(value: JsonValue, column: ColumnType) -> JsonValue:
    if column is ColumnType.FLOAT:
        return _FLOAT_WORDS[value] if isinstance(value, str) else float(value)
    return value
