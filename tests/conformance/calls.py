"""Calls of ``store_results`` that Pixaris' own handlers take without losing anything, drawn from a seed."""

import copy
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from PIL import Image

_WORDS: Final = (
    "a lighthouse at dusk",
    "",
    "None",
    "1e5",
    "2026-01-02",
    "Straße, naïve café 夜 🦜",
    "line one\nline two\r\n\ttab \\ ' \" `",
    "x" * 3000,
    "local_results/project/dataset/run/prompt.png",
    "https://example.org/?a=1&b=%20",
)
_INTEGERS: Final = (0, 1, -1, 42, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
_REALS: Final = (0.0, -0.0, 0.1, 1e-300, 1.7976931348623157e308, 5e-324)
_UNBOUNDED: Final = (math.nan, math.inf, -math.inf)
_MODES: Final = ("RGB", "RGBA", "L", "LA", "P", "1")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of ``store_results``, whoever it is made to."""

    project: str
    dataset: str
    name: str
    images: list[tuple[Image.Image, str]]
    metrics: dict[str, Any]
    args: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, handler: Any) -> None:
        """Make it, with copies: GCPExperimentHandler changes what it is given."""
        given = (list(self.images), dict(self.metrics), copy.copy(self.args))
        handler.store_results(self.project, self.dataset, self.name, *given, **self.options)

    def as_local_takes_it(self) -> "Call":
        """The same with its listed images among the generated ones: Pixaris' local handler takes no list."""
        args = dict(self.args)
        listed = args.pop("pillow_images", [])
        inputs = [(one["pillow_image"], f"z_{one['node_name']}.png".replace(" ", "_")) for one in listed]
        return replace(self, images=[*self.images, *inputs], args=args)


def picture(rng: random.Random, *, texts: bool) -> Image.Image:
    """An image as tools hand it out, with text that its PNG file had, if wanted."""
    size = (rng.randrange(1, 12), rng.randrange(1, 12))
    image = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).convert(rng.choice(_MODES))
    if texts and rng.random() < 0.7:
        image.info.update(prompt=rng.choice(_WORDS), workflow='{"nodes": []}', steps=rng.randrange(50))
    return image


def _leaf(rng: random.Random) -> Any:
    values = rng.choice((_WORDS, _INTEGERS, _REALS, (True, False, None)))
    return rng.choice(values)


def _list(rng: random.Random) -> list[Any]:
    return [_leaf(rng) for _ in range(rng.randrange(4))]


def _dict(rng: random.Random) -> dict[Any, Any]:
    keys = [rng.choice((*_WORDS, 1, 2.5, None, True)) for _ in range(rng.randrange(4))]
    return {key: rng.choice((_leaf, _list))(rng) for key in {str(key): key for key in keys}.values()}


def local_calls(seed: str) -> Iterator[Call]:
    """Calls for LocalExperimentHandler, of every kind of value that JSON has."""
    rng = random.Random(f"local {seed}")  # noqa: S311 - to be the same each time
    values: tuple[Callable[[random.Random], Any], ...] = (
        _leaf,
        _list,
        _dict,
        lambda rng: tuple(_list(rng)),
        lambda rng: [_dict(rng), [_list(rng)]],
        lambda rng: rng.choice(_UNBOUNDED),
    )
    for number in range(12):
        dataset = rng.choice(("train", "eval set", "Zürich"))
        args = {f"arg.{at} ü": rng.choice(values)(rng) for at in range(rng.randrange(6))}
        args |= {f"image {at}": picture(rng, texts=True) for at in range(rng.randrange(3))}
        if rng.random() < 0.3:
            args |= {"experiment_run_name": "mine", "timestamp": "then"}
        metrics = {f"metric {at}": rng.choice(values)(rng) for at in range(rng.randrange(5))}
        if rng.random() < 0.3:
            args["both"], metrics["both"] = _leaf(rng), _leaf(rng)
        yield Call(
            rng.choice(("project", "other project")),
            dataset,
            rng.choice(("run", "run é", "deep/run", "a.b", "")) + f" {number}",
            [
                (picture(rng, texts=False), f"picture {at} ü{rng.choice(('.png', '.b.jpg', ''))}")
                for at in range(rng.randrange(4))
            ],
            metrics,
            args,
            rng.choice(({}, {}, {"dataset_tracking_file_name": "other.jsonl"})),
        )


def cloud_calls(seed: str) -> Iterator[Call]:
    """Calls for GCPExperimentHandler: a key of a dataset has values of one type, as the real one needs it."""
    rng = random.Random(f"cloud {seed}")  # noqa: S311 - to be the same each time
    kinds: tuple[tuple[Callable[[random.Random], Any], ...], ...] = (
        (lambda rng: rng.choice(_WORDS), _list, lambda _: None),
        (lambda rng: rng.choice(_INTEGERS),),
        (lambda rng: rng.choice(_REALS),),
        (lambda rng: rng.random() < 0.5,),
        (_dict,),
        (lambda rng: picture(rng, texts=True),),
    )
    for number, dataset in enumerate(("train", "Zürich")):
        drawn = [rng.choice(kinds) for _ in range(6)]
        measured = [rng.choice(kinds[:5]) for _ in range(4)]
        for run in range(3):
            args = {f"arg_{at}": rng.choice(kind)(rng) for at, kind in enumerate(drawn)}
            if run == 1:
                node = {"node_name": "Load Image", "pillow_image": picture(rng, texts=False)}
                args["pillow_images"] = [node]
            yield Call(
                f"project_{number}",
                dataset,
                f"run {run} é",
                [(picture(rng, texts=False), f"picture {at} ü.png") for at in range(rng.randrange(1, 4))],
                {f"metric_{at}": rng.choice(kind)(rng) for at, kind in enumerate(measured)},
                args,
            )
