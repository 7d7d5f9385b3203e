"""The whole journey on a fresh sandbox: our handlers store runs, and the one of Pixaris reads them back."""

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pixaris_sync import ExperimentHandler, GCPExperimentHandler, LocalExperimentHandler
from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.sandbox.demo_report import DemoReport, DemoRun
from pixaris_sync.sandbox.emulators import Sandbox
from pixaris_sync.sandbox.pictures import draw_landscape, draw_workflow
from pixaris_sync.sandbox.watch_process import WatchProcess

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image
    from rich.console import Console

PIXARIS_HINT = "pip install --no-deps --ignore-requires-python pixaris==0.11.4 && pip install gradio"
PROJECT = "demo"
DATASET = "landscapes"
VISIBLE_SECONDS = 60.0
IMAGES_PER_RUN = 3

_POLL_SECONDS = 0.02
_LINK_PREFIX = "https://console.cloud.google.com/storage/browser/_details/"


class Call(Struct, frozen=True):
    """What one run hands to ``store_results``."""

    name: str
    images: list[tuple["Image.Image", str]]
    metrics: Mapping[str, Any]
    args: Mapping[str, Any]


def run_demo(console_err: "Console", *, runs: int = 5) -> DemoReport:
    """Store `runs` runs in a folder and one in the cloud, read them back with Pixaris' handler and compare.

    Sandbox, results folder and everything else are temporary and gone afterwards; environment variables are
    set while it runs. Progress goes to `console_err`; `print_report` shows the outcome.

    Raises:
        ConfigurationError: Pixaris or a package of the ``sandbox`` extra is not installed.
        SyncError: something arrived differently than it was written, or not at all, or ``watch`` or an
            emulator failed.
    """
    _require_pixaris()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pixaris-sync-demo-")))
        with console_err.status("starting the emulators"):
            sandbox = stack.enter_context(Sandbox())
        stack.enter_context(
            _environment(
                {
                    **sandbox.environment,
                    "GRADIO_ANALYTICS_ENABLED": "False",
                    "PIXARIS_SYNC_STATE_DIR": str(scratch / "state"),
                }
            )
        )
        return _travel(sandbox, scratch, console_err, runs)


def _travel(sandbox: Sandbox, scratch: Path, console_err: "Console", runs: int) -> DemoReport:
    local = scratch / "local_results"
    local.mkdir()
    reader = _Reader(
        project=sandbox.project,
        dataset_ref=sandbox.dataset_ref,
        bucket=sandbox.bucket,
        folder=scratch / "read_back",
    )
    written: list[tuple[Call, DemoRun]] = []
    with WatchProcess(local, scratch, sandbox.environment) as watch:
        console_err.print(f"pixaris-sync watch is running on {local}, where our handler stores runs")
        for number in range(1, runs + 1):
            call = _make_call(number)
            _store(LocalExperimentHandler(str(local)), call)
            name = _last_name(local)
            committed = time.monotonic()
            _wait_until_visible(reader, name, watch)
            seconds = time.monotonic() - committed
            console_err.print(f"{name}: row visible after {seconds * 1000:.0f} ms")
            written.append((call, DemoRun(name, seconds)))
        watch.end()
    written.append(_store_in_the_cloud(sandbox, scratch, reader, runs + 1))
    console_err.print(f"{written[-1][1].name}: stored without a folder")
    frame = reader.load_rows()
    *watched, direct = [reader.check_run(frame, call, run) for call, run in written]
    reader.check_nothing_else(frame, len(written))
    console_err.print("every row, image and file is as it was stored; watch ended with exit code 0")
    return DemoReport(PROJECT, DATASET, watched, direct)


def _make_call(number: int) -> Call:
    """A run with every kind of value that Pixaris stores."""
    hyperparameters = {"steps": 20 + number, "sampler": "euler", "guidance": 3.5}
    return Call(
        name=f"landscape-{number:02d}",
        images=[
            (draw_landscape(number * IMAGES_PER_RUN + image), f"view_{image + 1}.png")
            for image in range(IMAGES_PER_RUN)
        ],
        metrics={
            "similarity": round(0.7 + 0.25 * (number * 7 % 10) / 10, 4),
            "generated_images": IMAGES_PER_RUN,
            "rating": {"composition": number % 5 + 1, "colour": 5 - number % 5},
        },
        args={
            "prompt": f"mountains under a sun, variation {number}",
            "seed": 1_000_003 * number,
            "guidance": 3.5,
            "upscaled": number % 2 == 0,
            "hyperparameters": hyperparameters,
            "workflow_pillow_image": draw_workflow(number),
            "workflow_apiformat_json": {"3": {"class_type": "KSampler", "inputs": hyperparameters}},
        },
    )


