"""Where Pixaris' GCPExperimentHandler fails, loses or overwrites, by name, and what ours does instead.

Each case says what both do: a case that Pixaris mends one day fails here, and is ours to follow.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

from pixaris_sync.handlers.pictures import read_exactly
from tests.conformance.conftest import Destination
from tests.conformance.implementations import OURS, PIXARIS

RED, BLUE = Image.new("RGB", (2, 1), "red"), Image.new("RGB", (2, 1), "blue")


@dataclass(frozen=True, slots=True)
class Place:
    """A handler, and its destination."""

    handler: Any
    destination: Destination

    def store(self, name: str = "run", images: Any = None, metrics: Any = None, args: Any = None) -> None:
        """Store a run with an image."""
        pairs = [(RED, "a.png")] if images is None else images
        self.handler.store_results("p", "d", name, pairs, metrics or {}, args or {})

    def store_or_fail(self, *args: Any, **options: Any) -> str:
        """Store a run, and tell how that ended."""
        try:
            self.store(*args, **options)
        except Exception as error:  # noqa: BLE001 - the table says which
            return type(error).__name__
        return "stored"

    def column(self, name: str) -> list[Any]:
        """A column, as the real handler reads it."""
        return list(self.destination.frame(PIXARIS, "p", "d")[name])

    @property
    def images(self) -> list[str]:
        """The images in the bucket, by the last part of their names."""
        found = (name.rpartition("/generated_images/") for name in self.destination.objects)
        return sorted(file for _, is_image, file in found if is_image)

    @property
    def run(self) -> str:
        """The name of the only run."""
        (name,) = self.column("experiment_run_name")
        return str(name)

    def load(self, folder: Path) -> list[Path]:
        """Load the images of the only run."""
        return [*map(Path, self.handler.load_images_for_experiment("p", "d", self.run, str(folder)))]


class OneMinute(datetime):
    """A clock that stands still, by which Pixaris names runs."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 1, 2, 3, 4, tzinfo=tz)


CASES: list[Any] = []


def case(*, theirs: object, ours: object) -> Callable[[Callable[[Place], object]], Callable[[Place], object]]:
    """Add a function to the table: what it returns, or the name of the error that it raises, of both."""

    def add(outcome: Callable[[Place], object]) -> Callable[[Place], object]:
        for implementation, expected in ((PIXARIS, theirs), (OURS, ours)):
            name = f"{outcome.__name__}-{implementation}"
            CASES.append(pytest.param(outcome, implementation, expected, id=name))
        return outcome

    return add


@case(theirs=("RuntimeError", 1, 1), ours=("stored", 2, 2))
def a_new_key_loses_the_run(place: Place) -> object:
    place.store("one", metrics={"score": 0.5})
    ended = place.store_or_fail("two", metrics={"score": 0.5, "new": 1})
    return ended, len(place.column("score")), len(place.images)


@case(theirs=("RuntimeError", 1, 1), ours=("stored", 2, 2))
def another_type_loses_the_run(place: Place) -> object:
    place.store("one", metrics={"score": 1})
    ended = place.store_or_fail("two", metrics={"score": "high"})
    return ended, len(place.column("score")), len(place.images)


@case(theirs=("OSError", 1, []), ours=("stored", 1, ["a.png"]))
def an_image_that_cannot_be_saved_leaves_a_row_without_it(place: Place) -> object:
    ended = place.store_or_fail(images=[(Image.new("CMYK", (2, 1)), "a.png")])
    return ended, len(place.column("experiment_run_name")), place.images


@case(theirs=("ValueError", 1, []), ours=("stored", 1, ["a.png"]))
def an_image_without_a_suffix_leaves_a_row_without_it(place: Place) -> object:
    ended = place.store_or_fail(images=[(RED, "a")])
    return ended, len(place.column("experiment_run_name")), place.images


@case(theirs=("FileNotFoundError", 1, []), ours=("stored", 1, ["view_a.png"]))
def an_image_with_a_slash_leaves_a_row_without_it(place: Place) -> object:
    ended = place.store_or_fail(images=[(RED, "view/a.png")])
    return ended, len(place.column("experiment_run_name")), place.images


