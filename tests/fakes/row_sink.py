"""A strict BigQuery dataset in memory, with the real one's delays and with faults on demand."""

import math
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio.lowlevel
import pandas as pd

from pixaris_sync.errors import (
    QUOTA_RESTS_SECONDS,
    ConfigurationError,
    Failure,
    JobFailedError,
    NameRefusedError,
    SyncError,
    TableNotFoundError,
    UnknownColumnError,
)
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow, RowRefusal, TableMetadata
from pixaris_sync.ports import Clock
from pixaris_sync.rules.names import table_id_fault
from tests.fakes.row_table import StoredRow, Table, check_columns, fits

Method = Literal[
    "check",
    "describe",
    "create_table",
    "add_columns",
    "widen_columns",
    "stream",
    "load",
    "count_rows",
    "running_loads",
    "read_rows",
    "read_table",
    "is_filtered",
]

_INSERT_ROWS_MAX = 50_000
#: https://cloud.google.com/bigquery/quotas#standard_tables
_UPDATES_MAX, _UPDATES_SECONDS = 5, 10.0
_DAY_SECONDS = 24 * 3600.0


#: A query bills so much at least: https://cloud.google.com/bigquery/pricing#on_demand_pricing
QUERY_BYTES_MIN = 10_000_000


@dataclass(frozen=True, slots=True)
class OtherRows:
    """Rows of others in a table: how many, how long their run names are, the bytes of all their columns."""

    count: int
    name_bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query: which method asked it of which table, and the bytes of the columns that it read."""

    method: Method
    table: str
    read_bytes: int

    def billed_bytes(self, others: OtherRows) -> int:
        """What it bills in a table that holds other rows besides."""
        names_alone = self.method in ("count_rows", "is_filtered")
        of_others = others.count * (2 + others.name_bytes) if names_alone else others.all_bytes
        return max(QUERY_BYTES_MIN, self.read_bytes + of_others)


@dataclass(frozen=True, slots=True)
class QueuedLoad:
    """A load job that has not begun."""

    table: str
    rows: tuple[OutgoingRow, ...]
    due_at: float


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came in. `rows` is how many rows, columns or runs it was about."""

    method: str
    table: str | None
    rows: int
    job_id: str | None = None


