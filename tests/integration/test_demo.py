"""The demonstration: it ends well on real components, and it notices whatever is not as it was written."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from PIL import Image
from rich.console import Console

from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.sandbox import demo, watch_process
from pixaris_sync.sandbox.demo import DATASET, IMAGES_PER_RUN, PROJECT, Call, run_demo
from pixaris_sync.sandbox.demo_report import DemoReport, DemoRun, print_report
from pixaris_sync.sandbox.pictures import draw_landscape, draw_workflow, thumbnail
from pixaris_sync.sandbox.watch_process import WatchProcess
from tests.integration.cloud import Cloud
from tests.support.documents import REPOSITORY

if TYPE_CHECKING:
    import pandas as pd
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

#: Says that it is ready as a service does, then waits for SIGTERM and ends with the code that is put in.
_WATCH = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))
print("last words", flush=True)
notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notices.sendto(b"STATUS=here\\nREADY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""


def test_the_demonstration_ends_well_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the whole journey. Method: run it with real processes; its report, its files, its variables."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    variables = dict(os.environ)

    report = run_demo(Console(stderr=True), runs=2)

    runs = [*report.runs, report.direct]
    assert [len(run.images) for run in runs] == [IMAGES_PER_RUN] * 3
    assert all(run.seconds > 0 for run in runs)
    assert all(
        set(run.links) == {"rating", "hyperparameters", "workflow_pillow_image", "workflow_apiformat_json"}
        for run in runs
    )
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == variables


@pytest.fixture
def stored(gcp_handler: "GCPExperimentHandler") -> Call:
    """One of the demonstration's runs, stored straight to the cloud under the name that it got there."""
    call = demo._make_call(1)
    gcp_handler.store_results(
        PROJECT, DATASET, call.name, list(call.images), dict(call.metrics), dict(call.args)
    )
    assert gcp_handler.experiment_run_name is not None
    return replace(call, name=gcp_handler.experiment_run_name)


@pytest.fixture
def reader(cloud: Cloud, tmp_path: Path) -> Any:
    """The demonstration's reader on the test's bucket and dataset."""
    return demo._Reader(
        project=cloud.project,
        dataset_ref=cloud.dataset_ref,
        bucket=cloud.bucket,
        folder=tmp_path / "read_back",
    )


def test_the_reader_accepts_what_is_as_it_was_written(stored: Call, reader: Any) -> None:
    """Goal: no false alarm. Method: a run that Pixaris itself has stored."""
    frame = reader.load_rows()

    found: DemoRun = reader.check_run(frame, stored, DemoRun(stored.name, 0.1))

    assert found.cells.get("seed") == stored.args["seed"]
    assert sorted(found.images) == [name for _, name in stored.images]
    reader.check_nothing_else(frame, 1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"metrics": {"similarity": 0.1}}, "similarity"),
        ({"metrics": {"rating": {"colour": 9}}}, "the file of rating"),
        ({"args": {"workflow_pillow_image": draw_workflow(9)}}, "the file of workflow_pillow_image"),
        ({"images": [(draw_landscape(9), "view_1.png")]}, "images are"),
        (
            {"images": [(draw_landscape(9), f"view_{n}.png") for n in (1, 2, 3)]},
            "other pixels",
        ),
        ({"name": "another"}, "0 rows"),
    ],
    ids=["value", "dict", "image argument", "image names", "pixels", "row"],
)
def test_the_reader_notices_every_difference(
    stored: Call, reader: Any, change: dict[str, Any], complaint: str
) -> None:
    """Goal: each check can fail. Method: expect something else than what was stored, once for each kind."""
    expected = replace(stored, **change)

    with pytest.raises(SyncError, match=complaint):
        reader.check_run(reader.load_rows(), expected, DemoRun(expected.name, 0.1))


def test_the_reader_notices_what_nobody_wrote(
    stored: Call, reader: Any, gcp_handler: "GCPExperimentHandler"
) -> None:
    """Goal: nothing of ours shows in Pixaris. Method: a row too many, then a project too many."""
    frame: pd.DataFrame = reader.load_rows()

    with pytest.raises(SyncError, match="1 rows, not 0"):
        reader.check_nothing_else(frame, 0)
    gcp_handler.store_results("stray", DATASET, stored.name, list(stored.images), {}, {})
    with pytest.raises(SyncError, match="stray"):
        reader.check_nothing_else(frame, 1)


