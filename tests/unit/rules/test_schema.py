"""Columns: their names, and the plan for a batch of rows against a table that may have drifted."""

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixaris_sync.model import Cell, Column, ColumnType, JsonValue
from pixaris_sync.rules.readback import matched
from pixaris_sync.rules.schema import (
    MISFIT,
    RESERVED_COLUMN_PREFIXES,
    BatchPlan,
    KeySurvey,
    column_name,
    companion_names,
    hashed_column_name,
    plan_batch,
    value_type,
    written_as,
)
from tests.unit.rules.schema_strategies import (
    AWKWARD_KEYS,
    RESERVED,
    VALID_NAME,
    PlainTable,
    batches,
    cells_of,
    schemas,
    unforged_batches,
)

BOOLEAN, INTEGER, FLOAT = ColumnType.BOOLEAN, ColumnType.INTEGER, ColumnType.FLOAT
STRING, OTHER = ColumnType.STRING, ColumnType.OTHER


def plan_values(columns: dict[str, ColumnType] | None, *rows: dict[str, JsonValue]) -> BatchPlan:
    table = None if columns is None else [Column(name, kind) for name, kind in columns.items()]
    return plan_batch([(f"row-{index}", cells_of(row)) for index, row in enumerate(rows)], table)


def survey(*rows: dict[str, JsonValue]) -> KeySurvey:
    seen = KeySurvey()
    for row in rows:
        seen.see(cells_of(row))
    return seen


def sent(plan: BatchPlan) -> list[dict[str, JsonValue]]:
    return [dict(row.cells) for row in plan.rows]


@given(st.lists(st.text() | st.sampled_from(AWKWARD_KEYS), max_size=10, unique=True))
@example([f"{prefix.title()}x" for prefix in RESERVED_COLUMN_PREFIXES])
@example(["-PARTITION", " _ROOT__", "a" * 300 + "b", "a" * 300 + "c", "1", "1 ", "a b", "a-b", "_field_"])
def test_every_key_gets_a_valid_column_of_its_own(keys: list[str]) -> None:
    """Goal: names BigQuery takes, no two keys in one. Method: random keys, checked by an independent rule."""
    names = [column_name(key) for key in keys]
    for key, name in zip(keys, names, strict=True):
        assert VALID_NAME.fullmatch(name)
        assert not name.lower().startswith((*RESERVED, "_field_"))
        assert column_name(name) == name
        assert VALID_NAME.fullmatch(hashed_column_name(key))
    rewritten = [name for key, name in zip(keys, names, strict=True) if name != key]
    assert len(set(rewritten)) == len(rewritten)


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("score", "score"),
        ("_Score_2", "_Score_2"),
        ("x" * 300, "x" * 300),
        ("my score", "my_score_b1b1be92"),
        ("1st", "_1st_e01ddf65"),
        ("", "__e3b0c442"),
        ("_PARTITIONTIME", "__PARTITIONTIME_124ec10d"),
        ("größe", "gr__e_d353a267"),
    ],
)
def test_the_rule_for_column_names_stays_as_it_is(key: str, column: str) -> None:
    """Goal: the same key keeps its column for ever. Method: names written down once."""
    assert column_name(key) == column


def test_cut_names_keep_their_hash() -> None:
    """Goal: long keys that differ at the end differ as columns. Method: two keys beyond the limit."""
    one, other = column_name("x" * 300 + "a"), column_name("x" * 300 + "b")
    assert one != other
    assert len(one) == len(other) == 300


