"""Whether a row that was read back is the one that was meant.

Rows are read as the BigQuery client gives them: native Python values, NaN as a float. A column may have been
widened, and others added, between sending and reading. BigQuery rounds what stands in an INTEGER column when
the column is widened, so an integer that no double holds exactly is recognised by its rounded value.
"""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from pixaris_sync.model import Cell, JsonValue
from pixaris_sync.rules.schema import column_name, companion_names, hashed_column_name, value_type

#: So many companion names of a key may be absent from a row before the search for its companion ends. Names
#: are skipped only where other keys of the row have taken them, or the table has them with another type.
_ABSENT_COMPANIONS_MAX: Final = 16

_Left = TypeVar("_Left", bound=Hashable)
_Right = TypeVar("_Right", bound=Hashable)


def same_record(cells: Sequence[Cell], read: Mapping[str, JsonValue]) -> bool:
    """Whether a row that was read represents these mapped cells, whatever column each value went to.

    For a record whose sent form is not known any more: the table may have had other columns then, so a value
    may stand in the key's column, widened or as text, in one that differs by case, in its hashed one, or in a
    companion. Every value must be found in a column of its own, and no column may be left over; None may
    stand as text or as NULL.
    """
    there = _without_nulls(read)
    return _stands_plainly(cells, there) or _stands_somehow(cells, there)


def _without_nulls(row: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in row.items() if value is not None}


def _represents(read: JsonValue, value: object) -> bool:
    """Whether `read` is how some column holds a cell's value."""
    return read == str(value) if isinstance(read, str) else _same_plain(value, read)


def _same_plain(value: object, read: object) -> bool:
    if isinstance(value, bool) or isinstance(read, bool):
        return value is read
    if isinstance(value, int | float) and isinstance(read, int | float):
        return _same_number(value, read)
    return isinstance(value, str) and isinstance(read, str) and value == read


def _same_number(value: float, read: float) -> bool:
    """Whether numbers are equal, or `read` is what widening made of an integer `value`."""
    widened = type(read) is float and float(value) == read
    return value == read or widened or (math.isnan(value) and math.isnan(read))


def _stands_plainly(cells: Sequence[Cell], there: Mapping[str, JsonValue]) -> bool:
    """The usual case, cheaply: every value stands in the column of its key."""
    found = 0
    for cell in cells:
        name = column_name(cell.key)
        if name in there:
            if not _represents(there[name], cell.value):
                return False
            found += 1
        elif cell.value is not None:
            return False
    return found == len(there)


def _stands_somehow(cells: Sequence[Cell], there: Mapping[str, JsonValue]) -> bool:
    """Match values and columns one to one.

    Where one matching covers all values and another all columns, there is one that covers both (the theorem
    of Mendelsohn and Dulmage), so each side is asked on its own.
    """
    columns_of: dict[int, list[str]] = {}
    cells_of: dict[str, list[int]] = {name: [] for name in there}
    for index, cell in enumerate(cells):
        fitting = [name for name in _possible_columns(cell, there) if _represents(there[name], cell.value)]
        for name in fitting:
            cells_of[name].append(index)
        if cell.value is not None:
            columns_of[index] = fitting
    return _all_matched(columns_of) and _all_matched(cells_of)


def _possible_columns(cell: Cell, there: Collection[str]) -> Iterable[str]:
    """The columns of a row that a cell's value can have gone to."""
    found = dict.fromkeys((cell.key, column_name(cell.key), hashed_column_name(cell.key)))
    # A column that differs by case alone may be the key's own.
    spelled = {cell.key.casefold(), column_name(cell.key).casefold()}
    found.update(dict.fromkeys(name for name in there if name.casefold() in spelled))
    absent = 0
    for name in companion_names(cell.key, value_type(cell.value)):
        found[name] = None
        absent += name not in there
        if absent == _ABSENT_COMPANIONS_MAX:
            break
    return [name for name in found if name in there]


def matched(choices: Mapping[_Left, Collection[_Right]]) -> dict[_Left, _Right]:
    """Give as many on the left as can have one a choice for itself alone (augmenting paths)."""
    owner: dict[_Right, _Left] = {}
    for left in sorted(choices, key=lambda left: len(choices[left])):
        _assign(left, choices, owner, set())
    return {left: right for right, left in owner.items()}


def _all_matched(choices: Mapping[_Left, Collection[_Right]]) -> bool:
    return len(matched(choices)) == len(choices)


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
