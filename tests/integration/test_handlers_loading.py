"""What GCPExperimentHandler stored is read as it reads it: projects and datasets, frames, images.

The functions are those behind the reading methods of this package's own handler.
"""

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest
from google.cloud.storage import Bucket
from pandas.testing import assert_frame_equal

from pixaris_sync.errors import ConfigurationError, Failure, ResultsUnreadableError, SyncError
from pixaris_sync.handlers.loading import images_of_run, projects_and_datasets, results_of_dataset
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import load_settings
from tests.integration.cloud import Cloud
from tests.support.proxy import Answer, Loss, Proxies, Proxy, Request, unavailable
from tests.support.stored_runs import picture
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

PROJECT, DATASET = "project", "dataset"
_DOWNLOADS = r"^GET /storage/.*/o/"


@pytest.fixture
def settings(cloud: Cloud) -> Settings:
    """What the environment of the test says, where nobody waits long."""
    return settings_of(cloud.environment)


def settings_of(environment: dict[str, str]) -> Settings:
    quick = {"retry_delay_seconds_min": 0.01, "retry_delay_seconds_max": 0.01}
    return load_settings(quick, environ=environment)


@pytest.fixture
def run(gcp_handler: "GCPExperimentHandler") -> RunKey:
    """The last of three runs of two datasets, with all types of values, stored by Pixaris."""
    for dataset, metrics in (
        ("other", {"loss": 0.5}),
        (DATASET, {"count": 1, "loss": 0.1 + 0.2, "text": "grüße 🎨"}),
        (DATASET, {"count": 2**53 + 1, "text": ""}),
    ):
        images = [(picture(at), f"image_{at}.png") for at in range(3)]
        args: dict[str, Any] = {
            "workflow": {"nodes": [1, 2]},
            "workflow_image": picture(9),
            "seed": 7,
            "pillow_images": [{"node_name": "Load Image", "pillow_image": picture(8)}],
        }
        gcp_handler.store_results(PROJECT, dataset, f"run-{len(metrics)}", images, metrics, args)
    assert gcp_handler.experiment_run_name is not None
    return RunKey(PROJECT, DATASET, gcp_handler.experiment_run_name)


@dataclass(frozen=True)
class Answers:
    """What the three functions answer; the images as contents, by path."""

    projects: dict[str, list[str]]
    frame: pd.DataFrame
    paths: list[str]
    contents: dict[str, bytes]


def ours(settings: Settings, run: RunKey, folder: Path) -> Answers:
    paths = images_of_run(settings, run, str(folder))
    frame = results_of_dataset(settings, run.dataset_key)
    return Answers(projects_and_datasets(settings), frame, *_read(paths, folder))


def theirs(handler: "GCPExperimentHandler", run: RunKey, folder: Path) -> Answers:
    paths = handler.load_images_for_experiment(run.project, run.dataset, run.run, str(folder))
    frame = handler.load_experiment_results_for_dataset(run.project, run.dataset)
    return Answers(handler.load_projects_and_datasets(), frame, *_read(paths, folder))


def _read(paths: list[str], folder: Path) -> tuple[list[str], dict[str, bytes]]:
    assert all(path.startswith(f"{folder}/") for path in paths)
    shown = [path.removeprefix(str(folder)) for path in paths]
    files = [path for path in folder.rglob("*") if path.is_file() or path.name.startswith(".")]
    return shown, {str(path).removeprefix(str(folder)): path.read_bytes() for path in files}


def assert_same(found: Answers, expected: Answers) -> None:
    assert list(found.projects.items()) == list(expected.projects.items())
    order = "experiment_run_name"
    assert_frame_equal(
        found.frame.sort_values(order, ignore_index=True),
        expected.frame.sort_values(order, ignore_index=True),
        check_exact=True,
    )
    assert found.paths == expected.paths
    assert found.contents == expected.contents


