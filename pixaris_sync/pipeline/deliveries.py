"""Carries one table's rows: plan them, write the intent down, send, and read back before they count.

Every call ends as done, not done or in doubt. Rows in doubt are looked for before they are sent again, load
jobs are found again by their id, and a row that was accepted but stays invisible is delivered again by a
load job.
"""

import logging
from collections.abc import Sequence
from sqlite3 import Connection

from pixaris_sync.errors import (
    Failure,
    JobFailedError,
    SyncError,
    TableNotFoundError,
    UnknownColumnError,
)
from pixaris_sync.ledger.rows import (
    PendingRow,
    accept_rows,
    confirm_rows,
    delivered_by,
    end_delivery,
    mark_in_doubt,
    note_trouble,
    quarantine_rows,
    read_back_later,
    ready_rows,
    reschedule_rows,
    rows_and_equals,
    start_delivery,
    table_changed,
)
from pixaris_sync.model import Column, DeliveryMethod, OutgoingRow, Problem, RowRefusal, RowState
from pixaris_sync.pipeline.context import Context, problem_of
from pixaris_sync.pipeline.outgoing_rows import MappedRow, fitting, job_id, map_row, sort_by_presence
from pixaris_sync.pipeline.table_changes import TableChanges
from pixaris_sync.rules.planner import FinishLoad, ReadBack, SendRows, Step
from pixaris_sync.rules.schema import plan_batch

log = logging.getLogger(__name__)

#: insertAll takes 10 MB; JSON escapes and the envelope want room.
STREAM_BYTES_LIMIT = 8_000_000
#: A load job may be much larger; this bounds the memory that one takes.
LOAD_BYTES_LIMIT = 32_000_000
#: A row is first looked for at once, then after growing parts of the time that it has been waited for.
READ_BACK_SECONDS_MIN = 0.05
READ_BACK_SECONDS_MAX = 5.0
#: After so many rows of a table that were refused one by one, the next batch is not taken apart any more.
REFUSED_ALONE_LIMIT = 20


