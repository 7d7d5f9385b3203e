"""How many operations an apply of a plan takes: those of a look are counted, the others follow from it."""

from collections.abc import Sequence
from typing import Any, Final, cast

from msgspec import Struct, field

from pixaris_sync.model import RemoteObject, TableMetadata
from pixaris_sync.pipeline.context import ASK_ROWS_LIMIT
from pixaris_sync.pipeline.forecast import Forecast, TablePlan
from pixaris_sync.ports import Listing, ObjectStore, RowSink
from pixaris_sync.rules.prices import QUERY_BYTES_MIN, Operations

#: What a text takes in a column beside its characters.
_TEXT_BYTES: Final = 2


class Asked(Struct):
    """What a look has asked so far.

    Attributes:
        listings: pages of listings.
        lookups: objects that were looked up.
        queries, query_bytes: how many, and what they bill.
        tables: what is known of each table that was looked at.
        name_bytes: the longest name of a run that was asked for, as a column holds it.
    """

    listings: int = 0
    lookups: int = 0
    queries: int = 0
    query_bytes: int = 0
    tables: dict[str, TableMetadata | None] = field(default_factory=dict)
    name_bytes: int = 0

    def names_queried(self, table: str, *, rows_more: int = 0) -> None:
        """Count a query that reads the names of runs of a whole table, which has got so many more rows."""
        found = self.tables.get(table)
        rows = (found.rows if found else 0) + rows_more
        self._queried(rows * self.name_bytes)

    def rows_queried(self, table: str) -> None:
        """Count a query that reads all columns of a table."""
        found = self.tables.get(table)
        self._queried(found.bytes if found else 0)

    def _queried(self, read_bytes: int) -> None:
        self.queries += 1
        self.query_bytes += max(QUERY_BYTES_MIN, read_bytes)

    def store(self, store: ObjectStore) -> ObjectStore:
        """A bucket of which is counted what it is asked."""
        return cast("ObjectStore", _CountedStore(store, self))

    def sink(self, sink: RowSink) -> RowSink:
        """A BigQuery dataset of which is counted what it is asked."""
        return cast("RowSink", _CountedSink(sink, self))


class _CountedStore:
    def __init__(self, store: ObjectStore, asked: Asked) -> None:
        self._store = store
        self._asked = asked

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the bucket has
        return getattr(self._store, name)

    async def stat(self, name: str) -> RemoteObject | None:
        self._asked.lookups += 1
        return await self._store.stat(name)

    async def list(self, prefix: str, *, start: str = "", end: str = "") -> Listing:
        # What holds nothing is a page, too.
        self._asked.listings += 1
        pages = 0
        async for page in self._store.list(prefix, start=start, end=end):
            pages += 1
            self._asked.listings += pages > 1
            yield page


class _CountedSink:
    def __init__(self, sink: RowSink, asked: Asked) -> None:
        self._sink = sink
        self._asked = asked

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the dataset has
        return getattr(self._sink, name)

    async def describe(self, table: str) -> TableMetadata | None:
        found = self._asked.tables[table] = await self._sink.describe(table)
        return found

    async def count_rows(self, table: str, runs: Sequence[str]) -> Any:  # noqa: ANN401 - as the port
        longest = max(len(name.encode()) for name in runs) + _TEXT_BYTES
        self._asked.name_bytes = max(self._asked.name_bytes, longest)
        self._asked.names_queried(table)
        return await self._sink.count_rows(table, runs)

    async def read_rows(self, table: str, runs: Sequence[str]) -> Any:  # noqa: ANN401 - as the port
        self._asked.rows_queried(table)
        return await self._sink.read_rows(table, runs)

    async def is_filtered(self, table: str) -> bool:
        self._asked.names_queried(table)
        return await self._sink.is_filtered(table)


def operations_of(forecast: Forecast, asked: Asked) -> Operations:
    """What an apply asks of the cloud: it looks as this look did, and works, which looks once more.

    Args:
        forecast: what would be done.
        asked: what the look that it comes from has asked.
    """
    looks = Asked(tables=asked.tables, name_bytes=asked.name_bytes)
    for table, plan in forecast.tables.items():
        _read_back(table, plan, looks)
    files = forecast.document["files"]
    assert isinstance(files, int)  # noqa: S101 - a count
    return Operations(
        uploads=files,
        listings=2 * asked.listings,
        # The check before the work asks for the bucket, and so does the first work of a ledger.
        lookups=2 * asked.lookups + 1 + forecast.checks_destination,
        load_jobs=sum(len(plan.loads) for plan in forecast.tables.values()),
        queries=2 * asked.queries + looks.queries,
        query_bytes=2 * asked.query_bytes + looks.query_bytes,
    )


def _read_back(table: str, plan: TablePlan, looks: Asked) -> None:
    """Count what it takes to read rows back: each load job's, many at once."""
    there = 0
    for rows in plan.loads:
        there += rows
        for _ in range(0, rows, ASK_ROWS_LIMIT):
            looks.names_queried(table, rows_more=there)
            if plan.is_shared:
                looks.rows_queried(table)
