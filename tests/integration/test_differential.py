"""The differential test: what GCPExperimentHandler stores, and what we carry for the same call, are equal."""

import copy
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pixaris_sync.sandbox.emulators import Sandbox
from tests.integration.cloud import Cloud, new_cloud
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, picture, store_run

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

#: More seeds can be tried by naming them here, separated by spaces.
SEEDS = os.environ.get("PIXARIS_SYNC_TEST_SEEDS", "20240229").split()

DATASETS_PER_SEED = 5
RUNS_PER_DATASET = 3

Value = Callable[[random.Random], Any]

_WORDS = (
    "a lighthouse at dusk",
    "",
    " ",
    "None",
    "1e5",
    "true",
    "Straße, naïve café",
    "夜の街",
    "🦜 ¯\\_(ツ)_/¯",
    "line one\nline two\r\n\ttab",
    "quotes \" ' ` and \\ backslash",
    "x" * 3000,
    "test/assets/flow.json",
    "local_results/project/dataset/run/prompt.png",
    "/somewhere/else/generation_params.json",
    "..\\..\\secrets\\flow.json",
    "gs://bucket/results/a/b/c.png",
    "https://example.org/?a=1&b=%20",
)


@dataclass(frozen=True)
class _Call:
    """One call of ``store_results``, whoever it is made to."""

    project: str
    dataset: str
    name: str
    images: list[tuple[Image.Image, str]]
    metrics: Mapping[str, Any]
    args: Mapping[str, Any]


def _string(rng: random.Random) -> str:
    return rng.choice(_WORDS)


def _integer(rng: random.Random) -> int:
    return rng.choice((0, 1, -1, 42, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), rng.randrange(-(10**6), 10**6)))


def _real(rng: random.Random) -> float:
    return rng.choice((0.0, -0.0, 1.0, 0.1, 1e-300, 1.7976931348623157e308, 5e-324, rng.uniform(-1e6, 1e6)))


