"""Installs programs that others have written, for the tests, into a cache outside the checkout.

Most are emulators, for the contract tests; kustomize builds what stands in deploy/kubernetes.

Usage: python3 .ci/emulators.py            install what is missing; never more than INSTALL_SECONDS_MAX
       python3 .ci/emulators.py --status   tell what there is, as JSON; installs nothing

Some are built by Go, one runs on a Python of its own. An emulator that cannot be had is no error here: the
reason is told and kept, and the tests that need it report that they were not run, and why. Each run tries
again.

    ${XDG_CACHE_HOME:-~/.cache}/pixaris-sync/<language>-<its version>-<system>-<machine>/<emulator>@<version>/
        <emulator>     the program
        not-installed  why there is none
"""
# ruff: noqa: INP001, S603, T201 - a script of its own, which starts Go and Python and prints what it did

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

INSTALL_SECONDS_MAX = 300
ANSWER_SECONDS = 30
REASON_CHARACTERS_MAX = 400
REASON_FILE = "not-installed"

HERE = Path(__file__).parent

#: Puts the extensions that came as packages where DuckDB looks for them; from the network it takes none then.
INSTALL_EXTENSIONS = """
import pathlib, sysconfig, duckdb
with duckdb.connect() as connection:
    for path in pathlib.Path(sysconfig.get_path("purelib")).glob("duckdb_extension_*/extensions/*/*"):
        connection.install_extension(str(path))
"""


class NotInstalledError(Exception):
    """Why there is no program."""


@dataclass(frozen=True)
class Toolchain:
    """What installs: the path of its program, and what its cache is called."""

    program: str
    name: str


class Language(Protocol):
    """A way to install."""

    def find(self) -> Toolchain:
        """Find what installs.

        Raises:
            NotInstalledError: there is none that works.
        """
        ...

    def build(self, emulator: "Emulator", program: str, folder: Path, scratch: Path, deadline: float) -> Path:
        """Make an emulator's program in `scratch`, and what belongs to it in `folder`; return its path.

        Raises:
            NotInstalledError: it is refused, or was not done in time.
            OSError: a folder cannot be used.
        """
        ...


class Go:
    """Emulators that Go builds; what it has built when time is up it keeps for the next run."""

    def find(self) -> Toolchain:
        """See `Language.find`."""
        go = shutil.which("go")
        if go is None:
            raise NotInstalledError("Go is not installed")
        # Tried, not only looked up: a version manager's stand-in may be on the path and not work.
        said = _answer([go, "env", "GOVERSION", "GOOS", "GOARCH"], "Go does not work")
        version, system, machine = said.split()
        return Toolchain(go, f"go-{version.removeprefix('go')}-{system}-{machine}")

    def build(self, emulator: "Emulator", program: str, folder: Path, scratch: Path, deadline: float) -> Path:
        """See `Language.build`."""
        del folder
        _run(
            [program, "install", f"{emulator.source}@{emulator.version}"],
            deadline,
            scratch,
            {"GOBIN": str(scratch)},
        )
        return scratch / emulator.name


