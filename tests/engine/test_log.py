"""What the log of `watch` says, and that it can be read."""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.local.watch import Changed
from pixaris_sync.text import counted
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.engine.test_follower import watch

HOUR_SECONDS = 3600.0
#: Two screens.
LINES_MAX = 2 * 50


class Log(logging.Handler):
    """What is logged at INFO and above, with the virtual time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(logging.INFO)
        self._clock = machine.clock
        self.lines: list[tuple[float, logging.LogRecord]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((self._clock.elapsed(), record))

    def with_words(self, words: str) -> list[tuple[float, str]]:
        return [(at, record.getMessage()) for at, record in self.lines if words in record.getMessage()]

    @property
    def text(self) -> str:
        return "\n".join(f"{at:8.1f} {record.levelname} {record.getMessage()}" for at, record in self.lines)


@pytest.fixture
def log(machine: Machine, caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    caplog.set_level("INFO", "pixaris_sync")
    handler, logger = Log(machine), logging.getLogger("pixaris_sync")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Day:
    """What is stored while an engine follows, and when its rows showed."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._send, self._receive = anyio.create_memory_object_stream[Changed](100)

    def follow(self, script: Callable[[], Awaitable[None]]) -> None:
        """Let an engine follow while `script` goes on."""

        async def changes() -> AsyncIterator[Changed]:
            yield Changed(everything=True)
            async for changed in self._receive:
                yield changed

        watch(self.machine, changes, script)
        self._send.close()
        self._receive.close()

    async def store(self, name: str, dataset: str = "d", **what: Any) -> StoredRun:
        """Store a run, of which the kernel tells."""
        run = self.machine.local.store(dataset=dataset, name=name, **what)
        await self._send.send(Changed(frozenset({run.key.dataset_key})))
        return run

    async def sleep(self, seconds: float) -> None:
        await self.machine.clock.sleep(seconds)


def subject(run: StoredRun) -> str:
    return str(run.key)


def synced_in(log: Log) -> int:
    """How many runs all lines together say to be synced."""
    records = [record for _, record in log.lines if record.getMessage().startswith("synced ")]
    return sum(getattr(record, "runs", 1) for record in records)


def test_an_hour_with_an_outage_is_told_on_two_screens(machine: Machine, log: Log) -> None:
    """Goal: the journal alone tells what was synced when, the outage once, and its end.

    Method: an hour in which a run comes each 100 seconds into one of three datasets, each known before.
    For 21 minutes nothing can be reached, and training goes on faster; one run is damaged.
    """
    datasets = ("a", "b", "c")
    for dataset in datasets:
        machine.local.store(dataset=dataset, name="old")
    machine.run_pass()
    machine.let_tables_settle()
    log.lines.clear()
    begun = machine.clock.elapsed()
    singles: list[tuple[float, StoredRun]] = []
    outage_runs: list[StoredRun] = []
    day = Day(machine)

    async def script() -> None:
        for number in range(9):
            await day.sleep(100)
            singles.append((machine.clock.elapsed(), await day.store(f"run{number}", datasets[number % 3])))
        await day.sleep(10)
        machine.cloud_faults.offline = True
        for number in range(210):
            outage_runs.append(await day.store(f"offline{number}", datasets[number % 3]))
            await day.sleep(6)
        machine.cloud_faults.offline = False
        await day.sleep(600)
        await day.store("damaged", "a", images=0)
        for number in range(8):
            await day.sleep(100)
            singles.append((machine.clock.elapsed(), await day.store(f"late{number}", datasets[number % 3])))
        await day.sleep(begun + HOUR_SECONDS + 5 - machine.clock.elapsed())

    day.follow(script)

    text = log.text
    assert len(log.lines) <= LINES_MAX, text
    assert max(len(line) for line in text.splitlines()) < 300
    # What was synced when.
    for at, run in singles:
        [(told_at, line)] = log.with_words(subject(run))
        assert at <= told_at < at + 5, text
        assert f"synced {subject(run)}: 2 files, " in line, text
    assert synced_in(log) == len(singles) + len(outage_runs), text
    # The outage, once, and its end.
    [(rests_at, rests)] = log.with_words(" rests: ")
    [(works_at, works)] = log.with_words(" again after ")
    first, after = 910 + begun, 910 + 1260 + begun
    assert first <= rests_at < first + 60, text
    assert after <= works_at <= after + machine.settings.retry_delay_seconds_max, text
    assert "it is tried again until it works" in rests
    assert f" again after {int((works_at - rests_at) / 60)} min" in works, text
    assert works.endswith(f"; {counted(len(outage_runs), 'run')} waited"), text
    # When everything was carried, at the start and after the outage.
    caught_up = [at for at, _ in log.with_words("caught up: nothing waits")]
    assert len(caught_up) == 2, text
    assert works_at <= caught_up[1] < works_at + 120, text
    # What somebody must act on, and the hour.
    [(_, quarantined)] = log.with_words("is quarantined: ")
    assert "_damaged is quarantined" in quarantined
    [(summed_up_at, summary)] = log.with_words("in the last hour: ")
    assert summed_up_at - begun < HOUR_SECONDS + 5
    assert summary.startswith("in the last hour: 227 runs, 454 files, "), text
    assert "synced; nothing waits; 1 needs attention: see `pixaris-sync status`" in summary, text
    assert {record.levelname for _, record in log.lines} == {"INFO", "WARNING", "ERROR"}


