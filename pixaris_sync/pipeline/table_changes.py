"""Makes tables fit for rows: they are created and altered here, and no more often than BigQuery allows."""

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.pending_rows import records_of, waiting_records, was_sent_to
from pixaris_sync.ledger.rows import table_changed
from pixaris_sync.limits.bandwidth import UpdateRate
from pixaris_sync.limits.fleet import Turns
from pixaris_sync.model import Cell, Column, DeliveryMethod
from pixaris_sync.pipeline.context import CHANGING, Context
from pixaris_sync.pipeline.outgoing_rows import map_row
from pixaris_sync.rules.planner import RowLimits, TableBacklog, delivery_method
from pixaris_sync.rules.schema import BatchPlan, KeySurvey, plan_batch
from pixaris_sync.text import counted

log = logging.getLogger(__name__)

#: Records that are read from the ledger at once: no transaction of it may take long.
SURVEY_PIECE_RECORDS = 200

#: Rows as `plan_batch` takes them: an id and cells each.
Batch = Sequence[tuple[str, Sequence[Cell]]]


def changes_of(table: str) -> str:
    """The destination whose gate is about changes of a table: rows that need none do not wait for it."""
    return f"{CHANGING}{table}"


async def survey_waiting(context: Context, table: str) -> KeySurvey:
    """What is known of all records that wait for a table: by it the types of its new columns are chosen.

    It takes some 50 microseconds a record, and the memory of a few hundred.
    """
    survey = KeySurvey()
    ids = await context.apply(waiting_records, table)
    for start in range(0, len(ids), SURVEY_PIECE_RECORDS):
        await context.throttle()
        for row in await context.apply(records_of, ids[start : start + SURVEY_PIECE_RECORDS]):
            try:
                survey.see(map_row(row, context.destination).cells)
            except SyncError:
                # It is told when it is its turn: a record that cannot be carried needs no column.
                continue
    return survey


