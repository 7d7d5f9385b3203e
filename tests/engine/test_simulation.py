"""Seeded histories: whatever happens, nothing is lost, nothing doubled, nothing claimed falsely.

Set ``PIXARIS_SYNC_SIMULATION_SEED`` to replay one history, ``PIXARIS_SYNC_SIMULATION_HISTORIES`` for more of
them, ``PIXARIS_SYNC_SIMULATION_FIRST`` for others.
"""

import os
from collections import Counter

import pytest

from tests.engine import simulate
from tests.engine.history import History
from tests.engine.simulate import FAULTS, REPLAY, live, replay
from tests.support.proofs import Tell

REPLAYED = os.environ.get(REPLAY)
HISTORIES = int(os.environ.get("PIXARIS_SYNC_SIMULATION_HISTORIES", "150"))
FIRST = int(os.environ.get("PIXARIS_SYNC_SIMULATION_FIRST", "0"))
#: So many together are one test, so that a time limit for tests is one for few of them.
CHUNK = 50

happened: Counter[str] = Counter()


@pytest.mark.skipif(REPLAYED is not None, reason="one history is replayed")
@pytest.mark.parametrize("first", range(FIRST, FIRST + HISTORIES, CHUNK))
def test_histories(first: int, caplog: pytest.LogCaptureFixture, tell: Tell) -> None:
    """Goal: the promise, over many histories. Method: one for each seed; see `History`."""
    caplog.set_level("CRITICAL")
    seeds = range(first, min(first + CHUNK, FIRST + HISTORIES))
    for seed in seeds:
        happened.update(live(seed).happened)
    tell("simulation", {"histories": len(seeds)})


@pytest.mark.skipif(REPLAYED is not None, reason="one history is replayed")
def test_every_fault_struck(tell: Tell) -> None:
    """Goal: the histories prove what they seem to. Method: each kind of fault must have struck in them."""
    if not happened:
        pytest.skip("the histories were not run")
    if HISTORIES >= 150:
        assert {kind for kind in FAULTS if not happened[kind]} == set()
    tell("faults that struck in it", dict(sorted(happened.items())))


@pytest.mark.skipif(REPLAYED is None, reason="no history is replayed")
def test_one_history() -> None:
    """Goal: find out what went wrong.

    Method: the history of PIXARIS_SYNC_SIMULATION_SEED, with all its messages.
    """
    live(int(REPLAYED or 0))


def test_a_failing_history_is_told_with_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `make simulate` over night says in the morning what to look into.

    Method: three histories, of which one fails.
    """

    def live_or_fail(seed: int) -> History:
        assert seed != 8, "a row came twice"
        return live(seed)

    monkeypatch.setattr(simulate, "live", live_or_fail)
    lines: list[str] = []

    assert simulate.main(["--first", "7", "--histories", "3"], lines.append) == 1

    assert any("a row came twice" in line for line in lines)
    assert "3 histories" in lines[-3]
    assert "1 failed" in lines[-3]
    assert lines[-1].endswith(replay(8))
    assert simulate.main(["--first", "7", "--histories", "1"], lines.append) == 0


@pytest.mark.parametrize("seed", [3, 35, 137])
def test_a_seed_replays_exactly(seed: int) -> None:
    """Goal: a failing seed can be looked into.

    Method: the same seed twice makes the same calls at the same times.
    """
    assert live(seed).trace == live(seed).trace
