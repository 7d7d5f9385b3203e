"""Rows on their way: what they say, how they are told apart, and which of them a table shows.

Plain functions over plain values; `deliveries` asks the ledger and the service.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixaris_sync.ledger.rows import PendingRow
from pixaris_sync.model import Cell, DatasetKey, Destination, JsonValue, OutgoingRow, RunKey, TrackingRecord
from pixaris_sync.rules.contract import RUN_NAME_KEY, cells_of
from pixaris_sync.rules.readback import same_record

#: What a row takes in a request beside its cells, at most.
_ENVELOPE_BYTES = 100


@dataclass(frozen=True, slots=True)
class MappedRow:
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


def map_row(row: PendingRow, destination: Destination, dataset: DatasetKey | None = None) -> MappedRow:
    """Map a record to its row; as a record of another `dataset`, if one is given.

    Raises:
        LocalFileError: a value cannot be carried; see `contract.cells_of`.
    """
    run = RunKey(dataset.project, dataset.dataset, row.run.run) if dataset else row.run
    record = TrackingRecord(run, json.loads(row.payload), row.digest, row.line)
    return MappedRow(row, cells_of(record, destination))


def job_id(destination: Destination, table: str, row_ids: Sequence[str], sends: int) -> str:
    """A load job's id: the same rows after as many deliveries are the same job, on any machine.

    Ids are one project's, whatever its datasets: so where the table is belongs to the id.
    """
    identity = [destination.bq_project, destination.bq_dataset_id, table, str(sends), *sorted(row_ids)]
    return f"pixaris-sync-{_short_hash(chr(0).join(identity))}"


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


def sort_by_presence(
    batch: Sequence[MappedRow],
    read: Sequence[Mapping[str, JsonValue]],
    equals: Mapping[int, Mapping[DatasetKey, int]],
    destination: Destination,
) -> tuple[list[PendingRow], list[PendingRow]]:
    """Sort rows into found and missing; one row in the table answers for one record.

    Args:
        batch: the rows that were looked for.
        read: what the table shows of their runs.
        equals: by row id, how many equal records are synced already, by dataset.
        destination: where rows go.
    """
    by_run: dict[Any, list[Mapping[str, JsonValue]]] = defaultdict(list)
    for there in read:
        by_run[there.get(RUN_NAME_KEY)].append(there)
    found: list[PendingRow] = []
    missing: list[PendingRow] = []
    unclaimed = {run: list(range(len(rows))) for run, rows in by_run.items()}
    known: set[str] = set()
    for mapped in batch:
        row, says = mapped.row, _fingerprint(mapped)
        free = unclaimed.get(row.run.run, [])
        equal = [index for index in free if same_record(mapped.cells, by_run[row.run.run][index])]
        if says not in known:
            known.add(says)
            taken = sum(
                count
                for dataset, count in equals[row.id].items()
                # The links in a record that was copied to another dataset lead elsewhere: it is no equal.
                if dataset == row.run.dataset_key or _fingerprint(map_row(row, destination, dataset)) == says
            )
            for index in equal[:taken]:
                free.remove(index)
            equal = equal[taken:]
        if equal:
            free.remove(equal[0])
            found.append(row)
        else:
            missing.append(row)
    return found, missing


def _fingerprint(mapped: MappedRow) -> str:
    return json.dumps([[cell.key, cell.value] for cell in mapped.cells])
