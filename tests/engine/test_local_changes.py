"""A folder that is not as it should be, or changes meanwhile: what waits, what is quarantined, what heals."""

import os
from pathlib import Path

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun, png
from tests.engine.world import World

IMAGE = "generated_images/image0.png"


def test_another_content_in_the_bucket_is_never_overwritten(world: World) -> None:
    """Goal: what somebody else put there stays. Method: an object of another content is in the way, known before
    the upload (a new dataset is compared) or not (it comes later); when it is gone, `retry` uploads."""
    early = world.local.store()
    world.store.put(early.object_name(IMAGE), b"somebody else's")
    world.run_pass()
    late = world.local.store(name="late")
    world.store.put(late.object_name(IMAGE), b"somebody else's")
    world.run_pass()

    for run in (early, late):
        state, cause = world.state_of(run)
        assert state == "quarantined"
        assert "another content" in cause
        assert world.store.objects[run.object_name(IMAGE)].content == b"somebody else's"
        del world.store.objects[run.object_name(IMAGE)]
    assert world.release() == 2
    world.run_pass()
    world.check_everything_arrived()


@pytest.mark.parametrize("known", [True, False])
def test_the_same_content_in_the_bucket_is_taken_as_it_is(world: World, *, known: bool) -> None:
    """Goal: nothing is sent that is there. Method: an object with the same content, found by listing or by its
    precondition; the row may be there as well, so it is looked for."""
    if not known:
        world.local.store(name="first")
        world.run_pass()
    run = world.local.store(images=1)
    world.store.put(run.object_name(IMAGE), run.versions[IMAGE][0])

    world.run_pass()

    world.check_everything_arrived()
    assert world.store.upload_counts[run.object_name(IMAGE)] == 0
    assert world.clock.elapsed_seconds >= world.settings.doubt_settle_seconds


def test_an_image_that_changes_before_its_upload_is_sent_as_it_is_then(world: World) -> None:
    """Goal: a version that is gone is not sent. Method: the image is replaced while its upload waits its turn."""
    world.weather.latency_seconds = 1.0
    run = world.local.store(images=1)

    async def change(engine: Engine) -> None:
        world.local.put_image(run, IMAGE)
        await world.clock.sleep(60)

    world.follow(change)

    world.check_everything_arrived()
    assert world.store.upload_counts == {run.object_name(IMAGE): 1}


@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("seen", [True, False])
def test_an_image_that_changes_during_its_upload_is_replaced(world: World, size: int, *, seen: bool) -> None:
    """Goal: what was sent of an old version is replaced by the new one. Method: the image changes while its bytes
    are on their way, and the folder is looked at meanwhile (`seen`) or afterwards."""
    world.store.delay("upload", 5.0)
    world.store.delay("upload_resumable", 5.0)
    run = world.local.store(images=1, image_bytes=size)

    async def change(engine: Engine) -> None:
        await world.clock.sleep(2.5)
        world.local.put_image(run, IMAGE, size=size)
        if not seen:
            await world.clock.sleep(60)
        engine.look_at(run.key.dataset_key)
        await world.clock.sleep(60)

    world.follow(change)

    world.check_everything_arrived()


def test_an_image_that_changes_after_its_run_is_synced_is_replaced_in_a_full_pass(world: World) -> None:
    """Goal: only the changed file is sent again, over the version that is ours. Method: one of two images is
    replaced in place; a full pass sends it, a plain one need not see it."""
    run = world.local.store()
    world.run_pass()
    world.clock.let_pass(1)
    world.local.put_image(run, IMAGE)

    world.run_pass(full=True)

    world.check_everything_arrived()
    assert world.store.upload_counts[run.object_name(IMAGE)] == 2
    assert len(world.store.uploads) == 3
    assert len(world.sink.visible_rows(run.table)) == 1


