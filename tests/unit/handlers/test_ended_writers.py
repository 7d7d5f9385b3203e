"""What writers leave behind when they end at an unlucky instant, and what those after them make of it."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.handlers import staging
from pixaris_sync.handlers.local import LocalExperimentHandler
from pixaris_sync.local.storing import PREFIX, locked, make_hidden, remove_hidden
from tests.support.stored_runs import DATASET, PROJECT, TRACKING_FILE, picture


class _KilledError(BaseException):
    """Stands for SIGKILL: nothing is done after it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the dataset."""
    return tmp_path / PROJECT / DATASET


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., None]:
    """Stores a run by a handler of its own, as another process would."""

    def store(name: str = "run", tracking_file: str = TRACKING_FILE) -> None:
        LocalExperimentHandler(str(tmp_path)).store_results(
            PROJECT, DATASET, name, [(picture(), "0.png")], {"score": 1}, {}, tracking_file
        )

    return store


def _be_killed_at(
    monkeypatch: pytest.MonkeyPatch, step: str, store: Callable[..., None], *arguments: str
) -> None:
    """Store a run by a process that is killed when it comes to a function of `staging`."""

    def killed(*_: object) -> None:
        raise _KilledError

    with monkeypatch.context() as context:
        context.setattr(staging, step, killed)
        context.setattr(staging, "remove_hidden", lambda _: None)
        with pytest.raises(_KilledError):
            store(*arguments)


def _hidden(folder: Path) -> list[Path]:
    return list(folder.glob(f"{PREFIX}*"))


def _lines(tracking: Path) -> list[str]:
    return [json.loads(line)["experiment_run_name"] for line in tracking.read_text().splitlines()]


@pytest.mark.parametrize("step", ["rename_run", "append"])
def test_a_whole_run_gets_its_line_in_its_own_tracking_file(
    folder: Path, store: Callable[..., None], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Goal: what is recovered goes where its writer meant it.

    Method: a writer into another tracking file ends before the name, or before the line; a run is stored into
    the usual one.
    """
    _be_killed_at(monkeypatch, step, store, "early", "other.jsonl")
    store("late")
    assert [name.partition("_")[2] for name in _lines(folder / "other.jsonl")] == ["early"]
    assert [name.partition("_")[2] for name in _lines(folder / TRACKING_FILE)] == ["late"]
    assert _hidden(folder) == []


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.99])
def test_a_writer_that_ends_while_it_says_that_its_run_is_whole_leaves_nothing(
    folder: Path, store: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kept_share: float
) -> None:
    """Goal: no hidden folder stays for ever. Method: `commit.json` is cut short; another run is stored."""
    _be_killed_at(monkeypatch, "rename_run", store, "early")
    (hidden,) = _hidden(folder)
    commit = hidden / "commit.json"
    content = commit.read_bytes()
    commit.write_bytes(content[: int(kept_share * len(content))])
    store("late")
    assert _hidden(folder) == []
    assert [name.partition("_")[2] for name in _lines(folder / TRACKING_FILE)] == ["late"]


def test_a_hidden_folder_that_is_half_removed_never_becomes_a_run(
    folder: Path, store: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: removing is no instant at which a run breaks.

    Method: a whole run waits for its name; whoever removes it is killed before the first file is gone.
    """
    _be_killed_at(monkeypatch, "rename_run", store, "early")
    (hidden,) = _hidden(folder)
    with monkeypatch.context() as context:
        context.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_hidden(hidden)
    (hidden / "run" / "generated_images" / "0.png").unlink()
    store("late")
    assert _hidden(folder) == []
    assert [name.partition("_")[2] for name in _lines(folder / TRACKING_FILE)] == ["late"]


def test_a_run_whose_line_finds_no_place_has_no_folder_either(
    folder: Path, store: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an error means that nothing is there. Method: the disk is full when the line is appended."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as context:
        context.setattr(staging, "append", full)
        with pytest.raises(OSError, match="No space left"):
            store()
    assert [path.name for path in folder.iterdir()] == [TRACKING_FILE]
    assert (folder / TRACKING_FILE).read_text() == ""


def test_a_child_that_was_forked_while_a_line_was_appended_keeps_no_lock(tmp_path: Path) -> None:
    """Goal: forked workers, as of a data loader, stop nobody from storing.

    Method: a child is forked while the lock is held, and lives on; the lock is free once its holder is done.
    """
    tracking = tmp_path / TRACKING_FILE
    lives, ends = os.pipe()
    with locked(tracking):
        child = os.fork()
        if child == 0:
            os.close(ends)
            os.read(lives, 1)
            os._exit(0)
    try:
        with tracking.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(ends)
        os.waitpid(child, 0)
        os.close(lives)


def test_a_hidden_folder_that_another_one_is_removing_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: two processes that begin at once do not take each other's folder away.

    Method: a folder is found and held by another one right after it was made, and removed as soon as its
    maker waits for it.
    """
    folder.mkdir(parents=True)
    made: list[Path] = []
    waits = threading.Event()
    remover: list[threading.Thread] = []
    mkdtemp, flock = tempfile.mkdtemp, fcntl.flock

    def found_at_once(**options: Any) -> str:
        path: str = mkdtemp(**options)
        made.append(Path(path))
        if len(made) == 1:
            holder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            flock(holder, fcntl.LOCK_EX)
            remover.append(threading.Thread(target=remove, args=(holder,)))
            remover[0].start()
        return path

    def remove(holder: int) -> None:
        waits.wait()
        made[0].rmdir()
        os.close(holder)

    def seen_waiting(handle: int, flags: int) -> None:
        waits.set()
        flock(handle, flags)

    monkeypatch.setattr(tempfile, "mkdtemp", found_at_once)
    monkeypatch.setattr(fcntl, "flock", seen_waiting)
    hidden, handle = make_hidden(folder, PREFIX)
    os.close(handle)
    remover[0].join()
    assert len(made) == 2
    assert hidden == made[1]
    assert hidden.is_dir()
