"""Following: what wakes the engine, and what it costs while nothing happens."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.retry import retry_runs
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.local.watch import Changed
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.discovery import Discovery, ScanDepth
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.follower import EVERYTHING_SECONDS, POLL_SECONDS, follow
from tests.engine.machine import Machine

Changes = Callable[[], AsyncIterator[Changed]]
HOUR_SECONDS = 3600.0


def watch(machine: Machine, changes: Changes, script: Callable[[], Awaitable[None]]) -> None:
    """Let an engine follow what `changes` tells of, until `script` ends."""

    async def beside(engine: Engine) -> None:
        async with anyio.create_task_group() as tasks:

            async def keep_awake() -> None:
                interval = machine.settings.rescan_interval_seconds
                await follow(engine, changes, clock=machine.clock, rescan_interval_seconds=interval)

            tasks.start_soon(keep_awake)
            await script()
            tasks.cancel_scope.cancel()

    machine.follow(beside)


async def silence() -> AsyncIterator[Changed]:
    """Watching that never tells of anything."""
    yield Changed(everything=True)
    await anyio.sleep_forever()


def test_an_event_brings_a_run_at_once(machine: Machine) -> None:
    """Goal: no delay by polling. Method: tell of a dataset; the row is there a moment later."""
    send, receive = anyio.create_memory_object_stream[Changed](10)

    async def changes() -> AsyncIterator[Changed]:
        async for changed in receive:
            yield changed

    async def script() -> None:
        for number in range(3):
            await machine.clock.sleep(10)
            run = machine.local.store(name=f"run{number}")
            await send.send(Changed(frozenset({run.key.dataset_key})))
            await machine.clock.sleep(0.5)
            assert len(machine.sink.visible_rows(run.table)) == number + 1

    watch(machine, changes, script)
    send.close()
    receive.close()
    machine.check_everything_arrived()


def test_a_run_goes_while_its_dataset_is_still_looked_through(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a run waits for no folder of its neighbours.

    Method: once the dataset is known, its folders take a minute to look at; a new run is a row long before.
    """
    send, receive = anyio.create_memory_object_stream[Changed](10)
    inspect = Discovery._inspect_folders

    async def slow(*args: Any, **kwargs: Any) -> None:
        await machine.clock.sleep(60)
        await inspect(*args, **kwargs)

    async def changes() -> AsyncIterator[Changed]:
        async for changed in receive:
            yield changed

    async def script() -> None:
        await machine.clock.sleep(10)
        monkeypatch.setattr(Discovery, "_inspect_folders", slow)
        run = machine.local.store(name="run1")
        await send.send(Changed(frozenset({run.key.dataset_key})))
        await machine.clock.sleep(1)
        assert len(machine.sink.visible_rows(run.table)) == 2
        await machine.clock.sleep(100)

    machine.local.store(name="run0")
    watch(machine, changes, script)
    send.close()
    receive.close()
    machine.check_everything_arrived()


