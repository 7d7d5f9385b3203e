"""Watching a results folder: only says "look again at this dataset", never what happened.

What is watched is each *folder that can hold something new by itself*: the results folder, its projects and
their datasets, not the run folders below. A run becomes visible by the line appended to its dataset's
tracking file, so this misses nothing that matters, costs one inotify watch for each dataset instead of two
for each run of years, and stays asleep while images are being written.

A mount lies over what is watched without an event, and so does a folder that is put in the place of another.
So the identities of watched folders are compared once a second, the results folder's each time and the
others' by turns. After a mount the words end, and whoever asked for them begins anew.

A folder can appear, with content, before it is watched. So whenever a project or dataset appears, all
folders are listed and watched anew, and once that is in place the word is "look at everything". The same
word comes first of all: what happened before was not seen.

The kernel drops events when too many wait (``IN_Q_OVERFLOW``), and watchfiles does not tell of it
(samuelcolvin/watchfiles issue 348): the caller must look at everything now and then by itself.
"""

import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import anyio
from anyio import to_thread
from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.rules.contract import DEFAULT_TRACKING_FILE, FEEDBACK_FOLDER
from pixaris_sync.text import is_utf8, printable

_HINT: Final = (
    "raise the limits (ulimit -n, sysctl fs.inotify.max_user_watches and fs.inotify.max_user_instances), "
    "or watch by polling"
)
#: How often in a row folders may vanish between being listed and being watched.
_VANISHED_LIMIT: Final = 3
#: How long to wait before watching anew where it broke.
_BROKEN_PAUSE_SECONDS: Final = 1.0
#: RustNotify's debug, force_polling, poll_delay_ms, recursive and ignore_permission_denied.
_NOT_RECURSIVE: Final = (False, False, 0, False, False)
#: Without events for so long, the watching thread wakes less often.
_QUIET_AFTER_MS: Final = 1_000
#: What watchfiles takes for no limit of a wait.
_NO_LIMIT: Final = 0
#: How often identities are compared, and of how many folders each time.
_COMPARE_SECONDS: Final = 1.0
_COMPARE_LIMIT: Final = 50
#: A dataset is a folder this deep below the results folder.
_DATASET_DEPTH: Final = 2

#: What watchfiles reports: kinds of change, as `watchfiles.Change`, and paths.
_Events = frozenset[tuple[int, str]]
#: Device and inode.
_Identity = tuple[int, int]


class Changed(NamedTuple):
    """Where to look again: these datasets, these runs in them, or everything."""

    datasets: frozenset[DatasetKey] = frozenset()
    everything: bool = False
    runs: frozenset[RunKey] = frozenset()


class Affected(NamedTuple):
    """What events tell: datasets and runs that changed, and folders (or stray files instead) to look at."""

    datasets: frozenset[DatasetKey]
    folders: frozenset[Path]
    runs: frozenset[RunKey] = frozenset()


def affected(root: Path, paths: Iterable[str]) -> Affected:
    """Tell which datasets and which folders the paths of events belong to; pure.

    Args:
        root: the watched folder; paths outside it are left out.
        paths: as watchfiles reports them.

    Returns:
        As datasets, those that a path lies in, and those that a path may itself be; as runs, the same, where
        the path stands in a run's place. As folders, paths that may be a project or a dataset, and the root:
        only the disk can tell those from stray files. Hidden ones and feedback are left out.
    """
    datasets: set[DatasetKey] = set()
    folders: set[Path] = set()
    runs: set[RunKey] = set()
    for path in paths:
        if not Path(path).is_relative_to(root):
            continue
        parts = Path(path).relative_to(root).parts
        if any(part.startswith(".") for part in parts) or FEEDBACK_FOLDER in parts[1:2]:
            continue
        if len(parts) > 1:
            datasets.add(DatasetKey(parts[0], parts[1]))
        if len(parts) <= _DATASET_DEPTH:
            folders.add(root.joinpath(*parts))
        else:
            runs.add(RunKey(*parts[:3]))
    return Affected(frozenset(datasets), frozenset(folders), frozenset(runs))


