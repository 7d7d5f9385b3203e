"""Results that are copied into a folder which the real command follows or passes through."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, Watching
from tests.support.copying import COPIERS, in_place
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, picture, store_run

Copier = Callable[[Path, Path, float], None]

_EVENTS_ONLY = ("--rescan-interval-seconds", "86400")
_EAGER = {"still_folder_seconds": 2, "doubt_settle_seconds": 1}
_IMAGES = [(picture(number, (48, 48)), f"image_{number}.png") for number in range(5)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The results folder of another machine."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@contextmanager
def copying(copier: Copier, source: Path, target: Path, seconds: float) -> Iterator[threading.Thread]:
    """Let a copy go on beside the test."""
    thread = threading.Thread(target=copier, args=(source, target, seconds))
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)


def wanted(run: StoredRun) -> set[str]:
    """The objects of a run, by its folder."""
    found = (path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    return {f"results/{run.key}/{path}" for path in found if path != "args.json"}


def whole(pixaris: Reader, runs: Sequence[StoredRun]) -> int:
    """How many rows are visible; each of them must have all its objects."""
    visible = pixaris.runs()
    there = pixaris.objects().keys()
    for run in runs:
        if run.name in visible:
            assert wanted(run) <= there, "a row is visible before its files"
    return len(visible)


@pytest.mark.large
@pytest.mark.parametrize("copier", COPIERS.values(), ids=COPIERS)
def test_no_row_comes_before_the_files_that_are_copied_in(
    command_line: CommandLine, pixaris: Reader, elsewhere: Path, tmp_path: Path, copier: Copier
) -> None:
    """Goal: rsync and cp bring the tracking file first; nobody sees a run that is not whole.

    Method: runs that were stored a moment ago, the hardest to tell from those that are written here, are
    copied slowly into a folder that is followed; all the time it is looked at what a reader sees, and at what
    `status` says.
    """
    runs = [
        store_run(elsewhere, f"run-{number}", images=_IMAGES, args={"flow": {"number": number}})
        for number in range(2)
    ]
    with Watching(command_line.having(**_EAGER), tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        with copying(copier, elsewhere, command_line.folder, 4.0) as thread:
            while thread.is_alive():
                whole(pixaris, runs)
                status = command_line.status()
                # Rows are visible before they count as synced.
                assert status["runs"]["synced"] <= whole(pixaris, runs)
                assert status["runs"]["quarantined"] == 0, status["problems"]
        watch.until(lambda: whole(pixaris, runs) == len(runs), "all rows are there")
        watch.until(lambda: command_line.status()["runs"]["synced"] == len(runs), "all is synced")
        assert watch.end() == 0

    assert set(pixaris.objects()) == set().union(*map(wanted, runs))
    assert pixaris.runs() == [run.name for run in runs]


@pytest.mark.large
def test_files_that_come_after_their_row_are_carried_at_once(
    command_line: CommandLine, pixaris: Reader, elsewhere: Path, tmp_path: Path
) -> None:
    """Goal: a copy that was interrupted and goes on later. Method: the last image comes after the row."""
    run = store_run(elsewhere, images=_IMAGES)
    late = run.folder / "generated_images" / _IMAGES[-1][1]
    held_back = late.rename(tmp_path / late.name)
    with Watching(command_line.having(**_EAGER), tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        in_place(elsewhere, command_line.folder, 0.5)
        watch.until(lambda: pixaris.runs() == [run.name], "its row is there")
        before = pixaris.objects().keys()
        shutil.copy(held_back, command_line.folder / late.relative_to(elsewhere))
        watch.until(lambda: len(pixaris.objects()) == len(before) + 1, "the last image is there")
        watch.until(lambda: command_line.status()["runs"]["synced"] == 1, "it is synced again")
        assert watch.end() == 0

    held_back.rename(late)
    assert set(pixaris.objects()) == wanted(run)
    assert pixaris.runs() == [run.name]


@pytest.mark.large
def test_a_pass_beside_a_copy_carries_what_is_whole_and_leaves_the_rest(
    command_line: CommandLine, pixaris: Reader, elsewhere: Path
) -> None:
    """Goal: `sync` in the middle of a copy. Method: run it while files arrive, then once more."""
    runs = [store_run(elsewhere, f"run-{number}", images=_IMAGES) for number in range(2)]
    eager = command_line.having(**_EAGER)
    with copying(in_place, elsewhere, command_line.folder, 3.0):
        while not (command_line.folder / PROJECT / DATASET).exists():
            pass
        outcome = eager.run("sync", "--json")
        whole(pixaris, runs)
    assert outcome.document["runs"]["quarantined"] == 0

    assert eager.sync()["runs"]["synced"] == 2
    assert set(pixaris.objects()) == set().union(*map(wanted, runs))
    assert pixaris.runs() == [run.name for run in runs]
