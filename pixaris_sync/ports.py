"""The outside worlds, as the engine sees them. Adapters implement these; one contract suite holds them to it.

Every method that talks to a service raises `SyncError` with the failure kind set, and nothing else but
cancellation. Adapters do not retry: one place does (the pipeline, with the next time in the ledger).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pixaris_sync.model import Column, JsonValue, OutgoingRow, RemoteObject, RowRefusal, TableMetadata

if TYPE_CHECKING:
    import pandas as pd


#: The service's largest page of a listing (the JSON API's ``maxResults``).
LIST_PAGE_OBJECTS: Final = 1000
#: Pages of objects; to be closed by whoever does not go through all of them.
Listing = AsyncGenerator[Sequence[RemoteObject], None]


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> float:
        """Seconds since the epoch; may jump."""
        ...

    def elapsed(self) -> float:
        """Seconds since some moment: never jumps, and goes on while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a cancellation point even for 0."""
        ...


class ByteSource(Protocol):
    """A file to upload in pieces."""

    @property
    def size(self) -> int:
        """Its length in bytes when the upload was planned."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only at the end of the file.

        Raises:
            LocalFileError: the file is gone, or no longer the version that was planned.
        """
        ...


class ObjectStore(Protocol):
    """A bucket."""

    async def check(self) -> None:
        """Make sure that the bucket is there and may be used.

        Raises:
            ConfigurationError: it is not there, or credentials are missing or refused.
            SyncError: it could not be asked (transient).
        """
        ...

    async def upload(
        self,
        name: str,
        content: bytes,
        *,
        content_type: str,
        crc32c: int,
        if_generation: int,
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """Create or replace an object in one request; the service checks `crc32c`, the answer's is compared.

        Args:
            name: the object's name.
            content: all of it.
            content_type: its MIME type.
            crc32c: checksum of `content` as an unsigned 32-bit integer.
            if_generation: the generation to replace, 0 where no object may exist yet.
            metadata: texts of the writer's own that `stat` and `list` tell again.

        Raises:
            ObjectConflictError: the object's generation is another (412).
            SyncError: anything else, with its failure kind.
        """
        ...

    async def upload_resumable(
        self,
        name: str,
        source: ByteSource,
        *,
        content_type: str,
        crc32c: int,
        if_generation: int,
        session_uri: str | None,
        on_session: Callable[[str], Awaitable[None]],
        metadata: Mapping[str, str] | None = None,
    ) -> RemoteObject:
        """Create or replace an object through a resumable session, in chunks of bounded memory.

        Args:
            name: the object's name.
            source: where the bytes come from.
            content_type: its MIME type.
            crc32c: checksum of the whole content, sent when the session begins.
            if_generation: the generation to replace, 0 where no object may exist yet.
            session_uri: a session begun earlier for the same content, to go on with; one that has
                expired is replaced by a new one.
            on_session: awaited with the URI of a session begun here, before any byte is sent.
            metadata: as of `upload`.

        Raises:
            ObjectConflictError: the object's generation is another (412).
            SyncError: anything else, with its failure kind.
        """
        ...

    async def stat(self, name: str) -> RemoteObject | None:
        """Look one object up; None when it does not exist."""
        ...

    def list(self, prefix: str, *, start: str = "", end: str = "") -> Listing:
        """List all objects whose names start with `prefix`, a page at a time, in name order.

        `start` and `end`: names before the first, and from the second on, may be left out.
        A bucket that is encrypted with a key of its owner's tells no checksums here; `stat` tells them.
        """
        ...

    def folders(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        """List what object names have between `prefix` and the next slash, a page at a time, in name order.

        Each is told once, however many objects are below it; names without a further slash are left out.
        """
        ...

    async def download(self, found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
        """Read the content of an object as it was listed or looked up, and compare its checksum.

        Args:
            found: the object; another generation of it is another object.
            write: awaited with one piece after the other, none larger than 256 KiB. It raises `SyncError`
                alone, as `ByteSource.read` does, which ends the download.

        Raises:
            ObjectGoneError: it was deleted or replaced, or there is no such bucket.
            SyncError: TRANSIENT: what came is not what was stored, or it could not be read; else with its
                failure kind. What was written is of no use.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Safe to call twice."""
        ...


class RowSink(Protocol):
    """A BigQuery dataset. `table` is always a bare table id within it."""

    async def check(self) -> None:
        """Make sure that the dataset is there and may be used.

        Raises:
            ConfigurationError: it is not there, or credentials are missing or refused.
            SyncError: it could not be asked (transient).
        """
        ...

    async def describe(self, table: str) -> TableMetadata | None:
        """The table's columns and when it was made; None when there is no such table."""
        ...

    async def create_table(self, table: str, columns: Sequence[Column]) -> None:
        """Create the table with NULLABLE columns; do nothing where it exists already."""
        ...

    async def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        """Add the columns that are not there yet, in one statement."""
        ...

    async def widen_columns(self, table: str, columns: Sequence[str]) -> None:
        """Turn INTEGER columns into FLOAT; one that is FLOAT already stays."""
        ...

    async def stream(self, table: str, rows: Sequence[OutgoingRow]) -> tuple[RowRefusal, ...]:
        """Insert rows by streaming, insertId = row_id. Rows without a refusal were accepted.

        Raises:
            TableNotFoundError: the table is not there, or not there yet.
            SyncError: the whole request failed; IN_DOUBT where rows may have been taken all the same.
        """
        ...

    async def load(self, table: str, rows: Sequence[OutgoingRow], *, job_id: str) -> None:
        """Append rows by one load job and wait for its end: all rows or none.

        A job of that id which exists already is found again and waited for instead.

        Raises:
            JobFailedError, TableNotFoundError, UnknownColumnError: the job ended with an error: nothing was
                loaded, and the id is used up.
            SyncError: IN_DOUBT where its end is not known. With any other failure kind no job was begun
                here; one begun earlier under this id may have ended well all the same.
        """
        ...

    async def count_rows(self, table: str, runs: Sequence[str]) -> Mapping[str, int]:
        """How many rows each of these experiment_run_names has, as can be read now; those with none left out.

        It reads no other column. Empty when the table does not exist, or has no such column.
        """
        ...

    async def running_loads(self, table: str) -> frozenset[str]:
        """Ids of load jobs that `load` began for the table, in any process, and that have not ended.

        Raises:
            SyncError: PERMISSION: this account may not list jobs.
        """
        ...

    async def read_rows(self, table: str, runs: Sequence[str]) -> list[Mapping[str, JsonValue]]:
        """All rows of these experiment_run_names as they can be read now, NULL cells left out.

        An empty list when the table does not exist.
        """
        ...

    async def read_table(self, table: str) -> "pd.DataFrame | None":
        """The whole table as a frame, as Pixaris reads it; None when there is no such table."""
        ...

    async def is_filtered(self, table: str) -> bool:
        """Whether a row access policy hides rows of the table from this account, or a data mask their names.

        Then a row that does not show may be there all the same. False when there is no such table.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Safe to call twice."""
        ...


