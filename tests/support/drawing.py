"""What Pixaris asks its users to write: a data loader, a generator and a metric, which draw pictures.

Importing this makes Pixaris' orchestration importable. Of scikit-learn it needs one class of a few lines, for
which another stands in here where scikit-learn is not installed. Pixaris has no types, so that its
classes are anything to the type checker.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from PIL import Image, ImageDraw
from pixaris.data_loaders.base import DatasetLoader
from pixaris.generation.base import ImageGenerator
from pixaris.metrics.base import BaseMetric

SIZE = (24, 16)


class _ParameterGrid:
    """All combinations, the last of the sorted keys changing fastest, as scikit-learn documents its own."""

    def __init__(self, grid: Mapping[Any, Sequence[Any]]) -> None:
        self._grid = dict(sorted(grid.items()))

    def __iter__(self) -> Iterator[dict[Any, Any]]:
        for values in itertools.product(*self._grid.values()):
            yield dict(zip(self._grid, values, strict=True))


if not find_spec("sklearn"):
    sys.modules["sklearn"] = ModuleType("sklearn")
    sys.modules["sklearn.model_selection"] = ModuleType("sklearn.model_selection")
    sys.modules["sklearn.model_selection"].ParameterGrid = _ParameterGrid  # type: ignore[attr-defined]


class Sketches(DatasetLoader):  # type: ignore[misc]
    """A dataset of so many sketches, each with the name that its picture is to get."""

    def __init__(self, count: int) -> None:
        self._count = count

    def load_dataset(self) -> list[dict[str, Any]]:
        return [
            {
                "name": f"view_{number}.png",
                "pillow_images": [{"node_name": "Sketch", "pillow_image": Image.new("L", SIZE, 50 * number)}],
            }
            for number in range(self._count)
        ]


class Painter(ImageGenerator):  # type: ignore[misc]
    """Draws a circle onto the sketch, as wide as the parameter ``width`` says."""

    def generate_single_image(self, args: dict[str, Any]) -> tuple[Image.Image, str]:
        sketch, *inspirations = [item["pillow_image"] for item in args["pillow_images"]]
        picture = Image.merge("RGB", [sketch, sketch.transpose(Image.Transpose.ROTATE_180), sketch])
        colour = inspirations[0].getpixel((0, 0)) if inspirations else "white"
        width = sum(one["value"] for one in args.get("generation_params", [])) or 4
        ImageDraw.Draw(picture).ellipse((2, 2, 2 + width, 2 + width), fill=colour)
        return picture, args["name"]


class Brightness(BaseMetric):  # type: ignore[misc]
    """How bright the pictures are: the mean of their greens, from 0 to 1."""

    def calculate(self, images: list[Image.Image]) -> dict[str, float]:
        greens = b"".join(image.getchannel("G").tobytes() for image in images)
        return {"brightness": sum(greens) / len(greens) / 255}
