"""What a call of ``store_results`` says: values as JSON has them, images and dicts as files of the run."""

# ruff: noqa: PD011 - the values are those of a run, not of a frame

import copy
import enum
import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixaris_sync.errors import SyncError
from pixaris_sync.handlers.record import NewRun, SavedFile, cloud_names, local_names, new_run
from pixaris_sync.model import DatasetKey, JsonValue
from pixaris_sync.rules.contract import NESTING_LEVELS_MAX, parse_record

RED, BLUE = Image.new("RGB", (2, 1), "red"), Image.new("RGB", (2, 1), "blue")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042 - as older code has it, whose text is not its value
    ONE = "one"


class Many:
    """Has the method of NumPy's arrays, but is no array."""

    def tolist(self) -> "Many":
        return self

    def __str__(self) -> str:
        return "many"


def run_of(
    args: Mapping[Any, Any],
    metrics: Mapping[Any, Any] | None = None,
    images: Any = (),
    *,
    cloud: bool = False,
) -> NewRun:
    return new_run(images, metrics or {}, args, named=cloud_names if cloud else local_names)


PLAIN = [
    (None, None),
    (True, True),
    (2**70, 2**70),
    (0.1, 0.1),
    (math.inf, math.inf),
    ("a \ud800 b", "a \ud800 b"),
    ((1, (2, "x")), [1, [2, "x"]]),
    (np.float64(0.25), 0.25),
    (np.float32(0.5), 0.5),
    (np.int64(-7), -7),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),  # noqa: FBT003 - the value itself
    (np.str_("text"), "text"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array(1.5), 1.5),
    (np.datetime64("2026-01-02"), "2026-01-02"),
    (np.float32, "<class 'numpy.float32'>"),
    (np.dtype("float32"), "float32"),
    (pd.Series([1.5, 2.5]), [1.5, 2.5]),
    (pd.Timestamp("2026-01-02"), "2026-01-02 00:00:00"),
    (PurePosixPath("/models/flux"), "/models/flux"),
    (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
    (Decimal("1.10"), "1.10"),
    (1 + 2j, "(1+2j)"),
    (b"\x00a", "b'\\x00a'"),
    (Colour.RED, "Colour.RED"),
    (Level.HIGH, 3),
    (Word.ONE, "one"),
    ({7}, "{7}"),
    (range(3), "range(0, 3)"),
    (10**5000, hex(10**5000)),
    (Many(), "many"),
    ([{1: {"a": np.int8(2)}, None: Path("x")}], [{"1": {"a": 2}, "null": "x"}]),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN, ids=lambda value: type(value).__name__)
def test_a_value_becomes_what_json_holds(value: object, expected: JsonValue) -> None:
    """Goal: no value stops a run from being stored. Method: one of each kind, as argument and as metric."""
    for run in (run_of({"key": value}), run_of({}, {"key": value})):
        assert run.values == {"key": expected}
        assert type(run.values["key"]) is type(expected)
        assert not run.images
        json.dumps(run.record("folder", "name", "time"))


