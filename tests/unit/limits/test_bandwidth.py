"""Rates over bytes, writes and updates, in virtual time."""

from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pixaris_sync.limits.bandwidth import (
    BURST_SECONDS,
    BYTES_PER_SECOND_MIN,
    DOUBLING_SECONDS,
    LATENESS_SECONDS_MAX,
    PIECE_BYTES,
    UPDATES_LIMIT,
    UPDATES_SECONDS,
    WAIT_SECONDS_MAX,
    WRITES_PER_SECOND_START,
    Bandwidth,
    PacedBody,
    UpdateRate,
    WriteRate,
)
from tests.fakes.virtual_clock import VirtualClock

RATE = 1_000_000.0


class Uplink:
    """Uploads that share a bandwidth; notes when each piece left."""

    def __init__(self, clock: VirtualClock, bandwidth: Bandwidth) -> None:
        self.clock, self.bandwidth = clock, bandwidth
        self.sent: list[tuple[float, int]] = []
        self.request_seconds: list[float] = []

    async def upload(self, size: int, piece_seconds: float = 0.0) -> None:
        body = PacedBody(self.bandwidth, self.clock, size)
        await body.turn()
        began = self.clock.elapsed()
        for offset in range(0, size, PIECE_BYTES):
            count = min(PIECE_BYTES, size - offset)
            await body.piece(count)
            self.sent.append((self.clock.elapsed(), count))
            if piece_seconds:
                await self.clock.sleep(piece_seconds)
        self.request_seconds.append(self.clock.elapsed() - began)

    def bytes_between(self, begin: float, end: float) -> int:
        return sum(count for time, count in self.sent if begin <= time < end)


def run_uploads(
    sizes: list[int],
    *,
    rate: float | None = RATE,
    then: Callable[[Uplink], None] | None = None,
    at: float = 0.0,
) -> Uplink:
    """Start all uploads at once; change something at a time."""
    clock = VirtualClock()
    uplink = Uplink(clock, Bandwidth(rate))

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            for size in sizes:
                tasks.start_soon(uplink.upload, size)
            if then is not None:
                await clock.sleep(at)
                then(uplink)

    clock.run(go)
    return uplink


@pytest.mark.parametrize("sizes", [[4_096] * 1_000, [100_000] * 200, [5_000_000] * 4, [20_000_000]])
@pytest.mark.parametrize("rate", [BYTES_PER_SECOND_MIN, RATE, 50e6])
def test_the_rate_is_accurate(sizes: list[int], rate: float) -> None:
    """Goal: within 5 % of the limit, never above but for a burst. Method: time of the last piece."""
    uplink = run_uploads(sizes, rate=rate)
    ideal = sum(sizes) / rate
    took = uplink.clock.elapsed()
    slack = BURST_SECONDS + PIECE_BYTES / rate
    assert ideal - slack <= took <= ideal * 1.01


def test_no_second_carries_more_than_its_share() -> None:
    """Goal: smooth, also within seconds. Method: every half second, over bodies of all sizes."""
    uplink = run_uploads([5_000_000, 100_000, 4_096] * 3)
    for tick in range(int(uplink.clock.elapsed() * 20)):
        passed = uplink.bytes_between(tick / 20, tick / 20 + 0.5)
        assert passed <= 0.5 * RATE + BURST_SECONDS * RATE + 2 * PIECE_BYTES


def test_a_request_is_open_only_while_its_own_body_is_sent() -> None:
    """Goal: time limits of requests hold. Method: 64 uploads that need 32 seconds together."""
    uplink = run_uploads([500_000] * 64)
    assert uplink.clock.elapsed() > 30
    assert max(uplink.request_seconds) < 1


