"""Pixaris' own orchestration and UI, with the handlers of this package in the place of its own."""

import contextlib
import copy
import functools
import io
import itertools
import json
import pickle
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from PIL import Image

from pixaris_sync import ExperimentHandler, GCPExperimentHandler, LocalExperimentHandler
from pixaris_sync.model import RunKey
from tests.integration.cloud import TIMEOUT_SECONDS, Cloud
from tests.support.command_line import CommandLine
from tests.support.documents import REPOSITORY
from tests.support.drawing import SIZE, Brightness, Painter, Sketches
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture, store_run

PICTURES = 3
INSPIRATION = Image.new("RGB", SIZE, "orange")
#: What Pixaris does in a cluster with what it was sent: kubernetes.py unpickles all, then calls this.
_REMOTELY = """
import pickle, sys
inputs = pickle.load(sys.stdin.buffer)
from pixaris.orchestration.base import generate_images_based_on_dataset
generate_images_based_on_dataset(**inputs)
"""
#: Shows Pixaris' UI on a free port, in place of 8080, until its standard input ends.
_UI = """
import pickle, sys
import gradio
from pixaris.feedback_handlers.local import LocalFeedbackHandler
from pixaris.frontend.main import launch_ui

launch = gradio.Blocks.launch

def launch_here(blocks, **options):
    free = {"server_port": None, "prevent_thread_lock": True, "quiet": True}
    _, address, _ = launch(blocks, **{**options, **free})
    print("at", address, flush=True)
    sys.stdin.read()

gradio.Blocks.launch = launch_here
with open(sys.argv[1], "rb") as file:
    handler = pickle.load(file)
launch_ui(LocalFeedbackHandler(local_feedback_directory="feedback"), handler, sys.argv[2])
"""


@dataclass(frozen=True, slots=True)
class Ours:
    """A handler of ours and how its runs get to the cloud.

    Attributes:
        images_folder: where it finds or puts images.
    """

    handler: ExperimentHandler
    carry: Callable[[], object]
    images_folder: Path


