"""Rows read back: recognised when they are ours, whatever became of the table since, and not otherwise."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pixaris_sync.model import Cell, Column, ColumnType, JsonValue
from pixaris_sync.rules.readback import _all_matched, same_record
from pixaris_sync.rules.schema import companion_names, hashed_column_name, plan_batch
from tests.unit.rules.schema_strategies import PlainTable, batches, cells_of, records, schemas, values

Batch = Sequence[tuple[str, tuple[Cell, ...]]]


@given(st.none() | schemas, st.lists(batches, min_size=1, max_size=3))
def test_rows_sent_are_recognised_after_any_history(
    columns: tuple[Column, ...] | None, history: Sequence[Batch]
) -> None:
    """Goal: read-back never doubts its own rows. Method: batches in turn into one table, all read at the end.

    Later batches add columns and widen them under rows that are there.
    """
    table = PlainTable(columns)
    cells: list[tuple[Cell, ...]] = []
    for batch in history:
        plan = plan_batch(batch, table.columns)
        table.apply(plan)
        cells.extend(row for _, row in batch)
    for meant, read in zip(cells, table.rows, strict=True):
        assert same_record(meant, {**dict.fromkeys(table.types), **read})


@given(records, records)
def test_a_row_with_values_left_over_is_another(one: tuple[Cell, ...], other: tuple[Cell, ...]) -> None:
    """Goal: no foreign row counts as ours. Method: a stored record with more values than keys."""
    assume(len([cell for cell in one if cell.value is not None]) > len(other))
    table = PlainTable(None)
    table.apply(plan_batch([("row", one)], None))
    assert not same_record(other, table.rows[0])


@given(records.filter(bool), values, st.data())
def test_one_changed_value_makes_another_record(
    cells: tuple[Cell, ...], value: JsonValue, data: st.DataObject
) -> None:
    """Goal: records that differ in one cell differ. Method: change a value to one that prints otherwise."""
    index = data.draw(st.integers(0, len(cells) - 1))
    others = [*(cell.value for cell in cells), None]
    assume(value is not None and str(value) not in map(str, others))
    assume(not any(_numbers_alike(value, other) for other in others))
    table = PlainTable(None)
    table.apply(plan_batch([("row", cells)], None))
    changed = {cell.key: cell.value for cell in cells} | {cells[index].key: value}
    assert not same_record(cells_of(changed), table.rows[0])


def _numbers_alike(one: object, other: object) -> bool:
    """Whether one number may be what widening made of the other."""
    if isinstance(one, str | bool | None) or isinstance(other, str | bool | None):
        return False
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    return float(one) == float(other)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"a": 3}, {"a": 3.0}),
        ({"a": 3.0}, {"a": 3}),
        ({"a": 2**53 + 1}, {"a": float(2**53 + 1)}),
        ({"a": math.nan}, {"a": math.nan}),
        ({"a": -math.inf}, {"a": -math.inf}),
        ({"a": math.nan}, {"a": "nan"}),
        ({"a": True}, {"a": True, "b": None}),
        ({"a": "x"}, {"A": "x"}),
        ({"learning rate": 1}, {"learning rate": 1.0}),
        ({"Learning Rate": 1}, {"learning rate": 1}),
        ({}, {"b": None}),
    ],
)
def test_the_same_row_in_another_guise(sent: dict[str, JsonValue], read: dict[str, JsonValue]) -> None:
    """Goal: widening, words for floats and NULLs do not matter. Method: one pair each."""
    assert same_record(cells_of(sent), read)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"a": 3}, {"a": 4}),
        ({"a": 2**53 + 1}, {"a": 2**53}),
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": "3"}, {"a": 3}),
        ({"a": "nan"}, {"a": math.nan}),
        ({"a": math.nan}, {"a": math.inf}),
        ({"a": 0.5}, {"a": math.nan}),
        ({"a": "x"}, {"a": "x", "b": 0}),
        ({"a": "x", "b": 0}, {"a": "x"}),
        ({"a": "x", "A": "x"}, {"a": "x"}),
    ],
)
def test_rows_that_differ(sent: dict[str, JsonValue], read: dict[str, JsonValue]) -> None:
    """Goal: near misses are misses. Method: one difference each."""
    assert not same_record(cells_of(sent), read)


CELLS = cells_of({"name": "r", "score": 3, "note": None})


@pytest.mark.parametrize(
    "read",
    [
        {"name": "r", "score": 3, "note": "None"},
        {"name": "r", "score": 3.0},
        {"name": "r", "score": "3"},
        {"name": "r", "score__integer": 3},
        {"name": "r", hashed_column_name("score"): 3, "note": None},
        {"name": "r", hashed_column_name("score__integer"): 3},
    ],
)
def test_a_record_is_found_wherever_its_values_went(read: dict[str, JsonValue]) -> None:
    """Goal: a lost ledger and a drifted table double no row. Method: each place a value can stand."""
    assert same_record(CELLS, read)


@pytest.mark.parametrize(
    "read",
    [
        {"name": "r"},
        {"name": "r", "score": 4},
        {"name": "r", "score": True},
        {"name": "r", "score__string": 3},
        {"name": "r", "score": 3, "note": ""},
        {"name": "r", "score": 3, "more": 1},
        {"name": "r", "score": 3, "score__integer": 3},
    ],
)
def test_a_row_that_is_not_the_record(read: dict[str, JsonValue]) -> None:
    """Goal: missing, changed and further values are noticed. Method: one difference each."""
    assert not same_record(CELLS, read)


def test_the_search_takes_back_a_choice_that_blocks_another() -> None:
    """Goal: no row of ours is missed by bad luck. Method: choices where taking the first free one fails."""
    assert _all_matched({1: "ab", 2: "ac", 3: "ac"})
    assert not _all_matched({1: "ab", 2: "ab", 3: "ab"})


def test_values_that_could_swap_columns_are_each_given_one() -> None:
    """Goal: the search does not stop at the first choice. Method: two keys that share a possible column."""
    companion = next(companion_names("score", ColumnType.STRING))
    cells = cells_of({"score": "x", companion: "x"})
    assert same_record(cells, {"score": "x", companion: "x"})
    assert same_record(cells, {companion: "x", hashed_column_name(companion): "x"})
    assert not same_record(cells, {companion: "x"})
