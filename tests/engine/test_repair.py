"""A repair that ends at any instant: what was removed comes back once, and nothing else is touched."""

from collections import Counter
from pathlib import Path

import anyio
import pytest

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import WorkLeft
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.process.repair import take_up_missing
from tests.engine.crash_points import CrashError
from tests.engine.local_folder import MARKER, StoredRun
from tests.engine.machine import Machine, Script

#: Of how many instants of a kind one is tried, and in CI.
EVERY = {"begin": (11, 1), "commit": (13, 1), "call": (6, 1), "answer": (7, 1), "step": (211, 13)}


class RepairingMachine(Machine):
    """A machine whose passes may be those of ``sync --repair``."""

    repairs = False

    async def _work(self, mode: Mode, ledger: Ledger, script: Script | None) -> WorkLeft | None:
        left = await super()._work(mode, ledger, script)
        if left is None or not self.repairs:
            return left
        with anyio.CancelScope() as self._scope:
            await take_up_missing(self.settings, ledger, self.store, self.sink, clock=self.clock)
        return None if self.crash_points.crashed else await super()._work(mode, ledger, script)

    def repair(self) -> None:
        """Run ``sync --repair`` to its end; raises as `run_pass` does."""
        self.repairs = True
        try:
            self.run_pass()
        finally:
            self.repairs = False

    def remove_object(self, run: StoredRun, path: str) -> str:
        """Let somebody remove an object."""
        name = run.object_name(path)
        del self.store.objects[name]
        return name

    def remove_rows(self, table: str, *markers: int) -> None:
        """Let somebody delete rows, or the table where none is named; each may come once more."""
        stored = self.sink.stored(table)
        gone = [row for row in stored if not markers or row.cells[MARKER] in markers]
        self.invariants.rows_removed(table, gone, {})
        if markers:
            self.sink.table(table).rows[:] = [row for row in stored if row not in gone]
            self.sink._seen[table] -= len(gone)
        else:
            self.sink.drop(table)


def emptied(folder: Path) -> tuple[RepairingMachine, list[str]]:
    """Four synced runs; of one, two rows stand in a table of which one is gone, and another table is gone.

    Returns:
        The machine, and the names of the objects that were removed.
    """
    folder.mkdir()
    machine = RepairingMachine(folder, seed=1)
    machine.cloud_faults.latency_seconds = 0.3
    machine.sink.visible_after_seconds = 1.0
    machine.sink.dedup_seconds = 0.0
    machine.local.store(dataset="settled", values={"score": 1})
    twice = machine.local.store(dataset="settled", name="twice", values={"score": 2})
    second = machine.local.commit(twice, {"score": 3})
    large = machine.local.store(name="large", images=1, image_bytes=300_000, saved=["config.json"])
    curved = machine.local.store(name="curved", images=2, values={"curve": {"a": 1}})
    machine.run_pass()
    machine.clock.let_pass(machine.settings.table_settle_seconds)
    machine.check_everything_arrived()
    machine.remove_rows(twice.table, second.marker)
    machine.remove_rows(large.table)
    removed = [
        machine.remove_object(large, "generated_images/image0.png"),
        machine.remove_object(large, "config.json"),
        machine.remove_object(curved, "generated_images/image1.png"),
        machine.remove_object(curved, "curve.json"),
    ]
    return machine, removed


def assert_repaired(machine: RepairingMachine, removed: list[str]) -> None:
    """Everything is there once; what was removed was uploaded twice in all, and the rest once."""
    machine.check_everything_arrived()
    assert machine.store.upload_counts == Counter([*machine.store.objects, *removed])


def test_a_pass_alone_brings_nothing_back(folder: Path) -> None:
    """Goal: nobody restores unasked. Method: a pass of the same process, then of one that lost its ledger."""
    machine, removed = emptied(folder / "calm")
    rows = {table: len(machine.sink.stored(table)) for table in machine.sink.tables}

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    assert {table: len(machine.sink.stored(table)) for table in machine.sink.tables} == rows
    assert not set(removed) & set(machine.store.objects)
    machine.repair()
    assert_repaired(machine, removed)


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        *((kind, every) for kind, (every, _) in EVERY.items()),
        *(pytest.param(kind, every, marks=pytest.mark.large) for kind, (_, every) in EVERY.items()),
    ],
)
def test_a_repair_that_ends_at_any_instant(folder: Path, kind: str, every: int) -> None:
    """Goal: no second row, no second upload, no object overwritten, and all is there in the end.

    Method: it ends at instants of each kind in turn; a plain pass goes on, another repair finishes.
    """
    machine, removed = emptied(folder / "calm")
    before = machine.crash_points.counts[kind]
    machine.repair()
    count = machine.crash_points.counts[kind] - before
    assert_repaired(machine, removed)
    crashes = 0
    for number in range(2, count, every):
        machine, removed = emptied(folder / str(number))
        machine.crash_points.arm(kind, number)
        try:
            machine.repair()
        except CrashError:
            crashes += 1
        machine.run_pass()
        machine.repair()
        assert_repaired(machine, removed)
    assert crashes >= min(len(range(2, count, every)), 20) - 2
