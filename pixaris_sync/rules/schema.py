"""Columns: what they are called, which value goes into which, what a table must gain first.

The rules, in the order in which they are tried for each value of a row:

1. A key goes into the column of exactly its name if the table has one, else into the column that
   `column_name` gives. Where that name is taken but for case, which BigQuery does not tell apart, it is the
   key's hashed name.
2. The value must fit the column's type, or be converted without loss: an integer into FLOAT where a double
   holds it exactly, an integral float into INTEGER, anything into STRING as Python's ``str`` prints it, None
   into any other type as NULL.
3. A float that does not fit an INTEGER column widens the column to FLOAT.
4. Anything else goes into a *companion* column named after key and type, ``<key>__<type>``, with a hashed
   name where that is taken. Columns of types that Pixaris never makes (`ColumnType.OTHER`) always have
   companions.

So a value is never dropped, and two keys of a row never share a column. Facts about column names are from
Google's page "Specifying a schema". Flexible column names, which that page allows besides, are not made here:
not every reader knows them. Ones that exist are used.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pixaris_sync.model import (
    FLOAT_WORDS,
    INT64_MAX,
    INT64_MIN,
    Cell,
    Column,
    ColumnType,
    JsonValue,
    OutgoingRow,
)

COLUMN_NAME_LENGTH_MAX: Final = 300
#: Beginnings of names that BigQuery keeps for itself, in any case. Queries rename ``_field_``.
RESERVED_COLUMN_PREFIXES: Final = (
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
    "_FIELD_",
)

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OFFENDING: Final = re.compile(r"[^A-Za-z0-9_]", re.ASCII)
_HASH_DIGITS: Final = 8
#: Stands for "this column cannot take the value without loss".
MISFIT: Final = object()


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What must be done for a batch of rows, in this order: add, widen, send.

    Attributes:
        rows: the rows, in the batch's order.
        add: columns that are not there yet, in order of first use: for a new table, all it needs.
        widen: names of INTEGER columns of the table that must become FLOAT first.
        renamed: keys that go into a column of another name, and that column; companions are not told here.
    """

    rows: tuple[OutgoingRow, ...]
    add: tuple[Column, ...] = ()
    widen: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def column_name(key: str) -> str:
    """The column of a key in a table that has none for it yet.

    A key of ASCII letters, digits and underscores, not beginning with a digit or one of
    `RESERVED_COLUMN_PREFIXES` and not longer than `COLUMN_NAME_LENGTH_MAX`, is its own column. In any other,
    each character that is no letter, digit or underscore becomes an underscore; one more is put in front
    where the name would be empty, begin with a digit or be reserved; it is cut; and an underscore and the
    first hex digits of the key's SHA-256 are added, so that no two such keys share a column.
    """
    plain = _PLAIN_NAME.fullmatch(key) and len(key) <= COLUMN_NAME_LENGTH_MAX and not _is_reserved(key)
    return key if plain else hashed_column_name(key)


def hashed_column_name(key: str) -> str:
    """The column of a key whose own name cannot be used; see `column_name`."""
    name = _OFFENDING.sub("_", key)
    if not name or name[0].isdigit() or _is_reserved(name):
        name = f"_{name}"
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{name[: COLUMN_NAME_LENGTH_MAX - _HASH_DIGITS - 1]}_{digest}"


def companion_names(key: str, kind: ColumnType) -> Iterator[str]:
    """Names for the companion column of a key and type, the best first, without end."""
    name = f"{key}__{kind.lower()}"
    yield column_name(name)
    yield hashed_column_name(name)
    for count in itertools.count(2):
        yield hashed_column_name(f"{name}__{count}")


def value_type(value: object) -> ColumnType:
    """The type of a new column for a cell's value; None, like a string, makes a STRING column."""
    match value:
        case bool():
            return ColumnType.BOOLEAN
        case int() if _is_int64(value):
            return ColumnType.INTEGER
        case float():
            return ColumnType.FLOAT
        case _:
            return ColumnType.STRING