class Python:
    """Emulators in an environment of their own, made of a file of .ci/lock, on this version of Python."""

    def __init__(self, version: str) -> None:
        self._version = version

    def find(self) -> Toolchain:
        """See `Language.find`."""
        missing = f"there is no Python {self._version}"
        for line in _answer(["sh", str(HERE / "find-every-python"), self._version], missing).splitlines():
            version, _, path = line.partition(" ")
            if version.startswith(f"{self._version}."):
                return Toolchain(path, f"python-{version}-{platform.system().lower()}-{platform.machine()}")
        raise NotInstalledError(missing)

    def build(self, emulator: "Emulator", program: str, folder: Path, scratch: Path, deadline: float) -> Path:
        """See `Language.build`."""
        venv, home = folder / "venv", folder / "home"
        home.mkdir(exist_ok=True)
        python = str(venv / "bin" / "python")
        _run([program, "-m", "venv", "--clear", str(venv)], deadline, scratch)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
        _run([*pip, "--requirement", str(HERE / "lock" / emulator.source)], deadline, scratch)
        _run([python, "-c", INSTALL_EXTENSIONS], deadline, scratch, {"HOME": str(home)})
        script = scratch / emulator.name
        started = shlex.quote(str(venv / "bin" / emulator.name))
        script.write_text(f'#!/bin/sh\nHOME={shlex.quote(str(home))} exec {started} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        return script


@dataclass(frozen=True)
class Emulator:
    """A program to install.

    Attributes:
        name: what it is called.
        version: the one that is tested.
        source: the Go package that it is built from, or the file of .ci/lock that it is made of.
        language: how it is installed.
        edition: what else its folder is called after: what it is made of may change while its version stays.
    """

    name: str
    version: str
    source: str
    language: Language
    edition: str = ""


def locked(name: str, python: str) -> Emulator:
    """The emulator of this name, of the version in its file of .ci/lock."""
    source = f"{name}.txt"
    content = (HERE / "lock" / source).read_text(encoding="utf-8")
    [version] = re.findall(rf"^{name}==(\S+)", content, re.MULTILINE)
    edition = hashlib.sha256((content + INSTALL_EXTENSIONS).encode()).hexdigest()[:8]
    return Emulator(name, version, source, Python(python), edition=f"-{edition}")


GO = Go()
#: The versions that are tested; deploy/compose.yaml starts the first one too.
EMULATORS = (
    Emulator("fake-gcs-server", "v1.56.1", "github.com/fsouza/fake-gcs-server", GO),
    Emulator("bigquery-emulator", "v0.8.1", "github.com/goccy/bigquery-emulator/cmd/bigquery-emulator", GO),
    Emulator("kustomize", "v5.8.0", "sigs.k8s.io/kustomize/kustomize/v5", GO),
    # The newest whose DuckDB has its extensions as packages; it takes no newer Python.
    locked("local-bigquery", python="3.13"),
)


def main(arguments: Sequence[str]) -> int:
    """Install, or tell what there is."""
    if arguments not in ([], ["--status"]):
        print(__doc__, file=sys.stderr)
        return 2
    toolchains: dict[Language, Toolchain | NotInstalledError] = {}
    for emulator in EMULATORS:
        if emulator.language not in toolchains:
            try:
                toolchains[emulator.language] = emulator.language.find()
            except NotInstalledError as error:
                toolchains[emulator.language] = error
    if arguments:
        told = [status(emulator, toolchains[emulator.language]) for emulator in EMULATORS]
        print(json.dumps(told, indent=2))
        return 0
    deadline = time.monotonic() + INSTALL_SECONDS_MAX
    for emulator in EMULATORS:
        done = install(emulator, toolchains[emulator.language], deadline)
        print(f"{emulator.name} {emulator.version}: {done}", flush=True)
    return 0


def folder_of(emulator: Emulator, toolchain: Toolchain) -> Path:
    """Where an emulator's program is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = f"{emulator.name}@{emulator.version}{emulator.edition}"
    return Path(root) / "pixaris-sync" / toolchain.name / kept


def status(emulator: Emulator, toolchain: Toolchain | NotInstalledError) -> Mapping[str, str]:
    """What there is of an emulator: the path of its program, or else the reason why there is none."""
    told = {"name": emulator.name, "version": emulator.version, "program": "", "reason": ""}
    if isinstance(toolchain, NotInstalledError):
        return {**told, "reason": str(toolchain)}
    folder = folder_of(emulator, toolchain)
    if (folder / emulator.name).is_file():
        return {**told, "program": str(folder / emulator.name)}
    try:
        reason = (folder / REASON_FILE).read_text(encoding="utf-8")
    except OSError:
        reason = f"to install it: python3 .ci/{Path(__file__).name}"
    return {**told, "reason": reason}


def install(emulator: Emulator, toolchain: Toolchain | NotInstalledError, deadline: float) -> str:
    """Install an emulator where it is missing, and say what was done."""
    if isinstance(toolchain, NotInstalledError):
        return f"NOT INSTALLED: {toolchain}"
    folder = folder_of(emulator, toolchain)
    if (folder / emulator.name).is_file():
        return f"installed before, in {folder}"
    begun = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = emulator.language.build(emulator, toolchain.program, folder, Path(scratch), deadline)
                # Last, so that it is there whole or not at all.
                made.replace(folder / emulator.name)
        except NotInstalledError as error:
            (folder / REASON_FILE).write_text(str(error), encoding="utf-8")
            return f"NOT INSTALLED: {error}"
        (folder / REASON_FILE).unlink(missing_ok=True)
    except OSError as error:
        return f"NOT INSTALLED: the cache cannot be used: {error}"
    return f"installed in {time.monotonic() - begun:.0f} s, in {folder}"


def _answer(command: Sequence[str], refusal: str) -> str:
    """What a command says that only looks.

    Raises:
        NotInstalledError: with this `refusal`: it cannot be started, failed or did not end.
    """
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalledError(f"{refusal} ({type(error).__name__})") from error
    return told.stdout


def _run(
    command: Sequence[str], deadline: float, folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command that builds, in a folder; its children end with it.

    Raises:
        NotInstalledError: it failed, or was not done in time.
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        raise NotInstalledError(
            f"it could not be built within {INSTALL_SECONDS_MAX} s; the next run tries again"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise NotInstalledError(
            last_words(said) or f"{Path(command[0]).name} ended with {process.returncode}"
        )


def last_words(said: str) -> str:
    """The end of what a command said, in one line, without its progress."""
    lines = [line.strip() for line in said.splitlines() if not line.startswith("go: downloading ")]
    return " ".join(" ".join(lines).split())[-REASON_CHARACTERS_MAX:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
