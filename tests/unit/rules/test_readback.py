"""Which records have their row: rows are known by their run, whatever others did to them since."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pixaris_sync.model import Cell, Column, ColumnType, DatasetKey, Destination, JsonValue, RunKey
from pixaris_sync.rules.contract import object_link, object_name
from pixaris_sync.rules.readback import (
    Wanted,
    cells_decide,
    held,
    home,
    likeness,
    matched,
    represents,
    standing,
)
from pixaris_sync.rules.schema import companion_names, hashed_column_name, plan_batch
from tests.unit.rules.schema_strategies import (
    PlainTable,
    cells_of,
    schemas,
    unforged_batches,
    unforged_records,
    values,
)

Batch = Sequence[tuple[str, tuple[Cell, ...]]]
Row = Mapping[str, JsonValue]

RUN = "20250131-120000_run"
SHOES, HATS = DatasetKey("shop", "shoes"), DatasetKey("shop", "hats")
#: Columns that no key of the strategies can be meant by.
OTHERS = ("review of others", "created_at of others")
others = st.dictionaries(st.sampled_from(OTHERS), st.text(max_size=3), max_size=2)


def link(
    dataset: DatasetKey = SHOES,
    path: str = "flow.json",
    *,
    run: str = RUN,
    bucket: str = "b",
    project: str = "p",
) -> str:
    name = object_name(RunKey(dataset.project, dataset.dataset, run), path)
    return object_link(Destination(project, bucket, f"{project}.d"), name)


def wanted(
    *cells: Mapping[str, str | bool | int | float | None], dataset: DatasetKey = SHOES
) -> dict[int, Wanted]:
    """Records of one run, by their place."""
    run = RunKey(dataset.project, dataset.dataset, RUN)
    return {place: Wanted(run, cells_of(said)) for place, said in enumerate(cells)}


# -- one record and one row --------------------------------------------------------------------------------


@given(st.none() | schemas, st.lists(unforged_batches, min_size=1, max_size=3), others)
def test_rows_sent_are_recognised_after_any_history(
    columns: tuple[Column, ...] | None, history: Sequence[Batch], added: Row
) -> None:
    """Goal: read-back never doubts its own rows. Method: batches in turn into one table, all read at the end.

    Later batches add columns and widen them under rows that are there, and others fill columns of their own.
    """
    table = PlainTable(columns)
    cells: list[tuple[Cell, ...]] = []
    for batch in history:
        plan = plan_batch(batch, table.columns)
        table.apply(plan)
        cells.extend(row for _, row in batch)
    for meant, read in zip(cells, table.rows, strict=True):
        row = {**read, **added}
        assert represents(meant, row)
        assert likeness(meant, row) == len(meant)


@given(unforged_records.filter(bool), values, st.data())
def test_one_changed_value_makes_a_row_less_like_its_record(
    cells: tuple[Cell, ...], value: JsonValue, data: st.DataObject
) -> None:
    """Goal: a corrected cell shows, no other does. Method: change a value to one that prints otherwise."""
    index = data.draw(st.integers(0, len(cells) - 1))
    among = [*(cell.value for cell in cells), None]
    assume(value is not None and str(value) not in map(str, among))
    assume(not any(_numbers_alike(value, other) for other in among))
    table = PlainTable(None)
    table.apply(plan_batch([("row", cells)], None))
    changed = cells_of({cell.key: cell.value for cell in cells} | {cells[index].key: value})

    assert not represents(changed, table.rows[0])
    assert likeness(changed, table.rows[0]) == len(cells) - 1


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
        ({"a": None}, {}),
        ({"a": None}, {"a": "None"}),
        ({"a": 3}, {"a": "3"}),
        ({"a": 3}, {"a__integer": 3}),
        ({"a b": 3}, {"a b": 3}),
        ({"a": 3}, {hashed_column_name("a"): 3}),
        ({"a": 3}, {hashed_column_name("a__integer"): 3}),
        ({"a": True}, {"a": True, "review": "good", "created_at": 1.5}),
        ({"flow": link()}, {"flow": link(bucket="another", project="another")}),
        ({}, {"review": "good"}),
    ],
)
def test_the_same_row_in_another_guise(sent: dict[str, JsonValue], read: Row) -> None:
    """Goal: types, columns, buckets and what others added make no other row. Method: one pair each."""
    assert represents(cells_of(sent), read)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"a": 3}, {}),
        ({"a": 3}, {"a": 4}),
        ({"a": 2**53 + 1}, {"a": 2**53}),
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": "3"}, {"a": 3}),
        ({"a": "nan"}, {"a": math.nan}),
        ({"a": math.nan}, {"a": math.inf}),
        ({"a": 0.5}, {"a": math.nan}),
        ({"a": None}, {"a": ""}),
        ({"a": 3}, {"a__string": 3}),
        ({"a": "x", "b": 0}, {"a": "x"}),
        ({"flow": link()}, {"flow": link(path="mask.png")}),
        ({"flow": link()}, {"flow": link(HATS)}),
    ],
)
def test_what_somebody_changed_shows(sent: dict[str, JsonValue], read: Row) -> None:
    """Goal: a lost or corrected value, and a link to another object, differ. Method: one difference each."""
    cells = cells_of(sent)
    assert not represents(cells, read)
    assert likeness(cells, read) == len(cells) - 1
    assert held(cells, read).count(False) == 1


def test_values_that_could_swap_columns_are_each_given_one() -> None:
    """Goal: the search does not stop at the first choice. Method: two keys that share a possible column."""
    companion = next(companion_names("score", ColumnType.STRING))
    cells = cells_of({"score": "x", companion: "x"})
    assert represents(cells, {"score": "x", companion: "x"})
    assert represents(cells, {companion: "x", hashed_column_name(companion): "x"})
    assert not represents(cells, {companion: "x"})
    assert not represents(cells_of({"a": "x", "A": "x"}), {"a": "x"})


def test_the_search_takes_back_a_choice_that_blocks_another() -> None:
    """Goal: as many as can get one, the first before others. Method: choices in each other's way."""
    assert matched({1: "ab", 2: "ac", 3: "ac"}).keys() == {1, 2, 3}
    assert matched({1: "ab", 2: "ab", 3: "ab"}).keys() == {1, 2}
    assert matched({1: "ab", 2: "a", 3: "b"}).keys() == {1, 2}
    assert matched({1: "a", 2: "ab"}) == {1: "a", 2: "b"}


