"""The limit of uploads at the same time, against a service in virtual time."""

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pixaris_sync.limits.concurrency import (
    LIMIT_START,
    PUSHED_BACK_SHARE,
    AdaptiveConcurrency,
    Outcome,
)
from tests.fakes.upload_service import Fixed, Service, run

LIMIT_MAX = 128
LEVELS = (2, 4, 8, 16, 32, 64, 96, LIMIT_MAX)
LATENCIES_MS = (0, 20, 50, 200)
SIZES = (4_096, 100_000, 5_000_000)
#: 100 Mbit/s, 1 Gbit/s.
UPLINKS = (12.5e6, 125e6)
PROCESSOR_SECONDS = (0.0003, 0.001)


def best_seconds(service: Service, sizes: list[int]) -> float:
    """What the best of all fixed limits needs."""
    return min(run(service, Fixed(level), sizes).seconds for level in LEVELS)


@pytest.mark.parametrize(("latency_ms", "size"), [*product(LATENCIES_MS, SIZES)])
def test_it_is_nearly_as_fast_as_the_best_fixed_limit(latency_ms: int, size: int) -> None:
    """Goal: at least 90 % of the best fixed limit for 2,000 files, the time it takes to find it included.

    Method: both in the simulation, over two uplinks and two costs of a file.
    """
    sizes = [size] * 2_000
    for uplink, processor in product(UPLINKS, PROCESSOR_SECONDS):
        service = Service(latency_ms / 1000, processor, uplink)
        took = run(service, AdaptiveConcurrency(LIMIT_MAX), sizes).seconds
        assert best_seconds(service, sizes) / took >= 0.9, (uplink, processor, took)


def test_it_stays_low_where_more_uploads_do_not_help() -> None:
    """Goal: no memory for nothing. Method: small files without latency: the processor is the limit."""
    controller = AdaptiveConcurrency(LIMIT_MAX)
    told = run(Service(0.0, 0.0005), controller, [4_096] * 4_000)
    late = [limit for time, limit in told.limits if time > 0.5]
    assert sum(late) / len(late) < 2 * LIMIT_START
    assert max(late) <= LIMIT_START


def test_large_files_on_a_slow_uplink_need_few_uploads() -> None:
    """Goal: as above for memory that counts. Method: 5 MB at 100 Mbit/s and 20 ms."""
    controller = AdaptiveConcurrency(LIMIT_MAX)
    told = run(Service(0.02, 0.0005, 12.5e6), controller, [5_000_000] * 600)
    assert told.limits[-1][1] <= LIMIT_START


@pytest.mark.parametrize("latency_ms", [20, 50, 200])
def test_a_distant_service_is_fully_used_after_three_round_trips(latency_ms: int) -> None:
    """Goal: the search is short. Method: the limit after three latencies, and a bit for the processor."""
    service = Service(latency_ms / 1000, 0.0)
    told = run(service, AdaptiveConcurrency(LIMIT_MAX), [4_096] * 1_000)
    assert told.limit_at(3.1 * latency_ms / 1000) == LIMIT_MAX


@pytest.mark.parametrize("noise", [0.2, 0.4])
@pytest.mark.parametrize(("latency_ms", "uplink"), [(50, 125e6), (200, 125e6), (20, 30e6)])
def test_scattered_latencies_do_not_mislead_it(noise: float, latency_ms: int, uplink: float) -> None:
    """Goal: chance is not taken for a queue. Method: lognormal latencies; p99 is 2.5 times p50 at 0.4."""
    service = Service(latency_ms / 1000, 0.0005, uplink, noise=noise)
    sizes = [100_000] * 6_000
    took = run(service, AdaptiveConcurrency(LIMIT_MAX), sizes).seconds
    assert best_seconds(service, sizes) / took >= 0.9


def test_files_of_all_sizes_may_be_mixed() -> None:
    """Goal: a large file is not taken for a slow service. Method: sizes over four orders, in random order."""
    random_sizes = random.Random(3)  # noqa: S311 - the same sizes every time
    sizes = [random_sizes.choice((500, 3_000, 100_000, 1_500_000)) for _ in range(3_000)]
    for service in (Service(0.05), Service(0.2), Service(0.05, bytes_per_second=12.5e6)):
        took = run(service, AdaptiveConcurrency(LIMIT_MAX), sizes).seconds
        assert best_seconds(service, sizes) / took >= 0.9


def test_connections_that_must_be_opened_first_do_not_mislead_it() -> None:
    """Goal: the handshakes of a rising limit are no swollen latency. Method: two round trips on top."""
    service = Service(0.05, cold_seconds=0.1)
    sizes = [100_000] * 3_000
    took = run(service, AdaptiveConcurrency(LIMIT_MAX), sizes).seconds
    assert best_seconds(service, sizes) / took >= 0.9


@pytest.mark.parametrize("latency_ms", [20, 50, 200])
def test_uploads_that_end_together_are_not_taken_for_a_lack_of_work(latency_ms: int) -> None:
    """Goal: an engine may look for work after several have ended. Method: 3 ms pass until it does."""
    service = Service(latency_ms / 1000, 0.0003, turn_seconds=0.003)
    sizes = [100_000] * 2_000
    took = run(service, AdaptiveConcurrency(LIMIT_MAX), sizes).seconds
    assert best_seconds(service, sizes) / took >= 0.9


