"""A ledger that is deleted in the middle of a backfill of 1,000 runs."""

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.engine.fuse import CrashError
from tests.engine.world import World
from tests.support.proofs import Tell

PROOF = "backfills without their ledgers"
RUNS = 1000
DATASETS = ("d0", "d1", "d2", "d3")
#: How a backfill of so many runs is cut short: at an instant of a kind, within the first so many of them.
INSTANTS = {"step": 6000, "commit": 600, "answer": 1000, "upload": 1000, "load": 20}
#: Rows go in many small load jobs, so that some are there and others are not at any instant.
LOAD_ROWS = 50


def backfill_to_do(folder: Path, seed: int) -> World:
    """1,000 runs in four datasets; two of their tables are there already."""
    world = World(folder, seed=seed, load_rows_limit=LOAD_ROWS)
    world.weather.latency_seconds = 0.3
    world.sink.visible_after_seconds = 2.0
    for dataset in DATASETS[:2]:
        world.local.store(dataset=dataset, name="old", images=1)
    world.run_pass()
    world.clock.let_pass(world.settings.table_settle_seconds)
    for number in range(RUNS):
        values = {"score": number} if number % 2 else {"loss": number / 7}
        world.local.store(dataset=DATASETS[number % 4], name=f"run{number:04}", images=1, values=values)
    return world


def assert_once(world: World) -> None:
    """Every record is one row, every file was uploaded once."""
    world.check_everything_arrived()
    assert len(world.local.records) == RUNS + 2
    assert set(world.store.upload_counts.values()) == {1}
    assert len(world.store.uploads) == RUNS + 2


@pytest.mark.parametrize("list_denied", [False, True])
@pytest.mark.parametrize("kind", INSTANTS)
def test_a_ledger_deleted_in_the_middle_of_a_backfill(
    folder: Path, kind: str, tell: Tell, *, list_denied: bool
) -> None:
    """Goal: no second row, no second upload of an unchanged file.

    Method: `backfill` ends at a seeded instant, its ledger is deleted, and it is run again at once, while
    requests of its predecessor are still on their way; by an account that may list and by one that may not.
    """
    chance = Random(f"{kind} {list_denied}")  # noqa: S311 - a test's chance needs no secrecy
    world = backfill_to_do(folder, seed=chance.randrange(1000))
    world.store.list_denied = list_denied
    world.fuse.light(kind, chance.randint(INSTANTS[kind] // 3, INSTANTS[kind]))

    with suppress(CrashError):
        world.run_pass(bulk=True)
    assert world.crashes == 1
    assert len(world.store.uploads) > RUNS // 10
    assert any(world.sink.stored(table) for table in world.sink.tables)
    world.lose_ledger()
    left = world.run_pass(bulk=True)

    assert (left.waiting, left.quarantined) == (0, 0)
    assert_once(world)
    tell(PROOF, {"ledgers deleted": 1, "runs": RUNS})


@pytest.mark.parametrize("seed", range(3))
def test_a_ledger_deleted_again_and_again(folder: Path, seed: int, tell: Tell) -> None:
    """Goal: the same, however often. Method: five times in one backfill, on bad days for the network."""
    world = backfill_to_do(folder, seed)
    chance = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
    world.weather.chances = {"transient": 0.02, "quota": 0.005, "lost_answer": 0.05}
    for _ in range(5):
        world.fuse.renew()
        world.fuse.light("commit", chance.randint(50, 300))
        with suppress(CrashError):
            world.run_pass(bulk=True)
        world.lose_ledger()
    assert world.crashes == 5
    assert len(world.store.uploads) > RUNS // 10
    world.weather.chances = {}

    world.run_pass(bulk=True)

    assert_once(world)
    tell(PROOF, {"ledgers deleted": 5, "runs": RUNS})