def written_as(value: object, kind: ColumnType) -> JsonValue:
    """A cell's value as JSON for a column of type `kind`; None is NULL.

    Returns:
        What to send, or `MISFIT` where the column cannot take the value without loss. Floats that JSON has no
        number for are the words that BigQuery reads. Integers stay numbers, whatever their size.
    """
    written: JsonValue = MISFIT
    match kind, value:
        case ColumnType.STRING, _:
            written = str(value)
        case _, None:
            written = None
        case ColumnType.BOOLEAN, bool():
            written = value
        case _, bool():
            pass
        case ColumnType.INTEGER, int() if _is_int64(value):
            written = value
        case ColumnType.INTEGER, float() if value.is_integer() and _is_int64(int(value)):
            # An integer has no -0.0.
            written = int(value) if value or math.copysign(1, value) > 0 else MISFIT
        case ColumnType.FLOAT, int() if _is_int64(value) and int(float(value)) == value:
            written = float(value)
        case ColumnType.FLOAT, float():
            written = value if math.isfinite(value) else FLOAT_WORDS[str(value)]
    return written


def plan_batch(batch: Sequence[tuple[str, Sequence[Cell]]], columns: Sequence[Column] | None) -> BatchPlan:
    """Plan the rows of a batch for a table, and what the table must gain for them.

    The plan is a function of its arguments alone. Columns are settled for the whole batch before a value is
    written, so a row need not be sent after the one that made its column.

    Args:
        batch: each row's id and cells; the keys of a row are distinct. Cells' own types are not looked at.
        columns: the table's columns, None or empty where there is no table yet.
    """
    existing = tuple(columns or ())
    floats: frozenset[str] = frozenset()
    while True:
        draft = _Draft(existing, floats)
        rows = tuple(OutgoingRow(row_id, draft.row(cells)) for row_id, cells in batch)
        # Widening can spoil what was written into the column before: start over, with it wide from the
        # start. Each turn widens one more column at least, so there is an end.
        if draft.floats == floats:
            break
        floats = frozenset(draft.floats)
    widen = tuple(
        column.name for column in existing if column.type is ColumnType.INTEGER and column.name in floats
    )
    return BatchPlan(rows, tuple(draft.added), widen, MappingProxyType(draft.renamed))


def _is_int64(value: int) -> bool:
    return INT64_MIN <= value <= INT64_MAX


def _is_reserved(name: str) -> bool:
    return name.upper().startswith(RESERVED_COLUMN_PREFIXES)


class _Draft:
    """One pass over a batch: the columns as they will be, growing with each row."""

    def __init__(self, existing: Iterable[Column], floats: frozenset[str]) -> None:
        """Begin with the table's columns; those named in `floats` count as FLOAT from the start."""
        self.floats = set(floats)
        self.added: list[Column] = []
        self.renamed: dict[str, str] = {}
        self._types: dict[str, ColumnType] = {}
        self._spellings: set[str] = set()
        for column in existing:
            self._learn(column.name, column.type)

    def row(self, cells: Sequence[Cell]) -> dict[str, JsonValue]:
        """Give each cell its column and write the row."""
        sent: dict[str, JsonValue] = {}
        taken: set[str] = set()
        leftover: list[Cell] = []
        for cell in cells:
            name = self._own_column(cell)
            written = MISFIT if name in taken else self._write(name, cell.value)
            if written is MISFIT:
                leftover.append(cell)
                continue
            taken.add(name)
            if written is not None:
                sent[name] = written
        for cell in leftover:
            name = self._companion(cell, taken)
            taken.add(name)
            sent[name] = written_as(cell.value, self._types[name])
        return sent

    def _own_column(self, cell: Cell) -> str:
        name = cell.key
        if name not in self._types:
            name = column_name(cell.key)
            if name not in self._types and name.casefold() in self._spellings:
                name = hashed_column_name(cell.key)
            if name != cell.key:
                self.renamed[cell.key] = name
        if name not in self._types:
            self._add(name, value_type(cell.value))
        return name

    def _write(self, name: str, value: object) -> JsonValue:
        written = written_as(value, self._types[name])
        if written is MISFIT and isinstance(value, float) and self._types[name] is ColumnType.INTEGER:
            self.floats.add(name)
            self._types[name] = ColumnType.FLOAT
            written = written_as(value, ColumnType.FLOAT)
        return written

    def _companion(self, cell: Cell, taken: set[str]) -> str:
        kind = value_type(cell.value)
        for name in companion_names(cell.key, kind):
            if name in taken:
                continue
            if name.casefold() not in self._spellings:
                self._add(name, kind)
            if self._types.get(name) is kind:
                return name
        raise AssertionError(name)

    def _add(self, name: str, kind: ColumnType) -> None:
        self._learn(name, kind)
        self.added.append(Column(name, self._types[name]))

    def _learn(self, name: str, kind: ColumnType) -> None:
        widened = kind is ColumnType.INTEGER and name in self.floats
        self._types[name] = ColumnType.FLOAT if widened else kind
        self._spellings.add(name.casefold())
