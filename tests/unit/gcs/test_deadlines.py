"""Limits of many requests with one timer, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest

from pixaris_sync.gcs.deadlines import LOOK_SECONDS_MAX, LOOK_SHARE, Deadlines
from tests.fakes.virtual_clock import VirtualClock

LIMIT = 10.0
LOOK = LIMIT * LOOK_SHARE


def run(test: Callable[[VirtualClock, Deadlines], Awaitable[None]]) -> VirtualClock:
    clock = VirtualClock()
    clock.run(lambda: test(clock, Deadlines(LIMIT)))
    return clock


@pytest.mark.parametrize("seconds", [0.0, LIMIT - 0.1])
def test_a_request_within_its_limit_is_left_alone(seconds: float) -> None:
    """Goal: no harm. Method: requests that take less."""

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        async def request() -> str:
            await clock.sleep(seconds)
            return "answer"

        assert await deadlines.hold(LIMIT, request()) == "answer"
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    assert run(test).elapsed() == pytest.approx(seconds)


def test_each_overdue_request_ends_soon_after_its_own_limit() -> None:
    """Goal: the limit holds. Method: several at once, with other limits, and when they ended."""
    ended: dict[float, float] = {}

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        async def request(limit: float) -> None:
            with pytest.raises(TimeoutError):
                await deadlines.hold(limit, clock.sleep(3_600))
            ended[limit] = clock.elapsed()
            # Whoever was interrupted goes on as before.
            await clock.sleep(1)

        async with anyio.create_task_group() as tasks:
            for limit in (LIMIT, 3 * LIMIT, LIMIT + 0.01):
                tasks.start_soon(request, limit)

    run(test)
    for limit, at in ended.items():
        assert limit <= at <= limit + LOOK + 1e-6
    assert len(ended) == 3


def test_lateness_is_bounded_however_long_the_limit() -> None:
    """Goal: looks do not become rare. Method: a limit of an hour."""

    async def test(clock: VirtualClock, _: Deadlines) -> None:
        with pytest.raises(TimeoutError):
            await Deadlines(3_600).hold(3_600, clock.sleep(9_999))

    assert 3_600 <= run(test).elapsed() <= 3_600 + LOOK_SECONDS_MAX


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """Goal: a time-out is not made up. Method: a scope that is cancelled before the limit, and at it."""

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        for seconds in (LIMIT / 2, LIMIT):
            with anyio.move_on_after(seconds) as scope:
                await deadlines.hold(LIMIT, clock.sleep(3_600))
            assert scope.cancelled_caught
            await clock.sleep(0.1)

    run(test)


def test_a_cancellation_while_it_is_interrupted_wins() -> None:
    """Goal: nobody who is told to end goes on. Method: the request is cancelled while it cleans up."""

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        async def request() -> None:
            try:
                await clock.sleep(3_600)
            finally:
                scope.cancel()
                await clock.sleep(1)

        with anyio.CancelScope() as scope:
            await deadlines.hold(LIMIT, request())
        assert scope.cancelled_caught

    run(test)


def test_an_answer_that_comes_despite_the_interruption_counts() -> None:
    """Goal: the task is not left cancelled. Method: a request that answers instead of ending."""

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        async def request() -> str:
            try:
                await clock.sleep(3_600)
            except asyncio.CancelledError:
                return "answer"
            return "none"

        assert await deadlines.hold(LIMIT, request()) == "answer"
        await clock.sleep(1)

    run(test)


def test_nothing_is_looked_at_while_there_is_no_request() -> None:
    """Goal: no polling. Method: the timers of the loop after a request has ended."""

    async def test(clock: VirtualClock, deadlines: Deadlines) -> None:
        await deadlines.hold(LIMIT, clock.sleep(0))
        await clock.sleep(2 * LOOK)
        assert deadlines._next_look is None
        with pytest.raises(TimeoutError):
            await deadlines.hold(LIMIT, clock.sleep(3_600))

    run(test)
