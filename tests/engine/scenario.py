"""One scenario from one seed: whatever happens to folder, ledger and cloud, and to the process.

A scenario has several rounds. In each, things happen to the local folder, others change the cloud, its faults
change, and a process runs to its end, to a crash, or for some time. After each, the `Invariants` are checked.
At the end everything is mended and passes are made until nothing is left: then every record must be one row,
and every file one object, but for what others removed.

What a scenario must not do, because nobody could know better: change a file that may have been uploaded
without anybody's knowledge (after a crash, a lost answer, or with the ledger lost). Such a file is
quarantined, as the object could be somebody else's; a person decides. For the same reason no ledger is lost
or replaced while a request is still on its way of which neither bucket nor table tells, and no answer is lost
while the rows are hidden that would tell.
"""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

from pixaris_sync.errors import ConfigurationError, Failure, JobFailedError
from pixaris_sync.ledger.overview import Overview
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, RunKey, RunState
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.rules.contract import run_and_path, table_id
from tests.engine.cloud_faults import BUCKET, SHARED_TROUBLES
from tests.engine.cloud_faults import TABLES as ALL_TABLES
from tests.engine.crash_points import CrashError
from tests.engine.folder_faults import DATASETS, TABLES, FolderFaults
from tests.engine.machine import Machine
from tests.engine.others import Others

#: Kinds of instants to crash at, and within how many of them.
CRASHES = {
    "step": 200,
    "begin": 50,
    "commit": 50,
    "call": 25,
    "answer": 25,
    "upload": 15,
    "load": 4,
    "queued": 2,
    "stream": 2,
}
PASSES_TO_MEND = 12
#: How many passes are of a part.
SELECTED_PASSES = 0.4
#: What passes of a part select: of each kind of pattern some.
SELECTIONS: list[dict[str, tuple[str, ...]]] = [
    {"projects": ("p",)},
    {"projects": ("a*",), "datasets": ("*c",)},
    {"runs": ("*1*", "p/e/*")},
    {"runs": ("20*",), "exclude": ("*2", "a/*")},
    {"exclude": ("p/d", "*run1")},
]
#: A table counts as new for two days after it was made; see `ledger.rows.note_table`.
#: Google takes no credentials of a clock that is further off, by far.
CLOCK_ERROR_SECONDS_MAX = 1.5 * 86400.0
#: To restore a backup takes longer than any request is on its way.
RESTORE_SECONDS = 60.0