def _stand_in_for_watch(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(watch_process, "_COMMAND", (sys.executable, "-c", program))


def test_watch_is_ended_with_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: readiness is waited for, a clean end is accepted. Method: a program that plays watch."""
    _stand_in_for_watch(monkeypatch, _WATCH.format(code=0))

    with WatchProcess(tmp_path, tmp_path, {}) as watch:
        watch.check()
        watch.end()


def test_watch_that_does_not_end_cleanly_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: exit 0 is demanded, and its words are shown. Method: a program that ends with another code."""
    _stand_in_for_watch(monkeypatch, _WATCH.format(code=5))

    with (
        WatchProcess(tmp_path, tmp_path, {}) as watch,
        pytest.raises(SyncError, match="exit code 5") as failed,
    ):
        watch.end()

    assert "last words" in str(failed.value)


def test_watch_that_cannot_start_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no waiting for what is dead. Method: a program that ends at once."""
    _stand_in_for_watch(monkeypatch, "raise SystemExit('no such setting')")

    with (
        pytest.raises(SyncError, match=r"(?s)exit code 1.*no such setting"),
        WatchProcess(tmp_path, tmp_path, {}),
    ):
        pass


def test_watch_is_configured_by_the_sandbox_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a user's own settings do not spoil it. Method: a foreign variable, a program that looks."""
    monkeypatch.setenv("PIXARIS_SYNC_GCP_PROJECT_ID", "foreign")
    monkeypatch.setenv("PIXARIS_SYNC_DRAIN_TIMEOUT", "1")
    look = "import os; assert os.environ['PIXARIS_SYNC_GCP_PROJECT_ID'] == 'ours'\n"
    look += "assert 'PIXARIS_SYNC_DRAIN_TIMEOUT' not in os.environ\n"
    _stand_in_for_watch(monkeypatch, look + _WATCH.format(code=0))

    with WatchProcess(tmp_path, tmp_path, {"PIXARIS_SYNC_GCP_PROJECT_ID": "ours"}) as watch:
        watch.end()


def test_pixaris_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: exit 4 and the odd pip command. Method: pretend that nothing can be found."""
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)

    with pytest.raises(ConfigurationError, match="pixaris, gradio") as refused:
        run_demo(Console(stderr=True))

    assert "--ignore-requires-python pixaris==0.11.4" in refused.value.hint


def _report() -> DemoReport:
    image = draw_landscape(1)
    runs = [
        DemoRun(
            f"run-{number}",
            number / 10,
            cells={"seed": number, "upscaled": True, "similarity": 0.5},
            links={"rating": "https://console.cloud.google.com/" + "x" * 100},
            images={"view.png": _png(image)},
        )
        for number in (1, 2, 6, 7)
    ]
    return DemoReport("project", "dataset", runs[:-1], direct=runs[-1])


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_the_report_shows_rows_images_and_times_and_how_to_see_more(colour: Any) -> None:
    """Goal: readable with and without colour, and no link into nowhere. Method: print to a narrow console."""
    console = Console(
        width=80, record=True, force_terminal=colour is not None, color_system=colour, file=sys.stderr
    )

    print_report(_report(), console)

    shown = console.export_text()
    assert "run-6" in shown
    assert "view.png 320x240" in shown
    assert "https://" not in shown
    assert "median 200 ms, max 600 ms over 3 runs" in shown
    assert "visible after 700 ms" in shown
    assert ("\N{UPPER HALF BLOCK}" in shown) == (colour is not None)
    assert shown.rstrip().endswith(" ui --sandbox")


@pytest.mark.parametrize(
    ("folder", "on_path"),
    [(".", False), ("tests", False), (".", True)],
    ids=["checkout", "elsewhere", "on the path"],
)
def test_the_command_that_the_report_names_is_this_installation(
    folder: str, monkeypatch: pytest.MonkeyPatch, *, on_path: bool
) -> None:
    """Goal: what is shown can be typed. Method: type it in a shell, from several folders."""
    monkeypatch.chdir(REPOSITORY / folder)
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{Path(sys.executable).parent if on_path else ''}")
    console = Console(width=80, record=True, file=io.StringIO())

    print_report(_report(), console)

    command = console.export_text().rstrip().splitlines()[-1].strip()
    assert command.startswith("pixaris-sync ") == on_path
    told = subprocess.run(
        ["/bin/sh", "-c", f"{command} --help"], capture_output=True, check=True, text=True, timeout=60
    )
    assert "Show what was synced in Pixaris' own UI." in told.stdout


def test_pictures_are_the_same_each_time_and_different_from_each_other() -> None:
    """Goal: pixels can be compared. Method: draw some twice."""
    drawn = [draw_landscape(number).tobytes() for number in range(8)]

    assert drawn == [draw_landscape(number).tobytes() for number in range(8)]
    assert len(set(drawn)) == 8
    assert draw_workflow(1).tobytes() != draw_workflow(2).tobytes()


def test_a_thumbnail_has_the_colours_of_its_image() -> None:
    """Goal: it looks like the image. Method: an image whose halves have one colour each."""
    image = Image.new("RGB", (48, 32), (255, 0, 0))
    image.paste((0, 0, 255), (0, 16, 48, 32))

    cells = thumbnail(image)

    assert cells[0][0] == ("#ff0000", "#ff0000")
    assert cells[-1][-1] == ("#0000ff", "#0000ff")
