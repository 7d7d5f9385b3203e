"""Runs histories of fleets: some in the tests, and by hand as many machines as are wanted.

Usage: python -m tests.engine.simulate_fleet [--machines COUNT] [--first SEED] [--histories COUNT]

It tells of each history what it came to, and of each that fails what went wrong and how to replay it. It ends
with 1 if one failed.
"""

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from tests.engine.fleet import MACHINES, replay, run_history
from tests.engine.simulate import told


def main(arguments: Sequence[str], say: Callable[[str], None]) -> int:
    """Simulate fleets.

    Returns:
        The exit code: 1 if a history failed.
    """
    parser = argparse.ArgumentParser(prog="simulate_fleet", description="Seeded histories of a fleet.")
    parser.add_argument("--machines", type=int, default=MACHINES, help="how many", metavar="COUNT")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with", metavar="SEED")
    parser.add_argument("--histories", type=int, default=1, help="how many", metavar="COUNT")
    given = parser.parse_args(arguments)
    # What goes wrong in histories goes wrong on purpose.
    logging.disable(logging.CRITICAL)
    failed = []
    try:
        for seed in range(given.first, given.first + given.histories):
            begun = time.monotonic()
            try:
                history = run_history(seed, machines=given.machines)
            except Exception:  # noqa: BLE001 - whatever it is, it is told, and the next history comes
                failed.append(seed)
                say(f"{traceback.format_exc()}history {seed} FAILED")
            else:
                seconds = time.monotonic() - begun
                say(f"history {seed}: {history.told()}, simulated in {seconds:.1f} s")
                say(f"  faults: {told(history.fired)}")
    finally:
        logging.disable(logging.NOTSET)
    for seed in failed:
        say(f"history {seed} FAILED; replay it with: {replay(seed, given.machines)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], lambda line: print(line, flush=True)))  # noqa: T201 - what it is for
