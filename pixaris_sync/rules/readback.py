"""Which records have their row in a table: what "the same row" means.

A row is known by its run: nobody else has rows of this ``experiment_run_name``, because nobody else has its
objects. So rows are counted. Of those that a table shows for a run, the records that are known to be synced
have one each; what is left answers for the others. Cells are only asked where that leaves a choice: some of
the others can have a row, and not all; or datasets share the table, and a run's name can stand in both.

Then each record gets the row that is most like it, and no row is too unlike. Others may have added columns
and filled them, corrected a cell, changed a column's type or given it a default, and the record may go to
another bucket or project by now: a row would be sent twice if any of that made it another one. Only a link
to an object of another dataset tells that a row is of that dataset's run. (While the records of a dataset
that shares the table are not known, its rows cannot be told so: then a row must hold all that a record says.)

Rows are read as the BigQuery client gives them: native Python values, NaN as a float, NULLs left out.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from pixaris_sync.model import Cell, DatasetKey, JsonValue, RunKey
from pixaris_sync.rules.contract import linked_object, object_name
from pixaris_sync.rules.schema import column_name, companion_names, hashed_column_name, value_type

#: So many companion names of a key may be absent from a row before the search for its companion ends. Names
#: are skipped only where other keys of the row have taken them, or the table has them with another type.
_ABSENT_COMPANIONS_MAX: Final = 16

#: Stands for a dataset that holds none of the records that are asked for.
_ELSEWHERE: Final = DatasetKey("", "")

_Record = TypeVar("_Record", bound=Hashable)
_Left = TypeVar("_Left", bound=Hashable)
_Right = TypeVar("_Right", bound=Hashable)


class Wanted(NamedTuple):
    """A record that may have a row: of which run, and what it says."""

    run: RunKey
    cells: Sequence[Cell]


def cells_decide(wanted: int, rows: int, taken: int, *, shared: bool) -> bool:
    """Whether counting does not tell which of a run's records have a row.

    Args:
        wanted: how many records may have one.
        rows: how many rows the table shows for the run.
        taken: how many records have theirs for certain.
        shared: several datasets share the table.
    """
    return rows > 0 and (shared or 0 < rows - taken < wanted)


def standing(
    wanted: Mapping[_Record, Wanted],
    rows: Sequence[Mapping[str, JsonValue]],
    taken: Mapping[DatasetKey, int],
    *,
    all_known: bool = True,
) -> set[_Record]:
    """Which of one run's records have their row.

    Args:
        wanted: the records that may have one; of several for which nothing else decides, the first have it.
        rows: what the table shows for the run; without cells where `cells_decide` says no.
        taken: how many other records have their row for certain, by dataset.
        all_known: the records of every dataset that shares the table are known.
    """
    if not wanted:
        return set()
    name = next(iter(wanted.values())).run.run
    homes = [home(row, name, {*taken, *(one.run.dataset_key for one in wanted.values())}) for row in rows]
    free = _free(Counter(homes), taken)
    pairs = [
        (-likeness(one.cells, row), record, index)
        for record, one in wanted.items()
        for index, row in enumerate(rows)
        if homes[index] == one.run.dataset_key
        or (homes[index] is None and (all_known or represents(one.cells, row)))
    ]
    found: set[_Record] = set()
    given: set[int] = set()
    for _, record, index in sorted(pairs, key=lambda pair: pair[0]):
        if record not in found and index not in given and free[homes[index]] > 0:
            found.add(record)
            given.add(index)
            free[homes[index]] -= 1
    return found


def home(row: Mapping[str, JsonValue], run: str, datasets: Iterable[DatasetKey]) -> DatasetKey | None:
    """The dataset of which a run's row is by its links; None where it has none that tells."""
    linked = [name for value in row.values() if isinstance(value, str) and (name := linked_object(value))]
    of_run = [name for name in linked if f"/{run}/" in name]
    for key in datasets:
        start = object_name(RunKey(key.project, key.dataset, run), "")
        if any(name.startswith(start) for name in of_run):
            return key
    return _ELSEWHERE if of_run else None


def likeness(cells: Sequence[Cell], row: Mapping[str, JsonValue]) -> int:
    """How many of a record's values a row holds."""
    return sum(held(cells, row))


