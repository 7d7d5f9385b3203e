"""Removes the files of old runs, each once all of its run was proven in the cloud at that moment.

For some runs at a time: their files are read and their checksums computed; their tracking files are read on;
their rows are read back and compared as ``verify`` does. Then one run after the other: the ledger is told
that its files are going to be removed, the bucket is asked for its objects, and file by file is removed as
it was read (`local.removal`). Where anything is not as it should be the run stays whole. What is no image and
no saved argument of a record stays in any case: ``args.json``, unknown files, links and folders.

It works beside a process that carries runs: it needs no ownership, as each of its changes to the ledger is
one transaction that asks whether the run is synced still.
"""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Final, TypeVar

from anyio import CancelScope, to_thread
from msgspec import Struct
from msgspec.structs import replace

from pixaris_sync.errors import LocalFileError, SyncError
from pixaris_sync.history.candidates import (
    Candidate,
    candidates,
    standing_problem,
    stored_at,
    unproven,
)
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.inventory import inventory
from pixaris_sync.ledger.known import known_datasets
from pixaris_sync.ledger.pruned import SelectedRun, begin_prune, leave_whole, pruned_since, selected_runs
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.local.removal import ReadFile, check_unchanged, read_files, remove
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey, Problem, RemoteObject, RunKey, RunState
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import object_name, table_id
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import printable
from pixaris_sync.verify.expected import TAIL_BYTES_LIMIT, Expected, expect
from pixaris_sync.verify.findings import Sign
from pixaris_sync.verify.rows import compare_found

T = TypeVar("T")

#: Runs whose rows are read back by one query: those of the last were read a few seconds before it is pruned.
RUNS_LIMIT: Final = 50
_UNDATED: Final = Problem("its name does not tell when it was stored", "remove it by hand, if it may go")
_AGAIN: Final = Problem("it has changed meanwhile", "prune again once it is synced")
_MOVED: Final = Problem("its tracking file has changed meanwhile", "prune again once it is synced")


class Pruned(Struct, frozen=True):
    """What became of a run that is old enough.

    Attributes:
        run: which.
        files, size: how many files of it were removed, or would be, and their bytes.
        kept: what lies in its folder besides, and stays.
        problem: why it was left, or not all of its files were removed; None: all is done.
        passes: the problem may pass by itself.
        is_dated: its name tells when it was stored.
    """

    run: RunKey
    files: int = 0
    size: int = 0
    kept: tuple[str, ...] = ()
    problem: Problem | None = None
    passes: bool = False
    is_dated: bool = True


