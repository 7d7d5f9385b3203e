"""The machine's clock, and one that is not moved by setting another."""

import anyio
import pytest

from pixaris_sync.clock import SteadyClock, SystemClock
from tests.fakes.clock import ManualClock


def test_a_steady_clock_goes_on_however_the_other_is_set() -> None:
    """Goal: waiting times are true. Method: let time pass, and set the wall clock forward and back."""
    manual = ManualClock()
    steady, begun = SteadyClock(manual), manual.now()
    manual.advance(5)
    for seconds in (3600, -7200):
        manual.jump(seconds)
        assert steady.now() == pytest.approx(begun + 5)
    manual.advance(5)
    assert steady.now() == pytest.approx(begun + 10)


def test_the_systems_clock_never_runs_backwards_in_what_has_elapsed() -> None:
    """Goal: durations are never negative. Method: many readings in a row."""
    clock = SystemClock()
    readings = [clock.elapsed() for _ in range(100)]
    assert readings == sorted(readings)


@pytest.mark.anyio
async def test_sleeping_for_nothing_is_a_place_to_be_cancelled() -> None:
    """Goal: a busy loop can be stopped. Method: sleep(0) in a cancelled scope."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await SystemClock().sleep(0)
    assert scope.cancelled_caught
