"""Images as files: nothing is lost whatever their mode is, and their texts go with them."""

import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo, iTXt

from pixaris_sync.handlers.pictures import EXACT_CHUNK, encode, read_exactly

SIZE = (7, 5)
#: Modes whose file holds another mode with the same pixels.
HELD_BY = {
    "PA": "RGBA",
    "RGBX": "RGB",
    "I;16B": "I;16",
    "I;16L": "I;16",
    "I;16N": "I;16",
}
MODES = ["1", "CMYK", "F", "HSV", "I", "I;16", "I;16B", "I;16L", "I;16N", "L", "LA", "LAB", "La", "P", "PA"]
MODES += ["RGB", "RGBA", "RGBX", "RGBa", "YCbCr"]


def image_of(mode: str) -> Image.Image:
    """An image of a mode whose bytes are all different."""
    image = Image.new(mode, SIZE)
    size = len(image.tobytes())
    image.frombytes(bytes((37 * at + 11) % 251 for at in range(size)))
    if mode in ("P", "PA"):
        image.putpalette(bytes((5 * at) % 256 for at in range(768)))
    return image


def stored(image: Image.Image, folder: Path, name: str = "x.png", **options: Any) -> Path:
    path = folder / name
    path.write_bytes(encode(image, name, **options))
    return path


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_comes_back(mode: str, tmp_path: Path) -> None:
    """Goal: images of any Pillow mode are stored without loss. Method: read each exactly, and by Pillow."""
    image = image_of(mode)
    before = image.tobytes()
    path = stored(image, tmp_path)
    found = read_exactly(path)
    held_by = HELD_BY.get(mode, mode)
    assert found.mode == held_by
    assert found.size == SIZE
    if mode == "RGBX":
        # What stands in the place of an alpha there means nothing.
        assert found.tobytes() == image.convert("RGB").tobytes()
    elif held_by == "I;16" and mode != held_by:
        assert found.convert("I").tobytes() == image.convert("I").tobytes()
    else:
        assert found.tobytes() == image.convert(held_by).tobytes()
    if mode == "P":
        assert found.getpalette() == image.getpalette()
    with Image.open(path) as shown:
        shown.load()
        assert shown.format == "PNG"
        assert shown.size == SIZE
    assert (image.mode, image.tobytes()) == (mode, before)


def test_the_modes_are_all() -> None:
    """Goal: no mode is forgotten. Method: Pillow's own list of them."""
    assert set(Image.MODES) <= set(MODES)


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [((0, 65535), "I;16"), ((-1, 5), "I"), ((0, 65536), "I"), ((2**31 - 1, -(2**31)), "I")],
)
def test_whole_numbers_are_kept_beyond_sixteen_bits(
    pixels: tuple[int, int], mode: str, tmp_path: Path
) -> None:
    """Goal: no pixel is clipped. Method: numbers that PNG holds, and others."""
    image = Image.new("I", (2, 1))
    image.putdata(pixels)
    found = read_exactly(stored(image, tmp_path))
    assert found.mode == mode
    assert found.convert("I").tobytes() == image.tobytes()


def test_transparency_and_palettes_stay(tmp_path: Path) -> None:
    """Goal: what PNG can hold beside pixels is held. Method: one transparent entry; a palette with alpha."""
    image = image_of("P")
    image.info["transparency"] = 3
    found = read_exactly(stored(image, tmp_path))
    assert found.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    alpha = Image.new("P", (2, 1))
    alpha.putpalette([255, 0, 0, 128, 0, 255, 0, 64], "RGBA")
    alpha.putdata([0, 1])
    found = read_exactly(stored(alpha, tmp_path))
    assert found.convert("RGBA").tobytes() == alpha.convert("RGBA").tobytes()


TEXTS = {"prompt": '{"3": "a cat"}', "Title": "Ärger", "snow": "☃ \n", "Schlüssel": "x", "empty": ""}


def test_texts_go_with_generated_images(tmp_path: Path) -> None:
    """Goal: texts stay, other info stays out. Method: kinds of texts, read back by Pillow."""
    image = image_of("RGB")
    image.info.update(TEXTS, dpi=(72, 72), icc=b"x", number=5)
    image.info[(1, 2)] = "no keyword"
    with Image.open(stored(image, tmp_path)) as found:
        assert found.text == TEXTS  # type: ignore[attr-defined]


