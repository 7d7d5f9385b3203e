"""Runs the parts: who may start what, and when the pass is over.

One loop decides (`_coordinate`): it claims files for the upload lane, asks the planner what each table
needs, starts both as tasks, and waits until something ended or is due. Scans run beside it, one dataset at a
time, and one more in which something has just happened: news do not wait behind a backlog. What is in flight
is bounded by `upload_concurrency_limit` files and some that are read ahead, `inflight_bytes_limit` bytes and
one step per table; everything else waits in the ledger, not in memory.
"""

import logging
import random
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.journal import Journal
from pixaris_sync.ledger.notices import HELD, Notice, take_in_notices
from pixaris_sync.ledger.overview import WorkLeft, work_left
from pixaris_sync.ledger.rows import recover_deliveries
from pixaris_sync.ledger.uploads import recover_uploads
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.pipeline.adoption import FirstCheck, FirstContact
from pixaris_sync.pipeline.arrival import Arrivals
from pixaris_sync.pipeline.context import BUCKET, FOLDER, Context, Mode, no_throttle, problem_of, row_limits
from pixaris_sync.pipeline.deliveries import Deliveries
from pixaris_sync.pipeline.discovery import Discovery, ScanDepth
from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.pipeline.lane import UploadLane
from pixaris_sync.pipeline.snapshot import take_snapshot
from pixaris_sync.pipeline.tidying import pack_finished_runs, tidy_ledger
from pixaris_sync.pipeline.told import Told
from pixaris_sync.pipeline.unexpected import Reports
from pixaris_sync.ports import Clock, ObjectStore, RowSink
from pixaris_sync.rules.planner import AskFirst, ReadBack, SendRows, Step, plan_rows
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted
from pixaris_sync.waiting import Wakeup, wait_until

log = logging.getLogger(__name__)

#: Ends that arrive together are answered together.
COORDINATE_PAUSE_SECONDS = 0.001
#: Scope and subject of the notice that everything is paused.
PAUSED = "everything"


