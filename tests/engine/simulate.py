"""Runs scenarios from seeds: some in the tests, and ``make simulate`` ever new ones until Ctrl+C.

Usage: python -m tests.engine.simulate [--first SEED] [--scenarios COUNT]

It begins at a seed that nobody has chosen. Now and then it tells how many scenarios were run and how many
faults fired in them; of each that fails, what went wrong and how to replay it. It ends with 1 if one failed,
or if a kind of fault never fired in very many.
"""

import argparse
import itertools
import logging
import secrets
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.engine.machine import in_memory_folder
from tests.engine.request_meter import RequestMeter
from tests.engine.scenario import Scenario

#: Every kind of fault that scenarios know. One that never fires proves nothing.
FAULTS = frozenset(
    {
        "bad_job",
        "billing_off_of_bucket",
        "billing_off_of_tables",
        "cancelled_load",
        "changed_image",
        "clock_jump",
        "copied_in",
        "copied_run",
        "corrected_cell",
        "crash_at_answer",
        "crash_at_begin",
        "crash_at_call",
        "crash_at_commit",
        "crash_at_step",
        "credentials",
        "cut_session",
        "damaged_image",
        "dataset_away",
        "default_column",
        "deleted_rows",
        "denied",
        "dropped_table",
        "emptied_table",
        "equal_lines",
        "expired_session",
        "few_open_files",
        "filled_column",
        "foreign_column",
        "foreign_table",
        "held_back_load",
        "held_back_stream",
        "hidden_rows",
        "job_failed",
        "list_denied",
        "lost_ledger",
        "lost_ledger_and_more",
        "lost_load",
        "lost_stream",
        "lost_upload",
        "lost_upload_resumable",
        "missing_file",
        "missing_images",
        "mount_away",
        "no_line",
        "odd_mtime",
        "older_ledger",
        "orphaned_load",
        "orphaned_stream",
        "orphaned_upload",
        "outage",
        "pass_without_credentials",
        "paused",
        "paused_at_end",
        "permission_lost_of_bucket",
        "permission_lost_of_tables",
        "proxy_page_of_bucket",
        "proxy_page_of_tables",
        "pruned_by_command",
        "pruned_run",
        "queued_load",
        "quota",
        "recreated_table",
        "removed_objects",
        "renamed_dataset",
        "renewed_credentials",
        "retyped_column",
        "running_load",
        "selection",
        "finished",
        "shared_folder",
        "stall",
        "stopped_rows",
        "swallowed",
        "torn_line",
        "transient",
        "unknown_column",
        "untold_checksum",
    }
)
#: So many scenarios have every kind of fault in them; the rarest of them is in one of two hundred.
ALL_FIRE_IN = 1000
#: Variable that replays one scenario in the tests.
REPLAY = "PIXARIS_SYNC_TEST_SIMULATION_SEED"
PROGRESS_SECONDS = 10.0
FIRST_SEED_MAX = 10**9


def run_scenario(seed: int) -> Scenario:
    """Run one scenario; whatever is wrong with it fails, with the seed in a note."""
    with in_memory_folder() as folder:
        scenario = Scenario(seed, folder)
        try:
            with RequestMeter(scenario.machine).measuring() as meter:
                scenario.run()
            meter.assert_within_limits()
        except Exception as error:
            error.add_note(f"this is scenario {seed}; replay it with {REPLAY}={seed}")
            raise
    return scenario


class Simulation:
    """Scenarios one after another, and what is told of them.

    Attributes:
        finished: how many scenarios were run, failed ones included.
        fired: how often each fault has fired.
        failed: the seeds of those that failed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.finished = 0
        self.fired: Counter[str] = Counter()
        self.failed: list[int] = []
        self._say = say
        self._begun_at = self._told_at = time.monotonic()

    def run(self, first: int, count: int | None) -> None:
        """Run `count` scenarios from the seed `first` on; None: for ever."""
        seeds = itertools.count(first) if count is None else range(first, first + count)
        for seed in seeds:
            try:
                self.fired.update(run_scenario(seed).fired)
            except Exception:  # noqa: BLE001 - whatever it is, it is told, and the next scenario comes
                self.failed.append(seed)
                self._say(f"{traceback.format_exc()}scenario {seed} FAILED; replay it with: {replay(seed)}")
            self.finished += 1
            if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
                self._told_at = time.monotonic()
                self._say(self.progress())

    def never_fired(self) -> list[str]:
        """Kinds of faults that should have fired by now and have not."""
        if self.finished < ALL_FIRE_IN:
            return []
        return sorted(kind for kind in FAULTS if not self.fired[kind])

    def progress(self) -> str:
        """How far it is, in one line."""
        seconds = time.monotonic() - self._begun_at
        kinds = sum(bool(self.fired[kind]) for kind in FAULTS)
        faults = f"{self.fired.total()} faults of {kinds} of {len(FAULTS)} kinds"
        return f"{seconds:.0f} s: {self.finished} scenarios, {faults} fired, {len(self.failed)} failed"


def replay(seed: int) -> str:
    """The command that replays a scenario with all its messages."""
    return f"{REPLAY}={seed} make test ARGS='tests/engine/test_simulation.py -k one_scenario'"


def told(fired: Mapping[str, int]) -> str:
    """Faults and how often each has fired, in the order of their names."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(fired.items()))


def main(arguments: Sequence[str], say: Callable[[str], None]) -> int:
    """Simulate until told to stop.

    Returns:
        The exit code: 1 if a scenario failed, or a kind of fault never fired.
    """
    parser = argparse.ArgumentParser(prog="simulate", description="Seeded scenarios until Ctrl+C.")
    parser.add_argument(
        "--first", type=int, help="the seed to begin with; else one by chance", metavar="SEED"
    )
    parser.add_argument("--scenarios", type=int, help="how many; else until stopped", metavar="COUNT")
    given = parser.parse_args(arguments)
    first = secrets.randbelow(FIRST_SEED_MAX) if given.first is None else given.first
    # What goes wrong in scenarios goes wrong on purpose.
    logging.disable(logging.CRITICAL)
    simulation = Simulation(say)
    say(f"scenarios from seed {first} on; stop with Ctrl+C")
    try:
        simulation.run(first, given.scenarios)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        logging.disable(logging.NOTSET)
    say(simulation.progress())
    say(f"faults: {told(simulation.fired)}")
    for seed in simulation.failed:
        say(f"scenario {seed} FAILED; replay it with: {replay(seed)}")
    if never := simulation.never_fired():
        say(f"never fired: {', '.join(never)}")
    return 1 if simulation.failed or never else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], lambda line: print(line, flush=True)))  # noqa: T201 - what it is for
