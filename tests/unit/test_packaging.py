"""What is around the package: versions that agree, containers that fit it, files that are there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import pixaris_sync
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.support.emulators import FAKE_GCS_SERVER_FLAGS
from tests.support.installed_emulators import LOCAL_BIGQUERY

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = REPOSITORY / ".ci" / "lock"
DIRECT: dict[str, list[str]] = {
    "dependencies": PROJECT["project"]["dependencies"],
    **PROJECT["project"]["optional-dependencies"],
    **PROJECT["dependency-groups"],
}
#: The first versions without a hole that is known, of those that we name ourselves.
MENDED = {
    "aiohttp": "3.14.3",
    "gradio": "6.7",
    "pillow": "12.3.0",
    "pip": "26.1",
    "pytest": "9.0.3",
    "pyyaml": "5.4",
    "uv": "0.11.6",
}
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
VARIABLES = {environment_variable(key) for key in SETTINGS}
#: Names at the top level that are no dotfiles.
TOP = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "pixaris_sync",
    "pyproject.toml",
    "systemd",
    "tests",
}


def test_the_change_log_tells_of_this_version() -> None:
    """Goal: no release without a word about it. Method: the version is a heading of the change log."""
    headings = re.findall(
        r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == pixaris_sync.__version__


def test_everything_is_locked_with_hashes_and_from_nowhere() -> None:
    """Goal: nobody slips in another file. Method: each requirement has one version, hashes and no address."""
    for path in LOCK.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://|^-", text, re.MULTILINE), path.name
        for requirement, hashes in _locked(text):
            assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
            assert hashes, requirement


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.11.3", "3.12.1", "3.13.0", "3.14.0"])
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("run", ("dependencies",)),
        ("sandbox", ("dependencies", "sandbox")),
        ("ui", ("dependencies", "ui")),
        ("dev", ("dependencies", "sandbox", "dev", "pixaris", "tools")),
        ("bench", ("bench",)),
        ("release", ("release",)),
        ("tools", ("tools",)),
    ],
)
def test_each_python_gets_one_version_within_the_bounds(
    name: str, groups: tuple[str, ...], python: str
) -> None:
    """Goal: set-up works from 3.11.0 on. Method: markers of each file, against pyproject.toml."""
    versions = _versions(name, python)
    for group in groups:
        for line in DIRECT[group]:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(_environment(python)):
                assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), line


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.1", "3.13.0", "3.14.0"])
def test_all_files_of_the_lock_are_of_one_resolution(python: str) -> None:
    """Goal: what is tested is what is installed. Method: a package has the same version in every file.

    But in that of the emulator that has an environment of its own.
    """
    versions: dict[str, str] = {}
    for path in set(LOCK.glob("*.txt")) - {LOCK / f"{LOCAL_BIGQUERY}.txt"}:
        for name, version in _versions(path.stem, python).items():
            assert versions.setdefault(name, version) == version, (path.name, name)


def _locked(text: str) -> list[tuple[Requirement, list[str]]]:
    entries = re.findall(r"^([^\s#][^\\\n]*)((?:\\\n +--hash=\S+ ?)*)", text, re.MULTILINE)
    return [
        (Requirement(line), re.findall(r"--hash=(sha256:[0-9a-f]{64})\b", rest)) for line, rest in entries
    ]


def _environment(python: str) -> dict[str, str]:
    """What markers are told of a Python on Linux."""
    return {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
    }


def _versions(name: str, python: str) -> dict[str, str]:
    """What a Python on Linux is given: the version of each package, which may not have two."""
    environment = _environment(python)
    versions: dict[str, str] = {}
    for requirement, _ in _locked((LOCK / f"{name}.txt").read_text(encoding="utf-8")):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            package = canonicalize_name(requirement.name)
            assert package not in versions, package
            versions[package] = str(requirement.specifier).removeprefix("==")
    return versions


def test_a_release_has_the_same_bytes_in_every_folder(tmp_path: Path) -> None:
    """Goal: anybody can check a release. Method: two folders, files of other times and modes."""
    built = []
    for number in (1, 2):
        folder = tmp_path / f"folder-{number}"
        _copy_sources(folder, mode=0o600 + 0o44 * (number - 1), seconds=10**9 * number)
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "--directory", "dist"],
            cwd=folder,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            capture_output=True,
            check=True,
            timeout=60,
        )
        built.append({path.name: path.read_bytes() for path in (folder / "dist").iterdir()})
    assert sorted(Path(name).suffix for name in built[0]) == [".gz", ".whl"]
    assert built[0] == built[1]


def _copy_sources(folder: Path, *, mode: int, seconds: int) -> None:
    files = [REPOSITORY / name for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE")]
    files += [path for path in (REPOSITORY / "pixaris_sync").rglob("*") if path.is_file()]
    for path in files:
        copy = folder / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(mode)
        os.utime(copy, (seconds, seconds))


#: The cause of a failure, what uv or pip says of it, and what is made of that.
FAILURES = {
    "another file": (
        "error: Failed to download `py-spy==0.4.3`\n  cause: Hash mismatch for `py-spy==0.4.3`",
        "cannot install py-spy==0.4.3 into VENV: the file is not the one that was locked",
    ),
    "no network": (
        "  cause: Failed to fetch: PLACE/simple/aiohttp/\n  cause: error sending request for url",
        "cannot install aiohttp into VENV: the package index cannot be reached",
    ),
    "no trust": (
        "  cause: Failed to fetch: PLACE/simple/aiohttp/\n  cause: invalid peer certificate: UnknownIssuer",
        "cannot install aiohttp into VENV: the certificate of the package index is not trusted",
    ),
    "no wheel": (
        "error: Failed to build `uvloop==0.23.0`\n  cause: The build backend returned an error",
        "cannot install uvloop==0.23.0 into VENV: there is nothing ready-made for Python",
    ),
    "anything": ("error: it rains", "cannot install the packages of .ci/lock/bench.txt into VENV: see above"),
}


@pytest.mark.parametrize(("said", "meant"), FAILURES.values(), ids=FAILURES)
def test_a_failed_install_says_which_package_and_what_to_do(tmp_path: Path, said: str, meant: str) -> None:
    """Goal: nobody is left alone with it. Method: a stand-in for uv fails; what it said is shown as well."""
    programs = tmp_path / "bin"
    programs.mkdir()
    # It installs uv, which is there, and does anything else as the real one.
    _write_program(programs / "python", f'[ "$1" = -m ] || exec "{sys.executable}" "$@"\n')
    _write_program(programs / "uv", f"cat >&2 <<'END'\n{said}\nEND\nexit 1\n")
    done = subprocess.run(
        ["/bin/sh", ".ci/install", tmp_path, "bench"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert said in done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: " + meant.replace("VENV", str(tmp_path)))
    assert hint.startswith("hint: ")


def _write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def test_the_bounds_admit_no_version_with_a_known_hole() -> None:
    """Goal: no user is given a hole that is known. Method: the first versions without, against the bounds."""
    for name, version in MENDED.items():
        for group in DIRECT.values():
            for requirement in map(Requirement, group):
                if canonicalize_name(requirement.name) == name:
                    [bound] = [each for each in requirement.specifier if each.operator == ">="]
                    assert Version(bound.version) >= Version(version), name


def test_the_versions_of_python_are_those_that_are_tested() -> None:
    """Goal: no claim without a proof. Method: classifiers against what is looked for and required."""
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    finder = (REPOSITORY / ".ci" / "find-python").read_text(encoding="utf-8")
    [tried] = re.findall(r"for candidate in \$\{1:-(.*) python3\}", finder)
    assert [f"python{version}" for version in reversed(claimed)] == tried.split()
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"


def test_the_containers_copy_what_is_there_and_run_as_no_root() -> None:
    """Goal: a Dockerfile that builds. Method: its sources exist and are let in; there is a user."""
    let_in = [
        line.removeprefix("!")
        for line in (REPOSITORY / "deploy" / "Dockerfile.dockerignore")
        .read_text(encoding="utf-8")
        .splitlines()
        if line.startswith("!")
    ]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sorted(source.removeprefix("./") for source in copied) == sorted(let_in)
    assert all((REPOSITORY / source).exists() for source in copied)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    parents = {stage: parent for parent, stage in stages}
    assert parents["sandbox"] == parents["service"] == "base"
    base = DOCKERFILE.split(" AS base")[1].split("\nFROM ")[0]
    assert re.search(r"^USER \d+$", base, re.MULTILINE)


def test_the_image_depends_on_nothing_but_its_sources() -> None:
    """Goal: the same image again. Method: what makes builds differ, in each step of the Dockerfile.

    The base image is named in one place, so that its digest can be given; whatever is installed is locked by
    hashes or was built here; no caches; nothing compiled that depends on the times of files.
    """
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert set(bases) - stages == {"${PYTHON_IMAGE}"}
    steps = re.findall(r"^RUN (.*)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)
    commands = [command.strip() for step in steps for command in step.split("&&")]
    installs = [one for one in commands if re.search(r"\bpip .*\b(install|sync|wheel)\b", one)]
    assert len(installs) == 5
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install
        assert install.startswith("uv ") or "--no-cache-dir" in install
    assert "UV_NO_CACHE=1" in DOCKERFILE
    compiled = [one for one in commands if "compileall" in one]
    assert len(compiled) == 2
    assert all("--invalidation-mode unchecked-hash" in one for one in compiled)
    assert not re.search(r"\b(apt|apt-get|useradd|curl|wget)\b|UV_COMPILE_BYTECODE", DOCKERFILE)


def test_the_image_has_a_health_check_and_a_state_for_any_user() -> None:
    """Goal: a read-only root, any user. Method: who may write the state, the home, and what is asked."""
    base, service = (DOCKERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0] for name in ("base", "service"))
    assert "install -d -m 0770 -o 10001 -g 0 /var/lib/pixaris-sync" in base
    assert "HOME=/var/lib/pixaris-sync" in base
    assert re.search(r"^HEALTHCHECK .*/healthz", service, re.MULTILINE | re.DOTALL)
    assert re.search(r"^STOPSIGNAL SIGTERM$", service, re.MULTILINE)


def test_the_composition_gives_only_known_settings_and_a_read_only_folder() -> None:
    """Goal: it starts as written. Method: its variables are settings, its mounts what the image expects."""
    service, bigquery = COMPOSE["services"]["pixaris-sync"], COMPOSE["services"]["bigquery"]
    assert service["environment"].keys() <= VARIABLES
    [results] = service["volumes"]
    assert results["read_only"] is True
    assert f"PIXARIS_SYNC_LOCAL_RESULTS_FOLDER={results['target']}" in DOCKERFILE
    state, options = service["tmpfs"][1].split(":")
    assert f"PIXARIS_SYNC_STATE_DIR={state}" in DOCKERFILE
    assert f"USER {re.findall('uid=([0-9]+)', options)[0]}\n" in DOCKERFILE
    assert {service["build"]["target"], bigquery["build"]["target"]} == {"service", "sandbox"}


def test_the_emulators_of_the_composition_are_those_that_are_tested() -> None:
    """Goal: what it starts is what was tested. Method: compare version, flags and names; ports are local."""
    storage, bigquery = COMPOSE["services"]["storage"], COMPOSE["services"]["bigquery"]
    installer = (REPOSITORY / ".ci" / "emulators.py").read_text(encoding="utf-8")
    [version] = re.findall(r'Emulator\("fake-gcs-server", "v([^"]+)"', installer)
    assert storage["image"] == f"fsouza/fake-gcs-server:{version}"
    assert tuple(storage["command"][: len(FAKE_GCS_SERVER_FLAGS)]) == FAKE_GCS_SERVER_FLAGS
    environment = COMPOSE["services"]["pixaris-sync"]["environment"]
    assert environment["STORAGE_EMULATOR_HOST"] == f"http://storage:{_flag(storage, '-port')}"
    assert environment["BIGQUERY_EMULATOR_HOST"] == f"http://bigquery:{_flag(bigquery, '--bigquery-port')}"
    bucket = environment["PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME"]
    assert storage["tmpfs"] == [f"{_flag(storage, '-data')}/{bucket}"]
    assert all(port.startswith("127.0.0.1:") for port in storage["ports"] + bigquery["ports"])


def _flag(service: dict[str, Any], name: str) -> str:
    command: list[str] = service["command"]
    return command[command.index(name) + 1]


def test_nothing_stands_at_the_top_that_does_not_belong_there() -> None:
    """Goal: a tidy top level. Method: what is there besides dotfiles and what tools leave, against a list."""
    ignored = {line.strip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines()}
    there = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    assert there - ignored - {"__pycache__"} == TOP
