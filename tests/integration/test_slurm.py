"""The scripts of ``deploy/slurm``, submitted to a real Slurm as they are."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.cli.exits import Exit
from pixaris_sync.model import RunKey
from pixaris_sync.rules.shards import Shard
from tests.benchmarks.arrays import SCRIPTS, User, array_shape, carry
from tests.benchmarks.cloud import BUCKET, DATASET, PROJECT, Cloud, running_cloud
from tests.benchmarks.contenders import Place
from tests.benchmarks.sets import PIXARIS_PROJECT, RunSet, made_set
from tests.support.proof_summary import Tell
from tests.support.slurm import Job, Slurm, missing_program, running_slurm
from tests.support.stored_runs import Reader
from tests.support.waiting import eventually

#: For CI; `python -m tests.benchmarks array` carries 200,000.
FILES = int(os.environ.get("PIXARIS_SYNC_TEST_SLURM_FILES", "3000"))
KILLS = int(os.environ.get("PIXARIS_SYNC_TEST_SLURM_KILLS", "5"))
SEED = int(os.environ.get("PIXARIS_SYNC_TEST_SLURM_SEED", "0"))
DATASETS, TASKS, AT_ONCE, LATENCY_MS = 40, 4, 4, 40.0
PATIENCE_SECONDS = 300.0

#: Submits as somebody who carries this folder, with further settings.
Submitting = Callable[..., User]

pytestmark = [pytest.mark.large, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A Slurm of these tests' own. They are skipped where it is not installed; CI installs it."""
    if missing := missing_program():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} is missing: .ci/run installs it")
        pytest.skip(f"{missing} is not installed: it comes with slurm-wlm and munge of Debian and Ubuntu")
    with running_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Cloud]:
    """The server, which counts what it is made to do."""
    with running_cloud(None) as running:
        yield running


@pytest.fixture
def cloud(server: Cloud) -> Cloud:
    """The server, empty, which keeps what it is sent."""
    server.reset(LATENCY_MS, keep=True)
    return server


@pytest.fixture
def submitting(slurm: Slurm, cloud: Cloud, tmp_path: Path) -> Submitting:
    """Who carries a folder by Slurm."""

    def user(runs: RunSet, **settings: object) -> User:
        return User(slurm, Place(runs, cloud.address, tmp_path, LATENCY_MS), settings)

    return user


def _few(folder: Path, files: int) -> RunSet:
    """A small folder."""
    return made_set(array_shape(files, 4), folder, bucket=BUCKET)


def _ended(user: User, number: str) -> list[Job]:
    return list(user.wait_for(number, time.monotonic() + PATIENCE_SECONDS, user.slurm.hasten))


def _until_carrying(cloud: Cloud, files: int = 20) -> None:
    eventually(
        lambda: cloud.stored().stored >= files, "files are being carried", timeout_seconds=PATIENCE_SECONDS
    )


