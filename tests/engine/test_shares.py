"""A machine that keeps to its share of a fleet's limits, and one whose table has none of them left."""

import logging
from pathlib import Path

import pytest

from pixaris_sync.errors import QUOTA_RESTS_SECONDS
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.engine.test_tables import settled, several
from tests.fakes.virtual_clock import VirtualClock

HOUR_SECONDS = 3600.0


def test_a_table_whose_load_jobs_are_used_up_is_left_alone_and_others_go_on(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: what is used up for the day is asked for a few times an hour, and holds up nothing else.

    Method: the service takes two updates of a table in a day. A column is added and its row loaded; then the
    load job of another row is refused, and the column of a third. For an hour come runs that need none, and
    one for a new table. Then the service takes updates again.
    """
    settled(machine)
    machine.sink.updates_per_day_limit = 2
    caplog.set_level(logging.WARNING)

    async def an_hour(engine: Engine) -> None:
        async def store(name: str, dataset: str = "d", **values: object) -> StoredRun:
            run = machine.local.store(dataset=dataset, name=name, values=values)
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(20.0)
            return run

        assert machine.state_of(await store("added", odd="x"))[0] == "synced"
        refused = await store("loaded")
        assert machine.state_of(refused)[0] == "failing"
        await machine.clock.sleep(machine.settings.table_settle_seconds)
        unheard_of = await store("unheard_of", odder="x")
        for number in range(10):
            assert machine.state_of(await store(f"run{number}"))[0] == "synced"
            await machine.clock.sleep(HOUR_SECONDS / 10)
        assert machine.state_of(refused)[0] == "synced"
        assert machine.state_of(unheard_of)[0] == "failing"
        assert machine.state_of(await store("first", dataset="other"))[0] == "synced"
        assert 3 <= machine.sink.used_up.total() <= 2 + 1.2 * HOUR_SECONDS / QUOTA_RESTS_SECONDS
        machine.sink.updates_per_day_limit = None
        await machine.clock.sleep(2 * QUOTA_RESTS_SECONDS)

    machine.follow(an_hour)

    machine.check_everything_arrived()
    assert len([record for record in caplog.records if "rests" in record.getMessage()]) <= 1


def test_rows_that_need_no_change_do_not_wait_for_a_turn(folder: Path) -> None:
    """Goal: in a large fleet a new column takes its time, and everything else none.

    Method: one of a hundred machines follows; a run needs a column, others need none.
    """
    machine = Machine(folder, fleet_size=100)
    settled(machine)
    turn_seconds = machine.settings.fleet.turn_seconds

    async def follow(engine: Engine) -> None:
        odd = machine.local.store(name="odd", values={"odd": "x"})
        engine.scan_soon(odd.key.dataset_key)
        await machine.clock.sleep(1.0)
        for number in range(10):
            run = machine.local.store(name=f"run{number}")
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(15.0)
            # Once the column is there, all rows go by load jobs for a while.
            assert machine.sink.counts["add_columns"] or machine.state_of(run)[0] == "synced"
        await machine.clock.sleep(3 * turn_seconds)

    machine.follow(follow)

    machine.check_everything_arrived()
    assert machine.sink.counts["add_columns"] == 1
    assert machine.sink.counts["stream"] >= 1


def test_a_machine_sends_its_share_of_a_days_load_jobs(folder: Path) -> None:
    """Goal: the load jobs of all machines together stay within the limit.

    Method: 300 a day for a hundred machines, and five rows in a job each: three are sent, the others the day
    after.
    """
    machine = Machine(folder, loads_per_day_limit=300, fleet_size=100, load_rows_limit=1)
    several(machine, 5)

    assert machine.run_pass(bulk=True).waiting == 2
    assert len(machine.sink.jobs) == 3

    machine.clock.let_pass(24 * HOUR_SECONDS)
    machine.run_pass(bulk=True)
    machine.check_everything_arrived()


@pytest.mark.parametrize("fleet_size", [None, 3, 20])
def test_time_goes_on_while_it_is_decided_when_to_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, fleet_size: int | None
) -> None:
    """Goal: a moment that is now is not taken for one to come, for ever.

    Method: each look at the clock takes a microsecond, as on real machines; rows are loaded into a table that
    was made just now.
    """
    machine = Machine(folder, fleet_size=fleet_size)

    def tick(clock: VirtualClock) -> float:
        clock.elapsed_seconds += 1e-6
        return clock.elapsed_seconds

    monkeypatch.setattr(VirtualClock, "elapsed", tick)
    monkeypatch.setattr(VirtualClock, "now", lambda clock: clock._epoch + tick(clock))
    for _ in range(3):
        several(machine, 3)
        machine.run_pass()
        machine.clock.let_pass(1.0)

    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds < 60.0 + 4 * machine.settings.fleet.turn_seconds
