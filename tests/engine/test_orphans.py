"""Run folders without a line while an engine follows: what the cloud is asked about them, and how often."""

import shutil

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.overview import overview
from pixaris_sync.pipeline.follower import EVERYTHING_SECONDS
from tests.engine.local_folder import TRACKING_FILE, StoredRun
from tests.engine.machine import Machine
from tests.engine.test_follower import silence, watch


def states(machine: Machine) -> dict[str, int]:
    with machine.ledger() as ledger:
        runs: dict[str, int] = ledger.read(lambda db: overview(db, TRACKING_FILE)).runs
    return {state: count for state, count in runs.items() if count}


def downloaded(machine: Machine, count: int = 2) -> list[StoredRun]:
    """Runs that are in the cloud, and whose folders are here without lines, as Pixaris downloads them."""
    runs = [machine.local.store(name=f"run{number}") for number in range(count)]
    machine.run_pass()
    machine.lose_ledger()
    for run in runs:
        machine.local.path(run, "args.json").unlink()
    machine.local.tracking_file(runs[0]).write_text("")
    return runs


def count_questions(machine: Machine) -> tuple[int, int]:
    return machine.sink.counts["count_rows"], machine.store.counts["list"]


def test_downloaded_folders_are_asked_about_once(machine: Machine) -> None:
    """Goal: an answer costs one question, and is remembered. Method: follow for hours; restart; a change."""
    runs = downloaded(machine, 3)
    before = count_questions(machine)

    async def hours() -> None:
        await machine.clock.sleep(machine.settings.incomplete_after_seconds + 3 * EVERYTHING_SECONDS)

    watch(machine, silence, hours)
    machine.run_pass()

    assert states(machine) == {"downloaded": 3}
    rows, listings = (now - then for now, then in zip(count_questions(machine), before, strict=True))
    # Nothing waits to be uploaded, so that nothing else is looked for in the bucket.
    assert (rows, listings) == (1, 3)
    machine.local.put_image(runs[0], "generated_images/more.png")
    machine.clock.let_pass(machine.settings.incomplete_after_seconds)
    left = machine.run_pass()
    assert (left.quarantined, states(machine)) == (1, {"downloaded": 2, "incomplete": 1})


def test_folders_stay_incomplete_while_the_cloud_cannot_be_asked(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: what passes by itself is not permanent, and told once. Method: the bucket is away for hours."""
    caplog.set_level("INFO")
    downloaded(machine)
    machine.clock.let_pass(machine.settings.incomplete_after_seconds)

    async def hours() -> None:
        machine.cloud_faults.outages = {"bucket"}
        await machine.clock.sleep(3 * EVERYTHING_SECONDS)
        assert "stay incomplete" in caplog.text
        machine.cloud_faults.outages = set()
        await machine.clock.sleep(2 * machine.settings.retry_delay_seconds_max)

    watch(machine, silence, hours)

    assert states(machine) == {"downloaded": 2}
    assert caplog.text.count("stay incomplete") <= 2


def test_a_refusal_is_asked_again_when_all_is_looked_at(machine: Machine) -> None:
    """Goal: an account that may not ask costs little. Method: the table refuses; count the questions."""
    downloaded(machine)
    machine.clock.let_pass(machine.settings.incomplete_after_seconds)
    refusal = SyncError("count rows", "table", "403: no", failure=Failure.PERMISSION)
    machine.cloud_faults.plan("count_rows", *[refusal] * 3)
    before = machine.sink.counts["count_rows"]

    async def hours() -> None:
        await machine.clock.sleep(2.5 * EVERYTHING_SECONDS)
        assert machine.sink.counts["count_rows"] == before + 3
        await machine.clock.sleep(EVERYTHING_SECONDS)

    watch(machine, silence, hours)

    assert states(machine) == {"downloaded": 2}


def test_a_run_is_given_up_while_an_engine_follows(machine: Machine) -> None:
    """Goal: no restart is needed. Method: lose a run's folder, then take its line out; another goes on."""
    run = machine.local.store(images=0)
    tracking = machine.local.tracking_file(run)

    async def script() -> None:
        await machine.clock.sleep(600)
        shutil.rmtree(machine.local.path(run, ""))
        await machine.clock.sleep(600)
        tracking.write_bytes(b"")
        other = machine.local.store(name="other")
        await machine.clock.sleep(600)
        assert len(machine.sink.visible_rows(other.table)) == 1

    watch(machine, silence, script)

    assert states(machine) == {"synced": 1}
