"""The ledger at one moment: what there is to do, taken in the transaction that writes down what was done."""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from msgspec.structs import replace

from pixaris_sync.ledger.pending_rows import table_backlogs
from pixaris_sync.ledger.uploads import Receipt, UploadTask, claim, next_upload_at
from pixaris_sync.pipeline.context import BUCKET, DATASET, FOLDER, Context
from pixaris_sync.pipeline.lane import UploadLane
from pixaris_sync.rules.planner import TableBacklog


class Snapshot(NamedTuple):
    """The ledger at one moment.

    Attributes:
        claimed: files to carry, which nobody else may take.
        next_upload_at: when the next file may be claimed, in seconds since the epoch; None while some are in
            flight, or if there is none.
        tables: what the tables need.
    """

    claimed: list[UploadTask]
    next_upload_at: float | None
    tables: list[TableBacklog]


def take_snapshot(
    db: Connection, context: Context, lane: UploadLane, receipts: Sequence[Receipt]
) -> Snapshot:
    """Write receipts down, claim files for the lane, and see what the tables need; in one transaction."""
    now, selection, gate = context.now(), context.mode.selection, context.gate(BUCKET)
    lane.write_down(db, receipts)
    if context.halted:
        return Snapshot([], None, [])
    in_flight = lane.in_flight - len(receipts)
    claimed: list[UploadTask] = []
    next_at: float | None = None
    if gate.failures < selection.attempts_limit and not context.gate(FOLDER).failures:
        # While the bucket is in trouble, one file at a time finds out whether it is healthy again.
        count = 1 - in_flight if gate.failures else lane.room(in_flight)
        if gate.is_open(now) and count > 0:
            claimed = claim(db, now, selection, count)
        if not in_flight and not claimed:
            next_at = next_upload_at(db, selection)
            if next_at is not None:
                next_at = max(next_at, gate.opens_at)
    tables = [_behind_gate(context, backlog, now) for backlog in table_backlogs(db, now, selection)]
    seen = [backlog for backlog in tables if backlog is not None]
    return Snapshot(claimed, next_at, _behind_dataset(context, seen, now))


def _behind_gate(context: Context, backlog: TableBacklog, now: float) -> TableBacklog | None:
    """A table as the planner may see it: nothing is due while its gate is closed."""
    gate = context.gate(backlog.table_id)
    if gate.failures >= context.mode.selection.attempts_limit:
        return None
    if gate.is_open(now):
        return backlog if context.streams else replace(backlog, by_load=True, streamable=0)
    return TableBacklog(backlog.table_id, next_at=gate.opens_at)


def _behind_dataset(context: Context, tables: list[TableBacklog], now: float) -> list[TableBacklog]:
    """Tables as the planner may see them: while all are denied, one at a time finds out when that ends."""
    gate = context.gate(DATASET)
    if not gate.failures:
        return tables
    if gate.failures >= context.mode.selection.attempts_limit:
        return []
    if not gate.is_open(now):
        return [TableBacklog(backlog.table_id, next_at=gate.opens_at) for backlog in tables]
    due = [one.table_id for one in tables if one.is_due]
    probe = context.denied_tables.next_probe(due)
    return [one for one in tables if one.table_id == probe or not due]
