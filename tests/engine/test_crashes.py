"""A process that ends at every possible instant, a ledger that is lost, a process that is told to stop."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pixaris_sync.pipeline.engine import Engine
from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine


def small_run(folder: Path) -> Machine:
    """Two datasets, a new one and one whose table is settled; a large file; two lines in one folder."""
    folder.mkdir()
    machine = Machine(folder, seed=1)
    machine.cloud_faults.latency_seconds = 0.3
    machine.sink.visible_after_seconds = 1.0
    machine.sink.dedup_seconds = 0.0
    machine.local.store(dataset="settled", values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()
    run = machine.local.store(dataset="settled", name="plain", values={"score": 2})
    machine.local.commit(run, {"score": 3})
    machine.local.store(name="large", images=1, image_bytes=300_000, saved=["config.json"])
    machine.local.store(name="new", images=1, values={"curve": {"a": 1}})
    return machine


def instants(folder: Path, kind: str) -> int:
    """How many instants of a kind there are when nothing happens."""
    machine = small_run(folder)
    before = machine.crash_points.counts[kind]
    machine.run_pass()
    machine.check_everything_arrived()
    return machine.crash_points.counts[kind] - before


def crash_at_each(folder: Path, kind: str, then: Callable[[Machine], None], *, every: int = 1) -> None:
    """Crash at each instant of a kind in turn, restart, and check the invariants."""
    count = instants(folder / "calm", kind)
    crashes = 0
    for number in range(1, count, every):
        machine = small_run(folder / str(number))
        machine.crash_points.arm(kind, number)
        # The last turns of a loop come when all is done.
        with suppress(CrashError):
            machine.run_pass()
        crashes += machine.crashes
        machine.check()
        then(machine)
        machine.run_pass()
        machine.check_everything_arrived()
        assert set(machine.store.upload_counts.values()) == {1}
    assert crashes > 20
    assert crashes >= len(range(1, count, every)) - 20


@pytest.mark.parametrize("kind", [pytest.param("begin", marks=pytest.mark.large), "commit"])
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


@pytest.mark.large
def test_a_crash_at_turns_of_the_event_loop(folder: Path) -> None:
    """Goal: the same at any await. Method: every fourth turn of the loop, in turn."""
    crash_at_each(folder, "step", lambda _: None, every=4)


def test_a_lost_ledger_costs_no_upload_and_no_second_row(folder: Path) -> None:
    """Goal: the ledger is a cache of the truth.

    Method: the process ends at every second commit, and its ledger is gone before the next one; some time
    later, so that rows that were sent can be seen.
    """

    def lose(machine: Machine) -> None:
        machine.lose_ledger()
        machine.clock.let_pass(2.0)

    crash_at_each(folder, "commit", lose, every=2)


@pytest.mark.parametrize("list_denied", [False, True])
def test_a_lost_ledger_and_a_crash_while_it_is_made_again(folder: Path, *, list_denied: bool) -> None:
    """Goal: the rebuilt ledger's doubts outlive a crash, too.

    Method: everything is synced, the ledger is lost, and the process that rebuilds it ends at turns of its
    event loop; rows and objects are counted.
    """
    machine = small_run(folder / "calm")
    machine.store.list_denied = list_denied
    machine.run_pass()
    machine.lose_ledger()
    before = machine.crash_points.counts["step"]
    machine.run_pass()
    count = machine.crash_points.counts["step"] - before
    crashes = 0
    for number in range(1, count, 7):
        machine = small_run(folder / str(number))
        machine.run_pass()
        machine.store.list_denied = list_denied
        uploads = len(machine.store.uploads)
        machine.lose_ledger()
        machine.crash_points.arm("step", number)
        with suppress(CrashError):
            machine.run_pass()
        crashes += machine.crashes
        machine.run_pass()
        machine.check_everything_arrived()
        assert len(machine.store.uploads) == uploads
    assert crashes > 20


def test_a_drained_engine_takes_nothing_new_and_finishes_what_is_in_flight(folder: Path) -> None:
    """Goal: a stop is clean.

    Method: drain with a few of many uploads in flight; those end, no other begins, and none is left in doubt.
    """
    machine = Machine(folder, upload_concurrency_limit=4)
    for number in range(20):
        machine.local.store(name=f"run{number}", images=1)
    machine.store.delay("upload", 10.0)

    async def stop_early(_: Engine) -> None:
        await machine.clock.sleep(5)

    left = machine.follow(stop_early)

    assert left.waiting == 20
    assert machine.store.counts["upload"] == 4
    assert machine.clock.elapsed_seconds < 15
    overview = machine.check()
    assert (overview.files["uploading"], overview.files["uploaded"]) == (0, 4)
    machine.run_pass()
    machine.check_everything_arrived()
    assert set(machine.store.upload_counts.values()) == {1}


def test_a_drained_engine_does_not_wait_for_an_outage_to_end(machine: Machine) -> None:
    """Goal: a stop is quick where nothing is in flight.

    Method: drain while the first contact rests for minutes.
    """
    for number in range(3):
        machine.local.store(dataset=f"d{number}")
    machine.cloud_faults.outages = {"bucket"}

    async def stop_late(_: Engine) -> None:
        await machine.clock.sleep(3600)

    machine.follow(stop_late)

    assert machine.clock.elapsed_seconds < 3601


def test_a_drained_pass_leaves_a_row_in_flight_well_known(machine: Machine) -> None:
    """Goal: a row that was sent when the stop came is neither lost nor doubled.

    Method: drain in the middle of its insert; the next pass reads it back.
    """
    machine.local.store(name="first")
    machine.run_pass()
    machine.let_tables_settle()
    machine.local.store(name="second")
    machine.cloud_faults.latency_seconds = 5.0
    machine.sink.visible_after_seconds = 20.0

    async def stop_while_it_is_sent(_: Engine) -> None:
        while not machine.sink.counts["stream"]:
            await machine.clock.sleep(0.1)

    machine.follow(stop_while_it_is_sent)

    assert machine.check().rows["accepted"] == 1
    machine.run_pass()
    machine.check_everything_arrived()
    assert machine.sink.counts["stream"] == 1
