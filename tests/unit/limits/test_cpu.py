"""The share of the processor, on simulated loads and on a real one."""

import random
import time
from itertools import pairwise

import pytest

from pixaris_sync.limits.cpu import BURST_SECONDS, CpuGovernor


def used_by_time(
    governor: CpuGovernor, seconds: float, item_seconds: tuple[float, float], *, cores: float = 1.0
) -> list[tuple[float, float]]:
    """Work that never ends, item by item: what was used (second part) at which time (first part).

    Args:
        governor: whom to ask before each item.
        seconds: how long.
        item_seconds: the least and the most that an item uses of the processor.
        cores: how many work at the same time, so that an item takes so much less time than it uses.
    """
    dice = random.Random(7)  # noqa: S311 - the same load every time
    now = used = 0.0
    told = [(now, used)]
    while now < seconds:
        while pause := governor.throttle_seconds(now, used):
            now += pause
            told.append((now, used))
        item = dice.uniform(*item_seconds)
        now += item / cores
        used += item
        told.append((now, used))
    return told


def used_between(told: list[tuple[float, float]], begin: float, end: float) -> float:
    return max(used for time, used in told if time <= end) - max(used for time, used in told if time <= begin)


@pytest.mark.parametrize("percent", [5, 20, 50, 90])
@pytest.mark.parametrize("item_ms", [(0.05, 0.2), (1, 3), (5, 20)])
def test_the_share_holds_over_ten_seconds(percent: float, item_ms: tuple[float, float]) -> None:
    """Goal: within a few percent, in each window of 10 s. Method: endless items of different costs."""
    told = used_by_time(CpuGovernor(percent), 40, (item_ms[0] / 1000, item_ms[1] / 1000))
    for start in range(1, 29):
        share = used_between(told, start, start + 10) / 10
        # The burst and the item at each edge may be counted or not.
        assert abs(share - percent / 100) <= BURST_SECONDS / 10 * percent / 100 + item_ms[1] / 5_000


def test_a_share_of_more_than_one_core_counts_all_threads() -> None:
    """Goal: threads are paid for. Method: 150 % of one core with four cores at work."""
    told = used_by_time(CpuGovernor(150), 20, (0.001, 0.01), cores=4)
    assert used_between(told, 2, 18) / 16 == pytest.approx(1.5, rel=0.02)


def test_large_items_are_paid_for_afterwards() -> None:
    """Goal: the share holds in the long run whatever the work. Method: items of half a second at 10 %."""
    told = used_by_time(CpuGovernor(10), 200, (0.4, 0.6))
    assert used_between(told, 0, 200) / 200 == pytest.approx(0.1, rel=0.04)


def test_idle_time_earns_a_short_burst() -> None:
    """Goal: no full speed after an idle hour. Method: an hour without work, then work."""
    governor = CpuGovernor(20)
    governor.throttle_seconds(0.0, 0.0)
    governor.throttle_seconds(3_600.0, 0.0)
    assert governor.throttle_seconds(3_600.0, 0.2 * BURST_SECONDS) == 0
    assert governor.throttle_seconds(3_600.0, 0.2 * BURST_SECONDS + 0.05) == pytest.approx(
        0.25 + BURST_SECONDS
    )


def test_work_comes_in_bursts() -> None:
    """Goal: what is cheaper together is done together. Method: count pauses in 100 s of small items."""
    told = used_by_time(CpuGovernor(10), 100, (0.0005, 0.001))
    pauses = sum(used == before for (_, before), (_, used) in pairwise(told))
    assert pauses <= 100 / BURST_SECONDS


def test_what_was_used_before_is_not_held_against_anyone() -> None:
    """Goal: imports before the first question cost no pause. Method: begin with a second used."""
    assert CpuGovernor(10).throttle_seconds(5.0, 1.0) == 0


def test_without_a_limit_nothing_pauses() -> None:
    """Goal: no limit by default. Method: more than a core is used; then set and lift a limit."""
    assert CpuGovernor(50).max_cpu_percent == 50
    governor = CpuGovernor()
    assert governor.max_cpu_percent is None
    assert [governor.throttle_seconds(step, 2.0 * step) for step in range(5)] == [0.0] * 5
    governor.change(50)
    assert [governor.throttle_seconds(5.0 + step, 10.0 + step) > 0 for step in range(2)] == [False, True]
    governor.change(None)
    assert governor.throttle_seconds(9.0, 99.0) == 0


@pytest.mark.parametrize("percent", [0, -5])
def test_a_limit_must_be_positive(percent: float) -> None:
    """Goal: a limit that stops all work is a mistake. Method: make such governors."""
    with pytest.raises(ValueError, match="positive"):
        CpuGovernor(percent)


def test_a_real_process_keeps_to_it() -> None:
    """Goal: it works with the clocks it is meant for. Method: burn real time at 30 %."""
    governor, began, used_before = CpuGovernor(30), time.monotonic(), time.process_time()
    while time.monotonic() - began < 2:
        if pause := governor.throttle_seconds(time.monotonic(), time.process_time()):
            time.sleep(pause)
        else:
            sum(range(20_000))
    share = (time.process_time() - used_before) / (time.monotonic() - began)
    # Other work on the machine can only make it less.
    assert 0 < share <= 0.30 + 0.3 * BURST_SECONDS / 2 + 0.02
