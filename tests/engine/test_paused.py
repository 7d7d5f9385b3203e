"""A pause that somebody asked for: nothing new begins, what is under way ends soon, nothing is lost."""

from pathlib import Path

import anyio

from pixaris_sync.ledger.notices import HELD
from pixaris_sync.ledger.overview import overview
from pixaris_sync.model import RunState
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.hold import PATIENCE_SECONDS
from tests.engine.machine import Machine


def _held(machine: Machine) -> bool:
    return any(problem.run == HELD for problem in machine.check().problems)


def test_nothing_is_asked_for_during_a_pause(tmp_path: Path) -> None:
    """Goal: `pause`. Method: runs that are stored meanwhile, in a new dataset too; count the calls."""
    machine = Machine(tmp_path)
    machine.local.store()

    async def script(engine: Engine) -> None:
        await machine.clock.sleep(60)
        calls, hold = machine.port_calls, engine.context.hold
        hold.begin(machine.clock.now())
        for dataset in ("dataset", "new"):
            engine.scan_soon(machine.local.store(dataset=dataset, name="later").key.dataset_key)
        await machine.clock.sleep(3600)
        assert machine.port_calls == calls
        assert hold.under_way == 0
        assert "paused by `pixaris-sync pause`" in await engine.describe()
        assert "2 runs waiting" in await engine.describe()
        hold.end()
        await machine.clock.sleep(60)
        assert await engine.describe() == "everything is synced"

    machine.follow(script)
    assert not _held(machine)
    machine.check_everything_arrived()


def test_a_pause_ends_what_takes_long_and_it_is_done_later(tmp_path: Path) -> None:
    """Goal: a short time. Method: a bucket that answers after a minute; interrupted uploads are in doubt."""
    machine = Machine(tmp_path)
    machine.local.store()
    machine.run_pass()

    async def script(engine: Engine) -> None:
        hold = engine.context.hold
        machine.cloud_faults.latency_seconds = 60.0
        engine.scan_soon(machine.local.store(name="slow").key.dataset_key)
        while not engine.context.concurrency.under_way:
            await machine.clock.sleep(5)
        hold.begin(machine.clock.now())
        await machine.clock.sleep(PATIENCE_SECONDS + 1)
        assert engine.context.concurrency.under_way == 0
        machine.cloud_faults.latency_seconds = 0.0
        hold.end()
        await machine.clock.sleep(600)

    machine.follow(script)
    machine.check_everything_arrived()


def test_a_paused_process_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Goal: SIGTERM drains during a pause. Method: drain with a new dataset that waits for its listing."""
    machine = Machine(tmp_path)

    async def script(engine: Engine) -> None:
        engine.context.hold.begin(machine.clock.now())
        engine.scan_soon(machine.local.store().key.dataset_key)
        await machine.clock.sleep(100)

    left = machine.follow(script)
    assert left.waiting == 1
    assert not _held(machine)
    machine.run_pass()
    machine.check_everything_arrived()


def test_a_paused_pass_waits_and_then_ends(tmp_path: Path) -> None:
    """Goal: `sync` does not end half done because it is paused. Method: an hour's pause, in virtual time."""
    machine = Machine(tmp_path)
    machine.local.store()

    async def pause(engine: Engine) -> None:
        engine.context.hold.begin(machine.clock.now())
        await machine.clock.sleep(3600)
        engine.context.hold.end()
        await anyio.sleep_forever()

    left = machine.run_pass(beside=pause)
    assert left.waiting == 0
    assert machine.clock.elapsed_seconds > 3600
    machine.check_everything_arrived()


def test_a_pause_of_a_killed_process_is_not_told(tmp_path: Path) -> None:
    """Goal: `status` tells of no pause that nobody keeps. Method: a crash during one; what status reads."""
    machine = Machine(tmp_path)
    machine.local.store()

    async def script(engine: Engine) -> None:
        engine.context.hold.begin(machine.clock.now())
        await machine.clock.sleep(10)
        with machine.ledger() as ledger:
            told = ledger.read(lambda db: overview(db, "experiment_tracking.jsonl"))
            alone = ledger.read(lambda db: overview(db, "experiment_tracking.jsonl", at_work=None))
        assert [problem.run for problem in told.problems] == [HELD]
        assert alone.problems == ()
        assert told.runs[RunState.PENDING] + told.runs[RunState.SYNCED] == 1

    machine.follow(script)