def test_what_pixaris_stored_reads_the_same(
    gcp_handler: "GCPExperimentHandler", bucket: Bucket, settings: Settings, run: RunKey, tmp_path: Path
) -> None:
    """Goal: dicts, frames with their types, paths and files are equal, wherever it is called.

    Method: both read; then ours once more inside a running loop, and in a child after a fork, while this
    process has clients open. Objects that are no runs, and an image in a folder, are in the bucket too.
    """
    for name in (
        f"results/{run}/generated_images/deep/a b.png",
        f"results/{run}/generated_images/deep/",
        f"results/{PROJECT}/feedback_iterations/f/image.png",
        "results/feedback/feedback_iterations/f/image.png",
        "results/a-b/d/r/args.json",
        "results/a/d/r/args.json",
        "feedback/f.json",
    ):
        bucket.blob(name).upload_from_string(b"content")
    expected = theirs(gcp_handler, run, tmp_path / "theirs")
    assert expected.projects == {"a-b": ["d"], "a": ["d"], "feedback": [], PROJECT: [DATASET, "other"]}
    assert len(expected.frame) == 2
    assert len(expected.paths) == 5

    assert_same(ours(settings, run, tmp_path / "ours"), expected)

    async def within() -> Answers:
        return ours(settings, run, tmp_path / "within")

    assert_same(asyncio.run(within()), expected)
    assert_same(_in_a_child(settings, run, tmp_path / "child"), expected)


def _in_a_child(settings: Settings, run: RunKey, folder: Path) -> Answers:
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def tell() -> None:
        try:
            sender.send(ours(settings, run, folder))
        except BaseException as error:
            sender.send(error)
            raise

    child = multiprocessing.get_context("fork").Process(target=tell)
    child.start()
    sender.close()
    try:
        assert receiver.poll(30), "the child does not answer"
        answer = receiver.recv()
    finally:
        child.kill()
        child.join()
    assert isinstance(answer, Answers), answer
    return answer


def test_a_half_written_file_is_replaced_and_a_whole_one_is_not_loaded_again(
    gcp_handler: "GCPExperimentHandler",
    settings: Settings,
    storage_proxy: Proxy,
    run: RunKey,
    tmp_path: Path,
) -> None:
    """Goal: what an earlier kill left is not taken for whole, as Pixaris does; nothing comes twice.

    Method: cut a file that Pixaris loaded; count the downloads.
    """
    expected = theirs(gcp_handler, run, tmp_path)
    image = Path(f"{tmp_path}{expected.paths[0]}")
    image.write_bytes(image.read_bytes()[:20])
    assert theirs(gcp_handler, run, tmp_path).contents != expected.contents

    proxied = settings.having(storage_emulator_host=storage_proxy.url)
    assert_same(ours(proxied, run, tmp_path), expected)
    assert storage_proxy.count(_DOWNLOADS) == 1
    assert_same(ours(proxied, run, tmp_path), expected)
    assert storage_proxy.count(_DOWNLOADS) == 1


