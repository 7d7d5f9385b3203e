"""Questions about a dataset that change nothing in it, for who wants to know whether it is set up well.

`trials` asks them by Google's client, which is imported when the first is due that `glance` cannot see.
"""

from typing import TYPE_CHECKING, cast

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.ports import DatasetFacts

if TYPE_CHECKING:
    from pixaris_sync.bigquery.calls import BigQueryCalls
    from pixaris_sync.bigquery.trials import InspectionCalls


class BigQueryDatasetInspection(BigQueryRowSink):
    """A dataset as a `DatasetInspection`; arguments as of `BigQueryRowSink`."""

    async def facts(self) -> DatasetFacts:
        """See `DatasetInspection.facts`."""
        if (seen := await self._seen()) is not None:
            return seen
        return await self._ask(lambda calls: _of(calls).facts())

    async def expiring_tables(self) -> tuple[str, ...]:
        """See `DatasetInspection.expiring_tables`."""
        return await self._ask(lambda calls: _of(calls).expiring_tables())

    async def try_look_up(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_look_up())

    async def try_query(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_statement("SELECT 1"))

    async def try_create(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_create())

    async def try_read(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_read())

    async def try_alter(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_alter())

    async def try_stream(self) -> bool:
        """See `DatasetInspection`."""
        return await self._ask(lambda calls: _of(calls).try_stream())

    def _connect(self) -> "InspectionCalls":
        from pixaris_sync.bigquery.trials import InspectionCalls  # noqa: PLC0415 - imports the client

        return InspectionCalls(self._address(), self._timeout, self._login, self._location)


def _of(calls: "BigQueryCalls") -> "InspectionCalls":
    return cast("InspectionCalls", calls)
