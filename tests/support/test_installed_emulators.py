"""How ``.ci/emulators.py`` installs emulators: with stand-ins for Go and Python, and without the network."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import installed_emulators
from tests.support.installed_emulators import FAKE_GCS_SERVER, LOCAL_BIGQUERY, NAMES, WRITTEN_IN_GO

INSTALLER = Path(__file__).parents[2] / ".ci" / "emulators.py"

pytestmark = pytest.mark.skipif(not INSTALLER.is_file(), reason="not part of this source distribution")

#: Answers `go env`, and installs a program named after the package's last part that is no major version.
GO = """#!/bin/sh
[ "$1" = env ] && { echo go1.2.3; echo system; echo machine; exit; }
package=${2%@*}
package=${package%/v[0-9]}
echo "$2" >> "$ASKED"
echo made > "$GOBIN/${package##*/}"
"""
GO_THAT_REFUSES = """#!/bin/sh
[ "$1" = env ] && { echo go1.2.3; echo system; echo machine; exit; }
echo "go: downloading something" >&2
echo "go: it is not to be had" >&2
exit 1
"""
GO_THAT_HANGS = """#!/bin/sh
sleep 600 &
wait
"""
#: Says its version and path, makes environments of itself, and installs a program that tells its home.
PYTHON = """#!/bin/sh
case $1 in
    -I) echo 3.13.77 "$0" ;;
    -c) echo "extensions for $HOME" >> "$ASKED" ;;
    -m)
        echo "$2 $*" >> "$ASKED"
        case $2 in
            venv) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
            pip)
                printf '#!/bin/sh\\necho "$HOME" "$@"\\n' > "${0%/*}/local-bigquery"
                chmod +x "${0%/*}/local-bigquery"
                ;;
        esac
        ;;