def store_examples(sandbox: Sandbox, *, feedback_table: str, runs: int = 5) -> None:
    """Store the runs of the demonstration, and a feedback iteration of all their pictures.

    Environment variables point at the sandbox already, and the feedback table is there.

    Args:
        sandbox: where to.
        feedback_table: as ``project.dataset.table``.
        runs: how many runs.
    """
    from pixaris.feedback_handlers.gcp import GCPFeedbackHandler  # noqa: PLC0415 - optional

    calls = [_make_call(number) for number in range(1, runs + 1)]
    with tempfile.TemporaryDirectory(prefix="pixaris-sync-demo-") as scratch:
        pictures = Path(scratch, "pictures")
        pictures.mkdir()
        destination = (sandbox.project, sandbox.dataset_ref, sandbox.bucket)
        handler = GCPExperimentHandler(*destination, spool_folder=str(Path(scratch, "spool")))
        for call in calls:
            _store(handler, call)
            for image, name in call.images:
                image.save(pictures / f"{call.name}_{name}")
        GCPFeedbackHandler(
            gcp_project_id=sandbox.project,
            gcp_bq_feedback_table=feedback_table,
            gcp_pixaris_bucket_name=sandbox.bucket,
            local_feedback_directory=scratch,
        ).create_feedback_iteration(str(pictures), PROJECT, DATASET, dataset=DATASET)


def _store(handler: ExperimentHandler, call: Call) -> None:
    handler.store_results(PROJECT, DATASET, call.name, call.images, call.metrics, call.args)


def _store_in_the_cloud(
    sandbox: Sandbox, scratch: Path, reader: "_Reader", number: int
) -> tuple[Call, DemoRun]:
    """Store a run by the handler that returns when its row is visible."""
    handler = GCPExperimentHandler(
        sandbox.project, sandbox.dataset_ref, sandbox.bucket, spool_folder=str(scratch / "spool")
    )
    call = _make_call(number)
    before = reader.run_names()
    begun = time.monotonic()
    _store(handler, call)
    seconds = time.monotonic() - begun
    found = reader.run_names() - before
    if len(found) != 1:
        raise _differs(call.name, f"it is {len(found)} rows after it was stored")
    return call, DemoRun(found.pop(), seconds)


def _last_name(local: Path) -> str:
    """The name of the run that was stored last, as the tracking file tells it."""
    tracking = local / PROJECT / DATASET / "experiment_tracking.jsonl"
    line = tracking.read_text(encoding="utf-8").splitlines()[-1]
    return str(json.loads(line)["experiment_run_name"])


def _wait_until_visible(reader: "_Reader", run: str, watch: WatchProcess) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while time.monotonic() < deadline:
        frame = reader.load_rows()
        if frame is not None and (frame["experiment_run_name"] == run).any():
            return
        watch.check()
        time.sleep(_POLL_SECONDS)
    raise SyncError("find the row of", run, f"it was not visible within {VISIBLE_SECONDS:.0f} s")


