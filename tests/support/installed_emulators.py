"""What ``.ci/emulators.py`` has installed.

``PIXARIS_SYNC_TEST_GO_BIN`` names a folder with programs written in Go to use instead, of whatever version.
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
LOCAL_BIGQUERY = "local-bigquery"
KUSTOMIZE = "kustomize"
NAMES = (FAKE_GCS_SERVER, BIGQUERY_EMULATOR, KUSTOMIZE, LOCAL_BIGQUERY)
WRITTEN_IN_GO = (FAKE_GCS_SERVER, BIGQUERY_EMULATOR, KUSTOMIZE)
FOLDER_VARIABLE = "PIXARIS_SYNC_TEST_GO_BIN"

_INSTALLER = Path(__file__).parents[2] / ".ci" / "emulators.py"


@dataclass(frozen=True, slots=True)
class InstalledEmulator:
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


def find(name: str) -> InstalledEmulator:
    """What there is of an emulator; nothing is installed."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and name in WRITTEN_IN_GO:
        program = Path(folder) / name
        version = f"from {FOLDER_VARIABLE}"
        if program.is_file():
            return InstalledEmulator(name, version, str(program), "")
        return InstalledEmulator(name, version, "", "it is not in that folder")
    if not _INSTALLER.is_file():
        return InstalledEmulator(name, "", "", "what installs it does not come with this copy of the sources")
    return next(emulator for emulator in _status() if emulator.name == name)


@functools.cache
def _status() -> list[InstalledEmulator]:
    told = subprocess.run(
        [sys.executable, str(_INSTALLER), "--status"], capture_output=True, check=True, timeout=60
    )
    return [InstalledEmulator(**one) for one in json.loads(told.stdout)]
