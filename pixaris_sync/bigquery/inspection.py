"""Questions about a dataset that change nothing in it, for who wants to know whether it is set up well.

A dataset has no call that tells what an account may do in it. So the engine's own requests are sent in ways
in which they are judged and not done: statements as dry runs, for which the same permissions are needed; all
else about a table that is not there, which a service that would allow it answers with 404.

``tables.testIamPermissions`` tells nothing of a table that is not there, and nothing of the dataset.

Sources: the reference of ``datasets.get`` and of ``jobs.query`` (``dryRun``); "Run a dry run". That a dry run
gets no job id tells a service that knows them from one that would do what it is asked. Streaming into a table
whose name others use would let the service keep in mind for a while that it is not there: so nobody uses it.
"""

from typing import TYPE_CHECKING, Final, cast

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from pixaris_sync.bigquery.calls import BigQueryCalls
from pixaris_sync.bigquery.errors import translated
from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.bigquery.sql import add_columns, all_names
from pixaris_sync.errors import TableNotFoundError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.ports import DatasetFacts
from pixaris_sync.rules.contract import RUN_NAME_KEY, TABLE_SUFFIX
from pixaris_sync.rules.permissions import TABLES_GET_DATA, TABLES_UPDATE

if TYPE_CHECKING:
    from google.api_core.retry import Retry

#: No table has this name: those of results end otherwise, and nobody would make it.
NO_TABLE: Final = "pixaris_sync_doctor_asks_whether_it_may"
_READ_ONLY: Final = frozenset({"LINKED", "EXTERNAL"})
_TABLES_MAX: Final = 1000
_MS_PER_SECOND: Final = 1000
_NO_RETRY = cast("Retry", None)


class InspectionCalls(BigQueryCalls):
    """The requests, one blocking method each. Every method raises `SyncError` and its kinds."""

    def facts(self) -> DatasetFacts:
        """Look the dataset up."""
        found = self._find_dataset()
        expiration, of_partitions = found.default_table_expiration_ms, found.default_partition_expiration_ms
        encryption = found.default_encryption_configuration
        return DatasetFacts(
            location=found.location or "",
            table_seconds=expiration / _MS_PER_SECOND if expiration else None,
            partition_seconds=of_partitions / _MS_PER_SECOND if of_partitions else None,
            key=(encryption.kms_key_name or "") if encryption else "",
            read_only=found.to_api_repr().get("type") in _READ_ONLY,
        )

    def expiring_tables(self) -> tuple[str, ...]:
        """List the tables that have an end."""
        with translated("list tables of dataset", str(self._address), repeatable=True):
            listed = self._client.list_tables(
                bigquery.DatasetReference(self._address.project, self._address.dataset),
                max_results=_TABLES_MAX,
                retry=_NO_RETRY,
                timeout=self._timeout,
            )
            return tuple(
                table.table_id
                for table in listed
                if table.expires and table.table_id.endswith(f"_{TABLE_SUFFIX}")
            )

    def try_look_up(self) -> bool:
        """Look up the table that is not there."""
        self.describe(NO_TABLE)
        return True

    def try_statement(self, statement: str, location: str | None = None, needs: str = "") -> bool:
        """Let a statement be judged, where `location` is; False: the service would do it.

        `needs` as of `translated`.
        """
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        subject = f"project {self._address.billing_project}"
        with translated("begin a job in", subject, repeatable=True, needs=needs):
            answer = self._client.query_and_wait(
                statement,
                job_config=config,
                location=location,
                api_timeout=self._timeout,
                wait_timeout=self._timeout,
                retry=_NO_RETRY,
                job_retry=_NO_RETRY,
            )
            return answer.job_id is None

    def try_create(self) -> bool:
        """Let the making of a table be judged, where statements are."""
        # Asked first, and harmless if it is done: this service may be one that does the other, too.
        statement = f"CREATE TABLE {self._path(NO_TABLE)} ({RUN_NAME_KEY} STRING)"
        return self.try_statement("SELECT 1") and self.try_statement(statement, self._find_location())

    def try_read(self) -> bool:
        """Let a query of the table that is not there be judged."""
        return self._try_on_no_table(all_names(self._path(NO_TABLE)), TABLES_GET_DATA)

    def try_alter(self) -> bool:
        """Let a change of the table that is not there be judged."""
        column = Column(RUN_NAME_KEY, ColumnType.STRING)
        return self._try_on_no_table(add_columns(self._path(NO_TABLE), [column]), TABLES_UPDATE)

    def _try_on_no_table(self, statement: str, needs: str) -> bool:
        try:
            return self.try_statement(statement, self._find_location(), needs)
        except TableNotFoundError:
            return True

    def try_stream(self) -> bool:
        """Stream into the table that is not there."""
        with translated("stream into dataset", str(self._address), repeatable=True):
            try:
                self._client.insert_rows_json(
                    self._reference(NO_TABLE),
                    [{RUN_NAME_KEY: NO_TABLE}],
                    retry=_NO_RETRY,
                    timeout=self._timeout,
                )
            except NotFound:
                return True
        return False


class BigQueryDatasetInspection(BigQueryRowSink):
    """A dataset as a `DatasetInspection`; arguments as of `BigQueryRowSink`."""

    async def facts(self) -> DatasetFacts:
        """See `DatasetInspection.facts`."""
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

    def _connect(self) -> InspectionCalls:
        return InspectionCalls(self._address(), self._timeout, self._login)


def _of(calls: BigQueryCalls) -> InspectionCalls:
    return cast("InspectionCalls", calls)
