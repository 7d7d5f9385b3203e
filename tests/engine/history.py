"""One history from one seed: runs are stored, the cloud has bad days, processes end anywhere, ledgers go.

A history goes in epochs. In each, things happen to the local folder, the weather changes, and a process runs
to its end, to a crash, or for some time. After each, `Truth` is asked. At the end everything is mended and
passes are made until nothing is left: then every record must be one row, and every file one object.

What a history must not do, because nobody could know better: change a file that may have been uploaded
without anybody's knowledge (after a crash, a lost answer, or with the ledger lost). Such a file is
quarantined, as the object could be somebody else's; a person decides.
"""

from collections import Counter
from pathlib import Path
from random import Random

from pixaris_sync.errors import ConfigurationError, Failure, JobFailedError
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from tests.engine.fuse import CrashError
from tests.engine.mischief import TABLES, Mischief
from tests.engine.weather import BUCKET
from tests.engine.world import World

#: Kinds of instants to crash at, and within how many of them.
CRASHES = {
    "step": 200,
    "begin": 50,
    "commit": 50,
    "call": 25,
    "answer": 25,
    "upload": 15,
    "load": 4,
    "stream": 2,
}
PASSES_TO_MEND = 12


class History:
    """A history from a seed.

    Attributes:
        world: what it happens in.
        happened: how often each kind of fault or mischief has struck.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
        self.happened: Counter[str] = Counter()
        self.world = World(
            folder,
            seed=seed,
            upload_concurrency_limit=self.random.choice([1, 4, 32]),
            stream_rows_limit=self.random.choice([2, 500]),
            load_rows_limit=self.random.choice([3, 10_000]),
            table_settle_seconds=self.random.choice([5.0, 300.0]),
        )
        self._mischief = Mischief(self.world, self.random)

    @property
    def trace(self) -> list[object]:
        """Every call that the cloud has seen, to compare two histories."""
        return [*self.world.store.calls, *self.world.sink.calls, self.world.clock.elapsed_seconds]

    def run(self) -> None:
        """Let it happen, and make sure that all is true throughout and complete in the end."""
        if self.random.random() < 0.7:
            self._settle_tables()
        for _ in range(self.random.randint(1, 4)):
            for _ in range(self.random.randint(1, 5)):
                self._mischief.happen()
            self._change_weather()
            self._live()
            self.world.fuse.light("", 0)
            self.world.check()
            self._between_processes()
        self._mend()
        self.happened += self.world.weather.fired + self._mischief.happened
        self.happened["swallowed"] += len(self.world.sink.swallowed)

    def _settle_tables(self) -> None:
        """Let tables be there for long, with all columns but one: rows go by stream from now on."""
        self._mischief.settle_tables()
        self.world.run_pass()
        self.world.clock.let_pass(self.world.settings.table_settle_seconds)

    # -- the cloud ---------------------------------------------------------------------------------------

    def _change_weather(self) -> None:
        chance, world, weather = self.random, self.world, self.world.weather
        weather.latency_seconds = chance.choice([0.0, 0.2, 0.2, 2.0])
        weather.chances = {
            kind: chance.choice([0.0, 0.0, 0.02, 0.15]) for kind in ("transient", "quota", "stall")
        }
        weather.chances["lost_answer"] = chance.choice([0.0, 0.05, 0.3])
        weather.outages = {place for place in (BUCKET, *TABLES) if chance.random() < 0.07}
        weather.credentials = chance.random() > 0.05
        world.store.list_denied = chance.random() < 0.1
        sink = world.sink
        sink.dedup_seconds = chance.choice([0.0, 60.0])
        # Longer than the patience with a row in doubt, and nobody could tell it from a row never sent.
        sink.visible_after_seconds = chance.choice([0.0, 1.0, 10.0])
        settled = world.settings.table_settle_seconds
        sink.new_table_missing_seconds = chance.choice([0.0, 0.1 * settled])
        sink.new_table_swallows_seconds = chance.choice([0.0, 0.6 * settled])
        sink.new_column_unknown_seconds = chance.choice([0.0, 0.8 * settled])
        sink.refuse_rows_of = chance.choice([None] * 6 + ["run1", "run2"])
        for table in TABLES:
            sink.deny(table, chance.choice([None] * 12 + ["load", "stream", "create_table", "read_rows"]))
        for _ in range(chance.choice([0, 0, 0, 1, 3])):
            failure = chance.choice([Failure.TRANSIENT, Failure.QUOTA, Failure.PERMANENT])
            sink.fail_next_job(JobFailedError("load", "the table", "backendError", failure=failure))
            self.happened["job_failed"] += 1
        if chance.random() < 0.2:
            world.store.cut_session_after(chance.randint(1, 300_000))
            self.happened["cut_session"] += 1

    def _clear_weather(self) -> None:
        world = self.world
        world.weather.chances = {}
        world.store.list_denied = False
        world.weather.outages = set()
        world.weather.credentials = True
        world.sink.refuse_rows_of = None
        world.sink._job_faults.clear()
        for table in TABLES:
            world.sink.deny(table, None)

    # -- processes ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Run a process: a pass, or following for a while, perhaps to a crash."""
        chance, world = self.random, self.world
        if chance.random() < 0.5:
            kind = chance.choice([*CRASHES, "stream", "stream", "stream", "load"])
            world.fuse.light(kind, chance.randint(1, chance.choice([8, CRASHES[kind]])))
        try:
            if chance.random() < 0.3:
                world.follow(self._follow)
            else:
                world.run_pass(
                    bulk=chance.random() < 0.3,
                    full=chance.random() < 0.2,
                    attempts_limit=chance.choice([1, 3, 5]),
                )
        except CrashError as crash:
            self.happened[f"crash_at_{crash}"] += 1
        except ConfigurationError as error:
            if error.failure is not Failure.CREDENTIALS:
                raise
            self.happened["pass_without_credentials"] += 1

    async def _follow(self, engine: Engine) -> None:
        """What happens beside a following engine."""
        chance, world = self.random, self.world
        for _ in range(chance.randint(1, 5)):
            await world.clock.sleep(chance.choice([0.5, 30.0, 400.0]))
            event = chance.random()
            if event < 0.5:
                run = self._mischief.store()
                engine.scan_soon(run.key.dataset_key)
            elif event < 0.7:
                self._change_weather()
            elif event < 0.8:
                self._jump()
            elif event < 0.9:
                await engine.scan_all_soon(chance.choice(list(ScanDepth)))

    def _jump(self) -> None:
        self.world.clock.jump(self.random.choice([-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0]))
        self.happened["clock_jump"] += 1

    def _between_processes(self) -> None:
        chance, world = self.random, self.world
        world.clock.let_pass(chance.choice([0.0, 0.0, 1.0, 70.0, 1000.0]))
        event = chance.random()
        if event < 0.15 and self._mischief.nothing_changed():
            world.lose_ledger()
            self.happened["lost_ledger"] += 1
        elif event < 0.25:
            self._jump()
        elif event < 0.35:
            world.store.expire_sessions()
            self.happened["expired_session"] += 1
        elif event < 0.45:
            world.release()

    def _mend(self) -> None:
        """Let all be well, and pass until nothing is left."""
        world = self.world
        self._mischief.mend()
        for _ in range(PASSES_TO_MEND):
            self._clear_weather()
            world.release()
            left = world.run_pass()
            if not left.waiting and not left.quarantined:
                break
            world.clock.let_pass(world.settings.young_file_seconds)
        world.check_everything_arrived()