async def changes(
    root: Path,
    stop: anyio.Event,
    *,
    debounce_ms: int = 50,
    step_ms: int = 10,
    quiet_step_ms: int = 50,
    polling: bool = False,
    poll_delay_ms: int = 1_000,
    tracking_file: str = DEFAULT_TRACKING_FILE,
) -> AsyncIterator[Changed]:
    """Yield where to look again, until `stop` is set, or something is mounted or put over the folder.

    The first word is always "everything", once watching is in place.

    Args:
        root: the results folder.
        stop: ends the iteration within one step.
        debounce_ms: events within this time at most are told of together.
        step_ms: events that follow each other within this time are told of together; also how often the
            watching thread wakes while there are some.
        quiet_step_ms: the same while nothing happens. A step costs some 30 us: 50 ms are 0.2 s of processor
            in five minutes.
        polling: compare the status of folders and tracking files instead of asking the kernel: for network
            file systems, whose changes by other machines no kernel tells of, and where a limit is reached.
        poll_delay_ms: how often to compare.
        tracking_file: the name of tracking files.

    Raises:
        SyncError: the folder cannot be watched: gone, not readable, or a limit of inotify is reached. It is
            transient; watching by polling may work.
    """
    # Events carry the path that is watched, so links in it are resolved once.
    root = await to_thread.run_sync(Path.resolve, root)
    words = (
        _poll(root, stop, tracking_file, poll_delay_ms)
        if polling
        else _listen(root, stop, tracking_file, debounce_ms, step_ms, quiet_step_ms)
    )
    async with aclosing(words):
        async for word in words:
            yield word


async def _listen(
    root: Path, stop: anyio.Event, tracking_file: str, debounce_ms: int, step_ms: int, quiet_step_ms: int
) -> AsyncGenerator[Changed, None]:
    flag = _Stop(stop)
    try:
        while not flag.is_over():
            folders, identities, watcher = await to_thread.run_sync(_start, root)
            flag.compare(identities)
            yield Changed(everything=True)
            renew = quiet = False
            while not renew:
                step, wait_ms = (quiet_step_ms, _NO_LIMIT) if quiet else (step_ms, _QUIET_AFTER_MS)
                try:
                    events = await to_thread.run_sync(
                        _wait, watcher, debounce_ms, step, wait_ms, flag, abandon_on_cancel=True
                    )
                except RuntimeError:
                    # watchfiles breaks, for one, at a file name that is no UTF-8.
                    await _pause(stop, _BROKEN_PAUSE_SECONDS)
                    break
                if flag.is_over() or flag.renew:
                    break
                quiet = not events
                seen = affected(root, (path for _, path in events))
                renew = _has_gone(events, folders)
                if new := seen.folders - folders:
                    renew |= await to_thread.run_sync(_has_folder, new)
                datasets = frozenset(key for key in seen.datasets if _folder(root, key) in folders)
                runs = frozenset(
                    run for run in seen.runs if run.run != tracking_file and run.dataset_key in datasets
                )
                if datasets and not renew:
                    yield Changed(datasets, runs=runs)
            watcher.close()
    finally:
        # A thread that a cancellation left behind ends within one step, and the watcher with it.
        flag.ended.set()


class _Stop:
    """What the watching thread asks at each step: the caller's event, the generator's end, a replacement.

    Attributes:
        ended: the generator's end.
        renew: another folder is in the place of a watched one.
    """

    def __init__(self, stop: anyio.Event) -> None:
        self._stop = stop
        self.ended = threading.Event()
        self.renew = False
        self._is_remounted = False
        self._identities: list[tuple[Path, _Identity]] = []
        self._compare_at = 0.0
        self._turn = 0

    def is_over(self) -> bool:
        """Whether watching ends, because of a mount as well: it may be of a kind that must be polled."""
        return self.ended.is_set() or self._stop.is_set() or self._is_remounted

    def compare(self, identities: list[tuple[Path, _Identity]]) -> None:
        """Compare these identities of watched folders from now on; the first is the results folder's."""
        self.renew = False
        self._identities = identities

    def is_set(self) -> bool:
        """Whether to stop; by this name watchfiles asks. It blocks."""
        if time.monotonic() >= self._compare_at:
            self._compare_at = time.monotonic() + _COMPARE_SECONDS
            self._compare_some()
        return self.is_over() or self.renew

    def _compare_some(self) -> None:
        others = self._identities[1:]
        some = others[self._turn : self._turn + _COMPARE_LIMIT]
        self._turn = self._turn + _COMPARE_LIMIT if self._turn + _COMPARE_LIMIT < len(others) else 0
        for path, known in some:
            found = _identity(path)
            self.renew |= found != known
            self._is_remounted |= found is not None and found[0] != known[0]
        self._is_remounted |= any(_identity(path) != known for path, known in self._identities[:1])