def _boolean(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _nothing(_: random.Random) -> None:
    return None


def _list(rng: random.Random) -> list[Any]:
    return [_leaf(rng) for _ in range(rng.randrange(4))]


def _dict(rng: random.Random) -> dict[str, Any]:
    return {_string(rng): rng.choice((_leaf, _list))(rng) for _ in range(rng.randrange(4))}


def _leaf(rng: random.Random) -> Any:
    return rng.choice((_string, _integer, _real, _boolean, _nothing))(rng)


def _image(rng: random.Random) -> Image.Image:
    """An image as tools hand it out: of any mode, with text that its PNG file had."""
    mode = rng.choice(("RGB", "RGBA", "L", "LA", "P", "1"))
    size = (rng.randrange(1, 12), rng.randrange(1, 12))
    image = picture(rng.randrange(100), size).convert(mode)
    if rng.random() < 0.7:
        image.info.update(prompt=_string(rng), workflow='{"nodes": []}', steps=rng.randrange(50))
    return image


def _value_of_any_kind(rng: random.Random) -> Any:
    """For cells that become text whatever they are: the column is a STRING from the first run on."""
    return rng.choice((_string, _nothing, _list))(rng)


_ARGS: tuple[Value, ...] = (
    *(_string, _integer, _real, _boolean, _nothing, _list, _dict, _image),
    _value_of_any_kind,
)
_METRICS: tuple[Value, ...] = (_real, _integer, _boolean, _string, _dict, _nothing)
_DEFAULTS: Mapping[str, Value] = {
    "hyperparameters": _dict,
    "generation_params": _list,
    "workflow_apiformat_json": _string,
    "workflow_pillow_image": _image,
    "max_parallel_jobs": _integer,
}


def _calls(rng: random.Random) -> Iterator[_Call]:
    """Calls for some datasets, in each of which a key has values of one kind: upstream takes no others."""
    for number in range(DATASETS_PER_SEED):
        # No two of them share a table: "a_b" + "c" and "a" + "b_c" would.
        project, dataset = f"project_{number // 2}", rng.choice(("train", "eval", "Zürich")) + f"_{number}"
        args = {f"{kind.__name__[1:]}_arg_{at}": kind for at, kind in enumerate(rng.choices(_ARGS, k=5))}
        metrics = {f"{kind.__name__[1:]}_{at}": kind for at, kind in enumerate(rng.choices(_METRICS, k=4))}
        args.update({key: kind for key, kind in _DEFAULTS.items() if rng.random() < 0.5})
        for run in range(RUNS_PER_DATASET):
            yield _Call(
                project,
                dataset,
                f"run {number}.{run} é",
                [(_image(rng), f"picture {at} ü.png") for at in range(rng.randrange(1, 4))],
                {key: kind(rng) for key, kind in metrics.items()},
                {key: kind(rng) for key, kind in args.items()},
            )


@pytest.fixture
def direct(sandbox: Sandbox, gcp_handler: "GCPExperimentHandler", monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Another bucket and dataset, which the handler writes to by itself."""
    cloud = new_cloud(sandbox, monkeypatch)
    return Reader(type(gcp_handler)(cloud.project, cloud.dataset_ref, cloud.bucket))


def _neutral(frame: pd.DataFrame, bucket: str) -> pd.DataFrame:
    """A frame without what must differ: run names lose their prefixes, links the bucket and the run."""
    neutral = frame.copy()
    for at, run in enumerate(frame["experiment_run_name"]):
        for column in frame.columns:
            cell = frame.loc[at, column]
            if isinstance(cell, str):
                neutral.loc[at, column] = cell.replace(f"/{bucket}/", "/BUCKET/").replace(run, _bare(run))
    return neutral.drop(columns="timestamp").sort_values("experiment_run_name", ignore_index=True)


def _bare(run: str) -> str:
    """A run's name as the caller gave it: both handlers put the time in front."""
    return run[run.index("run ") :]


def _neutral_object(name: str) -> str:
    """An object's name with its run's bare name; ``results/<project>/<dataset>/<run>/...``."""
    parts = name.split("/")
    parts[3] = _bare(parts[3])
    return "/".join(parts)


def _looks(image: Image.Image) -> Any:
    return image.mode, image.size, image.tobytes(), image.getpalette(), dict(image.info)


@pytest.mark.parametrize("seed", SEEDS)
def test_synced_runs_are_as_the_cloud_handler_would_have_stored_them(
    direct: Reader,
    pixaris: Reader,
    command_line: CommandLine,
    cloud: Cloud,
    tmp_path: Path,
    seed: str,
) -> None:
    """Goal: acceptance 2. Method: store random calls both ways, read both with GCPExperimentHandler.

    The seed is a part of the test's name. Random calls of every kind of value, several runs in each dataset.
    """
    calls = list(_calls(random.Random(f"calls {seed}")))  # noqa: S311 - to be the same each time
    for call in calls:
        # The handler changes the lists and dicts that it is given.
        arguments = (list(call.images), copy.copy(dict(call.metrics)), copy.copy(dict(call.args)))
        direct.handler.store_results(call.project, call.dataset, call.name, *arguments)
        store_run(
            command_line.folder,
            call.name,
            project=call.project,
            dataset=call.dataset,
            images=call.images,
            metrics=call.metrics,
            args=call.args,
        )

    document = command_line.sync()

    assert document["rows_synced"] == len(calls)
    listed = pixaris.handler.load_projects_and_datasets()
    assert listed == direct.handler.load_projects_and_datasets()
    assert {(call.project, call.dataset) for call in calls} == {
        (project, dataset) for project, datasets in listed.items() for dataset in datasets
    }
    for project, datasets in listed.items():
        for dataset in datasets:
            theirs, ours = direct.frame(project, dataset), pixaris.frame(project, dataset)
            # Column names, their order and their types are compared too.
            pd.testing.assert_frame_equal(
                _neutral(ours, cloud.bucket),
                _neutral(theirs, direct.handler.gcp_pixaris_bucket_name),
                check_exact=True,
                obj=f"seed {seed}, {project}/{dataset}",
            )
    _compare_objects(direct, pixaris, tmp_path)


def _compare_objects(direct: Reader, pixaris: Reader, folder: Path) -> None:
    """Every object is there under the same name: images alike in every pixel and text, others bytewise."""
    theirs = {_neutral_object(name): name for name in direct.objects()}
    ours = {_neutral_object(name): name for name in pixaris.objects()}
    assert ours.keys() == theirs.keys()
    texts = 0
    for neutral, name in ours.items():
        if not name.endswith(".png"):
            assert pixaris.content(name) == direct.content(theirs[neutral]), neutral
            continue
        looks = []
        for side, reader, there in (("ours", pixaris, name), ("theirs", direct, theirs[neutral])):
            path = folder / side / there
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reader.content(there))
            with Image.open(path) as image:
                image.load()
                looks.append(_looks(image))
        assert looks[0] == looks[1], neutral
        texts += "workflow" in looks[0][-1]
    assert texts, "no image argument had text: the seed is of no use"


def test_the_order_of_new_types_is_that_of_the_runs(
    direct: Reader, pixaris: Reader, command_line: CommandLine, cloud: Cloud
) -> None:
    """Goal: the oldest record's text stands under its own name, though newer runs are sent before it.

    Method: text first and numbers later, a key that comes and goes, one in another case; two rows at once.
    """
    metrics: list[dict[str, Any]] = [
        {"rating": "high", "Score": 0.5, "only_first": True},
        {"rating": 1, "score": 0.25},
        {"score": 1.5, "rating": 2.5},
        {"rating": 3, "score": 2.5},
    ]
    for at, values in enumerate(metrics):
        image = (picture(at), "image.png")
        direct.handler.store_results("project", "dataset", f"run {at}", [image], dict(values), {})
        store_run(command_line.folder, f"run {at}", images=[image], metrics=values)
    limited = command_line.having(stream_rows_limit=2)
    plan = limited.run("backfill", "--dry-run", "--json").document

    document = limited.sync()

    assert document["rows_synced"] == len(metrics)
    theirs, ours = direct.frame(), pixaris.frame()
    pd.testing.assert_frame_equal(
        _neutral(ours, cloud.bucket), _neutral(theirs, direct.handler.gcp_pixaris_bucket_name)
    )
    assert list(ours["rating"]) == ["high", "1", "2.5", "3"]
    assert list(ours["Score"]) == [0.5, 0.25, 1.5, 2.5]
    [table] = plan["tables_to_create"]
    assert [column["name"] for column in table["columns"]] == list(ours.columns)


def test_images_are_read_back_with_their_pixels_and_texts(
    direct: Reader, pixaris: Reader, command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: what load_images_for_experiment gives is equal. Method: both ways, by the handler itself."""
    profile = b"no colour profile, but bytes that a PNG keeps"
    images = []
    for at, mode in enumerate(("RGB", "RGBA", "L", "P", "1", "I;16")):
        image = Image.new("I;16", (3, 3), 40_000) if mode == "I;16" else picture(at).convert(mode)
        image.info.update(icc_profile=profile, prompt="a text that no handler keeps for generated images")
        images.append((image, f"view_{at}.png"))
    stored = store_run(command_line.folder, "images", images=images)
    direct.handler.store_results("project", "dataset", "images", list(images), {}, {})

    command_line.sync()

    ours = pixaris.images(stored.key, tmp_path / "ours")
    theirs = direct.images(
        type(stored.key)("project", "dataset", direct.handler.experiment_run_name), tmp_path / "theirs"
    )
    assert [_looks(ours[name]) for name in sorted(ours)] == [_looks(theirs[name]) for name in sorted(theirs)]
    assert sorted(ours) == [name for _, name in images]
    assert ours["view_0.png"].info["icc_profile"] == profile


def test_a_text_of_an_image_argument_survives(pixaris: Reader, command_line: CommandLine) -> None:
    """Goal: the workflow inside a PNG is what people look for. Method: text in, link followed, text out."""
    image = picture()
    texts = PngInfo()
    texts.add_text("prompt", "naïve café 夜")
    path = command_line.folder.parent / "workflow.png"
    image.save(path, pnginfo=texts)
    with Image.open(path) as workflow:
        workflow.load()
    store_run(command_line.folder, args={"workflow_pillow_image": workflow})

    command_line.sync()

    link = pixaris.frame()["workflow_pillow_image"][0]
    name = link.partition(f"{pixaris.handler.gcp_pixaris_bucket_name}/")[2].partition("?project=")[0]
    path.write_bytes(pixaris.content(name))
    with Image.open(path) as found:
        assert found.info["prompt"] == "naïve café 夜"
        assert found.tobytes() == image.tobytes()
