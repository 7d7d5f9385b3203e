"""Columns: what they are called, which value goes into which, what a table must gain first.

The rules, in the order in which they are tried for each value of a row:

1. A key goes into the column of exactly its name if the table has one, whatever characters it has; else into
   the one that `column_name` gives, or that its hashed name gives, if there is one.
2. A column whose name differs from the key's by case alone is the key's own too: BigQuery does not tell them
   apart, and so `GCPExperimentHandler` stores the value there. Where keys that differ so stand in one record,
   the column is the one's that has exactly its name, or else was used first; the others have their hashed
   names.
3. What is left needs a new column, named by `column_name`. Its type is one that holds the key's values in all
   records that wait for the table, `KeySurvey`, so that none needs another column.
4. The value must fit the column's type, or be converted without loss: an integer into FLOAT where a double
   holds it exactly, an integral float into INTEGER, anything into STRING as Python's ``str`` prints it, None
   into any other type as NULL.
5. A float that does not fit an INTEGER column widens the column to FLOAT, unless that was refused.
6. Anything else goes into a *companion* column named after key and type, ``<key>__<type>``, with a hashed
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
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct, field

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


class BatchPlan(Struct, frozen=True):
    """What must be done for a batch of rows, in this order: add, widen, send.

    Attributes:
        rows: the rows, in the batch's order.
        add: columns that are not there yet, in the order in which records first need them: all that waiting
            records need, and companions for the batch.
        needed: those of them that the batch needs.
        widen: names of INTEGER columns of the table that must become FLOAT first.
        renamed: keys that go into a column of another name, and that column; companions are not told here.
    """

    rows: tuple[OutgoingRow, ...]
    add: tuple[Column, ...] = ()
    needed: tuple[Column, ...] = ()
    widen: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def changes_table(self) -> bool:
        """Whether the table must be made or changed before the rows are sent."""
        return bool(self.add or self.widen)


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


class _Values(NamedTuple):
    """What is known of some values: their types but for None, and whether a double holds every integer."""

    types: frozenset[ColumnType] = frozenset()
    exact: bool = True

    def __or__(self, other: "_Values") -> "_Values":
        return _Values(self.types | other.types, self.exact and other.exact)

    @property
    def column_type(self) -> ColumnType:
        """The type of a column that holds them all without loss."""
        if len(self.types) == 1:
            return next(iter(self.types))
        return ColumnType.FLOAT if self.types == _NUMBERS and self.exact else ColumnType.STRING


_NUMBERS: Final = frozenset({ColumnType.INTEGER, ColumnType.FLOAT})


class KeySurvey(Struct):
    """What the keys of a table's records hold, whatever columns the table has.

    It keeps a little for each key and nothing for a record.

    Attributes:
        values: what is known of each key's values; keys in order of first use.
        spellings: of each key, `_spellings_of` it.
        beside: keys that stood in one record with another that BigQuery does not tell from them.
    """

    values: dict[str, _Values] = field(default_factory=dict)
    spellings: dict[str, tuple[str, str]] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)

    def copy(self) -> "KeySurvey":
        """The same, to go on by itself."""
        return KeySurvey(dict(self.values), dict(self.spellings), set(self.beside))

    def see(self, cells: Iterable[Cell]) -> None:
        """Take in the next record in commit order; to see one twice changes nothing."""
        spelled: dict[str, str] = {}
        for cell in cells:
            key, value = cell.key, cell.value
            values = self.values.get(key)
            if values is None:
                values = self.values[key] = _Values()
                self.spellings[key] = _spellings_of(key)
            if value is not None:
                kind = value_type(value)
                exact = kind is not ColumnType.INTEGER or written_as(value, ColumnType.FLOAT) is not MISFIT
                if kind not in values.types or exact < values.exact:
                    self.values[key] |= _Values(frozenset({kind}), exact)
            for spelling in self.spellings[key]:
                if (other := spelled.setdefault(spelling, key)) != key:
                    self.beside |= {key, other}

    def new_columns(self, columns: Iterable[Column]) -> tuple[Column, ...]:
        """The columns that keys need and a table with these `columns` has not, in order of first use."""
        names = {column.name for column in columns}
        spelled = {name.casefold(): name for name in names}
        new: dict[str, _Values] = {}
        for key in self.values:
            name = _own_column(key, names, spelled)
            if name is None or (name not in _made_for(key) and key in self.beside):
                taken = column_name(key).casefold() in spelled
                name = hashed_column_name(key) if taken else column_name(key)
                new[name] = _Values()
                names.add(name)
                spelled[name.casefold()] = name
        # Only now: a column that is made for one key may be called what another, seen before, would choose.
        for key, values in self.values.items():
            name = _own_column(key, names, spelled)
            if name in new:
                new[name] |= values
        return tuple(Column(name, values.column_type) for name, values in new.items())


def plan_batch(
    batch: Sequence[tuple[str, Sequence[Cell]]],
    columns: Sequence[Column] | None,
    waiting: KeySurvey | None = None,
    *,
    narrow: Container[str] = frozenset(),
) -> BatchPlan:
    """Plan the rows of a batch for a table, and what the table must gain for them.

    The plan is a function of its arguments alone. Columns are settled for the whole batch before a value is
    written, so a row need not be sent after the one that made its column.

    Args:
        batch: each row's id and cells; the keys of a row are distinct. Cells' own types are not looked at.
        columns: the table's columns, None or empty where there is no table yet.
        waiting: what is known of all records that wait for the table; None: of the batch alone.
        narrow: names of columns that cannot be widened.
    """
    there = tuple(columns or ())
    keys = {cell.key for _, cells in batch for cell in cells}
    new: tuple[Column, ...] = ()
    # Mostly there is a column for every key, and nothing to find out.
    if not keys <= {column.name for column in there}:
        survey = waiting.copy() if waiting else KeySurvey()
        for _, cells in batch:
            survey.see(cells)
        new = survey.new_columns(there)
    floats: frozenset[str] = frozenset()
    while True:
        draft = _Draft((*there, *new), floats, narrow)
        rows = tuple(OutgoingRow(row_id, draft.row(cells)) for row_id, cells in batch)
        # Widening can spoil what was written into the column before: start over, with it wide from the
        # start. Each turn widens one more column at least, so there is an end.
        if draft.floats == floats:
            break
        floats = frozenset(draft.floats)
    # Another key's value may have widened one that is new.
    new = tuple(Column(column.name, draft.type_of(column.name)) for column in new)
    add = needed = (*new, *draft.added)
    spellings = {one for key in keys for one in _spellings_of(key)}
    own = tuple(column for column in new if column.name in draft.used or column.name.casefold() in spellings)
    if own != new:
        # Without the other columns, companions may have other names.
        needed = (*own, *plan_batch(batch, (*there, *own), narrow=narrow).add)
    return BatchPlan(
        rows=rows,
        add=add,
        needed=needed,
        widen=tuple(
            column.name for column in there if column.type is ColumnType.INTEGER and column.name in floats
        ),
        renamed=MappingProxyType(draft.renamed),
    )


def _own_column(key: str, names: Container[str], spelled: Mapping[str, str]) -> str | None:
    """The column that a table has for a key.

    Args:
        key: a record's key.
        names: what the table's columns are called.
        spelled: the same by their casefolded names.
    """
    if key in names:
        return key
    _, plain, hashed = _made_for(key)
    if plain in names:
        return plain
    there = next((spelled[one] for one in _spellings_of(key) if one in spelled), None)
    return hashed if there is not None and hashed in names else there


def _made_for(key: str) -> tuple[str, str, str]:
    """What a column that is a key's alone may be called."""
    return key, column_name(key), hashed_column_name(key)