class Engine:
    """Carries runs from a results folder to the cloud. Use once.

    Memory: see `settings`. The ledger must not be used by others in this process while the engine runs.
    """

    def __init__(  # noqa: PLR0913 - all that it works with, by name
        self,
        *,
        settings: Settings,
        mode: Mode,
        ledger: Ledger,
        store: ObjectStore,
        sink: RowSink,
        clock: Clock,
        jitter: random.Random,
        throttle_seconds: Callable[[], float] = no_throttle,
        hold: Hold | None = None,
        threaded_ledger: bool = True,
    ) -> None:
        # A pass ends where the ledger cannot be written; a service waits until it can.
        self._journal = Journal(ledger, threaded=threaded_ledger, clock=clock if mode.follow else None)
        self.context = Context(
            settings=settings,
            mode=mode,
            journal=self._journal,
            store=store,
            sink=sink,
            clock=clock,
            jitter=jitter,
            scan_soon=partial(self.scan_soon, depth=ScanDepth.NEW_LINES),
            throttle_seconds=throttle_seconds,
            reports=Reports(ledger.path.parent / "reports"),
            hold=hold,
        )
        self._progress = Wakeup()
        self._discovery = Discovery(self.context, on_runs_found=self._progress.notify)
        self._deliveries = Deliveries(self.context)
        self._limits = row_limits(settings, mode, self.context.now())
        self._work_found = Wakeup()
        self._dirty: dict[DatasetKey, ScanDepth] = {}
        #: Those of the dirty datasets in which something has happened just now, in that order.
        self._news: dict[DatasetKey, None] = {}
        self._scanned_now: set[DatasetKey] = set()
        self._adopting: set[DatasetKey] = set()
        #: Datasets of which the cloud is asked about folders that no record names.
        self._asked_about: set[DatasetKey] = set()
        self._first_check = FirstCheck(self.context)
        self._lane = UploadLane(
            self.context, on_files_settled=self._progress.notify, on_fatal=self._on_fatal_upload
        )
        self._busy_tables: set[str] = set()
        self._sent_at: dict[str, float] = {}
        self._hurry = Wakeup()
        self._finish_asked = anyio.Event()
        self._first_contact = FirstContact(self.context, self._first_check, self._hurry, self._stops)
        self._fatal: SyncError | None = None
        self._troubles_told: dict[str, SyncError] = {}
        self._checking = not mode.follow
        #: It rides out what stops everything, also once it does no more than a pass.
        self._serves = mode.follow
        self._started = anyio.Event()
        self._told = Told(self.context, lambda: self.scanning, self.stirs)

    async def started(self) -> None:
        """Wait until the engine works: everything is listed, and (new ledger) the destination was checked."""
        await self._started.wait()

    async def describe(self) -> str:
        """How it is, in one line; goes through the ledger, so it answers only while that works."""
        if self._journal.trouble is not None:
            return f"paused: {self._journal.trouble}"
        # As it was before: what a scan finds meanwhile does not stand in the answer.
        scanning = self.scanning
        left = await self.context.apply(work_left, self.context.mode.selection)
        if self.context.hold.since is not None:
            return f"{self.context.hold}; {counted(left.waiting, 'run')} waiting"
        for trouble in (self.context.paused, self.context.gate(FOLDER).last_error):
            if trouble is not None:
                return f"paused: {trouble}"
        needy = left.quarantined
        attention = f", {counted(needy, 'needs attention', 'need attention')}" if needy else ""
        if not left.waiting and scanning:
            return f"looking through the results folder{attention}"
        if not left.waiting:
            return f"nothing waits{attention}" if attention else "everything is synced"
        rests = "".join(f", {name} rests: {error}" for name, error in self.context.troubles.items())
        waiting, moving = counted(left.waiting, "run"), counted(self.in_flight, "transfer")
        return f"{waiting} waiting, {moving} under way{attention}{rests}"

    async def run(self, *beside: Callable[[], Coroutine[Any, Any, object]]) -> WorkLeft:
        """Carry what is there; with `Mode.follow`, go on until `drain`, or to the end of `finish`.

        What works `beside` it is cancelled when it is done, while the ledger still serves it.

        Returns:
            What is left, by the ledger.

        Raises:
            ConfigurationError: folder, bucket, dataset or credentials are unusable.
            LedgerError: the ledger cannot be written.
            SyncError: anything else that stops everything.
        """
        self.context.results.check()
        self.context.hold.count_under_way = lambda: self.in_flight
        async with anyio.create_task_group() as writers:
            writers.start_soon(self._journal.run)
            try:
                await self.context.apply(recover_uploads, self.context.now())
                await self.context.apply(recover_deliveries, self.context.now())
                for scope in (PAUSED, HELD):
                    await self.context.apply(take_in_notices, self.context.now(), scope, [])
                await self._discovery.absence.begin()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._told.keep)
                    tasks.start_soon(self._scan, tasks)
                    tasks.start_soon(self._become_a_pass)
                    tasks.start_soon(self.context.hold.heed, self.context.clock, self._hold_changed)
                    for work in beside:
                        tasks.start_soon(work)
                    await self._coordinate(tasks)
                    tasks.cancel_scope.cancel()
                await tidy_ledger(self.context)
                await self.context.apply(take_in_notices, self.context.now(), HELD, [])
                await self._told.end()
                left = await self.context.apply(work_left, self.context.mode.selection)
            finally:
                self._journal.close()
        if self._fatal is not None:
            raise self._fatal
        return left._replace(denied=self.context.denied or self.context.paused is not None)

    def scan_soon(self, key: DatasetKey, depth: ScanDepth = ScanDepth.EVERYTHING) -> None:
        """Scan a dataset soon, if it is selected; for `NEW_LINES` beside the others, which may take long."""
        if not self.context.mode.selection.takes_dataset(key):
            return
        self._dirty[key] = max(depth, self._dirty.get(key, depth))
        if depth is ScanDepth.NEW_LINES:
            self._news[key] = None
        self._work_found.notify()

    def inspect_soon(self, run: RunKey) -> None:
        """Inspect a run's folder soon, also where the run is synced."""
        self._discovery.inspect_next(run)
        self.scan_soon(run.dataset_key, ScanDepth.NEW_LINES)

    @property
    def arrivals(self) -> Arrivals:
        """How runs came, and when to look at them again."""
        return self._discovery.arrivals

    async def scan_all_soon(self, depth: ScanDepth) -> None:
        """Scan all datasets soon."""
        for key in await self._discovery.list_datasets():
            self.scan_soon(key, depth)
        if depth is ScanDepth.EVERYTHING and self._started.is_set():
            await tidy_ledger(self.context)

    async def folder_is_there(self) -> bool:
        """Whether the results folder is there. What has come back, or may have in it, is scanned soon."""
        was_away = self._discovery.absence.next_look_at is not None
        there = await self._discovery.absence.look()
        if there and was_away:
            await self.scan_all_soon(ScanDepth.FOLDERS)
        for key in self._discovery.absence.datasets_away if there else ():
            self.scan_soon(key, ScanDepth.NEW_LINES)
        return there

    def stirs(self) -> anyio.Event:
        """An event that is set when something has ended or was found."""
        return self._progress.listen()

    def finish(self) -> None:
        """Look at everything once more and carry it, as a pass does; `run` ends when nothing is left to do.

        What is in trouble is tried at once, and then again and again: how long that may take is for who calls
        this to say, with `drain`. What is still being written is waited for no longer than by a pass.
        """
        self._finish_asked.set()

    def drain(self) -> None:
        """Take no new work; `run` ends when what is in flight has ended."""
        self.context.draining = True
        self._hurry.notify()
        self._progress.notify()
        self.context.hold.changes.notify()

    @property
    def in_flight(self) -> int:
        """For how many files, tables and datasets something is under way."""
        return sum(
            (self._lane.in_flight, len(self._busy_tables), len(self._adopting), len(self._asked_about))
        )

    # -- scanning ----------------------------------------------------------------------------------------

    async def _scan(self, tasks: TaskGroup) -> None:
        """Scan datasets that are dirty, for ever; begins with all of them."""
        await self.scan_all_soon(ScanDepth.EVERYTHING)
        if self.context.mode.follow and not await self._checked_at_start():
            return
        self._started.set()
        self._progress.notify()
        # While the first dataset is scanned: it takes a while to get ready for the first question.
        tasks.start_soon(self._check_beside)
        tasks.start_soon(self._scan_each, tasks, self._news)
        await self._scan_each(tasks, self._dirty)

    async def _become_a_pass(self) -> None:
        """Once `finish` was called, look at everything anew; only then may it end as a pass does."""
        await self._finish_asked.wait()
        await self._started.wait()
        context = self.context
        await self.scan_all_soon(ScanDepth.EVERYTHING)
        await context.try_all_soon()
        self.arrivals.wait_anew()
        context.mode = replace(context.mode, follow=False)
        self._limits = row_limits(context.settings, context.mode, context.now())
        self._hurry.notify()
        self._progress.notify()

    async def _check_beside(self) -> None:
        """A pass with a wrong destination fails also where there is nothing to do."""
        try:
            await self._first_check.confirm()
        except SyncError as error:
            # What passes by itself is told by the work that meets it.
            self._stops(error)
        self._checking = False
        self._progress.notify()

    async def _scan_each(self, tasks: TaskGroup, wanted: Collection[DatasetKey]) -> None:
        """Scan the dirty datasets among those that are wanted, one after another, for ever."""
        while True:
            found = self._work_found.listen()
            key = next((key for key in wanted if key in self._dirty and key not in self._scanned_now), None)
            if key is None:
                await found.wait()
                continue
            self._scanned_now.add(key)
            self._news.pop(key, None)
            known = await self._discovery.scan(key, self._dirty.pop(key))
            self._scanned_now.discard(key)
            if key in self._dirty:
                # It became so meanwhile, and the other scan left it out.
                self._work_found.notify()
            if not known.adopted and known.read_whole and key not in self._adopting:
                self._adopting.add(key)
                tasks.start_soon(self._adopt, known)
            if self._discovery.orphans.to_be_asked(key) and key not in self._asked_about:
                self._asked_about.add(key)
                tasks.start_soon(self._ask_about_orphans, known)
            self._progress.notify()

    @property
    def scanning(self) -> bool:
        """Whether there is, or may be, a dataset to scan."""
        return bool(not self._started.is_set() or self._checking or self._dirty or self._scanned_now)

    async def _ask_about_orphans(self, known: KnownDataset) -> None:
        await self._discovery.orphans.ask(known)
        self._asked_about.discard(known.key)
        self._progress.notify()

    async def _adopt(self, known: KnownDataset) -> None:
        try:
            await self._first_contact.adopt(known)
        finally:
            self._adopting.discard(known.key)
            self._progress.notify()

    async def _checked_at_start(self) -> bool:
        """A service with a wrong destination fails when it is started, not at its first run."""
        try:
            await self._first_check.confirm()
        except SyncError as error:
            if self._stops(error):
                return False
            now = self.context.now()
            self.context.outages.rests(BUCKET, error, since=now, until=now)
        return True

    def _stops(self, error: SyncError, destination: str = BUCKET) -> bool:
        """Whether a pass ends because of this error; when following, everything is paused and tried again."""
        if not error.stops_everything:
            return False
        if self._serves and self._first_check.confirmed:
            self.context.pause(destination, error)
            return False
        self._fatal = self._fatal or error
        self.drain()
        return True

    async def _tell_of_troubles(self) -> None:
        """Let the ledger say, for ``status``, what rests and why, and when that is over."""
        context = self.context
        troubles = {**context.troubles, **({PAUSED: context.paused} if context.paused else {})}
        if troubles == self._troubles_told:
            return
        self._troubles_told = troubles
        notices = [Notice(name, problem_of(error), quarantined=False) for name, error in troubles.items()]
        await context.apply(take_in_notices, context.now(), PAUSED, notices)

    async def _hold_changed(self) -> None:
        """Let the ledger say whether somebody asked for a pause, and go on after it."""
        context, hold = self.context, self.context.hold
        notices = [Notice(HELD, hold.problem, quarantined=False)] if hold.since is not None else []
        await context.apply(take_in_notices, context.now(), HELD, notices)
        if hold.since is None:
            # Of some folders the cloud was not asked meanwhile.
            await self.scan_all_soon(ScanDepth.NEW_LINES)
        self._progress.notify()

    # -- deciding ----------------------------------------------------------------------------------------

    async def _coordinate(self, tasks: TaskGroup) -> None:
        context = self.context
        while True:
            progress = self._progress.listen()
            receipts = self._lane.hand_over_receipts()
            if context.draining:
                if receipts:
                    await context.apply(self._lane.write_down, receipts)
                    self._lane.written_down(receipts)
                elif not self.in_flight:
                    return
                else:
                    await progress.wait()
                continue
            await self._tell_of_troubles()
            await self._look_for_folder()
            snapshot = await context.apply(take_snapshot, context, self._lane, receipts)
            # Nothing is asked before it is known that the dataset is there: its absence is another matter.
            asking = self._first_check.confirmed
            self._lane.written_down(receipts)
            if snapshot.claimed:
                self._lane.take(tasks, snapshot.claimed)
            now = context.now()
            plan = plan_rows(
                snapshot.tables if asking else [replace(one, to_ask=False) for one in snapshot.tables],
                now=now,
                busy=self._busy_tables,
                sent_at=self._sent_at,
                uploads_idle=not self._lane.in_flight and not self.scanning,
                limits=self._limits,
                loads_from=self._deliveries.changes.loads_from(snapshot.tables, now, self._limits),
            )
            for step in plan.steps:
                self._busy_tables.add(step.table_id)
                if isinstance(step, SendRows):
                    self._sent_at[step.table_id] = now
                tasks.start_soon(self._step, step)
            folder_at = self._discovery.absence.next_look_at
            due = (snapshot.next_upload_at, plan.wake_at, self._look_again(), folder_at)
            wakes = [at for at in due if at is not None]
            busy = self.in_flight or self.scanning or wakes or context.mode.follow or context.halted
            # What ended since the snapshot was taken may have made something ready that it does not show.
            if not busy and not progress.is_set():
                return
            await wait_until(progress, context.clock, min(wakes, default=None))
            if self.in_flight:
                await context.clock.sleep(COORDINATE_PAUSE_SECONDS)

    async def _look_for_folder(self) -> None:
        """Look whether the results folder is back, where it is away and that is due."""
        look_at = self._discovery.absence.next_look_at
        if look_at is not None and look_at <= self.context.now():
            await self.folder_is_there()

    def _look_again(self) -> float | None:
        """Have scanned what was arriving, where that is due; when it is due next."""
        for key in self.arrivals.due():
            # No news: these may be many, and live runs must not wait behind them.
            self._dirty.setdefault(key, ScanDepth.NEW_LINES)
            self._work_found.notify()
        return self.arrivals.next_look_at

    # -- doing -------------------------------------------------------------------------------------------

    def _on_fatal_upload(self, error: SyncError) -> None:
        self.context.failed(BUCKET, error)
        self._stops(error)

    async def _step(self, step: Step) -> None:
        error = await self._deliveries.perform(step)
        if error is not None:
            self.context.failed(step.table_id, error)
            self._stops(error, step.table_id)
        self._busy_tables.discard(step.table_id)
        self._progress.notify()
        if isinstance(step, ReadBack | AskFirst):
            # Nearly always a row that was read back finishes a run; `tidy_ledger` sees to the others.
            await pack_finished_runs(self.context)
