"""Small pictures are known by ids alone, and kept within bounds."""

import os
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.model import RunKey
from pixaris_sync.monitoring import thumbnails
from pixaris_sync.monitoring.thumbnails import Thumbnails

pytestmark = pytest.mark.anyio
RUN = RunKey("shop", "shoes", "run")


def put_image(root: Path, name: str = "a.png", size: int = 8) -> str:
    folder = root / RUN.project / RUN.dataset / RUN.run / "generated_images"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size)).save(folder / name)
    return f"generated_images/{name}"


@pytest.fixture
def pictures(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path)


async def test_a_picture_is_made_once_and_anew_where_its_file_changed(
    pictures: Thumbnails, tmp_path: Path
) -> None:
    """Goal: quick, and never stale. Method: ask twice, change the file, ask again."""
    id_ = pictures.id_of(RUN, put_image(tmp_path))
    first = await pictures.get(id_)
    assert first is not None
    assert first.content.startswith(b"\xff\xd8\xff")
    assert await pictures.get(id_) is first
    put_image(tmp_path, size=9)
    second = await pictures.get(id_)
    assert second is not None
    assert second.etag != first.etag


async def test_what_cannot_be_shown_is_none(pictures: Thumbnails, tmp_path: Path) -> None:
    """Goal: a placeholder. Method: no file; a damaged one; then a sound one."""
    id_ = pictures.id_of(RUN, "generated_images/a.png")
    assert await pictures.get(id_) is None
    path = tmp_path / str(RUN) / put_image(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert await pictures.get(id_) is None
    put_image(tmp_path)
    assert await pictures.get(id_) is not None


async def test_only_ids_that_were_given_are_known(pictures: Thumbnails, tmp_path: Path) -> None:
    """Goal: no path from a request. Method: a path, another process' id, nothing; ids are stable."""
    path = put_image(tmp_path)
    id_ = pictures.id_of(RUN, path)
    assert id_ == pictures.id_of(RUN, path)
    foreign = Thumbnails(tmp_path).id_of(RUN, path)
    for unknown in (path, f"{RUN}/{path}", foreign, "", "../../etc/passwd"):
        with pytest.raises(KeyError):
            await pictures.get(unknown)


async def test_ids_and_pictures_are_bounded(
    pictures: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: bounded memory. Method: room for two ids and one picture; use them in turns."""
    monkeypatch.setattr(thumbnails, "_IDS_MAX", 2)
    paths = [put_image(tmp_path, f"{at}.png") for at in range(3)]
    ids = [pictures.id_of(RUN, path) for path in paths]
    with pytest.raises(KeyError):
        await pictures.get(ids[0])
    first = await pictures.get(ids[1])
    assert first is not None
    monkeypatch.setattr(thumbnails, "_KEPT_BYTES_MAX", len(first.content))
    assert await pictures.get(ids[2]) is not None
    assert list(pictures._kept) == [ids[2]]
    assert pictures._kept_bytes == len(first.content)
    pictures.close()


async def test_a_service_that_may_not_step_back_shows_pictures_too(
    pictures: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: as under systemd, whose unit forbids it. Method: no priority may be set."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert await pictures.get(pictures.id_of(RUN, put_image(tmp_path))) is not None
    pictures.close()