def test_a_new_table_gets_a_column_for_each_key_in_order() -> None:
    """Goal: the columns GCPExperimentHandler would have made. Method: one value of each type, None too."""
    plan = plan_values(None, {"s": "x", "b": True, "i": 1, "f": 0.5, "n": None})
    assert plan.add == (
        Column("s", STRING),
        Column("b", BOOLEAN),
        Column("i", INTEGER),
        Column("f", FLOAT),
        Column("n", STRING),
    )
    assert sent(plan) == [{"s": "x", "b": True, "i": 1, "f": 0.5, "n": "None"}]
    assert (plan.widen, plan.renamed) == ((), {})


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (STRING, "x", "x"),
        (STRING, True, "True"),
        (STRING, 3, "3"),
        (STRING, 0.1, "0.1"),
        (STRING, math.nan, "nan"),
        (STRING, None, "None"),
        (BOOLEAN, False, False),
        (BOOLEAN, None, None),
        (BOOLEAN, 1, MISFIT),
        (BOOLEAN, "x", MISFIT),
        (INTEGER, 2**63 - 1, 2**63 - 1),
        (INTEGER, 3.0, 3),
        (INTEGER, 2.0**63, MISFIT),
        (INTEGER, -(2.0**63), -(2**63)),
        (INTEGER, -0.0, MISFIT),
        (INTEGER, 0.0, 0),
        (INTEGER, 0.5, MISFIT),
        (INTEGER, math.inf, MISFIT),
        (INTEGER, True, MISFIT),
        (INTEGER, "3", MISFIT),
        (INTEGER, None, None),
        (FLOAT, 3, 3.0),
        (FLOAT, 2**53 + 1, MISFIT),
        (FLOAT, 2**63 - 1, MISFIT),
        (FLOAT, math.nan, "NaN"),
        (FLOAT, math.inf, "Infinity"),
        (FLOAT, -math.inf, "-Infinity"),
        (FLOAT, True, MISFIT),
        (FLOAT, "NaN", MISFIT),
        (FLOAT, None, None),
        (OTHER, 1, MISFIT),
        (OTHER, "x", MISFIT),
        (OTHER, None, None),
    ],
)
def test_values_are_converted_only_without_loss(
    kind: ColumnType, value: JsonValue, written: JsonValue
) -> None:
    """Goal: each cell of the drift table. Method: one value against one type; types compared too."""
    result = written_as(value, kind)
    assert result is written or (type(result) is type(written) and result == written)


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf, -0.0, 2.0**63])
def test_a_float_widens_an_integer_column(value: float) -> None:
    """Goal: int to float drift arrives. Method: floats that no integer equals, in a table with INTEGER."""
    plan = plan_values({"score": INTEGER}, {"score": value})
    assert (plan.add, plan.widen) == ((), ("score",))
    assert sent(plan) == [{"score": written_as(value, FLOAT)}]


def test_integers_beside_a_widening_float_stay_exact() -> None:
    """Goal: widening rounds nothing of its own batch. Method: a large integer first, the float after it."""
    plan = plan_values({"seed": INTEGER}, {"seed": 2**53 + 1}, {"seed": 7}, {"seed": 0.5})
    assert plan.widen == ("seed",)
    assert plan.add == (Column("seed__integer", INTEGER),)
    assert sent(plan) == [{"seed__integer": 2**53 + 1}, {"seed": 7.0}, {"seed": 0.5}]


def test_a_new_column_takes_the_wider_type_of_its_batch() -> None:
    """Goal: no column is added and then widened. Method: an integer, then a float, in a new table."""
    plan = plan_values(None, {"score": 1}, {"score": 0.5})
    assert (plan.add, plan.widen) == ((Column("score", FLOAT),), ())
    assert sent(plan) == [{"score": 1.0}, {"score": 0.5}]


def test_what_does_not_fit_goes_into_a_companion() -> None:
    """Goal: odd values keep their type and hold nobody up. Method: each type against columns it misfits."""
    table = {"score": FLOAT, "flag": BOOLEAN, "when": OTHER}
    plan = plan_values(table, {"score": "n/a", "flag": 2, "when": 0.5}, {"score": True, "flag": None})
    assert plan.add == (
        Column("score__string", STRING),
        Column("flag__integer", INTEGER),
        Column("when__float", FLOAT),
        Column("score__boolean", BOOLEAN),
    )
    assert sent(plan) == [
        {"score__string": "n/a", "flag__integer": 2, "when__float": 0.5},
        {"score__boolean": True},
    ]


