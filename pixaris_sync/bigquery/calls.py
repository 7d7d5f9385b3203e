"""The requests of the warehouse, one blocking method each, on google-cloud-bigquery.

Importing this module imports Google's client libraries, which takes time: `sink` does so in a worker thread
when the first request is due. No method retries; each gives up when an answer stays out longer than the
timeout. Methods may be called from several threads at once.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from google.api_core.client_info import ClientInfo
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import Conflict
from google.cloud import bigquery

from pixaris_sync import USER_AGENT
from pixaris_sync.bigquery import sql
from pixaris_sync.bigquery.connection import ResettingSession
from pixaris_sync.bigquery.errors import failure_of_reason, in_doubt, job_cause, permission_hint, translated
from pixaris_sync.bigquery.wire import (
    INSERT_BYTES_MAX,
    INSERT_ROWS_MAX,
    REASON_STOPPED,
    Address,
    insert_size,
    load_body,
    row_refusals,
    unknown_columns,
    wire_cells,
)
from pixaris_sync.errors import (
    ConfigurationError,
    Failure,
    JobFailedError,
    NameRefusedError,
    SyncError,
    TableNotFoundError,
    UnknownColumnError,
    rest_seconds,
)
from pixaris_sync.login.login import Login
from pixaris_sync.model import Column, ColumnType, JsonValue, OutgoingRow, RowRefusal, TableMetadata
from pixaris_sync.rules.contract import RUN_NAME_KEY
from pixaris_sync.rules.names import JOB_ID_PREFIX, table_id_fault
from pixaris_sync.rules.permissions import TABLES_GET_DATA, TABLES_UPDATE, named_in
from pixaris_sync.text import counted

if TYPE_CHECKING:
    import pandas as pd
    from google.api_core.retry import Retry

_DATASET_HINT = "create the dataset, or correct gcp_bq_experiment_dataset"
_DONE = "DONE"
#: Where the client goes by itself, or to its twin for those who show a client certificate.
_PUBLIC = "https://bigquery.googleapis.com"

#: The client takes None for "do not retry"; its annotations do not say so.
_NO_RETRY = cast("Retry", None)
#: The filter may be repeated (``jobs.list``); the client's annotation knows one alone.
_UNFINISHED = cast("str", ["pending", "running"])


class LoadInProgress:
    """A load job that exists. `done` says whether it had ended when it was last looked at."""

    def __init__(self, job: bigquery.LoadJob, table: str, rows: Sequence[OutgoingRow]) -> None:
        self.job = job
        self.table = table
        self.rows = rows

    @property
    def done(self) -> bool:
        """Whether the job has ended, well or badly."""
        return bool(self.job.state == _DONE)


class BigQueryCalls:
    """Requests to one dataset. Every method raises `SyncError` and its kinds.

    Args:
        address: where to.
        timeout_seconds: the longest wait for an answer.
        login: whose requests they are; None for an emulator.
        location: where the dataset is, if that is known.
    """

    def __init__(
        self, address: Address, timeout_seconds: float, login: Login | None, location: str | None = None
    ) -> None:
        self._address = address
        self._timeout = timeout_seconds
        self._location = location
        with translated("open dataset", str(address), repeatable=True):
            session = ResettingSession(login, timeout_seconds)
            session.configure_mtls_channel()  # type: ignore[no-untyped-call] # it has no annotations
            self._client = bigquery.Client(
                project=address.billing_project,
                credentials=session.credentials,
                client_options=ClientOptions(api_endpoint=None if address.root == _PUBLIC else address.root),
                client_info=ClientInfo(user_agent=USER_AGENT),  # type: ignore[no-untyped-call] # the same
                _http=session,
            )

    def check(self) -> None:
        """Look the dataset up, as `RowSink.check` promises."""
        try:
            self._find_dataset()
        except ConfigurationError:
            raise
        except SyncError as error:
            if error.failure.retryable and error.failure is not Failure.PERMISSION:
                raise
            raise ConfigurationError(
                error.operation, error.subject, error.cause, hint=error.hint, failure=error.failure
            ) from error

    def describe(self, table: str) -> TableMetadata | None:
        """The table's metadata; None where the dataset is there and the table is not."""
        found = self._find_table(table)
        if found is None:
            return None
        columns = (
            Column(field.name, sql.column_type(field.field_type, field.mode)) for field in found.schema
        )
        made_at = found.created.timestamp() if found.created else 0.0
        return TableMetadata(tuple(columns), made_at, found.num_rows or 0, found.num_bytes or 0)

    def create_table(self, table: str, columns: Sequence[Column]) -> None:
        """Create the table unless it exists, clustered by run: asking for a few runs then reads little."""
        self._refuse_other_types("create table", table, columns)
        schema = [bigquery.SchemaField(column.name, column.type.value) for column in columns]
        definition = bigquery.Table(self._reference(table), schema=schema)
        if RUN_NAME_KEY in {column.name for column in columns}:
            definition.clustering_fields = [RUN_NAME_KEY]
        with translated("create table", self._name(table), repeatable=True):
            try:
                self._client.create_table(definition, retry=_NO_RETRY, timeout=self._timeout)
            except Conflict:
                return

    def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        """Add the columns that are missing."""
        self._refuse_other_types("add columns to table", table, columns)
        statement = sql.add_columns(self._path(table), columns)
        self._query("add columns to table", table, statement)

    def widen_columns(self, table: str, columns: Sequence[str]) -> None:
        """Turn INTEGER columns into FLOAT."""
        statement = sql.widen_columns(self._path(table), columns)
        self._query("widen columns of table", table, statement)

    def count_rows(self, table: str, runs: Sequence[str]) -> Mapping[str, int]:
        """How many rows each of these runs has."""
        parameter = bigquery.ArrayQueryParameter(sql.RUNS_PARAMETER, "STRING", list(runs))
        try:
            found = self._query("read rows of table", table, sql.names_of_runs(self._path(table)), parameter)
            with translated("read rows of table", self._name(table), repeatable=True):
                return Counter(row[RUN_NAME_KEY] for row in found)
        except TableNotFoundError:
            self._confirm_absence(table)
        except SyncError as error:
            if error.failure is not Failure.PERMANENT or not self._lacks_run_names(table):
                raise
        return {}

    def running_loads(self, table: str) -> frozenset[str]:
        """Ids of our load jobs into the table that have not ended."""
        reference = self._reference(table)
        with translated("list load jobs of table", self._name(table), repeatable=True):
            jobs = self._client.list_jobs(state_filter=_UNFINISHED, retry=_NO_RETRY, timeout=self._timeout)
            return frozenset(
                job.job_id
                for job in jobs
                if job.job_id.startswith(JOB_ID_PREFIX)
                and isinstance(job, bigquery.LoadJob)
                and job.destination == reference
            )

    def read_rows(self, table: str, runs: Sequence[str]) -> list[Mapping[str, JsonValue]]:
        """The rows of these runs, without NULL cells."""
        parameter = bigquery.ArrayQueryParameter(sql.RUNS_PARAMETER, "STRING", list(runs))
        try:
            found = self._query("read rows of table", table, sql.rows_of_runs(self._path(table)), parameter)
            with translated("read rows of table", self._name(table), repeatable=True):
                return [{k: v for k, v in row.items() if v is not None} for row in found]
        except TableNotFoundError:
            self._confirm_absence(table)
            return []

    def read_table(self, table: str) -> "pd.DataFrame | None":
        """The whole table; None where there is none."""
        try:
            found = self._query("read table", table, sql.whole_table(self._path(table)))
            with translated("read table", self._name(table), repeatable=True):
                return cast("pd.DataFrame", found.to_dataframe(create_bqstorage_client=False))
        except TableNotFoundError:
            self._confirm_absence(table)
            return None

    def is_filtered(self, table: str) -> bool:
        """Whether a query of the table passes a data mask, or a row access policy that hides some rows."""
        try:
            found = self._query("read table", table, sql.all_names(self._path(table)))
        except TableNotFoundError:
            self._confirm_absence(table)
            return False
        if found.job_id is None:
            return False
        with translated("read table", self._name(table), repeatable=True):
            job = self._client.get_job(
                found.job_id, location=found.location, retry=_NO_RETRY, timeout=self._timeout
            )
        statistics = job._properties.get("statistics", {})  # noqa: SLF001 - the client has no name for these
        if statistics.get("dataMaskingStatistics", {}).get("dataMaskingApplied"):
            return True
        if not statistics.get("rowLevelSecurityStatistics", {}).get("rowLevelSecurityApplied"):
            return False
        # The policy may let this account see everything.
        described = self._find_table(table)
        return described is not None and found.total_rows < (described.num_rows or 0)

    def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        """Insert rows by one ``insertAll``."""
        operation, subject = "insert rows into table", self._name(table)
        cells = [wire_cells(row) for row in rows]
        size = insert_size(rows, cells)
        if size > INSERT_BYTES_MAX or len(rows) > INSERT_ROWS_MAX:
            cause = f"{counted(len(rows), 'row')} of {size} bytes: more than BigQuery takes in one request"
            raise SyncError(operation, subject, cause, hint="send fewer rows at once, or by a load job")
        with translated(operation, subject, repeatable=False):
            insert_errors = self._client.insert_rows_json(
                self._reference(table),
                cells,
                row_ids=[row.row_id for row in rows],
                retry=_NO_RETRY,
                timeout=self._timeout,
            )
        return self._refusals(table, rows, insert_errors) if insert_errors else ()

    def start_load(self, table: str, rows: Sequence[OutgoingRow], job_id: str) -> LoadInProgress:
        """Begin the load job, or find the one that has this id already."""
        operation, subject = "load rows into table", self._name(table)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        )
        location = self._find_location()
        body = load_body(rows)
        with translated(operation, subject, repeatable=False):
            try:
                job = self._client.load_table_from_file(
                    io.BytesIO(body),
                    self._reference(table),
                    # Told, so that a small one goes in one request.
                    size=len(body),
                    num_retries=0,
                    job_id=job_id,
                    location=location,
                    job_config=config,
                    timeout=self._timeout,
                )
            except Conflict:
                return self._find_load(table, rows, job_id)
        return LoadInProgress(job, table, rows)

    def poll_load(self, load: LoadInProgress) -> None:
        """Ask how far the job is.

        Raises:
            SyncError: IN_DOUBT whatever goes wrong: the job is under way all the same.
        """
        operation, subject = "follow the load job of table", self._name(load.table)
        with in_doubt(), translated(operation, subject, repeatable=True):
            load.job.reload(retry=_NO_RETRY, timeout=self._timeout)

    def finish_load(self, load: LoadInProgress) -> None:
        """Judge a load job that has ended: return where it loaded its rows.

        Raises:
            TableNotFoundError: there is no such table.
            UnknownColumnError: the table lacks a column that a row needs.
            JobFailedError: the job failed for another reason.
        """
        result = load.job.error_result
        if not result:
            return
        operation, subject = "load rows into table", self._name(load.table)
        reason = result.get("reason") or ""
        cause = job_cause(result, load.job.errors)
        if reason == "notFound":
            raise TableNotFoundError(operation, subject, cause, failure=Failure.TRANSIENT)
        if reason == "invalid":
            columns = self._columns_by_name(load.table)
            lacking = {name for row in load.rows for name in unknown_columns(row, columns)}
            if lacking:
                cause = f"no column {', '.join(sorted(lacking))} ({cause})"
                raise UnknownColumnError(operation, subject, cause, failure=Failure.TRANSIENT)
        # Of a job, "stopped" means that somebody has cancelled it.
        failures = {"accessDenied": Failure.PERMISSION, REASON_STOPPED: Failure.TRANSIENT}
        failure = failures.get(reason) or failure_of_reason(reason, cause) or Failure.PERMANENT
        hint = permission_hint(named_in(cause)) if failure is Failure.PERMISSION else ""
        rest = rest_seconds([reason], None)
        raise JobFailedError(operation, subject, cause, hint=hint, failure=failure, retry_after_seconds=rest)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()  # type: ignore[no-untyped-call] # the client has no annotation here

    def _find_load(self, table: str, rows: Sequence[OutgoingRow], job_id: str) -> LoadInProgress:
        operation, subject = "find the load job of table", self._name(table)
        with in_doubt(), translated(operation, subject, repeatable=True):
            job = self._client.get_job(
                job_id, location=self._find_location(), retry=_NO_RETRY, timeout=self._timeout
            )
        if not isinstance(job, bigquery.LoadJob) or job.destination != self._reference(table):
            raise SyncError(operation, subject, f"the job id {job_id} belongs to another job")
        return LoadInProgress(job, table, rows)

    def _refusals(
        self, table: str, rows: Sequence[OutgoingRow], insert_errors: Sequence[Mapping[str, Any]]
    ) -> tuple[RowRefusal, ...]:
        reasons = {error.get("reason") or "" for entry in insert_errors for error in entry["errors"]}
        if failed := sorted(filter(failure_of_reason, reasons)):
            cause = f"rows came back with {', '.join(failed)}"
            raise SyncError("insert rows into table", self._name(table), cause, failure=Failure.IN_DOUBT)
        columns = self._columns_by_name(table) if reasons - {REASON_STOPPED} else {}
        return row_refusals(insert_errors, rows, columns)

    def _find_table(self, table: str) -> bigquery.Table | None:
        try:
            with translated("look up table", self._name(table), repeatable=True):
                return self._client.get_table(self._reference(table), retry=_NO_RETRY, timeout=self._timeout)
        except TableNotFoundError:
            self._find_dataset()  # its absence is a 404 as well, and another matter
            return None

    def _lacks_run_names(self, table: str) -> bool:
        try:
            return RUN_NAME_KEY not in self._columns_by_name(table)
        except SyncError:
            return False

    def _columns_by_name(self, table: str) -> dict[str, ColumnType]:
        found = self.describe(table)
        if found is None:
            raise TableNotFoundError(
                "look up table", self._name(table), "it is gone", failure=Failure.TRANSIENT
            )
        return {column.name.casefold(): column.type for column in found.columns}

    def _query(
        self, operation: str, table: str, statement: str, *parameters: bigquery.ArrayQueryParameter
    ) -> Any:  # noqa: ANN401 - the client's two kinds of iterator have no common type
        """Run an idempotent statement; its rows as an iterator, which may fetch more pages."""
        # Without a location, a dataset that is not in the US is "not found" while metadata lags.
        location = self._find_location()
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        if parameters:
            config.use_query_cache = False
        # The refusal of a SELECT names the table alone.
        needs = TABLES_GET_DATA if statement.startswith("SELECT") else TABLES_UPDATE
        with translated(operation, self._name(table), repeatable=True, needs=needs):
            return self._client.query_and_wait(
                statement,
                job_config=config,
                location=location,
                api_timeout=self._timeout,
                wait_timeout=self._timeout,
                retry=_NO_RETRY,
                job_retry=_NO_RETRY,
            )

    def _confirm_absence(self, table: str) -> None:
        """Make sure that a query's "not found" means the table: taken for empty, rows would be sent twice."""
        if self._find_table(table) is not None:
            cause = "queries do not find it yet"
            raise TableNotFoundError("read table", self._name(table), cause, failure=Failure.TRANSIENT)

    def _find_dataset(self) -> bigquery.Dataset:
        reference = bigquery.DatasetReference(self._address.project, self._address.dataset)
        try:
            with translated("open dataset", str(self._address), repeatable=True):
                dataset = self._client.get_dataset(reference, retry=_NO_RETRY, timeout=self._timeout)
        except TableNotFoundError as error:
            raise ConfigurationError(
                error.operation, error.subject, "there is no such dataset", hint=_DATASET_HINT
            ) from error
        self._location = dataset.location
        return dataset

    def _find_location(self) -> str | None:
        return self._location or self._find_dataset().location

    def _reference(self, table: str) -> bigquery.TableReference:
        # The client puts the id into a path as it is: a slash or a question mark would change the request.
        if fault := table_id_fault(table):
            raise NameRefusedError(
                "use table", repr(table), f"it {fault}", hint="rename the project or dataset folder"
            )
        return bigquery.DatasetReference(self._address.project, self._address.dataset).table(table)

    def _path(self, table: str) -> str:
        return sql.table_path(self._address.project, self._address.dataset, table)

    def _name(self, table: str) -> str:
        return f"{self._address}.{table}"

    def _refuse_other_types(self, operation: str, table: str, columns: Sequence[Column]) -> None:
        for column in columns:
            if column.type is ColumnType.OTHER:
                cause = f"no type is given for its column {column.name}"
                raise NameRefusedError(operation, self._name(table), cause)
