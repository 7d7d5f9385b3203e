"""What systemd hears, and how a process ends when it is told to."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from pixaris_sync.process import signals
from pixaris_sync.process.signals import (
    CHANGE_SIGNAL,
    STATUS_INTERVAL_SECONDS,
    STATUS_INTERVAL_SECONDS_MAX,
    Interruption,
    Notifier,
    change_on_signal,
    drain_on_signal,
    tell_status,
)
from tests.fakes.clock import ManualClock

PATIENCE_SECONDS = 20.0
DRAIN_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _hear_of_hang_ups() -> Iterator[None]:
    """Tests may run where hang-ups are ignored, as under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _stay_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_leave_terminal", lambda: None)


def listening(address: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.bind(address)
    link.setblocking(False)  # noqa: FBT003 - the standard library's own
    return link


def test_states_are_told_to_a_socket_in_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the protocol of sd_notify(3). Method: a socket where NOTIFY_SOCKET says."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with listening(path) as link:
        assert Notifier().listens
        Notifier().tell(READY="1", STATUS="catching up")
        assert link.recv(1024) == b"READY=1\nSTATUS=catching up"


def test_states_are_told_to_an_abstract_socket(tmp_path: Path) -> None:
    """Goal: containers and newer systemd. Method: a name with an @ in front."""
    name = f"pixaris-sync-{os.getpid()}-{tmp_path.name}"
    with listening(f"\0{name}") as link:
        Notifier(f"@{name}").tell(STOPPING="1")
        assert link.recv(1024) == b"STOPPING=1"


def test_nobody_who_listens_is_no_trouble(tmp_path: Path) -> None:
    """Goal: the same program runs by hand. Method: no address, and one where nobody is."""
    Notifier().tell(READY="1")
    Notifier("").tell(READY="1")
    Notifier(str(tmp_path / "nobody")).tell(READY="1")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, None), ("", None), ("0", None), ("x", None), ("60000000", 30.0), ("1000", 0.0005)],
)
def test_signs_of_life_come_twice_as_often_as_systemd_asks(
    monkeypatch: pytest.MonkeyPatch, given: str | None, seconds: float | None
) -> None:
    """Goal: one late beat kills nobody. Method: what WATCHDOG_USEC may be."""
    if given is not None:
        monkeypatch.setenv("WATCHDOG_USEC", given)
    assert Notifier().watchdog_seconds == seconds


class Listener(Notifier):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("")
        self.told: list[dict[str, str]] = []

    def tell(self, **state: str) -> None:
        self.told.append(state)


@pytest.mark.anyio
async def test_the_watchdog_is_fed_each_time_and_the_status_told_when_it_changes() -> None:
    """Goal: alive and not chatty. Method: the same description twice, then another."""
    clock, listener, described = ManualClock(), Listener(), iter(["a", "a", "b"])

    async def describe() -> str:
        return next(described)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell_status, listener, clock, describe)
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            clock.advance(STATUS_INTERVAL_SECONDS)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert listener.told == [
        {"WATCHDOG": "1", "STATUS": "a"},
        {"WATCHDOG": "1"},
        {"WATCHDOG": "1", "STATUS": "b"},
    ]


@pytest.mark.anyio
async def test_the_status_is_told_less_often_while_nothing_happens() -> None:
    """Goal: an idle service sleeps. Method: time passes without and with a stir; what is told is counted."""
    clock, listener, stirred = ManualClock(), Listener(), anyio.Event()

    async def describe() -> str:
        return "a"

    async def signs_after(seconds: float) -> int:
        for _ in range(int(seconds)):
            clock.advance(1)
            await anyio.wait_all_tasks_blocked()
        return len(listener.told)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell_status, listener, clock, describe, lambda: stirred)
        await anyio.wait_all_tasks_blocked()
        assert await signs_after(STATUS_INTERVAL_SECONDS_MAX - 1) == 1
        assert await signs_after(1) == 2
        stirred.set()
        # What stirs all the time is told of in steps.
        assert await signs_after(10 * STATUS_INTERVAL_SECONDS) == 12
        stirred = anyio.Event()
        await signs_after(STATUS_INTERVAL_SECONDS)
        assert await signs_after(STATUS_INTERVAL_SECONDS_MAX) == 14
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_the_watchdog_is_fed_in_time_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nobody is killed for being idle. Method: a short watchdog, and nothing that stirs."""
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    clock, listener = ManualClock(), Listener()

    async def describe() -> str:
        return "a"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell_status, listener, clock, describe, anyio.Event)
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
        tasks.cancel_scope.cancel()
    assert len(listener.told) == 20 // 5


@pytest.mark.anyio
async def test_a_stuck_engine_starves_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: systemd restarts what hangs. Method: a description that never comes."""
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    clock, listener = ManualClock(), Listener()

    async def never() -> str:
        await anyio.sleep_forever()
        return ""

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell_status, listener, clock, never)
        await anyio.wait_all_tasks_blocked()
        clock.advance(3600)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert listener.told == []


class Process:
    """Work that ends when it is told to drain and its `work_done` is set."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.listener = Listener()
        self.interruption = Interruption()
        self.drained = anyio.Event()
        self.abandoned = anyio.Event()
        self.scope = anyio.CancelScope()

    async def work(self) -> None:
        with self.scope:
            await anyio.sleep_forever()
        self.abandoned.set()


@asynccontextmanager
async def running() -> AsyncIterator[Process]:
    process = Process()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            await tasks.start(
                partial(
                    drain_on_signal,
                    process.drained.set,
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
async def test_a_second_signal_abandons_at_once() -> None:
    """Goal: Ctrl+C twice forces. Method: two signals, no time passes."""
    async with running() as process:
        os.kill(os.getpid(), signal.SIGINT)
        await process.drained.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await process.abandoned.wait()
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
