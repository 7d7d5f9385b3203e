"""No wake-up is lost, and waiting ends in time."""

import anyio
import pytest

from pixaris_sync.waiting import Wakeup, wait_until
from tests.fakes.clock import ManualClock

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 20.0


async def test_a_change_between_listening_and_waiting_ends_the_wait() -> None:
    """Goal: listen, look, wait loses nothing. Method: notify before waiting."""
    signal = Wakeup()
    heard = signal.listen()
    signal.notify()
    with anyio.fail_after(PATIENCE_SECONDS):
        await heard.wait()


async def test_a_change_before_listening_is_not_heard() -> None:
    """Goal: no endless loop. Method: notify, then listen."""
    signal = Wakeup()
    signal.notify()
    assert not signal.listen().is_set()


async def test_everybody_who_listens_is_woken() -> None:
    """Goal: one change, all listeners. Method: two tasks wait."""
    signal, woken = Wakeup(), list[int]()

    async def wait(number: int) -> None:
        await signal.listen().wait()
        woken.append(number)

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
            signal.notify()
    assert sorted(woken) == [0, 1]


async def test_waiting_ends_at_its_time_without_a_change() -> None:
    """Goal: what is due is done. Method: a clock that is put to just before and to the time."""
    clock, ended = ManualClock(), anyio.Event()

    async def wait() -> None:
        await wait_until(anyio.Event(), clock, clock.now() + 60)
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        clock.advance(59)
        await anyio.wait_all_tasks_blocked()
        assert not ended.is_set()
        clock.advance(1)
        with anyio.fail_after(PATIENCE_SECONDS):
            await ended.wait()
    assert clock.sleeping == 0


async def test_waiting_ends_with_a_change_before_its_time() -> None:
    """Goal: no polling delay. Method: set the event; no sleeper is left behind."""
    clock, event = ManualClock(), anyio.Event()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_until, event, clock, clock.now() + 60)
            await anyio.wait_all_tasks_blocked()
            event.set()
    assert clock.sleeping == 0


@pytest.mark.parametrize("seconds", [0, -100])
async def test_a_time_that_has_passed_ends_the_wait_at_once(seconds: float) -> None:
    """Goal: no hang. Method: a time that is now or was before."""
    clock = ManualClock()
    with anyio.fail_after(PATIENCE_SECONDS):
        await wait_until(anyio.Event(), clock, clock.now() + seconds)


async def test_waiting_without_a_time_is_for_the_change_alone() -> None:
    """Goal: an idle service sleeps. Method: nobody sleeps on the clock; the event ends it."""
    clock, event = ManualClock(), anyio.Event()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_until, event, clock, None)
            await anyio.wait_all_tasks_blocked()
            assert clock.sleeping == 0
            event.set()
