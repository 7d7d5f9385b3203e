"""The values that every room speaks of: frozen, without I/O, clock or settings.

Names follow Pixaris (project, dataset, run, tracking record) and Google Cloud (object, generation, row).
Every state enum's values are persisted in the ledger and never reused for another meaning.

Values, here and elsewhere, are named tuples or msgspec's structs: the class of one is made in a tenth of the
time of a frozen dataclass or less, and each start makes a hundred. Structs are what equals nothing of another
class, what changes, and what is written out as a document.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from msgspec import Struct

#: What ``json.loads`` can return.
JsonValue = Any

#: The bounds of BigQuery's INTEGER.
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
#: What BigQuery takes for the values of FLOAT that JSON has no number for, by their text in Python.
FLOAT_WORDS: Final = MappingProxyType({"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"})


class DatasetKey(Struct, frozen=True, order=True):
    """A dataset of a project: the folder ``<project>/<dataset>`` and one BigQuery table."""

    project: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.project}/{self.dataset}"


class RunKey(Struct, frozen=True, order=True):
    """A run: the folder ``<project>/<dataset>/<run>``. `run` is its ``experiment_run_name`` in the cloud."""

    project: str
    dataset: str
    run: str

    @property
    def dataset_key(self) -> DatasetKey:
        """The dataset that this run belongs to."""
        return DatasetKey(self.project, self.dataset)

    def __str__(self) -> str:
        return f"{self.project}/{self.dataset}/{self.run}"


class Destination(NamedTuple):
    """Where runs go, by the three names that GCPExperimentHandler takes.

    Attributes:
        gcp_project: the Google Cloud project's id.
        bucket: the bucket's name.
        bq_dataset: as Pixaris users write it, ``<gcp project>.<bigquery dataset>`` or the dataset alone.
    """

    gcp_project: str
    bucket: str
    bq_dataset: str

    @property
    def bq_project(self) -> str:
        """The project that holds the BigQuery dataset: `gcp_project` unless `bq_dataset` names another."""
        return self.bq_dataset.rpartition(".")[0] or self.gcp_project

    @property
    def bq_dataset_id(self) -> str:
        """The BigQuery dataset's bare id."""
        return self.bq_dataset.rpartition(".")[2]


class Problem(NamedTuple):
    """Why something cannot go on, and what to do about it."""

    cause: str
    hint: str


class RunState(StrEnum):
    """Where a run stands. Each run is in exactly one of these."""

    #: Known and not finished; nothing has failed since the last progress.
    PENDING = "pending"
    #: The last attempt failed in a way that a later one may mend; it is scheduled.
    FAILING = "failing"
    #: Somebody must act; the cause and the remedy are recorded. ``retry`` takes it up again.
    QUARANTINED = "quarantined"
    #: A run folder without a tracking line, too old to be still written.
    INCOMPLETE = "incomplete"
    #: A run folder without a tracking line whose row is in the table, and whose files are in the bucket.
    DOWNLOADED = "downloaded"
    #: Every file is in the bucket and every row was read back.
    SYNCED = "synced"


class FileState(StrEnum):
    """Where a file of a run stands."""

    #: To be uploaded.
    PENDING = "pending"
    #: Claimed: an upload may have begun. Found at start, it is in doubt.
    UPLOADING = "uploading"
    #: It may have been uploaded: to be looked up before it is sent again.
    IN_DOUBT = "in_doubt"
    #: In the bucket with the right crc32c.
    UPLOADED = "uploaded"
    #: Somebody must act; the cause and the remedy are recorded.
    QUARANTINED = "quarantined"


class RowState(StrEnum):
    """Where a tracking record's row stands."""

    #: Not known whether the table holds it: the table is asked before anything of its run is sent.
    UNASKED = "unasked"
    #: To be sent once its run's files are in the bucket.
    PENDING = "pending"
    #: The intent to send it is recorded. Found at start, it is in doubt.
    SENDING = "sending"
    #: It may have been sent: to be read back after a settling time before it is sent again.
    IN_DOUBT = "in_doubt"
    #: The service took it; not read back yet.
    ACCEPTED = "accepted"
    #: Read back from the table.
    SYNCED = "synced"
    #: Somebody must act; the cause and the remedy are recorded.
    QUARANTINED = "quarantined"


class DeliveryMethod(StrEnum):
    """How rows reach a table."""

    #: A streaming insert (``tabledata.insertAll``): the steady state.
    STREAM = "stream"
    #: A load job: first rows of a new table, rows that need a new column, bulk.
    LOAD = "load"


