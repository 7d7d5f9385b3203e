"""When to try again."""

from email.utils import formatdate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.limits.backoff import (
    RETRY_AFTER_SECONDS_MAX,
    RETRY_AFTER_SPREAD,
    Backoff,
    retry_after_seconds,
)

NOW = 1_767_225_600.0
BACKOFF = Backoff(delay_seconds_min=1.0, delay_seconds_max=300.0)


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - tests are to be repeated


def asking(seconds: float | None) -> SyncError:
    return SyncError("do", "x", "busy", failure=Failure.QUOTA, retry_after_seconds=seconds)


@pytest.mark.parametrize(
    ("attempts", "most"), [(1, 1.0), (2, 2.0), (5, 16.0), (10, 300.0), (1_000_000, 300.0)]
)
def test_delays_double_up_to_the_cap(attempts: int, most: float) -> None:
    """Goal: rare in a long outage, never overflowing. Method: the range of many seeded draws."""
    drawn = [BACKOFF.delay_seconds(attempts, seeded(seed)) for seed in range(200)]
    assert most / 2 <= min(drawn) < most * 0.55
    assert most * 0.95 < max(drawn) <= most


@given(attempts=st.integers(1, 10_000), seed=st.integers(), asked=st.none() | st.floats(0, 10_000))
def test_a_delay_is_never_shorter_than_the_service_asks(
    attempts: int, seed: int, asked: float | None
) -> None:
    """Goal: Retry-After is kept up to a bound, and the cap otherwise. Method: any attempt, any wish."""
    delay = BACKOFF.delay_seconds(attempts, seeded(seed), asking(asked))
    obeyed = min(asked or 0.0, RETRY_AFTER_SECONDS_MAX)
    assert max(obeyed, 0.5) <= delay <= max(obeyed * (1 + RETRY_AFTER_SPREAD), 300.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        (formatdate(NOW + 100, usegmt=True), 100.0),
        (formatdate(NOW - 100, usegmt=True), 0.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("1e5", None),
        ("Wed, 99 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_a_retry_after_header_is_read_as_seconds_or_a_date(header: str, seconds: float | None) -> None:
    """Goal: what a service asks for is understood. Method: each kind of value, and nonsense."""
    assert retry_after_seconds(header, NOW) == seconds


def test_those_who_are_asked_to_wait_alike_do_not_come_back_together() -> None:
    """Goal: the next minute is no worse than this one. Method: a hundred who are asked to wait 10 minutes."""
    delays = [BACKOFF.delay_seconds(1, seeded(seed), asking(600.0)) for seed in range(100)]
    together = [sum(abs(one - other) <= 5.0 for other in delays) for one in delays]
    assert min(delays) >= 600.0
    assert max(together) < 20


def test_the_same_seed_gives_the_same_delay() -> None:
    """Goal: simulations can be replayed. Method: two generators of one seed."""
    one, two = (BACKOFF.delay_seconds(3, seeded(7)) for _ in range(2))
    assert one == two
