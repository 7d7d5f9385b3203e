"""One history from one seed: runs are stored, the cloud has bad days, processes end anywhere, ledgers get lost.

A history goes in epochs. In each, things happen to the local folder, the weather changes, and a process runs to
its end, to a crash, or for some time. After each, `Truth` is asked. At the end everything is mended and passes are
made until nothing is left: then every record must be one row, and every file one object.

What a history must not do, because nobody could know better: change a file that may have been uploaded without
anybody's knowledge (after a crash, a lost answer, or with the ledger lost). Such a file is quarantined, as the
object could be somebody else's; a person decides.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from pixaris_sync.errors import ConfigurationError, Failure, JobFailedError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.pipeline.engine import Engine
from tests.engine.clouds import BUCKET, CrashError
from tests.engine.local_folder import StoredRecord, StoredRun
from tests.engine.world import World

#: Datasets that share a table are among them.
DATASETS = (("p", "d"), ("p", "e"), ("a_b", "c"), ("a", "b_c"))
#: Kinds of instants to crash at, and within how many of them.
CRASHES = {"step": 400, "begin": 80, "commit": 80, "call": 40, "answer": 40}
PASSES_TO_MEND = 12
IMAGE = "generated_images/image0.png"


class History:
    """A history from a seed.

    Attributes:
        world: what it happens in.
        happened: how often each kind of fault or mischief has struck.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)
        self.happened: Counter[str] = Counter()
        self.world = World(
            folder,
            seed=seed,
            upload_concurrency_limit=self.random.choice([1, 4, 32]),
            stream_rows_limit=self.random.choice([2, 500]),
            load_rows_limit=self.random.choice([3, 10_000]),
        )
        self._names = 0
        self._mends: list[Callable[[], None]] = []
        self._torn: dict[tuple[str, str], StoredRecord] = {}

    @property
    def trace(self) -> list[object]:
        """Every call that the cloud has seen, to compare two histories."""
        return [*self.world.store.calls, *self.world.sink.calls, self.world.clock.elapsed_seconds]

    def run(self) -> None:
        """Let it happen, and make sure that all is true throughout and complete in the end."""
        for _ in range(self.random.randint(1, 4)):
            for _ in range(self.random.randint(1, 5)):
                self._mischief()
            self._change_weather()
            self._live()
            self.world.fuse.light("", 0)
            self.world.check()
            self._between_processes()
        self._mend()
        self.happened += self.world.weather.fired
        self.happened["swallowed"] += len(self.world.sink.swallowed)

    # -- the cloud ---------------------------------------------------------------------------------------

    def _change_weather(self) -> None:
        chance, world, weather = self.random, self.world, self.world.weather
        weather.latency_seconds = chance.choice([0.0, 0.2, 2.0])
        weather.chances = {
            kind: chance.choice([0.0, 0.0, 0.02, 0.15]) for kind in ("transient", "quota", "stall", "lost_answer")
        }
        weather.outages = {
            place for place in (BUCKET, *self._tables()) if chance.random() < 0.07
        }
        weather.credentials = chance.random() > 0.05
        sink = world.sink
        sink.dedup_seconds = chance.choice([0.0, 60.0])
        # Longer than the patience with a row in doubt, and nobody could tell it from a row never sent.
        sink.visible_after_seconds = chance.choice([0.0, 1.0, 10.0])
        sink.new_table_missing_seconds = chance.choice([0.0, 20.0])
        sink.new_table_swallows_seconds = chance.choice([0.0, 200.0])
        sink.new_column_unknown_seconds = chance.choice([0.0, 240.0])
        sink.refuse_rows_of = chance.choice([None] * 6 + ["run1", "run2"])
        for table in self._tables():
            sink.deny(table, chance.choice([None] * 12 + ["load", "stream", "create_table", "read_rows"]))
        for _ in range(chance.choice([0, 0, 0, 1, 3])):
            failure = chance.choice([Failure.TRANSIENT, Failure.QUOTA, Failure.PERMANENT])
            sink.fail_next_job(JobFailedError("load", "the table", "backendError", failure=failure))
            self.happened["job_failed"] += 1
        if chance.random() < 0.2:
            world.store.cut_session_after(chance.randint(1, 300_000))
            self.happened["cut_session"] += 1

    def _tables(self) -> list[str]:
        return sorted({f"{project}_{dataset}_experiment_results" for project, dataset in DATASETS})

    def _clear_weather(self) -> None:
        world = self.world
        world.weather.chances = {}
        world.weather.outages = set()
        world.weather.credentials = True
        world.sink.refuse_rows_of = None
        world.sink._job_faults.clear()
        for table in self._tables():
            world.sink.deny(table, None)

    # -- processes ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Run a process: a pass, or following for a while, perhaps to a crash."""
        chance, world = self.random, self.world
        if chance.random() < 0.5:
            kind = chance.choice(list(CRASHES))
            world.fuse.light(kind, chance.randint(1, CRASHES[kind]))
        try:
            if chance.random() < 0.3:
                world.follow(self._follow)
            else:
                world.run_pass(
                    bulk=chance.random() < 0.3, full=chance.random() < 0.2, attempts_limit=chance.choice([1, 3, 5])
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
                run = self._store()
                engine.look_at(run.key.dataset_key)
            elif event < 0.7:
                self._change_weather()
            elif event < 0.8:
                self._jump()
            elif event < 0.9:
                await engine.look_at_everything()

    def _jump(self) -> None:
        self.world.clock.jump(self.random.choice([-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0]))
        self.happened["clock_jump"] += 1

    def _between_processes(self) -> None:
        chance, world = self.random, self.world
        world.clock.let_pass(chance.choice([0.0, 0.0, 1.0, 70.0, 1000.0]))
        event = chance.random()
        if event < 0.15 and self._nothing_changed():
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
        for mend in self._mends:
            mend()
        for _ in range(PASSES_TO_MEND):
            self._clear_weather()
            world.release()
            left = world.run_pass()
            if not left.waiting and not left.stuck:
                break
            world.clock.let_pass(world.settings.young_file_seconds)
        world.check_everything_arrived()

    # -- the local folder --------------------------------------------------------------------------------

    def _mischief(self) -> None:
        """Let one thing happen to the local folder."""
        plain, rare = self._store, [
            self._share_folder,
            self._repeat_line,
            self._tear_line,
            self._store_without_line,
            self._damage_image,
            self._withhold_images,
            self._withhold_saved_file,
            self._change_image,
            self._copy_run,
            self._make_table_elsewhere,
        ]
        action = plain if self.random.random() < 0.5 else self.random.choice(rare)
        action()
        self.world.clock.let_pass(self.random.choice([0.0, 1.0, 30.0]))

    def _place(self) -> tuple[str, str]:
        place = self.random.choice(DATASETS)
        self._mend_line(place)
        return place

    def _name(self) -> str:
        self._names += 1
        return f"run{self._names}"

    def _values(self) -> dict[str, object]:
        chance = self.random
        choices: list[tuple[str, object]] = [
            ("score", chance.choice([1, 2.5, "high", True])),
            ("loss", chance.random()),
            ("curve", {"a": chance.random()}),
            ("steps", chance.randint(1, 9)),
            ("odd name", "x"),
        ]
        return dict(choice for choice in choices if chance.random() < 0.3)

    def _store(self) -> StoredRun:
        chance = self.random
        project, dataset = self._place()
        return self.world.local.store(
            project,
            dataset,
            self._name(),
            images=chance.randint(1, 3),
            image_bytes=chance.choice([0] * 9 + [300_000]),
            saved=["config.json"] if chance.random() < 0.3 else [],
            values=self._values(),
        )

    def _records(self) -> list[StoredRecord]:
        return self.world.local.records

    def _share_folder(self) -> None:
        """A second record for a run's folder."""
        if self._records():
            run = self.random.choice(self._records()).run
            self._mend_line((run.key.project, run.key.dataset))
            values = {key: value for key, value in self._values().items() if key != "curve"}
            self.world.local.commit(run, values)
            self.happened["shared_folder"] += 1

    def _repeat_line(self) -> None:
        if self._records():
            record = self.random.choice(self._records())
            self._mend_line((record.run.key.project, record.run.key.dataset))
            self.world.local.repeat_line(record)
            self.happened["equal_lines"] += 1

    def _tear_line(self) -> None:
        """A line of which only the beginning is there, until the next one comes."""
        place = self._place()
        run = self.world.local.store(*place, self._name(), commit=False)
        self._torn[place] = self.world.local.commit(run, torn_bytes=20)
        self._mends.append(lambda: self._mend_line(place))
        self.happened["torn_line"] += 1

    def _mend_line(self, place: tuple[str, str]) -> None:
        if stored := self._torn.pop(place, None):
            self.world.local.mend_line(stored, 20)

    def _store_without_line(self) -> None:
        project, dataset = self._place()
        run = self.world.local.store(project, dataset, self._name(), commit=False)

        def mend() -> None:
            self._mend_line((project, dataset))
            self.world.local.commit(run)

        self._mends.append(mend)
        self.happened["no_line"] += 1

    def _damage_image(self) -> None:
        project, dataset = self._place()
        run = self.world.local.store(project, dataset, self._name(), commit=False)
        run.versions[IMAGE].clear()
        self.world.local.put_damaged_image(run, IMAGE)
        self.world.local.commit(run)
        self._mends.append(lambda: self.world.local.put_image(run, IMAGE))
        self.happened["damaged_image"] += 1

    def _withhold_images(self) -> None:
        run = self.world.local.store(*self._place(), self._name(), images=0)
        run.versions[IMAGE] = []
        self._mends.append(lambda: self.world.local.put_image(run, IMAGE))
        self.happened["missing_images"] += 1

    def _withhold_saved_file(self) -> None:
        run = self.world.local.store(*self._place(), self._name(), saved=["config.json"])
        path = self.world.local.path(run, "config.json")
        content = path.read_bytes()
        path.unlink()
        self._mends.append(lambda: self.world.local.put(run, "config.json", content))
        self.happened["missing_file"] += 1

    def _change_image(self) -> None:
        """Replace an image of which it is known what the bucket holds."""
        known = self._known_files()
        if known:
            run, path = self.random.choice(known)
            self.world.local.put_image(run, path, size=self.random.choice([0, 50]))
            # A file changed in place is seen by full passes; a new stamp of its folder shows it to all.
            self.happened["changed_image"] += 1

    def _known_files(self) -> list[tuple[StoredRun, str]]:
        with self.world.ledger() as ledger:
            uploaded = _uploaded_files(ledger)
        return [
            (record.run, IMAGE)
            for record in self._records()
            if record.run.object_name(IMAGE) in uploaded and self._is_current(record.run, IMAGE)
        ]

    def _is_current(self, run: StoredRun, path: str) -> bool:
        stored = self.world.store.objects.get(run.object_name(path))
        return stored is not None and bool(run.versions[path]) and stored.content == run.versions[path][-1]

    def _nothing_changed(self) -> bool:
        """Whether each object holds its file's newest version."""
        return all(
            run.object_name(path) not in self.world.store.objects or self._is_current(run, path)
            for run in self.world.local.runs
            for path in run.versions
        )

    def _copy_run(self) -> None:
        """Copy a run into another project, line and all."""
        plain = [record for record in self._records() if "config" not in record.values]
        whole = [record for record in plain if all(record.run.versions.values())]
        if not whole:
            return
        record = self.random.choice(whole)
        if self.world.local.copy(record, *self._place()):
            self.happened["copied_run"] += 1

    def _make_table_elsewhere(self) -> None:
        """Somebody else makes a table just now: streaming may swallow rows, and we do not know."""
        table = self.random.choice(self._tables())
        if table not in self.world.sink.tables:
            self.world.sink.make_plain_table(table)
            self.happened["foreign_table"] += 1


def _uploaded_files(ledger: Ledger) -> set[str]:
    found: set[str] = ledger.read(
        lambda db: {
            f"results/{row['project']}/{row['dataset']}/{row['name']}/{row['path']}"
            for row in db.execute(
                "SELECT d.project, d.dataset, r.name, f.path FROM files f JOIN runs r ON r.id = f.run_id"
                " JOIN datasets d ON d.id = r.dataset_id WHERE f.state = 'uploaded'"
            )
        }
    )
    return found


