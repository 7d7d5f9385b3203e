"""How images become files: PNG without loss whatever their mode is, or what the name of the file asks for.

PNG holds no colour models of print and film, and no floating point. Such an image is stored as one that shows
it, and its own pixels stand in the same file, in a chunk that every reader of PNG passes over;
`read_exactly` takes them from there.

Source of the layout: "Portable Network Graphics (PNG) Specification", W3C, 5.4 (names of chunks) and 11.3.3.
"""

import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Final, TypeGuard

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from pixaris_sync.text import is_utf8

#: Effort of the compression. Pillow's default, 6, takes twice as long for files that are a tenth smaller.
COMPRESS_LEVEL: Final = 3
#: The modes that PNG holds as they are, and what shows the pixels of others, where it is not RGB.
_PNG_MODES: Final = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_SHOWN_AS: Final = {"F": "L", "I": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
#: Those of them that another mode holds without loss.
_EXACT_AS: Final = ("PA", "RGBX")
_SIXTEEN_BITS: Final = "I;16"
_JPEG_MODES: Final = frozenset({"1", "L", "RGB", "RGBX", "CMYK", "YCbCr"})
_JPEG_SUFFIXES: Final = (".jpg", ".jpeg")
#: Ancillary, private, safe to copy: mode and size as JSON, a NUL, and the pixels as zlib has them.
EXACT_CHUNK: Final = b"pxRw"
#: No mode of Pillow's has more.
_PIXEL_BYTES_MAX: Final = 4
#: The longest keyword of a text in a PNG, in characters of Latin-1, of which each is a byte.
_KEYWORD_BYTES_MAX: Final = 79

# Else Pillow imports what it writes by when it first does, in a thread: a fork then leaves the child an
# import that nobody ends, and that it waits for.
Image.preinit()


def encode(image: Image.Image, file_name: str, *, all_info: bool = False) -> bytes:
    """The content of an image's file.

    Args:
        image: of any mode, of any origin.
        file_name: one that ends in ``.jpg`` or ``.jpeg`` asks for JPEG, as far as that can show the image;
            anything else is PNG.
        all_info: whether everything that is known of the image becomes a text in the file, as Pixaris does
            with arguments, or its texts alone.
    """
    # What is read of a file comes late, and the texts behind its pixels with them.
    image.load()
    target = BytesIO()
    if file_name.lower().endswith(_JPEG_SUFFIXES) and image.mode in _JPEG_MODES:
        image.save(target, "JPEG")
        return target.getvalue()
    texts = PngInfo()
    for key, value in image.info.items():
        if _is_keyword(key) and (all_info or isinstance(value, str)):
            texts.add_text(key, _as_text(value))
    shown, is_exact = _shown(image)
    if not is_exact:
        head = json.dumps([image.mode, *image.size]).encode()
        texts.add(EXACT_CHUNK, head + b"\0" + zlib.compress(image.tobytes(), COMPRESS_LEVEL))
    shown.save(target, "PNG", pnginfo=texts, compress_level=COMPRESS_LEVEL)
    return target.getvalue()


def read_exactly(path: str | Path) -> Image.Image:
    """An image as it was when it was stored, in its own mode or in one that holds the same.

    Of any other file, what Pillow reads.

    Raises:
        OSError: the file cannot be read, or is no image.
        ValueError: the pixels in the chunk are not those of such an image.
    """
    with Image.open(path) as image:
        image.load()
    chunks = image.private_chunks if isinstance(image, PngImageFile) else []
    for kind, content, *_ in chunks:
        if kind == EXACT_CHUNK:
            head, _, packed = content.partition(b"\0")
            mode, width, height = json.loads(head)
            if (width, height) != image.size:
                raise ValueError(f"the exact pixels in {path} are of another size")
            pixels = zlib.decompressobj().decompress(packed, _PIXEL_BYTES_MAX * width * height)
            exact = Image.frombytes(mode, image.size, pixels)
            exact.info = dict(image.info)
            return exact
    return image


def _shown(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as PNG can hold it, and whether no pixel is lost by that."""
    if image.mode in _PNG_MODES:
        return image, True
    if image.mode.startswith(_SIXTEEN_BITS):
        return image.convert("I").convert(_SIXTEEN_BITS), True
    if image.mode == "I":
        sixteen_bits = image.convert(_SIXTEEN_BITS)
        if sixteen_bits.convert("I").tobytes() == image.tobytes():
            return sixteen_bits, True
    return image.convert(_SHOWN_AS.get(image.mode, "RGB")), image.mode in _EXACT_AS


def _is_keyword(key: object) -> TypeGuard[str]:
    """Whether a text can have it. A NUL would end it."""
    if not isinstance(key, str) or "\0" in key or not 0 < len(key) <= _KEYWORD_BYTES_MAX:
        return False
    return key.encode("latin-1", "replace").decode("latin-1") == key


def _as_text(value: object) -> str:
    """A value as PNG can hold it. A text that was read of a file is left as it is: it knows its language."""
    text = value if isinstance(value, str) else str(value)
    return text if is_utf8(text) else text.encode(errors="replace").decode()
