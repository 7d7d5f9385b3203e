"""Takes what is on disk into the ledger: records, runs, files, and what is wrong with them.

Dataset by dataset: read on in its tracking file, inspect the runs that new records name, look again at
runs whose folders changed, and list run folders that no record names. What is unchanged costs two looks at
a run's folder and nothing else, and not even that where `ScanDepth` says so.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from pixaris_sync.errors import LedgerError, LocalFileError, SyncError
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.forgetting import Stock, forget_runs, take_stock
from pixaris_sync.ledger.intake import FoundRecord, FoundRun
from pixaris_sync.ledger.known import InspectedRun, args_and_payloads, next_look_at
from pixaris_sync.ledger.notices import Notice, forget_what_was_told, take_in_listing, take_in_notices
from pixaris_sync.local.contents import extend_crc32c
from pixaris_sync.local.presence import AbsentError, PartlyAbsentError
from pixaris_sync.local.results_folder import Datasets
from pixaris_sync.local.run_folder import RunInspection
from pixaris_sync.local.safe_open import MissingFileError
from pixaris_sync.local.tracking_file import SETTLED_SECONDS
from pixaris_sync.model import (
    DatasetKey,
    FileVersion,
    FoundFile,
    Problem,
    RunKey,
    Tail,
    TailPosition,
    TrackingRecord,
)
from pixaris_sync.pipeline.absence import Absence
from pixaris_sync.pipeline.adoption import Opening
from pixaris_sync.pipeline.arrival import Arrivals, Piece
from pixaris_sync.pipeline.context import Context, problem_of
from pixaris_sync.pipeline.intake import Intake
from pixaris_sync.pipeline.orphans import Orphans
from pixaris_sync.rules.contract import (
    files_of,
    table_collisions,
    table_id,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How much of a tracking file is taken in per transaction: some thousand records.
TAIL_BYTES_LIMIT = 2 * 1024 * 1024
#: The same while following, some dozen records: live runs wait for no transaction of a second.
FOLLOW_TAIL_BYTES_LIMIT = 32 * 1024
#: Runs inspected between two transactions.
INSPECT_RUNS_LIMIT = 500
#: Datasets that are scanned at the same time: one of a backlog, and one with news.
SCANS_LIMIT = 2


class ScanDepth(IntEnum):
    """How deep a scan of a dataset goes; each depth includes those before it.

    NEW_LINES: what is new in its tracking file, and runs that are not synced. It costs nothing for what is.
    FOLDERS: run folders that no record names, where the dataset's folder has changed.
    EVERYTHING: the folders of synced runs too, in which something may have been added or removed.
    """

    NEW_LINES = 0
    FOLDERS = 1
    EVERYTHING = 2


class Discovery:
    """Scans datasets in threads of its own. No dataset may be scanned twice at the same time.

    Args:
        context: what the engine's parts share.
        on_runs_found: called when new runs are in the ledger.

    Attributes:
        arrivals: how runs came, and when to look at them again.
        absence: what happens while a folder is away.
        orphans: the run folders that no record names.
    """

    def __init__(self, context: Context, *, on_runs_found: Callable[[], None] = lambda: None) -> None:
        self.arrivals = Arrivals(context)
        self._context = context
        self.absence = Absence(context)
        self._intake = Intake(context)
        self._opening = Opening(context)
        self._on_runs_found = on_runs_found
        #: Runs that the next scan of their dataset inspects, whatever the ledger says.
        self._wanted: dict[DatasetKey, set[str]] = defaultdict(set)
        self._limiter = CapacityLimiter(SCANS_LIMIT)
        self.orphans = Orphans(context, self._limiter)

    async def list_datasets(self) -> tuple[DatasetKey, ...]:
        """List the datasets of the results folder, and note what is wrong with it; none while it is away."""
        context = self._context
        if not await self.absence.look():
            return ()
        try:
            found = await self._blocking(self._look_around)
        except LocalFileError as error:
            await self.absence.rest(None, AbsentError(error.subject, error.cause, whole=True))
            return ()
        self.arrivals.listed(found.keys)
        await self.absence.listed(found.keys)
        notices = [
            Notice(problem.subject, problem_of(problem), quarantined=True) for problem in found.problems
        ]
        context.shared_tables = table_collisions(found.keys)
        for shared, keys in context.shared_tables.items():
            together = ", ".join(str(key) for key in keys)
            notices.append(
                Notice(
                    together,
                    Problem(
                        f"they share the table {shared}: Pixaris will show the rows of all of them in each",
                        "rename one of the projects or datasets, if that is not wanted",
                    ),
                    quarantined=False,
                )
            )
        others = await context.apply(take_in_listing, context.now(), found.keys, notices)
        for key, dataset_id in others.items():
            if await self._blocking(partial(context.presence.absence, key)) is None:
                # Nobody will ever look again whether that still holds.
                await context.apply(forget_what_was_told, context.now(), key, dataset_id)
        return found.keys

    def _look_around(self) -> Datasets:
        found = self._context.results.datasets()
        self._context.presence.listed(found.keys)
        return found

    def inspect_next(self, run: RunKey) -> None:
        """Let the next scan of its dataset inspect a run, also where it is synced."""
        self._wanted[run.dataset_key].add(run.run)

    async def scan(
        self, key: DatasetKey, depth: ScanDepth = ScanDepth.EVERYTHING, *, anew: bool = False
    ) -> KnownDataset:
        """Take in what is new or changed in a dataset.

        Args:
            key: the dataset.
            depth: how deep to look.
            anew: something vanished under the first look.

        Returns:
            The dataset as it is known now.
        """
        context = self._context
        known, refused, notices = await self._opening.open(key)
        inspected: set[str] = set()
        wanted = self._wanted.pop(key, set())
        try:
            stock = await self._take_stock(known, inspected, depth)
            if stock.edited:
                inspected.difference_update(stock.edited)
                stock = await self._take_stock(stock.known, inspected, depth)
            known = stock.known
            partly = await self._inspect_folders(known, stock.runs, inspected, wanted)
            if partly is not None:
                notices.append(self.absence.notice_of(key, partly))
            elif stock.without_line:
                await self._forget_given_up(known, stock.without_line)
            if depth >= ScanDepth.FOLDERS and context.mode.selection.shard is None:
                await self.orphans.look(known, refused, anew=depth is ScanDepth.EVERYTHING)
        except LedgerError:
            raise
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this dataset
            absent = await self._blocking(partial(context.presence.absence, key))
            absent = absent or (caught if isinstance(caught, AbsentError) else None)
            if absent is not None:
                await self.absence.rest(key, absent)
                self._wanted[key] |= wanted
                return known
            if isinstance(caught, MissingFileError) and not anew:
                # Its disk may have been away for just that moment, or somebody moves things.
                self._wanted[key] |= wanted
                return await self.scan(key, depth, anew=True)
            if not await self._blocking(partial(context.results.has, key)):
                # It was deleted: whoever lists the datasets tells.
                return known
            error = context.reports.as_error("scan dataset", str(key), caught)
            notices.append(Notice(error.subject, problem_of(error), quarantined=True))
        await context.apply(take_in_notices, context.now(), str(key), notices)
        return known

    async def _take_stock(self, known: KnownDataset, inspected: set[str], depth: ScanDepth) -> Stock:
        """Read on in a tracking file, and see what is known then."""
        is_whole, synced_too = await self._read_on(known, inspected), depth >= ScanDepth.EVERYTHING
        context, table = self._context, table_id(known.key)
        return await context.apply(
            take_stock, context.now(), known, table, synced_too=synced_too, is_whole=is_whole
        )

    async def _read_on(self, known: KnownDataset, inspected: set[str]) -> bool:
        """Take in what a tracking file has beyond what was read of it.

        Returns:
            Whether it is there, and all of its lines are whole and were read.
        """
        context, position = self._context, known.position
        bytes_limit = FOLLOW_TAIL_BYTES_LIMIT if context.mode.follow else TAIL_BYTES_LIMIT
        read = partial(self._read, known.key, bytes_limit=bytes_limit)
        followed = self.arrivals.follows(known)
        while True:
            await context.throttle()
            settled_ns = context.stamp_ns(SETTLED_SECONDS)
            tail = await self._blocking(partial(read, position, settled_before_ns=settled_ns))
            self.absence.is_back(known.key)
            if tail is None:
                is_whole = False
                break
            is_whole = not tail.torn_bytes
            piece = self.arrivals.piece(position, tail, followed=followed)
            runs = await self._find_runs(known, tail.records, piece)
            if tail.position != position or tail.records or tail.damaged or not known.read_whole:
                new = await self._intake.take_in(known, tail, runs)
                context.tally.records += new
                inspected.update(run.name for run in runs)
                if runs:
                    self._on_runs_found()
            position = tail.position
            if not tail.more:
                break
        self.arrivals.read_to_end(known.key)
        return is_whole

    def _read(
        self, key: DatasetKey, position: TailPosition | None, *, bytes_limit: int, settled_before_ns: int
    ) -> Tail | None:
        """Read a piece of a tracking file, where its dataset is there; of it the shard's part. Blocks."""
        self._check_presence(key)
        tail = self._context.results.tail(
            key, position, bytes_limit=bytes_limit, settled_before_ns=settled_before_ns
        )
        return tail and self._context.mode.selection.part_of(tail)

    async def _find_runs(
        self, known: KnownDataset, records: Iterable[TrackingRecord], piece: Piece
    ) -> list[FoundRun]:
        """Inspect the folders of the runs that these records name."""
        by_run: dict[str, list[TrackingRecord]] = defaultdict(list)
        for record in records:
            by_run[record.run.run].append(record)
        # Runs stored in the same second share a folder: it must hold the files of all their records.
        saved = await self._saved_files(known, by_run)
        return await self._blocking(
            lambda: [
                self._contained(
                    RunKey(known.key.project, known.key.dataset, name),
                    partial(self._find_run, known.key, name, saved.get(name, ()), records, piece),
                    records,
                )
                for name, records in by_run.items()
            ]
        )

    def _contained(
        self, run: RunKey, look: Callable[[], FoundRun], records: Iterable[TrackingRecord] = ()
    ) -> FoundRun:
        """Look at a run; whatever goes wrong with it becomes its problem. Blocks."""
        try:
            return look()
        except AbsentError:
            raise
        except Exception as caught:  # noqa: BLE001 - it must not hold up others
            error = self._context.reports.as_error("look at run", str(run), caught)
            found = tuple(FoundRecord(record) for record in records)
            return FoundRun(run.run, "", records=found, problem=problem_of(error))

    def _find_run(
        self,
        key: DatasetKey,
        name: str,
        saved_before: Iterable[str],
        records: Sequence[TrackingRecord],
        piece: Piece,
    ) -> FoundRun:
        """Inspect a run's folder for records and for files of records that came before. Blocks."""
        run = RunKey(key.project, key.dataset, name)
        found: list[FoundRecord] = []
        saved = list(saved_before)
        problem: Problem | None = None
        for record in records:
            try:
                files = files_of(record)
            except SyncError as error:
                problem = problem_of(error)
                found.append(FoundRecord(record))
                continue
            saved.extend(files.saved)
            inline = tuple(_inline_file(path, content) for path, content in files.inline.items())
            found.append(FoundRecord(record, inline))
        if not self._context.mode.selection.takes(run):
            # Nothing in its folder is judged: whoever carries it looks.
            return FoundRun(run.run, None, records=tuple(found), problem=problem)
        return self._inspect(run, saved, records=tuple(found), problem=problem, piece=piece)

    def _inspect(
        self,
        run: RunKey,
        saved: Iterable[str],
        *,
        records: tuple[FoundRecord, ...] = (),
        problem: Problem | None = None,
        piece: Piece | None = None,
        waits: bool = False,
    ) -> FoundRun:
        look = partial(
            self._context.results.inspect,
            run,
            tuple(dict.fromkeys(saved)),
            accept_without_images=self._context.settings.accept_runs_without_images,
        )
        inspection = look()
        if inspection.problems:
            self._check_presence(run.dataset_key)
            # Its disk may have been away for just that moment: what is judged was seen beside it.
            inspection = look()
        for fault in inspection.problems[:1]:
            self._check_presence(run.dataset_key, None if records else fault)
        if problem is not None:
            # It is one of the record, not of the folder, and stays.
            return FoundRun(run.run, inspection.signature, inspection.files, records, problem)
        arrival = self.arrivals.judge(run, inspection, piece, waits=waits)
        if inspection.problems:
            first, *others = inspection.problems
            more = f" (and {len(others)} more like it)" if others else ""
            problem = Problem(f"{first}{more}", first.hint)
        found = FoundRun(run.run, inspection.signature, inspection.files, records, problem, *arrival)
        return found._replace(notice=_unlisted(run, inspection)) if inspection.unlisted else found

    def _check_presence(self, key: DatasetKey, fault: SyncError | None = None) -> None:
        """Make sure that a dataset's folder is there, and that what is wrong in it may be judged. Blocks.

        Raises:
            AbsentError: it is not, for a while; or (`PartlyAbsentError`) the fault is not to be judged.
        """
        presence = self._context.presence
        if absent := presence.absence(key) if fault is None else presence.excuse(key, fault):
            raise absent

    async def _inspect_folders(
        self,
        known: KnownDataset,
        runs: Sequence[InspectedRun],
        inspected: set[str],
        wanted: set[str],
    ) -> PartlyAbsentError | None:
        """Look again at runs whose folders changed or were in trouble.

        Returns:
            Why some of them are left as they were.
        """
        context, key = self._context, known.key
        partly: PartlyAbsentError | None = None
        waiting = {run.name for run in runs if run.quiet_at is not None}
        changed = await self._blocking(lambda: list(self._changed(key, runs, inspected | wanted)))
        changed += sorted(wanted - inspected)
        changed = context.mode.selection.taken(key, changed)
        arriving = bool(waiting)
        for start in range(0, len(changed), INSPECT_RUNS_LIMIT):
            found = []
            saved = await self._saved_files(known, changed[start : start + INSPECT_RUNS_LIMIT])
            for name, saved_before in saved.items():
                await context.throttle()
                run = RunKey(key.project, key.dataset, name)
                look = partial(self._inspect, run, saved_before, waits=name in waiting)
                try:
                    found.append(await self._blocking(partial(self._contained, run, look)))
                except PartlyAbsentError as error:
                    partly = error
            arriving |= any(run.quiet_at is not None for run in found)
            await self._intake.take_in_runs(known, found)
        look_at = await context.apply(next_look_at, known.id, context.mode.selection) if arriving else None
        self.arrivals.look_again(key, look_at)
        return partly

    async def _forget_given_up(self, known: KnownDataset, names: Sequence[str]) -> None:
        """Forget those of these runs, of which no line is left, whose folders are gone, too."""
        context = self._context
        selected = context.mode.selection.taken(known.key, names)
        gone = await self._blocking(partial(context.results.without_folder, known.key, selected))
        forgotten = await context.apply(forget_runs, known.id, gone)
        if forgotten:
            more = f" and {len(forgotten) - 1} more" if forgotten[1:] else ""
            log.info(
                "%s/%s%s: given up, as folder and line are gone; what the cloud has of it stays",
                known.key,
                forgotten[0],
                more,
            )

    def _changed(self, key: DatasetKey, runs: Sequence[InspectedRun], inspected: set[str]) -> Iterable[str]:
        full, now = self._context.mode.full, self._context.now()
        for known in runs:
            if known.name in inspected:
                continue
            if known.quiet_at is not None:
                if full or known.quiet_at <= now:
                    yield known.name
                continue
            run = RunKey(key.project, key.dataset, known.name)
            signature = None if full or known.troubled else self._context.results.signature(run) or ""
            if signature is None or signature != known.signature:
                yield known.name

    async def _saved_files(self, known: KnownDataset, runs: Collection[str]) -> dict[str, list[str]]:
        """Names of args saved as files, by run: of those taken in, and of records that are not synced."""
        context = self._context
        saved: dict[str, list[str]] = {}
        for name, (args, records) in (await context.apply(args_and_payloads, known.id, runs)).items():
            saved[name] = args
            key = RunKey(known.key.project, known.key.dataset, name)
            for line, payload in records:
                record = TrackingRecord(key, json.loads(payload), "", line)
                try:
                    args.extend(files_of(record).saved)
                except LocalFileError as error:
                    # It was refused when it was taken in, and still is.
                    log.debug("%s", error)
        return saved

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await to_thread.run_sync(function, limiter=self._limiter)


def _unlisted(run: RunKey, inspection: RunInspection) -> Notice:
    kinds = ", ".join(inspection.unlisted)
    cause = f"beside its images there are files of other kinds, which Pixaris does not list: {kinds}"
    hint = "nothing to do, if they are not wanted in the cloud; else save them as png or jpg"
    return Notice(str(run), Problem(cause, hint), quarantined=False)


def _inline_file(path: str, content: bytes) -> FoundFile:
    return FoundFile(path, FileVersion(len(content), 0, 0, extend_crc32c(0, content)), content)
