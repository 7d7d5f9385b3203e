"""Whatever a folder holds and whatever the locale is, no exception leaves a command."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Final

import pytest

from pixaris_sync.settings.model import environment_variable
from tests.fuzz.folder import HostileFolder
from tests.fuzz.test_hostile_folders import FIRST_SEED, HARMS, SECONDS

#: Without what Python does to help itself to UTF-8.
_UNHELPED: Final = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
#: Latin-1 is what streams have; few machines have such a locale.
_LOCALES: Final = (
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1:strict"},
    {"LC_ALL": "de_DE.ISO-8859-1", "LANG": "nonsense"},
)
#: In each folder one after the other, each in the next locale; and with which codes they may end.
_COMMANDS: Final = (
    ("sync --young-file-seconds 0 --incomplete-after-seconds 0", (3,)),
    ("status", (0,)),
    ("status --json", (0,)),
    ("backfill --dry-run", (0, 3)),
    ("verify", (1,)),
)
_HARMS: Final = (
    "odd run",
    "odd name of project",
    "odd name of dataset",
    "odd name of image",
    "odd saved file",
    "odd times",
    "taken apart",
    "names with slashes",
    "of the first versions",
    "datasets with slashes",
    "odd run names",
    "odd keys",
)
#: Of the time for fuzzing; a folder takes some seconds.
_SHARE: Final = 0.1


@pytest.mark.timeout(0)  # each command has its own limit
def test_no_exception_leaves_a_command(tmp_path: Path) -> None:
    """Goal: locales, times and names end no command with a traceback, and all that is sound is carried.

    Method: a folder with all harms of names and times; the real commands, each in another locale, on fakes.
    """
    seed, ends_at = int(FIRST_SEED or 0), time.monotonic() + SECONDS * _SHARE
    while True:
        folder = tmp_path / str(seed)
        try:
            _run_commands(folder, seed)
        except BaseException as error:
            error.add_note(
                f"replay: PIXARIS_SYNC_TEST_FUZZ_SEED={seed} PIXARIS_SYNC_TEST_FUZZ_SECONDS=0; see {folder}"
            )
            raise
        shutil.rmtree(folder)
        seed += 1
        if time.monotonic() >= ends_at:
            return


def _run_commands(folder: Path, seed: int) -> None:
    folder.mkdir()
    hostile = HostileFolder(folder, Random(seed))  # noqa: S311 - replayed by its seed
    for name in _HARMS:
        HARMS[name](hostile)
    settings = {
        "gcp_project_id": "gcp",
        "gcp_bq_experiment_dataset": "gcp.pixaris",
        "gcp_pixaris_bucket_name": "bucket",
        "local_results_folder": str(hostile.root),
        "state_dir": str(folder / "state"),
        "quiet": "false",
        "still_folder_seconds": "0",
    }
    environment = {environment_variable(key): value for key, value in settings.items()}
    for turn, (words, codes) in enumerate(_COMMANDS):
        locale = _LOCALES[(seed + turn) % len(_LOCALES)]
        outcome = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.command", *words.split()],
            env={**os.environ, **_UNHELPED, **locale, **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        told = f"{words} in {locale}: {outcome.returncode}\n{outcome.stdout!r}\n{outcome.stderr.decode()}"
        assert outcome.returncode in codes, told
        assert b"Traceback" not in outcome.stderr, told
        assert b"unexpected" not in outcome.stderr, told
        if words == "status --json":
            _check_carried(hostile, json.loads(outcome.stdout))


def _check_carried(hostile: HostileFolder, document: dict[str, dict[str, int]]) -> None:
    assert document["runs"]["synced"] >= len(hostile.sound)