def test_a_not_a_number_stays_one() -> None:
    """Goal: what Pixaris writes bare is written so. Method: NaN of Python and of NumPy."""
    record = run_of({"a": math.nan}, {"b": np.float32("nan")}).record("folder", "name", "time")
    assert '"a": NaN, "b": NaN' in json.dumps(record)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        (np.int64(3), "3"),
        (Word.ONE, "one"),
        (Level.HIGH, "3"),
        ((1, 2), "(1, 2)"),
        (b"k", "b'k'"),
        (10**5000, hex(10**5000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_becomes_what_json_has(key: object, expected: str) -> None:
    """Goal: keys that are no strings do not stop a run. Method: each kind at the top and in a dict."""
    assert run_of({key: 1}, {"in": {key: 2}}).values == {expected: 1, "in": {expected: 2}}


def test_images_and_dicts_among_arguments_are_saved() -> None:
    """Goal: files of the run as Pixaris saves them. Method: one of each; a mapping of another class."""
    run = run_of({"a": RED, "b": {"x": (1,)}, "c": OrderedDict(y=np.int64(2)), "": {"z": 1}})
    saved = {"a.png": RED, "b.json": '{"x": [1]}', "c.json": '{"y": 2}', ".json": '{"z": 1}'}
    assert dict(run.arguments) == saved
    assert run.values == {key.rpartition(".")[0]: SavedFile(key) for key in saved}
    record = run.record("place/run", "run", "20260101-000000")
    assert record["b"] == "place/run/b.json"
    assert list(record) == ["timestamp", "a", "b", "c", "", "experiment_run_name"]


@pytest.mark.parametrize("key", ["a/b", "a\\b", "a\0b", "a\nb", "\ud800", "k" * 260, "args"])
def test_an_argument_that_names_no_file_stays_whole(key: str) -> None:
    """Goal: a key that is no file's name costs nothing. Method: a dict and an image of each."""
    assert run_of({key: {"x": 1}}).values == {key: {"x": 1}}
    if key == "args":
        assert run_of({key: RED}).arguments == {"args.png": RED}
        return
    run = run_of({key: RED}, cloud=True)
    ((file, image),) = run.images.items()
    assert image is RED
    assert run.values == {key: f"z_{key}.png"}
    assert file.startswith("z_")
    assert not run.arguments


def test_pillow_images_join_the_generated_ones() -> None:
    """Goal: images in a list are stored as Pixaris does. Method: its shape; blanks in a node's name."""
    inputs = [{"node_name": "Load Image", "pillow_image": RED}, {"node_name": "mask", "pillow_image": BLUE}]
    given = copy.copy(inputs)
    for cloud in (False, True):
        run = run_of({"pillow_images": inputs, "k": 1}, images=[(BLUE, "gen.png")], cloud=cloud)
        assert list(run.images.items()) == [
            ("gen.png", BLUE),
            ("z_Load_Image.png", RED),
            ("z_mask.png", BLUE),
        ]
        assert run.values == {"k": 1}
    assert inputs == given


@pytest.mark.parametrize(
    ("value", "expected", "images"),
    [
        ([], [], []),
        ("text", "text", []),
        ([RED], ["z_pillow_images.0.png"], ["z_pillow_images.0.png"]),
        ([{"pillow_image": RED}], [{"pillow_image": "z_pillow_images.0.pillow_image.png"}], None),
        ([{"node_name": "a"}], [{"node_name": "a"}], []),
    ],
)
def test_pillow_images_of_another_shape_are_a_list_like_any_other(
    value: Any, expected: JsonValue, images: list[str] | None
) -> None:
    """Goal: what Pixaris refuses there is stored. Method: no list, an empty one, other items."""
    run = run_of({"pillow_images": value}, cloud=True)
    assert run.values == {"pillow_images": expected}
    assert list(run.images) == (images if images is not None else ["z_pillow_images.0.pillow_image.png"])


def test_images_deep_in_values_are_stored_too() -> None:
    """Goal: no image is lost wherever it stands. Method: in lists and dicts of arguments and of metrics."""
    run = run_of({"a": [RED, {"b": BLUE}]}, {"m": {"x": RED}, "direct": BLUE}, cloud=True)
    assert run.values == {
        "a": ["z_a.0.png", {"b": "z_a.1.b.png"}],
        "m": {"x": "z_m.x.png"},
        "direct": SavedFile("direct.png"),
    }
    assert dict(run.images) == {"z_a.0.png": RED, "z_a.1.b.png": BLUE, "z_m.x.png": RED}
    assert run.arguments == {"direct.png": BLUE}


def test_a_metric_goes_before_an_argument() -> None:
    """Goal: one value a name, the metric, where the argument stood. Method: a saved and a plain one."""
    run = run_of({"a": {"x": 1}, "b": 1, "c": RED}, {"b": 2, "a": {"y": 2}, "c": BLUE, 1: 3, "1": 4})
    assert list(run.values.items()) == [("a", {"y": 2}), ("b", 2), ("c", SavedFile("c.png")), ("1", 4)]
    assert run.arguments == {"c.png": BLUE}


def test_an_argument_may_be_called_as_the_record_is() -> None:
    """Goal: the run's own name stands, at the place of the argument. Method: both names of the handler's."""
    record = run_of({"experiment_run_name": "mine", "timestamp": "then", "k": 1}).record("f", "run", "now")
    assert list(record.items()) == [("timestamp", "then"), ("experiment_run_name", "run"), ("k", 1)]


def test_what_refers_to_itself_is_refused() -> None:
    """Goal: an error that says which argument. Method: a list and a dict that hold themselves."""
    circle: list[object] = []
    circle.append(circle)
    ring: dict[str, object] = {}
    ring["ring"] = ring
    for value in (circle, ring):
        with pytest.raises(SyncError, match="store argument loop: it is nested more than"):
            run_of({"loop": value})


def test_what_is_taken_can_be_synced() -> None:
    """Goal: no run is stored that is refused later. Method: the deepest value, given to the reader."""

    def nested(levels: int) -> JsonValue:
        value: JsonValue = []
        for _ in range(levels - 1):
            value = [value]
        return value

    deepest = max(levels for levels in range(190, NESTING_LEVELS_MAX + 5) if _is_taken(nested(levels)))
    assert deepest == NESTING_LEVELS_MAX - 1
    record = run_of({}, {"deep": nested(deepest)}).record("folder", "name", "time")
    assert parse_record(DatasetKey("p", "d"), record, 1).values["deep"] == nested(deepest)


def _is_taken(value: JsonValue) -> bool:
    try:
        run_of({"deep": value})
    except SyncError:
        return False
    return True


def test_nothing_of_the_callers_is_kept_but_images() -> None:
    """Goal: what the caller changes later does not matter. Method: change all of it, once detached."""
    args: dict[str, Any] = {"list": [1, [2]], "dict": {"x": [1]}}
    metrics = {"array": np.array([1, 2])}
    image = RED.copy()
    run = run_of({**args, "image": image}, metrics, [(image, "a")]).detached()
    args["list"][1].append(3)
    args["dict"]["x"] = None
    metrics["array"][0] = 9
    image.putpixel((0, 0), (0, 0, 0))
    assert run.values["list"] == [1, [2]]
    assert run.arguments["dict.json"] == '{"x": [1]}'
    assert run.values["array"] == [1, 2]
    assert run.images["a.png"].tobytes() == RED.tobytes()
    kept = run.arguments["image.png"]
    assert isinstance(kept, Image.Image)
    assert kept.tobytes() == RED.tobytes()


def test_image_bytes_are_told() -> None:
    """Goal: the bound of what waits means bytes. Method: modes of one, two and four bytes, once each."""
    images = [(Image.new(mode, (10, 10)), mode) for mode in ("L", "P", "I;16", "RGB", "F")]
    assert run_of({"x": Image.new("1", (10, 10))}, images=images).image_bytes == 100 * (1 + 1 + 2 + 4 + 4 + 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_what_json_holds_is_kept_as_it_is(values: dict[str, JsonValue]) -> None:
    """Goal: plain values are not touched. Method: any JSON, as metrics."""
    run = run_of({}, values)
    assert run.values == values
    assert list(run.values) == list(values)
