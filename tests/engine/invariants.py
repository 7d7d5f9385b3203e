"""What must be true at every moment, and what at the end; a violation fails the test where it happens.

As an `Observer` it sees every object and every row in the instant they arrive, so that "files before row" is
checked when a row appears and not afterwards, when the files have come too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from sqlite3 import Connection, Row
from typing import NamedTuple

import google_crc32c

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.numbers import numbers
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.model import FileState, JsonValue, RemoteObject, RowState, RunKey, RunState
from pixaris_sync.rules.contract import record_digest
from tests.engine.faulty_cloud import FaultySink, FaultyStore
from tests.engine.local_folder import MARKER, TRACKING_FILE, LocalFolder, StoredRecord, StoredRun
from tests.fakes.row_table import StoredRow
from tests.support.slow_numbers import slow_numbers


class Standing(NamedTuple):
    """A record's row in a table; copies of a run in several datasets can share a marker, and a table."""

    table: str
    marker: int


class Invariants:
    """Holds the cloud and the ledger against what the local folder has held.

    Attributes:
        ledger_was_replaced: the ledger was lost, or an older one has come back.
        shown: rows that others removed or hid after they could be read: they may count as synced.
        removed_rows: rows that others removed.
        removed_objects: what objects held that others removed, by name.
    """

    def __init__(self, local: LocalFolder, store: FaultyStore, sink: FaultySink) -> None:
        self._local = local
        self._store = store
        self._sink = sink
        self._rows: Counter[Standing] = Counter()
        self._records: defaultdict[Standing, list[StoredRecord]] = defaultdict(list)
        self._records_known = 0
        #: What each object has ever held.
        self._held: defaultdict[str, list[bytes]] = defaultdict(list)
        #: Rows that others removed and that are not to be sent again, and the state of their records.
        self._never_again: dict[Standing, RowState] = {}
        #: Rows whose table was made anew since the ledger knows of them.
        self._made_anew: set[Standing] = set()
        #: Rows that others removed and that may be sent again, or not.
        self._excused: set[Standing] = set()
        self._once_synced: set[RunKey] = set()
        self.ledger_was_replaced = False
        self.shown: set[Standing] = set()
        self.removed_rows: set[Standing] = set()
        self.removed_objects: dict[str, bytes] = {}
        store.observer = self
        sink.observer = self

    # Every change of the cloud.

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """Only versions of local files arrive, and only a newer version takes an older one's place."""
        run, path = self._file(remote.name)
        versions = run.versions[path]
        assert content in versions, f"{remote.name} got a content that no local file ever had"
        if before is not None:
            assert before in versions, f"{remote.name} was not ours to overwrite"
            assert versions.index(before) < versions.index(content), (
                f"{remote.name} was overwritten by an older one"
            )
        elif remote.name in self.removed_objects and run.table not in self._sink.not_asked:
            # Unless a table did not say which rows it holds, or whose, or the file has a newer version.
            newer = len(versions) > 1 or self._is_shared(run.table)
            assert newer or not self._stands(run), f"{remote.name} was removed, and is sent again"
        self._held[remote.name].append(content)

    def saw_row(self, table: str, row: StoredRow) -> None:
        """A row arrives once for each record, in its table, whole, and after every file of its run."""
        if row.row_id.startswith("elsewhere-"):
            return
        standing = _standing(table, row.cells)
        records = self._records_of(standing)
        assert records, f"a row of {table} stands for no record"
        record = records[0]
        self._rows[standing] += 1
        assert self._rows[standing] <= len(records), f"a row of {record.run.key} came twice"
        again = self._never_again.get(standing)
        assert again is None, f"a row of {record.run.key} was {again}, then removed, and is sent again"
        for key, value in record.values.items():
            if isinstance(value, str | int | float) and not str(value).startswith("local_results/"):
                # Which column a value goes to is not the engine's business.
                assert {value, str(value)} & set(row.cells.values()), f"{key} is lost"
        late = [self._late_files(other.run) for other in records]
        assert late.count([]) >= self._rows[standing], f"the row of {record.run.key} came before {late}"

    def _late_files(self, run: StoredRun) -> list[str]:
        """Files of a run that were never in the bucket, or not whole."""
        return [
            path
            for path, versions in run.versions.items()
            if not any(content in versions for content in self._contents(run.object_name(path)))
        ]

    def _contents(self, name: str) -> list[bytes]:
        """What an object has held since it is looked at."""
        stored = self._store.objects.get(name)
        return [*self._held[name], *([stored.content] if stored else [])]

    def _records_of(self, standing: Standing) -> list[StoredRecord]:
        """All records of a marker in a table; more than one where a line was repeated or copied."""
        for record in self._local.records[self._records_known :]:
            self._records[Standing(record.run.table, record.marker)].append(record)
        self._records_known = len(self._local.records)
        return self._records.get(standing, [])

    def _is_shared(self, table: str) -> bool:
        return len({run.key.dataset_key for run in self._local.runs if run.table == table}) > 1

    def _stands(self, run: StoredRun) -> bool:
        """Whether a row of a run stands in its table."""
        markers = {record.marker for record in self._local.records if record.run is run}
        return any(self._rows[Standing(run.table, marker)] for marker in markers)

    def _file(self, name: str) -> tuple[StoredRun, str]:
        _, project, dataset, run_name, path = name.split("/", maxsplit=4)
        run = self._local.find(RunKey(project, dataset, run_name))
        assert run is not None, f"{name} belongs to no run"
        assert path in run.versions, f"{name} is no file of its run"
        return run, path

    # What others do.

    def rows_hidden(self, table: str, states: Mapping[Standing, RowState]) -> None:
        """A table's rows cannot be read any more: those that are synced stay so, no other becomes it."""
        for row in self._sink.stored(table):
            standing = _standing(table, row.cells)
            if states.get(standing) is RowState.SYNCED:
                self.shown.add(standing)

    def rows_removed(
        self,
        table: str,
        rows: Iterable[StoredRow],
        states: Mapping[Standing, RowState],
        *,
        dropped: bool = False,
    ) -> None:
        """Others removed rows: what the ledger knows to have been there is not sent again by itself.

        `dropped`: the table is another one now, which need not hold what the old one took: that may be sent
        again.
        """
        if dropped:
            # Nobody can tell that others have put rows of the old one into it.
            self._made_anew.update(key for key in states if key.table == table)
            accepted = [key for key in self._never_again if key.table == table]
            for key in accepted:
                if self._never_again[key] is not RowState.SYNCED:
                    del self._never_again[key]
                    self._excused.add(key)
        for row in rows:
            standing = _standing(table, row.cells)
            self._rows[standing] -= 1
            self.removed_rows.add(standing)
            if row.visible_at <= self._sink.clock.now():
                self.shown.add(standing)
            state = states.get(standing)
            may_be_gone = dropped or standing in self._made_anew
            if state is RowState.SYNCED or (state is RowState.ACCEPTED and not may_be_gone):
                self._never_again[standing] = state
            elif state in (RowState.SENDING, RowState.ACCEPTED):
                self._excused.add(standing)

    def object_removed(self, name: str) -> None:
        """Others removed an object."""
        self.removed_objects[name] = self._store.objects.pop(name).content

    def ledger_lost(self) -> None:
        """The ledger is gone: what others removed may be sent again, as nobody knows that it was there."""
        self.ledger_was_replaced = True
        self.shown.clear()
        self._never_again.clear()
        self._excused.clear()

    def older_ledger_put_back(self, db: Connection) -> None:
        """An older ledger is there: what it knows to be synced stays so, and what it quarantined waits."""
        self.ledger_lost()
        states = self.row_states(db)
        self.shown |= {standing for standing, state in states.items() if state is RowState.SYNCED}
        for standing in self.removed_rows:
            if self._rows[standing]:
                continue
            if states.get(standing) is RowState.SYNCED:
                self._never_again[standing] = RowState.SYNCED
            elif states.get(standing) in (RowState.ACCEPTED, RowState.SENDING):
                # Sent again where its table was made anew since, or no load job has brought it; else not.
                self._excused.add(standing)
        for row in _runs_in(db):
            if row["state"] == RunState.QUARANTINED:
                self._once_synced.discard(RunKey(row["project"], row["dataset"], row["name"]))

    def row_states(self, db: Connection) -> dict[Standing, RowState]:
        """The state of each record by the ledger; of equal ones the one that is furthest behind.

        One that was accepted and is quarantined, because it may not be read back, counts as accepted.
        """
        by_digest = {record_digest(dict(record.values)): record.marker for record in self._local.records}
        found: dict[Standing, RowState] = {}
        for row in db.execute(
            "SELECT c.digest, iif(c.state = 'quarantined' AND c.accepted_at, 'accepted', c.state) AS state,"
            " d.table_id FROM records c JOIN datasets d ON d.id = c.dataset_id"
            " WHERE c.run_id IS NOT NULL ORDER BY c.state = 'synced'"
        ):
            standing = Standing(row["table_id"], by_digest[row["digest"]])
            found.setdefault(standing, RowState(row["state"]))
        return found

    # The ledger, whenever no process runs.

    def check_ledger(self, ledger: Ledger) -> Overview:
        """What the ledger calls synced is there, and what it does not is explained."""
        found: Overview = ledger.read(lambda db: overview(db, TRACKING_FILE))
        assert ledger.read(numbers) == ledger.read(slow_numbers), "its counters are wrong"
        ledger.read(self._check_states)
        assert all(problem.cause for problem in found.problems), found.problems
        assert all(waiting.cause for waiting in found.waiting), found.waiting
        states = Counter(problem.state for problem in found.problems)
        assert states[RunState.QUARANTINED] >= found.runs[RunState.QUARANTINED], states
        # Lines, datasets and folders can have problems, too.
        names = {f"{run['project']}/{run['dataset']}/{run['name']}" for run in _runs(ledger)}
        states = Counter(problem.state for problem in found.problems if problem.run in names)
        for state in (RunState.FAILING, RunState.INCOMPLETE):
            assert states[state] == found.runs[state], f"{found.runs[state]} runs are {state}, {states}"
        assert sum(waiting.runs for waiting in found.waiting) == found.runs[RunState.PENDING], found.waiting
        assert sum(found.runs.values()) - _damaged_lines(ledger) == len(_runs(ledger))
        return found

    def _check_states(self, db: Connection) -> None:
        visible = self.visible_rows()
        synced = db.execute(
            "SELECT c.digest, d.table_id FROM records c JOIN datasets d ON d.id = c.dataset_id"
            " WHERE c.state = 'synced'"
        )
        by_digest = {record_digest(dict(record.values)): record.marker for record in self._local.records}
        for standing, count in Counter(
            Standing(row["table_id"], by_digest[row["digest"]]) for row in synced
        ).items():
            seen = visible[standing] >= count or standing in self.shown
            assert seen, f"the ledger says synced of a row that nobody can see: {standing}"
        for row in db.execute(
            "SELECT f.path, f.state, f.crc32c, f.cause, d.project, d.dataset, r.name FROM files f"
            " JOIN runs r ON r.id = f.run_id JOIN datasets d ON d.id = r.dataset_id"
            " WHERE f.state = 'uploaded' AND f.crc32c IS NOT NULL OR f.state = 'quarantined'"
        ):
            name = f"results/{row['project']}/{row['dataset']}/{row['name']}/{row['path']}"
            if row["state"] == FileState.UPLOADED:
                self._check_uploaded(name, row["crc32c"])
            elif "another content" in row["cause"]:
                self._check_conflict(name)
        for row in db.execute("SELECT * FROM runs WHERE state NOT IN ('synced', 'pending')"):
            assert row["cause"], f"nothing says why {row['name']} is {row['state']}"
        self._check_synced_stay(db)

    def _check_uploaded(self, name: str, crc32c: int) -> None:
        """The bucket holds what the ledger says, or held it where it was changed behind the ledger's back."""
        if self.ledger_was_replaced or name in self.removed_objects:
            assert crc32c in map(google_crc32c.value, self._contents(name)), name
        else:
            assert self._store.objects[name].remote.crc32c == crc32c, name

    def _check_conflict(self, name: str) -> None:
        """The bucket does not hold what it is said not to hold; not of files that have changed meanwhile."""
        run, path = self._file(name)
        stored = self._store.objects.get(name)
        same = stored is not None and run.versions[path] == [stored.content]
        assert not same, f"{name} is as it should be, and is called another content"

    def _check_synced_stay(self, db: Connection) -> None:
        """What was synced once needs nobody's help, whatever became of the ledger and of the folder."""
        for row in _runs_in(db):
            key = RunKey(row["project"], row["dataset"], row["name"])
            run = self._local.find(key)
            if row["state"] == RunState.SYNCED:
                self._once_synced.add(key)
            elif row["state"] == RunState.QUARANTINED and key in self._once_synced and run is not None:
                alone = sum(record.run is run for record in self._local.records) == 1
                asked = run.table not in self._sink.not_asked and not row["to_ask"]
                assert not (alone and asked and self._stands(run)), (
                    f"{key} was synced, and is quarantined: {row['cause']}"
                )

    def visible_rows(self) -> Counter[Standing]:
        """How many rows of each record can be read now."""
        return Counter(
            _standing(table, row)
            for table in self._sink.tables
            for row in self._sink.visible_rows(table)
            if MARKER in row
        )

    # The end.

    def runs_left(self, ledger: Ledger) -> dict[RunKey, str]:
        """Runs that are not synced; but for those of which a row was taken, and then removed by others."""
        lost = {
            record.run.key
            for record in self._local.records
            if Standing(record.run.table, record.marker) in {*self._never_again, *self._excused}
        }
        states = {RunKey(row["project"], row["dataset"], row["name"]): row["state"] for row in _runs(ledger)}
        return {key: state for key, state in states.items() if state != RunState.SYNCED and key not in lost}

    def check_everything_arrived(self, ledger: Ledger) -> None:
        """Every record is one row, every file one object of its newest content, nothing else is there.

        But for what others removed: what the ledger knows to have been there is not sent again.
        """
        found = self.check_ledger(ledger)
        left = self.runs_left(ledger)
        assert not left, (left, found.problems)
        visible = self.visible_rows()
        due = {
            standing: len(self._records_of(standing))
            for standing in {Standing(record.run.table, record.marker) for record in self._local.records}
        }
        assert visible.keys() <= due.keys()
        states = ledger.read(self.row_states)
        for standing, count in due.items():
            removed = standing in self.removed_rows and states[standing] is RowState.SYNCED
            if removed or standing in {*self._never_again, *self._excused}:
                assert visible[standing] <= count, standing
            else:
                assert visible[standing] == count, (standing, count, visible[standing])
        committed = {record.run for record in self._local.records}
        wanted = {
            run.object_name(path): versions[-1]
            for run in committed
            for path, versions in run.versions.items()
        }
        stored = {name: found.content for name, found in self._store.objects.items()}
        missing = wanted.keys() - stored.keys()
        assert missing <= self.removed_objects.keys(), missing
        assert stored == {name: content for name, content in wanted.items() if name not in missing}

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


def _standing(table: str, cells: Mapping[str, JsonValue]) -> Standing:
    """Whose row this is; others may have made text of its marker."""
    return Standing(table, int(cells.get(MARKER, -1)))


def _runs(ledger: Ledger) -> list[Row]:
    found: list[Row] = ledger.read(_runs_in)
    return found


def _runs_in(db: Connection) -> list[Row]:
    return db.execute(
        "SELECT r.*, d.project, d.dataset, EXISTS"
        " (SELECT 1 FROM records c WHERE c.run_id = r.id AND c.state = 'unasked') AS to_ask"
        " FROM runs r JOIN datasets d ON d.id = r.dataset_id"
    ).fetchall()


def _damaged_lines(ledger: Ledger) -> int:
    count: int = ledger.read(
        lambda db: db.execute("SELECT count(*) FROM records WHERE run_id IS NULL").fetchone()[0]
    )
    return count
