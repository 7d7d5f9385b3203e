"""A training machine that stores runs, and a pixaris-sync on it that is killed again and again."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from tests.crash.standing import Standing, look_at
from tests.crash.truth import LocalTruth
from tests.crash.wire import Kind, Witness, kind_of
from tests.support.command_line import CommandLine
from tests.support.faulty_proxy import Answer, Fault, FaultyProxy, Moment, Weather
from tests.support.proxy import Request
from tests.support.stored_runs import picture, store_run

if TYPE_CHECKING:
    import subprocess

#: The project that all machines store runs in, so that they meet in one table.
SHARED_PROJECT = "team"
RESUMABLE_BYTES = 256 * 1024

#: Delays of the network stay well below the time for which a row in doubt is looked for before it is sent
#: again: a request that arrives later than that is beyond what anybody can promise.
DOUBT_SETTLE_SECONDS = 1.0
_FLAGS: Mapping[str, float] = {
    "resumable-threshold-bytes": RESUMABLE_BYTES,
    "chunk-bytes": RESUMABLE_BYTES,
    "request-timeout-seconds": 2,
    "job-timeout-seconds": 10,
    "retry-delay-seconds-min": 0.05,
    "retry-delay-seconds-max": 0.5,
    "doubt-settle-seconds": DOUBT_SETTLE_SECONDS,
    "table-settle-seconds": 0.5,
    "visibility-timeout-seconds": 5,
    "load-spacing-seconds": 0.2,
    "bulk-spacing-seconds": 0.2,
    "young-file-seconds": 1,
    "rescan-interval-seconds": 1,
    "upload-concurrency-limit": 8,
}
FLAGS = tuple(text for name, value in _FLAGS.items() for text in (f"--{name}", str(value)))

STORAGE_WEATHER = Weather(
    {
        Fault.RESET_CONNECTION: 0.02,
        Fault.LOST_REQUEST: 0.02,
        Fault.LOST_ANSWER: 0.03,
        Fault.SWALLOWED_REQUEST: 0.003,
        Fault.WITHHELD_ANSWER: 0.004,
        Fault.CUT_ANSWER: 0.02,
        Fault.DELAY: 0.05,
    }
)
WAREHOUSE_WEATHER = Weather(
    {
        Fault.RESET_CONNECTION: 0.02,
        Fault.LOST_REQUEST: 0.02,
        Fault.LOST_ANSWER: 0.05,
        Fault.SWALLOWED_REQUEST: 0.006,
        Fault.WITHHELD_ANSWER: 0.01,
        Fault.CUT_ANSWER: 0.03,
        Fault.DELAY: 0.08,
    },
    requests_between_outages=(40, 120),
)
#: Ends of a pass that is not killed: done, or work is left.
_ENDS = (0, 5)
#: A life that is to end by time: while the process starts, or so long after its first request.
_START_SECONDS = (0.05, 1.5)
_WORK_SECONDS = (0.01, 1.5)
#: How long a request or a write of the ledger is waited for, after the first request.
_PATIENCE_SECONDS = 2.0
#: A process that sends no request is ended after this time.
_SILENCE_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.003
_END_SECONDS = 60.0
_PAUSE_BETWEEN_RUNS_SECONDS = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Fate:
    """How a life begins and when it is to end: at the first of what is set, at the latest after `seconds`.

    Attributes:
        command: ``watch``, ``sync`` or ``backfill``.
        seconds: after the first request of this life, or after its start.
        from_start: after its start.
        requests: at a request of one of these kinds.
        moment: before it is served, or once it is.
        writes: at this change of the ledger's file.
        count: at the so-manieth such request or change.
    """

    command: str
    seconds: float
    from_start: bool = False
    requests: tuple[Kind, ...] = ()
    moment: Moment = Moment.ARRIVED
    writes: bool = False
    count: int = 1

    @property
    def is_timed(self) -> bool:
        """Whether nothing but time is to end it."""
        return not self.requests and not self.writes

    @property
    def trigger(self) -> str:
        """What is to end it, in words, if no request is."""
        if self.writes:
            return "ledger written"
        return "time after start" if self.from_start else "time after first request"


#: What a fate may wait for, and how many of it at most.
_OCCASIONS: tuple[tuple[tuple[Kind, ...], int], ...] = (
    ((Kind.UPLOAD,), 6),
    ((Kind.SESSION, Kind.CHUNK), 3),
    ((Kind.STREAM, Kind.LOAD), 3),
    ((Kind.STREAM, Kind.LOAD), 1),
    ((Kind.QUERY, Kind.OTHER), 4),
    ((Kind.QUERY,), 2),
)


def draw_fate(chance: random.Random) -> Fate:
    """Draw how a life goes."""
    command = chance.choices(("watch", "sync", "backfill"), (8, 1, 1))[0]
    kind = chance.choices(("start", "work", "request", "writes"), (2, 2, 8, 3))[0]
    if kind == "start":
        return Fate(command, chance.uniform(*_START_SECONDS), from_start=True)
    if kind == "work":
        return Fate(command, chance.uniform(*_WORK_SECONDS))
    if kind == "writes":
        return Fate(command, _PATIENCE_SECONDS, writes=True, count=chance.randint(1, 15))
    requests, count_max = chance.choice(_OCCASIONS)
    moment, count = chance.choice(list(Moment)), chance.randint(1, count_max)
    return Fate(command, _PATIENCE_SECONDS, requests=requests, moment=moment, count=count)


class Assassin:
    """Kills one process at the moment that its fate says; an observer of its proxies.

    Attributes:
        hit: why the process was killed; empty while it was not.
        first_request_at: when its first request arrived, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fate: Fate | None = None
        self._left = 0
        self._handle = -1
        self.hit = ""
        self.first_request_at: float | None = None

    def observe(self, moment: Moment, request: Request, _: Answer | None) -> None:
        """Look whether this is the moment."""
        with self._lock:
            fate = self._fate
            if self.first_request_at is None:
                self.first_request_at = time.monotonic()
            kind = kind_of(request)
            if fate is None or fate.moment is not moment or kind not in fate.requests:
                return
            self._left -= 1
            if self._left == 0:
                self._strike(f"{kind} {moment}")

    def strike(self, why: str) -> None:
        """Kill it now, unless that was done."""
        with self._lock:
            self._strike(why)

    def _strike(self, why: str) -> None:
        if self._handle >= 0 and not self.hit:
            # Another process may have its number by now: the handle means this one (pidfd_open(2)).
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                self.hit = why

    @contextmanager
    def after(self, process: "subprocess.Popen[str]", fate: Fate) -> Iterator[None]:
        """Be after a process while the context is open; it is dead afterwards."""
        with self._lock:
            self._handle, self._fate = os.pidfd_open(process.pid), fate
            self._left, self.hit, self.first_request_at = fate.count, "", None
        try:
            yield
        finally:
            self.strike("end")
            process.wait(_END_SECONDS)
            with self._lock:
                os.close(self._handle)
                self._handle, self._fate = -1, None