@pytest.mark.parametrize("copied_in", [False, True])
def test_news_do_not_wait_behind_a_backlog(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, *, copied_in: bool
) -> None:
    """Goal: live runs go ahead of a backfill, also while that is still looked through.

    Method: old datasets take a minute each to scan; meanwhile runs come into one that was scanned, and into
    one whose turn has not come, and are rows long before the scan is over. The old ones come in the end. The
    same where they were copied in just now, and are looked at again when they are still: then that is slow.
    """
    scan = Discovery.scan
    scanned: list[str] = []
    first = {f"old{number}" for number in range(3)} if copied_in else set()

    async def slow(
        discovery: Discovery, key: DatasetKey, depth: ScanDepth = ScanDepth.EVERYTHING
    ) -> KnownDataset:
        if key.dataset in first:
            first.discard(key.dataset)
            return await scan(discovery, key, depth)
        if key.dataset.startswith("old"):
            await machine.clock.sleep(60)
        scanned.append(key.dataset)
        return await scan(discovery, key, depth)

    monkeypatch.setattr(Discovery, "scan", slow)
    for dataset in ("a_live", "old0", "old1", "old2", "z_live"):
        machine.local.named_before_seconds = 86400.0 if copied_in and dataset.startswith("old") else 0.0
        machine.local.store(dataset=dataset, name="run0")
    send, receive = anyio.create_memory_object_stream[Changed](10)

    async def changes() -> AsyncIterator[Changed]:
        async for changed in receive:
            yield changed

    async def script() -> None:
        await machine.clock.sleep(10)
        for dataset in ("a_live", "z_live"):
            run = machine.local.store(dataset=dataset, name="run1")
            await send.send(Changed(frozenset({run.key.dataset_key})))
            await machine.clock.sleep(10)
            assert len(machine.sink.visible_rows(run.table)) == 2
        assert not [name for name in scanned if name.startswith("old")]
        await machine.clock.sleep(300)

    watch(machine, changes, script)
    send.close()
    receive.close()
    machine.check_everything_arrived()


def test_lost_events_cost_time_but_no_run(machine: Machine) -> None:
    """Goal: events are no more than a hint.

    Method: nothing is ever told; datasets come and grow all the same.
    """

    async def script() -> None:
        for number in range(4):
            machine.local.store(dataset=f"d{number % 2}", name=f"run{number}")
            await machine.clock.sleep(machine.settings.rescan_interval_seconds + 1)
            assert sum(machine.invariants.visible_rows().values()) == number + 1

    watch(machine, silence, script)
    machine.check_everything_arrived()