class BucketFacts(NamedTuple):
    """How a bucket is set up, as far as it matters to what is carried there.

    Attributes:
        location: where it is, such as ``EU``.
        retention_seconds: how long an object can neither be replaced nor deleted; 0: no such policy.
        holds_by_default: a new object is under a hold, which ends when somebody ends it.
        requester_pays: readers and writers are to pay.
        key: the customer-managed key that new objects are encrypted with; empty: Google's own.
        deleting_rules: lifecycle rules that delete what is carried there, each in words.
    """

    location: str
    retention_seconds: int = 0
    holds_by_default: bool = False
    requester_pays: bool = False
    key: str = ""
    deleting_rules: tuple[str, ...] = ()


class BucketInspection(Protocol):
    """Questions about a bucket that change nothing in it."""

    async def facts(self) -> BucketFacts:
        """How the bucket is set up.

        Raises:
            ConfigurationError: there is no such bucket, or the credentials are refused.
            SyncError: PERMISSION: this account may not look; else it could not be asked.
        """
        ...

    async def held_permissions(self, permissions: Collection[str]) -> frozenset[str]:
        """Those of these IAM permissions that the account has on the bucket.

        One that a role gives under a condition on objects' names is not among them.

        Raises:
            SyncError: as `facts` does.
        """
        ...

    async def service_time(self) -> float | None:
        """The service's clock in seconds since the epoch; None: it does not tell. Credentials do not matter.

        Raises:
            SyncError: there is no answer.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Safe to call twice."""
        ...


class DatasetFacts(NamedTuple):
    """How a BigQuery dataset is set up, as far as it matters to what is carried there.

    Attributes:
        location: where it is, such as ``EU``.
        table_seconds: after how many seconds a table that is made now is deleted; None: it stays.
        partition_seconds: the same of the partitions of tables that are partitioned.
        key: the customer-managed key that new tables are encrypted with; empty: Google's own.
        read_only: it shows tables of elsewhere (``LINKED``, ``EXTERNAL``), and none can be made in it.
    """

    location: str
    table_seconds: float | None = None
    partition_seconds: float | None = None
    key: str = ""
    read_only: bool = False


class DatasetInspection(Protocol):
    """Questions about a BigQuery dataset that change nothing in it.

    The methods named ``try_`` send what the engine would send, in a way in which it is judged and not done.
    They raise `SyncError`, PERMISSION where the account may not, and return whether it was judged: an
    emulator may do what it should only judge, and then is not asked.
    """

    async def facts(self) -> DatasetFacts:
        """How the dataset is set up.

        Raises:
            ConfigurationError: there is no such dataset, or the credentials are missing or refused.
            SyncError: PERMISSION: this account may not look; else it could not be asked.
        """
        ...

    async def expiring_tables(self) -> tuple[str, ...]:
        """Tables of results, of the first thousand in the dataset, that will be deleted at a set time."""
        ...

    async def try_look_up(self) -> bool:
        """Look a table up that is not there."""
        ...

    async def try_query(self) -> bool:
        """Begin a query job (dry run)."""
        ...

    async def try_create(self) -> bool:
        """Create a table (dry run)."""
        ...

    async def try_read(self) -> bool:
        """Read a table that is not there (dry run)."""
        ...

    async def try_alter(self) -> bool:
        """Add a column to a table that is not there (dry run)."""
        ...

    async def try_stream(self) -> bool:
        """Stream a row into a table that is not there."""
        ...

    async def close(self) -> None:
        """Give connections back. Safe to call twice."""
        ...