class Scenario:
    """A scenario from a seed.

    Attributes:
        machine: what it happens to.
        fired: how often each kind of fault has fired.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
        self._of_troubles = Random(f"troubles of {seed}")  # noqa: S311 - the same
        self._of_pauses = Random(f"pauses of {seed}")  # noqa: S311 - the same
        #: How likely a pause is, whenever there may be one: in most scenarios nobody asks for any.
        self._pause_chance = 0.4 if self._of_pauses.random() < 0.3 else 0.0
        self._of_selections = Random(f"selections of {seed}")  # noqa: S311 - the same
        self._of_stops = Random(f"stops of {seed}")  # noqa: S311 - the same
        self.fired: Counter[str] = Counter()
        self.machine = Machine(
            folder,
            seed=seed,
            upload_concurrency_limit=self.random.choice([1, 4, 32]),
            stream_rows_limit=self.random.choice([2, 500]),
            load_rows_limit=self.random.choice([3, 10_000]),
            table_settle_seconds=self.random.choice([5.0, 300.0]),
        )
        self._others = Others(self.machine, self.random)
        self._folder_faults = FolderFaults(self.machine, self.random, self._others)
        self._copies: list[bytes] = []

    @property
    def trace(self) -> list[object]:
        """Every call that the cloud has seen, to compare two scenarios."""
        return [*self.machine.store.calls, *self.machine.sink.calls, self.machine.clock.elapsed_seconds]

    def run(self) -> None:
        """Let it happen, and make sure that all is true throughout and complete in the end."""
        if self.random.random() < 0.8:
            self._settle_tables()
        for _ in range(self.random.randint(1, 4)):
            for _ in range(self.random.randint(1, 5)):
                self._folder_faults.happen()
            for _ in range(self.random.choice([0, 0, 1, 2])):
                self._others.happen()
            self._change_cloud()
            if self.random.random() < 0.15:
                self._others.hide_rows()
            self._run_process()
            self.machine.crash_points.arm("", 0)
            self._nothing_that_passes_condemns(self.machine.check())
            self._between_processes()
        self._mend()
        self.fired += self.machine.cloud_faults.fired + self._folder_faults.fired + self._others.fired
        self.fired["swallowed"] += len(self.machine.sink.swallowed)
        self.fired["refused_update"] += self.machine.sink.refused_updates.total()

    def _settle_tables(self) -> None:
        """Let tables be there for long, with all columns but one: rows go by stream from now on."""
        self._folder_faults.settle_tables()
        self.machine.run_pass()
        self.machine.let_tables_settle()

    # -- the cloud ---------------------------------------------------------------------------------------

    def _change_cloud(self) -> None:
        chance, machine, cloud_faults = self.random, self.machine, self.machine.cloud_faults
        cloud_faults.latency_seconds = chance.choice([0.0, 0.2, 0.2, 2.0])
        cloud_faults.chances = {
            kind: chance.choice([0.0, 0.0, 0.02, 0.15]) for kind in ("transient", "quota", "stall")
        }
        cloud_faults.chances["lost_answer"] = chance.choice([0.0, 0.05, 0.3])
        cloud_faults.chances["held_back"] = chance.choice([0.0, 0.0, 0.05, 0.3])
        cloud_faults.chances["break_down"] = 0.5
        cloud_faults.outages = {place for place in (BUCKET, *TABLES) if chance.random() < 0.07}
        cloud_faults.credentials = chance.random() > 0.05
        for half in (BUCKET, ALL_TABLES):
            if self._of_troubles.random() < 0.15:
                until = machine.clock.elapsed_seconds + self._of_troubles.choice([2.0, 60.0, 1000.0])
                cloud_faults.shared[half] = (self._of_troubles.choice(list(SHARED_TROUBLES)), until)
        machine.store.list_denied = chance.random() < 0.1
        machine.store.listings_without_checksums = chance.random() < 0.3
        sink = machine.sink
        sink.dedup_seconds = chance.choice([0.0, 60.0])
        # Longer than the patience with a row in doubt, and nobody could tell it from a row never sent.
        sink.visible_after_seconds = chance.choice([0.0, 1.0, 10.0])
        settled = machine.settings.table_settle_seconds
        sink.new_table_missing_seconds = chance.choice([0.0, 0.0, 0.1 * settled])
        sink.new_table_swallows_seconds = chance.choice([0.0, 0.6 * settled, 0.6 * settled])
        sink.new_column_unknown_seconds = chance.choice([0.0, 0.8 * settled])
        sink.load_queued_seconds = chance.choice([0.0, 0.0, 3.0, 90.0, 300.0])
        sink.refuse_rows_of = chance.choice([None] * 6 + ["run1", "run2"])
        for table in TABLES:
            sink.deny(
                table,
                chance.choice([None] * 12 + ["load", "stream", "create_table", "read_rows", "count_rows"]),
            )
        for _ in range(chance.choice([0, 0, 0, 1, 3])):
            failure = chance.choice([Failure.TRANSIENT, Failure.QUOTA, Failure.PERMANENT])
            sink.fail_next_job(JobFailedError("load", "the table", "backendError", failure=failure))
            self.fired["job_failed"] += 1
        if chance.random() < 0.2:
            machine.store.cut_session_after(chance.randint(1, 300_000))
            self.fired["cut_session"] += 1

    def _clear_cloud(self) -> None:
        machine = self.machine
        machine.cloud_faults.chances = {}
        machine.store.list_denied = False
        machine.cloud_faults.outages = set()
        machine.cloud_faults.away_until.clear()
        machine.cloud_faults.shared.clear()
        machine.cloud_faults.credentials = True
        machine.sink.refuse_rows_of = None
        machine.sink.load_queued_seconds = 0.0
        self._others.show_rows()
        machine.sink._job_faults.clear()
        for table in TABLES:
            machine.sink.deny(table, None)

    # -- processes ---------------------------------------------------------------------------------------

    def _run_process(self) -> None:
        """Run a process: a pass, or following for a while, perhaps to a crash."""
        chance, machine = self.random, self.machine
        if chance.random() < 0.5 and not machine.sink.hidden:
            often = ("begin", "commit", "commit", "stream", "stream", "stream", "load", "queued", "queued")
            kind = chance.choice([*CRASHES, *often])
            machine.crash_points.arm(kind, chance.randint(1, chance.choice([8, CRASHES[kind]])))
        try:
            if chance.random() < 0.5:
                self._serve()
            else:
                away = self._folder_faults.away(None, nothing_left=False)
                with away if chance.random() < 0.05 else nullcontext():
                    self._pass()
        except CrashError as crash:
            self.fired[f"crash_at_{crash}"] += 1
        except ConfigurationError as error:
            if error.failure is Failure.CREDENTIALS:
                self.fired["pass_without_credentials"] += 1
            elif error.failure is not Failure.PERMISSION:
                raise

    def _serve(self) -> None:
        """Follow for a while; now and then carry all before the end, as far as there is time for it."""
        finish_seconds = self._of_stops.choice([0.0, 0.0, 10.0, 1000.0])
        self.machine.follow(self._follow, finish_seconds=finish_seconds)
        self.fired["finished"] += bool(finish_seconds)

    def _pass(self) -> None:
        """A pass, now and then of a part: then nothing of the others is touched."""
        chance, machine = self.random, self.machine
        part: dict[str, Any] = {}
        if self._of_selections.random() < SELECTED_PASSES:
            part = self._of_selections.choice(SELECTIONS)
        selection = Selection(**part)
        uploads, rows = len(machine.store.calls), len(machine.sink.calls)
        try:
            machine.run_pass(
                bulk=chance.random() < 0.3,
                full=chance.random() < 0.2,
                attempts_limit=chance.choice([1, 3, 5]),
                beside=self._pause_for_a_while if self._pauses() else None,
                **part,
            )
        finally:
            if part:
                self.fired["selection"] += 1
                self._nothing_else_was_touched(selection, uploads, rows)

    def _nothing_else_was_touched(self, selection: Selection, uploads: int, rows: int) -> None:
        """Of what was sent since so many calls, nothing is of a run that is not selected."""
        machine = self.machine
        for sent in machine.store.calls[uploads:]:
            if sent.method in ("upload", "upload_resumable"):
                project, dataset, _ = sent.name.removeprefix("results/").split("/", 2)
                found = run_and_path(DatasetKey(project, dataset), sent.name)
                assert found is not None
                assert selection.takes(RunKey(project, dataset, found[0])), (selection, sent)
        keys = [DatasetKey(project, dataset) for project, dataset in DATASETS]
        sendable = {table_id(key) for key in keys if selection.takes_dataset(key)}
        left_out = {table_id(key) for key in keys} - sendable
        for call in machine.sink.calls[rows:]:
            assert call.method not in ("stream", "load") or call.table not in left_out, (selection, call)

    def _nothing_that_passes_condemns(self, found: Overview) -> None:
        """No run is quarantined for what denies everything alike, or one method of a table."""
        condemned = [
            problem
            for problem in found.problems
            if problem.state == RunState.QUARANTINED and ": 403" in problem.cause
        ]
        assert not condemned, condemned

    async def _follow(self, engine: Engine) -> None:
        """What happens beside a following engine."""
        chance, machine = self.random, self.machine
        for _ in range(chance.randint(1, 5)):
            await self._perhaps_pause(engine)
            await machine.clock.sleep(chance.choice([0.5, 30.0, 400.0]))
            event = chance.random()
            if event < 0.45:
                engine.scan_soon(self._folder_faults.store().key.dataset_key)
            elif event < 0.57:
                self._change_cloud()
            elif event < 0.6:
                await self._renew_credentials()
            elif event < 0.65:
                self._jump()
            elif event < 0.9:
                # Whatever others do, what is sent right afterwards meets it.
                (self._others.recreate_table if event < 0.78 else self._others.happen)()
                for place in DATASETS:
                    engine.scan_soon(self._folder_faults.store(place).key.dataset_key)
            elif event < 0.94:
                await self._folder_faults.copy_in(engine.scan_soon)
            elif event < 0.98:
                strike = self._folder_faults.vanish if event < 0.965 else self._folder_faults.starve
                await strike(engine)
            else:
                await engine.scan_all_soon(chance.choice(list(ScanDepth)))
        await self._perhaps_pause(engine, at_end=True)

    def _pauses(self) -> bool:
        return self._of_pauses.random() < self._pause_chance

    async def _perhaps_pause(self, engine: Engine, *, at_end: bool = False) -> None:
        """Seldom, somebody pauses the work; `at_end`: it is told to end in the middle of that."""
        if not self._pauses():
            return
        if not at_end:
            await self._pause_for_a_while(engine)
            return
        engine.context.hold.begin(self.machine.clock.now())
        self.fired["paused_at_end"] += 1
        await self.machine.clock.sleep(self._of_pauses.choice([0.0, 0.3, 20.0]))

    async def _pause_for_a_while(self, engine: Engine) -> None:
        """Somebody pauses the work, at any instant; once nothing is under way, nothing is asked for."""
        chance, machine, hold = self._of_pauses, self.machine, engine.context.hold
        await machine.clock.sleep(chance.choice([0.0, 0.01, 0.1, 0.3, 2.0, 30.0]))
        hold.begin(machine.clock.now())
        self.fired["paused"] += 1
        await machine.clock.sleep(chance.choice([0.0, 0.2, 4.0, 10.0]))
        length = chance.choice([0.0, 5.0, 600.0])
        if not hold.under_way:
            calls = machine.port_calls
            await machine.clock.sleep(length)
            assert machine.port_calls == calls, "something was asked for during a pause"
        else:
            await machine.clock.sleep(length)
        hold.end()

    async def _renew_credentials(self) -> None:
        """Credentials expire, and somebody renews them while the engine follows."""
        machine, cloud_faults = self.machine, self.machine.cloud_faults
        refused = cloud_faults.fired["credentials"]
        cloud_faults.credentials = False
        await machine.clock.sleep(self.random.choice([30.0, 4000.0]))
        cloud_faults.credentials = True
        self.fired["renewed_credentials"] += cloud_faults.fired["credentials"] > refused
        await machine.clock.sleep(400.0)

    def _jump(self) -> None:
        """Set the clock; it is never further from the service's than `CLOCK_ERROR_SECONDS_MAX`."""
        clock = self.machine.clock
        error = clock.now() - self.machine.sink.clock.now()
        jumps = (-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0)
        allowed = [seconds for seconds in jumps if abs(error + seconds) < CLOCK_ERROR_SECONDS_MAX]
        clock.jump(self.random.choice(allowed))
        self.fired["clock_jump"] += 1

    def _between_processes(self) -> None:
        chance, machine = self.random, self.machine
        machine.clock.let_pass(chance.choice([0.0, 0.0, 1.0, 70.0, 1000.0]))
        if chance.random() < 0.4:
            self._others.show_rows()
        if chance.random() < 0.4:
            self._copies.append(machine.copy_ledger())
        event = chance.random()
        if event < (0.6 if machine.sink.queued else 0.2):
            self._lose_ledger()
        elif event < 0.3:
            self._jump()
        elif event < 0.4:
            machine.store.expire_sessions()
            self.fired["expired_session"] += 1
        elif event < 0.5:
            machine.release()
        elif event < 0.65:
            self._put_ledger_back()

    def _lose_ledger(self) -> None:
        """Lose the ledger; at the same time others may have been at work."""
        machine = self.machine
        if machine.sink.hidden or not self._is_told():
            return
        if machine.sink.requests_under_way() and self._folder_faults.something_removed:
            return
        machine.lose_ledger()
        self.fired["lost_ledger"] += 1
        if self.random.random() < 0.5 and not machine.sink.requests_under_way():
            for _ in range(self.random.randint(1, 3)):
                self._others.happen()
            self.fired["lost_ledger_and_more"] += 1

    def _is_told(self) -> bool:
        """Whether bucket and tables tell all that the ledger knows of files and rows."""
        return self._folder_faults.nothing_changed() and self._others.all_told_apart()

    def _put_ledger_back(self) -> None:
        machine = self.machine
        if not self._copies or machine.sink.hidden or not self._is_told():
            return
        machine.clock.let_pass(RESTORE_SECONDS)
        if not machine.sink.requests_under_way():
            machine.put_ledger_back(self.random.choice(self._copies))
            self.fired["older_ledger"] += 1

    def _mend(self) -> None:
        """Let all be well, and pass until nothing is left."""
        machine = self.machine
        self._folder_faults.mend()
        for _ in range(PASSES_TO_MEND):
            self._clear_cloud()
            machine.release()
            machine.run_pass()
            if not machine.runs_left():
                break
            machine.clock.let_pass(machine.settings.young_file_seconds)
        machine.check_everything_arrived()
