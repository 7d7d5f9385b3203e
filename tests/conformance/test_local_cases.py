"""Where Pixaris' LocalExperimentHandler fails, loses or overwrites, by name, and what ours does instead.

Each case says what both do: a case that Pixaris mends one day fails here, and is ours to follow.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixaris_sync.errors import SyncError
from pixaris_sync.handlers.pictures import read_exactly
from tests.conformance.implementations import IMPLEMENTATIONS, OURS, PIXARIS, handler_class

RED, BLUE = Image.new("RGB", (2, 1), "red"), Image.new("RGB", (2, 1), "blue")
RUN = "20260102-030405_run"


@dataclass(frozen=True, slots=True)
class Place:
    """A handler, and the folder of its dataset."""

    handler: Any
    folder: Path

    def store(self, images: Any = (), metrics: Any = None, args: Any = None) -> None:
        """Store a run; all are of one second."""
        self.handler.store_results("p", "d", "run", list(images), metrics or {}, args or {})

    @property
    def lines(self) -> list[Any]:
        """The records of the tracking file."""
        tracking = self.folder / "experiment_tracking.jsonl"
        return [json.loads(line) for line in tracking.read_text().splitlines()] if tracking.exists() else []

    @property
    def files(self) -> list[str]:
        """The files of all runs."""
        return sorted(
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*.*")
            if path.parent != self.folder
        )

    def images(self, run: str = RUN) -> list[str]:
        """What is loaded as images of a run, by name."""
        root = str(self.folder.parent.parent)
        return [Path(path).name for path in self.handler.load_images_for_experiment("p", "d", run, root)]

    @property
    def frame(self) -> Any:
        return self.handler.load_experiment_results_for_dataset("p", "d")


CASES: list[Any] = []


def case(*, theirs: object, ours: object) -> Callable[[Callable[[Place], object]], Callable[[Place], object]]:
    """Add a function to the table: what it returns, or the name of the error that it raises, of both."""

    def add(outcome: Callable[[Place], object]) -> Callable[[Place], object]:
        for implementation, expected in ((PIXARIS, theirs), (OURS, ours)):
            CASES.append(
                pytest.param(outcome, implementation, expected, id=f"{outcome.__name__}-{implementation}")
            )
        return outcome

    return add


@case(theirs=["a.png"], ours=["a.b.png", "a.c.png"])
def images_of_one_name_up_to_the_point_overwrite_each_other(place: Place) -> object:
    place.store([(RED, "a.b.png"), (BLUE, "a.c.png")])
    return place.images()


@case(theirs=["a.png"], ours=["a.png", "a_2.png"])
def images_of_one_name_overwrite_each_other(place: Place) -> object:
    place.store([(RED, "a.png"), (BLUE, "a.png")])
    return place.images()


@case(theirs=([RUN, RUN], 1), ours=([RUN, f"{RUN}_2"], 2))
def two_runs_of_one_name_in_one_second_share_a_folder(place: Place) -> object:
    place.store([(RED, "a")], {"score": 1})
    place.store([(BLUE, "a")], {"score": 2})
    return [line["experiment_run_name"] for line in place.lines], len(list(place.folder.glob("*/args.json")))


def _stored(place: Place, **values: Any) -> object:
    """The metrics of a run that is there as a whole; else the error, and what it leaves behind."""
    try:
        place.store([(RED, "a")], values)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error).__name__, place.lines, place.folder.exists() and any(place.folder.rglob("*.png"))
    (line,) = place.lines
    return {key: line[key] for key in values}


@case(theirs=("TypeError", [], True), ours={"score": 0.5})
def a_number_of_numpy_is_refused(place: Place) -> object:
    return _stored(place, score=np.float32(0.5))


@case(theirs=("TypeError", [], True), ours={"scores": [[1, 2]]})
def an_array_is_refused(place: Place) -> object:
    return _stored(place, scores=np.array([[1, 2]]))


@case(theirs=("TypeError", [], True), ours={"model": "/models/flux", "day": "2026-01-02"})
def paths_and_dates_are_refused(place: Place) -> object:
    return _stored(place, model=Path("/models/flux"), day=date(2026, 1, 2))


@case(theirs=("TypeError", [], True), ours={"by_pair": {"(1, 2)": 3}})
def a_key_that_is_no_string_is_refused(place: Place) -> object:
    return _stored(place, by_pair={(1, 2): 3})


@case(theirs="TypeError", ours=["gen.png", "z_Load_Image.png"])
def images_in_a_list_are_refused(place: Place) -> object:
    place.store([(RED, "gen")], {}, {"pillow_images": [{"node_name": "Load Image", "pillow_image": BLUE}]})
    return place.images()


def _pixels(place: Place, mode: str, colour: Any) -> object:
    image = Image.new(mode, (2, 1), colour)
    place.store([(image, "a")])
    found = read_exactly(next(place.folder.rglob("a.png")))
    return found.mode, found.tobytes() == image.tobytes()


@case(theirs="OSError", ours=("CMYK", True))
def print_colours_are_refused(place: Place) -> object:
    return _pixels(place, "CMYK", (10, 20, 30, 40))


@case(theirs="OSError", ours=("F", True))
def floating_point_is_refused(place: Place) -> object:
    return _pixels(place, "F", 0.123)


@case(theirs=("I;16", False), ours=("I", True))
def whole_numbers_above_sixteen_bits_are_clipped(place: Place) -> object:
    return _pixels(place, "I", 100_000)


@case(theirs={}, ours={"prompt": "a cat"})
def texts_of_generated_images_are_dropped(place: Place) -> object:
    image = RED.copy()
    image.info["prompt"] = "a cat"
    place.store([(image, "a")])
    with Image.open(next(place.folder.rglob("a.png"))) as found:
        return found.info


@case(theirs="AttributeError", ours="b.png")
def an_image_with_an_odd_note_is_refused(place: Place) -> object:
    image = RED.copy()
    image.info[(1, 2)] = "a note of a decoder"
    place.store([], {}, {"b": image})
    return Path(place.lines[0]["b"]).name


@case(theirs="FileNotFoundError", ours=[f"{RUN}/args.json", f"{RUN}/generated_images/z_lora_image.png"])
def an_image_argument_with_a_slash_is_refused(place: Place) -> object:
    place.store([], {}, {"lora/image": RED})
    return place.files


@case(theirs={"args": f"{RUN}/args.json"}, ours={"args": {"x": 1}})
def a_dict_argument_of_the_name_args_is_overwritten(place: Place) -> object:
    place.store([], {}, {"args": {"x": 1}})
    value = place.lines[0]["args"]
    return {"args": value if isinstance(value, dict) else "/".join(Path(value).parts[-2:])}


@case(theirs="FileNotFoundError", ours=[])
def a_run_without_images_cannot_be_shown(place: Place) -> object:
    place.store()
    return place.images()


@case(theirs=None, ours=[1, 3])
def a_damaged_line_costs_the_whole_frame(place: Place) -> object:
    place.folder.mkdir(parents=True)
    (place.folder / "experiment_tracking.jsonl").write_text('{"a": 1}\n{"a": 2, "b\n{"a": 3}\n')
    return None if place.frame is None else list(place.frame["a"])


@case(theirs=None, ours=[2**70])
def a_number_of_more_than_64_bits_costs_the_whole_frame(place: Place) -> object:
    place.store([], {"seed": 2**70})
    return None if place.frame is None else list(place.frame["seed"])


@case(theirs=(None, None), ours=(0, 0))
def a_dataset_without_runs_has_no_frame(place: Place) -> object:
    missing = place.frame
    place.folder.mkdir(parents=True)
    (place.folder / "experiment_tracking.jsonl").touch()
    return tuple(frame if frame is None else len(frame) for frame in (missing, place.frame))


@case(theirs="JSONDecodeError", ours=["run", "20260102-030405_run"])
def a_torn_last_line_takes_the_next_run_along(place: Place) -> object:
    place.folder.mkdir(parents=True)
    (place.folder / "experiment_tracking.jsonl").write_text(
        '{"experiment_run_name": "run"}\n{"experiment_run'
    )
    place.store()
    first, *_, last = (place.folder / "experiment_tracking.jsonl").read_text().splitlines()
    return [json.loads(line)["experiment_run_name"] for line in (first, last)]


@case(theirs={"p": ["d", "notes.txt"]}, ours={"p": ["d"]})
def a_stray_file_is_listed_as_a_dataset(place: Place) -> object:
    place.store()
    (place.folder.parent / "notes.txt").touch()
    (place.folder.parent / "feedback_iterations").mkdir()
    (place.folder.parent.parent / "README").touch()
    return {key: sorted(value) for key, value in place.handler.load_projects_and_datasets().items()}


@case(theirs=True, ours=False)
def a_name_may_lead_out_of_the_folder(place: Place) -> object:
    outside = place.folder.parent.parent.parent / "outside"
    with suppress(SyncError):
        place.handler.store_results("..", "outside", "run", [], {})
    return outside.exists()


@pytest.mark.filterwarnings("ignore:Saving I mode images as PNG:DeprecationWarning")
@pytest.mark.parametrize(("outcome", "implementation", "expected"), CASES)
def test_case(
    outcome: Callable[[Place], object],
    implementation: str,
    expected: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Goal: where ours are better is true, and needed. Method: the same with both, and what comes of it."""
    monkeypatch.setattr(time, "strftime", lambda _: RUN.removesuffix("_run"))
    root = tmp_path / "local_results"
    handler = handler_class(implementation, "LocalExperimentHandler")(str(root))
    with caplog.at_level(logging.WARNING):
        try:
            found = outcome(Place(handler, root / "p" / "d"))
        except Exception as error:  # noqa: BLE001 - the table says which
            found = type(error).__name__
    assert found == expected
    if outcome is a_damaged_line_costs_the_whole_frame and implementation == OURS:
        assert "left out, as no JSON objects: lines 2" in caplog.text


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_the_caller_gave_is_as_before(implementation: str, tmp_path: Path) -> None:
    """Goal: nothing of the caller's is changed. Method: all kinds of arguments, as they were before."""
    args = {"dict": {"x": [1]}, "list": [1], "image": RED}
    metrics, images = {"score": 0.5}, [(BLUE, "a")]
    handler = handler_class(implementation, "LocalExperimentHandler")(str(tmp_path))
    handler.store_results("p", "d", "run", images, metrics, args)
    assert args == {"dict": {"x": [1]}, "list": [1], "image": RED}
    assert (metrics, images) == ({"score": 0.5}, [(BLUE, "a")])
