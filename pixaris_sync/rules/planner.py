"""What to do next with rows: plain values in, plain values out.

Files need no plan beyond their order (`ledger.uploads.claim`). Rows do: which table, by stream or by load
job, now or in a larger batch a little later. The rules, and where they come from:

* The first rows of a table, and rows right after a column was added, go by load job, because streaming may
  not know the table or column yet and may even lose rows silently (DESIGN, "The cloud's small print").
* BigQuery allows 1,500 load jobs per table and day, so they are spaced out and counted.
* One delivery per table at a time: what becomes ready meanwhile is the next batch.
* A row in doubt is looked for before anything else is sent to its table.
* Where no load job may begin now, because the day's are used up or it is another machine's turn, rows that
  need none are streamed meanwhile.
* In a backfill, rows wait for others of their table that are in doubt and will be decided soon: what another
  machine or a shard has carried comes into doubt piece by piece, and would be decided so.
* What may be sent goes before the table is asked for more: live runs do not wait for a backlog.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from pixaris_sync.model import DeliveryMethod


class TableBacklog(Struct, frozen=True):
    """What one table has waiting; times in seconds since the epoch.

    Attributes:
        table_id: the table.
        ready: how many rows may be sent now.
        by_load: whether one of them must go by a load job.
        streamable: how many of them need not.
        to_ask: whether there are rows of which it is not known whether the table holds them.
        to_read_back: how many rows are due to be read back.
        unfinished_load: a delivery by load job whose end is not known.
        changed_at: when we last created or altered the table; None: never.
        loads_today: how many load jobs were begun in the last 24 hours.
        next_at: when the next row of it is due, if none is due now.
        decided_at: the same, of the rows in doubt: from then on it may be sent.
    """

    table_id: str
    ready: int = 0
    by_load: bool = False
    streamable: int = 0
    to_ask: bool = False
    to_read_back: int = 0
    unfinished_load: int | None = None
    changed_at: float | None = None
    loads_today: int = 0
    next_at: float | None = None
    decided_at: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether something of it can be done now."""
        return bool(self.ready or self.to_ask or self.to_read_back or self.unfinished_load is not None)


class RowLimits(Struct, frozen=True):
    """Bounds on deliveries.

    Attributes:
        stream_rows_limit, load_rows_limit: rows in one streaming insert, in one load job.
        ask_rows_limit: rows that a table is asked for at once.
        loads_per_day_limit: load jobs per table in 24 hours.
        table_settle_seconds: how long after a change of the table rows go by load job.
        stream_spacing_seconds, load_spacing_seconds: while files are still being uploaded, the least time
            between two deliveries to a table, so that rows gather into batches.
        bulk: all rows go by load job.
        gathers_from: from then on the first rows of a table wait for others, as later ones do.
        delivers: rows are sent; else tables are only asked which rows they hold.
        waits_for_quota: where the day's load jobs are used up, plan to go on later; else leave the rows.
    """

    stream_rows_limit: int
    load_rows_limit: int
    ask_rows_limit: int
    loads_per_day_limit: int
    table_settle_seconds: float
    stream_spacing_seconds: float
    load_spacing_seconds: float
    bulk: bool
    delivers: bool = True
    waits_for_quota: bool = True
    gathers_from: float = -math.inf


class SendRows(Struct, frozen=True):
    """Send up to `count` ready rows to a table.

    `may_load`: the day's load jobs are not used up. `by_load`: also rows that must go by a load job.
    """

    table_id: str
    method: DeliveryMethod
    count: int
    may_load: bool = True
    by_load: bool = True


class FinishLoad(Struct, frozen=True):
    """Find a load job again whose end is not known."""

    table_id: str
    delivery_id: int


class ReadBack(Struct, frozen=True):
    """Read up to `count` rows back."""

    table_id: str
    count: int


class AskFirst(Struct, frozen=True):
    """Ask whether the table holds up to `count` rows of which that is not known."""

    table_id: str
    count: int


Step = SendRows | FinishLoad | ReadBack | AskFirst


class Plan(Struct, frozen=True):
    """Steps to begin now, at most one per table, and when to plan again at the latest."""

    steps: tuple[Step, ...]
    wake_at: float | None


