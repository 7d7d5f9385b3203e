"""What a plan holds, and in what another one of the same selection differs from it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct, to_builtins

from pixaris_sync.ledger.foreseen import Fate, ForeseenFile, ForeseenRow, ForeseenRun
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import JsonValue, RunKey
from pixaris_sync.rules.prices import Operations
from pixaris_sync.text import counted

#: What another version of the program may not understand.
VERSION: Final = 1
#: How many columns of a table are named that have changed.
COLUMNS_SHOWN: Final = 3

_FATES: Final = {
    Fate.SENT: "is to be sent",
    Fate.FOUND: "is in the cloud already",
    Fate.DONE: "was sent from here before",
}


class PlannedTable(Struct, frozen=True):
    """A table, and what becomes of it: columns as ``name TYPE``; `columns` is None where it is not there."""

    table: str
    columns: tuple[str, ...] | None
    add: tuple[str, ...]
    widen: tuple[str, ...]

    @property
    def columns_then(self) -> frozenset[str]:
        """Its columns once the plan is done."""
        wide = {f"{name} INTEGER" for name in self.widen}
        kept = frozenset(self.columns or ()) - wide
        return kept.union(self.add, (f"{name} FLOAT" for name in self.widen))


class Plan(Struct, frozen=True):
    """What a backfill would do.

    Attributes:
        made_at: when it was made, in seconds since the epoch.
        folder, bucket, dataset: from where to where.
        selection: which runs it is about.
        full: every file is looked at again.
        runs: what is carried.
        tables: those that rows go to.
        left_out: what is not carried, and why, as ``status`` lists it.
        summary: all of it in numbers, as ``backfill --dry-run`` tells it.
        operations: what an apply asks of the cloud, as far as can be foreseen.
    """

    made_at: float
    folder: str
    bucket: str
    dataset: str
    selection: Selection
    full: bool
    runs: tuple[ForeseenRun, ...]
    tables: tuple[PlannedTable, ...]
    left_out: tuple[Mapping[str, JsonValue], ...]
    summary: Mapping[str, JsonValue]
    operations: Operations


def differences(plan: Plan, now: Plan, *, synced: Callable[[RunKey], bool], resumed: bool) -> Iterator[str]:
    """In what a fresh look differs from a plan, a line each; none: it is as it was.

    Args:
        plan: the plan.
        now: what a plan of the same would be now.
        synced: whether the ledger says that a run is synced.
        resumed: the plan was begun, so that what it has done meanwhile is no difference.
    """
    runs = {str(one.run): one for one in now.runs}
    left_out = {str(one["run"]): one for one in now.left_out}
    for planned in plan.runs:
        name = str(planned.run)
        found = runs.pop(name, None)
        if found is not None:
            yield from _of_run(planned, found, resumed=resumed)
        elif name in left_out:
            yield f"{name}: it cannot be carried any more: {left_out[name]['cause']}"
        elif not synced(planned.run):
            yield f"{name}: the run was removed"
        elif not resumed:
            yield f"{name}: the run is synced by now"
    yield from (f"{name}: the run is new" for name in runs)
    tables = {one.table: one for one in now.tables}
    for table in plan.tables:
        if table.table in tables:
            yield from _of_table(table, tables[table.table], resumed=resumed)


def _of_run(planned: ForeseenRun, found: ForeseenRun, *, resumed: bool) -> Iterator[str]:
    files = {one.path: one for one in found.files}
    for file in planned.files:
        there = files.pop(file.path, None)
        name = f"{planned.run}/{file.path}"
        if there is None:
            yield f"{name}: the file was removed"
        elif _version(there) != _version(file):
            yield f"{name}: the file was changed"
        else:
            yield from _of_fate(name, file, there, resumed=resumed)
    yield from (f"{planned.run}/{path}: the file is new" for path in files)
    rows = {one.digest: one for one in found.rows}
    for row in planned.rows:
        record = rows.pop(row.digest, None)
        name = f"{planned.run}, line {row.line}"
        if record is None:
            yield f"{name}: the line was removed or changed"
        else:
            yield from _of_fate(f"{name}: its row", row, record, resumed=resumed)
    yield from (f"{planned.run}, line {one.line}: the line is new" for one in rows.values())


def _version(file: ForeseenFile) -> tuple[int, int, int | None]:
    return file.size, file.mtime_ns, file.crc32c


def _of_fate(
    name: str, planned: ForeseenFile | ForeseenRow, now: ForeseenFile | ForeseenRow, *, resumed: bool
) -> Iterator[str]:
    done = resumed and now.fate is Fate.DONE
    if planned.fate is not now.fate and not done:
        yield f"{name} {_FATES[now.fate]}, which {_FATES[planned.fate]} by the plan"


def _of_table(planned: PlannedTable, found: PlannedTable, *, resumed: bool) -> Iterator[str]:
    if found.columns is None and planned.columns is not None:
        yield f"table {planned.table}: it was removed"
        return
    if planned.columns is None and found.columns is not None and not resumed:
        yield f"table {planned.table}: it was created"
        return
    before, now, then = frozenset(planned.columns or ()), frozenset(found.columns or ()), planned.columns_then
    changed = (before & then) - now | now - (before | then) if resumed else before ^ now
    if changed:
        shown = ", ".join(sorted(changed)[:COLUMNS_SHOWN])
        more = f" and {len(changed) - COLUMNS_SHOWN} more" if len(changed) > COLUMNS_SHOWN else ""
        columns = counted(len(changed), "column has", "columns have")
        yield f"table {planned.table}: {columns} changed: {shown}{more}"


def document_of(plan: Plan) -> dict[str, Any]:
    """A plan for machines, without its checksum."""
    return {
        "version": VERSION,
        "made_at": plan.made_at,
        "folder": plan.folder,
        "bucket": plan.bucket,
        "dataset": plan.dataset,
        "selection": {name: one for name, one in to_builtins(plan.selection).items() if name != "shard"},
        "full": plan.full,
        "summary": dict(plan.summary),
        "operations": plan.operations.document,
        "tables": [to_builtins(table) for table in plan.tables],
        "left_out": [dict(one) for one in plan.left_out],
        "runs": [
            {
                "run": to_builtins(one.run),
                "files": [to_builtins(file) for file in one.files],
                "rows": [to_builtins(row) for row in one.rows],
            }
            for one in plan.runs
        ],
    }
