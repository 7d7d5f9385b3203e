"""A training process: stores runs with the real LocalExperimentHandler, and ends with the last of them.

Usage: python -m tests.support.trainer RESULTS_FOLDER RUNS; prints each run's name.
"""

import sys
from pathlib import Path

from tests.support.stored_runs import store_run

IMAGES = 3

if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        run = store_run(Path(sys.argv[1]), f"run-{number}", images=IMAGES, args={"flow": {"number": number}})
        print(run.name)  # noqa: T201 - its answer
