"""What must be true at every moment, and what at the end; a violation fails the test where it happens.

As an `Observer` it sees every object and every row in the instant they arrive, so that "files before row" is
checked when a row appears and not afterwards, when the files have come too.
"""

from collections import Counter, defaultdict
from sqlite3 import Connection, Row

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.model import JsonValue, RemoteObject, RunKey, RunState
from pixaris_sync.rules.contract import record_digest
from tests.engine.faulty_cloud import FaultySink, FaultyStore
from tests.engine.local_folder import MARKER, TRACKING_FILE, LocalFolder, StoredRecord, StoredRun
from tests.fakes.row_table import StoredRow


class Invariants:
    """Holds the cloud and the ledger against what the local folder has held."""

    def __init__(self, local: LocalFolder, store: FaultyStore, sink: FaultySink) -> None:
        self._local = local
        self._store = store
        self._sink = sink
        self._rows: Counter[int] = Counter()
        self._by_marker: defaultdict[int, list[StoredRecord]] = defaultdict(list)
        self._records_known = 0
        store.observer = self
        sink.observer = self

    # Every change of the cloud.

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """Only versions of local files arrive, and only a newer version takes an older one's place."""
        versions = self._versions(remote.name)
        assert content in versions, f"{remote.name} got a content that no local file ever had"
        if before is not None:
            assert before in versions, f"{remote.name} was not ours to overwrite"
            assert versions.index(before) < versions.index(content), (
                f"{remote.name} was overwritten by an older one"
            )

    def saw_row(self, table: str, row: StoredRow) -> None:
        """A row arrives once for each record, in its table, whole, and after every file of its run."""
        if row.row_id.startswith("elsewhere-"):
            return
        records = self._records(row.cells.get(MARKER))
        assert records, f"a row of {table} stands for no record"
        record = records[0]
        self._rows[record.marker] += 1
        assert self._rows[record.marker] <= len(records), f"a row of {record.run.key} came twice"
        assert table in {other.run.table for other in records}
        for key, value in record.values.items():
            if isinstance(value, str | int | float) and not str(value).startswith("local_results/"):
                # Which column a value goes to is not the engine's business.
                assert {value, str(value)} & set(row.cells.values()), f"{key} is lost"
        late = [self._late_files(other.run) for other in records]
        assert late.count([]) >= self._rows[record.marker], f"the row of {record.run.key} came before {late}"

    def _late_files(self, run: StoredRun) -> list[str]:
        """Files of a run that are not in the bucket, or not whole."""
        found = {path: self._store.objects.get(run.object_name(path)) for path in run.versions}
        return [
            path
            for path, stored in found.items()
            if stored is None or stored.content not in run.versions[path]
        ]

    def _records(self, marker: JsonValue) -> list[StoredRecord]:
        """All records of a marker; more than one where a run was copied into another dataset."""
        for record in self._local.records[self._records_known :]:
            self._by_marker[record.marker].append(record)
        self._records_known = len(self._local.records)
        return self._by_marker.get(marker, [])

    def _versions(self, name: str) -> list[bytes]:
        _, project, dataset, run_name, path = name.split("/", maxsplit=4)
        run = self._local.find(RunKey(project, dataset, run_name))
        assert run is not None, f"{name} belongs to no run"
        assert path in run.versions, f"{name} is no file of its run"
        return run.versions[path]

    # The ledger, whenever no process runs.

    def check_ledger(self, ledger: Ledger) -> Overview:
        """What the ledger calls synced is there, and what it does not is explained."""
        found: Overview = ledger.read(lambda db: overview(db, TRACKING_FILE))
        ledger.read(self._check_states)
        assert all(problem.cause for problem in found.problems), found.problems
        assert all(waiting.cause for waiting in found.waiting), found.waiting
        states = Counter(problem.state for problem in found.problems)
        for state in (RunState.FAILING, RunState.INCOMPLETE):
            assert states[state] == found.runs[state], f"{found.runs[state]} runs are {state}, {states}"
        assert states[RunState.QUARANTINED] >= found.runs[RunState.QUARANTINED], states
        assert sum(waiting.runs for waiting in found.waiting) == found.runs[RunState.PENDING], found.waiting
        assert sum(found.runs.values()) - _damaged_lines(ledger) == len(_runs(ledger))
        return found

    def _check_states(self, db: Connection) -> None:
        synced: Counter[int] = Counter()
        by_digest = {record_digest(dict(record.values)): record.marker for record in self._local.records}
        for row in db.execute("SELECT digest FROM records WHERE state = 'synced'"):
            synced[by_digest[row["digest"]]] += 1
        visible = self.visible_rows()
        for marker, count in synced.items():
            assert visible[marker] >= count, "the ledger says synced of a row that nobody can see"
        for row in db.execute(
            "SELECT f.path, f.crc32c, d.project, d.dataset, r.name FROM files f"
            " JOIN runs r ON r.id = f.run_id JOIN datasets d ON d.id = r.dataset_id"
            " WHERE f.state = 'uploaded' AND f.crc32c IS NOT NULL"
        ):
            name = f"results/{row['project']}/{row['dataset']}/{row['name']}/{row['path']}"
            assert self._store.objects[name].remote.crc32c == row["crc32c"], name
        for row in db.execute("SELECT * FROM runs WHERE state NOT IN ('synced', 'pending')"):
            assert row["cause"], f"nothing says why {row['name']} is {row['state']}"

    def visible_rows(self) -> Counter[int]:
        """How many rows of each record can be read now."""
        rows = (row for table in self._sink.tables for row in self._sink.visible_rows(table))
        return Counter(row[MARKER] for row in rows if MARKER in row)

    # The end.

    def check_everything_arrived(self, ledger: Ledger) -> None:
        """Every record is one row, every file one object of its newest content, nothing else is there."""
        found = self.check_ledger(ledger)
        left = {
            str(state): count for state, count in found.runs.items() if count and state != RunState.SYNCED
        }
        assert not left, (left, found.problems)
        assert self.visible_rows() == Counter(record.marker for record in self._local.records)
        committed = {record.run for record in self._local.records}
        wanted = {
            run.object_name(path): versions[-1]
            for run in committed
            for path, versions in run.versions.items()
        }
        assert {name: stored.content for name, stored in self._store.objects.items()} == wanted

    def state_of(self, ledger: Ledger, subject: StoredRun | StoredRecord) -> tuple[str, str]:
        """A run's state and cause by the ledger."""
        run = subject.run if isinstance(subject, StoredRecord) else subject
        for row in _runs(ledger):
            if (row["project"], row["dataset"], row["name"]) == (
                run.key.project,
                run.key.dataset,
                run.key.run,
            ):
                return row["state"], row["cause"] or ""
        raise AssertionError(f"the ledger does not know {run.key}")


def _runs(ledger: Ledger) -> list[Row]:
    found: list[Row] = ledger.read(
        lambda db: db.execute(
            "SELECT r.*, d.project, d.dataset FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        ).fetchall()
    )
    return found


def _damaged_lines(ledger: Ledger) -> int:
    count: int = ledger.read(
        lambda db: db.execute("SELECT count(*) FROM records WHERE run_id IS NULL").fetchone()[0]
    )
    return count