class FakeRowSink:
    """Implements `pixaris_sync.ports.RowSink`.

    Streaming into a table younger than `new_table_missing_seconds` raises TableNotFoundError; into one
    younger than `new_table_swallows_seconds` rows are accepted and lost. A column younger than
    `new_column_unknown_seconds` is unknown to streaming. The same insertId within `dedup_seconds` is dropped.
    Streamed rows can be read after `visible_after_seconds`. Load jobs know none of these delays; they are
    queued for `load_queued_seconds`, and run then whether or not somebody still waits for them.

    Of updates of a table's metadata (it is created or altered, a new load job appends to it) five are taken
    in 10 seconds, and others refused, as the service documents it.

    With `updates_per_day_limit` no more of them are taken in 24 hours; those that are refused count as well.

    A delay may be set to another value at any time; so may `dataset_exists`.

    Attributes:
        calls: every call, in order, failed ones included.
        counts: the calls by method.
        hidden: tables whose rows a row access policy hides from this account.
        faults_fired: how many programmed faults have struck, by method.
        refused_updates: how many updates came too soon after others, by table.
        updates_per_day_limit: how many updates of a table are taken in 24 hours; None: any number.
        used_up: how many updates were refused for that, by table.
        swallowed: insertIds of rows accepted and lost.
        jobs: how each load job that has ended did, by its id: None is well.
        queued: load jobs that have not begun, by their id.
        queries: every query, in order.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        new_table_missing_seconds: float = 0.0,
        new_table_swallows_seconds: float = 0.0,
        new_column_unknown_seconds: float = 0.0,
        dedup_seconds: float = 60.0,
        visible_after_seconds: float = 0.0,
        load_queued_seconds: float = 0.0,
    ) -> None:
        self.clock = clock
        self.new_table_missing_seconds = new_table_missing_seconds
        self.new_table_swallows_seconds = new_table_swallows_seconds
        self.new_column_unknown_seconds = new_column_unknown_seconds
        self.dedup_seconds = dedup_seconds
        self.visible_after_seconds = visible_after_seconds
        self.load_queued_seconds = load_queued_seconds
        self.dataset_exists = True
        self.hidden: set[str] = set()
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.faults_fired: Counter[str] = Counter()
        self.refused_updates: Counter[str] = Counter()
        self.updates_per_day_limit: int | None = None
        self.used_up: Counter[str] = Counter()
        self.swallowed: list[str] = []
        self.jobs: dict[str, SyncError | None] = {}
        self.queued: dict[str, QueuedLoad] = {}
        self.queries: list[Query] = []
        self._job_tables: dict[str, str] = {}
        self._tables: dict[str, Table] = {}
        self._updates: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_UPDATES_MAX))
        self._updates_today: defaultdict[str, deque[float]] = defaultdict(deque)
        self._faults: dict[str, deque[SyncError]] = {}
        self._job_faults: deque[SyncError] = deque()
        self._lost_answers: Counter[str] = Counter()

    # What a test programs and looks at.

    def fail_next(self, method: Method, error: SyncError, *, times: int = 1) -> None:
        """Let the next calls of `method` that are not already to fail raise `error` and do nothing."""
        self._faults.setdefault(method, deque()).extend([error] * times)

    def fail_next_job(self, error: SyncError) -> None:
        """Let the next new load job end with `error`: nothing is loaded, and the id is used up."""
        self._job_faults.append(error)

    def lose_answer(self, method: Method, *, times: int = 1) -> None:
        """Let the next calls of `method` do their work, whatever comes of it, and then raise IN_DOUBT."""
        self._lost_answers[method] += times

    def cancel_job(self, job_id: str) -> None:
        """End a load job that is queued, as somebody who may do so would."""
        table = self.queued.pop(job_id).table
        cause = "somebody has cancelled it"
        self.jobs[job_id] = JobFailedError("load rows into table", table, cause, failure=Failure.TRANSIENT)

    def put_table(
        self, table: str, columns: Sequence[Column], rows: Iterable[Mapping[str, JsonValue]] = ()
    ) -> None:
        """Make a table as if it had always been there, with rows from elsewhere."""
        made = Table(-math.inf)
        self._tables[table] = made
        made.add(columns, -math.inf)
        for number, cells in enumerate(rows):
            made.rows.append(StoredRow(dict(cells), f"elsewhere-{number}", "load", -math.inf))

    def stored(self, table: str) -> list[StoredRow]:
        """Every row of the table, those not visible yet included."""
        self.land()
        return list(self._tables[table].rows) if table in self._tables else []

    @property
    def tables(self) -> list[str]:
        """The ids of all tables."""
        return list(self._tables)

    @property
    def faults_left(self) -> int:
        """How many programmed faults have not struck yet."""
        queued = sum(map(len, self._faults.values())) + len(self._job_faults)
        return queued + self._lost_answers.total()

    # The port.

    async def check(self) -> None:
        await self._begin(Call("check", None, 0))
        self._dataset()
        self._answer("check", None)

    async def describe(self, table: str) -> TableMetadata | None:
        await self._begin(Call("describe", table, 0))
        self._dataset()
        found = self._tables.get(table)
        self._answer("describe", table)
        if found is None:
            return None
        columns = tuple(found.columns.values())
        return TableMetadata(columns, found.created_at, len(found.rows), found.column_bytes(None))

    async def create_table(self, table: str, columns: Sequence[Column]) -> None:
        await self._begin(Call("create_table", table, len(columns)))
        self._dataset()
        check_columns("create table", table, columns, ())
        self._update("create table", table)
        if table not in self._tables:
            made = Table(self.clock.now())
            made.add(columns, -math.inf)
            self._tables[table] = made
        self._answer("create_table", table)

    async def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        if not columns:
            return
        await self._begin(Call("add_columns", table, len(columns)))
        found = self._table("add columns to table", table)
        self._update("add columns to table", table)
        new = [column for column in columns if found.column(column.name) is None]
        check_columns("add columns to table", table, new, found.columns.values())
        found.add(new, self.clock.now())
        self._answer("add_columns", table)

    async def widen_columns(self, table: str, columns: Sequence[str]) -> None:
        if not columns:
            return
        await self._begin(Call("widen_columns", table, len(columns)))
        found = self._table("widen columns of table", table)
        self._update("widen columns of table", table)
        for name in columns:
            column = found.column(name)
            if column is None or column.type not in (ColumnType.INTEGER, ColumnType.FLOAT):
                cause = f"{name} is {column.type if column else 'not there'}"
                raise SyncError("widen columns of table", table, cause)
        for name in columns:
            found.widen(name)
        self._answer("widen_columns", table)

    async def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        if not rows:
            return ()
        await self._begin(Call("stream", table, len(rows)))
        if len(rows) > _INSERT_ROWS_MAX:
            raise SyncError("insert rows into table", table, f"{len(rows)} rows are too many")
        refusals = self._insert(table, rows)
        self._answer("stream", table)
        return refusals

    async def load(self, table: str, rows: Sequence[OutgoingRow], *, job_id: str) -> None:
        if not rows:
            return
        await self._begin(Call("load", table, len(rows), job_id))
        self._start_load(table, rows, job_id)
        while (load := self.queued.get(job_id)) is not None:
            await self.clock.sleep(load.due_at - self.clock.now())
            self.land()
        self._answer("load", table)
        if error := self.jobs[job_id]:
            raise _again(error)

    async def count_rows(self, table: str, runs: Sequence[str]) -> Mapping[str, int]:
        if not runs:
            return {}
        await self._begin(Call("count_rows", table, len(runs)))
        self._dataset()
        self._bill("count_rows", table, ("experiment_run_name",))
        wanted = set(runs)
        names = [row.get("experiment_run_name") for row in self._visible(table)]
        self._answer("count_rows", table)
        return Counter(name for name in names if name in wanted)

    async def running_loads(self, table: str) -> frozenset[str]:
        await self._begin(Call("running_loads", table, 0))
        found = frozenset(job_id for job_id, load in self.queued.items() if load.table == table)
        self._answer("running_loads", table)
        return found

    async def read_rows(self, table: str, runs: Sequence[str]) -> list[Mapping[str, JsonValue]]:
        await self._begin(Call("read_rows", table, len(runs)))
        self._dataset()
        self._bill("read_rows", table, None)
        wanted = set(runs)
        rows: list[Mapping[str, JsonValue]] = [
            dict(row) for row in self._visible(table) if row.get("experiment_run_name") in wanted
        ]
        self._answer("read_rows", table)
        return rows

    async def read_table(self, table: str) -> pd.DataFrame | None:
        await self._begin(Call("read_table", table, 0))
        self._dataset()
        found = self._tables.get(table)
        self._answer("read_table", table)
        if found is None:
            return None
        return found.frame(self._visible(table))

    async def is_filtered(self, table: str) -> bool:
        await self._begin(Call("is_filtered", table, 0))
        self._dataset()
        self._bill("is_filtered", table, ("experiment_run_name",))
        self._answer("is_filtered", table)
        return table in self.hidden

    async def close(self) -> None:
        await anyio.lowlevel.checkpoint()

    # How it works. Nothing below awaits, so that a call takes effect at once or not at all.

    async def _begin(self, call: Call) -> None:
        self.calls.append(call)
        self.counts[call.method] += 1
        await anyio.lowlevel.checkpoint()
        self.land()
        if faults := self._faults.get(call.method):
            self.faults_fired[call.method] += 1
            raise _again(faults.popleft())
        if call.table is not None and (fault := table_id_fault(call.table)):
            raise NameRefusedError("use table", repr(call.table), f"it {fault}")

    def _answer(self, method: Method, table: str | None) -> None:
        if self._lost_answers[method] > 0:
            self._lost_answers[method] -= 1
            self.faults_fired[method] += 1
            raise SyncError(method, table or "dataset", "the answer was lost", failure=Failure.IN_DOUBT)

    def _dataset(self) -> None:
        if not self.dataset_exists:
            raise ConfigurationError("open dataset", "dataset", "there is no such dataset", hint="create it")

    def _table(self, operation: str, table: str) -> Table:
        if not self.dataset_exists or table not in self._tables:
            raise self._not_found(operation, table)
        return self._tables[table]

    def _not_found(self, operation: str, table: str) -> TableNotFoundError:
        return TableNotFoundError(operation, table, "there is no such table", failure=Failure.TRANSIENT)

    def _update(self, operation: str, table: str) -> None:
        """Count an update of a table's metadata, or refuse it."""
        now, updates, today = self.clock.now(), self._updates[table], self._updates_today[table]
        while today and today[0] <= now - _DAY_SECONDS:
            today.popleft()
        today.append(now)
        if self.updates_per_day_limit is not None and len(today) > self.updates_per_day_limit:
            self.used_up[table] += 1
            cause = "Your table exceeded quota for imports or query appends per table"
            rest = QUOTA_RESTS_SECONDS
            raise SyncError(operation, table, cause, failure=Failure.QUOTA, retry_after_seconds=rest)
        if len(updates) == _UPDATES_MAX and now - updates[0] < _UPDATES_SECONDS:
            self.refused_updates[table] += 1
            cause = "Exceeded rate limits: too many table update operations for this table"
            raise SyncError(operation, table, cause, failure=Failure.QUOTA)
        updates.append(now)

    def _insert(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        """What a streaming insert does when it reaches the service."""
        found = self._table("insert rows into table", table)
        age = self.clock.now() - found.created_at
        if age < self.new_table_missing_seconds:
            raise self._not_found("insert rows into table", table)
        refusals = found.refusals(rows, known_before=self.clock.now() - self.new_column_unknown_seconds)
        if not refusals and age < self.new_table_swallows_seconds:
            self.swallowed.extend(row.row_id for row in rows)
        elif not refusals:
            found.insert(rows, self.clock.now(), self.dedup_seconds, self.visible_after_seconds)
        return refusals

    def _start_load(self, table: str, rows: Sequence[OutgoingRow], job_id: str) -> None:
        """What the request for a load job does when it reaches the service."""
        if job_id not in self._job_tables:
            self._job_tables[job_id] = table
            due_at = self.clock.now() + self.load_queued_seconds
            self.queued[job_id] = QueuedLoad(table, tuple(rows), due_at)
            self.land()
        elif self._job_tables[job_id] != table:
            raise SyncError("find the load job of table", table, f"{job_id} belongs to another job")

    def land(self) -> None:
        """Let everything take effect that is due."""
        while self.queued:
            job_id, load = min(self.queued.items(), key=lambda item: item[1].due_at)
            if load.due_at > self.clock.now():
                return
            del self.queued[job_id]
            self.jobs[job_id] = self._run_job(load.table, load.rows)

    def _bill(self, method: Method, table: str, columns: Collection[str] | None) -> None:
        if table in self._tables:
            self.queries.append(Query(method, table, self._tables[table].column_bytes(columns)))

    def _run_job(self, table: str, rows: Sequence[OutgoingRow]) -> SyncError | None:
        """Load all rows, or return why none was."""
        operation = "load rows into table"
        try:
            self._update(operation, table)
        except SyncError as error:
            rest = error.retry_after_seconds
            return JobFailedError(
                operation, table, error.cause, failure=error.failure, retry_after_seconds=rest
            )
        if self._job_faults:
            self.faults_fired["load"] += 1
            return self._job_faults.popleft()
        if not self.dataset_exists or table not in self._tables:
            return self._not_found(operation, table)
        found = self._tables[table]
        lacking = sorted({name for row in rows for name in row.cells if found.column(name) is None})
        if lacking:
            cause = f"no column {', '.join(lacking)}"
            return UnknownColumnError(operation, table, cause, failure=Failure.TRANSIENT)
        for row in rows:
            for name, value in row.cells.items():
                if value is not None and not fits(value, found.columns[name.casefold()].type):
                    return SyncError(operation, table, f"{name}: {value!r} is of another type")
        for row in rows:
            found.append(row, "load", self.clock.now())
        return None

    def _visible(self, table: str) -> list[dict[str, JsonValue]]:
        now = self.clock.now()
        stored = () if table in self.hidden else self.stored(table)
        return [row.cells for row in stored if row.visible_at <= now]


def _again(error: SyncError) -> SyncError:
    """The same error anew: one exception raised twice would collect the tracebacks of both."""
    return type(error)(
        error.operation,
        error.subject,
        error.cause,
        hint=error.hint,
        failure=error.failure,
        retry_after_seconds=error.retry_after_seconds,
    )