class TableChanges:
    """Changes tables, one step of a table at a time, and keeps all updates of each to `UpdateRate`.

    Attributes:
        turns: when this machine of many may update its tables.
        shared: other machines change the tables, too.
    """

    def __init__(self, context: Context) -> None:
        fleet = context.settings.fleet
        self._context = context
        self.shared = fleet.size > 1
        self.turns = Turns(fleet, context.jitter)
        self._rates: defaultdict[str, UpdateRate] = defaultdict(lambda: UpdateRate(fleet.updates_limit))
        #: Tables that were updated in the turn that is taken.
        self._updated: set[str] = set()
        #: By table, columns of which BigQuery has refused for good to make them wider.
        self._narrow: defaultdict[str, set[str]] = defaultdict(set)

    def plan(
        self, table: str, batch: Batch, columns: Sequence[Column] | None, waiting: KeySurvey | None = None
    ) -> BatchPlan:
        """`plan_batch`, by what is known of the table."""
        return plan_batch(batch, columns, waiting, narrow=self._narrow[table])

    def loads_from(self, backlogs: Iterable[TableBacklog], now: float, limits: RowLimits) -> dict[str, float]:
        """Before when no load job may begin, in seconds since the epoch, by table that has to wait for it."""
        waits = {
            backlog.table_id: self._wait_seconds(backlog.table_id, now)
            for backlog in backlogs
            if backlog.ready and delivery_method(backlog, now=now, limits=limits) is DeliveryMethod.LOAD
        }
        return {table: now + seconds for table, seconds in waits.items() if seconds > 0}

    def _wait_seconds(self, table: str, now: float) -> float:
        elapsed, gate = self._context.clock.elapsed(), self._context.gate(changes_of(table))
        refused = gate.last_error is not None and gate.last_error.failure is Failure.QUOTA
        return max(self.turns.next_at(table, elapsed) - elapsed, gate.opens_at - now if refused else 0.0)

    @contextmanager
    def turn_at(self, table: str) -> Iterator[bool]:
        """Hold this machine's turn at a table meanwhile; whether it is its turn."""
        elapsed = self._context.clock.elapsed
        taken = self.turns.take(table, elapsed())
        self._updated.discard(table)
        try:
            yield taken
        finally:
            self.turns.end(table, elapsed(), used=table in self._updated)

    async def turn(self, table: str) -> bool:
        """Wait until a table may be updated once more; False: the process is to end, so leave it."""
        context, rate = self._context, self._rates[table]
        while delay := rate.delay_seconds(context.clock.elapsed()):
            if context.halted:
                return False
            await context.clock.sleep(delay)
        return True

    @contextmanager
    def updating(self, table: str) -> Iterator[None]:
        """Count what is done meanwhile as one update of a table."""
        try:
            yield
        finally:
            self._rates[table].note(self._context.clock.elapsed())
            self._updated.add(table)

    @asynccontextmanager
    async def _changing(self, table: str) -> AsyncIterator[None]:
        """Count what is done meanwhile as one update of a table, and let the ledger know of it."""
        context = self._context
        # Noted first: if we die between the change and the note, rows would be streamed too early.
        before = await context.apply(table_changed, context.now(), table)
        try:
            with self.updating(table):
                yield
        except SyncError as error:
            if error.failure in (Failure.QUOTA, Failure.PERMISSION):
                # Nothing was done: streaming knows the table as well as before.
                await context.apply(table_changed, before, table)
            raise

    async def make_fit(self, table: str, batch: Batch, columns: Sequence[Column] | None) -> bool:
        """Create or alter a table so that it can take the rows of a batch.

        All columns that waiting records need are added with those of the batch, in commit order, so that a
        table is changed once and looks as if the records had been sent one after another.

        Args:
            table: the table's id.
            batch: the rows that are to be sent.
            columns: the table's columns as they are; None: it is not there.

        Returns:
            Whether it is done; False: the process is to end.

        Raises:
            SyncError: the service refuses it.
        """
        context = self._context
        plan = self.plan(table, batch, columns)
        if columns is None or plan.add:
            plan = self.plan(table, batch, columns, await survey_waiting(context, table))
        is_new = columns is None
        if is_new and await context.apply(was_sent_to, table):
            hint = "`pixaris-sync sync --repair` restores the rows that it had"
            log.warning("table %s was removed, and is made anew: %s", table, hint)
        try:
            return await self._change(table, plan.add, plan.widen, is_new=is_new)
        except SyncError as error:
            if error.failure is not Failure.PERMANENT:
                raise
            if self._narrow[table].intersection(plan.widen):
                log.warning("%s; what does not fit goes into columns beside it", error)
                found = await context.sink.describe(table)
                return await self.make_fit(table, batch, found and found.columns)
            if plan.needed == plan.add:
                raise
            # What others of the waiting records need may be refused: that must not hold up these.
            log.warning("%s; only the columns of the next %s are tried", error, counted(len(batch), "row"))
            return await self._change(table, plan.needed, plan.widen, is_new=is_new)

    async def _change(self, table: str, add: Sequence[Column], widen: Sequence[str], *, is_new: bool) -> bool:
        sink = self._context.sink
        if is_new or add:
            if not await self.turn(table):
                return False
            async with self._changing(table):
                if is_new:
                    await sink.create_table(table, add)
                    log.info("table %s was created", table)
                else:
                    await sink.add_columns(table, add)
                    log.info("table %s has new columns: %s", table, ", ".join(column.name for column in add))
        if widen:
            if not await self.turn(table):
                return False
            try:
                async with self._changing(table):
                    await sink.widen_columns(table, widen)
                log.info("table %s has wider columns: %s", table, ", ".join(widen))
            except SyncError as error:
                if error.failure is Failure.PERMANENT:
                    # From now on such values go beside it.
                    self._narrow[table].update(widen)
                raise
        return True
