"""Runs that are damaged, incomplete or not whole yet: what waits, what is quarantined, what heals."""

import pytest

from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun, png
from tests.engine.world import World

IMAGE = "generated_images/image0.png"


def damaged(world: World, name: str = "damaged") -> StoredRun:
    run = world.local.store(name=name, commit=False)
    world.local.put_damaged_image(run, IMAGE)
    run.versions[IMAGE].clear()
    world.local.commit(run)
    return run


def test_a_young_damaged_image_waits_until_it_is_whole(world: World) -> None:
    """Goal: an image that is still being written is no problem.

    Method: it is cut short when its run is seen, and whole some seconds later, without anybody saying so.
    """
    run = damaged(world)
    world.local.store(name="whole")

    async def finish(engine: Engine) -> None:
        await world.clock.sleep(10)
        assert len(world.sink.visible_rows(run.table)) == 1
        assert "young" in await engine.context.apply(
            lambda db: db.execute("SELECT cause FROM runs WHERE state = 'failing'").fetchone()[0]
        )
        world.local.put_image(run, IMAGE)
        await world.clock.sleep(world.settings.young_file_seconds + 60)

    world.follow(finish)

    world.check_everything_arrived()


def test_a_pass_leaves_a_young_damaged_image_for_the_next_one(world: World) -> None:
    """Goal: a pass does not wait for writers.

    Method: it ends at once and says that a run waits; the next one finds the image whole.
    """
    run = damaged(world)

    assert world.run_pass().waiting == 1
    assert world.clock.elapsed_seconds < world.settings.young_file_seconds / 2
    world.local.put_image(run, IMAGE)
    world.run_pass()

    world.check_everything_arrived()


def test_an_old_damaged_image_is_quarantined_and_heals_when_it_is_replaced(world: World) -> None:
    """Goal: a damaged image is told in `status`, and its run goes on by itself once it is whole.

    Method: it gets old; other runs go on; it is replaced, and the next look at the folder takes it up.
    """
    run = damaged(world)
    world.local.store(name="whole")
    world.clock.let_pass(world.settings.young_file_seconds)

    assert (world.run_pass().quarantined, world.run_pass().quarantined) == (1, 1)
    state, cause = world.state_of(run)
    assert (state, "cannot be verified" in cause) == ("quarantined", True)
    world.local.put_image(run, IMAGE)
    world.run_pass()

    world.check_everything_arrived()


@pytest.mark.parametrize("by_retry", [True, False])
def test_a_run_whose_images_are_missing_heals_when_they_come(world: World, *, by_retry: bool) -> None:
    """Goal: nothing is uploaded that would look complete, and nothing is lost.

    Method: a run is committed without images; they come later; a look at the folder or `retry` takes it up.
    """
    run = world.local.store(images=0, saved=["config.json"])

    assert world.run_pass().quarantined == 1
    assert world.store.objects == {}
    world.local.put_image(run, IMAGE)
    if by_retry:
        assert world.release() == 1
    world.run_pass()

    world.check_everything_arrived()


def test_a_run_whose_saved_file_is_missing_waits_for_it_alone(world: World) -> None:
    """Goal: one bad run never stops another. Method: one of ten runs lacks its saved arg; it comes later."""
    runs = [world.local.store(name=f"run{number}", saved=["config.json"]) for number in range(10)]
    path = world.local.path(runs[4], "config.json")
    content = path.read_bytes()
    path.unlink()

    assert world.run_pass().quarantined == 1
    assert world.check().runs["synced"] == 9
    world.local.put(runs[4], "config.json", content)
    world.run_pass()

    world.check_everything_arrived()


def test_a_run_that_is_deleted_after_its_upload_still_gets_its_row(world: World) -> None:
    """Goal: what the folder has lost since is in the bucket.

    Method: the folder goes after the files arrived.
    """
    run = world.local.store(images=1)
    world.weather.outages = {run.table}
    world.run_pass()
    for path in (IMAGE, "args.json"):
        world.local.path(run, path).unlink()
    world.local.path(run, "generated_images").rmdir()
    world.weather.outages = set()

    world.run_pass()

    world.check_everything_arrived()


def test_a_torn_line_waits_for_its_rest(world: World) -> None:
    """Goal: half a line is no record and no problem. Method: cut it, pass, restart, write the rest."""
    world.local.store(name="first")
    run = world.local.store(name="torn", commit=False)
    stored = world.local.commit(run, torn_bytes=30)

    for _ in range(2):
        assert (world.run_pass().waiting, world.run_pass().quarantined) == (0, 0)
        assert world.check().torn_lines == 1
    world.local.mend_line(stored, 30)
    world.run_pass()

    world.check_everything_arrived()


def test_a_run_without_a_line_is_incomplete_once_it_is_old(world: World) -> None:
    """Goal: a run that was never finished is listed. Method: no line is written; then it is."""
    run = world.local.store(commit=False)

    assert world.run_pass().quarantined == 0
    assert world.state_of(run)[0] == "pending"
    world.clock.let_pass(world.settings.incomplete_after_seconds)
    assert world.run_pass().quarantined == 1
    assert world.state_of(run)[0] == "incomplete"
    world.local.commit(run)
    world.run_pass()

    world.check_everything_arrived()


def test_images_of_the_writer_are_whole() -> None:
    """Goal: the tests' own images are what they seem.

    Method: two numbers make two images, cut ones are shorter.
    """
    assert png(1) != png(2)
    assert len(png(1, 100)) == len(png(1)) + 112


def test_a_second_record_of_a_folder_does_not_hide_what_the_first_one_lacks(world: World) -> None:
    """Goal: a shared folder holds the files of all its records.

    Method: the first record's saved arg is missing when a second record without one comes; no row goes before
    the file is there.
    """
    run = world.local.store(saved=["config.json"])
    path = world.local.path(run, "config.json")
    content = path.read_bytes()
    path.unlink()
    assert world.run_pass().quarantined == 1
    world.local.commit(run)

    assert world.run_pass().quarantined == 1
    assert world.sink.tables == []
    world.local.put(run, "config.json", content)
    world.run_pass()

    world.check_everything_arrived()
    assert len(world.sink.visible_rows(run.table)) == 2