def held(cells: Sequence[Cell], row: Mapping[str, JsonValue]) -> list[bool]:
    """Whether a row holds the value of each cell in one of the columns that it can have gone to."""
    spellings = _spellings(row)
    return [
        any(_represents(row[name], cell.value) for name in _possible_columns(cell, spellings))
        if cell.value is not None
        else _is_null(row, cell)
        for cell in cells
    ]


def _is_null(row: Mapping[str, JsonValue], cell: Cell) -> bool:
    return all(row.get(name, "None") == "None" for name in (cell.key, column_name(cell.key)))


def represents(cells: Sequence[Cell], row: Mapping[str, JsonValue]) -> bool:
    """Whether a row holds all values of a record, each in a column of its own.

    The table may have had other columns when the row was sent, so a value may stand in the key's column,
    widened or as text, in one that differs by case, in its hashed one, or in a companion. What others
    added beside it is theirs.
    """
    columns_of: dict[int, list[str]] = {}
    spellings = _spellings(row)
    for index, cell in enumerate(cells):
        if cell.value is not None:
            fitting = _possible_columns(cell, spellings)
            columns_of[index] = [name for name in fitting if _represents(row[name], cell.value)]
        elif not _is_null(row, cell):
            return False
    return len(matched(columns_of)) == len(columns_of)


def matched(choices: Mapping[_Left, Collection[_Right]]) -> dict[_Left, _Right]:
    """Give as many on the left as can have one a choice for itself alone (augmenting paths).

    Where some must go without, those that stand first in `choices` do not.
    """
    owner: dict[_Right, _Left] = {}
    for left in choices:
        _assign(left, choices, owner, set())
    return {left: right for right, left in owner.items()}


def _assign(
    left: _Left, choices: Mapping[_Left, Collection[_Right]], owner: dict[_Right, _Left], tried: set[_Right]
) -> bool:
    for right in choices[left]:
        if right in tried:
            continue
        tried.add(right)
        if right not in owner or _assign(owner[right], choices, owner, tried):
            owner[right] = left
            return True
    return False


def _free(homes: Counter[DatasetKey | None], taken: Mapping[DatasetKey, int]) -> Counter[DatasetKey | None]:
    """How many rows of each dataset, and of those that tell none, answer for no record yet."""
    free = homes.copy()
    for dataset, count in taken.items():
        own = min(count, free[dataset])
        free[dataset] -= own
        free[None] -= count - own
    return free


def _represents(read: JsonValue, value: object) -> bool:
    """Whether `read` is how some column holds a cell's value."""
    return _same_text(read, str(value)) if isinstance(read, str) else _same_plain(value, read)


def _same_text(read: str, text: str) -> bool:
    """Whether two texts are equal, or links to one object, whatever bucket and project it is shown in."""
    return read == text or ((name := linked_object(read)) is not None and name == linked_object(text))


def _same_plain(value: object, read: object) -> bool:
    if isinstance(value, bool) or isinstance(read, bool):
        return value is read
    if isinstance(value, int | float) and isinstance(read, int | float):
        return _same_number(value, read)
    return False


def _same_number(value: float, read: float) -> bool:
    """Whether numbers are equal, or `read` is what widening made of an integer `value`.

    BigQuery rounds what stands in an INTEGER column when the column is widened.
    """
    widened = type(read) is float and float(value) == read
    return value == read or widened or (math.isnan(value) and math.isnan(read))


def _spellings(row: Mapping[str, JsonValue]) -> dict[str, list[str]]:
    """The columns of a row by their casefolded names: a column that differs by case may be a key's own."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in row:
        found[name.casefold()].append(name)
    return found


def _possible_columns(cell: Cell, spellings: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns of a row that a cell's value can have gone to."""
    names = (cell.key, column_name(cell.key), hashed_column_name(cell.key))
    found = dict.fromkeys(name for name in names if _is_there(name, spellings))
    for name in names[:2]:
        found.update(dict.fromkeys(spellings.get(name.casefold(), ())))
    absent = 0
    for name in companion_names(cell.key, value_type(cell.value)):
        if _is_there(name, spellings):
            found[name] = None
        else:
            absent += 1
        if absent == _ABSENT_COMPANIONS_MAX:
            break
    return list(found)


def _is_there(name: str, spellings: Mapping[str, Sequence[str]]) -> bool:
    return name in spellings.get(name.casefold(), ())
