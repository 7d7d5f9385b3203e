"""What the ledger says of the runs of a dataset or a selection, for whoever compares or previews."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sqlite3 import Connection

from pixaris_sync.ledger.overview import ProblemRun
from pixaris_sync.ledger.packs import unpack
from pixaris_sync.ledger.selection import SELECTED, SELECTED_DATASETS, Selection
from pixaris_sync.model import DatasetKey, FileState, RowState, RunState


@dataclass(frozen=True, slots=True)
class KnownRun:
    """Where a run stands by the ledger, and why; `cause` may be empty."""

    state: RunState
    cause: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the ledger says of a dataset.

    Attributes:
        runs: every run by its name.
        uploaded: crc32c of the objects that it calls uploaded, by run and run-relative path.
        synced: how many rows it calls synced, by run and the record's digest.
    """

    runs: Mapping[str, KnownRun]
    uploaded: Mapping[tuple[str, str], int]
    synced: Counter[tuple[str, str]]


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
        "SELECT r.name, c.digest, count(*) AS count FROM records c JOIN runs r ON r.id = c.run_id"
        f" {of_dataset} AND c.state = ? GROUP BY r.name, c.digest",
        (*names, RowState.SYNCED),
    )
    return Inventory(
        runs={row["name"]: KnownRun(RunState(row["state"]), row["cause"] or "") for row in runs},
        uploaded=uploaded,
        synced=Counter({(row["name"], row["digest"]): row["count"] for row in records}),
    )


def quarantined(db: Connection, selection: Selection, tracking_file: str) -> list[ProblemRun]:
    """What of a selection cannot be carried as it stands: runs, damaged lines, and what is left out.

    Lines and what is left out have no run's name: `Selection.since` and `Selection.until` do not apply.
    """
    runs = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || r.name AS subject, r.state, r.since, r.cause, r.hint"
        f" FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.state IN (:quarantined, :incomplete)"
        f" AND {SELECTED}",
        {
            **selection.parameters,
            "quarantined": RunState.QUARANTINED,
            "incomplete": RunState.INCOMPLETE,
        },
    ).fetchall()
    lines = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || :tracking_file || ':' || c.line AS subject, c.state,"
        " c.since, c.cause, c.hint FROM records c JOIN datasets d ON d.id = c.dataset_id"
        f" WHERE c.run_id IS NULL AND {SELECTED_DATASETS}",
        {**selection.parameters, "tracking_file": tracking_file},
    ).fetchall()
    left_out = db.execute(
        "SELECT subject, state, since, cause, hint FROM notices WHERE state = ?", (RunState.QUARANTINED,)
    ).fetchall()
    found = [
        ProblemRun(row["subject"], row["state"], row["since"], row["cause"] or "", row["hint"] or "")
        for row in [*runs, *lines, *left_out]
    ]
    return sorted(found, key=lambda problem: (problem.run, problem.since))


def count_synced(db: Connection, selection: Selection) -> int:
    """How many of the selected runs are synced."""
    count: int = db.execute(
        f"SELECT count(*) FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE {SELECTED}"
        " AND r.state = :synced",
        {**selection.parameters, "synced": RunState.SYNCED},
    ).fetchone()[0]
    return count


@dataclass(frozen=True, slots=True)
class InspectedRun:
    """A run that a record names: its folder's signature when last inspected (None: it was not yet).

    `troubled`: something about its folder or one of its files was wrong. What is mended in place leaves the
    signature as it was.
    """

    name: str
    signature: str | None
    troubled: bool


def inspected_runs(db: Connection, dataset_id: int, *, synced_too: bool) -> list[InspectedRun]:
    """The runs of a dataset that a record names; unless `synced_too`, those that are not synced."""
    which = "" if synced_too else " AND r.state <> 'synced'"
    rows = db.execute(
        "SELECT r.name, r.signature, r.state = 'quarantined' OR EXISTS (SELECT 1 FROM files f"
        " WHERE f.run_id = r.id AND f.state <> 'uploaded' AND f.cause IS NOT NULL) AS troubled"
        f" FROM runs r WHERE r.dataset_id = ? AND r.committed{which}",
        (dataset_id,),
    )
    return [InspectedRun(row["name"], row["signature"], bool(row["troubled"])) for row in rows]


def unfinished_datasets(db: Connection) -> set[DatasetKey]:
    """Datasets of which something is not synced or something is to be said: they can change by themselves."""
    rows = db.execute(
        "SELECT d.project, d.dataset FROM datasets d WHERE d.adopted_at IS NULL OR NOT d.read_whole"
        " OR d.id IN (SELECT r.dataset_id FROM runs r"
        " WHERE r.state IN ('pending', 'failing', 'quarantined', 'incomplete') AND r.state <> 'synced')"
        " OR d.project || '/' || d.dataset IN (SELECT n.scope FROM notices n)"
    )
    return {DatasetKey(row["project"], row["dataset"]) for row in rows}


def committed_names(db: Connection, dataset_id: int) -> set[str]:
    """The names of all runs of a dataset that a record names."""
    rows = db.execute("SELECT name FROM runs WHERE dataset_id = ? AND committed", (dataset_id,))
    return {row["name"] for row in rows}


def runs_with_records(db: Connection, dataset_id: int, names: Iterable[str]) -> list[str]:
    """Which of these runs a record that was taken in names."""
    statement = "SELECT name FROM runs WHERE dataset_id = ? AND name = ? AND committed"
    return [row["name"] for name in names for row in db.execute(statement, (dataset_id, name))]


def payloads(db: Connection, dataset_id: int, run: str) -> list[tuple[int, str]]:
    """Line and JSON of the records of a run that are not synced."""
    rows = db.execute(
        "SELECT c.line, c.payload FROM records c JOIN runs r ON r.id = c.run_id"
        " WHERE r.dataset_id = ? AND r.name = ? AND c.payload IS NOT NULL ORDER BY c.line",
        (dataset_id, run),
    )
    return [(row["line"], row["payload"]) for row in rows]


def local_paths(db: Connection, dataset_id: int, run: str) -> list[str]:
    """Run-relative paths of the local files of a run that were taken in."""
    rows = db.execute(
        "SELECT f.path FROM files f JOIN runs r ON r.id = f.run_id"
        " WHERE r.dataset_id = ? AND r.name = ? AND f.mtime_ns > 0",
        (dataset_id, run),
    )
    paths = [row["path"] for row in rows]
    pack = db.execute(
        "SELECT p.packed FROM packs p JOIN runs r ON r.id = p.run_id WHERE r.dataset_id = ? AND r.name = ?",
        (dataset_id, run),
    ).fetchone()
    return paths + [file.path for file in (unpack(pack[0]) if pack else ()) if file.mtime_ns > 0]


def args_and_payloads(
    db: Connection, dataset_id: int, runs: Iterable[str]
) -> dict[str, tuple[list[str], list[tuple[int, str]]]]:
    """Of each of these runs that records name already, the local files beside its images, and `payloads`."""
    return {
        run: (
            [path for path in local_paths(db, dataset_id, run) if "/" not in path],
            payloads(db, dataset_id, run),
        )
        for run in runs_with_records(db, dataset_id, runs)
    }