class ColumnType(StrEnum):
    """BigQuery column types by their legacy names, which the API answers with. OTHER is any other type."""

    STRING = "STRING"
    BOOLEAN = "BOOLEAN"
    INTEGER = "INTEGER"
    FLOAT = "FLOAT"
    OTHER = "OTHER"


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: ColumnType


class TableMetadata(NamedTuple):
    """What BigQuery tells of a table.

    Attributes:
        columns: in their order.
        made_at: when it was made, in seconds since the epoch, by the service's clock.
        rows, bytes: how much it holds; what was streamed just now may not count yet.
    """

    columns: tuple[Column, ...]
    made_at: float
    rows: int = 0
    bytes: int = 0


class Cell(NamedTuple):
    """A value on its way into a column: `key` as in the record, `type` for a new column, `value` as Python.

    `value` is a ``str``, ``bool``, ``int`` within 64 bits, ``float`` (NaN and infinities included) or
    ``None``; None comes with type STRING.
    """

    key: str
    type: ColumnType
    value: str | bool | int | float | None


class TrackingRecord(NamedTuple):
    """One line of a tracking file.

    Attributes:
        run: the run it tells of, from its ``experiment_run_name``.
        values: the parsed object, in the order of the line.
        digest: hex SHA-256 of the canonical JSON of `values`: the record's identity in its dataset. Equal
            lines are one record: appended twice, restored, merged.
        line: 1-based line number, for messages.
    """

    run: RunKey
    values: Mapping[str, JsonValue]
    digest: str
    line: int


class DamagedLine(Struct, frozen=True):
    """A line of a tracking file from which no record could be read, nor recovered.

    `digest` is the hex SHA-256 of its bytes, `line` its 1-based number, `cause` what is wrong with it.
    """

    digest: str
    line: int
    cause: str


class TailPosition(Struct, frozen=True):
    """How far a tracking file has been read: whole lines only.

    Attributes:
        device, inode: which file it was.
        size, mtime_ns: what it looked like then; where nothing differs, nothing needs to be read.
        offset: bytes consumed.
        line: lines consumed.
        digest: hex SHA-256 of the `offset` bytes consumed, to notice a file rewritten in place.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    offset: int
    line: int
    digest: str


class Tail(NamedTuple):
    """What one reading of a tracking file brought.

    Attributes:
        position: where the next reading goes on; commit it together with the records.
        from_start: the file was read from its first byte (first time, truncated, rotated or rewritten), so
            records seen before are among these.
        records: in file order; those recovered from a run's ``args.json`` included.
        damaged: lines that stay unreadable.
        torn_bytes: length of an unfinished last line, 0 where the file ends with a newline.
        more: there is more to read: call again with `position`.
        changed_ns: when the file last changed, its times included, in ns since the epoch.
    """

    position: TailPosition
    from_start: bool
    records: tuple[TrackingRecord, ...]
    damaged: tuple[DamagedLine, ...]
    torn_bytes: int
    more: bool
    changed_ns: int = 0


class RecordFiles(NamedTuple):
    """The files of a run that a tracking record names.

    Attributes:
        saved: run-relative names (``<key>.png`` or ``<key>.json``) of args saved as files.
        inline: run-relative name to content, for dict metrics that stand inline in the record.
    """

    saved: tuple[str, ...]
    inline: Mapping[str, bytes]


class FileVersion(NamedTuple):
    """What tells one version of a file from another: size in bytes, mtime in ns, inode number.

    Content that stood inline in the record has no local file, so neither mtime nor inode: `content_crc32c`
    tells its versions apart. Of a local file that is None.
    """

    size: int
    mtime_ns: int
    inode: int
    content_crc32c: int | None = None


class FoundFile(NamedTuple):
    """A file to upload: a local one by its version, or one whose `content` stood inline in the record.

    `path` is relative to the run's folder, with slashes.
    """

    path: str
    version: FileVersion
    content: bytes | None = None


class RemoteObject(Struct, frozen=True):
    """An object as GCS tells of it.

    Attributes:
        name, size, generation: as they are told.
        crc32c: checksum as an unsigned 32-bit integer; None: not told.
        metadata: texts of its writer's own, where it was looked up; None: not told, or none.
    """

    name: str
    size: int
    crc32c: int | None
    generation: int
    metadata: Mapping[str, str] | None = None


class OutgoingRow(NamedTuple):
    """A row to send. `row_id` is its insertId; `cells` are JSON values by column name, NULLs left out."""

    row_id: str
    cells: Mapping[str, JsonValue]


class RowRefusal(Struct, frozen=True):
    """Why the service did not take a row of a request that it answered with 200.

    `index` is the row's place in the request. `stopped` rows had nothing wrong: only a neighbour had.
    """

    index: int
    cause: str
    stopped: bool
    unknown_column: bool = False