def test_a_companion_whose_name_is_taken_is_hashed() -> None:
    """Goal: companions never mix types. Method: a column of the companion's name with another type."""
    plan = plan_values({"score": FLOAT, "score__string": FLOAT}, {"score": "x"})
    assert plan.add == (Column(hashed_column_name("score__string"), STRING),)


def test_a_key_named_like_a_companion_keeps_its_column() -> None:
    """Goal: two keys of a row never share a column. Method: one record with both."""
    plan = plan_values({"score": FLOAT}, {"score": "x", "score__string": "y"})
    assert sent(plan) == [{"score__string": "y", hashed_column_name("score__string"): "x"}]


def test_a_key_named_like_another_keys_column_goes_elsewhere() -> None:
    """Goal: the same for a name made on purpose. Method: a key and the column it is rewritten to."""
    rewritten = column_name("my score")
    plan = plan_values(None, {"my score": 1, rewritten: 2})
    assert sent(plan) == [{rewritten: 1, f"{rewritten}__integer": 2}]


def test_integers_and_floats_beside_a_widened_companion_stay_exact() -> None:
    """Goal: planning ends, and exactly. Method: a key named like the companion widens it in a later row."""
    plan = plan_values({"x": FLOAT}, {"x": 2**53 + 1}, {"x__integer": 0.5})
    assert plan.add == (Column("x__integer", FLOAT), Column(hashed_column_name("x__integer"), INTEGER))
    assert sent(plan) == [{hashed_column_name("x__integer"): 2**53 + 1}, {"x__integer": 0.5}]


def test_keys_of_one_record_that_differ_by_case_get_columns_of_their_own() -> None:
    """Goal: BigQuery's case-blind names. Method: in one record; then one of them alone, in a later batch."""
    plan = plan_values(None, {"Score": 1, "score": 2})
    assert sent(plan) == [{"Score": 1, hashed_column_name("score"): 2}]
    assert plan.renamed == {"score": hashed_column_name("score")}
    again = plan_values({column.name: column.type for column in plan.add}, {"score": 3})
    assert (again.add, sent(again)) == ((), [{hashed_column_name("score"): 3}])


@pytest.mark.parametrize("column", ["SCORE", "Score"])
def test_a_column_that_differs_by_case_is_the_keys_own(column: str) -> None:
    """Goal: the cell that GCPExperimentHandler would fill. Method: a table with another case of the key."""
    plan = plan_values({column: INTEGER}, {"score": 2}, {"score": "x"})
    assert plan.renamed == {"score": column}
    assert sent(plan) == [{column: 2}, {"score__string": "x"}]


def test_a_column_that_differs_by_case_is_left_to_the_key_of_its_name() -> None:
    """Goal: two keys of a row never share a column. Method: both keys in a record, and the column of one."""
    plan = plan_values({"Score": INTEGER}, {"score": 1, "Score": 2})
    assert sent(plan) == [{hashed_column_name("score"): 1, "Score": 2}]


def test_the_oldest_record_spells_the_column_of_keys_that_differ_by_case() -> None:
    """Goal: commit order decides, not the order of sending. Method: the newest record is sent first."""
    plan = plan_batch([("new", cells_of({"score": 0.5}))], None, survey({"Score": 1}, {"score": 0.5}))
    assert (plan.add, sent(plan)) == ((Column("Score", FLOAT),), [{"Score": 0.5}])