class _Reader:
    """Reads through the real GCPExperimentHandler and compares with what was written."""

    def __init__(self, *, project: str, dataset_ref: str, bucket: str, folder: Path) -> None:
        with _quiet():
            from google.cloud.storage import Client  # noqa: PLC0415 - optional
            from pixaris.experiment_handlers.gcp import GCPExperimentHandler  # noqa: PLC0415 - optional

        self._bucket_name = bucket
        self._bucket = Client(project=project).bucket(bucket)
        self._folder = folder
        self._handler = GCPExperimentHandler(
            gcp_project_id=project,
            gcp_bq_experiment_dataset=dataset_ref,
            gcp_pixaris_bucket_name=bucket,
        )

    def load_rows(self) -> "pd.DataFrame | None":
        """The dataset's rows; None while its table does not exist."""
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy

        try:
            frame: pd.DataFrame = self._handler.load_experiment_results_for_dataset(PROJECT, DATASET)
        except RuntimeError as error:
            # Pixaris wraps every error of the client in one of its own.
            if isinstance(error.__context__, NotFound):
                return None
            raise
        return frame

    def run_names(self) -> set[str]:
        """The runs that have a row."""
        frame = self.load_rows()
        return set() if frame is None else set(frame["experiment_run_name"])

    def check_run(self, frame: "pd.DataFrame | None", call: Call, run: DemoRun) -> DemoRun:
        """Compare the run's row, images and files with the call; the run with what was found.

        Raises:
            SyncError: something differs.
        """
        rows = [] if frame is None else frame[frame["experiment_run_name"] == run.name].to_dict("records")
        if len(rows) != 1:
            raise _differs(run.name, f"it has {len(rows)} rows, not 1")
        links: dict[str, str] = {}
        for key, value in {**call.args, **call.metrics}.items():
            cell = rows[0][key]
            if isinstance(value, str | int | float):
                if cell != value:
                    raise _differs(run.name, f"{key} is {cell!r}, not {value!r}")
            else:
                links[key] = cell
                self._check_file(run.name, key, cell, value)
        images = self._check_images(call, run.name)
        cells = {str(key): value for key, value in rows[0].items() if key not in links}
        return DemoRun(run.name, run.seconds, cells=cells, links=links, images=images)

    def check_nothing_else(self, frame: "pd.DataFrame | None", runs: int) -> None:
        """Make sure that there are no other rows, and no other projects and datasets in the bucket.

        Raises:
            SyncError: there are.
        """
        count = 0 if frame is None else len(frame)
        if count != runs:
            raise _differs(f"{PROJECT}/{DATASET}", f"it has {count} rows, not {runs}")
        shown = self._handler.load_projects_and_datasets()
        if shown != {PROJECT: [DATASET]}:
            raise _differs("the bucket", f"it shows {shown}")

    def _check_file(self, run: str, key: str, link: str, value: Any) -> None:  # noqa: ANN401 - an image or a dict
        """Follow the link in a cell and compare the file behind it."""
        place, _, _ = link.removeprefix(_LINK_PREFIX).partition("?")
        bucket, _, name = place.partition("/")
        if not link.startswith(_LINK_PREFIX) or bucket != self._bucket_name:
            raise _differs(run, f"{key} is {link!r}, no link into the bucket")
        content = self._bucket.blob(name).download_as_bytes(timeout=VISIBLE_SECONDS)
        if isinstance(value, dict):
            same = json.loads(content) == value
        else:
            same = _same_pixels(value, io.BytesIO(content))
        if not same:
            raise _differs(run, f"the file of {key} has other content")

    def _check_images(self, call: Call, run: str) -> dict[str, bytes]:
        with _quiet():
            paths = self._handler.load_images_for_experiment(PROJECT, DATASET, run, str(self._folder))
        found = {Path(path).name: Path(path) for path in paths}
        if sorted(found) != sorted(name for _, name in call.images):
            raise _differs(run, f"its images are {sorted(found)}")
        for image, name in call.images:
            if not _same_pixels(image, found[name]):
                raise _differs(run, f"{name} has other pixels")
        return {name: path.read_bytes() for name, path in sorted(found.items())}


def _same_pixels(image: "Image.Image", file: Path | io.BytesIO) -> bool:
    from PIL import Image  # noqa: PLC0415 - heavy

    with Image.open(file) as read_back:
        same_shape = (read_back.mode, read_back.size) == (image.mode, image.size)
        return same_shape and read_back.tobytes() == image.tobytes()


def _differs(subject: str, cause: str) -> SyncError:
    return SyncError("read back", subject, cause, hint="please report this with the output above")


def _require_pixaris() -> None:
    missing = [name for name in ("pixaris", "gradio") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            "run", "the demonstration", f"not installed: {', '.join(missing)}", hint=PIXARIS_HINT
        )


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Swallow what Pixaris and gradio print: standard output is for the report."""
    return contextlib.redirect_stdout(io.StringIO())
