"""The strict fakes, with three more things: weather, a fuse, and eyes that see every change as it happens.

* The *weather* decides by a seed which calls take how long, fail, or lose their answer.
* The *fuse* ends a process at a chosen instant: once it has burnt, nothing of that process reaches the ledger
  or the cloud any more, but for requests that were on their way.
* What changes in the cloud is told to a `Witness` in the same instant, before anything else can happen.
"""

from random import Random
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import google_crc32c

from pixaris_sync.clock import SteadyClock
from pixaris_sync.errors import ConfigurationError, Failure, JobFailedError, SyncError
from pixaris_sync.ledger.database import Ledger, Operation
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow, RemoteObject, RowRefusal
from tests.engine.local_folder import MARKER
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import Call, FakeRowSink, Method
from tests.fakes.row_table import StoredRow, Table
from tests.fakes.virtual_clock import VirtualClock

BUCKET = "bucket"
LOST = "lost"


class CrashError(BaseException):
    """The process is gone. No ``except Exception`` may outlive it."""


class Fuse:
    """Ends a process at a chosen instant.

    Attributes:
        burnt: the process is gone.
        counts: how many instants of each kind have been: ``step`` (a turn of the event loop), ``begin`` and
            ``commit`` (before and after a transaction), ``call`` and ``answer`` (before a call has an effect,
            and after).
    """

    def __init__(self) -> None:
        self.burnt = False
        self.counts: Counter[str] = Counter()
        self._kind = ""
        self._left = 0

    def light(self, kind: str, left: int) -> None:
        """Let a process end at the `left`-th instant of this kind from now on, 1 being the next."""
        self._kind, self._left = kind, left

    def renew(self) -> None:
        """Begin another process; a fuse that was lit and has not burnt stays lit."""
        if self.burnt:
            self.burnt, self._kind = False, ""

    def passes(self, kind: str) -> bool:
        """Note an instant; whether the process goes on."""
        self.counts[kind] += 1
        if not self.burnt and kind == self._kind:
            self._left -= 1
            self.burnt = self._left <= 0
        return not self.burnt

    def tick(self, kind: str) -> None:
        """Note an instant.

        Raises:
            CrashError: the process is gone.
        """
        if not self.passes(kind):
            raise CrashError(kind)


class CrashingLedger(Ledger):
    """A ledger that a process can end at, right before and right after each transaction."""

    fuse = Fuse()

    def apply(self, operations: Sequence[Operation]) -> list[object]:
        self.fuse.tick("begin")
        results = super().apply(operations)
        self.fuse.tick("commit")
        return results


class Witness(Protocol):
    """Who sees every change of the cloud."""

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """An upload has created an object, or has replaced its content `before`."""
        ...

    def saw_row(self, table: str, row: StoredRow) -> None:
        """A row has arrived in a table."""
        ...


class _Blind:
    """A witness that looks away."""

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None: ...

    def saw_row(self, table: str, row: StoredRow) -> None: ...


