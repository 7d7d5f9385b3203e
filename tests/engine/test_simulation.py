"""Seeded scenarios: whatever happens, nothing is lost, nothing doubled, nothing claimed falsely.

Set ``PIXARIS_SYNC_TEST_SIMULATION_SEED`` to replay one scenario,
``PIXARIS_SYNC_TEST_SIMULATION_SCENARIOS`` for more of them,
``PIXARIS_SYNC_TEST_SIMULATION_FIRST`` for others.
"""

import os
from collections import Counter

import pytest

from tests.engine import simulate
from tests.engine.scenario import Scenario
from tests.engine.simulate import FAULTS, REPLAY, replay, run_scenario
from tests.support.proof_summary import Tell

REPLAYED = os.environ.get(REPLAY)
SCENARIOS = int(os.environ.get("PIXARIS_SYNC_TEST_SIMULATION_SCENARIOS", "30"))
FIRST = int(os.environ.get("PIXARIS_SYNC_TEST_SIMULATION_FIRST", "0"))
#: So many together are one test, so that a time limit for tests is one for few of them.
CHUNK = 50

fired: Counter[str] = Counter()


@pytest.mark.skipif(REPLAYED is not None, reason="one scenario is replayed")
@pytest.mark.parametrize("first", range(FIRST, FIRST + SCENARIOS, CHUNK))
def test_scenarios(first: int, caplog: pytest.LogCaptureFixture, tell: Tell) -> None:
    """Goal: the promise, over many scenarios. Method: one for each seed; see `Scenario`."""
    caplog.set_level("CRITICAL")
    seeds = range(first, min(first + CHUNK, FIRST + SCENARIOS))
    for seed in seeds:
        fired.update(run_scenario(seed).fired)
    tell("simulation", {"scenarios": len(seeds)})


@pytest.mark.skipif(REPLAYED is not None, reason="one scenario is replayed")
def test_faults_fired(tell: Tell) -> None:
    """Goal: the scenarios prove what they seem to. Method: nearly all kinds of faults, even in so few.

    That each has fired in very many, `make simulate` and CI see to.
    """
    if not fired:
        pytest.skip("the scenarios were not run")
    if SCENARIOS >= 150:
        assert sum(bool(fired[kind]) for kind in FAULTS) > 0.9 * len(FAULTS)
    tell("faults that fired in it", dict(sorted(fired.items())))


@pytest.mark.skipif(REPLAYED is None, reason="no scenario is replayed")
def test_one_scenario() -> None:
    """Goal: find out what went wrong.

    Method: the scenario of PIXARIS_SYNC_TEST_SIMULATION_SEED, with all its messages.
    """
    run_scenario(int(REPLAYED or 0))


def test_a_failing_scenario_is_told_with_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `make simulate` over night says in the morning what to look into.

    Method: three scenarios, of which one fails.
    """

    def run_or_fail(seed: int) -> Scenario:
        assert seed != 8, "a row came twice"
        return run_scenario(seed)

    monkeypatch.setattr(simulate, "run_scenario", run_or_fail)
    lines: list[str] = []

    assert simulate.main(["--first", "7", "--scenarios", "3"], lines.append) == 1

    assert any("a row came twice" in line for line in lines)
    assert "3 scenarios" in lines[-3]
    assert "1 failed" in lines[-3]
    assert lines[-1].endswith(replay(8))
    assert simulate.main(["--first", "7", "--scenarios", "1"], lines.append) == 0


def test_very_many_scenarios_without_a_kind_of_fault_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no fault drops out of the proof unseen. Method: two scenarios count as very many."""
    monkeypatch.setattr(simulate, "ALL_FIRE_IN", 2)
    lines: list[str] = []

    assert simulate.main(["--first", "7", "--scenarios", "2"], lines.append) == 1

    assert lines[-1].startswith("never fired: ")
    assert simulate.main(["--first", "7", "--scenarios", "1"], lines.append) == 0


@pytest.mark.parametrize("seed", [3, 35, 137])
def test_a_seed_replays_exactly(seed: int) -> None:
    """Goal: a failing seed can be looked into.

    Method: the same seed twice makes the same calls at the same times.
    """
    assert run_scenario(seed).trace == run_scenario(seed).trace
