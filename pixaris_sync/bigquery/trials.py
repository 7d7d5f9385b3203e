"""The requests of `inspection`, which change nothing.

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
from pixaris_sync.bigquery.sql import add_columns, all_names
from pixaris_sync.bigquery.wire import read_facts
from pixaris_sync.errors import TableNotFoundError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.ports import DatasetFacts
from pixaris_sync.rules.contract import RUN_NAME_KEY, TABLE_SUFFIX
from pixaris_sync.rules.permissions import TABLES_GET_DATA, TABLES_UPDATE

if TYPE_CHECKING:
    from google.api_core.retry import Retry

#: No table has this name: those of results end otherwise, and nobody would make it.
NO_TABLE: Final = "pixaris_sync_doctor_asks_whether_it_may"
_TABLES_MAX: Final = 1000
_NO_RETRY = cast("Retry", None)


class InspectionCalls(BigQueryCalls):
    """The requests, one blocking method each. Every method raises `SyncError` and its kinds."""

    def facts(self) -> DatasetFacts:
        """Look the dataset up."""
        return read_facts(self._find_dataset().to_api_repr())

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