def _wait(watcher: RustNotify, debounce_ms: int, step_ms: int, wait_ms: int, stop: _Stop) -> _Events:
    """Wait for events, in a thread; none after `wait_ms` without any."""
    answer = watcher.watch(debounce_ms, step_ms, wait_ms, stop)
    return frozenset(answer) if isinstance(answer, set) else frozenset()


def _identities(root: Path, folders: frozenset[Path]) -> list[tuple[Path, _Identity]]:
    ordered = (root, *sorted(folders - {root}))
    return [(path, identity) for path in ordered if (identity := _identity(path)) is not None]


def _identity(path: Path) -> _Identity | None:
    """Device and inode of a folder; None where it cannot be asked."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def _poll(
    root: Path, stop: anyio.Event, tracking_file: str, poll_delay_ms: int
) -> AsyncGenerator[Changed, None]:
    # Not by watchfiles: its polling compares mtimes by the second, so it misses the second append in one.
    known = await to_thread.run_sync(_snapshot, root, tracking_file)
    if not stop.is_set():
        yield Changed(everything=True)
    while not stop.is_set():
        await _pause(stop, poll_delay_ms / 1000)
        seen = await to_thread.run_sync(_snapshot, root, tracking_file)
        changed = frozenset(key for key, found in seen.items() if known.get(key) != found)
        known = seen
        if changed and not stop.is_set():
            yield Changed(changed)


async def _pause(stop: anyio.Event, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await stop.wait()


def _start(root: Path) -> tuple[frozenset[Path], list[tuple[Path, _Identity]], RustNotify]:
    """Watch all folders there are; returns them, which they were, and what watches."""
    vanished = 0
    while True:
        try:
            folders = _watchable(root)
            # Before they are watched: what is put in their place meanwhile is another one then.
            identities = _identities(root, folders)
            # The last argument would make it swallow every error, a limit that is reached included.
            watcher = RustNotify([str(folder) for folder in sorted(folders)], *_NOT_RECURSIVE)
            # What appeared after the listing and before its parent was watched made no event.
            if _watchable(root) <= folders:
                return folders, identities, watcher
            watcher.close()
        except FileNotFoundError as error:
            vanished += 1
            if vanished >= _VANISHED_LIMIT:
                raise _cannot_watch(root, error) from error
        except (OSError, RuntimeError) as error:
            raise _cannot_watch(root, error) from error


def _snapshot(root: Path, tracking_file: str) -> dict[DatasetKey, tuple[tuple[int, ...], ...]]:
    """What each dataset's folder and tracking file look like."""
    try:
        folders = _watchable(root)
    except OSError as error:
        raise _cannot_watch(root, error) from error
    datasets = [folder.relative_to(root).parts for folder in folders]
    keys = [DatasetKey(*parts) for parts in datasets if len(parts) == _DATASET_DEPTH]
    return {key: tuple(_fingerprint(path) for path in _polled(root, key, tracking_file)) for key in keys}


def _polled(root: Path, key: DatasetKey, tracking_file: str) -> tuple[Path, Path]:
    folder = _folder(root, key)
    return folder, folder / tracking_file


def _fingerprint(path: Path) -> tuple[int, ...]:
    try:
        status = path.lstat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _folder(root: Path, key: DatasetKey) -> Path:
    return root / key.project / key.dataset


def _watchable(root: Path) -> frozenset[Path]:
    """The results folder, its projects and their datasets: links left out, and what may not be read.

    Raises:
        OSError: the results folder itself cannot be listed.
    """
    found = {root}
    for project in _subfolders(root):
        found.add(project)
        # Gone meanwhile, or not to be entered: listing the datasets reports it.
        with suppress(OSError):
            found.update(dataset for dataset in _subfolders(project) if dataset.name != FEEDBACK_FOLDER)
    return frozenset(found)


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".")
            and is_utf8(entry.name)
            and entry.is_dir(follow_symlinks=False)
            and os.access(entry.path, os.R_OK)
        ]


def _has_gone(events: _Events, watched: frozenset[Path]) -> bool:
    """Whether a watched folder went away."""
    return not watched.isdisjoint(Path(path) for change, path in events if change == Change.deleted)


def _has_folder(paths: Iterable[Path]) -> bool:
    """Whether a folder is among these, which are not watched."""
    return any(path.is_dir() and not path.is_symlink() for path in paths)


def _cannot_watch(root: Path, error: Exception) -> SyncError:
    cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return SyncError("watch folder", printable(str(root)), cause, hint=_HINT, failure=Failure.TRANSIENT)
