"""A process that ends at every possible instant, a ledger that is lost, a process that is told to stop."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pixaris_sync.pipeline.engine import Engine
from tests.engine.fuse import CrashError
from tests.engine.world import World


def small_history(folder: Path) -> World:
    """Two datasets, a new one and one whose table is settled; a large file; two lines in one folder."""
    folder.mkdir()
    world = World(folder, seed=1)
    world.weather.latency_seconds = 0.3
    world.sink.visible_after_seconds = 1.0
    world.sink.dedup_seconds = 0.0
    world.local.store(dataset="settled", values={"score": 1})
    world.run_pass()
    world.clock.let_pass(world.settings.table_settle_seconds)
    run = world.local.store(dataset="settled", name="plain", values={"score": 2})
    world.local.commit(run, {"score": 3})
    world.local.store(name="large", images=1, image_bytes=300_000, saved=["config.json"])
    world.local.store(name="new", images=1, values={"curve": {"a": 1}})
    return world


def instants(folder: Path, kind: str) -> int:
    """How many instants of a kind the history has when nothing happens."""
    world = small_history(folder)
    before = world.fuse.counts[kind]
    world.run_pass()
    world.check_everything_arrived()
    return world.fuse.counts[kind] - before


def crash_at_each(folder: Path, kind: str, then: Callable[[World], None], *, every: int = 1) -> None:
    """Crash at each instant of a kind in turn, restart, and hold everything against the truth."""
    count = instants(folder / "calm", kind)
    crashes = 0
    for number in range(1, count, every):
        world = small_history(folder / str(number))
        world.fuse.light(kind, number)
        # The last turns of a loop come when all is done.
        with suppress(CrashError):
            world.run_pass()
        crashes += world.crashes
        world.check()
        then(world)
        world.run_pass()
        world.check_everything_arrived()
        assert set(world.store.upload_counts.values()) == {1}
    assert crashes > 20
    assert crashes >= len(range(1, count, every)) - 20


@pytest.mark.parametrize("kind", ["begin", "commit"])
def test_a_crash_at_every_transition_of_the_ledger(folder: Path, kind: str) -> None:
    """Goal: exactly once, wherever the process ends.

    Method: it ends right before or right after each transaction in turn; a fresh process finishes.
    """
    crash_at_each(folder, kind, lambda _: None)


@pytest.mark.parametrize("kind", ["call", "answer"])
def test_a_crash_at_every_call(folder: Path, kind: str) -> None:
    """Goal: the same around the cloud.

    Method: the process ends before each call takes effect, or right after.
    """
    crash_at_each(folder, kind, lambda _: None)


def test_a_crash_at_turns_of_the_event_loop(folder: Path) -> None:
    """Goal: the same at any await. Method: every fourth turn of the loop, in turn."""
    crash_at_each(folder, "step", lambda _: None, every=4)


def test_a_lost_ledger_costs_no_upload_and_no_second_row(folder: Path) -> None:
    """Goal: the ledger is a cache of the truth.

    Method: the process ends at every second commit, and its ledger is gone before the next one; some time
    later, so that rows that were sent can be seen.
    """

    def lose(world: World) -> None:
        world.lose_ledger()
        world.clock.let_pass(2.0)

    crash_at_each(folder, "commit", lose, every=2)


@pytest.mark.parametrize("list_denied", [False, True])
def test_a_lost_ledger_and_a_crash_while_it_is_made_again(folder: Path, *, list_denied: bool) -> None:
    """Goal: the rebuilt ledger's doubts outlive a crash, too.

    Method: everything is synced, the ledger is lost, and the process that rebuilds it ends at turns of its
    event loop; rows and objects are counted.
    """
    world = small_history(folder / "calm")
    world.store.list_denied = list_denied
    world.run_pass()
    world.lose_ledger()
    before = world.fuse.counts["step"]
    world.run_pass()
    count = world.fuse.counts["step"] - before
    crashes = 0
    for number in range(1, count, 7):
        world = small_history(folder / str(number))
        world.run_pass()
        world.store.list_denied = list_denied
        uploads = len(world.store.uploads)
        world.lose_ledger()
        world.fuse.light("step", number)
        with suppress(CrashError):
            world.run_pass()
        crashes += world.crashes
        world.run_pass()
        world.check_everything_arrived()
        assert len(world.store.uploads) == uploads
    assert crashes > 20


def test_a_drained_engine_takes_nothing_new_and_finishes_what_is_in_flight(folder: Path) -> None:
    """Goal: a stop is clean.

    Method: drain with a few of many uploads in flight; those end, no other begins, and none is left in doubt.
    """
    world = World(folder, upload_concurrency_limit=4)
    for number in range(20):
        world.local.store(name=f"run{number}", images=1)
    world.store.delay("upload", 10.0)

    async def stop_early(_: Engine) -> None:
        await world.clock.sleep(5)

    left = world.follow(stop_early)

    assert left.waiting == 20
    assert world.store.counts["upload"] == 4
    assert world.clock.elapsed_seconds < 15
    overview = world.check()
    assert (overview.files["uploading"], overview.files["uploaded"]) == (0, 4)
    world.run_pass()
    world.check_everything_arrived()
    assert set(world.store.upload_counts.values()) == {1}


def test_a_drained_engine_does_not_wait_for_an_outage_to_end(world: World) -> None:
    """Goal: a stop is quick where nothing is in flight.

    Method: drain while the first contact rests for minutes.
    """
    for number in range(3):
        world.local.store(dataset=f"d{number}")
    world.weather.outages = {"bucket"}

    async def stop_late(_: Engine) -> None:
        await world.clock.sleep(3600)

    world.follow(stop_late)

    assert world.clock.elapsed_seconds < 3601


def test_a_drained_pass_leaves_a_row_in_flight_well_known(world: World) -> None:
    """Goal: a row that was sent when the stop came is neither lost nor doubled.

    Method: drain in the middle of its insert; the next pass reads it back.
    """
    world.local.store(name="first")
    world.run_pass()
    world.clock.let_pass(world.settings.table_settle_seconds)
    world.local.store(name="second")
    world.weather.latency_seconds = 5.0
    world.sink.visible_after_seconds = 20.0

    async def stop_while_it_is_sent(_: Engine) -> None:
        while not world.sink.counts["stream"]:
            await world.clock.sleep(0.1)

    world.follow(stop_while_it_is_sent)

    assert world.check().rows["accepted"] == 1
    world.run_pass()
    world.check_everything_arrived()
    assert world.sink.counts["stream"] == 1
