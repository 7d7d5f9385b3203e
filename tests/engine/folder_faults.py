"""What happens to a results folder: runs are stored, and now and then one of them has a fault."""

import errno
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pixaris_sync.errors import SyncError
from pixaris_sync.history.prune import Pruned, Pruner
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.local import safe_open
from pixaris_sync.model import DatasetKey, RowState
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from tests.engine.invariants import Standing
from tests.engine.local_folder import StoredRecord, StoredRun
from tests.engine.machine import Machine
from tests.engine.others import Others

if TYPE_CHECKING:
    from collections.abc import Callable

#: Datasets that share a table are among them.
DATASETS = (("p", "d"), ("p", "e"), ("a_b", "c"), ("a", "b_c"))
TABLES = sorted({f"{project}_{dataset}_experiment_results" for project, dataset in DATASETS})
#: Before 1970, 1970 itself, seconds alone, the last ns that 64 bits hold, and what lies beyond them.
ODD_TIMES_NS = (-1, -(10**18), 0, 10**18, 2**63 - 1, 2**63, 10**19)
IMAGE = "generated_images/image0.png"


@contextmanager
def few_open_files(refuses: "Callable[[], bool]", fired: Counter[str]) -> Iterator[None]:
    """Refuse to open files and folders of the results folder, as the system does where too many are open."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        if refuses():
            fired["few_open_files"] += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return os.open(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safe_open, "os", SimpleNamespace(**{**vars(os), "open": refused}))
        yield


class FolderFaults:
    """Lets things happen to a machine's local folder, and mends what went wrong.

    Attributes:
        fired: how often each kind of fault has fired.
    """

    def __init__(self, machine: Machine, chance: Random, others: Others) -> None:
        self.fired: Counter[str] = Counter()
        self._machine = machine
        self._others = others
        self._local = machine.local
        self._chance = chance
        self._names = 0
        self._mends: list[Callable[[], None]] = []
        self._torn: dict[tuple[str, str], StoredRecord] = {}

    def mend(self) -> None:
        """Put everything right that was left wrong."""
        for mend in self._mends:
            mend()

    def settle_tables(self) -> None:
        """Store runs that need every column but one, in two datasets or in all."""
        for project, dataset in self._chance.sample(DATASETS, self._chance.choice([2, 4, 4])):
            values = {
                "score": self._chance.choice([1, "high"]),
                "loss": 0.5,
                "curve": {"a": 1},
                "odd name": "x",
            }
            self._local.store(project, dataset, self._name(), images=1, values=values)

    def happen(self) -> None:
        """Let one thing happen to the local folder."""
        plain, rare = (
            self.store,
            [
                self._share_folder,
                self._repeat_line,
                self._tear_line,
                self._store_without_line,
                self._set_odd_times,
                self._damage_image,
                self._withhold_images,
                self._withhold_saved_file,
                self._change_image,
                self._copy_run,
                self._prune_run,
                self._rename_dataset,
                self._make_table_elsewhere,
                self._add_column_elsewhere,
            ],
        )
        action = plain if self._chance.random() < 0.5 else self._chance.choice(rare)
        action()
        self._machine.clock.let_pass(self._chance.choice([0.0, 1.0, 30.0]))

    def _place(self) -> tuple[str, str]:
        place = self._chance.choice(DATASETS)
        self._mend_line(place)
        return place

    def _name(self) -> str:
        self._names += 1
        return f"run{self._names}"

    def _values(self) -> dict[str, object]:
        chance = self._chance
        choices: list[tuple[str, object]] = [
            ("score", chance.choice([1, 2.5, "high", True])),
            ("loss", chance.random()),
            ("curve", {"a": chance.random()}),
            ("steps", chance.randint(1, 9)),
            ("odd name", "x"),
        ]
        return dict(choice for choice in choices if chance.random() < 0.3)

    def store(self, place: tuple[str, str] | None = None) -> StoredRun:
        """Store a run that is in order, in a place of its choice or by chance."""
        chance = self._chance
        project, dataset = place or self._place()
        self._mend_line((project, dataset))
        return self._local.store(
            project,
            dataset,
            self._name(),
            images=chance.randint(1, 3),
            image_bytes=chance.choice([0] * 9 + [300_000]),
            saved=["config.json"] if chance.random() < 0.3 else [],
            values=self._values(),
        )

    def _records(self) -> list[StoredRecord]:
        """Records of runs that others have left alone: what becomes of a further one can be told."""
        touched = self._others.touched
        return [
            record
            for record in self._local.records
            if not record.run.pruned and record.run.key.run not in touched
        ]

    def _share_folder(self) -> None:
        """A second record for a run's folder."""
        if self._records():
            run = self._chance.choice(self._records()).run
            self._mend_line((run.key.project, run.key.dataset))
            values = {key: value for key, value in self._values().items() if key != "curve"}
            self._local.commit(run, values)
            self.fired["shared_folder"] += 1

    def _repeat_line(self) -> None:
        if self._records():
            record = self._chance.choice(self._records())
            self._mend_line((record.run.key.project, record.run.key.dataset))
            self._local.repeat_line(record)
            self.fired["equal_lines"] += 1

    def _tear_line(self) -> None:
        """A line of which only the beginning is there, until the next one comes."""
        place = self._place()
        run = self._local.store(*place, self._name(), commit=False)
        self._torn[place] = self._local.commit(run, torn_bytes=20)
        self._mends.append(lambda: self._mend_line(place))
        self.fired["torn_line"] += 1

    def _mend_line(self, place: tuple[str, str]) -> None:
        if stored := self._torn.pop(place, None):
            self._local.mend_line(stored, 20)

    def _store_without_line(self) -> None:
        project, dataset = self._place()
        run = self._local.store(project, dataset, self._name(), commit=False)

        def mend() -> None:
            self._mend_line((project, dataset))
            self._local.commit(run)

        self._mends.append(mend)
        self.fired["no_line"] += 1

    def _set_odd_times(self) -> None:
        """A run whose files have times that no clock has shown, as copies and broken clocks leave them."""
        project, dataset = self._place()
        run = self._local.store(project, dataset, self._name(), commit=False)
        for path in run.versions:
            os.utime(self._local.path(run, path), ns=(0, self._chance.choice(ODD_TIMES_NS)))
        self._local.commit(run)
        self.fired["odd_mtime"] += 1

    def _damage_image(self) -> None:
        project, dataset = self._place()
        run = self._local.store(project, dataset, self._name(), commit=False)
        run.versions[IMAGE].clear()
        self._local.put_damaged_image(run, IMAGE)
        self._local.commit(run)
        self._mends.append(lambda: self._local.put_image(run, IMAGE))
        self.fired["damaged_image"] += 1

    def _withhold_images(self) -> None:
        run = self._local.store(*self._place(), self._name(), images=0)
        run.versions[IMAGE] = []
        self._mends.append(lambda: self._local.put_image(run, IMAGE))
        self.fired["missing_images"] += 1

    def _withhold_saved_file(self) -> None:
        run = self._local.store(*self._place(), self._name(), saved=["config.json"])
        path = self._local.path(run, "config.json")
        content = path.read_bytes()
        path.unlink()
        self._mends.append(lambda: self._local.put(run, "config.json", content))
        self.fired["missing_file"] += 1

    def _change_image(self) -> None:
        """Replace an image of which it is known what the bucket holds."""
        known = self._known_files()
        if known:
            run, path = self._chance.choice(known)
            self._local.put_image(run, path, size=self._chance.choice([0, 50]))
            # A file changed in place is seen by full passes; a new stamp of its folder shows it to all.
            self.fired["changed_image"] += 1

    def _known_files(self) -> list[tuple[StoredRun, str]]:
        with self._machine.ledger() as ledger:
            uploaded = _uploaded_files(ledger)
        return [
            (record.run, IMAGE)
            for record in self._records()
            if self._is_current(record.run, IMAGE)
            and uploaded.get(name := record.run.object_name(IMAGE), -1)
            == self._machine.store.objects[name].remote.crc32c
        ]

    def _is_current(self, run: StoredRun, path: str) -> bool:
        stored = self._machine.store.objects.get(run.object_name(path))
        return stored is not None and bool(run.versions[path]) and stored.content == run.versions[path][-1]

    def nothing_changed(self) -> bool:
        """Whether each object holds its file's newest version."""
        return all(
            run.object_name(path) not in self._machine.store.objects or self._is_current(run, path)
            for run in self._local.runs
            for path in run.versions
        )

    @property
    def something_removed(self) -> bool:
        """Whether the bucket tells no more of every run that something was sent of it."""
        return bool(self._machine.invariants.removed_objects)

    def _copy_run(self) -> None:
        """Copy a run into another project, line and all."""
        plain = [record for record in self._records() if "config" not in record.values]
        whole = [record for record in plain if all(record.run.versions.values())]
        if not whole:
            return
        record, (project, dataset) = self._chance.choice(whole), self._place()
        there = Standing(f"{project}_{dataset}_experiment_results", record.marker)
        shared = any(Standing(one.run.table, one.marker) == there for one in self._records())
        if shared and self._others.row_states().get(there) is not RowState.SYNCED:
            # Nobody could tell whose row one is while the other's is not known to be its own.
            return
        if self._local.copy(record, project, dataset):
            self.fired["copied_run"] += 1

    async def copy_in(self, scan_soon: "Callable[[DatasetKey], None]") -> None:
        """Copy a run in while a process follows: the line first, then an image every few seconds.

        `scan_soon` is told of each, as watching would.
        """
        chance = self._chance
        run = self._local.announce(*self._place(), self._name(), images=chance.randint(1, 3))
        try:
            for path in run.versions:
                scan_soon(run.key.dataset_key)
                await self._machine.clock.sleep(chance.uniform(0.1, 3.0))
                self._local.put_image(run, path)
            scan_soon(run.key.dataset_key)
        finally:
            # The copy goes on when the process is killed.
            for path, versions in run.versions.items():
                if not versions:
                    self._local.put_image(run, path)
        self.fired["copied_in"] += 1

    async def vanish(self, engine: Engine) -> None:
        """The disk of the results folder, or of a dataset, is away for a while under a following process."""
        with self.away(self._chance.choice([None, *DATASETS])):
            await engine.scan_all_soon(ScanDepth.NEW_LINES)
            for place in DATASETS:
                engine.scan_soon(DatasetKey(*place), ScanDepth.NEW_LINES)
            await self._machine.clock.sleep(self._chance.choice([0.1, 3.0, 30.0]))
        await engine.scan_all_soon(ScanDepth.FOLDERS)

    async def starve(self, engine: Engine) -> None:
        """The process may open no more files for a while, or only now and then; meanwhile a run is stored."""
        share = self._chance.choice([0.1, 0.5, 1.0])
        with few_open_files(lambda: self._chance.random() < share, self.fired):
            engine.scan_soon(self.store().key.dataset_key)
            await engine.scan_all_soon(self._chance.choice(list(ScanDepth)))
            await self._machine.clock.sleep(self._chance.choice([0.1, 3.0, 30.0]))
        await engine.scan_all_soon(ScanDepth.FOLDERS)

    @contextmanager
    def away(self, place: tuple[str, str] | None, *, nothing_left: bool | None = None) -> Iterator[None]:
        """Take the results folder away, or a dataset; an empty folder is left, or nothing, as drawn."""
        folder = self._local.root.joinpath(*(place or ()))
        aside = self._local.root.with_name("aside")
        if not any(path.is_dir() for path in folder.glob("*")):
            yield
            return
        folder.rename(aside)
        if not (self._chance.random() < 0.5 if nothing_left is None else nothing_left):
            folder.mkdir()
        try:
            yield
        finally:
            # The mount comes back when the process was killed, too.
            if folder.exists():
                folder.rmdir()
            aside.rename(folder)
        self.fired["mount_away" if place is None else "dataset_away"] += 1

    def _rename_dataset(self) -> None:
        """Runs are stored, and their dataset is renamed before anybody has seen them."""
        name = self._name()
        for _ in range(self._chance.randint(1, 2)):
            self._local.store(
                "p", f"draft-{name}", self._name(), saved=["config.json"], values=self._values()
            )
        self._local.rename_dataset("p", f"draft-{name}", f"final-{name}")
        self.fired["renamed_dataset"] += 1

    def _prune_run(self) -> None:
        """Delete the folder of a run that is synced."""
        states = self._others.row_states()
        records: defaultdict[StoredRun, list[StoredRecord]] = defaultdict(list)
        for record in self._records():
            records[record.run].append(record)
        synced = [
            run
            for run, its in records.items()
            if all(states.get(Standing(run.table, record.marker)) is RowState.SYNCED for record in its)
            and all(self._is_current(run, path) for path in run.versions)
        ]
        if synced:
            run = self._chance.choice(synced)
            if sum(run.key.run.encode()) % 2 and self._prune_by_command(run):
                self.fired["pruned_by_command"] += 1
            else:
                self._local.prune(run)
            self.fired["pruned_run"] += 1

    def _prune_by_command(self, run: StoredRun) -> bool:
        """What ``prune`` does with a run, while no fault fires; whether it removed all of its files."""
        machine, faults = self._machine, self._machine.cloud_faults
        chosen = Selection((run.key.project,), (run.key.dataset,), since=run.key.run, until=f"{run.key.run}!")

        async def work(ledger: Ledger) -> list[Pruned]:
            pruner = Pruner(
                machine.settings, ledger, machine.store, machine.sink, now=machine.clock.now, removes=True
            )
            return [one async for one in pruner.prune(chosen, 0.0)]

        before = faults.random.getstate(), faults.chances
        faults.chances = {}
        machine.crash_points.restart()
        try:
            with machine.ledger() as ledger:
                pruned = machine.clock.run(partial(work, ledger))
        except SyncError:
            # Its table is denied, or its listing.
            return False
        finally:
            faults.random.setstate(before[0])
            faults.chances = before[1]
        for path in ("generated_images", ""):
            self._local._stamp(self._local.path(run, path))
        run.pruned = bool(pruned) and all(one.problem is None and one.files for one in pruned)
        return run.pruned

    def _make_table_elsewhere(self) -> None:
        """Somebody else makes a table just now: streaming may swallow rows, and we do not know."""
        place = self._place()
        run = self._local.store(*place, self._name())
        if run.table not in self._machine.sink.tables:
            self._machine.sink.make_plain_table(run.table)
            self.fired["foreign_table"] += 1

    def _add_column_elsewhere(self) -> None:
        """Somebody else adds a column just now, and a run here has a value for it."""
        project, dataset = self._place()
        run = self._local.store(project, dataset, self._name(), values={"note": "x"})
        self._machine.sink.add_plain_column(run.table, "note")
        self.fired["foreign_column"] += 1


def _uploaded_files(ledger: Ledger) -> dict[str, int | None]:
    """Checksums of the objects that the ledger calls uploaded."""
    found: dict[str, int | None] = ledger.read(
        lambda db: {
            f"results/{row['project']}/{row['dataset']}/{row['name']}/{row['path']}": row["crc32c"]
            for row in db.execute(
                "SELECT d.project, d.dataset, r.name, f.path, f.crc32c FROM files f"
                " JOIN runs r ON r.id = f.run_id"
                " JOIN datasets d ON d.id = r.dataset_id WHERE f.state = 'uploaded'"
            )
        }
    )
    return found
