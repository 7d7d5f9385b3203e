"""Runs that are copied in, their lines first: rows wait for their files, and nothing waits without need."""

import pytest

from pixaris_sync.model import RunState
from pixaris_sync.pipeline.arrival import PASS_WAITS_SECONDS
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.follower import LEDGER_POLL_SECONDS
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.engine.test_follower import silence, watch

DAY_SECONDS = 86400.0


def line_first(
    machine: Machine, name: str = "run", *, images: int = 3, saved: tuple[str, ...] = ()
) -> StoredRun:
    """Copy in the line of a run of yesterday; its images are still to come."""
    run = machine.local.name_run("p", "d", name)
    for index in range(images):
        run.versions[f"generated_images/image{index}.png"] = []
    for path in saved:
        run.versions[path] = []
    machine.local.commit(run, saved=saved)
    return run


@pytest.fixture(autouse=True)
def a_day_later(machine: Machine) -> None:
    """Let names be given yesterday."""
    machine.local.named_before_seconds = DAY_SECONDS


def visible(machine: Machine, run: StoredRun) -> int:
    return len(machine.sink.visible_rows(run.table)) if run.table in machine.sink.tables else 0


def test_a_row_waits_for_the_images_that_come_after_its_line(machine: Machine) -> None:
    """Goal: files before row, whoever brought them.

    Method: an image every four seconds; each is in the bucket before the next one, the row follows the last
    by the time of stillness, and until then the ledger says what it waits for.
    """
    run = line_first(machine)

    async def copy() -> None:
        for index in range(3):
            machine.local.put_image(run, f"generated_images/image{index}.png")
            await machine.clock.sleep(4)
            assert visible(machine, run) == 0
            assert len(machine.store.uploads) == index + 1
            found = machine.check()
            assert found.runs[RunState.SYNCED] == 0
            assert "still arriving" in found.waiting[0].cause
        await machine.clock.sleep(2 * machine.settings.still_folder_seconds)
        assert visible(machine, run) == 1

    watch(machine, silence, copy)
    machine.check_everything_arrived()


def test_runs_whose_folders_come_one_after_another_are_waited_for(machine: Machine) -> None:
    """Goal: what is still to come in a copy is nobody's fault.

    Method: the lines of four runs, then their folders, each while the others wait; none is ever quarantined.
    """
    runs = [line_first(machine, f"run{number}", images=4) for number in range(4)]

    async def copy() -> None:
        for run in runs:
            for path in run.versions:
                machine.local.put_image(run, path)
                await machine.clock.sleep(3)
                assert machine.check().runs[RunState.QUARANTINED] == 0
        await machine.clock.sleep(60)

    for run in runs:
        machine.local.forget_folder(run)
    watch(machine, silence, copy)
    machine.check_everything_arrived()


def test_what_never_comes_is_missing_in_the_end(machine: Machine) -> None:
    """Goal: waiting has an end, and then says why.

    Method: a saved file, and the images of another run, never come; a pass waits for seconds, the next one
    not at all.
    """
    one, other = line_first(machine, "one", images=0, saved=("config.json",)), line_first(machine, "other")
    machine.local.put_image(one, "generated_images/image0.png")

    assert machine.run_pass().quarantined == 2
    assert machine.clock.elapsed_seconds < 4 * machine.settings.still_folder_seconds
    assert "config.json" in machine.state_of(one)[1]
    assert "generated_images" in machine.state_of(other)[1]
    waited = machine.clock.elapsed_seconds
    assert machine.run_pass().quarantined == 2
    assert machine.clock.elapsed_seconds - waited < 1


def test_a_pass_waits_until_a_copy_is_still(machine: Machine) -> None:
    """Goal: `sync` right after a copy carries all of it. Method: a whole run, its line first; one pass."""
    run = line_first(machine)
    for path in run.versions:
        machine.local.put_image(run, path)

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds >= machine.settings.still_folder_seconds - 1