@pytest.mark.parametrize("key", ["learning rate", "top-k", "größe", "1st", "ключ"])
def test_a_flexible_column_of_the_keys_name_is_used(key: str) -> None:
    """Goal: what BigQuery takes today. Method: names that we do not make; widened, and with a companion."""
    assert column_name(key) != key
    plan = plan_values({key: INTEGER}, {key: 1}, {key: 0.5}, {key: "x"})
    companion = next(companion_names(key, STRING))
    assert (plan.add, plan.widen) == ((Column(companion, STRING),), (key,))
    assert sent(plan) == [{key: 1.0}, {key: 0.5}, {companion: "x"}]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2**53 + 1], INTEGER),
        ([0.5, 2.0], FLOAT),
        ([1, 0.5], FLOAT),
        ([0.5, 2**53], FLOAT),
        ([0.5, 2**53 + 1], STRING),
        ([1, math.nan], FLOAT),
        ([1, 2**63], STRING),
        (["x", 1], STRING),
        ([1, "x", 0.5], STRING),
        ([True, False], BOOLEAN),
        ([True, 1], STRING),
        ([0.5, True], STRING),
        ([None, 1], INTEGER),
        ([True, None], BOOLEAN),
        ([None, None], STRING),
    ],
)
def test_waiting_records_share_the_type_of_a_new_column(values: list[JsonValue], kind: ColumnType) -> None:
    """Goal: none of them needs a companion. Method: values in both orders; the last record alone is sent."""
    for ordered in (values, values[::-1]):
        waiting = survey(*({"key": value} for value in ordered))
        plan = plan_batch([("last", cells_of({"key": ordered[-1]}))], None, waiting)
        assert plan.add == plan.needed == (Column("key", kind),)


def test_the_table_gains_what_waiting_records_need_in_commit_order() -> None:
    """Goal: as GCPExperimentHandler would have made it. Method: the newest record is sent first."""
    waiting = survey({"c": 1, "a": "x"}, {"b": True}, {"a": 2, "d": 0.5})
    plan = plan_batch([("new", cells_of({"a": 2, "d": 0.5}))], [Column("b", FLOAT)], waiting)
    assert plan.add == (Column("c", INTEGER), Column("a", STRING), Column("d", FLOAT))
    assert plan.needed == (Column("a", STRING), Column("d", FLOAT))
    assert sent(plan) == [{"a": "2", "d": 0.5}]


def test_a_column_of_exactly_the_keys_name_wins() -> None:
    """Goal: tables made by others are gone on with. Method: a column name that we would not make."""
    plan = plan_values({"my score": FLOAT}, {"my score": 0.5})
    assert (plan.add, plan.renamed, sent(plan)) == ((), {}, [{"my score": 0.5}])


def test_a_refused_key_is_renamed_and_said_so() -> None:
    """Goal: the plan tells rewritten names. Method: a key with a space, in two rows."""
    plan = plan_values(None, {"my score": 1}, {"my score": 2})
    assert plan.renamed == {"my score": column_name("my score")}
    assert plan.add == (Column(column_name("my score"), INTEGER),)


def test_an_empty_batch_needs_nothing() -> None:
    """Goal: the smallest case. Method: no rows."""
    assert plan_batch([], None) == BatchPlan(())


def test_companion_names_do_not_repeat() -> None:
    """Goal: there is always another name to try. Method: the first ones of a plain and a rewritten key."""
    for key in ("score", "my score"):
        names = [name for name, _ in zip(companion_names(key, STRING), range(6), strict=False)]
        assert len(set(names[1:])) == 5


def _token(value: object) -> tuple[type, str]:
    return type(value), repr(value)


def _other_number(value: JsonValue) -> JsonValue:
    """The same number as float or as int, where there is one."""
    if type(value) is int and int(float(value)) == value:
        return float(value)
    return int(value) if type(value) is float and value.is_integer() else value


