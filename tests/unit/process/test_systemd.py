"""What systemd is told of a service."""

import os
import socket
from pathlib import Path

import anyio
import pytest

from pixaris_sync.process.systemd import (
    STATUS_INTERVAL_SECONDS,
    STATUS_INTERVAL_SECONDS_MAX,
    Notifier,
    tell_status,
)
from tests.fakes.clock import ManualClock
from tests.fakes.notifier import FakeNotifier


@pytest.fixture(autouse=True)
def _without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


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


def test_states_are_told_to_an_abstract_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: containers and newer systemd. Method: a name with an @ in front."""
    name = f"pixaris-sync-{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with listening(f"\0{name}") as link:
        Notifier().tell(STOPPING="1")
        assert link.recv(1024) == b"STOPPING=1"


def test_nobody_who_listens_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same program runs by hand. Method: no address, and one where nobody is."""
    Notifier().tell(READY="1")
    for address in ("", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        Notifier().tell(READY="1")


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


@pytest.mark.anyio
async def test_the_watchdog_is_fed_each_time_and_the_status_told_when_it_changes() -> None:
    """Goal: alive and not chatty. Method: the same description twice, then another."""
    clock, listener, described = ManualClock(), FakeNotifier(), iter(["a", "a", "b"])

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
    clock, listener, stirred = ManualClock(), FakeNotifier(), anyio.Event()

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
    clock, listener = ManualClock(), FakeNotifier()

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
    clock, listener = ManualClock(), FakeNotifier()

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
