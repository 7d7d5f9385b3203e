"""Installs the emulators that are written in Go, for the contract tests, into a cache outside the checkout.

Usage: python3 .ci/go_emulators.py            install what is missing; never more than INSTALL_SECONDS_MAX
       python3 .ci/go_emulators.py --status   tell what there is, as JSON; installs nothing

An emulator that cannot be had is no error here: the reason is told and kept, and the tests that need it
report that they were not run, and why. Each run tries again.

    ${XDG_CACHE_HOME:-~/.cache}/pixaris-sync/go-<Go's version>-<system>-<machine>/<emulator>@<version>/
        <emulator>     the program
        not-installed  why there is none
"""
# ruff: noqa: INP001, S603, T201 - a script of its own, which starts Go and prints what it did

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS_MAX = 300
GO_ANSWER_SECONDS = 30
REASON_CHARACTERS_MAX = 400
REASON_FILE = "not-installed"


@dataclass(frozen=True)
class Emulator:
    """A program to install: its name, the Go package it is built from, and the version that is tested."""

    name: str
    package: str
    version: str


#: The versions that are tested; deploy/compose.yaml starts these too.
EMULATORS = (
    Emulator("fake-gcs-server", "github.com/fsouza/fake-gcs-server", "v1.56.1"),
    Emulator("bigquery-emulator", "github.com/goccy/bigquery-emulator/cmd/bigquery-emulator", "v0.8.1"),
)


@dataclass(frozen=True)
class Toolchain:
    """Go's path, and the folder for what this Go builds for this machine."""

    go: str
    cache: Path


class NotInstalledError(Exception):
    """Why there is no program."""


def main(arguments: Sequence[str]) -> int:
    """Install, or tell what there is."""
    if arguments not in ([], ["--status"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        toolchain, unusable = find_toolchain(), ""
    except NotInstalledError as error:
        toolchain, unusable = None, str(error)
    if arguments:
        print(json.dumps([status(emulator, toolchain, unusable) for emulator in EMULATORS], indent=2))
        return 0
    deadline = time.monotonic() + INSTALL_SECONDS_MAX
    for emulator in EMULATORS:
        done = f"NOT INSTALLED: {unusable}" if toolchain is None else install(emulator, toolchain, deadline)
        print(f"{emulator.name} {emulator.version}: {done}", flush=True)
    return 0


def find_toolchain() -> Toolchain:
    """Find Go.

    Raises:
        NotInstalledError: there is none that works.
    """
    go = shutil.which("go")
    if go is None:
        raise NotInstalledError("Go is not installed")
    try:
        # Tried, not only looked up: a version manager's stand-in may be on the path and not work.
        told = subprocess.run(
            [go, "env", "GOVERSION", "GOOS", "GOARCH"],
            capture_output=True,
            text=True,
            check=True,
            timeout=GO_ANSWER_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalledError(f"Go does not work ({type(error).__name__})") from error
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    version, system, machine = told.stdout.split()
    folder = f"go-{version.removeprefix('go')}-{system}-{machine}"
    return Toolchain(go, Path(root) / "pixaris-sync" / folder)


def folder_of(emulator: Emulator, toolchain: Toolchain) -> Path:
    """Where an emulator's program is kept."""
    return toolchain.cache / f"{emulator.name}@{emulator.version}"


def status(emulator: Emulator, toolchain: Toolchain | None, unusable: str) -> Mapping[str, str]:
    """What there is of an emulator: the path of its program, or else the reason why there is none."""
    told = {"name": emulator.name, "version": emulator.version, "program": "", "reason": unusable}
    if toolchain is None:
        return told
    folder = folder_of(emulator, toolchain)
    if (folder / emulator.name).is_file():
        return {**told, "program": str(folder / emulator.name)}
    try:
        reason = (folder / REASON_FILE).read_text(encoding="utf-8")
    except OSError:
        reason = f"to install it: python3 .ci/{Path(__file__).name}"
    return {**told, "reason": reason}


def install(emulator: Emulator, toolchain: Toolchain, deadline: float) -> str:
    """Install an emulator where it is missing, and say what was done."""
    folder = folder_of(emulator, toolchain)
    if (folder / emulator.name).is_file():
        return f"installed before, in {folder}"
    begun = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            build(emulator, toolchain.go, folder, deadline)
        except NotInstalledError as error:
            (folder / REASON_FILE).write_text(str(error), encoding="utf-8")
            return f"NOT INSTALLED: {error}"
        (folder / REASON_FILE).unlink(missing_ok=True)
    except OSError as error:
        return f"NOT INSTALLED: the cache cannot be used: {error}"
    return f"installed in {time.monotonic() - begun:.0f} s, in {folder}"


def build(emulator: Emulator, go: str, folder: Path, deadline: float) -> None:
    """Let Go build an emulator; its program appears in the folder whole or not at all.

    Raises:
        NotInstalledError: Go refused, or was not done in time. What it has built until then it keeps, so that
            the next run goes on there.
        OSError: the folder cannot be used.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        process = subprocess.Popen(
            [go, "install", f"{emulator.package}@{emulator.version}"],
            cwd=scratch,
            env={**os.environ, "GOBIN": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Go's compilers are its children: they end with it.
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            raise NotInstalledError(
                f"it could not be built within {INSTALL_SECONDS_MAX} s; the next run goes on there"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode != 0:
            raise NotInstalledError(last_words(said) or f"go install ended with {process.returncode}")
        Path(scratch, emulator.name).replace(folder / emulator.name)


def last_words(said: str) -> str:
    """The end of what Go said, in one line, without its progress."""
    lines = [line.strip() for line in said.splitlines() if not line.startswith("go: downloading ")]
    return " ".join(" ".join(lines).split())[-REASON_CHARACTERS_MAX:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
