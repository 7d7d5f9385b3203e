"""How a process ends when it is told to, and how it is asked for other limits."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import pytest

from pixaris_sync.process import signals
from pixaris_sync.process.signals import (
    CHANGE_SIGNAL,
    DRAIN_SECONDS_MAX,
    DRAIN_SHARE,
    Interruption,
    Stop,
    change_on_signal,
    drain_on_signal,
)
from tests.fakes.clock import ManualClock
from tests.fakes.notifier import FakeNotifier

PATIENCE_SECONDS = 20.0
DRAIN_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _hear_of_hang_ups() -> Iterator[None]:
    """Tests may run where hang-ups are ignored, as under ``nohup``; handlers are put back."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _stay_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_leave_terminal", lambda: None)


@pytest.fixture(autouse=True)
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(signals, "_end_soon", codes.append)
    return codes


class Process:
    """Work that ends when it is told to drain and its `work_done` is set."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.listener = FakeNotifier()
        self.interruption = Interruption()
        self.finishing = anyio.Event()
        self.drained = anyio.Event()
        self.abandoned = anyio.Event()
        self.scope = anyio.CancelScope()

    async def work(self) -> None:
        with self.scope:
            await anyio.sleep_forever()
        self.abandoned.set()


@asynccontextmanager
async def running(*, finishes: bool = False) -> AsyncIterator[Process]:
    process = Process()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            await tasks.start(
                partial(
                    drain_on_signal,
                    Stop(process.drained.set, process.finishing.set if finishes else None),
                    process.scope,
                    process.interruption,
                    drain_timeout_seconds=DRAIN_SECONDS,
                    clock=process.clock,
                    notifier=process.listener,
                )
            )
            tasks.start_soon(process.work)
            yield process
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_drains_and_abandons_nothing(number: signal.Signals) -> None:
    """Goal: what is in flight may end. Method: one signal, and time short of the limit."""
    async with running() as process:
        os.kill(os.getpid(), number)
        await process.drained.wait()
        process.clock.advance(DRAIN_SECONDS - 1)
        await anyio.wait_all_tasks_blocked()
        assert not process.abandoned.is_set()
    assert process.interruption == Interruption(number, forced=False)
    assert process.listener.told[0]["STOPPING"] == "1"


@pytest.mark.anyio
async def test_draining_that_takes_too_long_is_abandoned() -> None:
    """Goal: it ends in time. Method: one signal, then the limit passes."""
    async with running() as process:
        os.kill(os.getpid(), signal.SIGTERM)
        await process.drained.wait()
        await anyio.wait_all_tasks_blocked()
        process.clock.advance(DRAIN_SECONDS)
        await process.abandoned.wait()
    assert process.interruption == Interruption(signal.SIGTERM, forced=False)


@pytest.mark.anyio
async def test_what_is_to_be_finished_first_leaves_time_to_drain() -> None:
    """Goal: all in one limit. Method: one signal; time passes in steps to the end of each part."""
    drain_seconds = min(DRAIN_SHARE * DRAIN_SECONDS, DRAIN_SECONDS_MAX)
    assert 0 < drain_seconds < DRAIN_SECONDS
    async with running(finishes=True) as process:
        os.kill(os.getpid(), signal.SIGTERM)
        await process.finishing.wait()
        await anyio.wait_all_tasks_blocked()
        process.clock.advance(DRAIN_SECONDS - drain_seconds - 0.1)
        await anyio.wait_all_tasks_blocked()
        assert not process.drained.is_set()
        process.clock.advance(0.1)
        await process.drained.wait()
        await anyio.wait_all_tasks_blocked()
        assert not process.abandoned.is_set()
        process.clock.advance(drain_seconds)
        await process.abandoned.wait()
    assert process.interruption == Interruption(signal.SIGTERM, forced=False)


@pytest.mark.anyio
async def test_a_second_signal_ends_what_is_to_be_finished(ends: list[int]) -> None:
    """Goal: nobody is held up. Method: two signals while it finishes its work; no time passes."""
    async with running(finishes=True) as process:
        os.kill(os.getpid(), signal.SIGTERM)
        await process.finishing.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await process.abandoned.wait()
        assert not process.drained.is_set()
    assert process.interruption == Interruption(signal.SIGTERM, forced=True)
    assert ends == [130]


@pytest.mark.anyio
async def test_a_second_signal_abandons_at_once(ends: list[int]) -> None:
    """Goal: Ctrl+C twice forces, a stuck thread too. Method: two signals, no time passes."""
    async with running() as process:
        os.kill(os.getpid(), signal.SIGINT)
        await process.drained.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await process.abandoned.wait()
    assert process.interruption == Interruption(signal.SIGINT, forced=True)
    assert ends == [130]


@pytest.mark.anyio
async def test_a_second_signal_as_draining_ends_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: as at any other moment. Method: it comes when signals are not received any more."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    receive = anyio.open_signal_receiver

    @contextmanager
    def interrupted_at_its_end(*numbers: signal.Signals) -> Iterator[AsyncIterator[signal.Signals]]:
        try:
            with receive(*numbers) as received:
                yield received
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(anyio, "open_signal_receiver", interrupted_at_its_end)
    async with running() as process:
        os.kill(os.getpid(), signal.SIGINT)
        await process.drained.wait()
    assert codes == [130]
    assert process.interruption == Interruption(signal.SIGINT, forced=True)


@pytest.mark.anyio
async def test_a_terminal_that_hangs_up_twice_asks_for_no_haste() -> None:
    """Goal: a closed terminal loses no work. Method: SIGHUP twice, as kernel and shell do.

    The SIGTERM after it is what asks for haste.
    """
    async with running() as process:
        os.kill(os.getpid(), signal.SIGHUP)
        await process.drained.wait()
        os.kill(os.getpid(), signal.SIGHUP)
        with anyio.open_signal_receiver(signal.SIGUSR2) as received:
            os.kill(os.getpid(), signal.SIGUSR2)
            async for _ in received:
                break
        await anyio.wait_all_tasks_blocked()
        assert not process.abandoned.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await process.abandoned.wait()
    assert process.interruption == Interruption(signal.SIGHUP, forced=True)


@pytest.mark.anyio
async def test_a_hang_up_is_ignored_where_it_was_before() -> None:
    """Goal: `nohup pixaris-sync backfill &` goes on. Method: ignored as nohup does, then sent."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with running() as process:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await process.drained.wait()
        assert process.interruption == Interruption(signal.SIGTERM, forced=False)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.anyio
