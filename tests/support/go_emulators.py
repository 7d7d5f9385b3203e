"""What ``.ci/go_emulators.py`` has installed.

``PIXARIS_SYNC_TEST_GO_BIN`` names a folder with such programs to use instead, of whatever version.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FAKE_GCS_SERVER = "fake-gcs-server"
BIGQUERY_EMULATOR = "bigquery-emulator"
FOLDER_VARIABLE = "PIXARIS_SYNC_TEST_GO_BIN"

_INSTALLER = Path(__file__).parents[2] / ".ci" / "go_emulators.py"


@dataclass(frozen=True, slots=True)
class GoEmulator:
    """An emulator's program, or why there is none.

    Attributes:
        name: what the program is called.
        version: the pinned one, or where the program came from instead.
        program: its path; empty where there is none.
        reason: why there is none.
    """

    name: str
    version: str
    program: str
    reason: str

    @property
    def missing(self) -> str:
        """In plain words, that it is not there and why."""
        return f"{self.name} {self.version} is not installed: {self.reason}"


@functools.cache
def find(name: str) -> GoEmulator:
    """What there is of an emulator; nothing is installed."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        program = Path(folder) / name
        version = f"from {FOLDER_VARIABLE}"
        if program.is_file():
            return GoEmulator(name, version, str(program), "")
        return GoEmulator(name, version, "", "it is not in that folder")
    if not _INSTALLER.is_file():
        return GoEmulator(name, "", "", "what installs it does not come with this copy of the sources")
    told = subprocess.run(
        [sys.executable, str(_INSTALLER), "--status"], capture_output=True, check=True, timeout=60
    )
    return next(GoEmulator(**one) for one in json.loads(told.stdout) if one["name"] == name)