# -- the records and the rows of a run ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records_wanted", "rows", "taken", "shared", "decide"),
    [
        (1, 0, 0, False, False),
        (1, 1, 0, False, False),
        (1, 2, 0, False, False),
        (1, 1, 1, False, False),
        (2, 1, 0, False, True),
        (2, 2, 1, False, True),
        (2, 2, 0, False, False),
        (2, 2, 2, False, False),
        (3, 1, 2, False, False),
        (1, 1, 0, True, True),
        (1, 0, 0, True, False),
    ],
)
def test_cells_are_read_only_where_counting_leaves_a_choice(
    records_wanted: int, rows: int, taken: int, *, shared: bool, decide: bool
) -> None:
    """Goal: most questions read names alone. Method: each case of the rule."""
    assert cells_decide(records_wanted, rows, taken, shared=shared) is decide


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_where_cells_do_not_decide_rows_are_counted(count: int, rows: int, taken: int) -> None:
    """Goal: rows beyond those of records that have theirs answer for others. Method: without cells."""
    assume(not cells_decide(count, rows, taken, shared=False))
    asked = wanted(*[{"n": number} for number in range(count)])

    found = standing(asked, [{}] * rows, {SHOES: taken})

    assert len(found) == min(count, max(rows - taken, 0))


@given(
    st.lists(st.integers(0, 9), unique=True, min_size=1, max_size=5),
    st.data(),
)
def test_of_several_records_those_have_a_row_that_are_most_like_one(
    numbers: list[int], data: st.DataObject
) -> None:
    """Goal: no record is sent twice, none is left out. Method: some rows are lost, others touched the rest.

    They correct a cell, change a type to text, empty a cell, add columns, and show links in another bucket.
    """
    said: list[dict[str, str | bool | int | float | None]] = [
        {
            "seed": 10 + number,
            "score": number + 0.5,
            "words": f"w{number}",
            "flow": link(path=f"{number}.json"),
        }
        for number in numbers
    ]
    kept = data.draw(st.sets(st.sampled_from(range(len(said)))))
    rows = []
    for place in data.draw(st.permutations(sorted(kept))):
        row: dict[str, JsonValue] = {**said[place], **data.draw(others)}
        key = data.draw(st.sampled_from(["seed", "score", "words", "flow", "none of them"]))
        match data.draw(st.sampled_from(["correct", "retype", "empty", "move"])):
            case "correct" if key in row:
                row[key] = data.draw(st.sampled_from([-1, "corrected", said[0][key]]))
            case "retype" if key in row:
                row[key] = str(row[key])
            case "empty":
                row.pop(key, None)
            case "move":
                row["flow"] = link(path=f"{numbers[place]}.json", bucket="another")
        rows.append(row)

    assert standing(wanted(*said), rows, {}) == kept


