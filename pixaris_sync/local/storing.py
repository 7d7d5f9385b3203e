"""What stores runs whole or not at all: hidden folders, the lock on a tracking file, appending to it.

The files of a run are written to a hidden folder in its dataset's folder, and reach the disk. Then, under a
lock, the folder gets the run's name, and its line is appended to the tracking file: the mark by which every
reader knows a run. Before that, the line stands beside the files; who finds a hidden folder that nobody holds
can tell by it how far its writer came, and ends what was begun (`recover`).

The lock is on the tracking file, so it holds between processes, and, on file systems that have such locks,
between machines. Pixaris' own handler takes none. Functions block.
"""

import fcntl
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: How the names of hidden folders begin.
PREFIX: Final = ".storing-"
#: In a hidden folder: the run's folder, and what is appended to the tracking file once that has its name.
RUN, COMMIT = "run", "commit.json"
#: How much of a tracking file is read at once, from its end, to find its last newline.
_TAIL_BYTES: Final = 64 * 1024


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, on the disk; nothing where it is there."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in missing:
        sync_folder(one.parent)


def recover(dataset_folder: Path) -> None:
    """End what writers began that are gone: a run that had all of its files gets its name and its line.

    What had not all of them is removed. Nothing is done where there is no such folder.
    """
    with suppress(FileNotFoundError):
        for hidden in dataset_folder.glob(f"{PREFIX}*"):
            with suppress(OSError), held(hidden):
                _end(hidden, dataset_folder)
                remove_hidden(hidden)


def _end(hidden: Path, dataset_folder: Path) -> None:
    try:
        commit = json.loads((hidden / COMMIT).read_bytes())
        name, line = commit["name"], commit["line"].encode("ascii")
        tracking_path = dataset_folder / commit["tracking_file"]
    except (FileNotFoundError, ValueError):
        return  # Its writer came not so far, or ended while it wrote this: the run has no name yet.
    with locked(tracking_path) as tracking:
        is_named = os.path.lexists(dataset_folder / name)
        if (hidden / RUN).exists():
            if is_named:
                return  # Its writer told nobody that it is stored, and another run has its name.
            rename_run(hidden / RUN, dataset_folder, name)
        elif not is_named or _holds(tracking, line):
            return  # Somebody removed it since, or nothing is left to do.
        append(tracking, line, dataset_folder)
    log.warning("run %s was whole when its process ended: it is stored", dataset_folder / name)


@contextmanager
def locked(tracking: Path) -> Iterator[int]:
    """Hold the lock on a tracking file, which is made; its open handle appends and reads.

    Raises:
        OSError: it cannot be opened or written.
    """
    while True:
        handle = os.open(tracking, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            # Where there are no locks, one writer is as good as before.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(tracking, handle):
                yield handle
                return
        finally:
            # A child that was forked meanwhile has the handle too: closing ours would leave the lock to it.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def append(tracking: int, line: bytes, dataset_folder: Path) -> None:
    """Append a line to an open and locked tracking file and wait until it is on the disk.

    A last line that has no newline is taken back where it is what a writer of this dataset had begun when it
    was ended: whoever recovers that one appends it whole. Any other is ended first.

    Raises:
        OSError: the disk refused. Then, and where anything else ends the call, what was written of the line
            is taken back, if nobody wrote after it.
    """
    size = os.fstat(tracking).st_size
    torn = _torn_end(tracking, size)
    if torn and any(begun.startswith(torn) for begun in _lines_begun(dataset_folder)):
        size -= len(torn)
        os.ftruncate(tracking, size)
    elif torn:
        line = b"\n" + line
    rest = line
    try:
        while rest:
            rest = rest[os.write(tracking, rest) :]
        os.fsync(tracking)
    except BaseException:
        with suppress(OSError):
            if line.startswith(os.pread(tracking, len(line) + 1, size)):
                os.ftruncate(tracking, size)
        raise


def _torn_end(tracking: int, size: int) -> bytes:
    """What stands behind the last newline of a file of this size."""
    torn = b""
    while size and b"\n" not in torn:
        begin = max(0, size - _TAIL_BYTES)
        torn = os.pread(tracking, size - begin, begin) + torn
        size = begin
    return torn[torn.rfind(b"\n") + 1 :]


def _lines_begun(dataset_folder: Path) -> Iterator[bytes]:
    """The lines that writers of a dataset have appended, or are about to append."""
    for commit in dataset_folder.glob(f"{PREFIX}*/{COMMIT}"):
        with suppress(OSError, ValueError):
            yield json.loads(commit.read_bytes())["line"].encode("ascii")


def _holds(tracking: int, line: bytes) -> bool:
    if not os.fstat(tracking).st_size:
        return False
    with mmap.mmap(tracking, 0, access=mmap.ACCESS_READ) as content:
        return content.find(line) >= 0


def make_hidden(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new folder with such a name in a folder, and the handle that holds it.

    Who finds it can tell by `held` that its writer lives, until the handle is closed.

    Raises:
        OSError: the disk refused.
    """
    while True:
        hidden = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        try:
            handle = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # Another process found it before it was held, and removed it.
        except OSError:
            hidden.rmdir()
            raise
        # Another process may have found it before it was held: that one holds it until it is removed.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(hidden, handle):
            return hidden, handle
        os.close(handle)


def remove_hidden(hidden: Path) -> None:
    """Remove a hidden folder, and first of all what says that its run is whole."""
    with suppress(OSError):
        (hidden / COMMIT).unlink()
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def held(hidden: Path) -> Iterator[None]:
    """Hold a hidden folder that nobody holds.

    Raises:
        OSError: its writer lives, or there are no locks here: nobody can tell.
    """
    handle = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def rename_run(files: Path, dataset_folder: Path, name: str) -> None:
    """Give a hidden run's folder its name, on the disk."""
    target = dataset_folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    files.rename(target)
    folder = target.parent
    while folder != dataset_folder:
        sync_folder(folder)
        folder = folder.parent
    sync_folder(dataset_folder)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until what was made in a folder, renamed or removed is on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