def _spellings_of(key: str) -> tuple[str, str]:
    """What BigQuery does not tell from a key, and from the column that it would get."""
    return key.casefold(), column_name(key).casefold()


def _is_int64(value: int) -> bool:
    return INT64_MIN <= value <= INT64_MAX


def _is_reserved(name: str) -> bool:
    return name.upper().startswith(RESERVED_COLUMN_PREFIXES)


class _Draft:
    """One pass over a batch: the columns as they will be, with companions as rows need them."""

    def __init__(self, columns: Iterable[Column], floats: frozenset[str], narrow: Container[str]) -> None:
        """Begin with a column for every key.

        Those named in `floats` count as FLOAT from the start, those in `narrow` never become it.
        """
        self.floats = set(floats)
        self._narrow = narrow
        self.added: list[Column] = []
        self.used: set[str] = set()
        self.renamed: dict[str, str] = {}
        self._types: dict[str, ColumnType] = {}
        self._spellings: dict[str, str] = {}
        for column in columns:
            self._learn(column.name, column.type)

    def type_of(self, name: str) -> ColumnType:
        """The type that a column has, or will have."""
        return self._types[name]

    def row(self, cells: Sequence[Cell]) -> dict[str, JsonValue]:
        """Give each cell its column and write the row."""
        sent: dict[str, JsonValue] = {}
        taken: set[str] = set()
        leftover: list[Cell] = []
        for cell in cells:
            name = self._own_column(cell.key)
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
        self.used |= taken
        return sent

    def _own_column(self, key: str) -> str:
        name = _own_column(key, self._types, self._spellings)
        assert name is not None, key  # noqa: S101 - the survey has seen every key
        if name != key:
            self.renamed[key] = name
        return name

    def _write(self, name: str, value: object) -> JsonValue:
        written = written_as(value, self._types[name])
        wider = isinstance(value, float) and self._types[name] is ColumnType.INTEGER
        if written is MISFIT and wider and name not in self._narrow:
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
                self._learn(name, kind)
                self.added.append(Column(name, kind))
            if self._types.get(name) is kind:
                return name
        raise AssertionError(name)

    def _learn(self, name: str, kind: ColumnType) -> None:
        widened = kind is ColumnType.INTEGER and name in self.floats
        self._types[name] = ColumnType.FLOAT if widened else kind
        self._spellings[name.casefold()] = name
