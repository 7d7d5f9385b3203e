"""Carries one table's rows: plan them, write the intent down, send; `lookups` reads them back.

Every call ends as done, not done or in doubt. Rows in doubt are looked for before they are sent again, and
load jobs are found again by their id.
"""

import logging
from collections.abc import Sequence
from sqlite3 import Connection

from msgspec.structs import replace

from pixaris_sync.errors import (
    Failure,
    JobFailedError,
    SyncError,
    TableNotFoundError,
    UnknownColumnError,
)
from pixaris_sync.ledger.pending_rows import PendingRow, delivered_by, ready_rows
from pixaris_sync.ledger.rows import (
    accept_rows,
    end_delivery,
    mark_in_doubt,
    note_table,
    note_trouble,
    quarantine_rows,
    reschedule_rows,
    start_delivery,
    table_changed,
)
from pixaris_sync.model import Column, DeliveryMethod, OutgoingRow, Problem, RowRefusal
from pixaris_sync.pipeline.context import Context, problem_of
from pixaris_sync.pipeline.lookups import STREAMED_VISIBLE_SECONDS, Lookups
from pixaris_sync.pipeline.outgoing_rows import MappedRow, fitting, job_id, map_row
from pixaris_sync.pipeline.table_changes import Batch, TableChanges, changes_of
from pixaris_sync.rules.planner import AskFirst, FinishLoad, ReadBack, SendRows, Step
from pixaris_sync.rules.schema import BatchPlan

log = logging.getLogger(__name__)

#: insertAll takes 10 MB; JSON escapes and the envelope want room.
STREAM_BYTES_LIMIT = 8_000_000
#: A load job may be much larger; this bounds the memory that one takes.
LOAD_BYTES_LIMIT = 32_000_000
#: So often a table is changed for the same rows, where others change it at the same time.
CHANGES_LIMIT = 3
#: A row whose request has no answer is looked for after this time.
DOUBT_LOOK_SECONDS = 5.0
#: After so many rows of a table that were refused one by one, the next batch is not taken apart any more.
REFUSED_ALONE_LIMIT = 20


