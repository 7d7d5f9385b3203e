"""What the tests of schema and readback share: strategies, and a table that takes nothing amiss silently."""

import math
import re
from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from pixaris_sync.model import Cell, Column, ColumnType, JsonValue
from pixaris_sync.rules.schema import BatchPlan, companion_names, hashed_column_name, value_type

VALID_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}", re.ASCII)
RESERVED = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_")

#: Keys that are likely to meet: by case, by rewriting, by being called like another's companion.
MEETING_KEYS = [
    *["a", "A", "a b", "A B", "a-b", "a_b", "", "1st", "_TABLE_x", "__root__", "_", "é", "\ud800", "x" * 301],
    *["a__string", "a__integer", "a__float", "a__boolean", "a__integer__2"],
]
#: Keys that are called like another's hashed column, or in other case like its companion: nobody comes to
#: such by chance. No value is lost for them; but which column each has may depend on which came first.
FORGED_KEYS = [
    *[hashed_column_name("a b"), hashed_column_name("a"), next(companion_names("a b", ColumnType.STRING))],
    "A__string",
]
AWKWARD_KEYS = [*MEETING_KEYS, *FORGED_KEYS]
keys = st.sampled_from(AWKWARD_KEYS) | st.text(max_size=8)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 3.0, 0.5, 1e300, 2.0**63, -(2.0**63), math.nan, math.inf, -math.inf]),
    st.text(max_size=8),
    st.sampled_from(["NaN", "nan", "None", "True", "3", "3.0", "-Infinity", "\0"]),
)


def cells_of(values: Mapping[str, str | bool | int | float | None]) -> tuple[Cell, ...]:
    return tuple(Cell(key, value_type(value), value) for key, value in values.items())


def _batches(
    some: st.SearchStrategy[tuple[Cell, ...]],
) -> st.SearchStrategy[list[tuple[str, tuple[Cell, ...]]]]:
    return st.lists(some, max_size=5).map(
        lambda batch: [(f"row-{index}", cells) for index, cells in enumerate(batch)]
    )


records = st.dictionaries(keys, values, max_size=6).map(cells_of)
unforged_records = st.dictionaries(
    st.sampled_from(MEETING_KEYS) | st.text(max_size=8), values, max_size=6
).map(cells_of)
batches = _batches(records)
unforged_batches = _batches(unforged_records)
schemas = st.lists(
    st.builds(
        Column,
        st.sampled_from([key for key in AWKWARD_KEYS if VALID_NAME.fullmatch(key)] + ["ключ", "a b"]),
        st.sampled_from(ColumnType),
    ),
    max_size=6,
    unique_by=lambda column: column.name.casefold(),
).map(tuple)


class PlainTable:
    """A table as BigQuery would keep it, in memory; whatever BigQuery would refuse fails an assertion."""

    def __init__(self, columns: Sequence[Column] | None) -> None:
        self.types: dict[str, ColumnType] = {column.name: column.type for column in columns or ()}
        self.rows: list[dict[str, JsonValue]] = []

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(name, kind) for name, kind in self.types.items())

    def apply(self, plan: BatchPlan) -> None:
        for column in plan.add:
            assert VALID_NAME.fullmatch(column.name), column
            assert not column.name.lower().startswith(RESERVED), column
            assert column.name.casefold() not in {name.casefold() for name in self.types}, column
            assert column.type is not ColumnType.OTHER
            self.types[column.name] = column.type
        for name in plan.widen:
            assert self.types[name] is ColumnType.INTEGER
            self.types[name] = ColumnType.FLOAT
            for row in self.rows:
                if name in row:
                    row[name] = float(row[name])
        self.rows.extend(
            {name: self._stored(value, self.types[name]) for name, value in row.cells.items()}
            for row in plan.rows
        )

    @staticmethod
    def _stored(value: JsonValue, kind: ColumnType) -> JsonValue:
        """A JSON value as the column gives it back, under the strictest reading of the type."""
        match kind:
            case ColumnType.STRING:
                assert type(value) is str
            case ColumnType.BOOLEAN:
                assert type(value) is bool
            case ColumnType.INTEGER:
                assert type(value) is int
                assert -(2**63) <= value < 2**63
            case ColumnType.FLOAT if isinstance(value, str):
                assert value in ("NaN", "Infinity", "-Infinity")
                return float(value)
            case ColumnType.FLOAT:
                assert type(value) is float
                assert math.isfinite(value)
            case _:
                raise AssertionError(kind)
        return value
