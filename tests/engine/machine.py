"""A machine with a results folder, a cloud, and time that belongs to the test.

Each pass is a process of its own: a fresh event loop, a fresh engine, the ledger opened anew. A process can
end at any instant (`CrashPoints`); what it had committed is all that the next one finds.
"""

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, WorkLeft
from pixaris_sync.ledger.retry import retry_runs
from pixaris_sync.ledger.rows import CLOCKS_DIFFER_SECONDS_MAX
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.local import run_folder, tracking_file
from pixaris_sync.model import RunKey
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.plans import applying
from pixaris_sync.plans.file import StoredPlan
from pixaris_sync.plans.making import make_plan
from pixaris_sync.plans.plan import Plan
from pixaris_sync.settings.model import Settings
from tests.engine.cloud_faults import CloudFaults
from tests.engine.crash_points import CrashError, CrashingLedger, CrashPoints
from tests.engine.faulty_cloud import FaultySink, FaultyStore
from tests.engine.invariants import Invariants
from tests.engine.local_folder import LocalFolder, StoredRecord, StoredRun
from tests.fakes.virtual_clock import VirtualClock

Script = Callable[[Engine], Awaitable[None]]


class Machine:
    """The machine, with everything that a scenario needs.

    Args:
        folder: an empty folder for the results and the ledger.
        seed: where all chance comes from.
        settings: what differs from the defaults; files count as large as early as they may.

    Attributes:
        ledger_path: where its ledger is, if there is one.
        processes: how many processes were started.
        crashes: how many of them have not come to their end.
    """

    def __init__(self, folder: Path, *, seed: int = 0, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.crash_points = CrashPoints()
        self.cloud_faults = CloudFaults(self.clock, Random(seed))  # noqa: S311 - a test's chance needs no secrecy
        self.store = FaultyStore(self.clock, self.crash_points, self.cloud_faults)
        self.sink = FaultySink(self.clock, self.crash_points, self.cloud_faults)
        self.local = LocalFolder(folder / "local_results", self.clock)
        self.invariants = Invariants(self.local, self.store, self.sink)
        self.processes = 0
        self.crashes = 0
        self.settings = Settings(
            gcp_project_id="gcp",
            gcp_bq_experiment_dataset="gcp.pixaris",
            gcp_pixaris_bucket_name="bucket",
            local_results_folder=self.local.root,
            state_dir=folder / "state",
            **{"resumable_threshold_bytes": 256 * 1024, "chunk_bytes": 256 * 1024, **settings},
        )
        self.ledger_path = folder / "state" / "ledger.sqlite3"
        self._jitter = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
        self._scope: anyio.CancelScope | None = None
        self._plan: StoredPlan | None = None
        self._finish_seconds = 0.0
        self.clock.on_step = self._step
        self.clock.seconds_to_event = self.sink.seconds_to_event

    # Processes.

    def run_pass(
        self,
        *,
        bulk: bool = False,
        full: bool = False,
        attempts_limit: int = 5,
        beside: Script | None = None,
        **selection: Any,
    ) -> WorkLeft:
        """Run ``sync`` or ``backfill`` to its end, with a script `beside` it that ends with it.

        Raises:
            CrashError: it ended at the instant chosen.
            SyncError: it failed.
        """
        chosen = Selection(attempts_limit=attempts_limit, **selection)
        return self._process(Mode(bulk=bulk, full=full, selection=chosen), beside)

    def plan(self, **selection: Any) -> Plan:
        """What ``backfill --plan`` writes."""
        mode = Mode(bulk=True, selection=Selection(**selection))

        async def look() -> Plan:
            copy = Ledger.in_memory(copy_of=self.ledger_path)
            with closing(copy):
                return await make_plan(self.settings, mode, copy, self.store, self.sink, now=self.clock.now())

        with virtual_changes():
            return self.clock.run(look)

    def apply(self, stored: StoredPlan) -> WorkLeft:
        """Run ``backfill --apply`` to its end.

        Raises:
            CrashError: it ended at the instant chosen.
            SyncError: it failed, or folder or cloud have changed.
        """
        self._plan = stored
        try:
            return self._process(Mode(bulk=True), None)
        finally:
            self._plan = None

    def follow(self, script: Script, *, finish_seconds: float = 0.0) -> WorkLeft:
        """Run ``watch`` beside `script`, and drain it when that ends, `finish_seconds` after `Engine.finish`.

        Raises:
            CrashError: it ended at the instant chosen.
            SyncError: it failed.
        """
        self._finish_seconds = finish_seconds
        return self._process(Mode(follow=True), script)

    def _process(self, mode: Mode, script: Script | None) -> WorkLeft:
        self.processes += 1
        self.crash_points.restart()
        with self.ledger() as ledger:
            try:
                with virtual_changes():
                    left = self.clock.run(partial(self._work, mode, ledger, script))
            except BaseExceptionGroup as group:
                raise self._root_cause(group) from group
        if left is None:
            self.crashes += 1
            raise CrashError("step")
        return left

    async def _work(self, mode: Mode, ledger: Ledger, script: Script | None) -> WorkLeft | None:
        left: WorkLeft | None = None
        with anyio.CancelScope() as self._scope:
            if self._plan is not None:
                ports, now = (self.store, self.sink), self.clock.now()
                mode = await applying.begin_plan(self.settings, self._plan, "it", ledger, *ports, now=now)
            engine = Engine(
                settings=self.settings,
                mode=mode,
                ledger=ledger,
                store=self.store,
                sink=self.sink,
                clock=self.clock,
                jitter=self._jitter,
                threaded_ledger=False,
            )
            run = self._follow if mode.follow else self._beside
            left = await engine.run(*([] if script is None else [partial(run, engine, script)]))
        return None if self.crash_points.crashed else left

    async def store_beside_a_bad_table(self, engine: Engine) -> None:
        """For a day, store a run an hour in dataset ``bad``, and one in ``good``, whose row must arrive."""
        for number in range(24):
            for dataset in ("bad", "good"):
                run = self.local.store(dataset=dataset, name=f"run{number}")
                engine.scan_soon(run.key.dataset_key)
            await self.clock.sleep(60)
            assert len(self.sink.visible_rows("p_good_experiment_results")) == number + 1
            await self.clock.sleep(3540)

    async def _beside(self, engine: Engine, script: Script) -> None:
        await engine.started()
        await script(engine)

    async def _follow(self, engine: Engine, script: Script) -> None:
        await engine.started()
        await script(engine)
        if self._finish_seconds:
            engine.finish()
            await self.clock.sleep(self._finish_seconds)
        engine.drain()

    def _step(self) -> bool:
        """A turn of the event loop: what is due takes effect; a crash takes everything down."""
        self.sink.land()
        if self.crash_points.survives("step") or self._scope is None or self._scope.cancel_called:
            return False
        self._scope.cancel()
        return True

    def _root_cause(self, group: BaseExceptionGroup[BaseException]) -> BaseException:
        """The one error that a group is about; a crash only where nothing else went wrong."""
        leaves = list(_leaves(group))
        others = [error for error in leaves if not isinstance(error, CrashError)]
        if not others:
            self.crashes += 1
        return others[0] if others else leaves[0]

    # Between processes.

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger, open. It need not survive the loss of power here."""
        if not self.ledger_path.exists():
            self.ledger_path.parent.mkdir(exist_ok=True)
            self.ledger_path.write_bytes(new_ledger())
        ledger = CrashingLedger.open(self.ledger_path)
        ledger.crash_points = self.crash_points
        ledger._connection.execute("PRAGMA synchronous = OFF")
        try:
            yield ledger
        finally:
            ledger.close()

    def let_tables_settle(self) -> None:
        """Let time pass until no clock can be so wrong that a table may have been made just now."""
        self.clock.let_pass(CLOCKS_DIFFER_SECONDS_MAX + self.settings.table_settle_seconds)

    def lose_ledger(self) -> None:
        """Delete the ledger."""
        shutil.rmtree(self.ledger_path.parent)
        self.invariants.ledger_lost()

    def copy_ledger(self) -> bytes:
        """What a backup of the ledger holds."""
        with self.ledger():
            pass
        return self.ledger_path.read_bytes()

    def put_ledger_back(self, copy: bytes) -> None:
        """Restore the ledger from a backup."""
        self.lose_ledger()
        self.ledger_path.parent.mkdir()
        self.ledger_path.write_bytes(copy)
        with self.ledger() as ledger:
            ledger.read(self.invariants.older_ledger_put_back)

    def release(self) -> int:
        """What ``retry --all`` does."""
        self.crash_points.restart()
        with self.ledger() as ledger:
            taken_up: int = ledger.write(lambda db: retry_runs(db, self.clock.now(), None))
        return taken_up

    def check(self) -> Overview:
        """Make sure that the ledger says nothing false, and return what it says."""
        with self.ledger() as ledger:
            return self.invariants.check_ledger(ledger)

    def check_everything_arrived(self) -> None:
        """Make sure that every record is one row, every file one object, and nothing else is there."""
        with self.ledger() as ledger:
            self.invariants.check_everything_arrived(ledger)

    def runs_left(self) -> dict[RunKey, str]:
        """Runs that are not synced yet, and can be."""
        with self.ledger() as ledger:
            return self.invariants.runs_left(ledger)

    def state_of(self, subject: StoredRun | StoredRecord) -> tuple[str, str]:
        """A run's state and cause by the ledger."""
        with self.ledger() as ledger:
            return self.invariants.state_of(ledger, subject)

    @property
    def port_calls(self) -> int:
        """How many calls both ports have seen."""
        return len(self.store.calls) + len(self.sink.calls)


@contextmanager
def virtual_changes() -> Iterator[None]:
    """Let mtime tell when files changed: it is the virtual clock's, and nobody can set the other time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (run_folder, tracking_file):
            patch.setattr(module, "changed_ns_of", lambda status: status.st_mtime_ns)
        yield


@contextmanager
def in_memory_folder() -> Iterator[Path]:
    """A folder for a machine, gone at the end; in memory where this computer has room for such."""
    memory = "/dev/shm"  # noqa: S108 - only made unpredictable names in
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@cache
def new_ledger() -> bytes:
    """A ledger that has just been made: to make it takes longer than a short scenario."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        Ledger.open(path).close()
        return path.read_bytes()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
