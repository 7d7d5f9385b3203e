"""A machine's share of what a fleet may use."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.limits.bandwidth import UPDATES_LIMIT, UPDATES_SECONDS, WRITES_PER_SECOND_START
from pixaris_sync.limits.fleet import MACHINES_MAX, TURN_PASSES_SECONDS, Fleet, Turns

LOADS_LIMIT = 1_000
SIZES = st.integers(1, MACHINES_MAX)


def turns(size: int, seed: int = 0) -> Turns:
    return Turns(Fleet(size), Random(seed))  # noqa: S311 - tests are to be repeated


def test_one_machine_alone_has_all_of_it() -> None:
    """Goal: whoever has one machine is as fast as before. Method: each share of a fleet of one."""
    alone = Fleet()
    assert (alone.loads_per_day(LOADS_LIMIT), alone.spacing_seconds(5.0)) == (LOADS_LIMIT, 5.0)
    assert alone.writes_per_second_start == WRITES_PER_SECOND_START
    assert (alone.updates_limit, alone.takes_turns, alone.turn_seconds) == (UPDATES_LIMIT, False, 0.0)
    assert turns(1).take("t", 100.0)


@given(SIZES)
def test_the_shares_of_all_are_no_more_than_what_there_is(size: int) -> None:
    """Goal: within the limits together. Method: each share, times the machines.

    A load job a day is the least, so that beyond a thousand machines the 1,500 that Google allows are used.
    """
    fleet = Fleet(size)
    assert 1 <= fleet.loads_per_day(LOADS_LIMIT) * size <= max(LOADS_LIMIT, size) <= 1_500
    assert fleet.writes_per_second_start * size == pytest.approx(WRITES_PER_SECOND_START)
    # Load jobs of all are as far apart as those of one alone.
    assert size / fleet.spacing_seconds(5.0) == pytest.approx(1 / 5.0)
    if fleet.takes_turns:
        a_turn_each = size / fleet.turn_seconds
        assert fleet.updates_limit * a_turn_each < UPDATES_LIMIT / UPDATES_SECONDS
    else:
        assert fleet.updates_limit * size <= UPDATES_LIMIT


@given(SIZES, st.integers(), st.lists(st.tuples(st.floats(0, 5_000), st.booleans()), max_size=20))
def test_turns_keep_their_distance_and_come(size: int, seed: int, waits: list[tuple[float, bool]]) -> None:
    """Goal: no machine has more turns than its share, and none waits for ever.

    Method: any sequence of waiting for the next turn and doing something else, with turns used and not.
    """
    fleet, its, now = Fleet(size), turns(size, seed), 0.0
    ended = -fleet.turn_seconds
    for wait, used in waits:
        now += wait
        at = its.next_at("t", now)
        assert at <= max(ended + fleet.turn_seconds, now + fleet.turn_seconds)
        now = max(now, at)
        assert its.next_at("t", now) <= now
        assert its.take("t", now)
        assert its.is_taken("t")
        assert now >= ended + fleet.turn_seconds - 1e-6
        its.end("t", now, used=used)
        if used:
            ended = now


def test_a_turn_that_has_passed_is_drawn_anew() -> None:
    """Goal: whoever was busy in its turn does not come together with others afterwards.

    Method: a turn that is taken late, by a little and by much.
    """
    its = turns(100)
    at = its.next_at("t", 0.0)
    assert its.next_at("t", at + TURN_PASSES_SECONDS - 1) == at
    later = its.next_at("t", at + TURN_PASSES_SECONDS + 1)
    assert later > at + TURN_PASSES_SECONDS + 1
    assert not its.take("t", later - 1)
    assert not its.is_taken("t")


def test_each_table_has_its_own_turns() -> None:
    """Goal: tables do not wait for each other. Method: a turn at one is taken; the other's comes as well."""
    its = turns(20)
    first, second = its.next_at("one", 0.0), its.next_at("other", 0.0)
    assert first != second
    assert its.take("one", first)
    its.end("one", first, used=True)
    assert its.next_at("other", 0.0) == second
