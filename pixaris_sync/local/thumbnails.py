"""Small pictures of runs' images, made of files that anybody may have put there.

A file is opened as `safe_open` says. What its header tells is looked at before anything is decoded: images of
more pixels or bytes than these bounds are not decoded, whatever they hold. Only the first frame is.

Functions block, and take as much memory as `PIXELS_MAX` need: call them one at a time.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pixaris_sync.errors import DamagedImageError
from pixaris_sync.local.safe_open import local_error, opened_file, opened_run, version_of
from pixaris_sync.model import FileVersion, RunKey
from pixaris_sync.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

#: The longer side of a small picture.
EDGE_PIXELS: Final = 320
#: What is decoded at most: with four bytes for each pixel, 128 MiB.
PIXELS_MAX: Final = 32 * 1024 * 1024
BYTES_MAX: Final = 64 * 1024 * 1024
#: What a small picture is.
MEDIA_TYPE: Final = "image/jpeg"
_QUALITY: Final = 82
#: Behind what is transparent; neither a dark page nor a light one hides it.
_BACKGROUND: Final = (128, 128, 128)
_MAGIC_BYTES: Final = 4
#: Pillow's modes of which pixels can be mixed.
_MIXED: Final = ("L", "LA", "RGB", "RGBA", "CMYK")


def thumbnail(
    root: Path, run: RunKey, path: str, known: FileVersion | None = None
) -> tuple[FileVersion, bytes | None]:
    """A small JPEG of a run's image, and which version of the file it shows.

    Args:
        root: the results folder.
        run: the run.
        path: relative to its folder, with slashes.
        known: a version that need not be decoded again.

    Returns:
        The file's version, and the JPEG; None where that is the known version.

    Raises:
        LocalFileError: the file is gone, unreadable, a link or no regular file.
        DamagedImageError: it is no image that a browser shows, is damaged, or is beyond the bounds.
    """
    *folders, name = path.split("/")
    subject = f"{run}/{path}"
    with (
        opened_run(root, run, folders) as folder,
        opened_file(folder, name, subject=subject) as (handle, status),
    ):
        version = version_of(status)
        if version == known:
            return version, None
        if version.size > BYTES_MAX:
            raise _damaged(subject, f"it has more than {BYTES_MAX // 1024**2} MiB")
        with os.fdopen(os.dup(handle), "rb") as file:
            try:
                return version, _small(file)
            except OSError as error:
                if error.errno is not None:
                    raise local_error("read", subject, error) from error
                raise _damaged(subject, str(error)) from error
            except Exception as error:  # Pillow's parsers raise what their arithmetic hits, of any class
                raise _damaged(subject, str(error) or type(error).__name__) from error


def _damaged(subject: str, cause: str) -> DamagedImageError:
    return DamagedImageError("show image", printable(subject), cause)


def _small(file: BinaryIO) -> bytes:
    from PIL import Image  # noqa: PLC0415 - only where somebody looks

    with _opened(file) as image:
        if image.width * image.height > PIXELS_MAX:
            raise ValueError(f"it has more than {PIXELS_MAX // 1024**2} megapixels")
        # Of a JPEG, no more is decoded than the small picture needs.
        image.draft("RGB", (EDGE_PIXELS, EDGE_PIXELS))
        mode = "RGBA" if image.has_transparency_data else "RGB"
        # Palettes are not mixed, and what is small already is not copied large.
        small = image if image.mode in _MIXED else image.convert(mode)
        small.thumbnail((EDGE_PIXELS, EDGE_PIXELS))
        small = small.convert(mode)
    if small.mode == "RGBA":
        behind = Image.new("RGB", small.size, _BACKGROUND)
        behind.paste(small, mask=small)
        small = behind
    made = io.BytesIO()
    small.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()


def _opened(file: BinaryIO) -> "Image":
    """Read the header with the one reader that the first bytes name: Pillow has many more.

    Pillow's own bound on pixels, which writes a warning, is not asked: ours is smaller.
    """
    from PIL import (  # noqa: PLC0415 - as above
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    readers = {
        b"\x89PNG": PngImagePlugin.PngImageFile,
        b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
        b"RIFF": WebPImagePlugin.WebPImageFile,
        b"GIF8": GifImagePlugin.GifImageFile,
        b"BM": BmpImagePlugin.BmpImageFile,
    }
    magic = file.read(_MAGIC_BYTES)
    file.seek(0)
    for begin, reader in readers.items():
        if magic.startswith(begin):
            return reader(file)
    raise ValueError("it is none of the image formats that a browser shows")