class Machine:
    """One results folder, one ledger, and the network of one machine; use as a context.

    Args:
        name: of the machine; in the names of its runs and of its own project.
        scratch: a folder of its own.
        environment: what points at the emulators.
        seed: of everything that is drawn.
        witness: sees its requests.

    Attributes:
        truth: what its folder says.
        kills: by what triggered them, how many kills there were.
        caught: by state, how many kills left files and rows in that state.
        ledgers_lost: how often its ledger was deleted.
        ended: exit codes of passes that were faster than their assassin.
        violations: what must never be.
        lives: one line for each, for the report of a failure.
    """

    def __init__(
        self, name: str, scratch: Path, environment: Mapping[str, str], seed: int, witness: Witness
    ) -> None:
        self.name = name
        self._chance = random.Random(f"{seed} {name} lives")  # noqa: S311 - tests need no secrecy
        self._assassin = Assassin()
        folder = scratch / "local_results"
        folder.mkdir(parents=True)
        self.truth = LocalTruth(folder)
        self._log = scratch / "process.log"

        def observe(moment: Moment, request: Request, answer: Answer | None) -> None:
            witness.observe(moment, request, answer)
            self._assassin.observe(moment, request, answer)

        self.storage = FaultyProxy(
            environment["STORAGE_EMULATOR_HOST"], f"{seed} {name} storage", STORAGE_WEATHER, observe
        )
        self.warehouse = FaultyProxy(
            environment["BIGQUERY_EMULATOR_HOST"], f"{seed} {name} warehouse", WAREHOUSE_WEATHER, observe
        )
        proxied = {"STORAGE_EMULATOR_HOST": self.storage.url, "BIGQUERY_EMULATOR_HOST": self.warehouse.url}
        self.command_line = CommandLine(folder, scratch / "state", {**environment, **proxied})
        self.writer = Writer(folder, name, seed)
        self._ledger_there = threading.Lock()
        self.kills: Counter[str] = Counter()
        self.caught: Counter[str] = Counter()
        self.ledgers_lost = 0
        self.ended: Counter[int] = Counter()
        self.violations: list[str] = []
        self.lives: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.storage)
            stack.enter_context(self.warehouse)
            self._proxies = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxies.close()

    def standing(self) -> Standing | None:
        """What its ledger says now."""
        with self._ledger_there:
            found = [stands for path in self.command_line.ledgers() if (stands := look_at(path))]
        assert len(found) <= 1
        return found[0] if found else None

    def live_and_die(self, kills: int) -> None:
        """Be started and killed until there were so many kills."""
        while sum(self.kills.values()) < kills and not self.violations:
            if self.kills and self._chance.random() < 0.08:
                self._lose_ledger()
            self._live(draw_fate(self._chance))
            self._question(also_ask=self._chance.random() < 0.1)

    def _lose_ledger(self) -> None:
        with self._ledger_there:
            self.command_line.forget_ledger()
        self.ledgers_lost += 1
        self.lives.append("the ledger is lost")

    def _live(self, fate: Fate) -> None:
        begun = time.monotonic()
        with self._log.open("a") as log:
            log.write(f"--- {len(self.lives)}: {fate}\n")
            log.flush()
            process = self.command_line.start(fate.command, *FLAGS, stdout=log, stderr=log)
        with self._assassin.after(process, fate):
            seen, left = self._ledger_stamp(), fate.count
            while process.poll() is None:
                if time.monotonic() >= self._ends_at(fate, begun):
                    self._assassin.strike(fate.trigger if fate.is_timed else "patience")
                    break
                if fate.writes and (stamp := self._ledger_stamp()) != seen:
                    seen, left = stamp, left - 1
                    if left == 0:
                        self._assassin.strike(fate.trigger)
                        break
                time.sleep(_LOOK_SECONDS)
        code = process.returncode
        if code == -signal.SIGKILL:
            self.kills[self._assassin.hit] += 1
        elif fate.command == "watch" or code not in _ENDS:
            self.violations.append(f"{fate.command} ended with {code}: {self.last_words()}")
        else:
            self.ended[code] += 1
        self.lives.append(f"{fate} ended with {code} after {time.monotonic() - begun:.2f} s")

    def _ends_at(self, fate: Fate, begun: float) -> float:
        worked_from = begun if fate.from_start else self._assassin.first_request_at
        latest = begun + _SILENCE_SECONDS_MAX
        return latest if worked_from is None else worked_from + fate.seconds

    def _ledger_stamp(self) -> tuple[int, int]:
        """Changes whenever a transaction is written: not yet committed perhaps, which is the point."""
        for path in self.command_line.state_dir.glob("*-wal"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                return status.st_size, status.st_mtime_ns
        return 0, 0

    def _question(self, *, also_ask: bool) -> None:
        """Make sure that what the dead process left is explained."""
        stands = self.standing()
        if stands is None:
            return
        self.violations += stands.unexplained
        for counts in (stands.overview.files, stands.overview.rows):
            self.caught.update({state: 1 for state, count in counts.items() if count})
        if also_ask:
            shown = self.command_line.status()
            if shown["runs"] != stands.overview.runs or shown["problems"]:
                self.violations.append(f"status says {shown}, the ledger {stands.overview}")

    def last_words(self) -> str:
        """The end of what its processes printed."""
        return "\n".join(self.log().splitlines()[-60:])

    def log(self) -> str:
        """All that its processes printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def heal(self) -> None:
        """Mend its network."""
        self.storage.heal()
        self.warehouse.heal()

    @property
    def fired(self) -> Counter[Fault]:
        """How often each fault of its network has happened."""
        return self.storage.fired + self.warehouse.fired


class Writer:
    """Stores runs with the real LocalExperimentHandler until it is told to stop.

    Attributes:
        stored: how many runs.
        failure: what ended it before its time.
    """

    def __init__(self, folder: Path, machine: str, seed: int) -> None:
        self._folder = folder
        self._machine = machine
        self._chance = random.Random(f"{seed} {machine} runs")  # noqa: S311 - tests need no secrecy
        self._ended = threading.Event()
        self.stored = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Store runs until `stop`."""
        try:
            while not self._ended.wait(self._chance.uniform(*_PAUSE_BETWEEN_RUNS_SECONDS)):
                self._store()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failure = error

    def stop(self) -> None:
        """No more runs."""
        self._ended.set()

    def _store(self) -> None:
        chance = self._chance
        own = chance.random() < 0.7
        project, dataset = (self._machine, chance.choice(("one", "two"))) if own else (SHARED_PROJECT, "all")
        name = f"{self._machine}-{self.stored:04d}"
        args: dict[str, Any] = {"marker": name, "seed": chance.getrandbits(40)}
        metrics: dict[str, Any] = {
            "score": chance.choice((chance.random(), chance.randint(0, 9), float("nan")))
        }
        images = self._images()
        kind = chance.random()
        if kind < 0.05:
            # Stored again at once: where both fall into one second, two equal records share a folder.
            self._store_one(name, project, dataset, images, metrics, args)
        elif kind < 0.25:
            args["mask"] = picture(chance.randrange(256))
        elif kind < 0.45:
            args["flow"] = {"steps": chance.randint(1, 50), "name": name}
        elif kind < 0.6:
            metrics["detail"] = {"parts": [chance.random() for _ in range(3)], "name": name}
        elif kind < 0.65:
            metrics[f"extra_{self.stored}"] = chance.choice((1, "text", 0.5, True))
        self._store_one(name, project, dataset, images, metrics, args)

    def _store_one(self, name: str, project: str, dataset: str, images: Any, metrics: Any, args: Any) -> None:
        store_run(
            self._folder, name, project=project, dataset=dataset, images=images, metrics=metrics, args=args
        )
        self.stored += 1

    def _images(self) -> list[tuple[Image.Image, str]]:
        chance = self._chance
        images = [(picture(chance.randrange(256)), f"{at}.png") for at in range(chance.randint(1, 3))]
        if chance.random() < 0.15:
            width, height = chance.choice(((400, 300), (640, 480)))
            noise = Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))
            images.append((noise, "large.png"))
        return images