def test_a_changed_image_whose_object_was_removed_is_uploaded_anew(world: World) -> None:
    """Goal: a precondition that can never hold again is no dead end. Method: remove the object, change the image,
    make a full pass."""
    run = world.local.store()
    world.run_pass()
    del world.store.objects[run.object_name(IMAGE)]
    world.local.put_image(run, IMAGE)

    left = world.run_pass(full=True)

    assert left.stuck == 0
    world.check_everything_arrived()


def test_a_changed_image_does_not_replace_somebody_elses_object(world: World) -> None:
    """Goal: our generation guards. Method: somebody else replaces our object, then the image changes."""
    run = world.local.store()
    world.run_pass()
    world.store.put(run.object_name(IMAGE), b"somebody else's")
    world.local.put_image(run, IMAGE)

    left = world.run_pass(full=True)

    assert left.stuck == 1
    assert world.store.objects[run.object_name(IMAGE)].content == b"somebody else's"


def damaged(world: World, name: str = "damaged") -> StoredRun:
    run = world.local.store(name=name, commit=False)
    world.local.put_damaged_image(run, IMAGE)
    run.versions[IMAGE].clear()
    world.local.commit(run)
    return run


def test_a_young_damaged_image_waits_until_it_is_whole(world: World) -> None:
    """Goal: an image that is still being written is no problem. Method: it is cut short when its run is seen, and
    whole some seconds later, without anybody saying so."""
    run = damaged(world)
    world.local.store(name="whole")

    async def finish(engine: Engine) -> None:
        await world.clock.sleep(10)
        assert len(world.sink.visible_rows(run.table)) == 1
        assert "young" in await engine.context.apply(lambda db: db.execute(
            "SELECT cause FROM runs WHERE state = 'failing'"
        ).fetchone()[0])
        world.local.put_image(run, IMAGE)
        await world.clock.sleep(world.settings.young_file_seconds + 60)

    world.follow(finish)

    world.check_everything_arrived()


def test_a_pass_leaves_a_young_damaged_image_for_the_next_one(world: World) -> None:
    """Goal: a pass does not wait for writers. Method: it ends at once and says that a run waits; the next one
    finds the image whole."""
    run = damaged(world)

    assert world.run_pass().waiting == 1
    assert world.clock.elapsed_seconds < world.settings.young_file_seconds / 2
    world.local.put_image(run, IMAGE)
    world.run_pass()

    world.check_everything_arrived()


def test_an_old_damaged_image_is_quarantined_and_heals_when_it_is_replaced(world: World) -> None:
    """Goal: a damaged image is told in `status`, and its run goes on by itself once it is whole. Method: it gets
    old; other runs go on; it is replaced, and the next look at the folder takes it up."""
    run = damaged(world)
    world.local.store(name="whole")
    world.clock.let_pass(world.settings.young_file_seconds)

    assert (world.run_pass().stuck, world.run_pass().stuck) == (1, 1)
    state, cause = world.state_of(run)
    assert (state, "cannot be verified" in cause) == ("quarantined", True)
    world.local.put_image(run, IMAGE)
    world.run_pass()

    world.check_everything_arrived()


@pytest.mark.parametrize("by_retry", [True, False])
def test_a_run_whose_images_are_missing_heals_when_they_come(world: World, *, by_retry: bool) -> None:
    """Goal: nothing is uploaded that would look complete, and nothing is lost. Method: a run is committed without
    images; they come later; a look at the folder or `retry` takes it up."""
    run = world.local.store(images=0, saved=["config.json"])

    assert world.run_pass().stuck == 1
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

    assert world.run_pass().stuck == 1
    assert world.check().runs["synced"] == 9
    world.local.put(runs[4], "config.json", content)
    world.run_pass()

    world.check_everything_arrived()


def test_a_run_that_is_deleted_after_its_upload_still_gets_its_row(world: World) -> None:
    """Goal: what the folder has lost since is in the bucket. Method: the folder goes after the files arrived."""
    run = world.local.store(images=1)
    world.weather.outages = {run.table}
    world.run_pass()
    for path in (IMAGE, "args.json"):
        world.local.path(run, path).unlink()
    os.rmdir(world.local.path(run, "generated_images"))
    world.weather.outages = set()

    world.run_pass()

    world.check_everything_arrived()