class Deliveries:
    """Performs the planner's steps; remembers tables' columns so that the steady state asks for nothing.

    Attributes:
        changes: what keeps to how often tables may be updated.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lookups = Lookups(context)
        self.changes = TableChanges(context)
        #: Deliveries that this process has begun, or has asked the table about.
        self._known: set[int] = set()
        self._columns: dict[str, tuple[Column, ...]] = {}
        #: Tables that did not answer when they were last asked for their columns.
        self._mute: set[str] = set()
        #: Tables that may have been made just now, by what was learnt of them last.
        self._unsettled: set[str] = set()
        #: By table, how many rows in succession were refused alone, and the cause of them all.
        self._refused_alone: dict[str, tuple[str, int]] = {}
        #: Tables whose last streaming insert was denied, until its rows have gone by a load job.
        self._not_streamed: dict[str, SyncError] = {}

    async def perform(self, step: Step) -> SyncError | None:
        """Perform one step; what became of its rows is in the ledger when this returns.

        Returns:
            An error that stops everything (credentials, dataset).

        Raises:
            LedgerError: the ledger cannot be written.
        """
        try:
            match step:
                case SendRows(method=DeliveryMethod.LOAD):
                    with self.changes.turn_at(step.table_id) as its_turn:
                        return await self._send(step) if its_turn else None
                case SendRows():
                    return await self._send(step)
                case FinishLoad():
                    return await self._finish(step)
                case ReadBack():
                    return await self._lookups.read_back(step)
                case AskFirst():
                    return await self._lookups.ask_first(step)
        except SyncError:
            raise
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this table
            context, table = self._context, step.table_id
            error = context.reports.as_error("work with table", table, caught, failure=Failure.TRANSIENT)
            context.failed(table, error)
            return None

    async def _send(self, step: SendRows) -> SyncError | None:
        context, table = self._context, step.table_id
        # What becomes ready meanwhile goes by the same job.
        if step.method is DeliveryMethod.LOAD and not await self.changes.turn(table):
            return None
        selection, by_load = context.mode.selection, step.by_load
        rows = await context.apply(ready_rows, context.now(), selection, table, step.count, by_load=by_load)
        batch = await self._mapped(rows)
        if not batch:
            return None
        try:
            prepared = await self._prepare(step, batch)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this table
            error = context.reports.as_error("prepare table", table, caught, failure=Failure.TRANSIENT)
            # Whatever came of a question or a change of the table, no row was sent. Those that need no change
            # do not wait for it.
            fitting_now = await self._fitting_now(table, batch)
            if fitting_now is None or error.stops_everything:
                return await self._not_sent(table, [mapped.row for mapped in batch], error, sent=False)
            if others := [mapped.row for mapped in batch if mapped not in fitting_now]:
                await self._not_sent(table, others, error, sent=False, beside=True)
            prepared = await self._prepare(step, fitting_now) if fitting_now else None
        if prepared is None:
            return None
        method, batch, outgoing = prepared
        if method is DeliveryMethod.LOAD and not self._may_update(step):
            await context.apply(reschedule_rows, context.now(), [row.row for row in batch], by_load=True)
            return None
        sends = max(mapped.row.sends for mapped in batch)
        identity = None
        if method is DeliveryMethod.LOAD:
            row_ids = [row.row_id for row in outgoing]
            identity = job_id(context.destination, table, row_ids, sends, context.now())
        sent = [mapped.row for mapped in batch]
        delivery = await context.apply(start_delivery, context.now(), table, sent, method, identity)
        self._known.add(delivery)
        return await self._deliver(table, delivery, sent, outgoing, identity)

    async def _finish(self, step: FinishLoad) -> SyncError | None:
        context, table = self._context, step.table_id
        _, identity, rows = await context.apply(delivered_by, step.delivery_id)
        if step.delivery_id not in self._known:
            try:
                to_come = await self._lookups.still_to_come(table, rows)
            except SyncError as error:
                return await self._leave(table, rows, error)
            if to_come is None:
                return None
            rows = to_come
            self._known.add(step.delivery_id)
        batch = await self._mapped(rows)
        if not batch:
            await context.apply(end_delivery, context.now(), step.delivery_id)
            return None
        sent = [mapped.row for mapped in batch]
        try:
            columns = await self._known_columns(table) or ()
            # The job is found again by its id; these rows count only where it never began.
            plan = self.changes.plan(table, [(mapped.row_id, mapped.cells) for mapped in batch], columns)
        except SyncError as error:
            return await self._leave(table, sent, error)
        if not await self.changes.turn(table):
            return None
        return await self._deliver(table, step.delivery_id, sent, plan.rows, identity, begun_before=True)

    async def _mapped(self, rows: Sequence[PendingRow]) -> list[MappedRow]:
        context = self._context
        batch = []
        for row in rows:
            try:
                batch.append(map_row(row, context.destination))
            except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this record
                error = context.reports.as_error("map record of", str(row.run), caught)
                await context.apply(quarantine_rows, context.now(), [row], problem_of(error))
        return batch

    async def _known_columns(self, table: str) -> tuple[Column, ...] | None:
        if table not in self._columns:
            context = self._context
            self._mute.add(table)
            found = await context.sink.describe(table)
            self._mute.discard(table)
            if found is None:
                return None
            young = await context.apply(note_table, context.now(), table, found.made_at)
            if young and context.settings.table_settle_seconds:
                self._unsettled.add(table)
            self._columns[table] = found.columns
        return self._columns[table]

    async def _fitting_now(self, table: str, batch: Sequence[MappedRow]) -> list[MappedRow] | None:
        """The rows that the table can take as it is; None: it cannot be asked, or is not there."""
        if table in self._mute:
            return None
        try:
            columns = await self._known_columns(table)
        except SyncError:
            return None
        return None if columns is None else self._those_that_fit(table, batch, columns)

    def _those_that_fit(
        self, table: str, batch: Sequence[MappedRow], columns: Sequence[Column] | None
    ) -> list[MappedRow]:
        plans = [(row, self.changes.plan(table, [(row.row_id, row.cells)], columns)) for row in batch]
        return [row for row, plan in plans if not plan.changes_table]

    async def _has_changed(self, table: str) -> bool:
        """Whether a table has other columns than rows were fitted to; they are looked up again."""
        before = self._columns.pop(table, None)
        try:
            return await self._known_columns(table) != before
        except SyncError:
            # Nobody knows: what is tried again finds out.
            return True

    async def _prepare(
        self, step: SendRows, batch: list[MappedRow]
    ) -> tuple[DeliveryMethod, list[MappedRow], tuple[OutgoingRow, ...]] | None:
        """Make the table fit for the rows, and the batch small enough for the method.

        Returns:
            None: nothing was sent: the process is to end, or rows wait for a load job.
        """
        table, method = step.table_id, step.method
        rows = [(mapped.row_id, mapped.cells) for mapped in batch]
        columns = await self._known_columns(table)
        plan = self.changes.plan(table, rows, columns)
        if plan.changes_table and self.changes.shared and table in self._columns:
            # Another machine may have made it fit meanwhile.
            del self._columns[table]
            columns = await self._known_columns(table)
            plan = self.changes.plan(table, rows, columns)
        if table in self._unsettled:
            # The planner did not know yet; it does from now on.
            self._unsettled.discard(table)
            method = DeliveryMethod.LOAD
        if plan.changes_table:
            if not self._may_update(step):
                fit = self._those_that_fit(table, batch, columns)
                others = [mapped.row for mapped in batch if mapped not in fit]
                await self._context.apply(reschedule_rows, self._context.now(), others, by_load=True)
                return await self._prepare(replace(step, method=method), fit) if fit else None
            made = await self._make_fit(table, rows, columns, plan)
            if made is None:
                return None
            method, plan = DeliveryMethod.LOAD, made
        count = fitting(
            plan.rows, STREAM_BYTES_LIMIT if method is DeliveryMethod.STREAM else LOAD_BYTES_LIMIT
        )
        if count == 0:
            method, count = DeliveryMethod.LOAD, 1
        if method is DeliveryMethod.LOAD:
            if not await self.changes.turn(table):
                return None
            # The batch may have been planned for a streaming insert.
            count = min(count, self._context.settings.load_rows_limit)
        return method, batch[:count], plan.rows[:count]

    def _may_update(self, step: SendRows) -> bool:
        """Whether the day's load jobs are not used up, and it is this machine's turn; else rows wait."""
        return step.may_load and self.changes.turns.is_taken(step.table_id)

    async def _make_fit(
        self, table: str, rows: Batch, columns: tuple[Column, ...] | None, plan: BatchPlan
    ) -> BatchPlan | None:
        """Make the table fit for planned rows; what to send then, or None: the process is to end."""
        context = self._context
        gate = context.gate(changes_of(table))
        if gate.last_error is not None and not gate.is_open(context.now()):
            raise gate.last_error
        for _ in range(CHANGES_LIMIT):
            self._columns.pop(table, None)
            if not await self.changes.make_fit(table, rows, columns):
                return None
            context.succeeded(changes_of(table))
            # What another writer changes meanwhile counts too: it may have made a column of another type.
            columns = await self._known_columns(table)
            plan = self.changes.plan(table, rows, columns)
            if columns is None or not plan.changes_table:
                break
        return plan

    async def _deliver(
        self,
        table: str,
        delivery: int,
        rows: Sequence[PendingRow],
        outgoing: Sequence[OutgoingRow],
        identity: str | None,
        *,
        begun_before: bool = False,
    ) -> SyncError | None:
        """Send rows, and write down what became of them. `begun_before`: their load job may have run."""
        context = self._context
        refusals: tuple[RowRefusal, ...] = ()
        stopping: SyncError | None = None
        try:
            if identity is None:
                refusals = await context.sink.stream(table, outgoing)
            else:
                with self.changes.updating(table):
                    await context.sink.load(table, outgoing, job_id=identity)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this table
            error = context.reports.as_error("deliver to table", table, caught, failure=Failure.IN_DOUBT)
            unknown = error.failure is Failure.IN_DOUBT or (begun_before and not _ends_a_job(error))
            if unknown and identity is not None:
                # The rows stay with their delivery: the job is found again by its id.
                return await self._leave(table, rows, error)
            self._not_streamed.pop(table, None)
            if identity is None and error.failure is Failure.PERMISSION:
                # Projects without billing may not stream and may load: the rows' load job tells.
                self._not_streamed[table] = error
                await context.apply(reschedule_rows, context.now(), rows, by_load=True)
            else:
                # What is refused for being too much is an update of the table: what needs none goes on.
                beside = identity is not None and error.failure is Failure.QUOTA
                stopping = await self._not_sent(table, rows, error, beside=beside)
        else:
            context.succeeded(table)
            if identity is not None:
                context.succeeded(changes_of(table))
            denied = self._not_streamed.pop(table, None)
            if identity is None:
                context.streamed()
            elif denied is not None:
                context.streaming_denied(denied)
            self._refused_alone.pop(table, None)
            if not refusals:
                method = DeliveryMethod.STREAM if identity is None else DeliveryMethod.LOAD
                await context.apply(_end_well, context.now(), delivery, rows, method)
                return None
            await self._sort_out(table, rows, refusals)
        await context.apply(end_delivery, context.now(), delivery)
        return stopping

    async def _sort_out(self, table: str, rows: Sequence[PendingRow], refusals: Sequence[RowRefusal]) -> None:
        context, now = self._context, self._context.now()
        refused = {refusal.index: refusal for refusal in refusals}
        # Without skipInvalidRows one bad row stops its request; what is not named was taken.
        taken = [row for index, row in enumerate(rows) if index not in refused]
        stopped = [rows[index] for index, refusal in refused.items() if refusal.stopped]
        unknown = [rows[index] for index, refusal in refused.items() if refusal.unknown_column]
        await context.apply(_accept, now, taken, DeliveryMethod.STREAM)
        if stopped:
            await context.apply(reschedule_rows, now, stopped)
        if unknown:
            # The column was added a moment ago, or taken away: look again, and go by load job.
            self._columns.pop(table, None)
            await context.apply(table_changed, now, table)
            await context.apply(reschedule_rows, now, unknown, by_load=True)
        bad = {
            index: refusal
            for index, refusal in refused.items()
            if not refusal.stopped and not refusal.unknown_column
        }
        if bad and await self._has_changed(table):
            # Others made it anew, or changed a type: the rows are fitted again.
            await context.apply(reschedule_rows, now, [rows[index] for index in bad], by_load=True)
            bad = {}
        for index, refusal in bad.items():
            problem = Problem(
                f"BigQuery refuses the row in table {table}: {refusal.cause}",
                "correct the table's column or the record, then run `pixaris-sync retry`",
            )
            await context.apply(quarantine_rows, now, [rows[index]], problem)

    async def _not_sent(
        self,
        table: str,
        rows: Sequence[PendingRow],
        error: SyncError,
        *,
        sent: bool = True,
        beside: bool = False,
    ) -> SyncError | None:
        """Nothing was taken, or (if rows were `sent`) it is not known: decide by the kind of failure.

        `beside`: other rows of the table go on, so it is not the table that fails, but its changes.
        """
        context, now = self._context, self._context.now()
        attempts = max(row.attempts for row in rows)
        problem = problem_of(error)
        if error.stops_everything:
            await context.apply(reschedule_rows, now, rows)
            return error
        if isinstance(error, TableNotFoundError | UnknownColumnError):
            self._columns.pop(table, None)
            await context.apply(table_changed, now, table)
            next_at = context.next_attempt_at(attempts, error)
            await context.apply(reschedule_rows, now, rows, problem, next_attempt_at=next_at, by_load=True)
            return None
        if sent and error.failure is Failure.IN_DOUBT:
            context.failed(table, error)
            next_at = now + DOUBT_LOOK_SECONDS
            await context.apply(mark_in_doubt, now, rows, problem, next_attempt_at=next_at)
        elif error.failure.retryable:
            opens_at = context.failed(changes_of(table) if beside else table, error)
            next_at = max(opens_at, context.next_attempt_at(attempts, error))
            await context.apply(reschedule_rows, now, rows, problem, next_attempt_at=next_at)
        elif sent and error.failure is Failure.PERMANENT and await self._has_changed(table):
            await context.apply(reschedule_rows, now, rows, problem, by_load=True)
        elif len(rows) > 1 and error.failure is Failure.PERMANENT and not self._refuses_all(table, error):
            # All or none: halve until the bad row stands alone.
            await context.apply(reschedule_rows, now, rows, problem, batch_limit=len(rows) // 2)
        else:
            if len(rows) == 1:
                cause, count = self._refused_alone.get(table, ("", 0))
                self._refused_alone[table] = (error.cause, count + 1 if cause == error.cause else 1)
            await context.apply(quarantine_rows, now, rows, problem)
        return None

    def _refuses_all(self, table: str, error: SyncError) -> bool:
        """Whether the table is at fault: so many rows in succession were refused alone, for one cause."""
        cause, count = self._refused_alone.get(table, ("", 0))
        return count >= REFUSED_ALONE_LIMIT and cause == error.cause

    async def _leave(self, table: str, rows: Sequence[PendingRow], error: SyncError) -> SyncError | None:
        """A question to the service failed; the rows stay as they are, with the cause."""
        await self._context.apply(note_trouble, self._context.now(), rows, problem_of(error))
        if error.stops_everything:
            return error
        self._context.failed(table, error)
        return None


def _accept(db: Connection, now: float, rows: Sequence[PendingRow], method: DeliveryMethod) -> None:
    """Rows were taken: they are first looked for when they usually show."""
    usually = STREAMED_VISIBLE_SECONDS if method is DeliveryMethod.STREAM else 0.0
    accept_rows(db, now, rows, next_attempt_at=now + usually)


def _end_well(
    db: Connection, now: float, delivery: int, rows: Sequence[PendingRow], method: DeliveryMethod
) -> None:
    """All rows of a delivery were taken."""
    _accept(db, now, rows, method)
    end_delivery(db, now, delivery)


def _ends_a_job(error: SyncError) -> bool:
    """Whether an error tells that a load job of this id cannot have loaded anything, nor ever will."""
    if isinstance(error, JobFailedError | TableNotFoundError | UnknownColumnError):
        return True
    return error.failure is Failure.PERMANENT and not error.stops_everything
