"""Small pictures of images that anybody may have put there."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.errors import DamagedImageError, LocalFileError
from pixaris_sync.local import thumbnails
from pixaris_sync.local.thumbnails import EDGE_PIXELS, PIXELS_MAX, thumbnail
from pixaris_sync.model import RunKey

RUN = RunKey("shop", "shoes", "20240101-000001_x")
PATH = "generated_images/a.png"
#: What each format can hold, by Pillow's names.
MODES = {
    "PNG": "1 L LA P RGB RGBA",
    "JPEG": "1 L RGB CMYK",
    "WEBP": "1 L LA P RGB RGBA CMYK",
    "GIF": "1 L LA P RGB RGBA",
    "BMP": "1 L P RGB RGBA",
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / RUN.project / RUN.dataset / RUN.run / PATH
    path.parent.mkdir(parents=True)
    return path


def shown(root: Path) -> Image.Image:
    _, made = thumbnail(root, RUN, PATH)
    assert made is not None
    return Image.open(io.BytesIO(made))


def header(width: int, height: int) -> bytes:
    """A PNG that says that it is so large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind, modes in MODES.items() for mode in modes.split()],
)
def test_each_kind_of_image_is_shown(tmp_path: Path, image: Path, kind: str, mode: str) -> None:
    """Goal: whatever Pixaris lists is seen. Method: images of each format and mode, wider than high."""
    Image.new("RGB", (1000, 500)).convert(mode).save(image, kind)
    small = shown(tmp_path)
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (EDGE_PIXELS, EDGE_PIXELS // 2))


def test_colours_stay_and_what_is_transparent_is_grey(tmp_path: Path, image: Path) -> None:
    """Goal: the picture is that of the image. Method: red on the left, nothing on the right."""
    whole = Image.new("RGBA", (100, 100))
    whole.paste((255, 0, 0, 255), (0, 0, 50, 100))
    whole.save(image)
    small = shown(tmp_path)
    left, right = small.getpixel((10, 50)), small.getpixel((90, 50))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 240
    assert max(left[1:]) < 20
    assert all(120 < value < 136 for value in right)


def test_a_known_version_is_not_decoded_again(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a picture is made once. Method: a decoder that fails; then another image."""
    Image.new("RGB", (8, 8)).save(image)
    version, made = thumbnail(tmp_path, RUN, PATH)
    assert made
    monkeypatch.setattr(thumbnails, "_small", lambda _: pytest.fail("decoded again"))
    assert thumbnail(tmp_path, RUN, PATH, version) == (version, None)
    monkeypatch.undo()
    Image.new("RGB", (9, 9)).save(image)
    changed, made = thumbnail(tmp_path, RUN, PATH, version)
    assert made
    assert changed != version


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "none of the image formats"),
        (b"<svg onload=alert(1)>", "none of the image formats"),
        (b"\x89PNG\r\n\x1a\nnonsense", "cannot show image"),
        (header(100_000, 100_000), f"more than {PIXELS_MAX // 1024**2} megapixels"),
        (header(100, 100), "cannot show image"),
        (b"\xff\xd8\xff" + bytes(100), "cannot show image"),
        (b"GIF89a" + bytes(100), "cannot show image"),
        (b"RIFF" + bytes(100), "cannot show image"),
        (b"BM" + bytes(100), "cannot show image"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused(
    tmp_path: Path, image: Path, content: bytes, cause: str
) -> None:
    """Goal: nothing in a file does harm. Method: no image, damaged ones, and a bomb of ten gigapixels."""
    image.write_bytes(content)
    with pytest.raises(DamagedImageError, match=cause):
        thumbnail(tmp_path, RUN, PATH)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path, image: Path) -> None:
    """Goal: bounded memory. Method: a sparse file behind a sound header."""
    Image.new("RGB", (8, 8)).save(image)
    os.truncate(image, thumbnails.BYTES_MAX + 1)
    with pytest.raises(DamagedImageError, match="more than 64 MiB"):
        thumbnail(tmp_path, RUN, PATH)


@pytest.mark.parametrize("path", ["../../../../secret.png", "/etc/secret.png", "generated_images/../../x"])
def test_no_path_leads_out_of_the_run(tmp_path: Path, image: Path, path: str) -> None:
    """Goal: only files of the run. Method: paths that lead elsewhere."""
    Image.new("RGB", (8, 8)).save(image)
    Image.new("RGB", (8, 8)).save(tmp_path.parent / "secret.png")
    with pytest.raises(LocalFileError):
        thumbnail(tmp_path, RUN, path)


def test_links_and_what_is_no_file_are_not_opened(tmp_path: Path, image: Path) -> None:
    """Goal: the uploader's care. Method: a link to a sound image, and a FIFO that would block."""
    elsewhere = tmp_path / "elsewhere.png"
    Image.new("RGB", (8, 8)).save(elsewhere)
    image.symlink_to(elsewhere)
    with pytest.raises(LocalFileError, match="symbolic link"):
        thumbnail(tmp_path, RUN, PATH)
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(LocalFileError, match="no regular file"):
        thumbnail(tmp_path, RUN, PATH)
