"""What discovery asks: which runs and files of a dataset the ledger knows, and how they looked."""

from collections import Counter
from collections.abc import Iterable
from sqlite3 import Connection
from typing import NamedTuple

from pixaris_sync.ledger.packs import unpack
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, RunState


class InspectedRun(NamedTuple):
    """A run that a record names: its folder's signature when last inspected (None: it was not yet).

    `troubled`: something about its folder or one of its files was wrong. What is mended in place leaves the
    signature as it was. `quiet_at`: files of it were arriving; when to look again.
    """

    name: str
    signature: str | None
    troubled: bool
    quiet_at: float | None = None


def inspected_runs(db: Connection, dataset_id: int, *, synced_too: bool) -> list[InspectedRun]:
    """The runs of a dataset that a record names; unless `synced_too`, those that are not synced."""
    runs = "runs" if synced_too else "open_runs"
    rows = db.execute(
        "SELECT r.name, r.signature, r.quiet_at, r.state = ? OR r.folder_cause IS NOT NULL OR EXISTS ("
        f"SELECT 1 FROM open_files f WHERE f.run_id = r.id AND f.cause IS NOT NULL) AS troubled FROM {runs} r"
        " WHERE r.dataset_id = ? AND r.committed",
        (RunState.QUARANTINED, dataset_id),
    )
    return [
        InspectedRun(row["name"], row["signature"], bool(row["troubled"]), row["quiet_at"]) for row in rows
    ]


def next_look_at(db: Connection, dataset_id: int, selection: Selection) -> float | None:
    """When the first of a dataset's selected runs of which files were arriving is to be looked at again."""
    value: float | None = db.execute(
        "SELECT min(r.quiet_at) FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.dataset_id = :dataset_id AND r.quiet_at IS NOT NULL AND {selection.of_runs()}",
        {**selection.parameters, "dataset_id": dataset_id},
    ).fetchone()[0]
    return value


def datasets_with_runs(db: Connection) -> set[DatasetKey]:
    """Datasets that held runs which a record names."""
    rows = db.execute(
        "SELECT d.project, d.dataset FROM datasets d"
        " WHERE EXISTS (SELECT 1 FROM runs r WHERE r.dataset_id = d.id AND r.committed)"
    )
    return {DatasetKey(row["project"], row["dataset"]) for row in rows}


def unfinished_datasets(db: Connection) -> set[DatasetKey]:
    """Datasets of which something is not synced or something is to be said: they can change by themselves."""
    rows = db.execute(
        "SELECT d.project, d.dataset FROM datasets d"
        " WHERE d.adopted_at IS NULL OR NOT d.read_whole OR d.torn_bytes > 0"
        " OR d.id IN (SELECT r.dataset_id FROM open_runs r"
        " WHERE r.state IN ('pending', 'failing', 'quarantined', 'incomplete'))"
        " OR d.project || '/' || d.dataset IN (SELECT n.scope FROM notices n)"
    )
    return {DatasetKey(row["project"], row["dataset"]) for row in rows}


def is_all_synced(db: Connection, dataset_id: int) -> bool:
    """Whether everything of a dataset that was ever taken in is synced, and no line was damaged."""
    left = (
        "SELECT 1 FROM open_runs WHERE dataset_id = :id UNION ALL"
        " SELECT 1 FROM open_records WHERE dataset_id = :id UNION ALL"
        " SELECT 1 FROM records WHERE dataset_id = :id AND run_id IS NULL"
    )
    return db.execute(left, {"id": dataset_id}).fetchone() is None


def known_datasets(db: Connection) -> list[DatasetKey]:
    """Every dataset that was ever seen."""
    rows = db.execute("SELECT project, dataset FROM datasets ORDER BY project, dataset")
    return [DatasetKey(row["project"], row["dataset"]) for row in rows]


def run_names(db: Connection, key: DatasetKey) -> set[str]:
    """The names of all runs of a dataset."""
    rows = db.execute(
        "SELECT r.name FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project = ? AND d.dataset = ?",
        (key.project, key.dataset),
    )
    return {row["name"] for row in rows}


def committed_names(db: Connection, dataset_id: int) -> set[str]:
    """The names of all runs of a dataset that a record names."""
    rows = db.execute("SELECT name FROM runs WHERE dataset_id = ? AND committed", (dataset_id,))
    return {row["name"] for row in rows}


def causes_of_damaged_lines(db: Connection, dataset_id: int) -> Counter[str]:
    """What is wrong with lines of a dataset from which no record can be read, and with how many."""
    rows = db.execute("SELECT cause FROM records WHERE dataset_id = ? AND run_id IS NULL", (dataset_id,))
    return Counter(row["cause"] for row in rows)


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
        " WHERE r.dataset_id = ? AND r.name = ? AND f.content_crc32c IS NULL",
        (dataset_id, run),
    )
    paths = [row["path"] for row in rows]
    pack = db.execute(
        "SELECT p.packed FROM packs p JOIN runs r ON r.id = p.run_id WHERE r.dataset_id = ? AND r.name = ?",
        (dataset_id, run),
    ).fetchone()
    return paths + [
        file.path for file in (unpack(pack[0]) if pack else ()) if file.version.content_crc32c is None
    ]


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
