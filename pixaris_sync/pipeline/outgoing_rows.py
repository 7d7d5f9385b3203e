"""Rows on their way: what they say, how they are told apart, and how many go at once.

Plain functions over plain values; `deliveries` asks the ledger and the service.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.model import Cell, Destination, OutgoingRow, TrackingRecord
from pixaris_sync.rules.contract import cells_of
from pixaris_sync.rules.names import JOB_ID_PREFIX

#: What a row takes in a request beside its cells, at most.
_ENVELOPE_BYTES = 100


class MappedRow(NamedTuple):
    """A row to deliver and what it says."""

    row: PendingRow
    cells: tuple[Cell, ...]

    @property
    def row_id(self) -> str:
        """The same for the same record from any machine: insertId, and part of a load job's id."""
        # Not the table: two datasets that share one can hold equal records.
        run = self.row.run
        identity = "\0".join([run.project, run.dataset, self.row.digest, str(self.row.ordinal)])
        return _short_hash(identity)


def map_row(row: PendingRow, destination: Destination) -> MappedRow:
    """Map a record to its row.

    Raises:
        LocalFileError: a value cannot be carried; see `contract.cells_of`.
    """
    record = TrackingRecord(row.run, json.loads(row.payload), row.digest, row.line)
    return MappedRow(row, cells_of(record, destination))


def job_id(destination: Destination, table: str, row_ids: Sequence[str], sends: int, began_at: float) -> str:
    """A load job's id: another delivery of the same rows is another job.

    The ledger keeps it before the job is begun. Were it made of the rows alone, a job of a ledger that was
    lost would be taken for this one, and its rows may have been removed since.

    Ids are one project's, whatever its datasets: so where the table is belongs to the id.
    """
    identity = [
        destination.bq_project,
        destination.bq_dataset_id,
        table,
        str(sends),
        repr(began_at),
        *sorted(row_ids),
    ]
    return f"{JOB_ID_PREFIX}{_short_hash(chr(0).join(identity))}"


def _short_hash(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def fitting(rows: Sequence[OutgoingRow], bytes_limit: int) -> int:
    """How many rows from the first on fit into a request."""
    total = 0
    for count, row in enumerate(rows):
        total += len(json.dumps(row.cells)) + _ENVELOPE_BYTES
        if total > bytes_limit:
            return count
    return len(rows)
