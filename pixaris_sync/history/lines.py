"""Makes the record of a run of its row, as far as a row tells: for runs that have no line here.

What a row does not tell: which values were added by default, when they are the defaults (they are left out);
whether an empty cell was None, or not there (it is left out); whether a text was one, or a list or None that
was printed; whether a file of JSON was an argument or a metric (it becomes an argument). Columns that others
added and filled count as the record's own. Whatever is taken for what, the record stands for the row that it
was made of: ``verify`` finds them the same.

Pure: a row in, a record out.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from pixaris_sync.model import JsonValue, RunKey
from pixaris_sync.rules.contract import RUN_NAME_KEY, default_value, linked_object, object_name
from pixaris_sync.rules.schema import column_name, companion_names, hashed_column_name, value_type

_TIMESTAMP: Final = "timestamp"
_SUFFIXES: Final = (".png", ".json")
#: A column that was made for a key which cannot be one itself: what is left of it, and the hash of the key.
_HASHED: Final = re.compile(r"(.*)_[0-9a-f]{8}", re.DOTALL)
_COMPANION: Final = re.compile(r"(.+)__(?:string|boolean|integer|float)", re.DOTALL)
#: Characters that are looked for in the place of underscores: different ones, and one alone, in so many.
_OFFENDING: Final = tuple(" -.:/()+%#@'")
_MIXED_PLACES_MAX: Final = 3
_PLACES_MAX: Final = 8


def record_of(
    row: Mapping[str, JsonValue], run: RunKey, folder: str, columns: Collection[str]
) -> dict[str, JsonValue]:
    """The record that a row was made of.

    Args:
        row: its cells as native values, by column, NULLs left out.
        run: whose row it is.
        folder: the results folder, as paths of saved arguments begin with it.
        columns: all of the table's.

    Returns:
        Its values in the order in which LocalExperimentHandler writes them.
    """
    values: dict[str, JsonValue] = {}
    for column, value in row.items():
        if column == RUN_NAME_KEY or not isinstance(value, str | bool | int | float):
            continue
        key, saved = _saved_file(column, value, run)
        if saved is not None:
            values[key] = f"{folder}/{run}/{saved}"
            continue
        key = _key_of(column, value, row, columns)
        if key not in values and default_value(key) != value:
            values[key] = value
    first = {_TIMESTAMP: values.pop(_TIMESTAMP)} if _TIMESTAMP in values else {}
    return {**first, **values, RUN_NAME_KEY: run.run}


def _saved_file(column: str, value: JsonValue, run: RunKey) -> tuple[str, str | None]:
    """The key and the name of the run's own file that a cell links to; None: it links to none."""
    linked = linked_object(value) if isinstance(value, str) else None
    prefix = object_name(run, "")
    if linked is None or not linked.startswith(prefix):
        return column, None
    name = linked.removeprefix(prefix)
    key = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), None)
    if key is None or "/" in name or column.casefold() not in _columns_of(key):
        return column, None
    return key, name


def _columns_of(key: str) -> set[str]:
    """The columns that a link of a key may stand in, casefolded."""
    return {name.casefold() for name in (key, column_name(key), hashed_column_name(key))}


def _key_of(column: str, value: JsonValue, row: Mapping[str, JsonValue], columns: Collection[str]) -> str:
    """The key of a column: its own name, unless the rule tells of another one."""
    if found := _COMPANION.fullmatch(column):
        base = found[1]
        companions = itertools.islice(companion_names(base, value_type(value)), 2)
        if base in columns and base not in row and column in companions:
            return base
    if found := _HASHED.fullmatch(column):
        return next((key for key in _guesses(found[1]) if hashed_column_name(key) == column), column)
    return column


def _guesses(name: str) -> Iterator[str]:
    """Keys of which this may be left: with other characters in the place of some of the underscores."""
    for start in dict.fromkeys((name, name.removeprefix("_"))):
        places = [place for place, mark in enumerate(start) if mark == "_"]
        few = len(places) <= _MIXED_PLACES_MAX
        # Of many places, all that are replaced hold the same character.
        choices = [_OFFENDING] if few else [(mark,) for mark in _OFFENDING]
        for marks in choices if len(places) <= _PLACES_MAX else ():
            for put in itertools.product(("_", *marks), repeat=len(places)):
                letters = list(start)
                for place, mark in zip(places, put, strict=True):
                    letters[place] = mark
                yield "".join(letters)