def test_what_is_synced_costs_nothing_until_an_hour_has_passed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a periodic look is no walk through everything that was ever stored.

    Method: looks at synced runs' folders, and listings of the dataset, are counted while nothing happens for
    nearly an hour, when a run comes, and once the hour is over.
    """
    looks: Counter[str] = Counter()
    for name in ("signature", "run_folders", "inspect"):
        monkeypatch.setattr(LocalResults, name, counting(looks, getattr(LocalResults, name), name))
    for number in range(20):
        machine.local.store(name=f"run{number}")

    async def script() -> None:
        await machine.clock.sleep(machine.settings.table_settle_seconds)
        looks.clear()
        await machine.clock.sleep(EVERYTHING_SECONDS - 2 * machine.settings.table_settle_seconds)
        assert looks == {}
        machine.local.store(name="new")
        await machine.clock.sleep(machine.settings.table_settle_seconds / 2)
        assert looks["inspect"] == 1
        assert looks["signature"] <= 2
        looks.clear()
        await machine.clock.sleep(machine.settings.table_settle_seconds * 2)
        assert looks["signature"] == 21

    machine.run_pass()
    watch(machine, silence, script)
    machine.check_everything_arrived()


def counting(looks: Counter[str], method: Callable[..., object], name: str) -> Callable[..., object]:
    def counted(*args: object, **kwargs: object) -> object:
        looks[name] += 1
        return method(*args, **kwargs)

    return counted


def test_where_nothing_can_be_watched_it_looks_more_often(machine: Machine) -> None:
    """Goal: a limit of the kernel is survived.

    Method: watching fails; runs come within the time of polling.
    """

    async def failing() -> AsyncIterator[Changed]:
        yield Changed(everything=True)
        raise SyncError("watch folder", "the folder", "too many watches", failure=Failure.TRANSIENT)

    async def script() -> None:
        for number in range(3):
            run = machine.local.store(name=f"run{number}")
            await machine.clock.sleep(POLL_SECONDS + 1)
            assert len(machine.sink.visible_rows(run.table)) == number + 1

    watch(machine, failing, script)
    machine.check_everything_arrived()


def test_a_folder_that_is_away_for_a_while_is_looked_at_again(machine: Machine) -> None:
    """Goal: a network disk that drops out is no end.

    Method: the results folder is renamed, and comes back.
    """
    away = machine.local.root.with_name("away")

    async def script() -> None:
        await machine.clock.sleep(10)
        machine.local.root.rename(away)
        await machine.clock.sleep(HOUR_SECONDS)
        away.rename(machine.local.root)
        machine.local.store(name="after")
        await machine.clock.sleep(2 * machine.settings.rescan_interval_seconds)

    machine.local.store(name="before")
    watch(machine, silence, script)
    machine.check_everything_arrived()


def test_retry_beside_the_daemon_is_noticed(machine: Machine) -> None:
    """Goal: `retry` needs no restart.

    Method: a file is refused, then allowed, and another process releases it.
    """
    run = machine.local.store(images=1)
    machine.store.fail_next("upload", SyncError("upload", "o", "400", failure=Failure.PERMANENT))

    async def script() -> None:
        await machine.clock.sleep(10)
        with machine.ledger() as ledger:
            assert ledger.write(lambda db: retry_runs(db, machine.clock.now(), None)) == 1
        await machine.clock.sleep(5)
        assert len(machine.sink.visible_rows(run.table)) == 1

    watch(machine, silence, script)
    machine.check_everything_arrived()


def test_rounds_scan_what_changed_or_is_not_finished_and_nothing_else(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a round through years of finished runs is cheap and misses nothing.

    Method: nothing is told of. Scans are counted by dataset in quiet times; then one dataset grows, and
    another holds a run without its images, which are put into its folder, two levels below what is compared.
    """
    scans: Counter[str] = Counter()
    scan = Discovery.scan

    async def counted(
        self: Discovery, key: DatasetKey, depth: ScanDepth = ScanDepth.EVERYTHING
    ) -> KnownDataset:
        scans[key.dataset] += 1
        return await scan(self, key, depth)

    monkeypatch.setattr(Discovery, "scan", counted)
    for number in range(6):
        machine.local.store(dataset=f"d{number % 3}", name=f"run{number}")

    async def rounds(count: int) -> None:
        scans.clear()
        await machine.clock.sleep(count * machine.settings.rescan_interval_seconds)

    async def script() -> None:
        await machine.clock.sleep(2 * machine.settings.table_settle_seconds)
        await rounds(5)
        assert scans == {}
        machine.local.store(dataset="d1", name="new")
        await rounds(5)
        assert scans.keys() == {"d1"}
        damaged = machine.local.store(dataset="d2", name="damaged", images=0)
        await rounds(5)
        assert scans["d2"] >= 4
        machine.local.put_image(damaged, "generated_images/image.png")
        await machine.clock.sleep(2 * machine.settings.table_settle_seconds)
        await rounds(5)
        assert scans == {}

    watch(machine, silence, script)
    machine.check_everything_arrived()


def test_an_idle_day_costs_little(machine: Machine) -> None:
    """Goal: quiet beside training.

    Method: 100 synced runs; a day of following asks the cloud nothing, and makes no more turns of the loop
    than its polling needs.
    """
    for number in range(100):
        machine.local.store(dataset=f"d{number % 5}", name=f"run{number}", images=1)

    async def script() -> None:
        await machine.clock.sleep(10 * machine.settings.load_spacing_seconds)
        calls, steps = machine.port_calls, machine.clock.steps
        await machine.clock.sleep(HOUR_SECONDS)
        assert machine.port_calls == calls
        assert machine.clock.steps - steps < 12 * HOUR_SECONDS

    watch(machine, silence, script)
    machine.check_everything_arrived()


def test_a_dataset_that_nobody_knows_is_no_harm(machine: Machine) -> None:
    """Goal: an event for a folder that is gone again is nothing. Method: tell of one that never was."""
    machine.local.store()

    async def changes() -> AsyncIterator[Changed]:
        yield Changed(frozenset({DatasetKey("p", "gone")}))
        await anyio.sleep_forever()

    async def script() -> None:
        await machine.clock.sleep(10)

    watch(machine, changes, script)
    machine.check_everything_arrived()
