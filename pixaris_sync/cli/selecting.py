"""Which runs the flags of a command select, and whether they name anything."""

import difflib
import logging
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pixaris_sync.cli.exits import CommandLineError
from pixaris_sync.errors import LedgerError, SyncError
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.selection import Selection, matching
from pixaris_sync.model import DatasetKey
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import printable_line

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How many names are named where none is near.
NAMES_SHOWN: Final = 3


def selection_of(
    *,
    project: Sequence[str] | None,
    dataset: Sequence[str] | None,
    run: Sequence[str] | None,
    exclude: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> Selection:
    """Which runs the flags select; run names begin with the time they were stored at.

    Raises:
        CommandLineError: a pattern is empty, or nothing can be between the dates.
    """
    given = {"--project": project, "--dataset": dataset, "--run": run, "--exclude": exclude}
    for flag, patterns in given.items():
        if "" in (patterns or ()):
            cause = "an empty pattern matches nothing"
            raise CommandLineError("select by", flag, cause, hint=f"give {flag} a name, or leave it out")
    if since is not None and until is not None and since >= until:
        raise CommandLineError(
            "select by",
            f"--since {since:%Y-%m-%d} --until {until:%Y-%m-%d}",
            "no day is on or after the first and before the second",
            hint="give --until a later date than --since",
        )
    return Selection(
        tuple(project or ()),
        tuple(dataset or ()),
        tuple(run or ()),
        tuple(exclude or ()),
        since=f"{since:%Y%m%d}-000000" if since else "",
        until=f"{until:%Y%m%d}-000000" if until else None,
    )


def check_patterns(settings: Settings, selection: Selection, ledger: Path, *, may_come: bool = False) -> None:
    """Make sure that each pattern matches something in the results folder or in the ledger.

    Args:
        settings: of the results folder.
        selection: whose patterns.
        ledger: where the ledger is, if there is one.
        may_come: what matches nothing yet may come, so that it is only told, in the log.

    Raises:
        CommandLineError: a pattern matches nothing; the hint has the nearest name.
        LedgerError: there is a ledger that cannot be read.
    """
    if not (selection.projects or selection.datasets or selection.runs or selection.exclude):
        return
    known = _Known(settings, ledger)
    for fault in _faults(known, selection):
        if not may_come:
            raise fault
        log.warning("%s: what comes later and matches is carried", fault)


def _faults(known: "_Known", selection: Selection) -> Iterable[CommandLineError]:
    keys = known.datasets
    yield from _unmatched("--project", selection.projects, {key.project for key in keys})
    keys = [key for key in keys if not selection.projects or _any(selection.projects, key.project)]
    yield from _unmatched("--dataset", selection.datasets, {key.dataset for key in keys})
    keys = [key for key in keys if not selection.datasets or _any(selection.datasets, key.dataset)]
    if selection.runs or selection.exclude:
        by_dataset = {key: known.runs(key) for key in keys}
        names = {name for found in by_dataset.values() for name in found}
        whole = {f"{key}/{name}" for key, found in by_dataset.items() for name in found}
        yield from _unmatched("--run", selection.runs, names, whole)
        yield from _unmatched("--exclude", selection.exclude, names, {*whole, *map(str, keys)})


def _any(patterns: Iterable[str], name: str) -> bool:
    return any(matching(pattern, [name]) for pattern in patterns)


def _unmatched(
    flag: str, patterns: Iterable[str], names: Collection[str], whole: Collection[str] = ()
) -> Iterable[CommandLineError]:
    """What is wrong with patterns that match none of these names, nor, with a slash, of the `whole` ones."""
    for pattern in patterns:
        among = {*names, *whole} if "/" in pattern else names
        if matching(pattern, among):
            continue
        near = difflib.get_close_matches(pattern, among, n=1)
        if near:
            hint = f"did you mean {flag} {shlex.quote(near[0])}?"
        elif among:
            some = ", ".join(sorted(among)[:NAMES_SHOWN])
            more = f" and {len(among) - NAMES_SHOWN} more" if len(among) > NAMES_SHOWN else ""
            hint = f"there are {some}{more}"
        else:
            hint = "leave the flag out"
        cause = "nothing in the results folder or the ledger matches it"
        subject = f"{flag} {shlex.quote(pattern)}"
        yield CommandLineError("select by", printable_line(subject), cause, hint=printable_line(hint))


class _Known:
    """The names in the results folder and in the ledger."""

    def __init__(self, settings: Settings, ledger: Path) -> None:
        from pixaris_sync.ledger.database import Ledger
        from pixaris_sync.ledger.known import known_datasets, run_names
        from pixaris_sync.local.results_folder import LocalResults

        self._results = LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name)
        self._in_ledger: dict[DatasetKey, set[str]] = {}
        found = self._looked(lambda: set(self._results.datasets().keys))
        if may_exist(ledger):
            book = Ledger.open(ledger, read_only=True)
            try:
                for key in book.read(known_datasets):
                    self._in_ledger[key] = book.read(partial(run_names, key=key))
            finally:
                book.close()
        self.datasets = sorted({*found, *self._in_ledger})

    def runs(self, key: DatasetKey) -> set[str]:
        """The names of a dataset's runs."""
        here = self._looked(lambda: {one.name for one in self._results.unnamed_folders(key, ())})
        return here | self._in_ledger.get(key, set())

    def _looked(self, look: Callable[[], set[T]]) -> set[T]:
        """What is here; nothing while the folder cannot be read, which is told by whoever works with it."""
        try:
            return look()
        except LedgerError:
            raise
        except SyncError as error:
            log.debug("%s", error)
            return set()
