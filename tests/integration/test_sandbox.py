"""The sandbox as a whole: its environment, its processes, and Pixaris' own handler in it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import NotFound
from google.cloud import bigquery
from google.cloud.storage import Client
from PIL import Image

from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.sandbox import emulators
from pixaris_sync.sandbox.emulators import Sandbox
from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS, Cloud

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

_SECONDS_TO_END = 15.0

#: Starts a sandbox, tells the ids of its processes, and waits to be killed.
_PARENT = """
import sys
from pixaris_sync.sandbox.emulators import Sandbox
with Sandbox() as sandbox:
    print(*(child._process.pid for child in sandbox._children), flush=True)
    sys.stdin.read()
"""


def test_a_shell_that_evaluates_the_export_lines_has_the_environment(tmp_path: Path) -> None:
    """Goal: the printed lines can be pasted. Method: evaluate them in a shell; a name needs quotes."""
    sandbox = Sandbox()
    sandbox.environment = {"PLAIN": "http://127.0.0.1:1", "ODD": f"{tmp_path}/it's a folder; $HOME"}
    program = "import json, os; print(json.dumps(dict(os.environ)))"

    shell = subprocess.run(
        ["/bin/sh", "-c", f"{sandbox.export_lines()}\nexec '{sys.executable}' -c '{program}'"],
        capture_output=True,
        check=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )

    seen = json.loads(shell.stdout)
    assert {name: seen[name] for name in sandbox.environment} == sandbox.environment


def test_the_environment_names_everything_that_pixaris_and_we_need(sandbox: Sandbox) -> None:
    """Goal: no setting is missing. Method: compare the names, and what must agree with what."""
    environment = sandbox.environment

    assert set(environment) == {
        "STORAGE_EMULATOR_HOST",
        "BIGQUERY_EMULATOR_HOST",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PIXARIS_SYNC_GCP_PROJECT_ID",
        "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET",
        "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME",
    }
    assert environment["STORAGE_EMULATOR_HOST"].startswith("http://127.0.0.1:")
    assert environment["BIGQUERY_EMULATOR_HOST"].startswith("http://127.0.0.1:")
    dataset = f"{sandbox.project}.{sandbox.dataset}"
    assert environment["PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET"] == dataset
    key = Path(environment["GOOGLE_APPLICATION_CREDENTIALS"])
    assert key.stat().st_mode & 0o077 == 0


def test_pixaris_stores_and_reads_without_a_google_account(
    gcp_handler: "GCPExperimentHandler", cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: the real handler works unchanged. Method: store two runs with every kind of value, read back."""
    image = Image.new("RGB", (8, 6), (200, 40, 90))
    for number in range(2):
        gcp_handler.store_results(
            "project",
            "dataset",
            f"run-{number}",
            [(image, "view.png")],
            {"score": 0.5, "rating": {"colour": number}},
            {"prompt": "a", "seed": number, "upscaled": True, "workflow_pillow_image": image},
        )

    frame = gcp_handler.load_experiment_results_for_dataset("project", "dataset")
    run = frame["experiment_run_name"][0]
    paths = gcp_handler.load_images_for_experiment("project", "dataset", run, str(tmp_path / "images"))

    assert sorted(frame["seed"]) == [0, 1]
    assert list(frame["score"]) == [0.5, 0.5]
    assert frame["upscaled"].all()
    link = f"https://console.cloud.google.com/storage/browser/_details/{cloud.bucket}/results/project/dataset"
    assert all(cell.startswith(link) for cell in [*frame["rating"], *frame["workflow_pillow_image"]])
    with Image.open(paths[0]) as read_back:
        assert read_back.tobytes() == image.tobytes()
    assert gcp_handler.load_projects_and_datasets() == {"project": ["dataset"]}


def test_a_sandbox_ends_its_processes_in_order() -> None:
    """Goal: a clean end leaves no process and no file. Method: stop, twice, and look at exit codes."""
    with Sandbox() as sandbox:
        processes = [child._process for child in sandbox._children]
        scratch = sandbox._scratch
        assert scratch is not None
        assert sandbox.dead() is None
    sandbox.stop()

    assert [process.returncode for process in processes] == [0, 0]
    assert not scratch.exists()


