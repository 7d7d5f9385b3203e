"""Nothing outside of runs is opened: Python's own audit says so, and the system calls if traced."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import anyio
import pytest

from pixaris_sync.rules.contract import FEEDBACK_FOLDER
from tests.fuzz import hostile_folders, hostile_lines
from tests.fuzz.folder import IMAGES, HostileFolder
from tests.fuzz.run_pass import run_passes
from tests.support.open_watch import watch_opens

REPOSITORY: Final = Path(__file__).parents[2]
#: Where interpreters and libraries look by themselves.
SYSTEM: Final = ("/usr/", "/lib", "/etc/", "/proc/", "/dev/null", "/dev/urandom")
#: With `-y` a handle comes with the path that was truly reached.
TRACED: Final = (
    *("strace", "-f", "--seccomp-bpf", "-y", "-qq"),
    *("-e", "trace=open,openat,openat2,creat,open_by_handle_at"),
)
LINKS: Final = (
    hostile_folders.link_outside,
    hostile_folders.relative_link_outside,
    hostile_folders.chain_of_links,
    hostile_folders.link_to_another_run,
    hostile_folders.link_to_feedback,
    hostile_folders.link_upwards,
    hostile_folders.link_to_root,
    hostile_folders.link_to_endless_file,
    hostile_folders.fifo,
)


@pytest.fixture
def hostile(tmp_path: Path) -> HostileFolder:
    """A results folder with links in every place, and records that lead outside."""
    hostile = HostileFolder(tmp_path, Random(0))  # noqa: S311 - the same harm each time
    for place in hostile_folders.THINGS:
        for link in LINKS:
            hostile_folders.harm(place, link, hostile)
    for _ in range(5):
        hostile_lines.names_of_runs_elsewhere(hostile)
        hostile_lines.paths_that_lead_elsewhere(hostile)
        hostile_lines.metrics_that_lead_elsewhere(hostile)
    return hostile


@dataclass
class Opened:
    """What this process has opened, as the real paths of what was reached."""

    paths: list[str] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note files opened and folders listed by path or by handle; `os.open` is left to `opening`."""
        if event == "open" and arguments[1] is None:
            self.announced.append(os.fsdecode(arguments[0]))
        elif event in ("open", "os.scandir", "os.listdir", "sqlite3.connect"):
            where = arguments[0]
            if event == "sqlite3.connect" and where.startswith("file:"):
                where = unquote(urlsplit(where).path)
            self.paths.append(
                _of_handle(where) if isinstance(where, int) else os.path.realpath(os.fsdecode(where))
            )

    def opening(self, really_open: Any, *arguments: Any, **options: Any) -> int:
        """`os.open`, whose audit does not tell which folder a path is relative to."""
        try:
            handle: int = really_open(*arguments, **options)
        finally:
            self.announced.remove(os.fsdecode(arguments[0]))
        self.paths.append(_of_handle(handle))
        return handle


def _of_handle(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())


#: Hooks cannot be removed: there is one, and it is idle while nobody listens.
_listening: list[Opened] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for opened in _listening[-1:]:
        opened.audit(event, arguments)


@contextmanager
def opened_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Note what this process opens, in whichever thread."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    opened = Opened()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", partial(opened.opening, os.open))
        _listening.append(opened)
        try:
            yield opened
        finally:
            _listening.clear()


def judge(hostile: HostileFolder, state: Path, paths: list[str]) -> list[str]:
    """Paths that nobody may open: below the results folder what is no run's, elsewhere what is not ours."""
    runs = {
        path.parent for path in hostile.root.glob("*/*/*/generated_images") if not _is_led_to(hostile, path)
    }
    return [path for path in paths if not _is_allowed(hostile, state, runs, path)]


def _is_allowed(hostile: HostileFolder, state: Path, runs: set[Path], path: str) -> bool:
    here = Path(path)
    if here.is_relative_to(hostile.root):
        parts = here.relative_to(hostile.root).parts
        hidden = any(part.startswith(".") for part in parts[:3]) or FEEDBACK_FOLDER in parts
        return not hidden and (len(parts) <= 3 or hostile.root.joinpath(*parts[:3]) in runs)
    return path.startswith((str(state), str(REPOSITORY), sys.prefix, sys.base_prefix, *SYSTEM))


def _is_led_to(hostile: HostileFolder, path: Path) -> bool:
    return any(one.is_symlink() for one in (path, *path.parents) if one.is_relative_to(hostile.root))


def test_only_runs_are_opened(
    hostile: HostileFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no path in a record and no link leads out. Method: every opening and listing of this process."""
    state = tmp_path / "state"
    with watch_opens(*hostile.forbidden_paths()) as watch, opened_here(monkeypatch) as opened:
        cloud = anyio.run(run_passes, hostile.root, state)
        assert not watch.happened()
    assert opened.announced == [], "somebody else opened these"
    assert judge(hostile, state, opened.paths) == []
    for run in hostile.sound:
        assert str(run / IMAGES / "0.png") in opened.paths
        assert "/".join(("results", *run.parts[-3:], IMAGES, "0.png")) in cloud.store.objects


def test_a_reader_that_follows_links_is_found_out(
    hostile: HostileFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the test above can fail. Method: the same with the flag that keeps from following taken away."""
    monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    with watch_opens(*hostile.forbidden_paths()) as watch, opened_here(monkeypatch) as opened:
        anyio.run(run_passes, hostile.root, tmp_path / "state")
        assert watch.happened()
    assert [
        path
        for path in judge(hostile, tmp_path / "state", opened.paths)
        if path.startswith(str(hostile.outside))
    ]


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    # Containers may have it and not allow it.
    probe = [*TRACED, sys.executable, "-c", ""]
    return (
        subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )


@pytest.mark.skipif(not _can_trace(), reason="strace is not installed, or not allowed here")
def test_only_runs_are_opened_by_the_kernels_word(hostile: HostileFolder, tmp_path: Path) -> None:
    """Goal: the same for whatever opens without telling Python. Method: a process of its own under strace."""
    state, trace = tmp_path / "state", tmp_path / "trace"
    syncing = [sys.executable, "-m", "tests.fuzz.run_pass", str(hostile.root), str(state)]
    subprocess.run(
        [*TRACED, "-o", str(trace), *syncing],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=100,
    )
    paths = re.findall(r" = \d+<(.*)>$", trace.read_text(errors="surrogateescape"), re.MULTILINE)
    below = [path for path in paths if path.startswith(str(tmp_path))]
    assert judge(hostile, state, below) == []
    for run in hostile.sound:
        assert str(run / IMAGES / "0.png") in below