def test_a_torn_line_waits_for_its_rest(world: World) -> None:
    """Goal: half a line is no record and no problem. Method: cut it, pass, restart, write the rest."""
    world.local.store(name="first")
    run = world.local.store(name="torn", commit=False)
    stored = world.local.commit(run, torn_bytes=30)

    for _ in range(2):
        assert (world.run_pass().waiting, world.run_pass().stuck) == (0, 0)
        assert world.check().torn_lines == 1
    world.local.mend_line(stored, 30)
    world.run_pass()

    world.check_everything_arrived()


def test_a_run_without_a_line_is_incomplete_once_it_is_old(world: World) -> None:
    """Goal: a run that was never finished is listed. Method: no line is written; then it is."""
    run = world.local.store(commit=False)

    assert world.run_pass().stuck == 0
    assert world.state_of(run)[0] == "pending"
    world.clock.let_pass(world.settings.incomplete_after_seconds)
    assert world.run_pass().stuck == 1
    assert world.state_of(run)[0] == "incomplete"
    world.local.commit(run)
    world.run_pass()

    world.check_everything_arrived()


def test_a_file_that_may_not_be_uploaded_stops_only_its_run(world: World) -> None:
    """Goal: a 403 for one object has an address. Method: the upload of one file is denied; `retry` after that."""
    runs = [world.local.store(name=f"run{number}", images=1) for number in range(3)]
    world.store.fail_next("upload", SyncError("upload", "o", "403", failure=Failure.PERMISSION))

    left = world.run_pass()

    assert (left.waiting, left.stuck) == (0, 1)
    assert sorted(world.state_of(run)[0] for run in runs) == ["quarantined", "synced", "synced"]
    assert world.release() == 1
    world.run_pass()
    world.check_everything_arrived()


def test_an_account_that_may_not_list_goes_on_without(world: World) -> None:
    """Goal: a write-only account suffices for uploads. Method: listing is denied; the ledger is lost once."""
    world.local.store()
    for _ in range(2):
        world.store.fail_next("list", SyncError("list", "p", "403", failure=Failure.PERMISSION))
        world.run_pass()
        world.check_everything_arrived()
        world.lose_ledger()

    assert set(world.store.upload_counts.values()) == {1}


def test_a_large_file_cut_off_by_a_crash_goes_on_in_the_middle(tmp_path: Path) -> None:
    """Goal: the session outlives the process. Method: cut the session in the last attempt of a pass; the next
    pass sends only the rest; then the same with a session that has expired."""
    for expired in (False, True):
        (tmp_path / str(expired)).mkdir()
        world = World(tmp_path / str(expired))
        run = world.local.store(images=1, image_bytes=600_000)
        world.store.cut_session_after(400_000)
        world.run_pass(attempts_limit=1)
        if expired:
            world.store.expire_sessions()

        world.run_pass()

        world.check_everything_arrived()
        size = len(run.versions[IMAGE][0])
        assert world.store.bytes_received == size + (400_000 if expired else 0)


def test_images_of_the_writer_are_whole() -> None:
    """Goal: the tests' own images are what they seem. Method: two numbers make two images, cut ones are shorter."""
    assert png(1) != png(2)
    assert len(png(1, 100)) == len(png(1)) + 112


def test_a_second_record_of_a_folder_does_not_hide_what_the_first_one_lacks(world: World) -> None:
    """Goal: a shared folder holds the files of all its records. Method: the first record's saved arg is missing
    when a second record without one comes; no row goes before the file is there."""
    run = world.local.store(saved=["config.json"])
    path = world.local.path(run, "config.json")
    content = path.read_bytes()
    path.unlink()
    assert world.run_pass().stuck == 1
    world.local.commit(run)

    assert world.run_pass().stuck == 1
    assert world.sink.tables == []
    world.local.put(run, "config.json", content)
    world.run_pass()

    world.check_everything_arrived()
    assert len(world.sink.visible_rows(run.table)) == 2