def test_every_object_and_every_row_is_stored_once_however_often_tasks_are_killed(
    submitting: Submitting, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    """Goal: a killed task repeats nothing that is there, and rows come once and in few load jobs.

    Method: an array of four over 40 datasets, one of them with half of all; processes, whole tasks and the
    node with its disk are lost at drawn instants; the server has counted. Pixaris reads a run of it.
    """
    shape = array_shape(FILES, DATASETS)
    runs = made_set(shape, tmp_path, bucket=BUCKET)
    user = submitting(runs, upload_concurrency_limit=AT_ONCE, doubt_settle_seconds=5)
    carried = carry(user, cloud, FILES, tasks=TASKS, kills=KILLS, seed=SEED)
    tell("a Slurm array", {"files": FILES, "restarts of tasks": carried.restarts, **_named(carried.kills)})

    assert sum(carried.kills.values()) == KILLS <= carried.restarts
    assert carried.stored.stored == cloud.inventory().objects == FILES
    assert carried.digest == runs.digest
    # What was under way when its sender was killed is all that is sent twice, in vain.
    assert carried.stored.refused <= carried.restarts * AT_ONCE
    tables = carried.stored.tables
    rows = dict.fromkeys(tables, 0)
    for run in runs.runs():
        rows[f"{PIXARIS_PROJECT}_{run.dataset}_experiment_results"] += 1
    assert {name: table["rows"] for name, table in tables.items()} == rows
    assert all(table["runs"] == table["rows"] for table in tables.values())
    assert len(tables) == DATASETS
    assert max(rows.values()) == shape.runs // 2
    assert all(1 <= table["load_jobs"] <= 3 for table in tables.values()), tables

    for name in ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.setenv(name, user.environment[name])
    monkeypatch.chdir(tmp_path)
    reader = _reader()
    stored = next(run for run in runs.runs() if run.dataset == "set0")
    assert len(reader.runs(PIXARIS_PROJECT, "set0")) == shape.runs // 2
    images = reader.images(RunKey(PIXARIS_PROJECT, "set0", stored.folder.name), tmp_path / "downloaded")
    assert len(images) == shape.images_per_run
    for name, image in images.items():
        with Image.open(stored.folder / "generated_images" / name) as local:
            assert image.tobytes() == local.tobytes()


def _named(kills: Mapping[str, int]) -> dict[str, int]:
    return {f"kills of a {how}": count for how, count in kills.items()}


def _reader() -> Reader:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler  # noqa: PLC0415 - takes seconds

    return Reader(GCPExperimentHandler(PROJECT, f"{PROJECT}.{DATASET}", BUCKET))


def test_a_task_that_runs_out_of_time_is_requeued_and_one_that_is_cancelled_is_not(
    submitting: Submitting, cloud: Cloud, slurm: Slurm, tmp_path: Path
) -> None:
    """Goal: time limits cost nothing, and whoever cancels a task is obeyed.

    Method: Slurm's signal ahead of the end of its time while it carries; it goes on by itself, to the end.
    Then the same array anew, in an empty bucket, and scancel.
    """
    user = submitting(_few(tmp_path, 200), upload_concurrency_limit=2)
    array = user.sbatch("--array=0-0", str(SCRIPTS / "files.sbatch"))
    _until_carrying(cloud)
    [task] = slurm.jobs(array)
    slurm.signal(task, "USR1")
    [ended] = _ended(user, array)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), user.logs()
    assert f"pixaris-sync ended with {Exit.INTERRUPTED}: the task is requeued" in user.logs()
    assert cloud.stored().stored == 200
    assert cloud.stored().refused == 0

    cloud.reset(LATENCY_MS)
    array = user.sbatch("--array=0-0", str(SCRIPTS / "files.sbatch"))
    _until_carrying(cloud)
    slurm.cancel(array)
    [ended] = _ended(user, array)
    assert (ended.state, ended.restarts) == ("CANCELLED", 0), user.logs()
    assert cloud.stored().stored < 200


def test_a_run_in_trouble_holds_up_no_other_and_the_last_job_tells_of_it(
    submitting: Submitting, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: all other rows come. Method: a run without images; the array ends well, the last job with 3."""
    runs = _few(tmp_path, 200)
    bad = next(runs.runs())
    shutil.rmtree(bad.folder / "generated_images")
    user = submitting(runs, doubt_settle_seconds=1)
    array, last = user.submit(2)
    assert [job.state for job in _ended(user, array)] == ["COMPLETED"] * 2, user.logs()
    [rows] = _ended(user, last)
    assert (rows.state, rows.exit_code) == ("FAILED", Exit.PROBLEMS), user.logs()
    assert sum(table["rows"] for table in cloud.stored().tables.values()) == runs.shape.runs - 1
    assert cloud.stored().stored == 190


def test_where_tasks_cannot_work_no_rows_are_tried(
    submitting: Submitting, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: the last job does not take over what a wrong setting kept from the tasks, and waits for nobody.

    Method: a results folder that is not there.
    """
    user = submitting(_few(tmp_path, 20), local_results_folder=tmp_path / "nowhere")
    array, last = user.submit(2)
    assert [(job.state, job.exit_code) for job in _ended(user, array)] == [
        ("FAILED", Exit.CONFIGURATION)
    ] * 2, user.logs()
    assert [job.state for job in _ended(user, last)] == ["CANCELLED"]
    assert "nowhere" in user.logs()
    assert not cloud.stored().tables


def test_one_task_alone_is_repeated_by_naming_its_shard(
    submitting: Submitting, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: what the page says of repeating a task by hand. Method: that; its part alone is there then."""
    runs = _few(tmp_path, 200)
    user = submitting(runs)
    array = user.sbatch("--array=2", str(SCRIPTS / "files.sbatch"), "--shard", "3/4")
    [task] = _ended(user, array)
    assert task.state == "COMPLETED", user.logs()
    mine = [
        run for run in runs.runs() if Shard(3, 4).takes(RunKey(PIXARIS_PROJECT, run.dataset, run.folder.name))
    ]
    assert cloud.stored().stored == len(mine) * runs.shape.images_per_run
    assert 0 < len(mine) < runs.shape.runs
