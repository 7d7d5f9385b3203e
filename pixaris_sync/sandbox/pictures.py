"""Pictures for the demonstration: small, deterministic, and different enough to be told apart at a glance."""

import colorsys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_GOLDEN_RATIO = 0.61803398875
_LANDSCAPE_SIZE = (320, 240)
_WORKFLOW_SIZE = (240, 160)
_THUMBNAIL_CELLS = (24, 8)


def draw_landscape(number: int) -> "Image.Image":
    """A sky, a sun and mountains; `number` sets colours, the sun's place and the ridges."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - heavy; only the demonstration draws

    width, height = _LANDSCAPE_SIZE
    hue = number * _GOLDEN_RATIO % 1.0
    image = Image.new("RGB", _LANDSCAPE_SIZE)
    draw = ImageDraw.Draw(image)
    for y in range(height):
        draw.line((0, y, width, y), fill=_colour(hue + 0.12 * y / height, 0.65 - 0.4 * y / height, 0.95))
    sun_x = width * (0.2 + 0.6 * (number * _GOLDEN_RATIO * 3 % 1.0))
    radius = height / 8
    sun = (sun_x - radius, height * 0.3 - radius, sun_x + radius, height * 0.3 + radius)
    draw.ellipse(sun, fill=_colour(hue + 0.5, 0.35, 1.0))
    for ridge in range(3):
        base = height * (0.55 + 0.15 * ridge)
        peaks = [
            (width * step / 8, base - height * 0.16 * ((number + ridge * 5 + step * 7) % 5) / 4)
            for step in range(9)
        ]
        draw.polygon([(0, height), *peaks, (width, height)], fill=_colour(hue + 0.3, 0.5, 0.6 - 0.17 * ridge))
    return image


def draw_workflow(number: int) -> "Image.Image":
    """A graph of nodes, as an image generator's workflow is drawn; carries a PNG text of its own."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - heavy; only the demonstration draws

    width, height = _WORKFLOW_SIZE
    image = Image.new("RGB", _WORKFLOW_SIZE, (32, 34, 40))
    draw = ImageDraw.Draw(image)
    nodes = [
        (int(width * (0.15 + 0.23 * step)), int(height * (0.25 + 0.5 * ((number + step * 3) % 4) / 3)))
        for step in range(4)
    ]
    draw.line(nodes, fill=(150, 155, 165), width=3)
    for step, (x, y) in enumerate(nodes):
        box = (x - 22, y - 14, x + 22, y + 14)
        draw.rounded_rectangle(box, radius=6, fill=_colour(number * _GOLDEN_RATIO + step / 4, 0.6, 0.85))
    image.info["workflow"] = f"demonstration {number}"
    return image


def thumbnail(image: "Image.Image") -> list[list[tuple[str, str]]]:
    """The image as lines of character cells: each the colours of its upper and lower half, ``#rrggbb``."""
    columns, lines = _THUMBNAIL_CELLS
    small = image.convert("RGB").resize((columns, lines * 2))
    pixels = list(small.tobytes())

    def colour(x: int, y: int) -> str:
        red, green, blue = pixels[(y * columns + x) * 3 :][:3]
        return f"#{red:02x}{green:02x}{blue:02x}"

    return [[(colour(x, 2 * y), colour(x, 2 * y + 1)) for x in range(columns)] for y in range(lines)]


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)