_LOAD = f"""
import json
import sys
from pixaris_sync.handlers.loading import images_of_run
from pixaris_sync.model import RunKey
from pixaris_sync.settings.sources import load_settings

settings = load_settings(json.loads(sys.argv[1]), environ={{}})
images_of_run(settings, RunKey({PROJECT!r}, {DATASET!r}, "run"), sys.argv[2])
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_load_that_is_ended_leaves_whole_files_and_the_next_one_the_rest(
    bucket: Bucket, settings: Settings, storage_proxy: Proxy, tmp_path: Path, end: signal.Signals
) -> None:
    """Goal: no kill and no Ctrl+C makes half a file an image, nor leaves a hidden one for ever.

    Method: end a process while half of its downloads wait; look, and load again.
    """
    run, content = RunKey(PROJECT, DATASET, "run"), bytes(range(256)) * 4096
    for number in range(8):
        name = f"results/{run}/generated_images/image_{number}.png"
        bucket.blob(name).upload_from_string(content)

    def stands_still(request: Request) -> Loss | None:
        late = re.search(r"image_[4-7]\.png\?", request.target)
        return Loss.WITHHELD_ANSWER if late else None

    storage_proxy.rule = stands_still
    proxied = settings.having(storage_emulator_host=storage_proxy.url)
    images = tmp_path / str(run) / "generated_images"
    # A process of its own: a child of this one would have its threads' locks.
    told = msgspec.json.encode(proxied, enc_hook=str).decode()
    program = [sys.executable, "-X", "faulthandler", "-c", _LOAD, told, str(tmp_path)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as loading:
        try:
            eventually(
                lambda: len(list(images.glob("*"))) == 4 and storage_proxy.count(_DOWNLOADS) == 8,
                "half is loaded",
            )
            loading.send_signal(end)
            _, told = loading.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            # Let it tell where it hangs.
            loading.send_signal(signal.SIGABRT)
            pytest.fail(loading.communicate()[1])
        finally:
            loading.kill()
    assert loading.returncode == -end, told

    assert {path.name: path.read_bytes() for path in images.iterdir()} == {
        f"image_{number}.png": content for number in range(4)
    }
    assert len(list(images.parent.glob(".*"))) == (end is signal.SIGKILL)
    storage_proxy.rule = lambda _: None
    assert images_of_run(proxied, run, str(tmp_path)) == [str(images / f"image_{at}.png") for at in range(8)]
    assert storage_proxy.count(_DOWNLOADS) == 8 + 4
    assert list(images.parent.glob(".*")) == []


@pytest.fixture
def storage_proxy(cloud: Cloud) -> Iterator[Proxy]:
    """What may stand between the functions and the bucket."""
    with Proxy(cloud.environment["STORAGE_EMULATOR_HOST"]) as proxy:
        yield proxy
    assert proxy.failures == []


def test_projects_and_datasets_take_one_request_and_one_a_project(
    bucket: Bucket, settings: Settings, storage_proxy: Proxy
) -> None:
    """Goal: the history of a bucket costs nothing. Method: count the requests for 50 datasets."""
    expected: dict[str, list[str]] = {}
    for number in range(50):
        project, dataset = f"p{number // 10}", f"d{number % 10}"
        expected.setdefault(project, []).append(dataset)
        for run in ("a", "b"):
            bucket.blob(f"results/{project}/{dataset}/{run}/generated_images/i.png").upload_from_string(b"i")
    proxied = settings.having(storage_emulator_host=storage_proxy.url)
    assert projects_and_datasets(proxied) == expected
    assert len(storage_proxy.seen) == 1 + len(expected)


def test_failures_that_pass_are_waited_for_and_others_are_told(
    proxies: Proxies, cloud: Cloud, settings: Settings, run: RunKey, tmp_path: Path
) -> None:
    """Goal: a network that stumbles costs time alone, and no half file stays.

    Method: each address fails at first, in ways that differ; then one download fails for good; then there is
    no such bucket, table, dataset, and no service.
    """
    proxied = settings_of({**cloud.environment, **proxies.environment})
    failed: set[str] = set()

    def fails_first(request: Request) -> Answer | Loss | None:
        if request.target in failed:
            return None
        failed.add(request.target)
        return Loss.HALF_ANSWER if len(failed) % 2 else unavailable()

    proxies.storage.rule = proxies.bigquery.rule = fails_first
    assert_same(
        ours(proxied, run, tmp_path / "stumbling"),
        ours(settings, run, tmp_path / "plain"),
    )
    assert len(failed) > 6

    proxies.storage.rule = lambda request: unavailable() if request.mentions("image_1.png?") else None
    with pytest.raises(SyncError) as caught:
        images_of_run(proxied, run, str(tmp_path / "failing"))
    assert caught.value.failure is Failure.TRANSIENT
    left = [path for path in (tmp_path / "failing").rglob("*") if path.name.startswith((".", "image_1"))]
    assert left == []

    elsewhere = settings.having(gcp_pixaris_bucket_name="nowhere")
    for ask in (lambda: projects_and_datasets(elsewhere), lambda: images_of_run(elsewhere, run, os.devnull)):
        with pytest.raises(ConfigurationError, match="there is no bucket nowhere"):
            ask()
    nobody = settings.having(bigquery_emulator_host="http://127.0.0.1:9")
    for place, key in (
        (settings, DatasetKey(PROJECT, "nothing")),
        (
            settings.having(gcp_bq_experiment_dataset=f"{cloud.project}.nowhere"),
            run.dataset_key,
        ),
        (nobody, run.dataset_key),
    ):
        with pytest.raises(RuntimeError) as raised:
            results_of_dataset(place, key)
        assert isinstance(raised.value, ResultsUnreadableError)
        assert raised.value.hint or place is nobody