esac
"""
PYTHON_THAT_REFUSES = PYTHON.replace("pip)", "pip) echo 'it is not to be had' >&2; exit 1;; x)")


class Machine:
    """A machine with stand-ins for Go and Python, or without any."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs, self.asked = folder, folder / "bin", folder / "asked"
        self.cache = folder / "cache"
        self.programs.mkdir()

    def has(self, name: str, script: str) -> str:
        program = self.programs / name
        program.write_text(script)
        program.chmod(0o755)
        return str(program)

    def run(self, *arguments: str) -> str:
        environment = {
            "PATH": f"{self.programs}:{os.defpath}" if any(self.programs.iterdir()) else str(self.programs),
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.cache),
            "ASKED": str(self.asked),
        }
        return subprocess.run(
            [sys.executable, INSTALLER, *arguments],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout

    def install(self) -> dict[str, str]:
        """What is said of each emulator."""
        said = (line.partition(": ") for line in self.run().splitlines())
        return {head.split()[0]: done for head, _, done in said}

    def status(self) -> dict[str, dict[str, str]]:
        told: list[dict[str, str]] = json.loads(self.run("--status"))
        return {one["name"]: one for one in told}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_emulator_in_go_is_installed_once_at_its_version(machine: Machine) -> None:
    """Goal: pinned and cached. Method: install twice; Go was asked once for each version."""
    machine.has("go", GO)
    machine.install()
    said = machine.install()
    asked = machine.asked.read_text().splitlines()
    for name, package in zip(WRITTEN_IN_GO, asked, strict=True):
        told = machine.status()[name]
        assert said[name].startswith("installed before")
        assert re.search(rf"/{name}(/v\d)?@{re.escape(told['version'])}$", package)
        assert Path(told["program"]).read_text() == "made\n"
        assert f"{name}@{told['version']}" in Path(told["program"]).parts
        assert Path(told["program"]).is_relative_to(
            machine.cache / "pixaris-sync" / "go-1.2.3-system-machine"
        )


def test_the_emulator_in_python_is_installed_once_from_its_lock(machine: Machine) -> None:
    """Goal: pinned by hashes, cached, and no other home than its own.

    Method: install twice, then start it; the stand-in was asked once for each step.
    """
    machine.has("python3.13", PYTHON)
    machine.install()
    assert machine.install()[LOCAL_BIGQUERY].startswith("installed before")
    told = machine.status()[LOCAL_BIGQUERY]
    folder = Path(told["program"]).parent
    assert folder.name.startswith(f"{LOCAL_BIGQUERY}@{told['version']}-")
    assert folder.parent.name.startswith("python-3.13.77-")
    assert folder.is_relative_to(machine.cache)
    venv, pip, extensions = machine.asked.read_text().splitlines()
    assert venv.endswith(f"--clear {folder / 'venv'}")
    assert "--require-hashes" in pip
    assert pip.endswith(str(Path("lock", f"{LOCAL_BIGQUERY}.txt")))
    assert extensions == f"extensions for {folder / 'home'}"
    said = subprocess.run([told["program"], "--port=1"], capture_output=True, check=True, text=True).stdout
    assert said == f"{folder / 'home'} --port=1\n"


@pytest.mark.parametrize(
    ("program", "refusing", "working", "names", "reason"),
    [
        ("go", GO_THAT_REFUSES, GO, WRITTEN_IN_GO, "go: it is not to be had"),
        ("python3.13", PYTHON_THAT_REFUSES, PYTHON, (LOCAL_BIGQUERY,), "it is not to be had"),
    ],
    ids=["go", "python"],
)
def test_a_refusal_is_told_and_kept_and_is_no_error(
    machine: Machine, program: str, refusing: str, working: str, names: tuple[str, ...], reason: str
) -> None:
    """Goal: what cannot be had is told, and why. Method: a stand-in that refuses, then one that works."""
    machine.has(program, refusing)
    said, told = machine.install(), machine.status()
    for name in names:
        assert said[name] == f"NOT INSTALLED: {reason}"
        assert (told[name]["program"], told[name]["reason"]) == ("", reason)
    machine.has(program, working)
    machine.install()
    told = machine.status()
    assert all(told[name]["program"] and not told[name]["reason"] for name in names)


def test_a_machine_without_go_and_such_a_python_is_told(machine: Machine) -> None:
    """Goal: what is missing is no error. Method: a path without anything."""
    reasons = {
        **dict.fromkeys(WRITTEN_IN_GO, "Go is not installed"),
        LOCAL_BIGQUERY: "there is no Python 3.13 (FileNotFoundError)",
    }
    assert machine.install() == {name: f"NOT INSTALLED: {reason}" for name, reason in reasons.items()}
    assert {name: told["reason"] for name, told in machine.status().items()} == reasons


def test_status_installs_nothing(machine: Machine) -> None:
    """Goal: the tests can ask at any time. Method: ask with an empty cache."""
    machine.has("go", GO)
    machine.has("python3.13", PYTHON)
    told = machine.status()
    assert tuple(told) == NAMES
    assert all(not one["program"] and "to install it" in one["reason"] for one in told.values())
    assert not machine.asked.exists()


def test_a_build_ends_in_time_with_its_children(machine: Machine, tmp_path: Path) -> None:
    """Goal: CI is never held up. Method: a Go whose child sleeps on; the pipe that both hold is closed."""
    installer = load_installer()
    begun = time.monotonic()
    with pytest.raises(installer.NotInstalledError, match="could not be built within"):
        installer.GO.build(
            installer.EMULATORS[0], machine.has("go", GO_THAT_HANGS), tmp_path, tmp_path, deadline=begun
        )
    assert time.monotonic() - begun < 30


def load_installer() -> Any:
    spec = importlib.util.spec_from_file_location("emulators_installer", INSTALLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_contract_suites_know_the_emulators_by_these_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a renamed emulator is noticed. Method: ask for all, as the suites do."""
    monkeypatch.delenv(installed_emulators.FOLDER_VARIABLE, raising=False)
    for name in NAMES:
        found = installed_emulators.find(name)
        assert found.name == name
        assert bool(found.program) != bool(found.reason)


def test_programs_of_another_folder_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: other versions can be tried. Method: name a folder that has one of those in Go."""
    (tmp_path / FAKE_GCS_SERVER).touch()
    monkeypatch.setenv(installed_emulators.FOLDER_VARIABLE, str(tmp_path))
    assert installed_emulators.find(FAKE_GCS_SERVER).program == str(tmp_path / FAKE_GCS_SERVER)
    missing = installed_emulators.find(WRITTEN_IN_GO[1])
    assert not missing.program
    assert missing.reason