def test_a_pause_earns_a_short_burst() -> None:
    """Goal: no burst after an idle hour. Method: uploads at once, one hour late."""
    clock = VirtualClock()
    uplink = Uplink(clock, Bandwidth(RATE))

    async def go() -> None:
        await clock.sleep(3_600)
        await uplink.upload(3_000_000)

    clock.run(go)
    assert uplink.bytes_between(3_600, 3_600.001) <= BURST_SECONDS * RATE + PIECE_BYTES
    assert clock.elapsed() - 3_600 >= 3 - BURST_SECONDS - PIECE_BYTES / RATE


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_another_rate_applies_to_what_waits_already(factor: float) -> None:
    """Goal: changeable while it runs. Method: another rate after 5 s of 20 s of work."""

    def change(uplink: Uplink) -> None:
        uplink.bandwidth.change(factor * RATE, uplink.clock.elapsed())

    uplink = run_uploads([1_000_000] * 20, then=change, at=5.0)
    ideal = 5 + 15 / factor
    assert abs(uplink.clock.elapsed() - ideal) <= WAIT_SECONDS_MAX + 0.05 * ideal
    late = uplink.bytes_between(5 + WAIT_SECONDS_MAX, ideal - 1)
    assert late == pytest.approx(factor * RATE * (ideal - 6 - WAIT_SECONDS_MAX), rel=0.05)


def test_the_limit_can_be_lifted_and_set_again() -> None:
    """Goal: as above, from and to no limit. Method: lift it half way, then set it for other uploads."""
    uplink = run_uploads(
        [1_000_000] * 20, then=lambda link: link.bandwidth.change(None, link.clock.elapsed()), at=5.0
    )
    assert uplink.clock.elapsed() <= 5 + WAIT_SECONDS_MAX
    assert uplink.bandwidth.bytes_per_second is None
    began = uplink.clock.elapsed()
    uplink.bandwidth.change(RATE, began)
    uplink.clock.run(lambda: uplink.upload(5_000_000))
    assert uplink.clock.elapsed() - began == pytest.approx(5, abs=BURST_SECONDS + PIECE_BYTES / RATE)


def test_a_slow_connection_does_not_end_in_a_burst() -> None:
    """Goal: what a stalled body missed is not sent at once. Method: a pause of 5 s in its middle."""
    clock = VirtualClock()
    uplink = Uplink(clock, Bandwidth(RATE))

    async def go() -> None:
        body = PacedBody(uplink.bandwidth, clock, 4_000_000)
        await body.turn()
        for number in range(4_000_000 // PIECE_BYTES):
            await body.piece(PIECE_BYTES)
            uplink.sent.append((clock.elapsed(), PIECE_BYTES))
            if number == 10:
                await clock.sleep(5)

    clock.run(go)
    assert uplink.bytes_between(5, 6) <= (1 + LATENESS_SECONDS_MAX) * RATE + 2 * PIECE_BYTES


def test_slow_connections_neither_starve_nor_exceed_the_rate() -> None:
    """Goal: the rate is used up and held where each connection is slower. Method: 40 bodies at a fifth of it.

    Each piece of them is on its way for five times as long as the rate would allow.
    """
    clock = VirtualClock()
    uplink = Uplink(clock, Bandwidth(RATE))

    async def go() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(uplink.upload, 1_000_000, 5 * PIECE_BYTES / RATE)

    clock.run(go)
    assert clock.elapsed() == pytest.approx(40, rel=0.2)
    for second in range(1, 30):
        assert uplink.bytes_between(second, second + 5) <= 5 * 1.05 * RATE + LATENESS_SECONDS_MAX * RATE
    # Without a limit, a body would take five seconds.
    assert max(uplink.request_seconds) < 12


def test_a_body_that_fell_behind_is_not_sent_behind_all_that_wait() -> None:
    """Goal: its time limit holds. Method: a stall of 2 s in the first of bodies that take 60 s together."""
    clock = VirtualClock()
    bandwidth = Bandwidth(RATE)
    took: list[float] = []

    async def stalls() -> None:
        body = PacedBody(bandwidth, clock, 1_000_000)
        await body.turn()
        began = clock.elapsed()
        for number in range(1_000_000 // PIECE_BYTES):
            await body.piece(PIECE_BYTES)
            if number == 5:
                await clock.sleep(2)
        took.append(clock.elapsed() - began)

    async def go() -> None:
        uplink = Uplink(clock, bandwidth)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stalls)
            for _ in range(59):
                tasks.start_soon(uplink.upload, 1_000_000)

    clock.run(go)
    assert took[0] < 5
    assert clock.elapsed() == pytest.approx(60, rel=0.05)


def test_what_a_body_has_on_top_is_paid_for() -> None:
    """Goal: many small files hold to the rate, too. Method: 2,000 bodies a tenth longer than they said."""
    clock = VirtualClock()
    bandwidth = Bandwidth(RATE)

    async def go() -> None:
        for _ in range(2_000):
            body = PacedBody(bandwidth, clock, 4_000)
            await body.turn()
            await body.piece(4_000)
            await body.piece(400)

    clock.run(go)
    assert clock.elapsed() == pytest.approx(8.8, rel=0.02)


def test_without_a_limit_nothing_waits() -> None:
    """Goal: no limit costs no time. Method: virtual time does not pass."""
    assert run_uploads([5_000_000] * 10, rate=None).clock.elapsed() == 0


@pytest.mark.parametrize("rate", [0, -1, BYTES_PER_SECOND_MIN - 1])
def test_a_rate_that_would_break_time_limits_is_refused(rate: float) -> None:
    """Goal: no limit that fails uploads. Method: too small ones."""
    with pytest.raises(ValueError, match="at least"):
        Bandwidth(rate)


@hypothesis_settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3_000_000)), min_size=1, max_size=50))
def test_reservations_never_overlap(steps: list[tuple[float, int]]) -> None:
    """Goal: no byte is allowed twice. Method: any order of times and sizes."""
    bandwidth, now, end = Bandwidth(RATE), 0.0, 0.0
    for seconds, count in steps:
        now += seconds
        offset = bandwidth.reserve(count, now)
        assert offset >= end - 1e-6
        end = offset + count


