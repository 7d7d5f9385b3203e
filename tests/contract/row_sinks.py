"""The row sinks that the contract suite runs against: the fake, emulators, the real service."""

import enum
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.bigquery.sql import column_type
from pixaris_sync.errors import TableNotFoundError
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow
from pixaris_sync.ports import RowSink
from tests.contract.bigquery import EmulatedBigQuery
from tests.fakes.clock import ManualClock
from tests.fakes.row_sink import FakeRowSink
from tests.support.installed_emulators import LOCAL_BIGQUERY

RUN = Column("experiment_run_name", ColumnType.STRING)
SCORE = Column("score", ColumnType.FLOAT)
STEPS = Column("steps", ColumnType.INTEGER)
GOOD = Column("good", ColumnType.BOOLEAN)
NOTE = Column("note", ColumnType.STRING)

#: Fields as the API describes them: name, type, mode.
ApiField = tuple[str, str, str]

#: The BigQuery dataset that the contract suite may make tables in, in the project for real tests.
REAL_DATASET = os.environ.get("PIXARIS_SYNC_TEST_BQ_DATASET")


class Capability(enum.StrEnum):
    """What the service does and an emulator may not."""

    SEVERAL_TYPES_AT_ONCE = "one statement changes the types of several columns"


#: What was seen instead, by backend. A test that needs it is run all the same, and has to fail.
DIFFERENCES: Mapping[str, Mapping[Capability, str]] = {
    LOCAL_BIGQUERY: {Capability.SEVERAL_TYPES_AT_ONCE: "it does not understand such a statement"},
}

_numbers = itertools.count()
_LOOK_AGAIN_SECONDS = 2.0


def row(row_id: str, run: str = "run", **cells: JsonValue) -> OutgoingRow:
    """A row of `run` with these cells."""
    return OutgoingRow(row_id, {"experiment_run_name": run, **cells})


@dataclass
class SinkUnderTest:
    """A sink and what a test cannot do through it.

    Attributes:
        sink: an open one, whose dataset exists.
        dataless: one whose dataset does not exist.
        make_table: creates a table with any fields, as somebody else would.
        clustering: the columns that the service says a table is clustered by; None: it does not say.
        patience_seconds: how long what was sent may take to be seen, and a new table or column to be
            known to streaming.
        tables: the ids given out, to be cleared away.
    """

    sink: RowSink
    dataless: RowSink
    make_table: Callable[[str, Sequence[ApiField]], None]
    clustering: Callable[[str], Sequence[str] | None]
    patience_seconds: float
    tables: list[str] = field(default_factory=list)

    def new_table_id(self) -> str:
        """A table id that nobody used before."""
        self.tables.append(f"contract_{int(time.time())}_{os.getpid()}_{next(_numbers)}")
        return self.tables[-1]

    async def table(self, *columns: Column) -> str:
        """A new table with these columns."""
        table = self.new_table_id()
        await self.sink.create_table(table, columns)
        return table

    async def columns(self, table: str) -> tuple[Column, ...] | None:
        """A table's columns; None where there is no such table."""
        found = await self.sink.describe(table)
        return found and found.columns

    async def streaming_table(self, *columns: Column) -> str:
        """A new table that streaming knows and no longer loses rows of: it has shown a first row."""
        table = await self.table(*columns)
        probe = f"probe of {table}"
        probe_row = row(probe, probe)

        async def shown() -> bool:
            return bool(await self.sink.read_rows(table, [probe]))

        while self.patience_seconds and not await shown():
            with suppress(TableNotFoundError):
                await self.sink.stream(table, [probe_row])
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
        return table

    async def rows(self, table: str, *runs: str, at_least: int = 0) -> list[Mapping[str, JsonValue]]:
        """The rows of these runs once there are `at_least` so many, or at the end of patience."""
        found: list[Mapping[str, JsonValue]] = []

        async def enough() -> bool:
            found[:] = await self.sink.read_rows(table, runs)
            return len(found) >= at_least

        await self.eventually(enough)
        return found

    async def eventually(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Whether the condition comes true while patience lasts; it is asked once at least."""
        deadline = anyio.current_time() + self.patience_seconds
        while not await condition():
            if anyio.current_time() >= deadline:
                return False
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
        return True


def fake_sink() -> SinkUnderTest:
    """The fake, without delays."""
    sink, dataless = FakeRowSink(ManualClock()), FakeRowSink(ManualClock())
    dataless.dataset_exists = False

    def make_table(table: str, fields: Sequence[ApiField]) -> None:
        sink.put_table(table, [Column(name, column_type(kind, mode)) for name, kind, mode in fields])

    return SinkUnderTest(sink, dataless, make_table, lambda _: None, patience_seconds=0)


def emulated_sink(emulator: EmulatedBigQuery) -> SinkUnderTest:
    """The real adapter on an emulator."""

    def make_table(table: str, fields: Sequence[ApiField]) -> None:
        reference = {"projectId": emulator.project, "datasetId": emulator.dataset, "tableId": table}
        schema = {"fields": [_api_field(*one) for one in fields]}
        path = f"datasets/{emulator.dataset}/tables"
        emulator.request("POST", path, {"tableReference": reference, "schema": schema})

    def clustering(table: str) -> Sequence[str] | None:
        told = emulator.request("GET", f"datasets/{emulator.dataset}/tables/{table}")
        fields: Sequence[str] | None = told.get("clustering", {}).get("fields")
        return fields

    def sink(dataset: str) -> BigQueryRowSink:
        return BigQueryRowSink(
            dataset,
            emulator.project,
            emulator_host=emulator.running.url,
            timeout_seconds=30,
            threads_limit=4,
            frames=True,
        )

    dataset = f"{emulator.project}.{emulator.dataset}"
    return SinkUnderTest(sink(dataset), sink("not_there"), make_table, clustering, patience_seconds=0)


def real_sink(project: str, dataset: str) -> SinkUnderTest:
    """The real adapter on the real service."""

    def make_table(table: str, fields: Sequence[ApiField]) -> None:
        from google.cloud import bigquery  # noqa: PLC0415 - heavy, and only here

        with bigquery.Client(project=project) as client:
            reference = bigquery.DatasetReference(project, dataset).table(table)
            schema = [bigquery.SchemaField.from_api_repr(_api_field(*one)) for one in fields]
            client.create_table(bigquery.Table(reference, schema=schema), timeout=60)

    def clustering(table: str) -> Sequence[str] | None:
        from google.cloud import bigquery  # noqa: PLC0415 - the same

        with bigquery.Client(project=project) as client:
            reference = bigquery.DatasetReference(project, dataset).table(table)
            fields: Sequence[str] | None = client.get_table(reference, timeout=60).clustering_fields
            return fields

    def sink(name: str) -> BigQueryRowSink:
        return BigQueryRowSink(
            name, project, emulator_host=None, timeout_seconds=60, threads_limit=4, frames=True
        )

    return SinkUnderTest(sink(dataset), sink("not_there"), make_table, clustering, patience_seconds=300)


def drop_real_tables(project: str, dataset: str, tables: Sequence[str]) -> None:
    """Delete what a test made in the real dataset."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy, and only here

    with bigquery.Client(project=project) as client:
        for table in tables:
            reference = bigquery.DatasetReference(project, dataset).table(table)
            client.delete_table(reference, not_found_ok=True, timeout=60)


def _api_field(name: str, kind: str, mode: str) -> dict[str, object]:
    inner = {"fields": [{"name": "part", "type": "STRING"}]} if kind == "RECORD" else {}
    return {"name": name, "type": kind, "mode": mode, **inner}
