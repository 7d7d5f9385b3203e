"""LocalExperimentHandler: what it promises beyond the layout, which `tests/conformance` holds to Pixaris'."""

import json
import logging
import pickle
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.errors import NameRefusedError
from pixaris_sync.handlers import LocalExperimentHandler
from pixaris_sync.handlers.frames import read_tracking_file
from tests.unit.handlers.results import store, whole_runs


def test_what_the_caller_changes_later_does_not_matter(tmp_path: Path) -> None:
    """Goal: without `wait` a run is as it was given. Method: change all before the thread comes to it."""
    handler = LocalExperimentHandler(str(tmp_path), wait=False)
    gate = threading.Event()

    def hold() -> None:
        gate.wait(30)

    handler._behind.do(hold, 1)
    image, args, metrics = Image.new("RGB", (2, 2), "red"), {"list": [1], "dict": {"x": 1}}, {"score": 1}
    handler.store_results("p", "d", "run", [(image, "a")], metrics, {**args, "image": image})
    image.putpixel((0, 0), (0, 0, 0))
    args["list"].append(2)  # type: ignore[attr-defined]
    args["dict"].clear()  # type: ignore[attr-defined]
    metrics["score"] = 2
    assert not list(tmp_path.iterdir())
    gate.set()
    handler.flush()
    dataset = tmp_path / "p" / "d"
    record = json.loads((dataset / "experiment_tracking.jsonl").read_text())
    assert (record["list"], record["score"]) == ([1], 1)
    assert json.loads(Path(record["dict"]).read_text()) == {"x": 1}
    for path in dataset.rglob("*.png"):
        with Image.open(path) as found:
            assert found.getpixel((0, 0)) == (255, 0, 0)


def test_a_handler_is_pickled_with_what_it_was_given(tmp_path: Path) -> None:
    """Goal: Pixaris pickles handlers for other machines. Method: there and back; both store."""
    with LocalExperimentHandler(str(tmp_path), wait=False, pending_bytes_limit=5) as handler:
        copied = pickle.loads(pickle.dumps(handler))  # noqa: S301 - our own
        assert (copied.local_results_folder, copied.wait, copied.pending_bytes_limit) == (
            str(tmp_path),
            False,
            5,
        )
        store(handler, "one")
    store(copied, "two")
    copied.close()
    assert [name.partition("_")[2] for name in whole_runs(tmp_path / "p" / "d")] == ["one", "two"]


def test_runs_of_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no run overwrites another. Method: three of one name while the clock stands."""
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    for _ in range(3):
        store(LocalExperimentHandler(str(tmp_path)))
    name = "20260102-030405_run"
    assert whole_runs(tmp_path / "p" / "d") == [name, f"{name}_2", f"{name}_3"]


@pytest.mark.parametrize("name", ["..", "", "a/../b", "a\0b", "/a"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    """Goal: nothing is written outside. Method: each name as project and as dataset; nothing is there."""
    handler = LocalExperimentHandler(str(tmp_path / "results"))
    for project, dataset in ((name, "d"), ("p", name)):
        with pytest.raises(NameRefusedError):
            handler.store_results(project, dataset, "run", [], {})
    assert not list(tmp_path.iterdir())


def test_an_error_behind_is_raised_by_the_next_call_and_by_flush(tmp_path: Path) -> None:
    """Goal: no error is lost, and the next run is stored all the same. Method: jobs that fail."""

    def fail() -> None:
        raise OSError("the disk is full")

    handler = LocalExperimentHandler(str(tmp_path), wait=False)
    handler._behind.do(fail, 1)
    with pytest.raises(OSError, match="the disk is full"):
        handler.flush()
    handler.flush()
    handler._behind.do(fail, 1)
    handler._behind.wait()
    with pytest.raises(OSError, match="the disk is full"):
        store(handler)
    handler.flush()
    assert len(whole_runs(tmp_path / "p" / "d")) == 1


@pytest.mark.parametrize(
    ("content", "rows", "damaged"),
    [
        (b'{"a": 1}\n{"a": 2, "b\n{"a": 3}\n', [1, 3], "2"),
        (b'{"a": 1}\n[1, 2]\n\n"x"\n{"a": 3', [1], "2, 4, 5"),
        (b'\xff\xfe\n{"a": 1}', [1], "1"),
        (b"{", [], "1"),
    ],
)
def test_a_damaged_line_costs_that_line_and_a_warning(
    content: bytes, rows: list[int], damaged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: what is whole is read. Method: lines of all kinds of damage; the frame and the warning."""
    path = tmp_path / "tracking.jsonl"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        frame = read_tracking_file(path)
    assert (list(frame["a"]) if rows else list(frame.index)) == rows
    assert f"left out, as no JSON objects: lines {damaged}" in caplog.text