def test_a_dead_emulator_is_noticed() -> None:
    """Goal: the command can tell that the sandbox broke. Method: kill one emulator."""
    with Sandbox() as sandbox:
        bigquery_process = sandbox._children[1]._process
        bigquery_process.kill()
        bigquery_process.wait(_SECONDS_TO_END)

        assert sandbox.dead() == "bigquery"


def test_emulators_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """Goal: nothing is left behind. Method: SIGKILL a process with a sandbox; its children end as well."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A killed parent leaves its scratch folder.
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(_runs(child) for child in children)
        parent.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + _SECONDS_TO_END
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(child) for child in children)


def _runs(process_id: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process_id}/stat")
    try:
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_data_folder_keeps_objects_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: ``--data-dir``. Method: write to one sandbox, read from the next; alter and write on."""
    table = "pixaris-sandbox.pixaris.runs"
    rows: list[tuple[Any, ...]] = []
    names: list[str] = []
    for visit in (1, 2):
        with Sandbox(data_dir=tmp_path / "data") as sandbox:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            with bigquery.Client(project=sandbox.project) as client:
                _run(client, f"CREATE TABLE IF NOT EXISTS `{table}` (visit INT64)")
                column = f"ALTER TABLE `{table}` ADD COLUMN IF NOT EXISTS column_{visit} STRING"
                _run(client, f"{column}, ADD COLUMN IF NOT EXISTS other STRING")
                row = {"visit": visit, f"column_{visit}": "x"}
                assert client.insert_rows_json(table, [row], retry=NO_RETRY, timeout=TIMEOUT_SECONDS) == []
                rows = _run(client, f"SELECT visit, column_1 FROM `{table}` ORDER BY 1")  # noqa: S608 - a constant
            bucket = Client(project=sandbox.project).bucket(sandbox.bucket)
            blob = bucket.blob(f"results/{visit}")
            blob.upload_from_string(str(visit), retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
            names = [found.name for found in bucket.list_blobs(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)]

    assert rows == [(1, "x"), (2, None)]
    assert names == ["results/1", "results/2"]


def _run(client: bigquery.Client, sql: str) -> list[tuple[Any, ...]]:
    job = client.query(sql, retry=NO_RETRY, job_retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    return [row.values() for row in job.result(retry=NO_RETRY, job_retry=NO_RETRY, timeout=TIMEOUT_SECONDS)]


@pytest.mark.large
def test_without_a_data_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a fresh sandbox is empty. Method: write to one, look in the next."""
    table = "pixaris-sandbox.pixaris.runs"
    for visit in (1, 2):
        with Sandbox() as sandbox:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            with bigquery.Client(project=sandbox.project) as client:
                if visit == 1:
                    _run(client, f"CREATE TABLE `{table}` (visit INT64)")
                else:
                    with pytest.raises(NotFound):
                        client.get_table(table, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: exit 4 and a hint instead of a traceback. Method: ask for a package that does not exist."""
    monkeypatch.setattr(emulators, "_PACKAGES", ("bqemulator", "no_such_package_here"))

    with pytest.raises(ConfigurationError, match="no_such_package_here") as refused:
        Sandbox().start()

    assert refused.value.hint == emulators.INSTALL_HINT


def test_a_data_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    """Goal: one clear line. Method: a data folder below a file."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="data folder"):
        Sandbox(data_dir=tmp_path / "file" / "data").start()


def test_an_emulator_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: its log is in the error and nothing stays behind. Method: a taken port that nobody looked at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sandbox = Sandbox(storage_port=taken.getsockname()[1])
        monkeypatch.setattr(emulators, "_bound", lambda *_, **__: nullcontext())

        with pytest.raises(SyncError, match=r"(?i)address already in use") as failed:
            sandbox.start()

    assert "the storage emulator" in str(failed.value)
    assert sandbox._children == []


@pytest.mark.parametrize("name", ["storage", "bigquery"])
def test_a_port_that_is_taken_is_told_before_anything_is_started(name: str) -> None:
    """Goal: one line that says which, and nothing stays behind. Method: a port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sandbox = Sandbox(**{f"{name}_port": port})

        with pytest.raises(ConfigurationError, match="taken by another process") as failed:
            sandbox.start()

    assert f"the {name} port" in str(failed.value)
    assert f"--{name}-port" in failed.value.hint
    assert sandbox._children == []
    assert sandbox._scratch is None