@pytest.fixture(params=["local", "local, behind", "gcp", "gcp, behind"])
def ours(
    request: pytest.FixtureRequest,
    cloud: Cloud,
    command_line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Ours:
    """Each handler of ours, with and without waiting."""
    kind, _, behind = request.param.partition(", ")
    if kind == "local":
        local = LocalExperimentHandler(str(command_line.folder), wait=not behind)

        def sync() -> None:
            local.flush()
            command_line.sync()

        return Ours(local, sync, command_line.folder)
    monkeypatch.setenv("PIXARIS_SYNC_STATE_DIR", str(command_line.state_dir))
    gcp = GCPExperimentHandler(
        cloud.project,
        cloud.dataset_ref,
        cloud.bucket,
        spool_folder=str(tmp_path / "spool"),
        wait=not behind,
    )
    return Ours(gcp, gcp.flush, tmp_path / "downloaded")


def orchestrated(handler: ExperimentHandler, **args: Any) -> dict[str, Any]:
    """What Pixaris' orchestration takes, apart from the parameters of a search."""
    return {
        "data_loader": Sketches(PICTURES),
        "image_generator": Painter(),
        "experiment_handler": handler,
        "metrics": [Brightness()],
        "args": {
            "project": PROJECT,
            "dataset": DATASET,
            "experiment_run_name": "sketched",
            "max_parallel_jobs": 2,
            "seed": 7,
            "pillow_images": [{"node_name": "Load Inspiration", "pillow_image": INSPIRATION}],
            **args,
        },
    }


def with_width(width: int) -> list[dict[str, Any]]:
    """The parameters of the generator, as Pixaris passes them."""
    return [{"node_name": "Circle", "input": "width", "value": width}]


def painted(width: int) -> dict[str, Image.Image]:
    """The pictures that the generator draws, by name."""
    args = {
        "pillow_images": [{"node_name": "Load Inspiration", "pillow_image": INSPIRATION}],
        "generation_params": with_width(width),
    }
    pairs = [
        Painter().generate_single_image(
            {**data, **args, "pillow_images": data["pillow_images"] + args["pillow_images"]}
        )
        for data in Sketches(PICTURES).load_dataset()
    ]
    return {name: image for image, name in pairs}


def pixels(images: dict[str, Image.Image]) -> dict[str, bytes]:
    """Images by name, so that they can be compared."""
    return {name: image.tobytes() for name, image in images.items()}


def assert_is_in_the_cloud(
    row: Mapping[Any, Any], width: int, name: str, pixaris: Reader, folder: Path
) -> None:
    """Assert that Pixaris' own handler reads the row and the pictures of such a run."""
    assert re.search(rf"[-_]{name}\b", row["experiment_run_name"])
    assert (row["seed"], row["max_parallel_jobs"]) == (7, 2)
    assert row["generation_params"] == str(with_width(width))
    drawn = painted(width)
    assert row["brightness"] == pytest.approx(Brightness().calculate([*drawn.values()])["brightness"])
    read_back = pixaris.images(RunKey(PROJECT, DATASET, row["experiment_run_name"]), folder)
    assert pixels(read_back) == pixels({**drawn, "z_Load_Inspiration.png": INSPIRATION})


def test_pixaris_orchestration_stores_with_our_handlers(ours: Ours, pixaris: Reader, tmp_path: Path) -> None:
    """Goal: ours go where theirs do. Method: Pixaris generates and stores, its own handler reads back."""
    from pixaris.orchestration.base import (  # noqa: PLC0415 - takes a while
        generate_images_based_on_dataset,
    )

    inputs = orchestrated(ours.handler, generation_params=with_width(6))
    before = copy.copy(inputs["args"])

    pairs = generate_images_based_on_dataset(**inputs)
    ours.carry()

    assert pixels({name: image for image, name in pairs}) == pixels(painted(6))
    assert inputs["args"] == before
    [row] = pixaris.frame().to_dict("records")
    assert_is_in_the_cloud(row, 6, "sketched", pixaris, tmp_path / "theirs")


@pytest.mark.parametrize("ours", ["local, behind", "gcp"], indirect=True)
def test_pixaris_hyperparameter_search_stores_with_our_handlers(
    ours: Ours, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a search is one run for each combination. Method: Pixaris searches, its own handler reads."""
    from pixaris.orchestration.base import (  # noqa: PLC0415 - takes a while
        generate_images_for_hyperparameter_search_based_on_dataset,
    )

    widths = [{"node_name": "Circle", "input": "width", "value": [3, 8]}]
    generate_images_for_hyperparameter_search_based_on_dataset(
        **orchestrated(ours.handler, hyperparameters=widths)
    )
    ours.carry()

    rows = pixaris.frame().to_dict("records")
    assert [row["hyperparameters"] for row in rows] == [str(widths)] * 2
    for number, (row, width) in enumerate(zip(rows, (3, 8), strict=True)):
        assert_is_in_the_cloud(row, width, f"hs-sketched-{number}", pixaris, tmp_path / "theirs")


@pytest.mark.parametrize("ours", ["local", "gcp, behind"], indirect=True)
def test_pixaris_sends_our_handlers_to_a_cluster(ours: Ours, pixaris: Reader, tmp_path: Path) -> None:
    """Goal: they travel. Method: pickled as for Kubernetes with all else; another process does the work."""
    inputs = orchestrated(ours.handler, generation_params=with_width(5))

    subprocess.run(
        [sys.executable, "-c", _REMOTELY],
        input=pickle.dumps(inputs),
        cwd=REPOSITORY,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    ours.carry()

    [row] = pixaris.frame().to_dict("records")
    assert_is_in_the_cloud(row, 5, "sketched", pixaris, tmp_path / "theirs")


class Page:
    """Pixaris' UI in a browser's place: one session of it.

    Args:
        ours: the handler that it reads with.
        scratch: where it runs.
    """

    def __init__(self, ours: Ours, scratch: Path) -> None:
        self._ours = ours
        self._scratch = scratch

    def __enter__(self) -> Self:
        logo, pickled = self._scratch / "assets" / "pixaris_logo.png", self._scratch / "handler"
        logo.parent.mkdir()
        picture().save(logo)
        (self._scratch / "feedback").mkdir()
        pickled.write_bytes(pickle.dumps(self._ours.handler))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _UI, pickled, self._ours.images_folder],
            cwd=self._scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        told = (line.split() for line in self._process.stdout)
        self._address = next(words[1] for words in told if words[:1] == ["at"])
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate("", timeout=TIMEOUT_SECONDS)
        self._process.kill()
        self._process.communicate()

    def get(self, address: str) -> bytes:
        """What an address of it answers."""
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - our own
            return bytes(answer.read())

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The page as the browser is told it first."""
        config = json.loads(self.get(f"{self._address}config"))
        assert isinstance(config, dict)
        return config

    def choices(self, label: str) -> list[str]:
        """What can be chosen from the first list with this label."""
        lists = (one["props"] for one in self.config["components"] if one["type"] == "dropdown")
        found = next(props for props in lists if props.get("label") == label)
        return [value for _, value in found["choices"]]

    def call(self, function: str, *inputs: Any) -> dict[str, Any]:
        """The output of a function of the page, as its change calls it."""
        number = next(one["id"] for one in self.config["dependencies"] if one["api_name"] == function)
        join = urllib.request.Request(  # noqa: S310 - our own
            f"{self._address}gradio_api/queue/join",
            json.dumps({"data": inputs, "fn_index": number, "session_hash": "session"}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(join, timeout=TIMEOUT_SECONDS):  # noqa: S310 - our own
            pass
        events = self.get(f"{self._address}gradio_api/queue/data?session_hash=session").splitlines()
        messages = [json.loads(event.removeprefix(b"data: ")) for event in events if event]
        [completed] = [message for message in messages if message["msg"] == "process_completed"]
        assert completed["success"], completed
        output: dict[str, Any] = completed["output"]
        return output

    def rendered(self, function: str, kind: str, *inputs: Any) -> list[dict[str, Any]]:
        """The components of a kind that a function of the page draws."""
        components = self.call(function, *inputs)["render_config"]["components"]
        return [one["props"] for one in components if one["type"] == kind]


@pytest.mark.large
@pytest.mark.parametrize("ours", ["local", "gcp"], indirect=True)
def test_the_ui_of_pixaris_shows_what_our_handlers_read(
    ours: Ours, command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: theirs and ours look alike there. Method: a run of each handler, one session of the real UI."""
    results = str(command_line.folder)
    store_run(command_line.folder, "theirs", images=2, metrics={"similarity": 0.25})
    pairs = [(picture(at), f"image_{at}.png") for at in range(2)]
    LocalExperimentHandler(results).store_results(PROJECT, DATASET, "ours", pairs, {"similarity": 0.75})
    command_line.sync()

    with Page(ours, tmp_path) as page:
        assert page.choices("Project") == ["", PROJECT]
        [datasets] = page.call("update_dataset_choices", PROJECT, None)["data"]
        assert datasets["choices"] == [[DATASET, DATASET]]
        runs, _ = page.call("update_experiments_choices_and_load_table", PROJECT, DATASET, None, None)["data"]
        names = [name for name, _ in runs["choices"]]
        assert sorted(name.partition("_")[2] for name in names) == ["ours", "theirs"]

        galleries = page.rendered("apply", "gallery", PROJECT, DATASET, names, 8, 200)
        shown = [[item["image"]["url"] for item in gallery["value"]] for gallery in galleries]
        assert [len(urls) for urls in shown] == [2, 2]
        for at, url in itertools.chain.from_iterable(map(enumerate, shown)):
            with Image.open(io.BytesIO(page.get(url))) as image:
                assert image.tobytes() == picture(at).tobytes()

        [table] = page.rendered("apply_1", "dataframe", names, None)
        heads = table["value"]["headers"]
        found = [dict(zip(heads, line, strict=True)) for line in table["value"]["data"]]
        assert {line["experiment_run_name"].partition("_")[2]: line["similarity"] for line in found} == {
            "theirs": 0.25,
            "ours": 0.75,
        }