def test_all_info_becomes_texts_of_arguments(tmp_path: Path) -> None:
    """Goal: arguments have what Pixaris gives them. Method: everything, as its text."""
    image = image_of("RGB")
    image.info.update(TEXTS, duration=5, version=b"GIF89a")
    with Image.open(stored(image, tmp_path, all_info=True)) as found:
        assert found.text == {**TEXTS, "duration": "5", "version": "b'GIF89a'"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["", "k" * 80, "☃", "a\0b", 5, ("a", "b")])
def test_what_no_text_can_be_called_is_left_out(key: Any, tmp_path: Path) -> None:
    """Goal: an odd keyword costs itself. Method: those that PNG has no place for, beside one that it has."""
    image = image_of("RGB")
    image.info.update({key: "value", "k" * 79: "longest"})
    with Image.open(stored(image, tmp_path)) as found:
        assert found.text == {"k" * 79: "longest"}  # type: ignore[attr-defined]


def test_a_text_that_utf8_does_not_know_is_stored(tmp_path: Path) -> None:
    """Goal: no text stops a run. Method: a lone surrogate."""
    image = image_of("L")
    image.info["prompt"] = "a \ud800 b"
    with Image.open(stored(image, tmp_path)) as found:
        assert found.text == {"prompt": "a ? b"}  # type: ignore[attr-defined]


def test_texts_behind_the_pixels_and_their_language_stay(tmp_path: Path) -> None:
    """Goal: an image that is not loaded yet loses nothing. Method: a file that has a text at its end."""
    texts = PngInfo()
    texts.add_itxt("Title", "Grün", lang="de", tkey="Titel")
    texts.add_text("late", "text", zip=False)
    source = tmp_path / "source.png"
    image_of("RGB").save(source, pnginfo=texts)
    content = source.read_bytes()
    at, end = content.index(b"tEXt") - 4, content.index(b"IEND") - 4
    late = content[at : at + 12 + len(b"late\0text")]
    source.write_bytes(content[:at] + content[at + len(late) : end] + late + content[end:])
    with Image.open(source) as image:
        assert "late" not in image.info
        path = stored(image, tmp_path)
    with Image.open(path) as found:
        title = found.text["Title"]  # type: ignore[attr-defined]
        assert isinstance(title, iTXt)
        assert (title, title.lang, title.tkey) == ("Grün", "de", "Titel")
        assert found.text["late"] == "text"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBX", "CMYK", "YCbCr"])
def test_a_jpeg_is_made_as_pillow_makes_it(mode: str, name: str, tmp_path: Path) -> None:
    """Goal: GCPExperimentHandler's files by their suffix. Method: Pillow's own file, by name, is the same."""
    image = image_of(mode)
    image.save(tmp_path / name)
    assert encode(image, name) == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "F", "I", "HSV"])
def test_what_jpeg_cannot_show_is_png(mode: str, tmp_path: Path) -> None:
    """Goal: a name that asks for too much costs nothing. Method: modes that Pillow refuses as JPEG."""
    image = image_of(mode)
    with pytest.raises(OSError, match="as JPEG"):
        image.save(tmp_path / "theirs.jpg")
    found = read_exactly(stored(image, tmp_path, "x.jpg"))
    assert found.format == "PNG" or mode in ("F", "I", "HSV")
    assert found.mode == mode
    assert found.tobytes() == image.tobytes()


def test_exact_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    """Goal: a file that another program cut is not read as it was. Method: its chunk elsewhere."""
    with Image.open(stored(image_of("F"), tmp_path)) as found:
        found.load()
        ((kind, content, *_),) = found.private_chunks  # type: ignore[attr-defined]
    assert kind == EXACT_CHUNK
    texts = PngInfo()
    texts.add(kind, content)
    other = tmp_path / "other.png"
    Image.new("L", (1, 1)).save(other, pnginfo=texts)
    with pytest.raises(ValueError, match="are of another size"):
        read_exactly(other)


def test_an_image_may_be_encoded_by_many_threads_as_others_like_it() -> None:
    """Goal: encoding is for threads. Method: equal images in eight threads; one content comes of all."""
    contents: set[bytes] = set()
    threads = [
        threading.Thread(target=lambda: contents.add(encode(image_of("CMYK"), "x.png"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contents) == 1
    with Image.open(BytesIO(contents.pop())) as image:
        assert image.size == SIZE
