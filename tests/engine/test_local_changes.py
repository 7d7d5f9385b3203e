"""Files that change meanwhile, and objects that stand in their way."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.overview import WorkLeft
from pixaris_sync.local.contents import RunFiles
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.pipeline.engine import Engine
from tests.engine.cloud_faults import LOST
from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = "generated_images/image0.png"


@pytest.mark.parametrize("told", [True, False])
def test_another_content_in_the_bucket_is_never_overwritten(machine: Machine, *, told: bool) -> None:
    """Goal: what somebody else put there stays.

    Method: an object of another content is in the way, known before the upload (a new dataset is compared) or
    not (it comes later); a listing tells its checksum or does not; when it is gone, `retry` uploads.
    """
    machine.store.listings_without_checksums = not told
    early = machine.local.store()
    machine.store.put(early.object_name(IMAGE), b"somebody else's")
    machine.run_pass()
    late = machine.local.store(name="late")
    machine.store.put(late.object_name(IMAGE), b"somebody else's")
    machine.run_pass()

    for run in (early, late):
        state, cause = machine.state_of(run)
        assert state == "quarantined"
        assert "another content" in cause
        assert machine.store.objects[run.object_name(IMAGE)].content == b"somebody else's"
        del machine.store.objects[run.object_name(IMAGE)]
    assert machine.release() == 2
    machine.run_pass()
    machine.check_everything_arrived()


def test_an_object_that_nobody_can_compare_is_never_overwritten(machine: Machine) -> None:
    """Goal: unknown is neither ours nor another; whose row is there needs nobody's help.

    Method: objects whose checksum neither a listing nor a look-up tells: of a run that was synced before its
    ledger was lost, and of one that was not.
    """
    synced = machine.local.store(name="synced")
    machine.run_pass()
    machine.lose_ledger()
    run = machine.local.store()
    machine.store.put(run.object_name(IMAGE), b"somebody else's")
    machine.store.listings_without_checksums = machine.store.stats_without_checksums = True
    uploads = machine.store.upload_counts.copy()

    machine.run_pass()

    assert machine.state_of(synced)[0] == "synced"
    state, cause = machine.state_of(run)
    assert state == "quarantined"
    assert "cannot be checked" in cause
    assert machine.store.objects[run.object_name(IMAGE)].content == b"somebody else's"
    new = machine.store.upload_counts - uploads
    assert new.keys() <= {run.object_name(path) for path in run.versions} - {run.object_name(IMAGE)}


@pytest.mark.parametrize("how", ["told", "not told", "not listed"])
def test_the_same_content_in_the_bucket_is_taken_as_it_is(machine: Machine, how: str) -> None:
    """Goal: nothing is sent that is there.

    Method: an object with the same content, found by a listing that tells its checksum or does not, or by its
    precondition; the row may be there as well, so it is looked for.
    """
    machine.store.listings_without_checksums = how == "not told"
    if how == "not listed":
        machine.local.store(name="first")
        machine.run_pass()
    run = machine.local.store(images=1)
    machine.store.put(run.object_name(IMAGE), run.versions[IMAGE][0])

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.store.upload_counts[run.object_name(IMAGE)] == 0
    assert machine.clock.elapsed_seconds >= machine.settings.doubt_settle_seconds


def test_an_image_that_changes_before_its_upload_is_sent_as_it_is_then(machine: Machine) -> None:
    """Goal: a version that is gone is not sent.

    Method: the image is replaced while its upload waits its turn.
    """
    machine.cloud_faults.latency_seconds = 1.0
    run = machine.local.store(images=1)

    async def change(_: Engine) -> None:
        machine.local.put_image(run, IMAGE)
        await machine.clock.sleep(60)

    machine.follow(change)

    machine.check_everything_arrived()
    assert machine.store.upload_counts == {run.object_name(IMAGE): 1}


@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("seen", [True, False])
def test_an_image_that_changes_during_its_upload_is_replaced(
    machine: Machine, size: int, *, seen: bool
) -> None:
    """Goal: what was sent of an old version is replaced by the new one.

    Method: the image changes while its bytes are on their way, and the folder is looked at meanwhile (`seen`)
    or afterwards.
    """
    machine.store.delay("upload", 5.0)
    machine.store.delay("upload_resumable", 5.0)
    run = machine.local.store(images=1, image_bytes=size)

    async def change(engine: Engine) -> None:
        await machine.clock.sleep(2.5)
        machine.local.put_image(run, IMAGE, size=size)
        if not seen:
            await machine.clock.sleep(60)
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(60)

    machine.follow(change)

    machine.check_everything_arrived()


def test_an_image_that_changes_after_its_run_is_synced_is_replaced_in_a_full_pass(machine: Machine) -> None:
    """Goal: only the changed file is sent again, over the version that is ours.

    Method: one of two images is replaced in place; a full pass sends it, a plain one need not see it.
    """
    run = machine.local.store()
    machine.run_pass()
    machine.clock.let_pass(1)
    machine.local.put_image(run, IMAGE)

    machine.run_pass(full=True)

    machine.check_everything_arrived()
    assert machine.store.upload_counts[run.object_name(IMAGE)] == 2
    assert len(machine.store.uploads) == 3
    assert len(machine.sink.visible_rows(run.table)) == 1


def test_a_changed_image_whose_object_was_removed_is_uploaded_anew(machine: Machine) -> None:
    """Goal: a precondition that can never hold again is no dead end.

    Method: remove the object, change the image, make a full pass.
    """
    run = machine.local.store()
    machine.run_pass()
    del machine.store.objects[run.object_name(IMAGE)]
    machine.local.put_image(run, IMAGE)

    left = machine.run_pass(full=True)

    assert left.quarantined == 0
    machine.check_everything_arrived()


def test_a_changed_image_does_not_replace_somebody_elses_object(machine: Machine) -> None:
    """Goal: our generation guards. Method: somebody else replaces our object, then the image changes."""
    run = machine.local.store()
    machine.run_pass()
    machine.store.put(run.object_name(IMAGE), b"somebody else's")
    machine.local.put_image(run, IMAGE)

    left = machine.run_pass(full=True)

    assert left.quarantined == 1
    assert machine.store.objects[run.object_name(IMAGE)].content == b"somebody else's"


def test_a_file_that_cannot_be_uploaded_stops_only_its_run(machine: Machine) -> None:
    """Goal: a hold on one object has an address.

    Method: the upload of one file is refused; `retry` after that.
    """
    runs = [machine.local.store(name=f"run{number}", images=1) for number in range(3)]
    machine.store.fail_next("upload", SyncError("upload", "o", "it is held", failure=Failure.PERMANENT))

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 1)
    assert sorted(machine.state_of(run)[0] for run in runs) == ["quarantined", "synced", "synced"]
    assert machine.release() == 1
    machine.run_pass()
    machine.check_everything_arrived()


def test_an_account_that_may_not_list_goes_on_without(machine: Machine) -> None:
    """Goal: a write-only account suffices for uploads. Method: listing is denied; the ledger is lost once."""
    machine.local.store()
    machine.store.list_denied = True
    for _ in range(2):
        machine.run_pass()
        machine.check_everything_arrived()
        machine.lose_ledger()

    assert set(machine.store.upload_counts.values()) == {1}


def test_a_large_file_cut_off_by_a_crash_goes_on_in_the_middle(folder: Path) -> None:
    """Goal: the session outlives the process.

    Method: cut the session in the last attempt of a pass; the next pass sends only the rest; then the same
    with a session that has expired.
    """
    for expired in (False, True):
        (folder / str(expired)).mkdir()
        machine = Machine(folder / str(expired))
        run = machine.local.store(images=1, image_bytes=600_000)
        machine.store.cut_session_after(400_000)
        machine.run_pass(attempts_limit=1)
        if expired:
            machine.store.expire_sessions()

        machine.run_pass()

        machine.check_everything_arrived()
        size = len(run.versions[IMAGE][0])
        assert machine.store.bytes_received == size + (400_000 if expired else 0)


@pytest.mark.parametrize("size", [0, 300_000])
def test_an_image_that_changes_while_its_upload_is_in_doubt_replaces_what_was_sent(
    machine: Machine, size: int
) -> None:
    """Goal: what our own lost upload made is no stranger's object.

    Method: the answer of an upload is lost; before it is looked up, the image is replaced.
    """
    run = machine.local.store(images=1, image_bytes=size)
    machine.cloud_faults.plan("upload_resumable" if size else "upload", LOST)

    async def change(engine: Engine) -> None:
        await machine.clock.sleep(0.1)
        machine.local.put_image(run, IMAGE, size=size)
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(120)

    machine.follow(change)

    machine.check_everything_arrived()
    assert machine.cloud_faults.plans_left == 0
    assert machine.store.upload_counts == {run.object_name(IMAGE): 2}


def test_a_file_that_is_rewritten_without_end_is_left_for_a_later_pass(machine: Machine) -> None:
    """Goal: a pass ends, whoever writes.

    Method: a large image is replaced whenever a piece of it was sent; then nobody writes any more.
    """
    run = machine.local.store(images=1, image_bytes=300_000)

    def rewrite(method: str) -> None:
        if method == "upload_resumable":
            machine.local.put_image(run, IMAGE, size=300_000)

    machine.store.on_call = rewrite
    assert machine.run_pass().waiting == 1
    machine.store.on_call = lambda _method: None

    machine.run_pass()

    machine.check_everything_arrived()


def test_a_run_goes_without_an_image_that_was_removed_when_it_is_taken_up_again(machine: Machine) -> None:
    """Goal: a bad image can be dismissed, but nothing is left out in silence.

    Method: a damaged image among others is removed; the run stays quarantined until `retry`.
    """
    run = machine.local.store(images=2)
    machine.local.put_damaged_image(run, "generated_images/bad.png")
    machine.clock.let_pass(machine.settings.young_file_seconds + 1)
    assert machine.run_pass().quarantined == 1

    machine.local.path(run, "generated_images/bad.png").unlink()
    del run.versions["generated_images/bad.png"]
    assert machine.run_pass().quarantined == 1
    assert machine.release() == 1
    machine.run_pass()

    machine.check_everything_arrived()


@pytest.mark.parametrize("what", ["image", "folder"])
def test_what_was_uploaded_stays_where_its_newer_version_is_gone(machine: Machine, what: str) -> None:
    """Goal: the hint keeps its word for a file that was uploaded before, too.

    Method: an image is replaced by a damaged one, which is removed, alone or with its folder; `retry`. The
    object stays as it was, until the file comes back, changed or as the first version was.
    """
    run = machine.local.store()
    machine.run_pass()
    first = machine.local.path(run, IMAGE).read_bytes()
    machine.local.put_damaged_image(run, IMAGE)
    machine.clock.let_pass(machine.settings.young_file_seconds + 1)
    assert machine.run_pass().quarantined == 1
    run.versions[IMAGE] = [first]
    folder = machine.local.path(run, "")
    shutil.rmtree(folder if what == "folder" else folder / "generated_images")

    assert machine.run_pass().quarantined == 1
    assert machine.release() == 1
    assert machine.run_pass().quarantined == 0

    assert machine.store.objects[run.object_name(IMAGE)].content == first
    machine.check_everything_arrived()
    machine.local.put_image(run, IMAGE)
    machine.run_pass()
    machine.check_everything_arrived()


def test_a_newer_version_that_is_gone_before_it_is_uploaded(machine: Machine) -> None:
    """Goal: what was synced is never quarantined for what became of its folder, nor is anything lost.

    Method: an image changes and cannot be uploaded, or it is not known whether it was; then its folder is
    moved away, and back again.
    """
    changed, in_doubt = machine.local.store(), machine.local.store(name="other")
    machine.run_pass()
    machine.local.put_image(changed, IMAGE)
    machine.store.fail_next("upload", SyncError("upload", "bucket", "503", failure=Failure.TRANSIENT))
    machine.run_pass(attempts_limit=1)
    machine.local.put_image(in_doubt, IMAGE)
    machine.crash_points.arm("upload", 1)
    with pytest.raises(CrashError):
        machine.run_pass()
    aside = machine.local.root.parent / "aside"
    places = {machine.local.path(run, ""): aside / run.key.run for run in (changed, in_doubt)}
    aside.mkdir()
    for place, moved in places.items():
        place.rename(moved)

    assert machine.run_pass() == WorkLeft(waiting=0, quarantined=0)
    for place, moved in places.items():
        moved.rename(place)
    aside.rmdir()
    assert machine.run_pass() == WorkLeft(waiting=0, quarantined=0)

    machine.check_everything_arrived()


def moved_away_once(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *, comes_back: bool = True
) -> "Callable[[], int]":
    """Move the dataset away just for the next call of a method, or for good.

    Returns:
        What tells how often it was moved.
    """
    dataset = machine.local.root / "p" / "d"
    look: Callable[..., Any] = getattr(owner, name)
    times_away = 0

    def look_while_it_is_away(*given: Any, **named: Any) -> Any:
        nonlocal times_away
        if times_away:
            return look(*given, **named)
        times_away += 1
        aside = dataset.rename(machine.local.root.with_name("aside"))
        try:
            return look(*given, **named)
        finally:
            if comes_back:
                aside.rename(dataset)

    monkeypatch.setattr(owner, name, look_while_it_is_away)
    return lambda: times_away


@pytest.mark.parametrize("looks", ["while it is found", "while it is read"])
def test_a_disk_that_is_away_for_a_moment_condemns_no_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    """Goal: what is missing is judged by what is seen beside the folder that is there.

    Method: the dataset is away just while an old run is looked at for the first time, or its files are read,
    and is back before anybody asks whether it is there.
    """
    run = machine.local.store()
    machine.clock.let_pass(machine.settings.young_file_seconds)
    owner, name = (LocalResults, "inspect") if looks == "while it is found" else (RunFiles, "_read_batch")
    times_away = moved_away_once(machine, monkeypatch, owner, name)

    machine.run_pass()

    assert times_away() == 1
    assert machine.state_of(run) == ("synced", "")
    machine.check_everything_arrived()


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("look", ["tail", "run_folders", "listing_changed_ns", "signature"])
def test_a_dataset_that_is_moved_away_under_a_look_is_no_fault(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, look: str, *, comes_back: bool
) -> None:
    """Goal: no alarm for what somebody moves: it is there again, or it is gone, which the listing tells.

    Method: a dataset that is moved away just when it is looked at, and back at once, or not at all.
    """
    machine.local.store()
    machine.clock.let_pass(machine.settings.young_file_seconds)
    machine.run_pass()
    times_away = moved_away_once(machine, monkeypatch, LocalResults, look, comes_back=comes_back)

    left = machine.run_pass()

    assert times_away() == 1
    assert left == WorkLeft(0, 0)
    assert machine.check().problems == ()


def test_what_was_wrong_in_a_dataset_is_forgotten_with_it(machine: Machine) -> None:
    """Goal: all is well once somebody has cleaned up. Method: faults of each kind; delete their datasets."""
    whole = machine.local.store()
    machine.clock.let_pass(machine.settings.young_file_seconds)
    (machine.local.root / "p" / "cut" / "20230101-000000_run" / "generated_images").mkdir(parents=True)
    (machine.local.root / "p" / "odd" / machine.settings.dataset_tracking_file_name).mkdir(parents=True)
    assert machine.run_pass().quarantined == 2
    for name in ("cut", "odd"):
        shutil.rmtree(machine.local.root / "p" / name)

    left = machine.run_pass()

    assert left == WorkLeft(0, 0)
    assert machine.state_of(whole) == ("synced", "")