# A key that is called like another's hashed column takes a value that its new column was not made for.
@example(
    columns=None,
    batch=[("0", cells_of({"A": None})), ("1", cells_of({"a": 2.0**63, hashed_column_name("a"): 0}))],
)
@given(st.none() | schemas, batches)
def test_every_planned_value_is_acceptable_and_none_is_lost(
    columns: tuple[Column, ...] | None, batch: Sequence[tuple[str, tuple[Cell, ...]]]
) -> None:
    """Goal: the promise of the drift rules. Method: random tables and batches into a strict table.

    Each value given is looked up in its row: as it is, as the equal number, as text. Each found serves once.
    """
    table = PlainTable(columns)
    plan = plan_batch(batch, columns)
    table.apply(plan)
    assert [row.row_id for row in plan.rows] == [row_id for row_id, _ in batch]
    for (_, cells), row in zip(batch, table.rows, strict=True):
        given_values = {cell.key: cell.value for cell in cells if cell.value is not None}
        guises = {
            key: {_token(value), _token(_other_number(value)), _token(str(value))}
            for key, value in given_values.items()
        }
        choices = {
            key: [name for name, value in row.items() if _token(value) in tokens]
            for key, tokens in guises.items()
        }
        served = matched(choices)
        assert served.keys() == given_values.keys(), row
        assert {row[name] for name in row.keys() - served.values()} <= {"None"}


@given(st.none() | schemas, unforged_batches)
def test_a_plan_carried_out_needs_nothing_more(
    columns: tuple[Column, ...] | None, batch: Sequence[tuple[str, tuple[Cell, ...]]]
) -> None:
    """Goal: the same key always gets the same column. Method: plan again for the table the plan made."""
    table = PlainTable(columns)
    plan = plan_batch(batch, columns)
    table.apply(plan)
    again = plan_batch(batch, table.columns)
    assert (again.add, again.widen) == ((), ())
    assert again.rows == plan.rows


@given(unforged_batches, st.integers(0, 5))
def test_a_batch_cut_in_two_ends_in_the_same_columns(
    batch: Sequence[tuple[str, tuple[Cell, ...]]], cut: int
) -> None:
    """Goal: batch size decides no column's name. Method: own columns after one batch and after two."""
    whole, halves = PlainTable(None), PlainTable(None)
    whole.apply(plan_batch(batch, None))
    for part in (batch[:cut], batch[cut:]):
        halves.apply(plan_batch(part, halves.columns))
    own = {key for _, cells in batch for key in (cell.key for cell in cells)}
    assert own & whole.types.keys() == own & halves.types.keys()


@given(unforged_batches, st.randoms(use_true_random=False))
def test_the_order_of_sending_decides_no_column(
    batch: Sequence[tuple[str, tuple[Cell, ...]]], chance: Random
) -> None:
    """Goal: newest first or oldest first, the table is the same. Method: a new table, rows one by one."""
    waiting = KeySurvey()
    for _, cells in batch:
        waiting.see(cells)
    whole, single = PlainTable(None), PlainTable(None)
    whole.apply(plan_batch(batch, None))
    for row in chance.sample(batch, len(batch)):
        plan = plan_batch([row], single.columns, waiting)
        assert {column.name for column in plan.needed} <= {column.name for column in plan.add}
        single.apply(plan)
    assert single.types == whole.types
    assert sorted(map(repr, single.rows)) == sorted(map(repr, whole.rows))


@given(batches)
def test_what_the_batch_needs_is_enough_for_it(batch: Sequence[tuple[str, tuple[Cell, ...]]]) -> None:
    """Goal: no row waits for another record's columns. Method: add what one row needs, and plan it again."""
    waiting = KeySurvey()
    for _, cells in batch:
        waiting.see(cells)
    needed = plan_batch(batch[:1], None, waiting).needed
    again = plan_batch(batch[:1], needed)
    assert (again.add, again.widen) == ((), ())


def test_an_integer_beyond_64_bits_is_text() -> None:
    """Goal: no plan without end. Method: a value that a cell should not hold, where text does not fit."""
    assert value_type(2**63) is STRING
    assert sent(plan_values({"seed": INTEGER}, {"seed": 2**63})) == [{"seed__string": str(2**63)}]
