"""A service that is told to stop, and to carry first what is stored by then."""

import anyio
import pytest

from pixaris_sync.model import FileState
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.engine.test_damaged_runs import damaged
from tests.engine.test_follower import HOUR_SECONDS

DAY_SECONDS = 24 * HOUR_SECONDS


async def stop(machine: Machine, engine: Engine, *, within_seconds: float = HOUR_SECONDS) -> None:
    """Tell an engine to finish, and to drain when that takes too long, as a process does."""
    engine.finish()
    await machine.clock.sleep(within_seconds)


def visible(machine: Machine, run: StoredRun) -> int:
    return len(machine.sink.visible_rows(run.table)) if run.table in machine.sink.tables else 0


@pytest.mark.parametrize("dataset", ["known", "new"])
def test_what_nobody_told_of_is_carried_before_the_end(machine: Machine, dataset: str) -> None:
    """Goal: the last run of a training goes with its process.

    Method: nothing watches the folder; a run is stored, and the engine is told to finish at that moment. It
    ends by itself, at once, and with the row read back.
    """
    machine.local.store(dataset="known", name="before")
    ended_at = 0.0

    async def script(engine: Engine) -> None:
        nonlocal ended_at
        await machine.clock.sleep(HOUR_SECONDS)
        machine.local.store(dataset=dataset, name="last")
        ended_at = machine.clock.elapsed_seconds
        await stop(machine, engine)

    left = machine.follow(script)
    assert (left.waiting, left.quarantined, left.unfinished) == (0, 0, 0)
    assert machine.clock.elapsed_seconds - ended_at < 60
    machine.check_everything_arrived()


def test_it_finishes_also_before_it_has_begun(machine: Machine) -> None:
    """Goal: a pod may end right after it started. Method: told to finish before the first look."""
    machine.local.store()
    machine.follow(lambda engine: stop(machine, engine))
    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds < 60


def test_what_is_stored_meanwhile_is_carried_too(machine: Machine) -> None:
    """Goal: a second handler stores at that moment. Method: a run a second, of which the engine is told."""
    machine.cloud_faults.latency_seconds = 5.0

    async def script(engine: Engine) -> None:
        machine.local.store(name="run")
        engine.finish()
        for number in range(5):
            await machine.clock.sleep(1)
            engine.scan_soon(machine.local.store(name=f"run{number}").key.dataset_key)
        await machine.clock.sleep(HOUR_SECONDS)

    assert machine.follow(script).waiting == 0
    machine.check_everything_arrived()
    assert len(machine.local.runs) == 6


@pytest.mark.parametrize("dataset", ["known", "new"])
@pytest.mark.parametrize("trouble", ["offline", "credentials"])
def test_a_destination_that_comes_back_in_time_is_not_waited_for_long(
    machine: Machine, trouble: str, dataset: str
) -> None:
    """Goal: the time that is left is used.

    Method: two hours without network, or without a login, let waits grow to minutes; they are over when the
    engine is told to finish, which takes seconds.
    """
    machine.local.store(dataset="known", name="before")
    told_at = 0.0

    async def script(engine: Engine) -> None:
        nonlocal told_at
        await machine.clock.sleep(HOUR_SECONDS)
        _break(machine, trouble)
        engine.scan_soon(machine.local.store(dataset=dataset, name="in the outage").key.dataset_key)
        await machine.clock.sleep(2 * HOUR_SECONDS)
        _mend(machine)
        told_at = machine.clock.elapsed_seconds
        await stop(machine, engine)

    machine.follow(script)
    assert sum(machine.cloud_faults.fired.values()) > 10
    assert machine.clock.elapsed_seconds - told_at < 30
    machine.check_everything_arrived()