@dataclass
class Weather:
    """What becomes of calls. Fine as long as no chance is set.

    Attributes:
        random: where chance comes from.
        latency_seconds: how long a call takes at most.
        chances: probability of each kind of fault: ``transient``, ``quota``, ``stall`` (before it works),
            ``lost_answer`` (after it worked).
        lost_answers_of: calls whose answers may be lost; for others that would be no more than transient.
        outages: destinations (`BUCKET` or tables) that answer 503.
        credentials: False: nobody can be authenticated.
        fired: how often each kind has struck.
    """

    clock: VirtualClock
    random: Random = field(default_factory=lambda: Random(0))
    latency_seconds: float = 0.0
    chances: dict[str, float] = field(default_factory=dict)
    lost_answers_of: frozenset[str] = frozenset({"upload", "upload_resumable", "stream", "load"})
    outages: set[str] = field(default_factory=set)
    credentials: bool = True
    fired: Counter[str] = field(default_factory=Counter)
    _plans: dict[str, deque[SyncError | str | None]] = field(default_factory=dict)
    _losing: set[str] = field(default_factory=set)

    def plan(self, method: str, *outcomes: SyncError | str | None) -> None:
        """Decide the next calls of a method, one by one: an error, `LOST` for its answer, or None: fine."""
        self._plans[method] = deque(outcomes)

    @property
    def plans_left(self) -> int:
        """How many planned outcomes have not come yet."""
        return sum(map(len, self._plans.values()))

    async def before(self, method: str, destination: str | None) -> None:
        """Take time, and perhaps fail with nothing done.

        Raises:
            SyncError: it fails.
        """
        if self.latency_seconds:
            await self.clock.sleep(self.random.uniform(0.0, self.latency_seconds))
        subject = destination or "dataset"
        if self._strikes("stall"):
            await self.clock.sleep(self.random.uniform(10.0, 60.0))
        if not self.credentials:
            self.fired["credentials"] += 1
            raise ConfigurationError(method, subject, "401: they have expired", failure=Failure.CREDENTIALS)
        if destination in self.outages:
            self.fired["outage"] += 1
            raise SyncError(method, subject, "503 in an outage", failure=Failure.TRANSIENT)
        if self._plans.get(method):
            outcome = self._plans[method].popleft()
            if isinstance(outcome, SyncError):
                raise outcome
            if outcome == LOST:
                self._losing.add(method)
        if self._strikes("transient"):
            raise SyncError(method, subject, "503", failure=Failure.TRANSIENT)
        if self._strikes("quota"):
            asked = self.random.choice([None, self.random.uniform(1.0, 90.0)])
            raise SyncError(method, subject, "429", failure=Failure.QUOTA, retry_after_seconds=asked)

    def after(self, method: str, destination: str | None) -> None:
        """Perhaps lose the answer of what was done.

        Raises:
            SyncError: it is lost.
        """
        planned = method in self._losing
        self._losing.discard(method)
        if planned or (method in self.lost_answers_of and self._strikes("lost_answer")):
            raise SyncError(method, destination or "dataset", "the answer was lost", failure=Failure.IN_DOUBT)

    def is_orphan(self, request: str) -> bool:
        """Whether a request whose process is gone has effect all the same; for each the same in a replay.

        Tasks are cancelled in no certain order, so the next random number would not be.
        """
        return Random(f"{request} {self.clock.elapsed_seconds}").random() < 0.5

    def _strikes(self, kind: str) -> bool:
        chance = self.chances.get(kind, 0.0)
        if not chance or self.random.random() >= chance:
            return False
        self.fired[kind] += 1
        return True


class WatchedStore(FakeObjectStore):
    """A bucket under weather, fuse and witness."""

    def __init__(self, clock: VirtualClock, fuse: Fuse, weather: Weather) -> None:
        super().__init__(clock=clock, page_objects=7)
        self.fuse = fuse
        self.weather = weather
        self.witness: Witness = _Blind()

    async def _enter(self, method: str, name: str) -> None:
        self.fuse.tick("call")
        await super()._enter(method, name)
        try:
            await self.weather.before(method, BUCKET)
        except anyio.get_cancelled_exc_class():
            if self.fuse.burnt and method == "upload" and self.weather.is_orphan(name):
                # The process is gone, its request is not: the service goes on with it.
                self.weather.fired["orphaned_upload"] += 1
                return
            raise

    def _leave(self, method: str, name: str) -> None:
        super()._leave(method, name)
        self.weather.after(method, BUCKET)
        self.fuse.tick("answer")

    def put(
        self, name: str, content: bytes, *, content_type: str = "application/octet-stream"
    ) -> RemoteObject:
        # Somebody else's doing is not for the witness to judge.
        return super()._store(name, content, content_type, google_crc32c.value(content))

    def _store(self, name: str, content: bytes, content_type: str, crc32c: int) -> RemoteObject:
        before = self.objects.get(name)
        remote = super()._store(name, content, content_type, crc32c)
        self.witness.saw_object(remote, content, before.content if before else None)
        return remote


