"""Rows of a table, as Pixaris reads it, against tracking records. Pure: a frame in, findings out.

A frame tells NULL from values everywhere but in FLOAT columns, where NULL and NaN look the same: there,
either is taken for what the record asks for.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from pixaris_sync.model import Cell, JsonValue, RunKey
from pixaris_sync.rules import readback
from pixaris_sync.rules.contract import RUN_NAME_KEY
from pixaris_sync.rules.readback import matched
from pixaris_sync.rules.schema import column_name, companion_names, hashed_column_name, value_type
from pixaris_sync.text import printable
from pixaris_sync.verify.expected import Expected, ExpectedRow
from pixaris_sync.verify.findings import BACKUP_HINT, CARRY_HINT, Finding, Kind, Sign

if TYPE_CHECKING:
    import pandas as pd

_Row = Mapping[str, JsonValue]

#: Columns that a message names.
_COLUMNS_SHOWN: Final = 5
#: Companion columns that are looked into for a value.
_COMPANIONS_MAX: Final = 4


class _OfRun(Struct):
    """What is known of the rows of one run name: by the datasets that share the table, and in the table."""

    wanted: list[tuple[Expected, ExpectedRow]] = field(default_factory=list)
    forgotten: list[Expected] = field(default_factory=list)
    found: list[_Row] = field(default_factory=list)


def compare_rows(table: str, datasets: Sequence[Expected], frame: "pd.DataFrame | None") -> list[Finding]:
    """Compare a table with the records of the datasets that share it.

    Each record asks for one row of its own, and a row is known by its run: one in which others have corrected
    a cell or a link differs, and is not missing. What others have added beside it makes no difference.

    Args:
        table: the table's id.
        datasets: what should be there.
        frame: the whole table, None where there is none.
    """
    return compare_found(table, datasets, () if frame is None else frame_rows(frame))


def compare_found(table: str, datasets: Sequence[Expected], rows: Iterable[_Row]) -> list[Finding]:
    """`compare_rows` with the rows of a table, as native values with NULLs left out."""
    runs: defaultdict[str, _OfRun] = defaultdict(_OfRun)
    for dataset in datasets:
        for row in dataset.rows:
            runs[row.run.run].wanted.append((dataset, row))
        for name, count in dataset.forgotten.items():
            runs[name].forgotten += [dataset] * count
    for found in rows:
        runs[str(found.get(RUN_NAME_KEY, ""))].found.append(found)
    shared = len(datasets) > 1
    return [
        finding for name in sorted(runs) for finding in _compare_run(table, name, runs[name], shared=shared)
    ]


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


def row_subject(table: str, run: str) -> str:
    """How findings call the rows of a run; `run` is empty for rows that name none."""
    return printable(f"{table}:{run or '(no run name)'}")


def _compare_run(table: str, name: str, run: _OfRun, *, shared: bool) -> Iterator[Finding]:
    subject = row_subject(table, name)
    pairs = _match(run, shared=shared)
    for index, (dataset, wanted) in enumerate(run.wanted):
        if index not in pairs:
            yield _missing(subject, dataset, wanted)
        elif represents(wanted.cells, row := run.found[pairs[index]]):
            yield Finding(Sign.SAME, Kind.ROW, subject, "one row for one record", run=wanted.run)
        else:
            detail = _difference(wanted.cells, row)
            yield Finding(Sign.DIFFERS, Kind.ROW, subject, detail, run=wanted.run)
    left = len(run.found) - len(pairs)
    for dataset in run.forgotten[:left]:
        note = "known to the ledger as synced: its tracking line is gone, so its values are not compared"
        yield Finding(Sign.SAME, Kind.ROW, subject, note, run=_run_of(dataset, name))
    for dataset in run.forgotten[left:]:
        detail = "not in the table; its tracking line is gone too"
        yield Finding(Sign.MISSING, Kind.ROW, subject, detail, BACKUP_HINT, _run_of(dataset, name))
    known = [dataset for dataset, _ in run.wanted] or run.forgotten
    detail = "one row more than there are records" if known else "only in the table"
    for _ in range(left - len(run.forgotten)):
        whose = _run_of(known[0], name) if known else None
        yield Finding(Sign.EXTRA, Kind.ROW, subject, detail, run=whose)


def _missing(subject: str, dataset: Expected, wanted: ExpectedRow) -> Finding:
    if wanted.fault:
        return Finding(Sign.MISSING, Kind.ROW, subject, wanted.fault, CARRY_HINT, wanted.run)
    run, known = wanted.run, dataset.known
    was_there = (run.run, wanted.digest) in known.synced or (run.run, wanted.digest) in known.accepted
    hint = dataset.hint_of(run.run, was_there=was_there)
    return Finding(Sign.MISSING, Kind.ROW, subject, "not in the table", hint, run, wanted.digest)


def _run_of(dataset: Expected, name: str) -> RunKey:
    return RunKey(dataset.key.project, dataset.key.dataset, name)


def _match(run: _OfRun, *, shared: bool) -> dict[int, int]:
    """Give each record a row of its own, as many as can have one: record to row.

    First rows that say all that a record says, and records that say more before others; then the row that is
    most like it. Where datasets share the table, a link can tell that a row is of another one's run.
    """
    cells = {
        index: wanted.cells
        for index, (_, wanted) in sorted(enumerate(run.wanted), key=lambda one: -len(one[1][1].cells))
        if not wanted.fault
    }
    pairs = matched(
        {
            record: [
                row
                for row, found in enumerate(run.found)
                if represents(said, found) and not (shared and _is_of_another(run, record, found))
            ]
            for record, said in cells.items()
        }
    )
    taken = set(pairs.values())
    likeness = {
        (record, row): sum(_held(cells[record], found))
        for record in cells.keys() - pairs.keys()
        for row, found in enumerate(run.found)
        if row not in taken and not (shared and _is_of_another(run, record, found))
    }
    for record, row in sorted(likeness, key=lambda pair: (-likeness[pair], pair)):
        if record not in pairs and row not in taken:
            pairs[record] = row
            taken.add(row)
    return pairs


def _is_of_another(run: _OfRun, record: int, row: _Row) -> bool:
    key, name = run.wanted[record][0].key, run.wanted[record][1].run.run
    return readback.home(row, name, [dataset.key for dataset, _ in run.wanted]) not in (None, key)


def _held(cells: Sequence[Cell], row: _Row) -> list[bool]:
    """Whether a row of a frame holds the value of each cell, a NaN in it being NaN or NULL."""
    plain = {name: value for name, value in row.items() if not _is_nan(value)}
    return list(map(any, zip(readback.held(cells, row), readback.held(cells, plain), strict=True)))


def _difference(cells: Sequence[Cell], row: _Row) -> str:
    """Which columns hold something else, by their names only: values can be long."""
    held = _held(cells, row)
    names = [column_name(cell.key) for cell, is_held in zip(cells, held, strict=True) if not is_held]
    shown = ", ".join(names[:_COLUMNS_SHOWN])
    more = f" and {len(names) - _COLUMNS_SHOWN} more" if len(names) > _COLUMNS_SHOWN else ""
    return f"other values than in the record: {shown}{more}" if names else "other values than in the record"
