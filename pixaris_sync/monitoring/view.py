"""One reading of everything that is shown, and a reader that reads no more often than something changes."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Final, TypeVar

import anyio
from anyio import to_thread
from msgspec import Struct

from pixaris_sync import __version__
from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.numbers import Numbers, numbers
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.ledger.part import progress_of
from pixaris_sync.ledger.progress import DatasetProgress, SyncedRun, dataset_progress, last_synced_runs
from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work
from pixaris_sync.ledger.totals import Totals, totals
from pixaris_sync.model import Destination
from pixaris_sync.settings.model import Settings

T = TypeVar("T")

#: How many of the runs that were synced last are shown.
LAST_RUNS: Final = 12


class View(Struct, frozen=True):
    """Where everything stood at one moment.

    Attributes:
        read_at: that moment, in seconds since the epoch.
        version: of this package.
        folder, destination, ledger: what is carried, where to, and where that is written down.
        ledger_bytes: the ledger's size on the disk, with what was not moved into it yet.
        overview: everything in numbers, and what is wrong.
        datasets: each dataset, in order of their names.
        last_runs: the runs that were synced last, latest first.
        totals: what was done since the ledger was made.
    """

    read_at: float
    version: str
    folder: Path
    destination: Destination
    ledger: Path
    ledger_bytes: int
    overview: Overview
    datasets: tuple[DatasetProgress, ...]
    last_runs: tuple[SyncedRun, ...]
    totals: Totals


class Figures(Struct, frozen=True):
    """What metrics tell of a ledger: read in a moment, however much is known, and however much waits.

    Attributes:
        numbers: how much is in which state.
        totals: what was done since the ledger was made.
        ledger, ledger_bytes: as of `View`.
    """

    numbers: Numbers
    totals: Totals
    ledger: Path
    ledger_bytes: int


class Reader:
    """Reads views of a ledger that other threads and processes may be working with. Use from one thread.

    Between two changes of the ledger it is read once. One that takes its place is read from then on.

    Args:
        settings: of the results folder.
        path: of its ledger.
        at_work: asked at each reading what a process does with it; None: no process works with it.
        selection: which runs are shown.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path,
        at_work: Callable[[], Work | None],
        selection: Selection = EVERYTHING,
    ) -> None:
        self._settings = settings
        self._path = path
        self._at_work = at_work
        self._selection = selection
        self._ledger: Ledger | None = None
        self._identity: tuple[int, int] | None = None
        self._last: tuple[int, Work | None, View] | None = None
        self._last_figures: tuple[int, bool, Figures] | None = None
        self._one_thread = anyio.CapacityLimiter(1)

    async def in_thread(self, read: Callable[[], T]) -> T | None:
        """What `read` or `figures` answer, in a thread of its own; None where the ledger cannot be read."""
        try:
            return await to_thread.run_sync(read, limiter=self._one_thread)
        except LedgerError:
            return None

    def figures(self) -> Figures:
        """The figures of this moment.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        ledger = self._opened()
        changes, at_work = ledger.changes_of_others(), self._at_work() is not None
        if self._last_figures is None or self._last_figures[:2] != (changes, at_work):
            self._last_figures = changes, at_work, ledger.read(partial(self._count, at_work=at_work))
        return self._last_figures[2]

    def _count(self, db: Connection, *, at_work: bool) -> Figures:
        return Figures(numbers(db, at_work=at_work), totals(db), self._path, _size(self._path))

    def read(self) -> View:
        """The view of this moment.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        ledger = self._opened()
        # Asked first: what changes while it is read is read again the next time.
        changes, at_work = ledger.changes_of_others(), self._at_work()
        if self._last is not None and self._last[:2] == (changes, at_work):
            return self._last[2]
        view = ledger.read(partial(self._read, at_work=at_work))
        self._last = changes, at_work, view
        return view

    def _opened(self) -> Ledger:
        """The ledger that is at the path now: a damaged one is set aside, and another made."""
        identity = _identity(self._path)
        if self._ledger is None or identity != self._identity:
            self.close()
            self._ledger, self._identity = Ledger.open(self._path, read_only=True), identity
        return self._ledger

    def _read(self, db: Connection, *, at_work: Work | None) -> View:
        settings, selection = self._settings, self._selection
        datasets = progress_of(db, selection) if selection.is_limited else dataset_progress(db)
        return View(
            read_at=time.time(),
            version=__version__,
            folder=settings.local_results_folder,
            destination=settings.destination,
            ledger=self._path,
            ledger_bytes=_size(self._path),
            overview=overview(db, settings.dataset_tracking_file_name, at_work=at_work, selection=selection),
            datasets=tuple(datasets),
            last_runs=tuple(last_synced_runs(db, LAST_RUNS, selection)),
            totals=totals(db),
        )

    def close(self) -> None:
        """Close the ledger; the next reading opens it again."""
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = self._last = self._last_figures = None


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one at its path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    found = 0
    for one in (path, path.with_name(f"{path.name}-wal")):
        try:
            found += one.stat().st_size
        except OSError:
            continue
    return found
