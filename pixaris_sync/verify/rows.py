"""Rows of a table, as Pixaris reads it, against tracking records. Pure: a frame in, findings out.

A frame tells NULL from values everywhere but in FLOAT columns, where NULL and NaN look the same: there,
either is taken for what the record asks for.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pixaris_sync.model import Cell, JsonValue
from pixaris_sync.rules import readback
from pixaris_sync.rules.contract import RUN_NAME_KEY
from pixaris_sync.rules.readback import matched
from pixaris_sync.rules.schema import column_name, companion_names, hashed_column_name, value_type
from pixaris_sync.text import printable
from pixaris_sync.verify.expected import Expected, ExpectedRow
from pixaris_sync.verify.findings import Finding, Kind, Sign

if TYPE_CHECKING:
    import pandas as pd

_Row = Mapping[str, JsonValue]

#: Columns that a message names.
_COLUMNS_SHOWN: Final = 5
#: Companion columns that are looked into for a value.
_COMPANIONS_MAX: Final = 4


@dataclass(slots=True)
class _OfRun:
    """What is known of the rows of one run name: by the datasets that share the table, and in the table."""

    wanted: list[tuple[Expected, ExpectedRow]] = field(default_factory=list)
    forgotten: list[Expected] = field(default_factory=list)
    found: list[_Row] = field(default_factory=list)


def compare_rows(table: str, datasets: Sequence[Expected], frame: "pd.DataFrame | None") -> list[Finding]:
    """Compare a table with the records of the datasets that share it.

    Each record asks for one row of its own. How each run came out is noted in the datasets.

    Args:
        table: the table's id.
        datasets: what should be there.
        frame: the whole table, None where there is none.
    """
    runs: defaultdict[str, _OfRun] = defaultdict(_OfRun)
    for dataset in datasets:
        for row in dataset.rows:
            runs[row.run.run].wanted.append((dataset, row))
        for name, count in dataset.forgotten.items():
            runs[name].forgotten += [dataset] * count
    for found in () if frame is None else frame_rows(frame):
        runs[str(found.get(RUN_NAME_KEY, ""))].found.append(found)
    return [finding for name in sorted(runs) for finding in _compare_run(table, name, runs[name])]


def frame_rows(frame: "pd.DataFrame") -> Iterator[dict[str, JsonValue]]:
    """The rows of a frame as native values; NULLs are left out, but a NaN of a FLOAT column stays."""
    names = [str(name) for name in frame.columns]
    columns = []
    for position in range(len(names)):
        column = frame.iloc[:, position]
        null = math.nan if column.dtype.kind == "f" else None
        cells = zip(column.tolist(), column.isna().tolist(), strict=True)
        columns.append([null if is_null else value for value, is_null in cells])
    for values in zip(*columns, strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def represents(cells: Sequence[Cell], row: _Row) -> bool:
    """Whether a row of a frame represents these cells, a NaN in it being NaN or NULL."""
    unclear = [name for name, value in row.items() if _is_nan(value)]
    if not unclear:
        return readback.represents(cells, row)
    plain = {name: value for name, value in row.items() if name not in unclear}
    asked_for = {name for cell in cells if _is_nan(cell.value) for name in _columns_of(cell)}
    meant = dict.fromkeys((name for name in unclear if name.casefold() in asked_for), math.nan)
    return readback.represents(cells, {**plain, **meant}) or (
        bool(meant) and readback.represents(cells, plain)
    )


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _columns_of(cell: Cell) -> Iterator[str]:
    """The columns that may hold a cell's value, casefolded: BigQuery does not tell case apart."""
    companions = companion_names(cell.key, value_type(cell.value))
    names = (cell.key, column_name(cell.key), hashed_column_name(cell.key))
    for name in (*names, *itertools.islice(companions, _COMPANIONS_MAX)):
        yield name.casefold()


def _compare_run(table: str, name: str, run: _OfRun) -> Iterator[Finding]:
    subject = printable(f"{table}:{name or '(no run name)'}")
    pairs = _match(run)
    missing = [index for index in range(len(run.wanted)) if index not in pairs]
    taken = set(pairs.values())
    left = [row for index, row in enumerate(run.found) if index not in taken]
    for _ in pairs:
        yield Finding(Sign.SAME, Kind.ROW, subject, "one row for one record")
    for index in missing:
        dataset, wanted = run.wanted[index]
        if left and not wanted.fault:
            dataset.differing[name] += 1
            yield Finding(Sign.DIFFERS, Kind.ROW, subject, _difference(wanted.cells, left.pop()))
        else:
            dataset.missing[name] += 1
            yield Finding(Sign.MISSING, Kind.ROW, subject, wanted.fault or "not in the table")
    for dataset in run.forgotten:
        if left:
            left.pop()
            note = "known to the ledger as synced: its tracking line is gone, so its values are not compared"
            yield Finding(Sign.SAME, Kind.ROW, subject, note)
        else:
            dataset.missing[name] += 1
            yield Finding(Sign.MISSING, Kind.ROW, subject, "not in the table; its tracking line is gone too")
    known = run.wanted or run.forgotten
    for _ in left:
        detail = "one row more than there are records" if known else "only in the table"
        yield Finding(Sign.EXTRA, Kind.ROW, subject, detail)


def _match(run: _OfRun) -> dict[int, int]:
    """Give each record a row of its own, as many as can have one: record to row."""
    return matched(
        {
            record: [row for row, found in enumerate(run.found) if represents(wanted.cells, found)]
            for record, (_, wanted) in enumerate(run.wanted)
            if not wanted.fault
        }
    )


def _difference(cells: Sequence[Cell], row: _Row) -> str:
    """Which columns hold something else, by their names only: values can be long."""
    readings = [row, {name: value for name, value in row.items() if not _is_nan(value)}]
    names = [
        column_name(cell.key) for cell in cells if not any(readback.holds(one, cell) for one in readings)
    ]
    shown = ", ".join(names[:_COLUMNS_SHOWN])
    more = f" and {len(names) - _COLUMNS_SHOWN} more" if len(names) > _COLUMNS_SHOWN else ""
    return f"other values than in the record: {shown}{more}" if names else "other values than in the record"
