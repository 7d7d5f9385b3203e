"""What the ledger says of the runs of a dataset or a selection, to compare it with and to preview a pass."""

from collections import Counter
from collections.abc import Mapping
from sqlite3 import Connection

from msgspec import Struct

from pixaris_sync.ledger.packs import unpack
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, FileState, RowState, RunState


class KnownRun(Struct, frozen=True):
    """Where a run stands by the ledger, and why; `cause` may be empty."""

    state: RunState
    cause: str


class Inventory(Struct, frozen=True):
    """What the ledger says of a dataset.

    Attributes:
        runs: every run by its name.
        uploaded: crc32c of the objects that it calls uploaded, by run and run-relative path.
        synced: how many rows it calls synced, by run and the record's digest.
        accepted: such rows that the table took and does not show.
    """

    runs: Mapping[str, KnownRun]
    uploaded: Mapping[tuple[str, str], int]
    synced: Counter[tuple[str, str]]
    accepted: Counter[tuple[str, str]]


def inventory(db: Connection, key: DatasetKey) -> Inventory:
    """Read what the ledger says of a dataset; nothing where it does not know it."""
    of_dataset = "JOIN datasets d ON d.id = r.dataset_id WHERE d.project = ? AND d.dataset = ?"
    names = (key.project, key.dataset)
    runs = db.execute(f"SELECT r.name, r.state, r.cause FROM runs r {of_dataset}", names)
    files = db.execute(
        f"SELECT r.name, f.path, f.crc32c FROM files f JOIN runs r ON r.id = f.run_id {of_dataset}"
        " AND f.state = ? AND f.crc32c IS NOT NULL",
        (*names, FileState.UPLOADED),
    )
    uploaded = {(row["name"], row["path"]): row["crc32c"] for row in files}
    packs = db.execute(
        f"SELECT r.name, p.packed FROM packs p JOIN runs r ON r.id = p.run_id {of_dataset}", names
    )
    for row in packs:
        uploaded.update(
            ((row["name"], file.path), file.crc32c)
            for file in unpack(row["packed"])
            if file.crc32c is not None
        )
    records = db.execute(
        "SELECT r.name, c.digest, c.state, count(*) AS count FROM records c JOIN runs r ON r.id = c.run_id"
        f" {of_dataset} AND c.state IN (?, ?) GROUP BY r.name, c.digest, c.state",
        (*names, RowState.SYNCED, RowState.ACCEPTED),
    )
    rows: dict[str, Counter[tuple[str, str]]] = {RowState.SYNCED: Counter(), RowState.ACCEPTED: Counter()}
    for row in records:
        rows[row["state"]][row["name"], row["digest"]] = row["count"]
    return Inventory(
        runs={row["name"]: KnownRun(RunState(row["state"]), row["cause"] or "") for row in runs},
        uploaded=uploaded,
        synced=rows[RowState.SYNCED],
        accepted=rows[RowState.ACCEPTED],
    )


def count_synced(db: Connection, selection: Selection) -> int:
    """How many of the selected runs are synced."""
    count: int = db.execute(
        f"SELECT count(*) FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE {selection.of_runs()}"
        " AND r.state = :synced",
        {**selection.parameters, "synced": RunState.SYNCED},
    ).fetchone()[0]
    return count