@pytest.mark.parametrize(
    ("one", "other", "row"),
    [
        ({"a": 1.0}, {"a": 1}, {"a": 1.0}),
        ({"a": None}, {"a": "None"}, {"a": "None"}),
        ({"a": 1, "hyperparameters": ""}, {"hyperparameters": "", "a": 1}, {"a": 1, "hyperparameters": ""}),
    ],
)
def test_records_that_map_to_equal_rows_need_a_row_each(
    one: dict[str, JsonValue], other: dict[str, JsonValue], row: Row
) -> None:
    """Goal: one row answers for one record. Method: two records of equal rows, and none, one or two rows."""
    asked = wanted(one, other)
    assert [standing(asked, [row] * count, {}) for count in range(4)] == [set(), {0}, {0, 1}, {0, 1}]
    assert standing(asked, [row], {SHOES: 1}) == set()
    assert standing(asked, [row, row], {SHOES: 1}) == {0}


def test_a_run_without_records_asks_for_nothing() -> None:
    """Goal: rows of others are no trouble. Method: rows, and no record."""
    assert standing({}, [{"a": 1}], {}) == set()


# -- tables that datasets share ----------------------------------------------------------------------------


def test_a_link_tells_whose_row_it_is() -> None:
    """Goal: links decide, of this run alone. Method: links to either dataset, to none, to other runs."""
    both = [SHOES, HATS]
    assert home({"flow": link(SHOES, bucket="another")}, RUN, both) == SHOES
    assert home({"flow": link(HATS)}, RUN, both) == HATS
    assert home({"flow": "text", "a": 1}, RUN, both) is None
    assert home({"flow": link(SHOES, run="20250131-120009_run")}, RUN, both) is None
    elsewhere = home({"flow": link(DatasetKey("shop", "gloves"))}, RUN, both)
    assert elsewhere is not None
    assert elsewhere not in both


@given(st.sets(st.sampled_from([SHOES, HATS])), st.booleans())
def test_runs_of_one_name_in_a_shared_table_are_told_apart_by_links(
    kept: set[DatasetKey],
    touched: bool,  # noqa: FBT001 - hypothesis gives it so
) -> None:
    """Goal: neither takes the other's row. Method: a record each, equal but for the link; rows kept."""
    asked = {
        key: Wanted(RunKey(key.project, key.dataset, RUN), cells_of({"a": 1, "flow": link(key)}))
        for key in (SHOES, HATS)
    }
    rows = [{"a": 2 if touched else 1, "flow": link(key, bucket="another")} for key in sorted(kept)]

    assert standing(asked, rows, {}) == kept
    # A record that has its row leaves the other's alone.
    for known, unknown in ((SHOES, HATS), (HATS, SHOES)):
        found = standing({unknown: asked[unknown]}, rows, {known: 1})
        assert found == kept & {unknown}


def test_a_row_that_links_to_no_known_dataset_answers_for_none() -> None:
    """Goal: another machine's run of the same name is not taken for ours. Method: its row alone."""
    foreign = {"a": 1, "flow": link(DatasetKey("shop", "gloves"))}
    assert standing(wanted({"a": 1, "flow": link()}), [foreign], {HATS: 0}) == set()


def test_while_a_dataset_is_not_read_a_row_without_links_must_say_all() -> None:
    """Goal: a row may be of a record that is not known yet. Method: it differs in a cell, or not."""
    asked = wanted({"a": 1, "b": 2})
    touched: Row = {"a": 1, "b": 3}
    assert standing(asked, [touched], {}, all_known=True) == {0}
    assert standing(asked, [touched], {}, all_known=False) == set()
    assert standing(asked, [{"a": 1, "b": 2}], {}, all_known=False) == {0}
    own = wanted({"a": 1, "flow": link()})
    assert standing(own, [{"a": 5, "flow": link()}], {}, all_known=False) == {0}
