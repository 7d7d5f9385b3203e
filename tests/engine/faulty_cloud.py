"""The strict fakes, with more: faults, crashes, requests that arrive late, and an observer of every change.

* `CloudFaults` decide by a seed which calls take how long, fail, or lose their answer.
* `CrashPoints` end a process at a chosen instant: from then on nothing of that process reaches the ledger or
  the cloud any more, but for requests that were on their way. Those may arrive at once, or be held back.
* What changes in the cloud is told to an `Observer` in the same instant, before anything else can happen.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import anyio
import google_crc32c

from pixaris_sync.clock import SteadyClock
from pixaris_sync.errors import Failure, JobFailedError, SyncError
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow, RemoteObject, RowRefusal
from tests.engine.cloud_faults import BUCKET, CloudFaults
from tests.engine.crash_points import CrashPoints
from tests.engine.local_folder import MARKER
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import Call, FakeRowSink, Method
from tests.fakes.row_table import StoredRow, Table
from tests.fakes.virtual_clock import VirtualClock

#: Questions to a table without whose answers nobody knows which rows it holds.
QUESTIONS: Final = frozenset({"describe", "running_loads", "count_rows", "read_rows", "is_filtered"})
#: After this time the sender of a request gives up.
GIVEN_UP_SECONDS: Final = 60.0


class Observer(Protocol):
    """Is told of every change of the cloud."""

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """An upload has created an object, or has replaced its content `before`."""
        ...

    def saw_row(self, table: str, row: StoredRow) -> None:
        """A row has arrived in a table."""
        ...


@dataclass(slots=True)
class HeldBack:
    """A request on its way whose sender has given up, or is gone.

    `seconds` after its table can be reached for the first time, it takes effect.
    """

    table: str
    method: str
    seconds: float
    arrive: Callable[[], object]
    due_at: float | None = None


class _HeldBackError(Exception):
    """The network holds this request back."""


class Unobserved:
    """An observer that ignores everything."""

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None: ...

    def saw_row(self, table: str, row: StoredRow) -> None: ...


class FaultyStore(FakeObjectStore):
    """A bucket with faults, crashes and an observer.

    Attributes:
        list_denied: the account may not list.
        on_call: told of each call, with its method, when it begins.
        written_at: when an upload has last written each object, in seconds that have passed.
    """

    def __init__(self, clock: VirtualClock, crash_points: CrashPoints, cloud_faults: CloudFaults) -> None:
        super().__init__(clock=clock, page_objects=7)
        self.crash_points = crash_points
        self.cloud_faults = cloud_faults
        self.observer: Observer = Unobserved()
        self.list_denied = False
        self.written_at: dict[str, float] = {}
        self.on_call: Callable[[str], None] = lambda _method: None

    async def _enter(self, method: str, name: str) -> None:
        self.crash_points.reach("call")
        self.on_call(method)
        await super()._enter(method, name)
        if self.list_denied and method == "list":
            self.cloud_faults.fired["list_denied"] += 1
            raise SyncError(method, name, "403", hint="grant it", failure=Failure.PERMISSION)
        if method == "upload":
            self.crash_points.survives(method)
        try:
            await self.cloud_faults.before(method, BUCKET)
        except anyio.get_cancelled_exc_class():
            if self.crash_points.crashed and method == "upload" and self.cloud_faults.is_orphan(name):
                # The process is gone, its request is not: the service goes on with it.
                self.cloud_faults.fired["orphaned_upload"] += 1
                return
            raise

    def _listed(self, remote: RemoteObject) -> RemoteObject:
        if self.listings_without_checksums:
            self.cloud_faults.fired["untold_checksum"] += 1
        return super()._listed(remote)

    def _leave(self, method: str, name: str) -> None:
        super()._leave(method, name)
        self.cloud_faults.after(method, BUCKET)
        self.crash_points.reach("answer")

    def put(
        self, name: str, content: bytes, *, content_type: str = "application/octet-stream"
    ) -> RemoteObject:
        # What others do is no business of the observer.
        return super()._store(name, content, content_type, google_crc32c.value(content))

    def _store(
        self,
        name: str,
        content: bytes,
        content_type: str,
        crc32c: int,
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        before = self.objects.get(name)
        remote = super()._store(name, content, content_type, crc32c, metadata)
        self.written_at[name] = self.cloud_faults.clock.elapsed()
        self.observer.saw_object(remote, content, before.content if before else None)
        return remote


class FaultySink(FakeRowSink):
    """A BigQuery dataset with faults, crashes and an observer.

    Attributes:
        refuse_rows_of: rows of runs with this in their name are refused, by streaming and by load jobs.
        refuse_column: no table gets a column of this name.
        held_back: requests that are on their way, and nobody waits for.
        not_asked: tables of which a question was not answered.
    """

    def __init__(self, clock: VirtualClock, crash_points: CrashPoints, cloud_faults: CloudFaults) -> None:
        # The cloud's time does not jump with the machine's.
        super().__init__(SteadyClock(clock))
        self.crash_points = crash_points
        self.cloud_faults = cloud_faults
        self.observer: Observer = Unobserved()
        self.refuse_rows_of: str | None = None
        self.refuse_column: str | None = None
        self.held_back: list[HeldBack] = []
        self.not_asked: set[str] = set()
        self._denied: dict[str, str] = {}
        self._seen: Counter[str] = Counter()

    async def is_filtered(self, table: str) -> bool:
        filtered = await super().is_filtered(table)
        if filtered:
            self.not_asked.add(table)
        return filtered

    async def _begin(self, call: Call) -> None:
        self.crash_points.reach("call")
        try:
            await self._reach(call)
        except SyncError:
            if call.table is not None and call.method in QUESTIONS:
                self.not_asked.add(call.table)
            raise

    async def _reach(self, call: Call) -> None:
        await super()._begin(call)
        if call.table is not None and self._denied.get(call.table) == call.method:
            self.cloud_faults.fired["denied"] += 1
            raise SyncError(call.method, call.table, "403", hint="grant it", failure=Failure.PERMISSION)
        if call.method not in ("stream", "load"):
            await self.cloud_faults.before(call.method, call.table)
            return
        self.crash_points.survives(call.method)
        held_back = self.cloud_faults.holds_back(call.table)
        try:
            if held_back:
                await self.clock.sleep(GIVEN_UP_SECONDS)
            else:
                await self.cloud_faults.before(call.method, call.table)
        except anyio.get_cancelled_exc_class():
            request = f"{call.method} {call.table}"
            if not (self.crash_points.crashed and (held_back or self.cloud_faults.is_orphan(request))):
                raise
            # The process is gone, its request is not: the service goes on with it, perhaps later.
            self.cloud_faults.fired[f"orphaned_{call.method}"] += 1
            held_back = held_back or self.cloud_faults.holds_orphan_back(request)
        if held_back:
            raise _HeldBackError

    def _hold_back(self, method: Method, table: str, arrive: Callable[[], object]) -> SyncError:
        """Let a request arrive later; what its sender is told."""
        seconds = self.cloud_faults.held_back_seconds(f"{method} {table}")
        self.held_back.append(HeldBack(table, method, seconds, arrive))
        self.cloud_faults.break_down(table)
        self.crash_points.reach("answer")
        return SyncError(method, table, "no answer in time", failure=Failure.IN_DOUBT)

    def land(self) -> None:
        now = self.clock.now()
        for request in self.held_back:
            if request.due_at is None and self.cloud_faults.reaches(request.table):
                request.due_at = now + request.seconds
        while due := [request for request in self.held_back if request.due_at and request.due_at <= now]:
            request = min(due, key=lambda request: request.due_at or 0.0)
            self.held_back.remove(request)
            with suppress(SyncError):
                request.arrive()
                self.cloud_faults.fired[f"held_back_{request.method}"] += 1
        super().land()
        for table in self._tables:
            self._observe(table)

    def seconds_to_event(self) -> float:
        """How long until something takes effect."""
        due = [load.due_at for load in self.queued.values()]
        due += [request.due_at for request in self.held_back if request.due_at is not None]
        away_until = [self.cloud_faults.away_until.get(request.table, 0.0) for request in self.held_back]
        back = [seconds for at in away_until if (seconds := at - self.clock.elapsed()) > 0]
        return min([min(due, default=math.inf) - self.clock.now(), *back])

    def requests_under_way(self) -> bool:
        """Whether a request is held back still."""
        self.land()
        return bool(self.held_back)

    def _observe(self, table: str) -> None:
        rows = self._tables[table].rows
        for row in rows[self._seen[table] :]:
            self.observer.saw_row(table, row)
        self._seen[table] = len(rows)

    def _answer(self, method: Method, table: str | None) -> None:
        if table in self._tables:
            self._observe(table)
        super()._answer(method, table)
        self.cloud_faults.after(method, table)
        self.crash_points.reach("answer")

    def deny(self, table: str, method: Method | None) -> None:
        """Answer 403 to one method for a table; None grants all."""
        self._denied[table] = method or ""

    async def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        try:
            refusals = await super().stream(table, rows)
        except _HeldBackError:
            raise self._hold_back("stream", table, partial(self._insert, table, rows)) from None
        if any(refusal.stopped for refusal in refusals):
            self.cloud_faults.fired["stopped_rows"] += 1
        if any(refusal.unknown_column for refusal in refusals):
            self.cloud_faults.fired["unknown_column"] += 1
        return refusals

    def _insert(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        if not any(map(self._is_bad, rows)):
            return super()._insert(table, rows)
        return tuple(
            RowRefusal(index, "it is bad" if self._is_bad(row) else "", stopped=not self._is_bad(row))
            for index, row in enumerate(rows)
        )

    async def load(self, table: str, rows: Sequence[OutgoingRow], *, job_id: str) -> None:
        if self.load_queued_seconds and job_id not in self._job_tables:
            self.cloud_faults.fired["queued_load"] += 1
        try:
            await super().load(table, rows, job_id=job_id)
        except _HeldBackError:
            raise self._hold_back("load", table, partial(self._start_load, table, rows, job_id)) from None

    def _start_load(self, table: str, rows: Sequence[OutgoingRow], job_id: str) -> None:
        super()._start_load(table, rows, job_id)
        if job_id in self.queued:
            self.crash_points.survives("queued")

    async def running_loads(self, table: str) -> frozenset[str]:
        found = await super().running_loads(table)
        self.cloud_faults.fired["running_load"] += bool(found)
        return found

    def _run_job(self, table: str, rows: Sequence[OutgoingRow]) -> SyncError | None:
        if any(map(self._is_bad, rows)):
            self.cloud_faults.fired["bad_job"] += 1
            return JobFailedError("load rows into table", table, "a row is bad")
        return super()._run_job(table, rows)

    def _is_bad(self, row: OutgoingRow) -> bool:
        bad = self.refuse_rows_of
        return bad is not None and bad in str(row.cells["experiment_run_name"])

    async def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        if self.refuse_column in {column.name for column in columns}:
            raise SyncError("add_columns", table, "400: no such column", failure=Failure.PERMANENT)
        await super().add_columns(table, columns)

    def make_plain_table(self, table: str) -> None:
        """Make a table that has all that a record without further values needs, as somebody else would."""
        made = Table(self.clock.now())
        names = ("timestamp", "experiment_run_name", "hyperparameters", "generation_params")
        texts = [*names, "workflow_apiformat_json", "workflow_pillow_image"]
        made.add([Column(name, ColumnType.STRING) for name in texts], -math.inf)
        made.add(
            [Column(MARKER, ColumnType.INTEGER), Column("max_parallel_jobs", ColumnType.FLOAT)], -math.inf
        )
        self._tables[table] = made

    def add_plain_column(self, table: str, name: str) -> None:
        """Add a column just now, as somebody else would."""
        if table in self._tables:
            self._tables[table].add([Column(name, ColumnType.STRING)], self.clock.now())

    # What others do to tables. Who does it through `Others` tells the invariants as well.

    def table(self, table: str) -> Table:
        """A table that others change."""
        self.land()
        return self._tables[table]

    def drop(self, table: str) -> list[StoredRow]:
        """Drop a table; its rows."""
        self.land()
        self._seen[table] = 0
        return self._tables.pop(table).rows

    def remove_rows(self, table: str, rows: Sequence[StoredRow]) -> None:
        """Delete rows."""
        gone = set(map(id, rows))
        found = self.table(table)
        found.rows = [row for row in found.rows if id(row) not in gone]
        self._seen[table] = len(found.rows)

    def recreate(self, table: str, columns: Sequence[Column], rows: Sequence[StoredRow]) -> None:
        """Make a table anew just now, with these columns and rows."""
        made = self._tables[table] = Table(self.clock.now())
        made.add(columns, -math.inf)
        made.rows = list(rows)
        self._seen[table] = len(made.rows)

    def put_back(self, table: str, rows: Sequence[StoredRow]) -> None:
        """Put rows back into a table that was made anew."""
        self._tables[table].rows[:0] = rows
        self._seen[table] += len(rows)

    def visible_rows(self, table: str) -> list[dict[str, JsonValue]]:
        """What can be read now."""
        return self._visible(table)