@pytest.mark.parametrize(("trouble", "is_denied"), [("offline", False), ("credentials", True)])
def test_an_outage_lasts_until_the_time_is_up(machine: Machine, trouble: str, *, is_denied: bool) -> None:
    """Goal: an end in time, and a word of what is left.

    Method: nothing can be reached, or nobody authenticated; it goes on trying until it is drained, and what
    is left says so. The next process carries it.
    """
    machine.local.store(name="before")
    tries = 0

    async def script(engine: Engine) -> None:
        nonlocal tries
        await machine.clock.sleep(HOUR_SECONDS)
        _break(machine, trouble)
        machine.local.store(name="left")
        before = machine.cloud_faults.fired[trouble]
        await stop(machine, engine, within_seconds=100.0)
        tries = machine.cloud_faults.fired[trouble] - before

    left = machine.follow(script)
    assert (left.waiting, left.denied) == (1, is_denied)
    assert tries >= 5
    _mend(machine)
    machine.run_pass()
    machine.check_everything_arrived()


@pytest.mark.parametrize("trouble", ["offline", "credentials"])
def test_an_outage_that_ends_shortly_before_the_time_is_up_loses_nothing(
    machine: Machine, trouble: str
) -> None:
    """Goal: waits do not outgrow the time. Method: an outage of 600 s, and 630 s to finish in."""
    machine.local.store(name="before")

    async def mend_later() -> None:
        await machine.clock.sleep(600.0)
        _mend(machine)

    async def script(engine: Engine) -> None:
        await machine.clock.sleep(HOUR_SECONDS)
        _break(machine, trouble)
        machine.local.store(name="last")
        machine.local.store(dataset="new")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mend_later)
            await stop(machine, engine, within_seconds=630.0)

    assert machine.follow(script).waiting == 0
    machine.check_everything_arrived()


def _break(machine: Machine, trouble: str) -> None:
    machine.cloud_faults.offline = trouble == "offline"
    machine.cloud_faults.credentials = trouble != "credentials"


def _mend(machine: Machine) -> None:
    machine.cloud_faults.offline, machine.cloud_faults.credentials = False, True


def test_what_is_still_being_written_is_waited_for_no_longer_than_by_a_pass(machine: Machine) -> None:
    """Goal: an end. Method: a young image that is cut short, a run without its line, and a whole run."""
    machine.local.store(dataset="whole")
    told_at = 0.0

    async def script(engine: Engine) -> None:
        nonlocal told_at
        await machine.clock.sleep(HOUR_SECONDS)
        damaged(machine)
        machine.local.store(dataset="open", commit=False)
        machine.local.store(dataset="whole", name="last")
        told_at = machine.clock.elapsed_seconds
        await stop(machine, engine)

    left = machine.follow(script)
    assert (left.waiting, left.unfinished, left.quarantined) == (1, 1, 0)
    assert machine.clock.elapsed_seconds - told_at < machine.settings.young_file_seconds / 2
    assert len(machine.sink.visible_rows("p_whole_experiment_results")) == 2


def test_a_run_that_is_arriving_is_waited_for(machine: Machine) -> None:
    """Goal: what was copied in a moment ago is carried.

    Method: a copy goes on for longer than a pass waits for one, and ends just before the engine is told to
    finish: its row follows when its folder has been still.
    """
    machine.local.named_before_seconds = DAY_SECONDS
    last: list[StoredRun] = []

    async def script(engine: Engine) -> None:
        for number in range(20):
            await machine.clock.sleep(4)
            last[:] = [machine.local.store(name=f"run{number}", images=1)]
            engine.scan_soon(last[0].key.dataset_key)
        assert visible(machine, last[0]) < len(machine.local.runs)
        await stop(machine, engine)

    assert machine.follow(script).waiting == 0
    machine.check_everything_arrived()


def test_when_the_time_is_up_what_is_in_flight_ends_and_nothing_begins(machine: Machine) -> None:
    """Goal: a drain at the end. Method: a bucket that takes a minute for each of many files, and 100 s."""
    machine.local.store(name="before")

    async def script(engine: Engine) -> None:
        await machine.clock.sleep(HOUR_SECONDS)
        machine.cloud_faults.latency_seconds = 60.0
        for number in range(250):
            machine.local.store(name=f"run{number}", images=1)
        await stop(machine, engine, within_seconds=100.0)

    left = machine.follow(script)
    assert 0 < left.waiting < 250
    assert machine.check().files.get(FileState.UPLOADING, 0) == 0
    machine.cloud_faults.latency_seconds = 0.0
    machine.run_pass()
    machine.check_everything_arrived()
