"""A machine whose network is away for a week while it goes on training."""

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import pytest

from pixaris_sync.local.watch import Changed
from pixaris_sync.pipeline import follower
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine
from tests.engine.request_meter import RequestMeter
from tests.support.proof_summary import Tell

HOUR_SECONDS = 3600.0
WEEK_SECONDS = 7 * 24 * HOUR_SECONDS
RUNS = int(os.environ.get("PIXARIS_SYNC_TEST_WEEK_RUNS", "2000"))
#: Training comes in bursts.
BURST_RUNS = 50
BURST_SECONDS = WEEK_SECONDS * BURST_RUNS / RUNS
#: Between two periodic looks, so that the test spends its time on other things.
RESCAN_SECONDS = 6 * HOUR_SECONDS
OLD_DATASETS, NEW_DATASET = ("d0", "d1", "d2"), "new"
LARGE_EVERY, LARGE_BYTES = 50, 300_000
#: In a week without network: its beginning, its end and little else are worth a message.
MESSAGES_MAX = 20
#: Turns of the event loop per hour: for a hundred processes' worth of polling it would be thousands.
STEPS_PER_HOUR_MAX = 4000


def store(machine: Machine, number: int) -> StoredRun:
    """Store the run of that number; every fourth in a dataset that is new in this week."""
    dataset = [*OLD_DATASETS, NEW_DATASET][number % 4]
    size = 0 if number % LARGE_EVERY else LARGE_BYTES
    values = {"score": number / 7, "steps": number}
    return machine.local.store("p", dataset, f"run{number:05}", images=1, image_bytes=size, values=values)


def overtaken_max(names: Sequence[str]) -> int:
    """How many newer (greater) names come after one of these, at most."""
    return max(sum(other > name for other in names[place:]) for place, name in enumerate(names))


class Week:
    """What happens beside the engine."""

    def __init__(self, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
        self._machine = machine
        self._caplog = caplog
        self._send, self._receive = anyio.create_memory_object_stream[Changed](1)
        self.first_upload = 0
        self.calls = self.messages = self.steps = 0
        self.drain_seconds = 0.0

    async def changes(self) -> AsyncIterator[Changed]:
        """What the kernel tells of."""
        with self._receive:
            async for changed in self._receive:
                yield changed

    async def script(self) -> None:
        """An hour with network, a week without, and as long with it again as it takes."""
        machine = self._machine
        with self._send:
            await self._tell([machine.local.store("p", dataset, "old", images=1) for dataset in OLD_DATASETS])
            await machine.clock.sleep(HOUR_SECONDS)
            assert self._arrived == len(OLD_DATASETS)
            self.first_upload = len(machine.store.uploads)
            calls, messages, steps = self._counts()
            machine.cloud_faults.offline = True
            for first in range(0, RUNS, BURST_RUNS):
                await self._tell([store(machine, number) for number in range(first, first + BURST_RUNS)])
                await machine.clock.sleep(BURST_SECONDS)
            machine.cloud_faults.offline = False
            self.calls, self.messages, self.steps = (
                now - then for now, then in zip(self._counts(), (calls, messages, steps), strict=True)
            )
            await self._drained()

    async def _drained(self) -> None:
        machine = self._machine
        patience_seconds = 2 * machine.settings.retry_delay_seconds_max
        begun = machine.clock.elapsed()
        with anyio.fail_after(patience_seconds):
            while self._arrived < RUNS + len(OLD_DATASETS):
                await machine.clock.sleep(1)
            # What was read back is written down.
            await machine.clock.sleep(1)
        self.drain_seconds = machine.clock.elapsed() - begun

    async def _tell(self, runs: Sequence[StoredRun]) -> None:
        await self._send.send(Changed(frozenset(run.key.dataset_key for run in runs)))

    def _counts(self) -> tuple[int, int, int]:
        return self._machine.port_calls, len(self._caplog.records), self._machine.clock.steps

    @property
    def _arrived(self) -> int:
        return sum(len(self._machine.sink.stored(table)) for table in self._machine.sink.tables)


def followed(machine: Machine, week: Week) -> Callable[[Engine], Awaitable[None]]:
    async def beside(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:

            async def keep_awake() -> None:
                await follower.follow(
                    engine, week.changes, clock=machine.clock, rescan_interval_seconds=RESCAN_SECONDS
                )

            tasks.start_soon(keep_awake)
            await week.script()
            tasks.cancel_scope.cancel()

    return beside


@pytest.mark.timeout(300)
def test_a_week_offline_drains_completely_newest_first_and_within_all_limits(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    """Goal: offline is a normal state: quiet while it lasts, and everything flows when it ends.

    Method: `watch` follows a folder in which runs are stored by the thousand while nothing can be reached for
    seven virtual days; then the network is back. Calls, messages and turns of the week are counted, the order
    of arrivals is read, and all that is asked of the cloud is measured.
    """
    monkeypatch.setattr(follower, "LEDGER_POLL_SECONDS", HOUR_SECONDS)
    caplog.set_level(logging.INFO, "pixaris_sync")
    machine = Machine(folder, inflight_bytes_limit=1024 * 1024)
    machine.cloud_faults.latency_seconds = 0.3
    machine.sink.visible_after_seconds = 2.0
    week = Week(machine, caplog)

    with RequestMeter(machine).measuring() as meter:
        machine.follow(followed(machine, week))

    machine.check_everything_arrived()
    meter.assert_within_limits()
    assert meter.uploads_max == machine.settings.upload_concurrency_limit
    assert set(machine.store.upload_counts.values()) == {1}
    assert_quiet(machine, week)
    assert_newest_first(machine, week)
    told = {"runs": RUNS, "calls in the week": week.calls, "messages": week.messages}
    tell("a week offline", {**told, "seconds to drain": int(week.drain_seconds)})


def assert_quiet(machine: Machine, week: Week) -> None:
    """The week cost what it had to: now and then a question whether the network is back."""
    assert machine.cloud_faults.fired["offline"] > 1000
    # Files and datasets that are new to the ledger ask each for themselves; jitter halves the pauses at most.
    pause_seconds_min = machine.settings.retry_delay_seconds_max / 2
    assert week.calls < 2 * WEEK_SECONDS / pause_seconds_min
    assert week.messages <= MESSAGES_MAX
    assert week.steps < STEPS_PER_HOUR_MAX * WEEK_SECONDS / HOUR_SECONDS


def assert_newest_first(machine: Machine, week: Week) -> None:
    """Nothing came before a newer run, but for what was in flight together or rested after a failure."""
    bound = 2 * machine.settings.upload_concurrency_limit
    uploads = [remote.name.split("/") for remote in machine.store.uploads[week.first_upload :]]
    assert overtaken_max([run for _, _, dataset, run, *_ in uploads if dataset in OLD_DATASETS]) <= bound
    assert overtaken_max([run for _, _, dataset, run, *_ in uploads if dataset == NEW_DATASET]) <= bound
    for table in machine.sink.tables:
        runs = [str(row.cells["experiment_run_name"]) for row in machine.sink.stored(table)]
        assert len(runs) >= RUNS // 4
        assert overtaken_max([run for run in runs if not run.endswith("_old")]) <= bound