def test_a_service_that_becomes_slower_for_good_is_still_fully_used() -> None:
    """Goal: latency that is not our doing is accepted. Method: 50 ms become 150 ms after three seconds."""
    service = Service(latency_at=lambda time: 0.05 if time < 3 else 0.15)
    told = run(service, AdaptiveConcurrency(LIMIT_MAX), [4_096] * 15_000)
    late = [limit for time, limit in told.limits if time > 5]
    assert sum(late) / len(late) > 0.9 * LIMIT_MAX


def test_a_bad_moment_is_soon_over() -> None:
    """Goal: a stall does not slow down what follows. Method: 50 ms become 500 ms for a third of a second."""
    service = Service(latency_at=lambda time: 0.5 if 3 < time < 3.3 else 0.05)
    told = run(service, AdaptiveConcurrency(LIMIT_MAX), [4_096] * 15_000)
    assert min(limit for time, limit in told.limits if time > 3) < LIMIT_MAX / 2
    assert min(limit for time, limit in told.limits if time > 4.5) == LIMIT_MAX


@pytest.mark.parametrize(("allowed", "latency_ms"), [(100, 50), (200, 50), (500, 20), (500, 50), (1_000, 20)])
def test_it_stays_below_what_a_service_pushes_back(allowed: int, latency_ms: int) -> None:
    """Goal: push-backs become rare, and the allowed rate is used. Method: a minute's work at that rate."""
    service = Service(latency_ms / 1000, 0.0003, uploads_per_second=allowed)
    told = run(service, AdaptiveConcurrency(LIMIT_MAX), [4_096] * allowed * 60)
    assert 0 < told.pushed_back < 0.01 * allowed * 60
    assert told.seconds < 60 / 0.9
    late = [limit for time, limit in told.limits if time > 5]
    assert sum(late) / len(late) < 1.1 * allowed * (latency_ms / 1000 + 0.0003)


def test_uploads_that_are_pushed_back_together_count_once() -> None:
    """Goal: one bad moment does not close the door. Method: all of a full house fail, then one."""
    controller = AdaptiveConcurrency(LIMIT_MAX, limit_start=100)
    for _ in range(101):
        controller.started()
    for _ in range(100):
        controller.ended(10.0, 1.0, 1, Outcome.PUSHED_BACK)
    assert controller.limit == round(100 * PUSHED_BACK_SHARE)
    controller.started()
    controller.ended(12.0, 1.0, 1, Outcome.PUSHED_BACK)
    # Only two were under way, so only few can have been too much.
    assert controller.limit < 4


def test_other_failures_say_nothing_about_the_load() -> None:
    """Goal: a folder of unreadable files slows nothing down. Method: failures alone."""
    controller = AdaptiveConcurrency(LIMIT_MAX)
    for step in range(500):
        controller.started()
        controller.ended(step / 10, 0.01, 1, Outcome.FAILED)
    assert controller.limit == LIMIT_START
    assert controller.under_way == 0


def test_a_trickle_of_work_changes_nothing() -> None:
    """Goal: hours of one file now and then leave the limit. Method: one at a time, with rising latency."""
    controller = AdaptiveConcurrency(LIMIT_MAX)
    for step in range(1_000):
        controller.started()
        controller.ended(step * 5.0 + 0.05 + step / 1_000, 0.05 + step / 1_000, 100_000, Outcome.OK)
    assert controller.limit == LIMIT_START


def test_free_places_are_never_negative() -> None:
    """Goal: a cut limit only stops what is new. Method: more under way than the limit that is left."""
    controller = AdaptiveConcurrency(8)
    for _ in range(8):
        controller.started()
    assert controller.free == 0
    controller.ended(1.0, 0.5, 1, Outcome.PUSHED_BACK)
    assert (controller.limit, controller.under_way, controller.free) == (6, 7, 0)


@pytest.mark.parametrize(("limit_max", "limit_start"), [(0, 1), (1, 0), (-1, 1)])
def test_limits_must_be_positive(limit_max: int, limit_start: int) -> None:
    """Goal: a limit that lets nothing through is a mistake. Method: make such controllers."""
    with pytest.raises(ValueError, match="positive"):
        AdaptiveConcurrency(limit_max, limit_start=limit_start)


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    limit_max=st.integers(1, 64),
    endings=st.lists(
        st.tuples(st.sampled_from(Outcome), st.floats(0, 10), st.integers(0, 10**9)), max_size=200
    ),
)
def test_the_limit_is_always_within_its_bounds(
    limit_max: int, endings: list[tuple[Outcome, float, int]]
) -> None:
    """Goal: whatever happens, something may go on and never too much. Method: any order of any endings."""
    controller, now = AdaptiveConcurrency(limit_max), 0.0
    for outcome, seconds, size in endings:
        while controller.free:
            controller.started()
        now += seconds / 10
        controller.ended(now, min(seconds, now), size, outcome)
        assert 1 <= controller.limit <= limit_max


def test_uploads_that_take_no_time_are_no_error() -> None:
    """Goal: a coarse clock stops nothing.

    Method: after rounds that took a second, and a pause, one in which every upload ends as it begins.
    """
    controller = AdaptiveConcurrency(8, limit_start=8)
    for round_begins, seconds in ((0.0, 1.0), (30.0, 1.0), (31.0, 0.0)):
        for _ in range(8):
            controller.started()
        for size in [4_096] * 7 + [100_000]:
            controller.ended(round_begins + 1.0, seconds, size, Outcome.OK)
    assert 1 <= controller.limit <= 8