class WatchedSink(FakeRowSink):
    """A BigQuery dataset under weather, fuse and witness.

    Attributes:
        refuse_rows_of: rows of runs with this in their name are refused, by streaming and by load jobs.
    """

    def __init__(self, clock: VirtualClock, fuse: Fuse, weather: Weather) -> None:
        # The cloud's time does not jump with the machine's.
        super().__init__(SteadyClock(clock))
        self.fuse = fuse
        self.weather = weather
        self.witness: Witness = _Blind()
        self.refuse_rows_of: str | None = None
        self._denied: dict[str, str] = {}
        self._seen: Counter[str] = Counter()

    async def _begin(self, call: Call) -> None:
        self.fuse.tick("call")
        await super()._begin(call)
        if call.table is not None and self._denied.get(call.table) == call.method:
            self.weather.fired["denied"] += 1
            raise SyncError(call.method, call.table, "403", hint="grant it", failure=Failure.PERMISSION)
        try:
            await self.weather.before(call.method, call.table)
        except anyio.get_cancelled_exc_class():
            if (
                self.fuse.burnt
                and call.method in ("stream", "load")
                and self.weather.is_orphan(f"{call.method} {call.table}")
            ):
                self.weather.fired[f"orphaned_{call.method}"] += 1
                return
            raise

    def _answer(self, method: Method, table: str | None) -> None:
        if table is not None:
            rows = self.stored(table)
            for row in rows[self._seen[table] :]:
                self.witness.saw_row(table, row)
            self._seen[table] = len(rows)
        super()._answer(method, table)
        self.weather.after(method, table)
        self.fuse.tick("answer")

    def deny(self, table: str, method: Method | None) -> None:
        """Answer 403 to one method for a table; None grants all."""
        self._denied[table] = method or ""

    async def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        if any(map(self._is_bad, rows)):
            await self._begin(Call("stream", table, len(rows)))
            self.weather.fired["stopped_rows"] += 1
            return tuple(
                RowRefusal(index, "it is bad" if self._is_bad(row) else "", stopped=not self._is_bad(row))
                for index, row in enumerate(rows)
            )
        refusals = await super().stream(table, rows)
        if any(refusal.stopped for refusal in refusals):
            self.weather.fired["stopped_rows"] += 1
        if any(refusal.unknown_column for refusal in refusals):
            self.weather.fired["unknown_column"] += 1
        return refusals

    def _run_job(self, table: str, rows: Sequence[OutgoingRow]) -> SyncError | None:
        if any(map(self._is_bad, rows)):
            self.weather.fired["bad_job"] += 1
            return JobFailedError("load rows into table", table, "a row is bad")
        return super()._run_job(table, rows)

    def _is_bad(self, row: OutgoingRow) -> bool:
        bad = self.refuse_rows_of
        return bad is not None and bad in str(row.cells["experiment_run_name"])

    def make_plain_table(self, table: str) -> None:
        """Make a table that has all that a record without further values needs, as somebody else would."""
        made = Table(self.clock.now())
        names = ("timestamp", "experiment_run_name", "hyperparameters", "generation_params")
        texts = [*names, "workflow_apiformat_json", "workflow_pillow_image"]
        made.add([Column(name, ColumnType.STRING) for name in texts], -math.inf)
        made.add([Column(MARKER, ColumnType.INTEGER), Column("max_parallel_jobs", ColumnType.FLOAT)], -math.inf)
        self._tables[table] = made

    def drop(self, table: str) -> list[StoredRow]:
        """Drop a table; its rows."""
        self._seen[table] = 0
        return self._tables.pop(table).rows

    def put_back(self, table: str, rows: Sequence[StoredRow]) -> None:
        """Put rows back into a table that was made anew."""
        self._tables[table].rows[:0] = rows
        self._seen[table] += len(rows)

    def visible_rows(self, table: str) -> list[dict[str, JsonValue]]:
        """What can be read now."""
        return self._visible(table)