@case(theirs=["a.png"], ours=["a.png", "a_2.png"])
def images_of_one_name_overwrite_each_other(place: Place) -> object:
    place.store(images=[(RED, "a.png"), (BLUE, "a.png")])
    return place.images


@case(theirs=(3, 2), ours=(3, 3))
def runs_of_one_name_in_one_minute_overwrite_each_other(place: Place) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixaris.experiment_handlers.gcp.datetime", OneMinute)
        for image in (RED, BLUE, RED):
            place.store(images=[(image, "a.png")])
    return len(place.column("experiment_run_name")), len(place.images)


@case(theirs="AssertionError", ours=["a.png", "z_pillow_images.0.png"])
def listed_images_of_another_shape_are_refused(place: Place) -> object:
    place.store(args={"pillow_images": [BLUE]})
    return place.images


@case(theirs="AssertionError", ours=["x"])
def a_key_that_is_no_string_is_refused(place: Place) -> object:
    place.store(args={None: "x"})
    return place.column("null")


@case(theirs=["7"], ours=[7])
def a_whole_number_of_numpy_becomes_text(place: Place) -> object:
    place.store(metrics={"steps": np.int64(7)})
    return place.column("steps")


@case(theirs=(["a", "experiment_run_name"], 2), ours=(["a", "pillow_images"], 1))
def what_the_caller_gave_is_changed(place: Place) -> object:
    args = {"a": 1, "pillow_images": [{"node_name": "n", "pillow_image": BLUE}]}
    images = [(RED, "a.png")]
    place.store(images=images, args=args)
    return sorted(args), len(images)


@case(theirs={}, ours={"prompt": "a cat"})
def texts_of_generated_images_are_dropped(place: Place) -> object:
    image = RED.copy()
    image.info["prompt"] = "a cat"
    place.store(images=[(image, "a.png")])
    (content,) = place.destination.objects.values()
    with Image.open(io.BytesIO(content)) as found:
        return found.info


@case(theirs=b"half", ours=RED.tobytes())
def a_half_written_image_is_taken_for_whole_for_ever(place: Place) -> object:
    place.store()
    folder = place.destination.folder / "loaded"
    (path,) = place.load(folder)
    path.write_bytes(b"half")
    assert place.load(folder) == [path]
    return b"half" if path.read_bytes() == b"half" else read_exactly(path).tobytes()


@case(theirs={"p": ["d", "notes.txt"]}, ours={"p": ["d"]})
def a_stray_object_is_listed_as_a_dataset(place: Place) -> object:
    place.store()
    for name in ("p/notes.txt", "README", "p/feedback_iterations/x/y.png"):
        place.destination.put(f"results/{name}", b"x")
    place.destination.put("other/q/e/run/x.png", b"x")
    return {key: sorted(value) for key, value in place.handler.load_projects_and_datasets().items()}


@case(theirs={}, ours={"my_results": ["d"]})
def a_project_that_ends_in_results_is_not_listed(place: Place) -> object:
    place.destination.put("results/my_results/d/run/generated_images/a.png", b"x")
    return place.handler.load_projects_and_datasets()


@case(theirs=True, ours=False)
def what_lies_in_the_working_directory_is_overwritten(place: Place) -> object:
    mine = Path("a.png")
    mine.write_bytes(b"mine")
    place.store()
    is_lost = not mine.exists()
    mine.unlink(missing_ok=True)
    return is_lost


@pytest.mark.parametrize(("outcome", "implementation", "expected"), CASES)
def test_case(
    outcome: Callable[[Place], object], implementation: str, expected: object, destination: Destination
) -> None:
    """Goal: where ours are better is true, and needed. Method: the same with both, and what comes of it."""
    try:
        found = outcome(Place(destination.handler(implementation), destination))
    except Exception as error:  # noqa: BLE001 - the table says which
        found = type(error).__name__
    assert found == expected
