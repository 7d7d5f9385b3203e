"""One `sync` against the sandbox, and `verify`, under the Python that runs this. Usage: sync_once.py."""

# ruff: noqa: INP001, S603, T201 - a script of its own, which starts pixaris-sync and prints what it did

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from pixaris.experiment_handlers.local import LocalExperimentHandler

from pixaris_sync.sandbox.emulators import Sandbox

SECONDS_MAX = 120


def main() -> int:
    """Store one run as Pixaris does, sync it, and compare."""
    with tempfile.TemporaryDirectory() as scratch, Sandbox() as sandbox:
        local = Path(scratch, "local_results")
        local.mkdir()
        image = Image.new("RGB", (8, 8), "navy")
        LocalExperimentHandler(str(local)).store_results(
            "project", "dataset", "run", [(image, "image.png")], {"similarity": 0.5}, {"seed": 1}
        )
        environment = {
            **os.environ,
            **sandbox.environment,
            "PIXARIS_SYNC_LOCAL_RESULTS_FOLDER": str(local),
            "PIXARIS_SYNC_STATE_DIR": str(Path(scratch, "state")),
        }
        for command in ("sync", "verify"):
            told = subprocess.run(
                [sys.executable, "-m", "pixaris_sync", command],
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            if told.returncode != 0:
                print(f"{command} ended with {told.returncode}", told.stdout, told.stderr, sep="\n")
                return 1
            print(f"{command}: {told.stdout.splitlines()[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
