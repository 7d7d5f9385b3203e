"""The engine packs finished runs and gives space back, and nothing else changes."""

from collections import Counter
from functools import partial
from sqlite3 import Connection

import pytest

from pixaris_sync.ledger import intake, packs
from pixaris_sync.ledger.database import Ledger, set_fact
from pixaris_sync.ledger.inventory import inventory
from pixaris_sync.ledger.known import known_datasets
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from tests.engine import folder_faults
from tests.engine.invariants import Invariants
from tests.engine.machine import Machine
from tests.engine.simulate import run_scenario

IMAGE = "generated_images/image0.png"
SCENARIOS = 40
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def small_ledgers_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACKED_FROM_BYTES", 0)


def numbers(machine: Machine) -> tuple[int, int]:
    """How many files stand in rows, and how many are packed."""
    with machine.ledger() as ledger:
        found: tuple[int, int] = ledger.read(
            lambda db: (
                db.execute("SELECT count(*) FROM files").fetchone()[0],
                db.execute("SELECT coalesce(sum(packed_files), 0) FROM runs").fetchone()[0],
            )
        )
    return found


def test_a_pass_leaves_packed_runs_and_sends_what_changes_in_them(machine: Machine) -> None:
    """Goal: a finished run is not a forgotten one.

    Method: after a pass change an image, add one, and look at everything; the cloud has the newest each time.
    """
    first, _ = (
        machine.local.store(name=name, saved=["arg.png"], values={"metric": {"a": 1}}) for name in "ab"
    )
    machine.run_pass()
    assert numbers(machine) == (0, 8)

    machine.local.put_image(first, IMAGE)
    machine.local.put_image(first, "generated_images/another.png")
    machine.clock.run(partial(machine.clock.sleep, 10))
    machine.run_pass(full=True)

    assert numbers(machine) == (0, 9)
    machine.check_everything_arrived()
    assert machine.store.upload_counts[first.object_name(IMAGE)] == 2


def test_a_full_look_at_what_is_as_it_was_costs_no_call_and_no_write(machine: Machine) -> None:
    """Goal: `--full` compares and no more. Method: look at everything; packs and uploads stay as they are."""
    machine.local.store()
    machine.run_pass()
    calls = machine.store.upload_counts.copy()

    def packs() -> list[tuple[object, ...]]:
        with machine.ledger() as ledger:
            found: list[tuple[object, ...]] = ledger.read(
                lambda db: [tuple(row) for row in db.execute("SELECT rowid, * FROM packs")]
            )
        return found

    before = packs()
    machine.run_pass(full=True)
    assert (packs(), machine.store.upload_counts) == (before, calls)


def test_what_an_earlier_process_left_is_packed_by_the_next(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an upgraded or interrupted ledger gets small too. Method: a pass that packs nothing, then one."""
    with monkeypatch.context() as patched:
        patched.setattr(packs, "PACKED_FROM_BYTES", 1024 * MEBIBYTE)
        machine.local.store()
        machine.run_pass()
        assert numbers(machine) == (2, 0)
    machine.run_pass()
    assert numbers(machine) == (0, 2)


def leave_unused(db: Connection) -> None:
    set_fact(db, "unused", "x" * 4 * MEBIBYTE)
    db.execute("DELETE FROM facts WHERE name = 'unused'")


def unused_pages(db: Connection) -> int:
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def test_a_pass_gives_space_back_at_its_end(machine: Machine) -> None:
    """Goal: the file is small when the work is done. Method: unused pages are there; a pass without work."""
    with machine.ledger() as ledger:
        ledger.write(leave_unused)
    machine.run_pass()
    with machine.ledger() as ledger:
        assert ledger.read(unused_pages) == 0


def test_a_service_gives_space_back_when_it_looks_at_everything(machine: Machine) -> None:
    """Goal: rarely, and beside the work. Method: unused pages stay through a look for news, then go."""

    async def script(engine: Engine) -> None:
        await engine.context.apply(leave_unused)
        for look, expected in ((ScanDepth.NEW_LINES, True), (ScanDepth.EVERYTHING, False)):
            await machine.clock.sleep(10)
            await engine.scan_all_soon(look)
            await machine.clock.sleep(10)
            assert bool(await engine.context.apply(unused_pages)) is expected

    machine.local.store()
    machine.follow(script)
    machine.check_everything_arrived()


def uploaded(db: Connection) -> dict[str, int]:
    """Checksums of all objects that the ledger calls uploaded, packed or not."""
    return {
        f"results/{key.project}/{key.dataset}/{run}/{path}": crc32c
        for key in known_datasets(db)
        for (run, path), crc32c in inventory(db, key).uploaded.items()
    }


@pytest.mark.large
def test_scenarios_hold_while_finished_runs_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the promise, whatever happens to runs that were packed.

    Method: seeded scenarios, in which packed files are changed like others, and the ledger's word on them is
    held against the bucket; runs must have been packed and taken out again.
    """
    happened: Counter[str] = Counter()
    restore, check_states = packs.restore, Invariants._check_states

    def restore_and_count(db: Connection, run_id: int) -> None:
        happened["restored"] += len(packs.packed_files(db, run_id))
        restore(db, run_id)

    def check_packed_too(self: Invariants, db: Connection) -> None:
        check_states(self, db)
        for name, crc32c in uploaded(db).items():
            self._check_uploaded(name, crc32c)
        both = "SELECT r.name FROM runs r JOIN files f ON f.run_id = r.id WHERE r.packed_files IS NOT NULL"
        assert db.execute(both).fetchall() == []
        happened["packed"] += db.execute("SELECT count(*) FROM packs").fetchone()[0]

    def read_uploaded(ledger: Ledger) -> dict[str, int]:
        return dict(ledger.read(uploaded))

    monkeypatch.setattr(intake, "restore", restore_and_count)
    monkeypatch.setattr(Invariants, "_check_states", check_packed_too)
    monkeypatch.setattr(folder_faults, "_uploaded_files", read_uploaded)
    for seed in range(SCENARIOS):
        run_scenario(seed)

    assert happened["packed"]
    assert happened["restored"]
