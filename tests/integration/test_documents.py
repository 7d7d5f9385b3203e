"""What a document shows works as it is written there, and answers as it is shown: commands and Python."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from google.cloud import bigquery
from google.cloud.storage import Client
from packaging.requirements import Requirement

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS, Cloud
from tests.support.command_line import CommandLine
from tests.support.documents import DOCUMENTS, REPOSITORY, name_of
from tests.support.shown_commands import STAYING, WALK, Shell, Shown, shown_in
from tests.support.stored_runs import store_run

#: Commands that are not run here, each with the reason. An entry that no document needs is an error.
NOT_RUN = {
    r"make demo": "a section of CI",
    r"make test\b.*": "a section of CI",
    r"sudo .*": "needs root",
    r"systemctl .*|loginctl .*": "needs a systemd that runs",
    r"(\w+=(\$\(.*\)|\S+) )?docker .*": "needs a container engine",
    r"kubectl .*": "needs a cluster",
    r"(gcloud|bq) .*|POOL=.*": "needs Google Cloud",
    r"ssh .*": "needs another machine",
    r"terraform .*|gcloud .*|bq .*": "needs a Google Cloud project",
    r"pip install ('\.\[ui\]'|--no-deps .* pixaris==.*)": "what `make venv` installs",
    r"promtool .*": "has tests of its own",
    r"(files=\$\()?sbatch .*|squeue .*|deploy/slurm/submit\.sh .*": "tests/integration/test_slurm.py",
}
#: Commands of tests/README.md: targets of make, sections of CI, and what takes longer than CI.
OF_TESTS = r"(bash \.ci/|make |(\w+=\S+ )*(\.venv/bin/)?python -m (pytest|tests\.)).*"
#: Commands that are for a process that is at work.
BESIDE_A_SERVICE = ("pixaris-sync limit", "pixaris-sync pause", "pixaris-sync resume")
#: Documents whose commands write into the folder where they are given: other tests are in this one.
AT_HOME = ("deploy/plans.md", "deploy/settings.md")
#: What a reader has done before, of documents that tell of what comes later.
DONE_BEFORE = {
    "deploy/prune.md": "pixaris-sync sync --exclude '*_upscaled'",
    # The run without images is no part of what the page tells.
    "deploy/shards.md": 'cd "$PIXARIS_SYNC_LOCAL_RESULTS_FOLDER/shop/shoes"'
    " && rm -r *_upscaled && sed -i /_upscaled/d experiment_tracking.jsonl",
}

#: The destination that documents name, where they do not leave it to the environment.
NAMED = "my-project", "my-project.pixaris", "my-pixaris-bucket"


def _shown_in(document: Path) -> list[Shown]:
    """What a document shows, but for the operator's walk, which has a test of its own."""
    return shown_in(document.read_text(encoding="utf-8").partition(f"\n{WALK}\n")[0])


def not_run(command: str) -> str | None:
    """The entry of `NOT_RUN` for a command, if it has one."""
    return next((pattern for pattern in NOT_RUN if re.fullmatch(pattern, command, re.DOTALL)), None)


@pytest.fixture
def user(command_line: CommandLine, cloud: Cloud, tmp_path: Path) -> dict[str, str]:
    """The environment of a user on a machine with three runs, one without images; the emulators are set.

    What is installed with pip finds the packages that it depends on among those of this Python.
    """
    *_, last = [
        store_run(
            command_line.folder, name, project="shop", dataset="shoes", images=2, metrics={"similarity": 0.5}
        )
        for name in ("baseline", "sharper", "upscaled")
    ]
    shutil.rmtree(last.folder / "generated_images")
    home = tmp_path / "home"
    home.mkdir()
    inherited = {
        name: text
        for name, text in command_line.environment.items()
        if not name.startswith(("XDG_", "VIRTUAL_ENV", "COV_"))
    }
    del inherited["PIXARIS_SYNC_STATE_DIR"]
    _make_destination_anew(*NAMED)
    return {
        **inherited,
        **cloud.environment,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Opens nothing.
        "BROWSER": "true",
        # The emulators answer at once: no row arrives late.
        "PIXARIS_SYNC_DOUBT_SETTLE_SECONDS": "1",
    }


@pytest.fixture
def litter() -> Iterator[None]:
    """Files that a document's commands leave in the repository's folder are removed."""
    before = set(REPOSITORY.iterdir())
    yield
    for path in set(REPOSITORY.iterdir()) - before:
        if path.is_file():
            path.unlink()