def test_an_idle_service_is_silent(machine: Machine, log: Log) -> None:
    """Goal: nothing happens, nothing is said. Method: six hours after a run that was synced before."""
    machine.local.store(name="old")
    machine.run_pass()
    log.lines.clear()
    day = Day(machine)

    day.follow(lambda: day.sleep(6 * HOUR_SECONDS))

    assert [record.getMessage() for _, record in log.lines] == ["caught up: nothing waits"]


def test_many_runs_are_a_line_a_minute(machine: Machine, log: Log) -> None:
    """Goal: catching up floods nothing. Method: for ten minutes a run comes every other second."""
    day = Day(machine)
    runs: list[StoredRun] = []

    async def script() -> None:
        while machine.clock.elapsed() < 600:
            runs.append(await day.store(f"run{len(runs):04}", f"d{len(runs) % 5}", images=1))
            await day.sleep(2)
        await day.sleep(100)

    day.follow(script)

    assert synced_in(log) == len(runs), log.text
    assert len(log.lines) < 40, log.text
    gathered = [text for _, text in log.with_words("synced ") if "more datasets" in text]
    assert len(gathered) >= 9, log.text
    assert all(" of p/d" in text and " and 2 more datasets" in text for text in gathered[1:]), log.text


def test_runs_in_one_trouble_are_told_once_and_counted(machine: Machine, log: Log) -> None:
    """Goal: of 400 runs of one cause the first is told, the others are counted.

    Method: 400 runs without images, a minute later one more; and one of another cause.
    """
    day = Day(machine)

    async def script() -> None:
        for number in range(400):
            await day.store(f"bad{number}", images=0)
        await day.sleep(70)
        await day.store("bad", images=0)
        run = machine.local.store(name="folderless")
        machine.local.forget_folder(run)
        await day.sleep(20)

    day.follow(script)

    told = [record for _, record in log.lines if record.levelno == logging.ERROR]
    lines = [record.getMessage() for record in told]
    assert len(lines) == 4, log.text
    assert "_bad0 is quarantined: " in lines[0], log.text
    assert lines[1].startswith("and 399 more are quarantined, the last p/d/"), log.text
    assert any("_folderless is quarantined: " in line for line in lines[2:]), log.text
    assert lines[3].startswith("and 1 more is quarantined, the last p/d/"), log.text


def test_a_project_that_is_away_is_told_once_and_its_return(machine: Machine, log: Log) -> None:
    """Goal: a folder that vanished is said once, whatever is in it, and its return.

    Method: a project with four datasets is away for ten minutes, as by a mount, then the results folder.
    """
    datasets = [f"d{number}" for number in range(4)]
    for dataset in datasets:
        machine.local.store(dataset=dataset)
    day = Day(machine)
    root = machine.local.root

    async def script() -> None:
        await day.sleep(30)
        for folder, hidden in ((root / "p", root.parent / "hidden"), (root, root.parent / "hidden")):
            folder.rename(hidden)
            folder.mkdir()
            await day.sleep(600)
            folder.rmdir()
            hidden.rename(folder)
            await day.sleep(600)

    day.follow(script)

    away = [text for _, text in log.with_words("rests until it is back")]
    back = [text for _, text in log.with_words("is back after")]
    assert [line.split(":")[0] for line in away] == [
        "cannot work in folder p",
        f"cannot work in folder {root}",
    ], log.text
    assert [line.split(" after ")[0] for line in back] == ["folder p is back", "the results folder is back"]
    assert all(" is back after 10 min" in line or " is back after 9 min" in line for line in back), log.text


def test_a_denial_is_for_somebody_to_act_on(machine: Machine, log: Log) -> None:
    """Goal: levels tell who acts. Method: the bucket denies, then is away; then credentials are refused."""
    machine.local.store(name="old")
    day = Day(machine)

    async def script() -> None:
        await day.sleep(30)
        for failure in (Failure.PERMISSION, Failure.TRANSIENT, Failure.CREDENTIALS):
            error = SyncError("upload", "object", str(failure), failure=failure)
            machine.store.fail_next("upload", error, times=10**6)
            await day.store(f"run of {failure}")
            await day.sleep(600)
            machine.store._faults.clear()
            await day.sleep(600)

    day.follow(script)

    words = (" rests: ", "is paused", " again after ")
    told = [
        (record.levelname, word) for _, record in log.lines for word in words if word in record.getMessage()
    ]
    assert told == [
        ("ERROR", " rests: "),
        ("INFO", " again after "),
        ("WARNING", " rests: "),
        ("INFO", " again after "),
        ("ERROR", "is paused"),
        ("INFO", " again after "),
    ], log.text


def test_a_start_without_network_is_one_outage(machine: Machine, log: Log) -> None:
    """Goal: the outage once, also where it was there before. Method: start offline, for twenty minutes."""
    machine.local.store(name="old")
    machine.cloud_faults.offline = True
    day = Day(machine)

    async def script() -> None:
        await day.sleep(1200)
        machine.cloud_faults.offline = False
        await day.sleep(600)

    day.follow(script)

    messages = [record.getMessage() for _, record in log.lines]
    assert len(messages) == 5, log.text
    assert messages[0].startswith("the bucket rests: ")
    assert messages[1].startswith("table ")
    assert re.search(r" again after 2\d min", messages[2]), log.text
    assert messages[3].startswith("synced p/d/")
    assert messages[4] == "caught up: nothing waits"
