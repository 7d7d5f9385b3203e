"""Asks a table which rows it holds: before anything of a run is sent, and after its rows were.

A process knows of rows that it did not see arrive just now neither whether an earlier one sent them, nor
another machine: so it asks first, and waits for load jobs of ours that are still under way. What it sent
counts only when it was read back. A question is narrow, the names of up to 500 runs; cells are read where
names do not tell which of several records a row is (`rules.readback`).

A delivery that ended well is never repeated, however long the table does not show its rows: somebody hides or
removes them. Only where the table was made anew meanwhile can they not be there.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.pending_rows import (
    PendingRow,
    RowsOfRun,
    read_wholly,
    rows_of_runs,
    rows_to_ask_for,
    rows_to_read_back,
)
from pixaris_sync.ledger.rows import (
    confirm_rows,
    note_that_none_can_be_asked,
    note_trouble,
    permit_rows,
    quarantine_rows,
    read_back_later,
    reschedule_rows,
)
from pixaris_sync.model import JsonValue, Problem, RowState, TableMetadata
from pixaris_sync.pipeline.context import Context, problem_of
from pixaris_sync.pipeline.outgoing_rows import map_row
from pixaris_sync.pipeline.pruned import take_in_pruned
from pixaris_sync.rules.contract import RUN_NAME_KEY
from pixaris_sync.rules.planner import AskFirst, ReadBack
from pixaris_sync.rules.readback import Wanted, cells_decide, standing
from pixaris_sync.text import counted

log = logging.getLogger(__name__)

#: How long streamed rows usually take until a query sees them; those of a load job take no time.
STREAMED_VISIBLE_SECONDS: Final = 1.0
#: When a row that was accepted is looked for the second time.
SECOND_LOOK_SECONDS: Final = 15.0
#: A row that a table does not show is looked for ever more seldom, up to this.
LOOK_SECONDS_MAX: Final = 3600.0
#: Pauses between two looks at load jobs of earlier processes: the first, and the longest.
LOAD_POLL_SECONDS_FIRST: Final = 0.5
LOAD_POLL_SECONDS_MAX: Final = 10.0


class Lookups:
    """Performs the planner's questions."""

    def __init__(self, context: Context) -> None:
        self._context = context
        #: Tables that are there, and to which no load job of an earlier process is under way any more.
        self._settled: set[str] = set()
        #: Tables that hide nothing from this account.
        self._unfiltered: set[str] = set()
        #: Tables whose load jobs this account could not list when it last asked.
        self._unlisted: set[str] = set()

    async def ask_first(self, step: AskFirst) -> SyncError | None:
        """Ask for rows that an earlier process or another machine may have sent.

        Returns:
            An error that stops everything.
        """
        context, table = self._context, step.table_id
        rows = await context.apply(rows_to_ask_for, context.mode.selection, table, step.count)
        found: Sequence[PendingRow] = ()
        try:
            if table in self._settled or await context.sink.describe(table) is not None:
                if not await self._wait_for_loads(table):
                    return None
                found = await self._standing(table, rows)
                await self._confirm(table, found)
                if _without(rows, found):
                    await self._still_unlisted(table)
                    await self._trust_absence(table)
        except SyncError as error:
            if error.failure.retryable or error.stops_everything:
                await context.apply(note_that_none_can_be_asked, context.now(), table, problem_of(error))
            return await self._failed(table, _without(rows, found), error)
        context.succeeded(table)
        absent = _without(rows, found)
        doubt_until = context.now() + context.settings.doubt_settle_seconds
        await context.apply(permit_rows, context.now(), absent, doubt_until=doubt_until)
        return None

    async def read_back(self, step: ReadBack) -> SyncError | None:
        """Look for rows that were sent, or may have been.

        Returns:
            An error that stops everything.
        """
        context, table = self._context, step.table_id
        rows: Sequence[PendingRow] = await context.apply(
            rows_to_read_back, context.now(), context.mode.selection, table, step.count
        )
        found: Sequence[PendingRow] = ()
        try:
            rows = await self._without_those_to_come(table, rows)
            found = await self._standing(table, rows)
            await self._confirm(table, found)
            if _without(rows, found):
                await self._still_unlisted(table)
            await self._still_missing(table, _without(rows, found))
        except SyncError as error:
            return await self._failed(table, _without(rows, found), error)
        context.succeeded(table)
        return None

    async def still_to_come(self, table: str, rows: Sequence[PendingRow]) -> list[PendingRow] | None:
        """Which rows of an earlier process's load job the table does not hold yet; the others are synced.

        The ledger may be an older one: the job may have failed since, and its rows have come by another.

        Returns:
            These rows; None where the process is to end.

        Raises:
            SyncError: the table cannot be asked now.
        """
        if not await self._wait_for_loads(table):
            return None
        found = await self._standing(table, rows, under_way=True)
        await self._confirm(table, found)
        if _without(rows, found):
            await self._still_unlisted(table)
        return _without(rows, found)

    async def _without_those_to_come(self, table: str, rows: Sequence[PendingRow]) -> Sequence[PendingRow]:
        """The rows of which this look decides: none in doubt while a load job may still bring it.

        A request for one may have arrived after the first look, and jobs queue. They are listed before the
        table is asked: one that ends in between has brought its rows by then.
        """
        context, now = self._context, self._context.now()
        decided_at = context.settings.doubt_settle_seconds
        given_up_at = decided_at + context.settings.job_timeout_seconds
        last = [
            row
            for row in rows
            if row.state is RowState.IN_DOUBT
            and row.looked_at is not None
            and decided_at <= now - row.looked_at < given_up_at
        ]
        if not last or not await self._running_loads(table):
            return rows
        await context.apply(read_back_later, now, last, next_attempt_at=now + LOAD_POLL_SECONDS_MAX)
        return _without(rows, last)

    async def _wait_for_loads(self, table: str) -> bool:
        """Wait until load jobs of earlier processes have ended: their rows may still come.

        Returns:
            Whether they have; False where the process is to end.

        Raises:
            SyncError: they have not ended in time, or cannot be listed now.
        """
        context, pause = self._context, LOAD_POLL_SECONDS_FIRST
        if table in self._settled:
            return True
        deadline = context.clock.elapsed() + context.settings.job_timeout_seconds
        waiting = await self._running_loads(table)
        if waiting:
            log.info("table %s: waiting for load jobs of an earlier process: %s", table, ", ".join(waiting))
        while waiting:
            if context.halted:
                return False
            if context.clock.elapsed() >= deadline:
                cause = f"load job {min(waiting)} of an earlier process has not ended"
                raise SyncError("ask table", table, cause, failure=Failure.TRANSIENT)
            await context.clock.sleep(pause)
            pause = min(2 * pause, LOAD_POLL_SECONDS_MAX)
            waiting &= await self._running_loads(table)
        if table not in self._unlisted:
            self._settled.add(table)
        return True

    async def _trust_absence(self, table: str) -> None:
        """Make sure that a row which does not show is not there.

        Raises:
            SyncError: rows are hidden from this account, so that nobody can tell; or it cannot be asked.
        """
        if table in self._unfiltered:
            return
        if await self._context.sink.is_filtered(table):
            raise SyncError(
                "ask table",
                table,
                "a row access policy or a data mask hides rows from this account, so that it does not show "
                "which rows were sent before",
                hint="let this account see all rows; until then nothing is sent that it did not see arrive",
                failure=Failure.TRANSIENT,
            )
        self._unfiltered.add(table)

    async def _running_loads(self, table: str) -> frozenset[str]:
        try:
            running = await self._context.sink.running_loads(table)
        except SyncError as error:
            if error.failure is not Failure.PERMISSION:
                raise
            if table not in self._unlisted:
                log.info("load jobs of table %s cannot be listed (%s)", table, error.cause)
                self._unlisted.add(table)
            return frozenset()
        self._unlisted.discard(table)
        return running

    async def _still_unlisted(self, table: str) -> None:
        """Make sure that an account which could not list load jobs never can: a denial may have passed since.

        Raises:
            SyncError: it can now, so that one may be under way that was not told of.
        """
        if table not in self._unlisted:
            return
        await self._running_loads(table)
        if table not in self._unlisted:
            cause = "its load jobs could not be listed a moment ago"
            raise SyncError("ask table", table, cause, failure=Failure.TRANSIENT)

    async def _standing(
        self, table: str, rows: Sequence[PendingRow], *, under_way: bool = False
    ) -> list[PendingRow]:
        """Which rows of the runs of these the table shows; others of the same runs among them.

        One that a load job is bringing is told of by the end of that job, unless `under_way`.
        """
        context = self._context
        names = sorted({row.run.run for row in rows})
        if not names:
            return []
        known = await context.apply(rows_of_runs, table, names)
        counts = await context.sink.count_rows(table, names)
        unclear = [name for name in names if self._cells_decide(table, known[name], counts.get(name, 0))]
        read: defaultdict[object, list[Mapping[str, JsonValue]]] = defaultdict(list)
        for row in await context.sink.read_rows(table, unclear) if unclear else ():
            read[row.get(RUN_NAME_KEY)].append(row)
        all_known = await context.apply(read_wholly, context.shared_tables.get(table, ()))
        found: list[PendingRow] = []
        for name in names:
            shown = read[name] if name in unclear else [{}] * counts.get(name, 0)
            wanted = {row.id: self._wanted(row, cells=name in unclear) for row in known[name].wanted}
            ids = standing(wanted, shown, known[name].taken, all_known=all_known)
            there = [row for row in known[name].wanted if row.id in ids]
            found += [row for row in there if under_way or row.state is not RowState.SENDING]
        return found

    def _cells_decide(self, table: str, known: RowsOfRun, count: int) -> bool:
        shared = table in self._context.shared_tables
        return cells_decide(len(known.wanted), count, sum(known.taken.values()), shared=shared)

    def _wanted(self, row: PendingRow, *, cells: bool) -> Wanted:
        if not cells or not row.payload:
            return Wanted(row.run, ())
        try:
            return Wanted(row.run, map_row(row, self._context.destination).cells)
        except SyncError:
            # It cannot be sent as it is, and says nothing that could be compared.
            return Wanted(row.run, ())

    async def _confirm(self, table: str, found: Sequence[PendingRow]) -> None:
        context = self._context
        stood = sum(row.state is RowState.UNASKED for row in found)
        if stood:
            log.debug("table %s holds %s, not known here: synced", table, counted(stood, "row"))
        context.tally.rows += len(found)
        for row in found:
            if row.state is not RowState.UNASKED:
                context.tally.on_row(max(0.0, context.now() - row.found_at))
        await take_in_pruned(context, found)
        if found:
            by_name = table not in context.shared_tables
            await context.apply(confirm_rows, context.now(), found, by_name=by_name)

    async def _failed(self, table: str, rows: Sequence[PendingRow], error: SyncError) -> SyncError | None:
        """A question was not answered; the rows stay as they are, with the cause, or are quarantined."""
        context = self._context
        if error.failure.retryable or error.stops_everything:
            await context.apply(note_trouble, context.now(), rows, problem_of(error))
            if error.stops_everything:
                return error
            context.failed(table, error)
            return None
        await context.apply(quarantine_rows, context.now(), rows, problem_of(error))
        return None

    async def _still_missing(self, table: str, rows: Sequence[PendingRow]) -> None:
        """Look again for these rows; send them again where they cannot be there."""
        doubted = [row for row in rows if row.state is RowState.IN_DOUBT]
        accepted = [row for row in rows if row.state is RowState.ACCEPTED]
        if doubted:
            await self._still_in_doubt(doubted)
        if accepted:
            await self._still_hidden(table, accepted)

    async def _still_in_doubt(self, rows: Sequence[PendingRow]) -> None:
        """Patience counts from the first answer: a request that an outage held back arrives with its end."""
        context, now = self._context, self._context.now()
        patience = context.settings.doubt_settle_seconds
        waiting = [row for row in rows if row.looked_at is None or now - row.looked_at < patience]
        absent = _without(rows, waiting)
        if waiting:
            looked_at = min(now if row.looked_at is None else row.looked_at for row in waiting)
            await context.apply(read_back_later, now, waiting, next_attempt_at=looked_at + patience)
        if absent:
            await context.apply(reschedule_rows, now, absent, by_load=True)

    async def _still_hidden(self, table: str, rows: Sequence[PendingRow]) -> None:
        context, now = self._context, self._context.now()
        timeout = context.settings.visibility_timeout_seconds
        ages = {row.id: now - (now if row.accepted_at is None else row.accepted_at) for row in rows}
        waiting = [row for row in rows if ages[row.id] < timeout]
        overdue = _without(rows, waiting)
        if waiting:
            age = max(ages[row.id] for row in waiting)
            look_again_at = SECOND_LOOK_SECONDS if age < SECOND_LOOK_SECONDS < timeout else timeout
            await context.apply(read_back_later, now, waiting, next_attempt_at=now + look_again_at - age)
        if not overdue:
            return
        found = await context.sink.describe(table)
        lost = [row for row in overdue if _made_anew(row, found)]
        hidden = _without(overdue, lost)
        if lost:
            problem = Problem(
                f"table {table} was made anew after it took the row, or just before",
                "nothing to do: it is delivered again by a load job",
            )
            log.warning("%s: %s; %s", counted(len(lost), "row"), problem.cause, problem.hint)
            await context.apply(reschedule_rows, now, lost, problem, by_load=True)
        if hidden:
            problem = Problem(
                f"table {table} took the row and does not show it: somebody hides rows from this account, "
                "or has removed it",
                "see whether a row access policy hides it; if it was removed, "
                "`pixaris-sync sync --repair` sends it again",
            )
            age = max(ages[row.id] for row in hidden)
            # A pass leaves it to a later one; who follows looks ever more seldom.
            attempts = 1 if context.mode.follow else context.mode.selection.attempts_limit
            await context.apply(
                read_back_later,
                now,
                hidden,
                problem,
                next_attempt_at=now + min(age / 2, LOOK_SECONDS_MAX),
                attempts=attempts,
            )


def _made_anew(row: PendingRow, table: TableMetadata | None) -> bool:
    """Whether a table (None: there is none) is another than the one that took the row."""
    return table is None or row.table_made_at not in (None, table.made_at)


def _without(rows: Sequence[PendingRow], others: Sequence[PendingRow]) -> list[PendingRow]:
    ids = {row.id for row in others}
    return [row for row in rows if row.id not in ids]
