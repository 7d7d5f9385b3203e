"""Stores a run so that it is there whole or not at all, whatever ends the process or the machine.

The files of a run are written to a hidden folder in its dataset's folder, and reach the disk. Then, under a
lock, the folder gets the run's name, and its line is appended to the tracking file: the mark by which every
reader knows a run. Before that, the line stands beside the files; who finds a hidden folder that nobody holds
can tell by it how far its writer came, and ends what was begun.

The lock is on the tracking file, so it holds between processes, and, on file systems that have such locks,
between machines. Pixaris' own handler takes none.
"""

import fcntl
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from PIL import Image

from pixaris_sync.handlers.pictures import encode
from pixaris_sync.handlers.record import NewRun
from pixaris_sync.rules.contract import ARGS_FILE, GENERATED_IMAGES

log = logging.getLogger(__name__)

#: How the names of hidden folders begin.
PREFIX: Final = ".storing-"
#: In a hidden folder: the run's folder, and what is appended to the tracking file once that has its name.
_RUN, _COMMIT = "run", "commit.json"
#: How much of a tracking file is read at once, from its end, to find its last newline.
_TAIL_BYTES: Final = 64 * 1024


class StagedRun:
    """A run whose images and saved arguments are on the disk, without a name yet. Use once.

    Made by `stage`. It is committed or discarded; both may be done again after an error.
    """

    def __init__(self, dataset_folder: Path, tracking_file: str, run: NewRun) -> None:
        self._dataset_folder = dataset_folder
        self._tracking = dataset_folder / tracking_file
        self._run = run
        self._handle: int | None
        self._hidden, self._handle = make_hidden(dataset_folder, PREFIX)
        self._files = self._hidden / _RUN

    def write_files(self) -> None:
        """Encode and write everything, on all free cores, and wait until it is on the disk."""
        self._files.mkdir()
        folders = [self._files]
        # By what they are made of: Pillow takes notes in an image while it saves it, so one thread does that.
        contents: defaultdict[int, list[tuple[Path, Callable[[], bytes]]]] = defaultdict(list)
        if self._run.images:
            folders.append(self._files / GENERATED_IMAGES)
            folders[-1].mkdir()
        for name, image in self._run.images.items():
            contents[id(image)].append((folders[-1] / name, partial(encode, image, name)))
        for name, value in self._run.arguments.items():
            if isinstance(value, Image.Image):
                content = partial(encode, value, name, all_info=True)
            else:
                content = partial(value.encode, "ascii")
            contents[id(value)].append((self._files / name, content))
        _on_all_cores([partial(_write_made, files) for files in contents.values()])
        for folder in folders:
            _sync_folder(folder)

    @property
    def files(self) -> dict[str, Path]:
        """Where its files are, by their paths in the run's folder."""
        found = (path for path in self._files.rglob("*") if path.is_file())
        return {str(path.relative_to(self._files)): path for path in found}

    def commit(self, names: Iterable[str], *, timestamp: str, recorded_folder: str) -> str:
        """Give the run the first of the names that no folder has, and append its line.

        Args:
            names: in the order of preference, ever more of them.
            timestamp: when the run was stored, for its record.
            recorded_folder: the dataset's folder, as the paths of saved arguments begin with it.

        Returns:
            The run's name.

        Raises:
            OSError: the disk refused. The run is there whole, or not at all.
        """
        with locked(self._tracking) as tracking:
            name = next(name for name in names if not os.path.lexists(self._dataset_folder / name))
            record = self._run.record(os.path.join(recorded_folder, name), name, timestamp)
            _write(self._files / ARGS_FILE, json.dumps(record).encode("ascii"))
            line = json.dumps(record) + "\n"
            tracking_file = str(self._tracking.relative_to(self._dataset_folder))
            commit = {"name": name, "tracking_file": tracking_file, "line": line}
            _write(self._hidden / _COMMIT, json.dumps(commit).encode("ascii"))
            _sync_folder(self._files)
            _sync_folder(self._hidden)
            try:
                _rename(self._files, self._dataset_folder, name)
                append(tracking, line.encode("ascii"), self._dataset_folder)
            except BaseException:
                # Without its line it is no run, and its name is free again.
                with suppress(OSError):
                    if not self._files.exists():
                        (self._dataset_folder / name).rename(self._files)
                raise
        self.discard()
        return name

    def discard(self) -> None:
        """Remove what is hidden. Safe to call twice."""
        if self._handle is not None:
            _remove(self._hidden)
            os.close(self._handle)
            self._handle = None


def stage(dataset_folder: Path, tracking_file: str, run: NewRun) -> StagedRun:
    """Write a run's files to the disk, hidden.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    make_folder(dataset_folder)
    staged = StagedRun(dataset_folder, tracking_file, run)
    try:
        staged.write_files()
    except BaseException:
        staged.discard()
        raise
    return staged


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, on the disk; nothing where it is there."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in missing:
        _sync_folder(one.parent)


def recover(dataset_folder: Path) -> None:
    """End what writers began that are gone: a run that had all of its files gets its name and its line.

    What had not all of them is removed. Nothing is done where there is no such folder.
    """
    with suppress(FileNotFoundError):
        for hidden in dataset_folder.glob(f"{PREFIX}*"):
            with suppress(OSError), held(hidden):
                _end(hidden, dataset_folder)
                _remove(hidden)


def _end(hidden: Path, dataset_folder: Path) -> None:
    try:
        commit = json.loads((hidden / _COMMIT).read_bytes())
        name, line = commit["name"], commit["line"].encode("ascii")
        tracking_path = dataset_folder / commit["tracking_file"]
    except (FileNotFoundError, ValueError):
        return  # Its writer came not so far, or ended while it wrote this: the run has no name yet.
    with locked(tracking_path) as tracking:
        is_named = os.path.lexists(dataset_folder / name)
        if (hidden / _RUN).exists():
            if is_named:
                return  # Its writer told nobody that it is stored, and another run has its name.
            _rename(hidden / _RUN, dataset_folder, name)
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
    for commit in dataset_folder.glob(f"{PREFIX}*/{_COMMIT}"):
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


def _remove(hidden: Path) -> None:
    """Remove a hidden folder, and first of all what says that its run is whole."""
    with suppress(OSError):
        (hidden / _COMMIT).unlink()
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


def _rename(files: Path, dataset_folder: Path, name: str) -> None:
    target = dataset_folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    files.rename(target)
    folder = target.parent
    while folder != dataset_folder:
        _sync_folder(folder)
        folder = folder.parent
    _sync_folder(dataset_folder)


def _write_made(files: Iterable[tuple[Path, Callable[[], bytes]]]) -> None:
    for path, make in files:
        _write(path, make())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Cores:
    """A thread for each core that this process may use; Pillow encodes without Python's lock."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None

    def forget(self) -> None:
        """A child has none of its parent's threads."""
        self.pool = None


_cores = _Cores()
os.register_at_fork(after_in_child=_cores.forget)


def _on_all_cores(tasks: list[Callable[[], None]]) -> None:
    """Do all of these side by side, and raise the first error."""
    if _cores.pool is None:
        _cores.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "pixaris-sync-encode")
    try:
        futures = [_cores.pool.submit(task) for task in tasks]
    except RuntimeError:
        # The interpreter ends, and lets nobody begin anything in a thread.
        for task in tasks:
            task()
        return
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
