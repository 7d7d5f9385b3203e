"""What is around the package: versions that agree, containers that fit it, files that are there."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import pixaris_sync
from pixaris_sync.settings import Settings, environment_variable
from tests.support.emulators import FAKE_GCS_SERVER_FLAGS

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
VARIABLES = {environment_variable(key) for key in Settings.model_fields}
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


def test_every_dependency_of_development_is_pinned_within_its_bounds() -> None:
    """Goal: CI tomorrow is CI today. Method: each direct dependency has one version in the constraints."""
    lines = (REPOSITORY / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {
        _canonical(line.split("==")[0]): line.split("==")[1]
        for line in lines
        if line and not line.startswith("#")
    }
    project = PROJECT["project"]
    direct = [
        *project["dependencies"],
        *project["optional-dependencies"]["sandbox"],
        *PROJECT["dependency-groups"]["dev"],
    ]
    for requirement in direct:
        name, relation, bound = re.fullmatch(r"([\w.-]+)(==|>=)([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        version = pinned[_canonical(name)]
        if relation == "==":
            assert version == bound, name
        else:
            assert _parts(version) >= _parts(bound), name


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


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
    assert sorted(Path(source).name for source in copied) == sorted(let_in)
    assert all((REPOSITORY / source).exists() for source in copied)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    parents = {stage: parent for parent, stage in stages}
    assert parents["sandbox"] == parents["service"] == "base"
    base = DOCKERFILE.split(" AS base")[1].split("\nFROM ")[0]
    assert re.search(r"^USER \d+$", base, re.MULTILINE)


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
    installer = (REPOSITORY / ".ci" / "go_emulators.py").read_text(encoding="utf-8")
    [version] = re.findall(r'Emulator\("fake-gcs-server", "[^"]+", "v([^"]+)"\)', installer)
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