async def test_other_limits_are_asked_for_by_a_signal_that_never_ends_the_process() -> None:
    """Goal: `limit` at any time. Method: the signal while somebody listens, twice, and when nobody does."""
    before = signal.getsignal(CHANGE_SIGNAL)
    seen: list[int] = []
    changed = anyio.Event()

    def change() -> None:
        seen.append(1)
        changed.set()

    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                await tasks.start(partial(change_on_signal, change))
                for _ in range(2):
                    changed = anyio.Event()
                    os.kill(os.getpid(), CHANGE_SIGNAL)
                    await changed.wait()
                tasks.cancel_scope.cancel()
        os.kill(os.getpid(), CHANGE_SIGNAL)
        assert len(seen) == 2
    finally:
        signal.signal(CHANGE_SIGNAL, before)


@pytest.mark.anyio
async def test_without_a_signal_nothing_happens() -> None:
    """Goal: it runs on, and signal handlers are given back. Method: let time pass; compare handlers."""
    before = signal.getsignal(signal.SIGTERM)
    async with running() as process:
        process.clock.advance(10 * DRAIN_SECONDS)
        await anyio.wait_all_tasks_blocked()
        assert not process.drained.is_set()
        assert not process.abandoned.is_set()
    assert process.interruption == Interruption()
    assert signal.getsignal(signal.SIGTERM) == before