def test_writes_start_at_what_every_bucket_can_take() -> None:
    """Goal: Google's guideline. Method: ask for 5,000 writes at once."""
    rate, now = WriteRate(), 100.0
    delays = [rate.reserve(now) for _ in range(5_000)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(5_000 / WRITES_PER_SECOND_START, abs=BURST_SECONDS + 0.01)


def test_writes_at_most_double_in_each_period() -> None:
    """Goal: as above, later. Method: a period at full rate, one at a tenth of it, one at rest."""
    rate, now = WriteRate(), 0.0
    while now <= DOUBLING_SECONDS:
        now += rate.reserve(now)
    rate.reserve(now)
    assert rate.writes_per_second == pytest.approx(2 * WRITES_PER_SECOND_START, rel=0.01)
    end = now + DOUBLING_SECONDS
    while now < end + 1:
        now += 0.01
        rate.reserve(now)
    assert rate.writes_per_second == WRITES_PER_SECOND_START


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30))
def test_updates_keep_their_distance_whenever_they_take_effect(durations: list[float]) -> None:
    """Goal: the service counts no more than is allowed.

    Method: updates of any length, each as soon as it may; those that can fall into one span are counted.
    """
    rate, now = UpdateRate(), 0.0
    spans = []
    for seconds in durations:
        while delay := rate.delay_seconds(now):
            assert delay <= WAIT_SECONDS_MAX
            now += delay
        spans.append((now, now + seconds))
        now += seconds
        rate.note(now)
    for begun, _ in spans:
        # What adds up to that span is rounded.
        since = begun - UPDATES_SECONDS + 1e-6
        together = [end for start, end in spans if start <= begun and end > since]
        assert len(together) <= UPDATES_LIMIT


def test_the_first_updates_do_not_wait() -> None:
    """Goal: a table is made and filled at once. Method: as many as are allowed, then one more, by its end."""
    rate = UpdateRate()
    for _ in range(UPDATES_LIMIT):
        assert rate.delay_seconds(100.0) == 0
        rate.note(100.0)
    assert rate.delay_seconds(100.0 + UPDATES_SECONDS - 0.1) == pytest.approx(0.1)
    assert rate.delay_seconds(100.0 + UPDATES_SECONDS) == 0