def plan_rows(
    backlogs: Iterable[TableBacklog],
    *,
    now: float,
    busy: Collection[str],
    sent_at: Mapping[str, float],
    uploads_idle: bool,
    limits: RowLimits,
    loads_from: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """Decide what each table's next step is.

    Args:
        backlogs: what each table has waiting.
        now: seconds since the epoch.
        busy: tables with a step under way; their end wakes the planner.
        sent_at: when this process last began a delivery to a table.
        uploads_idle: nothing is being uploaded, so that waiting brings no larger batches.
        limits: bounds on deliveries.
        loads_from: before when no load job into a table may begin.
    """
    steps: list[Step] = []
    wakes: list[float] = []
    for backlog in backlogs:
        if backlog.table_id in busy:
            continue
        table = backlog.table_id
        at = _Moment(now, sent_at.get(table), loads_from.get(table, now), uploads_idle and not backlog.to_ask)
        step, wake_at = _next_step(backlog, at, limits)
        if step is not None:
            steps.append(step)
        elif wake_at is not None:
            wakes.append(wake_at)
    return Plan(steps=tuple(steps), wake_at=min(wakes, default=None))


class _Moment(Struct, frozen=True):
    """When a table's next step is decided: as the arguments of `plan_rows`."""

    now: float
    sent_at: float | None
    loads_from: float
    nothing_comes: bool


def _next_step(backlog: TableBacklog, at: _Moment, limits: RowLimits) -> tuple[Step | None, float | None]:
    if not limits.delivers:
        return AskFirst(backlog.table_id, limits.ask_rows_limit) if backlog.to_ask else None, None
    if backlog.unfinished_load is not None:
        return FinishLoad(backlog.table_id, backlog.unfinished_load), None
    if backlog.to_read_back:
        return ReadBack(backlog.table_id, limits.ask_rows_limit), None
    step, wake_at = _next_delivery(backlog, at, limits)
    if step is None and backlog.to_ask:
        return AskFirst(backlog.table_id, limits.ask_rows_limit), None
    return step, wake_at


def _next_delivery(
    backlog: TableBacklog, at: _Moment, limits: RowLimits
) -> tuple[SendRows | None, float | None]:
    if not backlog.ready:
        return None, backlog.next_at
    may_load = backlog.loads_today < limits.loads_per_day_limit
    if delivery_method(backlog, now=at.now, limits=limits) is DeliveryMethod.STREAM:
        return _batch(backlog, at, limits, DeliveryMethod.STREAM, may_load=may_load)
    if may_load and at.now >= at.loads_from:
        return _batch(backlog, at, limits, DeliveryMethod.LOAD, may_load=may_load)
    # The quota frees up evenly over the day; an hour is soon enough.
    of_quota = at.now + 3600.0 if limits.waits_for_quota else None
    wakes = [at.loads_from if may_load else of_quota, backlog.next_at]
    step = None
    others = replace(backlog, ready=backlog.streamable, by_load=False)
    if others.ready and delivery_method(others, now=at.now, limits=limits) is DeliveryMethod.STREAM:
        step, due_at = _batch(others, at, limits, DeliveryMethod.STREAM, may_load=may_load, by_load=False)
        wakes.append(due_at)
    return step, None if step else min((wake for wake in wakes if wake is not None), default=None)


def _batch(
    backlog: TableBacklog,
    at: _Moment,
    limits: RowLimits,
    method: DeliveryMethod,
    *,
    may_load: bool,
    by_load: bool = True,
) -> tuple[SendRows | None, float | None]:
    """A delivery that may begin now, unless a larger batch comes of waiting."""
    if method is DeliveryMethod.LOAD:
        count, spacing = limits.load_rows_limit, limits.load_spacing_seconds
    else:
        count, spacing = limits.stream_rows_limit, limits.stream_spacing_seconds
    due_at = (limits.gathers_from if at.sent_at is None else at.sent_at) + spacing
    nothing_comes = at.nothing_comes
    if limits.bulk and backlog.decided_at is not None and backlog.decided_at <= at.now + spacing:
        due_at, nothing_comes = max(due_at, backlog.decided_at), False
    if nothing_comes or backlog.ready >= count or at.now >= due_at:
        return SendRows(backlog.table_id, method, count, may_load, by_load), None
    return None, min(due_at, backlog.next_at or due_at)


def delivery_method(backlog: TableBacklog, *, now: float, limits: RowLimits) -> DeliveryMethod:
    """Whether rows go by stream or by load job."""
    changed = backlog.changed_at
    # A clock set back far must not keep a table in load jobs for ever, nor one set back a little end them.
    unsettled = changed is not None and abs(now - changed) < limits.table_settle_seconds
    return DeliveryMethod.LOAD if limits.bulk or backlog.by_load or unsettled else DeliveryMethod.STREAM
