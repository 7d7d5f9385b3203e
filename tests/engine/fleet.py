"""One history of a fleet from one seed: many machines with a folder and a ledger each, and one destination.

All machines work at the same time, by one virtual clock. In each round all of them store runs at the same
instant, of the same dataset and of their own, with columns that others need as well: of the same name and
type, in another case, of types that drift, and of their own. Requests fail, lose their answers, are held
back; machines are restarted, and some lose their ledger. The cloud keeps strictly to what Google publishes:
updates of a table in ten seconds and in a day, and how fast a bucket may be filled.

Machines are small, so the bucket is, too: `WRITES_PER_MACHINE` a second, times the machines.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import WorkLeft
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.limits import fleet as shares
from pixaris_sync.limits.bandwidth import Bandwidth, Pace
from pixaris_sync.model import JsonValue, RemoteObject
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.settings.model import Settings
from tests.engine.cloud_faults import CloudFaults
from tests.engine.crash_points import CrashPoints
from tests.engine.faulty_cloud import FaultySink, FaultyStore
from tests.engine.local_folder import LocalFolder, StoredRun
from tests.engine.machine import in_memory_folder, new_ledger, virtual_changes
from tests.fakes.row_table import StoredRow
from tests.fakes.virtual_clock import VirtualClock

#: How many machines there are where nobody says.
MACHINES = 20
#: https://cloud.google.com/bigquery/quotas#load_jobs
UPDATES_PER_DAY = 1_500
#: Without shares all machines together would write more than this allows them.
WRITES_PER_MACHINE = 0.2
#: So many may be refused: turns come by chance, and others may fall into them.
FEW, FEW_SHARE = 8, 0.15
#: All is done within this time, and so many turns at a table: a first one, one after what failed, another for
#: what was found meanwhile.
FINISHES_SECONDS, FINISHES_TURNS = 1800.0, 8
#: Restarted machines begin anew, and what is left is tried again; more passes would be a loop.
PASSES_MAX = 12
#: The tables that machines have in common; the others are theirs alone.
SHARED = ("p", "shared")


class PacedStore:
    """The bucket as one machine writes to it: `gcs.store` holds to a `Pace` in the same places."""

    def __init__(self, store: FaultyStore, pace: Pace) -> None:
        self._store = store
        self._pace = pace

    async def upload(self, name: str, content: bytes, **more: Any) -> RemoteObject:
        await self._pace.next_object()
        return await self._store.upload(name, content, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class FleetMachine:
    """One of the machines: a folder, a ledger, and processes one after another."""

    def __init__(self, fleet: "FleetHistory", number: int, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir()
        self.number = number
        self.local = LocalFolder(folder / "local_results", fleet.clock)
        self.ledger_path = folder / "ledger.sqlite3"
        self.settings = Settings(
            gcp_project_id="gcp",
            gcp_bq_experiment_dataset="gcp.pixaris",
            gcp_pixaris_bucket_name="bucket",
            local_results_folder=self.local.root,
            state_dir=folder,
            **settings,
        )
        self._fleet = fleet
        self._jitter = Random(f"{fleet.seed} {number}")  # noqa: S311 - a test's chance needs no secrecy
        share = self.settings.fleet.writes_per_second_start
        pace = Pace(Bandwidth(), fleet.clock, writes_per_second_start=share)
        self._store = PacedStore(fleet.store, pace)

    async def work(self, restart_after: float | None, *, follows: bool, loses_ledger: bool) -> None:
        """Carry everything: a process that is ended by force, perhaps, and others until nothing is left."""
        if restart_after is not None:
            with anyio.move_on_after(restart_after):
                await self._process(Mode(follow=follows))
            self._fleet.fired["restarted"] += 1
            if loses_ledger and not self._fleet.sink.held_back and not self._fleet.sink.queued:
                # A request on its way would be nobody's.
                self.ledger_path.unlink()
                self._fleet.fired["lost_ledger"] += 1
        for _ in range(PASSES_MAX):
            left = await self._process(Mode(selection=Selection(attempts_limit=100)))
            assert not left.quarantined, f"machine {self.number}: {left}"
            if not left.waiting:
                return
        raise AssertionError(f"machine {self.number} does not come to an end")

    async def _process(self, mode: Mode) -> WorkLeft:
        if not self.ledger_path.exists():
            self.ledger_path.write_bytes(new_ledger())
        ledger = Ledger.open(self.ledger_path)
        ledger._connection.execute("PRAGMA synchronous = OFF")
        fleet = self._fleet
        try:
            engine = Engine(
                settings=self.settings,
                mode=mode,
                ledger=ledger,
                store=self._store,
                sink=fleet.sink,
                clock=fleet.clock,
                jitter=self._jitter,
                threaded_ledger=False,
            )
            return await engine.run()
        finally:
            ledger.close()


class FleetHistory:
    """A fleet's history; it is the observer of its cloud.

    Args:
        seed: where all chance comes from.
        folder: an empty folder.
        machines: how many.
        shares: False: each machine behaves as if it were alone.

    Attributes:
        fired: how often what happened.
    """

    def __init__(self, seed: int, folder: Path, *, machines: int = MACHINES, shares: bool = True) -> None:
        self.seed = seed
        self.random = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
        self.clock = VirtualClock(steps_limit=50_000_000)
        faults = CloudFaults(self.clock, Random(seed))  # noqa: S311 - as above
        self.store = FaultyStore(self.clock, CrashPoints(), faults)
        self.sink = FaultySink(self.clock, CrashPoints(), faults)
        self.store.observer = self.sink.observer = self
        self.store.writes_per_second_limit = WRITES_PER_MACHINE * machines
        self.sink.updates_per_day_limit = UPDATES_PER_DAY
        self.clock.on_step = self._step
        self.clock.seconds_to_event = self.sink.seconds_to_event
        self.faults = faults
        self.fired: Counter[str] = Counter()
        self.seconds = 0.0
        self._runs: dict[str, StoredRun] = {}
        self._values: dict[str, dict[str, JsonValue]] = {}
        self._rows: Counter[str] = Counter()
        settings: dict[str, Any] = {
            "table_settle_seconds": self.random.choice([60.0, 300.0]),
            "fleet_size": machines if shares else None,
        }
        self.settle_seconds = settings["table_settle_seconds"]
        with small_bucket(machines):
            self.machines = [
                FleetMachine(self, number, folder / f"machine{number}", settings)
                for number in range(machines)
            ]

    def run(self) -> None:
        """Let it happen, and make sure that all is true throughout and complete in the end."""
        for turn in range(self.random.choice([1, 1, 1, 2])):
            self._change_cloud()
            if turn:
                # Tables have settled, or just not.
                self.clock.let_pass(self.random.choice([1.0, 3 * 24 * 3600.0]))
            for machine in self.machines:
                self._store_runs(machine, turn)
            begun = self.clock.elapsed()
            with virtual_changes():
                self.clock.run(self._work)
            self.seconds = max(self.seconds, self.clock.elapsed() - begun)
            self._check_all_arrived()
        self.fired += self.faults.fired

    async def _work(self) -> None:
        chance = self.random
        async with anyio.create_task_group() as tasks:
            for machine in self.machines:
                restart_after = chance.uniform(0.0, 400.0) if chance.random() < 0.2 else None
                tasks.start_soon(
                    partial(
                        machine.work,
                        restart_after,
                        follows=chance.random() < 0.5,
                        loses_ledger=chance.random() < 0.3,
                    )
                )

    def _step(self) -> bool:
        self.sink.land()
        return False

    def _change_cloud(self) -> None:
        chance, faults, sink = self.random, self.faults, self.sink
        faults.latency_seconds = chance.choice([0.2, 2.0])
        faults.chances = {
            kind: chance.choice([0.0, 0.02]) for kind in ("transient", "quota", "stall", "held_back")
        }
        faults.chances["lost_answer"] = chance.choice([0.0, 0.05])
        sink.dedup_seconds = chance.choice([0.0, 60.0])
        sink.visible_after_seconds = chance.choice([0.0, 10.0])
        sink.new_table_missing_seconds = chance.choice([0.0, 0.1 * self.settle_seconds])
        sink.new_table_swallows_seconds = chance.choice([0.0, 0.6 * self.settle_seconds])
        sink.new_column_unknown_seconds = chance.choice([0.0, 0.8 * self.settle_seconds])
        sink.load_queued_seconds = chance.choice([0.0, 3.0])

    def _store_runs(self, machine: FleetMachine, turn: int) -> None:
        chance, number = self.random, machine.number
        for count in range(chance.choice([1, 1, 2])):
            project, dataset = SHARED if not count else ("p", f"of_machine{number}")
            unique = 1000 * (number + 1) + 10 * turn + count
            # Later runs need new columns, or none: then their rows are streamed, whoever waits for a turn.
            known = chance.choice([0, turn])
            values: dict[str, JsonValue] = {
                # All add the same column, some of them spelled otherwise.
                chance.choice(["loss", "Loss"]) + str(known): unique + 0.25,
                f"steps{known}": unique,
                # Machines disagree about its type.
                f"drifts{known}": chance.choice([unique + 1, unique + 1.5, f"text {unique}"]),
            }
            if chance.random() < 0.1:
                values[f"of_machine{number}_{turn}"] = f"own {unique}"
            run = machine.local.store(project, dataset, f"m{number}t{turn}n{count}", images=2, values=values)
            self._runs[run.key.run] = run
            self._values[run.key.run] = values

    # What must be true.

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """Nobody touches what others have, and nothing but files arrives."""
        run, path = self._file(remote.name)
        assert before is None, f"{remote.name} was written twice"
        assert [content] == run.versions[path], f"{remote.name} is no file of its run"

    def saw_row(self, table: str, row: StoredRow) -> None:
        """A row arrives once, in its table, whole, after all files of its run."""
        name = str(row.cells["experiment_run_name"])
        run = self._runs[name]
        self._rows[name] += 1
        assert self._rows[name] == 1, f"the row of {name} came twice"
        assert run.table == table
        for path, [content] in run.versions.items():
            stored = self.store.objects.get(run.object_name(path))
            assert stored is not None, f"the row of {name} came before {path}"
            assert stored.content == content
        for key, value in self._values[name].items():
            assert _columns_of(row.cells, value), f"{key} of {name} is lost"

    def _file(self, name: str) -> tuple[StoredRun, str]:
        _, _, _, run_name, path = name.split("/", maxsplit=4)
        return self._runs[run_name], path

    def _check_all_arrived(self) -> None:
        missing = self._runs.keys() - self._rows.keys()
        assert not missing, f"rows are missing: {sorted(missing)}"
        # Of which key which columns of a table hold values; rows of the table hold nothing else.
        holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        used: defaultdict[str, set[str]] = defaultdict(set)
        for name, run in self._runs.items():
            [row] = [row for row in self.sink.stored(run.table) if row.cells["experiment_run_name"] == name]
            used[run.table] |= row.cells.keys()
            for key, value in self._values[name].items():
                holders[run.table, key.casefold()] |= _columns_of(row.cells, value)
        for (table, key), columns in holders.items():
            most = 3 if key.startswith("drifts") else 1
            assert len(columns) <= most, f"{key} of {table} has columns {sorted(columns)}"
        for table, names in used.items():
            found = [column.name for column in self.sink.table(table).columns.values()]
            assert len({name.casefold() for name in found}) == len(found)
            assert set(found) == names, f"table {table} has columns that no row needs"

    def check_limits(self) -> None:
        """Nearly nothing was refused for being too much, and waiting for that has an end.

        Raises:
            AssertionError: it was, or has not.
        """
        sink, store = self.sink, self.store
        updates = sum(sink.counts[method] for method in ("create_table", "add_columns", "load"))
        assert not sink.used_up, f"a day's updates of a table were used up: {self.told()}"
        assert sink.refused_updates.total() <= max(FEW, FEW_SHARE * updates), self.told()
        assert store.refused_writes <= max(FEW, FEW_SHARE * len(store.uploads)), self.told()
        turn = self.machines[0].settings.fleet.turn_seconds
        assert self.seconds <= FINISHES_SECONDS + FINISHES_TURNS * turn, self.told()

    def told(self) -> str:
        """What it came to, in one line."""
        sink, counts = self.sink, self.sink.counts
        changes = f"{counts['create_table']} created, {counts['add_columns']} altered, {counts['load']} loads"
        refused = f"{sink.refused_updates.total()} updates and {self.store.refused_writes} writes refused"
        return (
            f"{len(self.machines)} machines, {len(self._runs)} runs, {len(self.store.uploads)} objects: "
            f"{changes}, {counts['stream']} streamed; {refused}; {self.seconds:.0f} s"
        )


@contextmanager
def small_bucket(machines: int) -> Iterator[None]:
    """Let a bucket take so little at first that small machines fill it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "WRITES_PER_SECOND_START", WRITES_PER_MACHINE * machines)
        yield


def _columns_of(cells: Mapping[str, JsonValue], value: JsonValue) -> set[str]:
    return {name for name, cell in cells.items() if cell in (value, str(value))}


def run_history(seed: int, *, machines: int = MACHINES) -> FleetHistory:
    """Run one history; whatever is wrong with it fails, with how to replay it in a note."""
    with in_memory_folder() as folder:
        history = FleetHistory(seed, folder, machines=machines)
        try:
            history.run()
            history.check_limits()
        except Exception as error:
            error.add_note(f"this is history {seed}; replay it with: {replay(seed, machines)}")
            raise
    return history


def replay(seed: int, machines: int) -> str:
    """The command that replays a history."""
    return f"python -m tests.engine.simulate_fleet --first {seed} --histories 1 --machines {machines}"
