"""Whether an image is whole, as far as can be told without decoding it.

Pixaris writes PNG; JPEG is what it would also list as an image. No limit on pixels applies to these, since
none is decoded, and a decompression bomb costs nothing. A PNG is walked here, chunk by chunk, because Pillow
holds each chunk in memory, and a chunk can have two gigabytes; a JPEG's end marker is looked for here too,
because Pillow does not. What has their names and is something else is taken where browsers show it too: a
file cannot choose among all of Pillow's readers.

Source of PNG's layout: "Portable Network Graphics (PNG) Specification", W3C, chapter 5.
"""

import io
import re
import struct
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Final

# zlib's checksum, three times as fast as in zlib: it is most of what a large PNG costs here.
from isal import isal_zlib

_SCAN_BYTES: Final = 256 * 1024
#: What is looked at by Pillow, by its names, beside PNG and JPEG.
OTHER_FORMATS: Final = ("WEBP", "GIF", "BMP")
#: Larger images of other formats are not opened: some of Pillow's readers hold the whole file in memory.
OTHER_FORMATS_BYTES_MAX: Final = 64 * 1024 * 1024
_FORMATS: Final = ", ".join(("PNG", "JPEG", *OTHER_FORMATS))
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_BYTES_MAX: Final = 2**31 - 1
_PNG_HEADER_BYTES: Final = 13
#: A chunk's length and kind, before its data; and its checksum, behind.
_PNG_CHUNK_HEAD: Final = struct.Struct(">I4s")
_PNG_CHECKSUM: Final = struct.Struct(">I")
_PNG_LENGTH_BYTES: Final = 4
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
#: A marker that is neither a stuffed byte, a fill byte nor a restart: what ends entropy-coded data.
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_JPEG_END: Final = 0xD9
_JPEG_TEMPORARY: Final = 0x01


def image_fault(image: bytes | BinaryIO) -> str | None:
    """What is wrong with an image, or None where it is whole.

    PNG: the header, and the checksum of every chunk to the end. JPEG: the header, and every segment to the
    end marker. `OTHER_FORMATS`: what Pillow's ``verify`` finds out, up to `OTHER_FORMATS_BYTES_MAX`.

    Args:
        image: all of it, or a file, seekable, at its beginning. Of a PNG or JPEG that is a file, whatever its
            size, a part of fixed size is held in memory.

    Raises:
        OSError: the system could not read the file.
    """
    try:
        return _fault_found(image)
    except OSError as error:
        if error.errno is not None:
            raise
        return str(error)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise what their arithmetic hits, of any class
        return str(error) or type(error).__name__


def _fault_found(image: bytes | BinaryIO) -> str | None:
    if isinstance(image, bytes) and image.startswith(_PNG_MAGIC):
        return _png_fault(iter((image,)))
    file = io.BytesIO(image) if isinstance(image, bytes) else image
    magic = file.read(len(_PNG_MAGIC))
    file.seek(0)
    if not magic:
        return "it is empty"
    if magic == _PNG_MAGIC:
        return _png_fault(iter(partial(file.read, _SCAN_BYTES), b""))
    if not magic.startswith(_JPEG_MAGIC) and file.seek(0, io.SEEK_END) > OTHER_FORMATS_BYTES_MAX:
        return "it is neither PNG nor JPEG, and too large to be looked at as anything else"
    file.seek(0)
    return _fault_by_pillow(file, is_jpeg=magic.startswith(_JPEG_MAGIC))


def _fault_by_pillow(file: BinaryIO, *, is_jpeg: bool) -> str | None:
    # Pixaris writes PNG: most processes never need it.
    from PIL import Image, JpegImagePlugin, UnidentifiedImageError  # noqa: PLC0415 - see above

    try:
        if is_jpeg:
            JpegImagePlugin.JpegImageFile(file)
            return None if _jpeg_ends(file) else "it is cut short: its end marker is missing"
        with Image.open(file, formats=OTHER_FORMATS) as image:
            image.verify()
    except UnidentifiedImageError:
        return f"it is none of the image formats {_FORMATS}"
    return None


def _png_fault(blocks: Iterator[bytes]) -> str | None:
    """Walk a PNG's chunks from the first, IHDR, to the last, IEND. What follows that is not looked at.

    Args:
        blocks: all of it, in order. Their bytes are looked at where they are, and not copied.
    """
    block, at = memoryview(next(blocks, b"")), len(_PNG_MAGIC)

    def has(count: int) -> bool:
        """Whether so many bytes follow, which stand in one block then."""
        nonlocal block, at
        while len(block) - at < count and (more := next(blocks, b"")):
            block, at = memoryview(bytes(block[at:]) + more), 0
        return len(block) - at >= count

    has_pixels = False
    kind = b""
    while kind != b"IEND":
        if not has(_PNG_CHUNK_HEAD.size):
            return "it is cut short between two chunks"
        before = kind
        length, kind = _PNG_CHUNK_HEAD.unpack_from(block, at)
        if (before == b"") != (kind == b"IHDR") or (kind == b"IHDR" and length != _PNG_HEADER_BYTES):
            return "its header is not where it should be"
        if length > _PNG_CHUNK_BYTES_MAX or not (kind.isalpha() and kind.isascii()):
            return f"it has a broken chunk after {before.decode('ascii')}"
        # The checksum is that of kind and data.
        covered, at = at + _PNG_LENGTH_BYTES, at + _PNG_CHUNK_HEAD.size + length
        crc32 = isal_zlib.crc32(block[covered:at])
        while at > len(block) and (more := next(blocks, b"")):
            block, at = memoryview(more), at - len(block)
            crc32 = isal_zlib.crc32(block[:at], crc32)
        if not has(_PNG_CHECKSUM.size):
            return f"its chunk {kind.decode('ascii')} is cut short"
        if _PNG_CHECKSUM.unpack_from(block, at)[0] != crc32:
            return f"its chunk {kind.decode('ascii')} is damaged"
        at += _PNG_CHECKSUM.size
        has_pixels |= kind == b"IDAT"
    return None if has_pixels else "there are no pixels in it"


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
