"""How ``.ci/go_emulators.py`` installs emulators: with stand-ins for Go, and without the network."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import go_emulators

INSTALLER = Path(__file__).parents[2] / ".ci" / "go_emulators.py"

pytestmark = pytest.mark.skipif(not INSTALLER.is_file(), reason="not part of this source distribution")

#: Answers `go env`, and installs a program named after the package's last part.
GO = """#!/bin/sh
[ "$1" = env ] && { echo go1.2.3; echo system; echo machine; exit; }
package=${2%@*}
echo "$2" >> "$GO_ASKED"
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


class Machine:
    """A machine with a stand-in for Go, or without any."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.cache, self.asked = folder / "bin", folder / "cache", folder / "asked"
        self.programs.mkdir()

    def has_go(self, script: str) -> str:
        program = self.programs / "go"
        program.write_text(script)
        program.chmod(0o755)
        return str(program)

    def run(self, *arguments: str) -> str:
        environment = {
            "PATH": f"{self.programs}:{os.defpath}" if any(self.programs.iterdir()) else str(self.programs),
            "XDG_CACHE_HOME": str(self.cache),
            "GO_ASKED": str(self.asked),
        }
        return subprocess.run(
            [sys.executable, INSTALLER, *arguments],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout

    def status(self) -> list[dict[str, str]]:
        told: list[dict[str, str]] = json.loads(self.run("--status"))
        return told


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_emulator_is_installed_once_at_its_version(machine: Machine) -> None:
    """Goal: pinned and cached. Method: install twice; Go was asked once for each version."""
    machine.has_go(GO)
    machine.run()
    assert machine.run().count("installed before") == 2
    asked = machine.asked.read_text().splitlines()
    for told, package in zip(machine.status(), asked, strict=True):
        assert package.endswith(f"/{told['name']}@{told['version']}")
        assert Path(told["program"]).read_text() == "made\n"
        assert f"{told['name']}@{told['version']}" in Path(told["program"]).parts
        assert Path(told["program"]).is_relative_to(
            machine.cache / "pixaris-sync" / "go-1.2.3-system-machine"
        )


def test_a_refusal_is_told_and_kept_and_is_no_error(machine: Machine) -> None:
    """Goal: what cannot be had is told, and why. Method: a Go that refuses, then one that works."""
    machine.has_go(GO_THAT_REFUSES)
    assert machine.run().count("NOT INSTALLED: go: it is not to be had") == 2
    assert [(told["program"], told["reason"]) for told in machine.status()] == [
        ("", "go: it is not to be had")
    ] * 2
    machine.has_go(GO)
    machine.run()
    assert all(told["program"] and not told["reason"] for told in machine.status())


def test_a_machine_without_go_is_told(machine: Machine) -> None:
    """Goal: no Go is no error. Method: a path without it."""
    assert machine.run().count("NOT INSTALLED: Go is not installed") == 2
    assert [told["reason"] for told in machine.status()] == ["Go is not installed"] * 2


def test_status_installs_nothing(machine: Machine) -> None:
    """Goal: the tests can ask at any time. Method: ask with an empty cache."""
    machine.has_go(GO)
    assert all(not told["program"] and "to install it" in told["reason"] for told in machine.status())
    assert not machine.asked.exists()


def test_a_build_ends_in_time_with_its_children(machine: Machine, tmp_path: Path) -> None:
    """Goal: CI is never held up. Method: a Go whose child sleeps on; the pipe that both hold is closed."""
    installer = load_installer()
    begun = time.monotonic()
    with pytest.raises(installer.NotInstalledError, match="could not be built within"):
        installer.build(installer.EMULATORS[0], machine.has_go(GO_THAT_HANGS), tmp_path, deadline=begun)
    assert time.monotonic() - begun < 30


def load_installer() -> Any:
    spec = importlib.util.spec_from_file_location("go_emulators_installer", INSTALLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_contract_suites_know_the_emulators_by_these_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a renamed emulator is noticed. Method: ask for both, as the suites do."""
    monkeypatch.delenv(go_emulators.FOLDER_VARIABLE, raising=False)
    for name in (go_emulators.FAKE_GCS_SERVER, go_emulators.BIGQUERY_EMULATOR):
        found = go_emulators.find.__wrapped__(name)
        assert found.name == name
        assert bool(found.program) != bool(found.reason)


def test_programs_of_another_folder_can_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: other versions can be tried. Method: name a folder that has one of the two."""
    (tmp_path / go_emulators.FAKE_GCS_SERVER).touch()
    monkeypatch.setenv(go_emulators.FOLDER_VARIABLE, str(tmp_path))
    found = go_emulators.find.__wrapped__(go_emulators.FAKE_GCS_SERVER)
    assert found.program == str(tmp_path / go_emulators.FAKE_GCS_SERVER)
    missing = go_emulators.find.__wrapped__(go_emulators.BIGQUERY_EMULATOR)
    assert not missing.program
    assert missing.reason
