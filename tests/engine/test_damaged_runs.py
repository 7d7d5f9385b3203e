"""Runs that are damaged, incomplete or not whole yet: what waits, what is quarantined, what heals."""

import pytest

from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun, png
from tests.engine.machine import Machine

IMAGE = "generated_images/image0.png"


def damaged(machine: Machine, name: str = "damaged") -> StoredRun:
    run = machine.local.store(name=name, commit=False)
    machine.local.put_damaged_image(run, IMAGE)
    run.versions[IMAGE].clear()
    machine.local.commit(run)
    return run


def test_a_young_damaged_image_waits_until_it_is_whole(machine: Machine) -> None:
    """Goal: an image that is still being written is no problem.

    Method: it is cut short when its run is seen, and whole some seconds later, without anybody saying so.
    """
    run = damaged(machine)
    machine.local.store(name="whole")

    async def finish(engine: Engine) -> None:
        await machine.clock.sleep(10)
        assert len(machine.sink.visible_rows(run.table)) == 1
        assert "young" in await engine.context.apply(
            lambda db: db.execute("SELECT cause FROM runs WHERE state = 'failing'").fetchone()[0]
        )
        machine.local.put_image(run, IMAGE)
        await machine.clock.sleep(machine.settings.young_file_seconds + 60)

    machine.follow(finish)

    machine.check_everything_arrived()


def test_a_pass_leaves_a_young_damaged_image_for_the_next_one(machine: Machine) -> None:
    """Goal: a pass does not wait for writers.

    Method: it ends at once and says that a run waits; the next one finds the image whole.
    """
    run = damaged(machine)

    assert machine.run_pass().waiting == 1
    assert machine.clock.elapsed_seconds < machine.settings.young_file_seconds / 2
    machine.local.put_image(run, IMAGE)
    machine.run_pass()

    machine.check_everything_arrived()


def test_an_old_damaged_image_is_quarantined_and_heals_when_it_is_replaced(machine: Machine) -> None:
    """Goal: a damaged image is told in `status`, and its run goes on by itself once it is whole.

    Method: it gets old; other runs go on; it is replaced, and the next look at the folder takes it up.
    """
    run = damaged(machine)
    machine.local.store(name="whole")
    machine.clock.let_pass(machine.settings.young_file_seconds)

    assert (machine.run_pass().quarantined, machine.run_pass().quarantined) == (1, 1)
    state, cause = machine.state_of(run)
    assert (state, "cannot be verified" in cause) == ("quarantined", True)
    machine.local.put_image(run, IMAGE)
    machine.run_pass()

    machine.check_everything_arrived()


@pytest.mark.parametrize("by_retry", [True, False])
def test_a_run_whose_images_are_missing_heals_when_they_come(machine: Machine, *, by_retry: bool) -> None:
    """Goal: nothing is uploaded that would look complete, and nothing is lost.

    Method: a run is committed without images; they come later; a look at the folder or `retry` takes it up.
    """
    run = machine.local.store(images=0, saved=["config.json"])

    assert machine.run_pass().quarantined == 1
    assert machine.store.objects == {}
    machine.local.put_image(run, IMAGE)
    if by_retry:
        assert machine.release() == 1
    machine.run_pass()

    machine.check_everything_arrived()


def test_a_run_whose_saved_file_is_missing_waits_for_it_alone(machine: Machine) -> None:
    """Goal: one bad run never stops another. Method: one of ten runs lacks its saved arg; it comes later."""
    runs = [machine.local.store(name=f"run{number}", saved=["config.json"]) for number in range(10)]
    path = machine.local.path(runs[4], "config.json")
    content = path.read_bytes()
    path.unlink()

    assert machine.run_pass().quarantined == 1
    assert machine.check().runs["synced"] == 9
    machine.local.put(runs[4], "config.json", content)
    machine.run_pass()

    machine.check_everything_arrived()


def test_a_run_that_is_deleted_after_its_upload_still_gets_its_row(machine: Machine) -> None:
    """Goal: what the folder has lost since is in the bucket.

    Method: the folder goes after the files arrived.
    """
    run = machine.local.store(images=1)
    machine.cloud_faults.outages = {run.table}
    machine.run_pass()
    for path in (IMAGE, "args.json"):
        machine.local.path(run, path).unlink()
    machine.local.path(run, "generated_images").rmdir()
    machine.cloud_faults.outages = set()

    machine.run_pass()

    machine.check_everything_arrived()


def test_a_torn_line_waits_for_its_rest(machine: Machine) -> None:
    """Goal: half a line is no record and no problem. Method: cut it, pass, restart, write the rest."""
    machine.local.store(name="first")
    run = machine.local.store(name="torn", commit=False)
    stored = machine.local.commit(run, torn_bytes=30)

    for _ in range(2):
        assert (machine.run_pass().waiting, machine.run_pass().quarantined) == (0, 0)
        assert machine.check().torn_lines == 1
    machine.local.mend_line(stored, 30)
    machine.run_pass()

    machine.check_everything_arrived()


def test_a_run_without_a_line_is_incomplete_once_it_is_old(machine: Machine) -> None:
    """Goal: a run that was never finished is listed. Method: no line is written; then it is."""
    run = machine.local.store(commit=False)

    assert machine.run_pass().quarantined == 0
    assert machine.state_of(run)[0] == "pending"
    machine.clock.let_pass(machine.settings.incomplete_after_seconds)
    assert machine.run_pass().quarantined == 1
    assert machine.state_of(run)[0] == "incomplete"
    machine.local.commit(run)
    machine.run_pass()

    machine.check_everything_arrived()


def test_images_of_the_writer_are_whole() -> None:
    """Goal: the tests' own images are what they seem.

    Method: two numbers make two images, cut ones are shorter.
    """
    assert png(1) != png(2)
    assert len(png(1, 100)) == len(png(1)) + 112


def test_a_second_record_of_a_folder_does_not_hide_what_the_first_one_lacks(machine: Machine) -> None:
    """Goal: a shared folder holds the files of all its records.

    Method: the first record's saved arg is missing when a second record without one comes; no row goes before
    the file is there.
    """
    run = machine.local.store(saved=["config.json"])
    path = machine.local.path(run, "config.json")
    content = path.read_bytes()
    path.unlink()
    assert machine.run_pass().quarantined == 1
    machine.local.commit(run)

    assert machine.run_pass().quarantined == 1
    assert machine.sink.tables == []
    machine.local.put(run, "config.json", content)
    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.visible_rows(run.table)) == 2
