"""Seeded histories of a fleet: many machines, one destination, and all that Google allows to them together.

Set ``PIXARIS_SYNC_TEST_FLEET_HISTORIES`` for more of them; one is replayed, and a hundred machines are
simulated, by ``python -m tests.engine.simulate_fleet``.
"""

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from pixaris_sync.limits.fleet import Fleet, Turns
from tests.engine import simulate_fleet
from tests.engine.fleet import FleetHistory, run_history
from tests.support.proof_summary import Tell

HISTORIES = int(os.environ.get("PIXARIS_SYNC_TEST_FLEET_HISTORIES", "3"))
#: So many together are one test, so that a time limit for tests is one for few of them.
CHUNK = 10
#: So many have every kind of fault in them.
MANY = 100
#: What must have happened in many of them; one that never does proves nothing.
FAULTS = {
    "held_back",
    "lost_answer",
    "lost_ledger",
    "lost_load",
    "lost_upload",
    "queued_load",
    "quota",
    "restarted",
    "stall",
    "transient",
    "unknown_column",
}

fired: Counter[str] = Counter()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong in histories goes wrong on purpose."""
    caplog.set_level("CRITICAL")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_a_fleet_of_20_machines(first: int, tell: Tell) -> None:
    """Goal: many machines, one destination: every row once, no column lost or doubled, within all limits.

    Method: histories of 20 machines, one for each seed; see `FleetHistory`.
    """
    seeds = range(first, min(first + CHUNK, HISTORIES))
    refused = 0
    for seed in seeds:
        history = run_history(seed)
        fired.update(history.fired)
        refused += history.sink.refused_updates.total() + history.store.refused_writes
    tell("histories of 20 machines", {"histories": len(seeds), "refused for being too much": refused})


@pytest.mark.skipif(HISTORIES < MANY, reason="so few have not every kind of fault in them")
def test_each_kind_of_fault_fired_in_some_fleet() -> None:
    """Goal: the histories prove what they seem to. Method: what fired in all of them together."""
    assert not FAULTS - fired.keys()


@pytest.mark.usefixtures("quiet")
def test_a_fleet_whose_machines_ignore_their_shares_is_caught(folder: Path) -> None:
    """Goal: the histories prove what they seem to.

    Method: one in which each machine behaves as if it were alone. Backing off alone brings all rows, but the
    limits are passed, again and again.
    """
    history = FleetHistory(0, folder, shares=False)
    history.run()
    with pytest.raises(AssertionError, match="updates and"):
        history.check_limits()
    assert history.sink.refused_updates.total() > 30


@pytest.mark.usefixtures("quiet")
def test_columns_that_20_machines_add_at_once_are_added_once(folder: Path) -> None:
    """Goal: who comes later finds the columns. Method: a history; its ALTERs and CREATEs are counted.

    Each machine has columns that all have; were each to add them itself, there would be as many changes.
    """
    history = FleetHistory(7, folder)
    history.run()
    counts = history.sink.counts
    own_tables = sum(len(machine.local.runs) > 1 for machine in history.machines)
    assert counts["create_table"] + counts["add_columns"] - own_tables <= 8


@pytest.mark.usefixtures("quiet")
def test_a_history_replays_exactly(tmp_path: Path) -> None:
    """Goal: a failing seed can be looked into. Method: the same seed twice makes the same calls."""
    traces = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        history = FleetHistory(3, tmp_path / name, machines=6)
        history.run()
        traces.append([*history.store.calls, *history.sink.calls, history.clock.elapsed_seconds])
    assert traces[0] == traces[1]


def test_a_failing_history_is_told_with_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a failure in CI can be looked into. Method: two histories, of which one fails."""

    def run_or_fail(seed: int, *, machines: int) -> FleetHistory:
        assert seed != 8, "a row came twice"
        return run_history(seed, machines=machines)

    monkeypatch.setattr(simulate_fleet, "run_history", run_or_fail)
    lines: list[str] = []

    assert simulate_fleet.main(["--first", "7", "--histories", "2", "--machines", "3"], lines.append) == 1

    assert lines[0].startswith("history 7: 3 machines")
    assert any("a row came twice" in line for line in lines)
    assert lines[-1].endswith("simulate_fleet --first 8 --histories 1 --machines 3")


@pytest.mark.parametrize("size", [6, 20, 100, 1500])
def test_turns_of_all_machines_stay_below_what_a_table_takes(size: int) -> None:
    """Goal: shares without talking. Method: all want an update at once, and a second one afterwards.

    Those that come as the sixth within ten seconds are counted: few, however many machines there are.
    """
    chance = Random(size)  # noqa: S311 - a test's chance needs no secrecy
    updates = []
    for _ in range(size):
        turns, now = Turns(Fleet(size), chance), 0.0
        for _ in range(2):
            now = turns.next_at("t", now)
            assert turns.take("t", now)
            updates.append(now)
            turns.end("t", now, used=True)
    updates.sort()
    late = sum(second - first < 10.0 for first, second in zip(updates, updates[5:], strict=False))
    assert late <= max(2, 0.03 * len(updates))
    assert updates[-1] <= 3 * Fleet(size).turn_seconds
