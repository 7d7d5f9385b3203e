"""Run folders that no tracking record names: being stored, given up half way, or downloaded.

The Pixaris UI downloads images of other machines' runs into the results folder, and people copy run folders
without their lines. So the cloud is asked about a folder that looks incomplete: where the table has a row of
its run and the bucket has all of its files, nothing is left to carry. The ledger remembers that while the
folder stays as it is. Where the cloud cannot be asked, the folder stays incomplete.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from pixaris_sync.errors import Failure, LedgerError, LocalFileError, NameRefusedError
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.known import causes_of_damaged_lines, committed_names
from pixaris_sync.ledger.notices import Orphan, note_answers, take_in_orphans
from pixaris_sync.model import DatasetKey, FileVersion, Problem, RemoteObject, RunKey
from pixaris_sync.pipeline.context import ASK_ROWS_LIMIT, BUCKET, Context, problem_of
from pixaris_sync.rules.contract import check_run_name, object_name, table_id

log = logging.getLogger(__name__)
T = TypeVar("T")

#: What is added to a folder this soon after it changed may leave the same time of change.
CLOCK_TICK_SECONDS = 2.0

_INCOMPLETE_HINT = (
    "store the run again and delete this folder; where args.json is whole, append its content as a line to "
    "the tracking file to sync the run as it is"
)
_IN_CLOUD_HINT = (
    "delete the folder, if it is a download that was cut off: Pixaris downloads it again; where args.json is "
    "whole and the run is yours, append its content as a line to the tracking file and run "
    "`pixaris-sync sync --repair`"
)


class _Answer(NamedTuple):
    """What the cloud said of a folder that looked so; no `problem`: it knows no row of it, or may not say."""

    signature: str
    problem: Problem | None


class Orphans:
    """Lists the run folders that no record names, and asks the cloud about them.

    Args:
        context: what the engine's parts share.
        limiter: for threads that look at the disk.
    """

    def __init__(self, context: Context, limiter: CapacityLimiter) -> None:
        self._context = context
        self._limiter = limiter
        #: When the folders of datasets had last changed when they were listed; none that had young runs.
        self._listed: dict[DatasetKey, int] = {}
        #: Incomplete folders by name, and their signatures, of which the cloud is still to be asked.
        self._unasked: dict[DatasetKey, dict[str, str]] = {}
        self._answers: dict[RunKey, _Answer] = {}
        #: By dataset, what was told last of why the cloud could not be asked.
        self._told: dict[DatasetKey, str] = {}

    async def look(self, known: KnownDataset, refused: Problem | None, *, anew: bool) -> None:
        """Take in the folders of a dataset that no record names, unless nothing has changed.

        Args:
            known: the dataset.
            refused: why nothing of it can be synced, if so.
            anew: what the cloud said before no longer counts, but for what the ledger remembers.
        """
        context, key = self._context, known.key
        changed_ns = await self._blocking(partial(context.results.listing_changed_ns, key))
        if self._listed.get(key) == changed_ns and not (anew and self._answers):
            return
        if anew:
            self._answers = {run: one for run, one in self._answers.items() if run.dataset_key != key}
        named = await context.apply(committed_names, known.id)
        damaged = await context.apply(causes_of_damaged_lines, known.id)
        orphans = await self._blocking(partial(self._list, key, named, damaged, refused))
        unknown = await context.apply(
            take_in_orphans,
            context.now(),
            known.id,
            orphans,
            again=context.mode.full,
            selection=context.mode.selection,
        )
        self._unasked[key] = {
            orphan.name: orphan.signature
            for orphan in orphans
            if orphan.name in unknown
            and orphan.signature
            # A service asks when it is old enough.
            and not (orphan.young and context.mode.follow)
            and RunKey(key.project, key.dataset, orphan.name) not in self._answers
        }
        settled = abs(context.age_seconds(changed_ns)) > CLOCK_TICK_SECONDS
        if settled and not any(orphan.young for orphan in orphans):
            self._listed[key] = changed_ns

    def to_be_asked(self, key: DatasetKey) -> bool:
        """Whether the cloud is to be asked about folders of a dataset, and answers as far as is known."""
        context = self._context
        gates = (context.gate(BUCKET), context.gate(table_id(key)))
        return bool(self._unasked.get(key)) and all(gate.is_open(context.now()) for gate in gates)

    async def ask(self, known: KnownDataset) -> None:
        """Ask the cloud about the incomplete folders of a dataset; where it does not answer, another time."""
        context, key = self._context, known.key
        try:
            while (unasked := self._unasked.get(key)) and not context.halted:
                await self._ask_for_some(known, unasked)
        except LedgerError:
            raise
        except Exception as caught:  # noqa: BLE001 - whatever it is, the folders stay as they are
            error = context.reports.as_error("ask about folders of", str(key), caught)
            if str(error) != self._told.get(key):
                log.info("%s; folders without a tracking line stay incomplete", error)
            self._told[key] = str(error)
            if error.failure is Failure.PERMISSION or not error.failure.retryable:
                # Not before all is looked at anew.
                self._note_unanswered(key)
        else:
            self._told.pop(key, None)

    async def _ask_for_some(self, known: KnownDataset, unasked: dict[str, str]) -> None:
        """Ask for the newest of these folders, and take them out."""
        context, key = self._context, known.key
        names = sorted(unasked)[-ASK_ROWS_LIMIT:]
        rows = await context.sink.count_rows(table_id(key), names)
        copies: dict[str, str] = {}
        problems: dict[str, Problem] = {}
        for name in names:
            run, signature = RunKey(key.project, key.dataset, name), unasked[name]
            lacking = await self._lacking(run) if rows.get(name) else None
            if lacking == 0:
                copies[name] = signature
                continue
            if lacking:
                problems[name] = _in_cloud(lacking)
            self._answers[run] = _Answer(signature, problems.get(name))
        await context.apply(note_answers, context.now(), known.id, copies, problems)
        for name in names:
            del unasked[name]

    def _note_unanswered(self, key: DatasetKey) -> None:
        for name, signature in self._unasked.pop(key, {}).items():
            self._answers[RunKey(key.project, key.dataset, name)] = _Answer(signature, None)

    async def _lacking(self, run: RunKey) -> int | None:
        """How many files of a run's folder the bucket does not have as they are; None: it cannot be read.

        Raises:
            SyncError: the bucket cannot be asked.
        """
        context = self._context
        try:
            files = await self._blocking(partial(context.results.contents, run))
        except LocalFileError:
            return None
        there: dict[str, RemoteObject] = {}
        async for page in context.store.list(object_name(run, "")):
            there |= {remote.name: remote for remote in page}
        return sum([not await self._is_there(run, path, files[path], there) for path in files])

    async def _is_there(
        self, run: RunKey, path: str, version: FileVersion | None, there: Mapping[str, RemoteObject]
    ) -> bool:
        context = self._context
        remote = there.get(object_name(run, path))
        if remote is None or version is None or remote.size != version.size:
            return False
        if remote.crc32c is None:
            # A listing of a bucket with a key of its owner's tells none.
            remote = await context.store.stat(remote.name)
        await context.throttle()
        try:
            chunk_bytes = context.settings.chunk_bytes
            crc32c = await context.files.checksum(run, path, version, chunk_bytes=chunk_bytes)
        except LocalFileError:
            return False
        return remote is not None and remote.crc32c == crc32c

    def _list(
        self, key: DatasetKey, named: Collection[str], damaged: Counter[str], refused: Problem | None
    ) -> Sequence[Orphan]:
        """The folders of a dataset that no record names. Blocks."""
        found: list[Orphan] = []
        for folder in self._context.results.unnamed_folders(key, named):
            run = RunKey(key.project, key.dataset, folder.name)
            if not self._context.mode.selection.takes(run):
                continue
            try:
                check_run_name(run)
            except NameRefusedError as error:
                # However long one waits. Where it has a line, that is told of.
                damaged[error.cause] -= 1
                if damaged[error.cause] < 0:
                    found.append(Orphan(run.run, young=False, problem=problem_of(error)))
                continue
            found.append(self._orphan(run, folder.changed_ns, refused))
        return found

    def _orphan(self, run: RunKey, changed_ns: int, refused: Problem | None) -> Orphan:
        context = self._context
        if refused is not None:
            return Orphan(run.run, young=False, problem=refused)
        signature = context.results.signature(run) or ""
        if 0 <= context.age_seconds(changed_ns) < context.settings.incomplete_after_seconds:
            cause = "being stored, or downloaded by Pixaris: no tracking line yet"
            return Orphan(run.run, young=True, problem=Problem(cause, ""), signature=signature)
        answer = self._answers.get(run)
        if answer is not None and answer.signature != signature:
            del self._answers[run]
            answer = None
        problem = answer.problem if answer else None
        if problem is None:
            problem = Problem(context.results.incomplete_reason(run), _INCOMPLETE_HINT)
        return Orphan(run.run, young=False, problem=problem, signature=signature)

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await to_thread.run_sync(function, limiter=self._limiter)


def _in_cloud(lacking: int) -> Problem:
    """What is wrong with a folder whose run has a row, and of which the bucket lacks so many files."""
    cause = (
        "no line of the tracking file names it; its row is in the table, and the bucket does not have all of "
        f"its files as they are here: {lacking} differ"
    )
    return Problem(cause, _IN_CLOUD_HINT)