def _make_destination_anew(project: str, dataset: str, bucket: str) -> None:
    """Documents name it, so that all their tests share it; each shall find it empty."""
    with bigquery.Client(project=project) as client:
        client.delete_dataset(
            dataset, delete_contents=True, not_found_ok=True, retry=NO_RETRY, timeout=TIMEOUT_SECONDS
        )
        client.create_dataset(dataset, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    storage = Client(project=project)
    if storage.bucket(bucket).exists(retry=NO_RETRY, timeout=TIMEOUT_SECONDS):
        storage.bucket(bucket).delete(force=True, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    storage.create_bucket(bucket, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)


RUN_HERE = [
    document for document in DOCUMENTS if any(not not_run(one.command) for one in _shown_in(document))
]


@pytest.mark.large
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", RUN_HERE, ids=name_of)
def test_every_command_works_as_it_is_written(
    document: Path, user: Mapping[str, str], tmp_path: Path, litter: None
) -> None:
    """Goal: what is copied from a document works. Method: run its blocks in order, in one user's shell."""
    del litter
    shell = Shell(user, tmp_path, folder=Path(user["HOME"]) if name_of(document) in AT_HOME else REPOSITORY)
    log = tmp_path / "staying.log"
    if before := DONE_BEFORE.get(name_of(document)):
        shell.run(before)
    for shown in _shown_in(document):
        if not_run(shown.command) or (
            document.parent.name == "tests" and re.fullmatch(OF_TESTS, shown.command)
        ):
            continue
        if shown.command.startswith(tuple(STAYING)):
            with shell.running(shown.command, log):
                pass
        elif shown.command.startswith(BESIDE_A_SERVICE):
            with shell.running("pixaris-sync watch", log):
                shell.run(shown.command)
        else:
            shown.check(shell.run(shown.command))


@pytest.fixture(scope="session")
def wheel_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with this wheel and what it requires, and nothing else.

    Each file of the packages that it requires is a link to that of this Python's own environment.
    """
    folder = tmp_path_factory.mktemp("wheel_alone")
    venv, wheels = folder / "venv", folder / "wheels"
    python = venv / "bin" / "python"
    for arguments in (
        ["hatchling", "build", "--target", "wheel", "--directory", str(wheels)],
        ["venv", "--without-pip", str(venv)],
    ):
        subprocess.run([sys.executable, "-m", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
    [site] = venv.glob("lib/python*/site-packages")
    for package in _required("pixaris-sync"):
        _link(package, site)
    [wheel] = wheels.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    return python.parent


def _required(name: str) -> Iterable[Distribution]:
    """What a package requires to run, directly or not, as its metadata and those of the others say."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name)]
    asked = set()
    while waiting:
        one = waiting.pop()
        package = found[one.name] = distribution(one.name)
        for extra in {"", *one.extras}:
            if (one.name, extra) not in asked:
                asked.add((one.name, extra))
                lines = map(Requirement, package.requires or ())
                waiting += [
                    line for line in lines if not line.marker or line.marker.evaluate({"extra": extra})
                ]
    del found[name]
    return found.values()


def _link(package: Distribution, site: Path) -> None:
    """Put a package's files there, with their compiled ones, as Python would otherwise compile all anew."""
    for file in package.files or ():
        source = Path(str(file.locate()))
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        for path in (source, compiled):
            if path.is_file() and path.is_relative_to(sysconfig.get_path("purelib")):
                link = site / path.relative_to(sysconfig.get_path("purelib"))
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(path)


@pytest.mark.large
def test_the_handlers_of_the_wheel_alone_do_what_the_documents_show(
    wheel_alone: Path, user: Mapping[str, str], tmp_path: Path
) -> None:
    """Goal: neither Pixaris nor gradio is needed. Method: Python of documents where only the wheel is."""
    environment = {**user, "PATH": f"{wheel_alone}{os.pathsep}{user['PATH']}"}
    del environment["PYTHONPATH"]
    shell = Shell(environment, tmp_path)
    assert shell.run("cd ~; python -c 'import pixaris_sync; print(pixaris_sync.__file__)'").startswith(
        str(wheel_alone.parent)
    )
    for absent in ("pixaris", "gradio", "google.cloud.storage"):
        shell.run(f"! python -c 'import {absent}' 2>/dev/null")
    front_page, handlers = REPOSITORY / "README.md", REPOSITORY / "pixaris_sync" / "handlers" / "README.md"
    examples = [shown for shown in _shown_in(front_page) if shown.is_python]
    assert examples
    for shown in [*_shown_in(handlers), *examples]:
        shown.check(shell.run(shown.command))


def test_every_reason_for_not_running_is_needed() -> None:
    """Goal: no exception outlives its command. Method: each entry has a command in some document."""
    needed = {not_run(shown.command) for document in DOCUMENTS for shown in _shown_in(document)}
    assert set(NOT_RUN) <= needed