def test_a_pass_ends_although_files_go_on_arriving(machine: Machine) -> None:
    """Goal: a pass has an end. Method: with each upload one more image comes; a later pass carries it."""
    run = line_first(machine, images=1)
    machine.local.put_image(run, "generated_images/image0.png")
    images = 1

    def one_more(method: str) -> None:
        nonlocal images
        if method == "upload":
            machine.local.put_image(run, f"generated_images/image{images}.png")
            images += 1

    machine.store.on_call = one_more
    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (1, 0)
    assert visible(machine, run) == 0
    assert machine.clock.elapsed_seconds < 2 * PASS_WAITS_SECONDS
    machine.store.on_call = lambda _method: None
    machine.run_pass()
    machine.check_everything_arrived()


@pytest.mark.parametrize("copied", [True, False], ids=["copied in an hour ago", "written just now"])
def test_nothing_waits_without_need(machine: Machine, *, copied: bool) -> None:
    """Goal: neither a backfill of years nor a run of Pixaris is slower. Method: the time of a pass."""
    if copied:
        run = line_first(machine)
        for path in run.versions:
            machine.local.put_image(run, path)
        machine.clock.let_pass(3600)
    else:
        machine.local.named_before_seconds = 0
        machine.local.store()
    begun = machine.clock.elapsed_seconds

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds - begun < 1


def test_a_clock_that_is_ahead_holds_nothing_up(machine: Machine) -> None:
    """Goal: a file server's clock is not ours. Method: all is stamped an hour ahead; two looks decide."""
    machine.clock.jump(3600)
    run = line_first(machine)
    for path in run.versions:
        machine.local.put_image(run, path)
    machine.clock.jump(-3600)

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds < 2 * machine.settings.still_folder_seconds


def test_a_clock_that_is_put_forward_ends_no_waiting(machine: Machine) -> None:
    """Goal: five seconds are five seconds. Method: put it forward by a day between two images."""
    run = line_first(machine, images=2)
    machine.local.put_image(run, "generated_images/image0.png")

    async def copy(engine: Engine) -> None:
        await machine.clock.sleep(1)
        machine.clock.jump(DAY_SECONDS)
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(3)
        machine.local.put_image(run, "generated_images/image1.png")
        await machine.clock.sleep(20)

    machine.follow(copy)
    machine.check_everything_arrived()


def test_a_file_that_comes_after_its_row_is_carried_at_once(machine: Machine) -> None:
    """Goal: a copy that paused goes on without an hour's wait, and its run is not called synced meanwhile.

    Method: an image comes a quarter of an hour after the row; no event tells of it, and its upload takes a
    while.
    """
    run = line_first(machine, images=1)
    machine.local.put_image(run, "generated_images/image0.png")

    async def go_on() -> None:
        await machine.clock.sleep(900)
        assert visible(machine, run) == 1
        machine.store.delay("upload", 2.0)
        machine.local.put_image(run, "generated_images/late.png")
        await machine.clock.sleep(LEDGER_POLL_SECONDS + 1)
        assert machine.check().runs[RunState.SYNCED] == 0
        await machine.clock.sleep(2)
        assert len(machine.store.uploads) == 2
        await machine.clock.sleep(2 * machine.settings.still_folder_seconds)
        assert machine.check().runs[RunState.SYNCED] == 1

    watch(machine, silence, go_on)
    machine.check_everything_arrived()


def test_waiting_survives_a_restart(machine: Machine) -> None:
    """Goal: what was arriving before a restart is not taken for whole after it.

    Method: end the process between two images, half a second after the first look.
    """
    run = line_first(machine, images=2)
    machine.local.put_image(run, "generated_images/image0.png")

    async def copy(_: Engine) -> None:
        await machine.clock.sleep(1)

    machine.follow(copy)
    machine.local.put_image(run, "generated_images/image1.png")
    machine.run_pass()
    machine.check_everything_arrived()
