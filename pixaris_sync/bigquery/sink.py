"""The `RowSink` on BigQuery.

The client is a blocking one, so every request runs in a worker thread of this sink's own limiter. Layers,
each ignorant of those above:

- this module: threads, cancellation, how long to wait for a load job;
- `glance`: what is asked at first, before Google's client is imported;
- `calls`: the requests;
- `errors`: what their failures mean;
- `wire`, `sql`: pure: JSON on the wire and refusals, statements and types.

Cancellation: reads and statements that change nothing when repeated are abandoned: their thread ends by
itself within the timeout. A request that carries rows is waited for, since an abandoned one could still put
its rows in after somebody had looked for them and sent them again.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from pixaris_sync.bigquery.wire import Address
from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.footprint import importing, trusting_nobody, without
from pixaris_sync.login.login import Login
from pixaris_sync.model import Column, JsonValue, OutgoingRow, RowRefusal, TableMetadata
from pixaris_sync.ports import DatasetFacts

if TYPE_CHECKING:
    import pandas as pd

    from pixaris_sync.bigquery.calls import BigQueryCalls
    from pixaris_sync.bigquery.glance import Glance

_T = TypeVar("_T")

#: Pauses between two looks at a load job: the first, the factor of growth, the longest.
POLL_SECONDS_FIRST = 0.02
POLL_GROWTH = 1.5
POLL_SECONDS_MAX = 2.0

#: What Google's client imports where it is installed, and does without where it is not; all but gRPC are for
#: frames.
OPTIONAL_LIBRARIES = (
    "IPython",
    "db_dtypes",
    "geopandas",
    "google.cloud.bigquery_storage",
    "google.cloud.bigquery_storage_v1",
    "grpc",
    "opentelemetry",
    "pandas",
    "pyarrow",
    "shapely",
    "tqdm",
)


class BigQueryRowSink:
    """A BigQuery dataset as a `RowSink`.

    At most `threads_limit` requests are under way at once. None waits longer than `timeout_seconds` for an
    answer, nor for the end of a load job. Nothing is imported from Google's libraries, and no credentials
    are looked for, before the first call.

    After `load` failed with IN_DOUBT, call it again with the same job id; after any other failure nothing was
    loaded and a later attempt needs a new id.

    Args:
        bq_dataset: ``<project>.<dataset>``, or ``<dataset>`` of `gcp_project`.
        gcp_project: the project that jobs run in.
        emulator_host: URL or ``host:port`` of an emulator, used without credentials; None for the real
            service.
        login: whose requests they are; None for an emulator, or for a login of this sink's own.
        timeout_seconds: the longest wait for an answer.
        job_timeout_seconds: the longest wait for the end of a load job; None: the same.
        threads_limit: the most requests at once.
        frames: `read_table` will be called, which needs pandas. Without, it is not imported.
        glances: that the dataset is there, or a table is not, is seen without Google's client, until that is
            needed.

    Raises:
        ConfigurationError: `bq_dataset` is no dataset's name.
        ValueError: a limit is not positive.
    """

    def __init__(  # noqa: PLR0913 - where, whose, and how much of it, by name
        self,
        bq_dataset: str,
        gcp_project: str,
        *,
        emulator_host: str | None,
        login: Login | None = None,
        timeout_seconds: float,
        job_timeout_seconds: float | None = None,
        threads_limit: int,
        frames: bool = False,
        glances: bool = False,
    ) -> None:
        if timeout_seconds <= 0 or threads_limit <= 0:
            raise ValueError("timeout_seconds and threads_limit must be positive")
        project, _, dataset = bq_dataset.rpartition(".")
        if not dataset or not (project or gcp_project):
            raise ConfigurationError(
                "use dataset", repr(bq_dataset), "it is not of the form project.dataset", hint="correct it"
            )
        self._dataset = dataset
        self._dataset_project = project or gcp_project
        self._billing_project = gcp_project
        self._login = None if emulator_host else login or Login(timeout_seconds=timeout_seconds)
        self._root = _url(emulator_host) if emulator_host else None
        self._timeout = timeout_seconds
        self._job_timeout = timeout_seconds if job_timeout_seconds is None else job_timeout_seconds
        self._limiter = anyio.CapacityLimiter(threads_limit)
        # Where pandas is there already, nothing is saved.
        self._needless = () if frames or "pandas" in sys.modules else OPTIONAL_LIBRARIES
        self._glances = glances
        self._glance: Glance | None = None
        self._glanced_at: set[str] = set()
        self._location: str | None = None
        self._calls: BigQueryCalls | None = None
        self._calls_lock = threading.Lock()

    async def check(self) -> None:
        """See `RowSink.check`."""
        if await self._seen() is None:
            await self._ask(lambda calls: calls.check())

    async def describe(self, table: str) -> TableMetadata | None:
        """See `RowSink.describe`.

        Raises:
            ConfigurationError: the dataset itself is not there.
        """
        if table not in self._glanced_at and (glance := await self._at_first()) is not None:
            # Once: who asks again is about to make it, for which the client is needed.
            self._glanced_at.add(table)
            if await glance.lacks(table):
                return None
        return await self._ask(lambda calls: calls.describe(table))

    async def create_table(self, table: str, columns: Sequence[Column]) -> None:
        """See `RowSink.create_table`."""
        await self._ask(lambda calls: calls.create_table(table, columns))

    async def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        """See `RowSink.add_columns`.

        Raises:
            TableNotFoundError: there is no such table.
        """
        if columns:
            await self._ask(lambda calls: calls.add_columns(table, columns))

    async def widen_columns(self, table: str, columns: Sequence[str]) -> None:
        """See `RowSink.widen_columns`.

        Raises:
            TableNotFoundError: there is no such table.
        """
        if columns:
            await self._ask(lambda calls: calls.widen_columns(table, columns))

    async def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        """See `RowSink.stream`. A refused row means that no row of the request was taken.

        Raises:
            TableNotFoundError: TRANSIENT: nothing was taken.
            SyncError: IN_DOUBT after a server error too: Google says that rows may then be in.
        """
        if not rows:
            return ()
        return await self._write(lambda calls: calls.stream(table, rows))

    async def load(self, table: str, rows: Sequence[OutgoingRow], *, job_id: str) -> None:
        """See `RowSink.load`.

        Raises:
            TableNotFoundError, UnknownColumnError: TRANSIENT: nothing was loaded; the id is used up.
            SyncError: TRANSIENT or QUOTA where the service ended the job for reasons of its own: the id
                is used up then too.
        """
        if not rows:
            return
        load = await self._write(lambda calls: calls.start_load(table, rows, job_id))
        deadline = anyio.current_time() + self._job_timeout
        pause = POLL_SECONDS_FIRST
        while not load.done:
            if anyio.current_time() >= deadline:
                cause = f"load job {job_id} has not ended within {self._job_timeout:g} s"
                raise SyncError("load rows into table", table, cause, failure=Failure.IN_DOUBT)
            await anyio.sleep(pause)
            pause = min(pause * POLL_GROWTH, POLL_SECONDS_MAX)
            await self._ask(lambda calls: calls.poll_load(load))
        await self._ask(lambda calls: calls.finish_load(load))

    async def count_rows(self, table: str, runs: Sequence[str]) -> Mapping[str, int]:
        """See `RowSink.count_rows`; raises as `read_rows` does."""
        return await self._ask(lambda calls: calls.count_rows(table, runs)) if runs else {}

    async def running_loads(self, table: str) -> frozenset[str]:
        """See `RowSink.running_loads`. Jobs of `gcp_project` are looked at, of the last six months."""
        return await self._ask(lambda calls: calls.running_loads(table))

    async def read_rows(self, table: str, runs: Sequence[str]) -> list[Mapping[str, JsonValue]]:
        """See `RowSink.read_rows`.

        Raises:
            ConfigurationError: the dataset itself is not there.
            TableNotFoundError: the table is there, and queries do not find it yet.
        """
        return await self._ask(lambda calls: calls.read_rows(table, runs))

    async def read_table(self, table: str) -> "pd.DataFrame | None":
        """See `RowSink.read_table`; raises as `read_rows` does. Needs `frames`."""
        return await self._ask(lambda calls: calls.read_table(table))

    async def is_filtered(self, table: str) -> bool:
        """See `RowSink.is_filtered`; raises as `read_rows` does. A query tells: it reads the runs' names."""
        return await self._ask(lambda calls: calls.is_filtered(table))

    async def close(self) -> None:
        """See `RowSink.close`."""
        await anyio.to_thread.run_sync(self._disconnect)

    async def _seen(self) -> DatasetFacts | None:
        """How the dataset is set up, if that is seen at a glance."""
        glance = await self._at_first()
        facts = None if glance is None else await glance.dataset()
        if facts is not None:
            self._location = facts.location or None
        return facts

    async def _at_first(self) -> "Glance | None":
        """What looks at the dataset, as long as no client is there."""
        if not self._glances or self._calls is not None:
            return None
        if self._glance is None:
            with importing(), trusting_nobody():
                from pixaris_sync.bigquery.glance import Glance  # noqa: PLC0415 - imports another client

            try:
                # The login's universe may have to be read from a file.
                address = await anyio.to_thread.run_sync(self._address)
            except SyncError:
                return None
            self._glance = Glance(address, self._timeout, self._login)
        return self._glance

    async def _ask(self, request: "Callable[[BigQueryCalls], _T]") -> _T:
        """Run a request that may be abandoned."""
        return await anyio.to_thread.run_sync(
            self._run, request, abandon_on_cancel=True, limiter=self._limiter
        )

    async def _write(self, request: "Callable[[BigQueryCalls], _T]") -> _T:
        """Run a request that carries rows: cancellation waits for its end."""
        return await anyio.to_thread.run_sync(self._run, request, limiter=self._limiter)

    def _run(self, request: "Callable[[BigQueryCalls], _T]") -> _T:
        return request(self._connected())

    def _connected(self) -> "BigQueryCalls":
        with self._calls_lock:
            if self._calls is None:
                # A heavy import, which the start of the program must not wait for.
                with importing(), without(*self._needless):
                    self._calls = self._connect()
            return self._calls

    def _connect(self) -> "BigQueryCalls":
        from pixaris_sync.bigquery.calls import BigQueryCalls  # noqa: PLC0415 - see `_connected`

        return BigQueryCalls(self._address(), self._timeout, self._login, self._location)

    def _address(self) -> Address:
        root = self._root or (self._login.api_root("bigquery") if self._login else "")
        return Address(self._dataset_project, self._dataset, self._billing_project, root)

    def _disconnect(self) -> None:
        with self._calls_lock:
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()


def _url(host: str) -> str:
    return host if "://" in host else f"http://{host}"