class Pruner:
    """Prunes runs of a results folder. Use once.

    Args:
        settings: which folder and destination.
        ledger: what is known of it.
        store: the bucket.
        sink: the tables.
        now: the time, in seconds since the epoch.
        removes: whether files are removed; else all is proven, and nothing is changed.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: ObjectStore,
        sink: RowSink,
        *,
        now: Callable[[], float] = time.time,
        removes: bool,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._sink = sink
        self._now = now
        self._removes = removes
        self._results = LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name)
        self._root = self._results.root

    async def prune(self, selection: Selection, older_than_seconds: float) -> AsyncIterator[Pruned]:
        """Prune the selected runs that were stored so long ago; each of them as soon as it is known.

        A run that is pruned already is left out, and so is one that is younger.

        Raises:
            ConfigurationError: folder, bucket, BigQuery dataset or credentials are missing or unusable.
            LedgerError: the ledger cannot be read or written.
            SyncError: the cloud could not be asked at all, or nobody can be authenticated.
        """
        await to_thread.run_sync(self._results.check)
        await self._store.check()
        await self._sink.check()
        due: defaultdict[str, list[SelectedRun]] = defaultdict(list)
        for run in await self._ask(partial(selected_runs, selection=selection)):
            at = stored_at(run.key.run)
            if at is None:
                yield Pruned(run.key, problem=_UNDATED, is_dated=False)
            elif at > self._now() - older_than_seconds:
                continue
            elif (problem := standing_problem(run)) is not None:
                passes = run.state in (RunState.PENDING, RunState.FAILING)
                yield Pruned(run.key, problem=problem, passes=passes)
            else:
                due[table_id(run.key.dataset_key)].append(run)
        sharing = await self._sharing()
        for table, runs in due.items():
            async for pruned in self._of_table(table, sharing[table], runs):
                yield pruned

    async def _sharing(self) -> Mapping[str, Collection[DatasetKey]]:
        """The datasets of each table: only together they tell whose its rows are."""
        found = await to_thread.run_sync(self._results.datasets)
        tables: defaultdict[str, set[DatasetKey]] = defaultdict(set)
        for key in {*found.keys, *await self._ask(known_datasets)}:
            tables[table_id(key)].add(key)
        return tables

    async def _of_table(
        self, table: str, keys: Collection[DatasetKey], runs: Sequence[SelectedRun]
    ) -> AsyncIterator[Pruned]:
        try:
            expected = {key: await to_thread.run_sync(self._expect, key) for key in sorted(keys)}
        except LocalFileError as error:
            for run in runs:
                yield _failed(run.key, error)
            return
        waiting: list[Candidate] = []
        tracking_file = self._settings.dataset_tracking_file_name
        for key, of_dataset in expected.items():
            mine = [run for run in runs if run.key.dataset_key == key]
            found, left = candidates(mine, of_dataset, tracking_file)
            waiting += found
            for run_key, problem in left.items():
                yield Pruned(run_key, problem=problem)
        for start in range(0, len(waiting), RUNS_LIMIT):
            async for pruned in self._some(table, expected, waiting[start : start + RUNS_LIMIT]):
                yield pruned

    def _expect(self, key: DatasetKey) -> Expected:
        return expect(
            self._results,
            self._settings.destination,
            key,
            self._ledger.read(partial(inventory, key=key)),
            accept_without_images=self._settings.accept_runs_without_images,
        )

    async def _some(
        self, table: str, expected: Mapping[DatasetKey, Expected], runs: Sequence[Candidate]
    ) -> AsyncIterator[Pruned]:
        """Prove some runs of a table, and prune those that are proven."""
        read: dict[RunKey, list[ReadFile]] = {}
        for run in runs:
            try:
                reading = partial(read_files, self._root, run.key, run.local_paths)
                read[run.key] = await to_thread.run_sync(reading)
            except LocalFileError as error:
                yield _failed(run.key, error)
        try:
            problems = await self._row_problems(table, expected, [run for run in runs if run.key in read])
        except SyncError as error:
            if error.stops_everything:
                raise
            for key in read:
                yield _failed(key, error)
            return
        for run in runs:
            if run.key in problems:
                yield Pruned(run.key, problem=problems[run.key])
            elif run.key in read:
                yield await self._one(run, read[run.key])

    async def _row_problems(
        self, table: str, expected: Mapping[DatasetKey, Expected], runs: Sequence[Candidate]
    ) -> dict[RunKey, Problem]:
        """Why some of these runs may not go: of the others, the table holds each row as its line has it.

        Raises:
            SyncError: tracking files or the table cannot be read.
        """
        moved = await to_thread.run_sync(self._read_on, expected)
        names = sorted({run.key.run for run in runs})
        rows = await self._sink.read_rows(table, names) if names else []
        signs: defaultdict[RunKey, list[str]] = defaultdict(list)
        for finding in compare_found(table, [_of_runs(one, names) for one in expected.values()], rows):
            if finding.run is not None:
                fault = "" if finding.sign is Sign.SAME else f"row {finding.subject}: {finding.detail}"
                signs[finding.run].append(fault)
        problems: dict[RunKey, Problem] = {}
        for run in runs:
            if run.key in moved or run.key.dataset_key in moved:
                problems[run.key] = _MOVED
            elif fault := next(filter(None, signs[run.key]), ""):
                problems[run.key] = unproven(fault)
            elif len(signs[run.key]) != len(run.rows):
                problems[run.key] = unproven(f"rows of {table} are not told apart")
        return problems

    def _read_on(self, expected: Mapping[DatasetKey, Expected]) -> set[RunKey | DatasetKey]:
        """Runs of which lines came since they were read, and datasets in which nobody can tell. Blocks."""
        moved: set[RunKey | DatasetKey] = set()
        for key, one in expected.items():
            if one.position is None:
                continue
            tail = self._results.tail(key, one.position, bytes_limit=TAIL_BYTES_LIMIT)
            if tail is None or tail.from_start or tail.more or tail.damaged or tail.torn_bytes:
                moved.add(key)
                continue
            moved |= {record.run for record in tail.records}
        return moved

    async def _one(self, run: Candidate, read: Sequence[ReadFile]) -> Pruned:
        """Prove the objects of a run whose rows are proven, and remove its files."""
        before = await self._ask(partial(pruned_since, run_id=run.id))
        if self._removes and not await self._tell(partial(begin_prune, now=self._now(), run_id=run.id)):
            return Pruned(run.key, problem=_AGAIN)
        done, size = 0, 0
        problem: Problem | None = None
        passes = False
        try:
            cause = await self._object_problem(run, read)
            if cause:
                problem = unproven(cause)
            else:
                await to_thread.run_sync(check_unchanged, self._root, run.key, read)
            for file in read if problem is None else ():
                if not self._removes or await to_thread.run_sync(remove, self._root, run.key, file):
                    done, size = done + 1, size + file.version.size
        except SyncError as error:
            if error.stops_everything:
                raise
            problem, passes = Problem(str(error), error.hint), error.failure.retryable
        finally:
            # Where a crash comes first it stays known as pruned, until a scan finds it whole.
            if self._removes and not done and before is None:
                with CancelScope(shield=True):
                    await self._tell(partial(leave_whole, run_id=run.id))
        kept = () if problem else await to_thread.run_sync(self._kept, run, [file.path for file in read])
        return Pruned(run.key, done, size, kept, problem, passes)

    async def _object_problem(self, run: Candidate, read: Sequence[ReadFile]) -> str:
        """What of a run the bucket does not hold as it is here, at this moment; empty: it holds all."""
        there: dict[str, RemoteObject] = {}
        async for page in self._store.list(object_name(run.key, "")):
            there |= {remote.name: remote for remote in page}
        here = {object_name(run.key, file.path): file.crc32c for file in read}
        for name, wanted in run.objects.items():
            remote = there.get(name)
            if remote is not None and remote.crc32c is None:
                # A bucket under a key of its owner's tells no checksums in listings.
                remote = await self._store.stat(name)
            if remote is None:
                return f"{printable(name)} is not in the bucket"
            # What is gone from here was inline in the record, or the ledger knows what it was.
            crc32c = here.get(name, wanted.crc32c if wanted.version is None else wanted.uploaded)
            if remote.crc32c is None or remote.crc32c != crc32c:
                return f"{printable(name)} is not in the bucket as it is here"
        return ""

    def _kept(self, run: Candidate, removed: Collection[str]) -> tuple[str, ...]:
        """What lies in a run's folder and is not removed, but for args.json and what is hidden. Blocks."""
        found = self._results.contents(run.key)
        return tuple(sorted(path for path in found if path not in removed))

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        return await to_thread.run_sync(self._ledger.read, question)

    async def _tell(self, change: Callable[[Connection], T]) -> T:
        return await to_thread.run_sync(self._ledger.write, change)


def _of_runs(expected: Expected, names: Collection[str]) -> Expected:
    """The same, of these runs alone."""
    wanted = set(names)
    rows = [row for row in expected.rows if row.run.run in wanted]
    forgotten = type(expected.forgotten)(
        {name: count for name, count in expected.forgotten.items() if name in wanted}
    )
    return replace(expected, rows=rows, forgotten=forgotten)


def _failed(run: RunKey, error: SyncError) -> Pruned:
    return Pruned(run, problem=Problem(str(error), error.hint), passes=error.failure.retryable)
