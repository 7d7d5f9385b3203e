"""Whether an image is whole, as far as can be told without decoding it.

Pixaris writes PNG; JPEG is what it would also list as an image. Both go by their own Pillow class: no limit
on pixels applies, since none is decoded, and a decompression bomb costs nothing. What Pillow does not look at
is looked at here: the checksum of a PNG's last chunk, and a JPEG's end marker.
"""

import io
import re
from typing import BinaryIO, Final

from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

_SCAN_BYTES: Final = 256 * 1024
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
#: How many bytes end a PNG at most if its last chunk, IEND and a checksum of 4 bytes, is cut.
_PNG_CUT_END_BYTES: Final = 7
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
#: A marker that is neither a stuffed byte, a fill byte nor a restart: what ends entropy-coded data.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_JPEG_END: Final = 0xD9
_JPEG_TEMPORARY: Final = 0x01


def image_fault(file: BinaryIO) -> str | None:
    """What is wrong with an image, or None where it is whole.

    PNG: the header, and the checksum of every chunk to the end. JPEG: the header, and every segment to the
    end marker. Anything else: what Pillow's ``verify`` finds out.

    Args:
        file: the image, seekable, at its beginning. At most one chunk of a PNG is held in memory.

    Raises:
        OSError: the system could not read the file.
    """
    try:
        return _fault_found(file)
    except UnidentifiedImageError:
        return "it is in no image format that Pillow knows"
    except OSError as error:
        if error.errno is not None:
            raise
        return str(error)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise what their arithmetic hits, of any class
        return str(error) or type(error).__name__


def _fault_found(file: BinaryIO) -> str | None:
    magic = file.read(len(_PNG_MAGIC))
    file.seek(0)
    if not magic:
        return "it is empty"
    if magic == _PNG_MAGIC:
        PngImagePlugin.PngImageFile(file).verify()
        return "it is cut short in its last chunk" if _png_end_is_cut(file) else None
    if magic.startswith(_JPEG_MAGIC):
        JpegImagePlugin.JpegImageFile(file)
        return None if _jpeg_ends(file) else "it is cut short: its end marker is missing"
    with Image.open(file) as image:
        image.verify()
    return None


def _png_end_is_cut(file: BinaryIO) -> bool:
    """Whether the last chunk's checksum is cut, which Pillow does not look at."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _PNG_CUT_END_BYTES))
    return b"IEND" in file.read()


def _jpeg_ends(file: BinaryIO) -> bool:
    """Walk a JPEG's segments and entropy-coded data up to its end marker, which Pillow does not look for."""
    position = 2
    while (found := _next_jpeg_marker(file, position)) is not None:
        marker, position = found
        if marker == _JPEG_END:
            return True
        if marker != _JPEG_TEMPORARY:
            file.seek(position)
            position += max(2, int.from_bytes(file.read(2), "big"))
    return False


def _next_jpeg_marker(file: BinaryIO, position: int) -> tuple[int, int] | None:
    """The next marker's second byte and where it ends."""
    file.seek(position)
    carried = b""
    while block := file.read(_SCAN_BYTES):
        searched = carried + block
        if found := _JPEG_MARKER.search(searched):
            return searched[found.end() - 1], position + found.end()
        position += len(searched) - 1
        carried = searched[-1:]
    return None