class Deliveries:
    """Performs the planner's steps; remembers tables' columns so that the steady state asks for nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changes = TableChanges(context)
        self._columns: dict[str, tuple[Column, ...]] = {}
        #: By table, how many rows in succession were refused alone, and the cause of them all.
        self._refused_alone: dict[str, tuple[str, int]] = {}

    async def perform(self, step: Step) -> SyncError | None:
        """Perform one step; what became of its rows is in the ledger when this returns.

        Returns:
            An error that stops everything (credentials, dataset).

        Raises:
            LedgerError: the ledger cannot be written.
        """
        match step:
            case SendRows():
                return await self._send(step)
            case FinishLoad():
                return await self._finish(step)
            case ReadBack():
                return await self._read_back(step)

    async def _send(self, step: SendRows) -> SyncError | None:
        context, table = self._context, step.table_id
        # What becomes ready meanwhile goes by the same job.
        if step.method is DeliveryMethod.LOAD and not await self._changes.turn(table):
            return None
        rows = await context.apply(ready_rows, context.now(), context.mode.selection, table, step.count)
        batch = await self._mapped(rows)
        if not batch:
            return None
        try:
            prepared = await self._prepare(table, batch, step.method)
        except SyncError as error:
            # Whatever came of a question or a change of the table, no row was sent.
            return await self._not_sent(table, [mapped.row for mapped in batch], error, sent=False)
        if prepared is None:
            return None
        method, batch, outgoing = prepared
        if method is DeliveryMethod.LOAD and not step.may_load:
            # The day's load jobs are used up: they wait for the next ones.
            await context.apply(reschedule_rows, context.now(), [row.row for row in batch], by_load=True)
            return None
        sends = max(mapped.row.sends for mapped in batch)
        identity = None
        if method is DeliveryMethod.LOAD:
            identity = job_id(context.destination, table, [row.row_id for row in outgoing], sends)
        sent = [mapped.row for mapped in batch]
        delivery = await context.apply(start_delivery, context.now(), table, sent, method, identity)
        return await self._deliver(table, delivery, sent, outgoing, identity)

    async def _finish(self, step: FinishLoad) -> SyncError | None:
        context, table = self._context, step.table_id
        _, identity, rows = await context.apply(delivered_by, step.delivery_id)
        batch = await self._mapped(rows)
        if not batch:
            return None
        sent = [mapped.row for mapped in batch]
        try:
            columns = await self._known_columns(table) or ()
            # The job is found again by its id; these rows count only where it never began.
            plan = plan_batch([(mapped.row_id, mapped.cells) for mapped in batch], columns)
        except SyncError as error:
            return await self._leave(table, sent, error)
        if not await self._changes.turn(table):
            return None
        return await self._deliver(table, step.delivery_id, sent, plan.rows, identity, begun_before=True)

    async def _mapped(self, rows: Sequence[PendingRow]) -> list[MappedRow]:
        context = self._context
        batch = []
        for row in rows:
            try:
                batch.append(map_row(row, context.destination))
            except SyncError as error:
                log.warning("%s", error)
                await context.apply(quarantine_rows, context.now(), [row], problem_of(error))
        return batch

    async def _known_columns(self, table: str) -> tuple[Column, ...] | None:
        if table not in self._columns:
            columns = await self._context.sink.columns(table)
            if columns is None:
                return None
            self._columns[table] = columns
        return self._columns[table]

    async def _prepare(
        self, table: str, batch: list[MappedRow], method: DeliveryMethod
    ) -> tuple[DeliveryMethod, list[MappedRow], tuple[OutgoingRow, ...]] | None:
        """Make the table fit for the rows, and the batch small enough for the method.

        Returns:
            None: the process is to end, and nothing was sent.
        """
        rows = [(mapped.row_id, mapped.cells) for mapped in batch]
        columns = await self._known_columns(table)
        plan = plan_batch(rows, columns)
        if columns is None or plan.add or plan.widen:
            self._columns.pop(table, None)
            method = DeliveryMethod.LOAD
            if not await self._changes.make_fit(table, rows, columns):
                return None
            # What another writer changed meanwhile counts too.
            plan = plan_batch(rows, await self._known_columns(table))
        count = fitting(
            plan.rows, STREAM_BYTES_LIMIT if method is DeliveryMethod.STREAM else LOAD_BYTES_LIMIT
        )
        if count == 0:
            method, count = DeliveryMethod.LOAD, 1
        if method is DeliveryMethod.LOAD:
            if not await self._changes.turn(table):
                return None
            # The batch may have been planned for a streaming insert.
            count = min(count, self._context.settings.load_rows_limit)
        return method, batch[:count], plan.rows[:count]

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
                with self._changes.updating(table):
                    await context.sink.load(table, outgoing, job_id=identity)
        except SyncError as error:
            unknown = error.failure is Failure.IN_DOUBT or (begun_before and not _ends_a_job(error))
            if unknown and identity is not None:
                # The rows stay with their delivery: the job is found again by its id.
                return await self._leave(table, rows, error)
            stopping = await self._not_sent(table, rows, error)
        else:
            context.succeeded(table)
            self._refused_alone.pop(table, None)
            if not refusals:
                await context.apply(_end_well, context.now(), delivery, rows)
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
        await context.apply(accept_rows, now, taken)
        if stopped:
            await context.apply(reschedule_rows, now, stopped)
        if unknown:
            # The column was added a moment ago, or taken away: look again, and go by load job.
            self._columns.pop(table, None)
            await context.apply(table_changed, now, table)
            await context.apply(reschedule_rows, now, unknown, by_load=True)
        for index, refusal in refused.items():
            if not refusal.stopped and not refusal.unknown_column:
                problem = Problem(
                    f"BigQuery refuses the row in table {table}: {refusal.cause}",
                    "correct the table's column or the record, then run `pixaris-sync retry`",
                )
                log.warning("%s: %s", rows[index].run, problem.cause)
                await context.apply(quarantine_rows, now, [rows[index]], problem)

    async def _not_sent(
        self, table: str, rows: Sequence[PendingRow], error: SyncError, *, sent: bool = True
    ) -> SyncError | None:
        """Nothing was taken, or (if rows were `sent`) it is not known: decide by the kind of failure."""
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
            next_at = now + READ_BACK_SECONDS_MAX
            await context.apply(mark_in_doubt, now, rows, problem, next_attempt_at=next_at)
        elif error.failure.retryable:
            opens_at = context.failed(table, error)
            next_at = max(opens_at, context.next_attempt_at(attempts, error))
            await context.apply(reschedule_rows, now, rows, problem, next_attempt_at=next_at)
        elif len(rows) > 1 and error.failure is Failure.PERMANENT and not self._refuses_all(table, error):
            # All or none: halve until the bad row stands alone.
            await context.apply(reschedule_rows, now, rows, problem, batch_limit=len(rows) // 2)
        else:
            log.warning("%s", error)
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

    async def _read_back(self, step: ReadBack) -> SyncError | None:
        context, table = self._context, step.table_id
        rows, equals = await context.apply(
            rows_and_equals, context.now(), context.mode.selection, table, step.count
        )
        batch = await self._mapped(rows)
        if not batch:
            return None
        try:
            read = await context.sink.read_rows(table, sorted({mapped.row.run.run for mapped in batch}))
        except SyncError as error:
            if error.failure.retryable or error.stops_everything:
                return await self._leave(table, [mapped.row for mapped in batch], error)
            log.warning("%s", error)
            await context.apply(quarantine_rows, context.now(), rows, problem_of(error))
            return None
        context.succeeded(table)
        found, missing = sort_by_presence(batch, read, equals, context.destination)
        context.tally.rows += len(found)
        if found:
            await context.apply(confirm_rows, context.now(), found)
        await self._still_missing(table, missing)
        return None

    async def _still_missing(self, table: str, rows: Sequence[PendingRow]) -> None:
        """Look again for these rows, or (their time is up) deliver them again by a load job."""
        context, now, settings = self._context, self._context.now(), self._context.settings
        patience = {
            RowState.ACCEPTED: settings.visibility_timeout_seconds,
            RowState.IN_DOUBT: settings.doubt_settle_seconds,
        }
        waiting = [row for row in rows if now - row.since < patience[row.state]]
        if waiting:
            waited = now - max(row.since for row in waiting)
            pause = min(max(waited / 2, READ_BACK_SECONDS_MIN), READ_BACK_SECONDS_MAX)
            await context.apply(read_back_later, waiting, next_attempt_at=now + pause)
        overdue = [row for row in rows if now - row.since >= patience[row.state]]
        lost = [row for row in overdue if row.state is RowState.ACCEPTED]
        if lost:
            problem = Problem(
                f"table {table} accepted the row and has not shown it for "
                f"{settings.visibility_timeout_seconds:g} s",
                "nothing to do: it is delivered again by a load job",
            )
            log.warning("%s and %d more: %s", lost[0].run, len(lost) - 1, problem.cause)
            await context.apply(reschedule_rows, now, lost, problem, by_load=True)
        absent = [row for row in overdue if row.state is RowState.IN_DOUBT]
        if absent:
            await context.apply(reschedule_rows, now, absent, by_load=True)


def _end_well(db: Connection, now: float, delivery: int, rows: Sequence[PendingRow]) -> None:
    """All rows of a delivery were taken."""
    accept_rows(db, now, rows)
    end_delivery(db, now, delivery)


def _ends_a_job(error: SyncError) -> bool:
    """Whether an error tells that a load job of this id cannot have loaded anything, nor ever will."""
    if isinstance(error, JobFailedError | TableNotFoundError | UnknownColumnError):
        return True
    return error.failure is Failure.PERMANENT and not error.stops_everything
