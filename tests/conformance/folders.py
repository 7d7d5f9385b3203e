"""What is in a results folder, to be compared: everything that a reader can tell apart."""

from pathlib import Path
from typing import Any

from PIL import Image


def content_of(path: Path) -> Any:
    """A file's content: of a picture what is seen and what it says, of any other file its bytes."""
    if path.suffix != ".png":
        return path.read_bytes()
    with Image.open(path) as image:
        image.load()
        return image.mode, image.size, image.tobytes(), image.getpalette(), dict(image.info)


def tree(folder: Path) -> dict[str, Any]:
    """The contents of all files, and the folders, by path."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else content_of(path)
        for path in sorted(folder.rglob("*"))
    }
