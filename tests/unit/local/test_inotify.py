"""The doorbell: rings at whatever is written, keeps quiet else, and loses no ring."""

import gc
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from pixaris_sync.local import watch_events
from pixaris_sync.local.inotify import Doorbell
from pixaris_sync.local.watch_events import hang_bell

PATIENCE_SECONDS = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "tracking").write_text("a line\n")
    return tmp_path / "dataset"


@pytest.fixture
def bell(folder: Path) -> Iterator[Doorbell]:
    bell = Doorbell([folder])
    yield bell
    bell.close()


def rings(bell: Doorbell) -> bool:
    """Whether a wait would end at once; the kernel has rung before a write returns."""
    return bool(select.select([bell._handle], [], [], 0)[0])


def append(folder: Path) -> None:
    with (folder / "tracking").open("a") as file:
        file.write("another\n")


@pytest.mark.parametrize(
    "happen",
    [
        pytest.param(append, id="append"),
        pytest.param(lambda folder: (folder / "run").mkdir(), id="new folder"),
        pytest.param(lambda folder: (folder / "tracking").rename(folder / "old"), id="rename"),
        pytest.param(lambda folder: (folder / "tracking").unlink(), id="removal"),
        pytest.param(lambda folder: (folder / "tracking").chmod(0o600), id="permissions"),
        pytest.param(lambda folder: folder.rename(folder.with_name("moved")), id="folder moved"),
    ],
)
def test_it_rings_at_what_happens_and_until_it_is_hushed(
    bell: Doorbell, folder: Path, happen: Callable[[Path], object]
) -> None:
    """Goal: nothing that matters is slept through. Method: each sort of change, seen twice, then hushed."""
    assert not rings(bell)
    happen(folder)
    assert rings(bell)
    assert rings(bell)
    bell.hush()
    assert not rings(bell)


def test_reading_and_what_is_deeper_do_not_ring(bell: Doorbell, folder: Path) -> None:
    """Goal: a scan does not wake itself. Method: read and list; write into a folder's folder."""
    (folder / "run").mkdir()
    bell.hush()
    assert (folder / "tracking").read_text()
    assert len(list(folder.iterdir())) == 2
    (folder / "run" / "image.png").write_text("x")
    assert not rings(bell)


@pytest.mark.anyio
async def test_who_waits_is_woken_also_by_what_came_before(bell: Doorbell, folder: Path) -> None:
    """Goal: no wake-up lost. Method: a change before the wait, and, once that is hushed, one during it."""
    append(folder)
    with anyio.fail_after(PATIENCE_SECONDS):
        await bell.wait()
        bell.hush()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bell.wait)
            await anyio.wait_all_tasks_blocked()
            append(folder)


def test_a_full_bell_rings(bell: Doorbell, folder: Path) -> None:
    """Goal: the kernel's limit loses no ring. Method: more events than it keeps."""
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    paths = [folder / "tracking", folder / "other"]
    paths[1].touch()
    for number in range(kept + 10):
        # Equal ones in a row would count once.
        paths[number % 2].chmod(0o600)
    assert rings(bell)
    bell.hush()
    assert not rings(bell)


def test_a_folder_that_is_gone_or_a_link_is_refused(folder: Path) -> None:
    """Goal: the caller lists anew. Method: a missing folder, and a link in the place of one."""
    with pytest.raises(FileNotFoundError):
        Doorbell([folder, folder / "gone"])
    (folder / "link").symlink_to(folder)
    with pytest.raises(NotADirectoryError):
        Doorbell([folder / "link"])


def test_where_there_is_no_bell_watching_goes_on_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a limit of inotify costs a little, not the watch. Method: bells that cannot be made."""

    def refuse(_: object) -> Doorbell:
        raise OSError(24, "too many inotify instances")

    monkeypatch.setattr(watch_events, "Doorbell", refuse)
    assert hang_bell([folder]) is None


def test_a_bell_is_given_back_once_also_when_it_is_forgotten(folder: Path) -> None:
    """Goal: few instances are enough. Method: close twice, beside another file of that number; forget one."""
    bell = Doorbell([folder])
    bell.close()
    other = os.open(folder, os.O_RDONLY)
    bell.close()
    os.fstat(other)
    os.close(other)

    forgotten = Doorbell([folder])
    handle = forgotten._handle
    del forgotten
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
