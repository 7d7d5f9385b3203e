"""What nobody thought of: it quarantines what it struck, with a report, and nothing else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.ledger import intake
from pixaris_sync.ledger.retry import retry_runs
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.pipeline import deliveries, lane
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine

IMAGE = "generated_images/image0.png"
ODD = "odd"


def odd(name: str) -> None:
    if name.endswith(ODD):
        raise ZeroDivisionError("nobody thought of this")


def strike(patch: pytest.MonkeyPatch, owner: object, name: str, run_of: Callable[..., str]) -> None:
    """Let a function raise for the odd run."""
    original = getattr(owner, name)

    def struck(*args: Any, **kwargs: Any) -> Any:
        odd(run_of(*args))
        return original(*args, **kwargs)

    patch.setattr(owner, name, struck)


STRIKES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "looked at": lambda patch: strike(patch, LocalResults, "inspect", lambda _self, run, *_: run.run),
    "taken in": lambda patch: strike(patch, intake, "_take_in_new", lambda *args: args[4]),
    "uploaded": lambda patch: strike(patch, lane, "carry", lambda _context, task, _read: task.run.run),
    "mapped": lambda patch: strike(patch, deliveries, "map_row", lambda row, _: row.run.run),
}


@pytest.mark.parametrize("where", STRIKES)
def test_one_odd_run_is_quarantined_with_a_report(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Goal: whatever nobody thought of stops one run, for as long as it lasts.

    Method: three runs, in the middle of whose way one raises; `retry`, while it still does, and when not.
    """
    runs = [machine.local.store(name=name) for name in ("first", ODD, "last")]
    machine.local.store(dataset="other")
    with monkeypatch.context() as patch:
        STRIKES[where](patch)
        assert machine.run_pass().quarantined == 1
        assert machine.release() == 1
        assert machine.run_pass().quarantined == 1

        state, cause = machine.state_of(runs[1])
        assert state == "quarantined"
        assert "ZeroDivisionError: nobody thought of this" in cause
        assert [machine.state_of(run)[0] for run in (runs[0], runs[2])] == ["synced", "synced"]
        [report] = (machine.ledger_path.parent / "reports").iterdir()
        assert "ZeroDivisionError" in report.read_text()
        assert str(report) in hint_of(machine, runs[1])

    assert machine.release() == 1
    machine.run_pass()
    machine.check_everything_arrived()


def hint_of(machine: Machine, run: StoredRun) -> str:
    [problem] = [one for one in machine.check().problems if one.run == str(run.key)]
    return problem.hint


def test_a_record_that_the_ledger_cannot_take_is_a_damaged_line(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: not even the ledger's own oddities stop others. Method: a record that cannot be taken in."""
    for name in ("first", ODD, "last"):
        machine.local.store(name=name)
    with monkeypatch.context() as patch:
        strike(patch, intake, "_take_in_record", lambda *args: args[4].record.run.run)
        machine.run_pass()
        found = machine.check()
        assert found.runs["synced"] == 2
        [problem] = [one for one in found.problems if one.state == "quarantined"]
        assert "ZeroDivisionError" in problem.cause

    with machine.ledger() as ledger:
        ledger.write(lambda db: retry_runs(db, machine.clock.now(), None))
    machine.run_pass()
    machine.check_everything_arrived()


@pytest.mark.parametrize("year", [1, 1900, 2263, 2400, 9999])
def test_files_of_odd_times_are_carried(machine: Machine, year: int) -> None:
    """Goal: a time is a stamp, whatever it says. Method: times before and beyond what 64 bits hold in ns."""
    run = machine.local.store()
    set_year(machine.local.path(run, IMAGE), year)
    machine.clock.let_pass(machine.settings.young_file_seconds)

    machine.run_pass()

    machine.check_everything_arrived()


def set_year(path: Path, year: int) -> None:
    """Set a file's mtime; a file system that cannot hold it takes the nearest one it can."""
    seconds = int((year - 1970) * 365.2425 * 86400)
    os.utime(path, ns=(0, seconds * 10**9 + 1))
