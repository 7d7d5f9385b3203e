"""Ways in which a folder is away for a while, and comes back as it was.

Where the right to mount is missing, the folder is moved instead: what a process sees of it is the same.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Brings the folder back.
Back = Callable[[], object]


def moved_away(folder: Path, aside: Path) -> Back:
    """Nothing is left in its place, as with an autofs mount or a removed disk."""
    folder.rename(aside)
    return lambda: aside.rename(folder)


def under_an_empty_one(folder: Path, aside: Path) -> Back:
    """An empty folder is in its place: the mount point."""
    folder.rename(aside)
    folder.mkdir()

    def back() -> None:
        folder.rmdir()
        aside.rename(folder)

    return back


def unmounted(folder: Path, aside: Path) -> Back:
    """It is a mount, of what lies in `aside`, and is unmounted."""
    unmount(folder)
    return lambda: mount(aside, folder)


def mount(disk: Path, folder: Path) -> None:
    """Mount a folder over another; the test is skipped where that is not allowed."""
    for path in (disk, folder):
        path.mkdir(parents=True, exist_ok=True)
    _mounting("mount", "--bind", str(disk), str(folder))


def unmount(folder: Path) -> None:
    """Take away what was mounted over a folder, whoever has it open."""
    _mounting("umount", "--lazy", str(folder))


def _mounting(*command: str) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if ended.returncode:
        pytest.skip(f"no right to mount: {ended.stderr}")


@contextmanager
def mounted_memory(folder: Path, byte_count: int) -> Iterator[None]:
    """A disk of its own at `folder`, of so many bytes; the test is skipped where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    _mounting("mount", "-t", "tmpfs", "-o", f"size={byte_count}", "tmpfs", str(folder))
    try:
        yield
    finally:
        unmount(folder)
