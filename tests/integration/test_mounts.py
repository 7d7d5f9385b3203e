"""The results folder, or a dataset in it, is on a mount: it goes away, comes back, and appears late."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, Watching
from tests.support.mounts import Back, mount, moved_away, under_an_empty_one, unmount, unmounted
from tests.support.proxy import Proxies, unavailable
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, store_run

Mounting = Callable[[Path, Path], None]
_EVENTS_ONLY = ("--rescan-interval-seconds", "86400")
_EAGER = {"retry_delay_seconds_min": 0.05, "retry_delay_seconds_max": 0.2, "young_file_seconds": 0}


def _is_row(pixaris: Reader, run: StoredRun) -> bool:
    return run.name in pixaris.runs()


@pytest.fixture
def mounted() -> Iterator[Mounting]:
    """Mounts over folders, which are unmounted at the end."""
    folders: list[Path] = []

    def mount_over(disk: Path, folder: Path) -> None:
        mount(disk, folder)
        folders.append(folder)

    yield mount_over
    for folder in folders:
        unmount(folder)


@pytest.mark.parametrize(
    ("away", "level"),
    [
        (moved_away, "results folder"),
        (under_an_empty_one, "results folder"),
        (under_an_empty_one, "dataset"),
        pytest.param(unmounted, "results folder", marks=pytest.mark.large),
        pytest.param(unmounted, "dataset", marks=pytest.mark.large),
    ],
)
def test_a_mount_that_is_away_for_a_while_condemns_no_run(
    proxied: CommandLine,
    proxies: Proxies,
    pixaris: Reader,
    tmp_path: Path,
    mounted: Mounting,
    away: Callable[[Path, Path], Back],
    level: str,
) -> None:
    """Goal: nothing is judged by a folder that is away; it goes on by itself, told once.

    Method: runs wait for the bucket; the folder goes away and the bucket comes back, so that files vanish
    under the hands of uploads; `status` says why work rests, no run is quarantined; then it is there again.
    """
    folder = proxied.folder if level == "results folder" else proxied.folder / PROJECT / DATASET
    if away is unmounted:
        mounted(tmp_path / "aside", folder)
    with Watching(proxied.having(**_EAGER), tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        proxies.storage.rule = lambda _: unavailable()
        runs = [store_run(proxied.folder, f"run-{number}", images=3) for number in range(4)]
        watch.until(lambda: proxied.status()["runs"]["failing"], "runs wait for the bucket")
        back = away(folder, tmp_path / "aside")
        proxies.storage.rule = lambda _: None

        def told() -> list[str]:
            causes = [problem["cause"] for problem in proxied.status()["problems"]]
            return [cause for cause in causes if "cannot work in" in cause]

        watch.until(told, "status says that the folder is away")
        assert proxied.status()["runs"]["quarantined"] == 0
        back()
        watch.until(lambda: pixaris.runs() == [run.name for run in runs], "all of them are rows")
        watch.until(lambda: not told(), "status says so no more")
        status = proxied.status()
        assert (status["runs"]["synced"], status["problems"]) == (4, [])
        later = store_run(proxied.folder, "later")
        watch.until(lambda: later.name in pixaris.runs(), "what comes later is seen")
        assert watch.end() == 0

    assert watch.log().count("rests until it is back") == 1, watch.log()
    assert watch.log().count(": work in it goes on") == 1, watch.log()
    assert "quarantined" not in watch.log()


def test_a_run_that_is_deleted_while_its_folder_is_there_is_still_missed(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: what a user deletes is told as before. Method: two runs wait for the bucket; one is deleted."""
    proxied = proxied.having(**_EAGER)
    runs = [store_run(proxied.folder, f"run-{number}") for number in range(2)]
    proxies.storage.rule = lambda _: unavailable()
    proxied.having(sync_attempts_limit=1).sync(expect=5)
    proxies.storage.rule = lambda _: None
    runs[0].folder.rename(tmp_path / "deleted")

    document = proxied.sync(expect=3)

    assert (document["runs"]["synced"], document["runs"]["quarantined"]) == (1, 1)
    (tmp_path / "deleted").rename(runs[0].folder)
    assert proxied.sync()["runs"]["synced"] == 2


@pytest.mark.parametrize("really", [False, pytest.param(True, marks=pytest.mark.large)])
def test_a_mount_that_appears_while_watching_is_watched(
    command_line: CommandLine,
    pixaris: Reader,
    tmp_path: Path,
    mounted: Mounting,
    *,
    really: bool,
) -> None:
    """Goal: what lies over the watched folder is seen by events.

    Method: watch an empty mount point; mount, or move a folder to its place; a run in it, and one that comes.
    """
    disk = tmp_path / "disk"
    before = store_run(disk, "before")
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        if really:
            mounted(disk, command_line.folder)
        else:
            command_line.folder.rename(tmp_path / "covered")
            disk.rename(command_line.folder)
        watch.until(lambda: pixaris.runs() == [before.name], "what is in it is carried")
        for number in range(2):
            run = store_run(command_line.folder, f"later-{number}")
            watch.until(partial(_is_row, pixaris, run), "what comes later is seen")
        assert watch.end(signal.SIGTERM) == 0


def test_a_folder_that_is_removed_and_made_anew_is_watched(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: new runs in a new folder go on. Method: sync one, rm -r, mkdir under watch, store another."""
    first = store_run(command_line.folder, "first")
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.until(lambda: pixaris.runs() == [first.name], "the first is there")
        command_line.folder.rename(tmp_path / "removed")
        command_line.folder.mkdir()
        second = store_run(command_line.folder, "second", dataset="other")
        watch.until(lambda: pixaris.runs(dataset="other") == [second.name], "the second is there")
        assert watch.end() == 0
