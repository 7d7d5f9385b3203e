"""Copies results folders slowly, as people do: tracking files come long before the images of their runs."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

RSYNC = shutil.which("rsync")


def rsync(source: Path, target: Path, seconds: float) -> None:
    """Copy with the real rsync, at a rate by which it takes about so long."""
    assert RSYNC is not None
    size = sum(path.stat().st_size for path in _files(source))
    rate = f"--bwlimit={max(1, round(size / seconds / 1024))}"
    subprocess.run([RSYNC, "-a", rate, f"{source}/", str(target)], check=True, timeout=60)


def as_rsync(source: Path, target: Path, seconds: float) -> None:
    """Copy as rsync does: under a temporary name, with the times of the source, in the same order."""

    def copy(path: Path, to: Path) -> None:
        temporary = to.with_name(f".{to.name}.Xy1zA9")
        _write_slowly(path, temporary, pause)
        shutil.copystat(path, temporary)
        temporary.rename(to)

    pause = seconds / len(list(_files(source)))
    _copy_all(source, target, copy)
    # Only in the end do folders get their times.
    for folder in sorted((path for path in source.rglob("*") if path.is_dir()), reverse=True):
        shutil.copystat(folder, target / folder.relative_to(source))


def in_place(source: Path, target: Path, seconds: float) -> None:
    """Copy as cp does: under the final names, with new times."""
    pause = seconds / len(list(_files(source)))
    _copy_all(source, target, lambda path, to: _write_slowly(path, to, pause))


COPIERS = {"rsync": rsync if RSYNC else as_rsync, "in place": in_place}


def _files(source: Path) -> Iterator[Path]:
    """The files of a folder, before those of its folders."""
    for folder, folders, names in os.walk(source):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def _copy_all(source: Path, target: Path, copy: Callable[[Path, Path], None]) -> None:
    for path in _files(source):
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        copy(path, to)


def _write_slowly(path: Path, to: Path, seconds: float) -> None:
    content = path.read_bytes()
    half = len(content) // 2
    with to.open("wb") as file:
        for piece in (content[:half], content[half:]):
            file.write(piece)
            file.flush()
            time.sleep(seconds / 2)
