"""A ledger that is deleted in the middle of a backfill of 1,000 runs."""

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine
from tests.support.proof_summary import Tell

PROOF = "backfills without their ledgers"
RUNS = 1000
DATASETS = ("d0", "d1", "d2", "d3")
#: How a backfill of so many runs is cut short: at an instant of a kind, within the first so many of them.
INSTANTS = {"step": 6000, "commit": 600, "answer": 1000, "upload": 1000, "load": 20}
#: Rows go in many small load jobs, so that some are there and others are not at any instant.
LOAD_ROWS = 50


def backfill_to_do(folder: Path, seed: int) -> Machine:
    """1,000 runs in four datasets; two of their tables are there already."""
    machine = Machine(folder, seed=seed, load_rows_limit=LOAD_ROWS)
    machine.cloud_faults.latency_seconds = 0.3
    machine.sink.visible_after_seconds = 2.0
    for dataset in DATASETS[:2]:
        machine.local.store(dataset=dataset, name="old", images=1)
    machine.run_pass()
    machine.let_tables_settle()
    for number in range(RUNS):
        values = {"score": number} if number % 2 else {"loss": number / 7}
        machine.local.store(dataset=DATASETS[number % 4], name=f"run{number:04}", images=1, values=values)
    return machine


def assert_once(machine: Machine) -> None:
    """Every record is one row, every file was uploaded once."""
    machine.check_everything_arrived()
    assert len(machine.local.records) == RUNS + 2
    assert set(machine.store.upload_counts.values()) == {1}
    assert len(machine.store.uploads) == RUNS + 2


@pytest.mark.parametrize("list_denied", [False, pytest.param(True, marks=pytest.mark.large)])
@pytest.mark.parametrize("kind", INSTANTS)
def test_a_ledger_deleted_in_the_middle_of_a_backfill(
    folder: Path, kind: str, tell: Tell, *, list_denied: bool
) -> None:
    """Goal: no second row, no second upload of an unchanged file.

    Method: `backfill` ends at a seeded instant, its ledger is deleted, and it is run again at once, while
    requests of its predecessor are still on their way; by an account that may list and by one that may not.
    """
    chance = Random(f"{kind} {list_denied}")  # noqa: S311 - a test's chance needs no secrecy
    machine = backfill_to_do(folder, seed=chance.randrange(1000))
    machine.store.list_denied = list_denied
    machine.crash_points.arm(kind, chance.randint(INSTANTS[kind] // 3, INSTANTS[kind]))

    with suppress(CrashError):
        machine.run_pass(bulk=True)
    assert machine.crashes == 1
    assert len(machine.store.uploads) > RUNS // 10
    assert any(machine.sink.stored(table) for table in machine.sink.tables)
    machine.lose_ledger()
    left = machine.run_pass(bulk=True)

    assert (left.waiting, left.quarantined) == (0, 0)
    assert_once(machine)
    tell(PROOF, {"ledgers deleted": 1, "runs": RUNS})


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.large), pytest.param(2, marks=pytest.mark.large)]
)
def test_a_ledger_deleted_again_and_again(folder: Path, seed: int, tell: Tell) -> None:
    """Goal: the same, however often. Method: five times in one backfill, on bad days for the network."""
    machine = backfill_to_do(folder, seed)
    chance = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
    machine.cloud_faults.chances = {"transient": 0.02, "quota": 0.005, "lost_answer": 0.05}
    for _ in range(5):
        machine.crash_points.restart()
        machine.crash_points.arm("commit", chance.randint(50, 300))
        with suppress(CrashError):
            machine.run_pass(bulk=True)
        machine.lose_ledger()
    assert machine.crashes == 5
    assert len(machine.store.uploads) > RUNS // 10
    machine.cloud_faults.chances = {}

    machine.run_pass(bulk=True)

    assert_once(machine)
    tell(PROOF, {"ledgers deleted": 5, "runs": RUNS})
