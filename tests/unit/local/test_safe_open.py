"""Files of runs on disk: never outside the folder, never another version, never a damaged image."""

import errno
import io
import os
import random
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from PIL import Image

from pixaris_sync.errors import Failure, LocalFileError
from pixaris_sync.local import contents
from pixaris_sync.local.contents import Content, PlannedFile, RunFiles
from pixaris_sync.local.images import image_fault
from pixaris_sync.local.safe_open import MissingFileError, local_error, version_of
from pixaris_sync.model import FileVersion, RunKey

pytestmark = pytest.mark.anyio

RUN = RunKey("shop", "shoes", "20240101-000001_run")
IMAGE = "generated_images/shoe.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "local_results"
    (folder / RUN.project / RUN.dataset / RUN.run / "generated_images").mkdir(parents=True)
    return folder


def place(root: Path, path: str) -> Path:
    return root / RUN.project / RUN.dataset / RUN.run / path


def version(path: Path) -> FileVersion:
    return version_of(path.lstat())


def image_bytes(kind: str, *, side: int = 64, **options: Any) -> bytes:
    """Noise of a fixed seed: it does not compress, so every part of the file counts."""
    image = Image.frombytes("RGB", (side, side), random.Random(7).randbytes(side * side * 3))  # noqa: S311 - no secret
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def open_handles() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def read_whole(files: RunFiles, path: str, planned: FileVersion, *, is_image: bool = False) -> Content:
    [read] = await files.read_batch([PlannedFile(RUN, path, planned, is_image)])
    if isinstance(read, Exception):
        raise read
    return read


async def failure(files: RunFiles, path: str, planned: FileVersion) -> LocalFileError:
    with pytest.raises(LocalFileError) as raised:
        await read_whole(files, path, planned)
    return raised.value


async def test_a_file_is_read_whole_with_its_checksum(root: Path) -> None:
    """Goal: bytes and crc32c agree with the file. Method: a known file, also an empty one."""
    for content in (b"hello", b""):
        place(root, IMAGE).write_bytes(content)
        read = await read_whole(RunFiles(root), IMAGE, version(place(root, IMAGE)))
        assert read.data == content
        assert read.crc32c == google_crc32c.value(content)


async def test_one_bad_file_of_a_batch_stops_no_other(root: Path) -> None:
    """Goal: a batch is no more than its files. Method: good ones of two runs around three bad ones."""
    other = RunKey(RUN.project, RUN.dataset, "20240101-000002_other")
    for run in (RUN, other):
        for name in ("a.png", "b.png"):
            path = root / run.project / run.dataset / run.run / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(f"{run.run}/{name}".encode())
    good = version(place(root, "a.png"))

    def planned(run: RunKey, name: str, *, is_image: bool = False) -> PlannedFile:
        return PlannedFile(run, name, version(root / run.project / run.dataset / run.run / name), is_image)

    read = await RunFiles(root).read_batch(
        [
            planned(RUN, "a.png"),
            PlannedFile(RUN, "missing/a.png", good, is_image=False),
            planned(other, "b.png"),
            planned(other, "a.png", is_image=True),
            PlannedFile(RUN, "b.png", good, is_image=False),
            planned(RUN, "b.png"),
        ]
    )
    found = [one.data.decode() if isinstance(one, Content) else getattr(one, "failure", None) for one in read]
    assert found == [
        f"{RUN.run}/a.png",
        Failure.PERMANENT,
        f"{other.run}/b.png",
        Failure.PERMANENT,
        Failure.TRANSIENT,
        f"{RUN.run}/b.png",
    ]


async def test_a_large_file_is_summed_and_read_in_pieces(root: Path) -> None:
    """Goal: pieces add up to the file. Method: a size that is no multiple of the piece."""
    content = random.Random(1).randbytes(10_001)  # noqa: S311 - no secret
    place(root, "workflow.png").write_bytes(content)
    planned = version(place(root, "workflow.png"))
    run_files = RunFiles(root)
    assert await run_files.checksum(RUN, "workflow.png", planned, chunk_bytes=1000) == google_crc32c.value(
        content
    )
    source = run_files.source(RUN, "workflow.png", planned)
    assert source.size == len(content)
    assert await source.read(9_990, 100) == content[9_990:]
    assert await source.read(10_001, 10) == b""
    assert await source.read(20_000, 10) == b""
    assert await source.read(3, 4) == content[3:7]


async def test_another_version_than_the_planned_one_is_not_read(root: Path) -> None:
    """Goal: what is sent is what was planned. Method: replace by equal size; grow; both are transient."""
    path = place(root, IMAGE)
    path.write_bytes(b"old")
    planned = version(path)
    path.write_bytes(b"longer")
    assert (await failure(RunFiles(root), IMAGE, planned)).failure is Failure.TRANSIENT
    path.write_bytes(b"new")
    os.utime(path, ns=(planned.mtime_ns, planned.mtime_ns))
    (path.parent / "other").write_bytes(b"new")
    os.utime(path.parent / "other", ns=(planned.mtime_ns, planned.mtime_ns))
    (path.parent / "other").replace(path)
    assert (await failure(RunFiles(root), IMAGE, planned)).failure is Failure.TRANSIENT
    with pytest.raises(LocalFileError):
        await RunFiles(root).source(RUN, IMAGE, planned).read(0, 1)


async def test_a_file_that_changes_while_it_is_read_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no mixture of two versions. Method: write to the file between opening and reading."""
    path = place(root, IMAGE)
    path.write_bytes(b"first version")
    planned = version(path)
    real = os.pread
    written: list[int] = []

    def pread(handle: int, length: int, offset: int) -> bytes:
        if not written:
            written.append(path.write_bytes(b"second one, longer"))
        return real(handle, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    error = await failure(RunFiles(root), IMAGE, planned)
    assert written
    assert error.failure is Failure.TRANSIENT


async def test_a_file_cut_while_it_is_read_ends_the_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no endless loop at an early end. Method: empty the file once it is open."""
    path = place(root, IMAGE)
    path.write_bytes(b"some bytes")
    planned = version(path)
    real = os.pread

    def pread(handle: int, length: int, offset: int) -> bytes:
        path.write_bytes(b"")
        return real(handle, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert (await failure(RunFiles(root), IMAGE, planned)).failure is Failure.TRANSIENT


async def test_a_missing_file_is_permanent_and_named(root: Path) -> None:
    """Goal: the message says which file. Method: ask for one that is not there."""
    error = await failure(RunFiles(root), IMAGE, FileVersion(1, 1, 1))
    assert isinstance(error, MissingFileError)
    assert error.failure is Failure.PERMANENT
    assert str(RUN) in error.subject
    assert error.hint


async def test_a_results_folder_that_is_away_condemns_no_run(root: Path) -> None:
    """Goal: an unmounted disk is no reason to quarantine. Method: read below a folder that is not there."""
    error = await failure(RunFiles(root / "gone"), IMAGE, FileVersion(1, 1, 1))
    assert error.failure is Failure.TRANSIENT


@pytest.mark.parametrize("where", ["image", "images", "run", "dataset", "project"])
async def test_a_link_anywhere_below_the_results_folder_is_never_followed(
    root: Path, tmp_path: Path, where: str
) -> None:
    """Goal: invariant 6. Method: put a link to a good copy in the place of each component in turn."""
    place(root, IMAGE).write_bytes(b"secret")
    planned = version(place(root, IMAGE))
    component = {
        "image": place(root, IMAGE),
        "images": place(root, "generated_images"),
        "run": place(root, ""),
        "dataset": root / RUN.project / RUN.dataset,
        "project": root / RUN.project,
    }[where]
    component.rename(tmp_path / "elsewhere")
    component.symlink_to(tmp_path / "elsewhere")
    assert place(root, IMAGE).read_bytes() == b"secret"
    error = await failure(RunFiles(root), IMAGE, planned)
    assert error.failure is Failure.PERMANENT
    assert "symbolic link" in error.cause


async def test_the_results_folder_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """Goal: only what is below is confined. Method: a link to the root."""
    place(root, IMAGE).write_bytes(b"fine")
    (tmp_path / "link").symlink_to(root)
    read = await read_whole(RunFiles(tmp_path / "link"), IMAGE, version(place(root, IMAGE)))
    assert read.data == b"fine"


@pytest.mark.parametrize(
    "path", ["../args.json", "/etc/passwd", "a//b", "", ".", "a\0b", "a\udc80", "x" * 300]
)
async def test_a_path_that_is_no_plain_name_below_the_run_is_refused(root: Path, path: str) -> None:
    """Goal: no string of a record reaches another file. Method: hostile paths."""
    (place(root, "..") / "args.json").write_bytes(b"other")
    assert (await failure(RunFiles(root), path, FileVersion(5, 1, 1))).failure is Failure.PERMANENT


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
async def test_what_is_no_regular_file_neither_blocks_nor_is_read(
    root: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a FIFO in an image's place does not hang the service. Method: FIFO, folder and socket."""
    path = place(root, IMAGE)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    assert (await failure(RunFiles(root), IMAGE, version(path))).failure is Failure.PERMANENT


async def test_a_fifo_swapped_in_after_the_first_look_does_not_block(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no race hangs us. Method: the look tells of a regular file, opening finds a FIFO."""
    regular = place(root, "regular")
    regular.write_bytes(b"x")
    os.mkfifo(place(root, IMAGE))
    monkeypatch.setattr(os, "lstat", lambda *_args, **_kwargs: regular.stat())
    assert (await failure(RunFiles(root), IMAGE, version_of(regular.stat()))).failure is Failure.PERMANENT


async def test_no_handle_stays_open(root: Path) -> None:
    """Goal: bounded open files. Method: count handles before and after good and bad reads."""
    place(root, IMAGE).write_bytes(image_bytes("PNG"))
    planned = version(place(root, IMAGE))
    run_files = RunFiles(root)
    await read_whole(run_files, IMAGE, planned)
    before = open_handles()
    for _ in range(5):
        await read_whole(run_files, IMAGE, planned)
        await run_files.verify_large_image(RUN, IMAGE, planned)
        await failure(run_files, "missing/x.png", planned)
        await failure(run_files, "generated_images", planned)
        await failure(run_files, IMAGE, FileVersion(1, 1, 1))
    assert open_handles() == before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, Failure.PERMANENT),
        (errno.EACCES, Failure.PERMANENT),
        (errno.ELOOP, Failure.PERMANENT),
        (errno.EMFILE, Failure.TRANSIENT),
        (errno.EIO, Failure.TRANSIENT),
        (errno.ESTALE, Failure.TRANSIENT),
        (None, Failure.TRANSIENT),
    ],
)
def test_errors_of_the_system_are_permanent_only_where_somebody_must_act(
    code: int | None, kind: Failure
) -> None:
    """Goal: the right failure kind. Method: one error of each sort, also one without a number."""
    error = local_error("read", "x", OSError(code, "text") if code else OSError("text"))
    assert error.failure is kind
    assert error.cause


async def test_an_unreadable_file_is_permanent_with_a_hint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a missing permission says what to do. Method: opening the image is refused."""
    place(root, IMAGE).write_bytes(b"x")
    real = os.open

    def refuse(path: Any, flags: int, **rest: Any) -> int:
        if path == "shoe.png":
            raise PermissionError(errno.EACCES, "refused")
        return real(path, flags, **rest)

    monkeypatch.setattr(os, "open", refuse)
    error = await failure(RunFiles(root), IMAGE, version(place(root, IMAGE)))
    assert (error.failure, error.cause) == (Failure.PERMANENT, "permission denied")
    assert error.hint


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {}), ("BMP", {})],
)
def test_a_whole_image_is_verified(kind: str, options: dict[str, Any]) -> None:
    """Goal: no good image is held up. Method: images as Pillow writes them."""
    assert image_fault(io.BytesIO(image_bytes(kind, **options))) is None


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "TGA", "ICO", "PCX", "EPS"])
def test_a_file_does_not_choose_its_reader(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: whoever writes a file reaches few of Pillow's readers. Method: others, and none may be asked."""
    content = image_bytes(kind)
    Image.init()

    def read(*_: object) -> None:
        raise AssertionError

    others = Image.OPEN.keys() - {"WEBP", "GIF", "BMP"}
    monkeypatch.setattr(Image, "OPEN", Image.OPEN | dict.fromkeys(others, (read, read)))
    assert image_fault(io.BytesIO(content)) == "it is none of the image formats PNG, JPEG, WEBP, GIF, BMP"


def test_a_jpeg_with_restart_markers_and_bytes_after_its_end_is_whole() -> None:
    """Goal: the end marker is found where it truly is. Method: restart markers inside, a trailer behind."""
    content = image_bytes("JPEG", side=256, restart_marker_blocks=2)
    assert b"\xff\xd3" in content
    assert image_fault(io.BytesIO(content + b"motion photo")) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_anywhere_is_found_out(kind: str) -> None:
    """Goal: no half image is uploaded. Method: cut at each of the last bytes and at many places before."""
    content = image_bytes(kind)
    cuts = [*range(0, len(content) - 20, 97), *range(len(content) - 20, len(content))]
    assert [cut for cut in cuts if image_fault(io.BytesIO(content[:cut])) is None] == []


def test_a_cut_jpeg_is_not_taken_for_whole_by_the_end_of_its_thumbnail() -> None:
    """Goal: an end marker inside a segment does not count. Method: a JPEG in a segment, then cut."""
    content = image_bytes("JPEG")
    thumbnail = image_bytes("JPEG", side=8)
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = content[:2] + segment + content[2:]
    assert image_fault(io.BytesIO(whole)) is None
    assert image_fault(io.BytesIO(whole[:-200])) is not None


def test_a_png_with_a_flipped_bit_is_found_out() -> None:
    """Goal: damage in the middle counts too. Method: flip one bit of the data."""
    content = bytearray(image_bytes("PNG"))
    content[len(content) // 2] ^= 1
    assert image_fault(io.BytesIO(content)) is not None


def test_a_decompression_bomb_is_verified_without_decoding_it() -> None:
    """Goal: a bomb costs nothing and crashes nothing. Method: a PNG that claims too many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb))
    assert image_fault(io.BytesIO(bomb)) is None


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]
)
def test_what_is_no_image_has_a_fault_in_plain_words(content: bytes) -> None:
    """Goal: no crash and no memory address in the message. Method: empty, zeros, text and bare headers."""
    fault = image_fault(io.BytesIO(content))
    assert fault
    assert "0x" not in fault


async def test_a_cut_image_names_its_run_and_file(root: Path) -> None:
    """Goal: the error says which image, in memory and on disk alike. Method: a cut image both ways."""
    content = image_bytes("PNG")[:-30]
    place(root, IMAGE).write_bytes(content)
    run_files = RunFiles(root)
    with pytest.raises(LocalFileError) as in_memory:
        await read_whole(run_files, IMAGE, version(place(root, IMAGE)), is_image=True)
    with pytest.raises(LocalFileError) as on_disk:
        await run_files.verify_large_image(RUN, IMAGE, version(place(root, IMAGE)))
    for raised in (in_memory, on_disk):
        assert raised.value.subject == f"{RUN}/{IMAGE}"
        assert raised.value.cause.startswith("image cannot be verified: ")
        assert raised.value.failure is Failure.PERMANENT
    place(root, IMAGE).write_bytes(image_bytes("PNG"))
    await read_whole(run_files, IMAGE, version(place(root, IMAGE)), is_image=True)
    await run_files.verify_large_image(RUN, IMAGE, version(place(root, IMAGE)))


async def test_an_image_that_is_still_being_written_is_transient_not_damaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a write in progress condemns no image. Method: the file grows while it is verified."""
    content = image_bytes("PNG")
    path = place(root, IMAGE)
    path.write_bytes(content[:-30])
    planned = version(path)

    def grow(file: Any) -> str | None:
        path.write_bytes(content)
        return image_fault(io.BytesIO(content[:-30])) if file else None

    monkeypatch.setattr(contents, "image_fault", grow)
    with pytest.raises(LocalFileError) as raised:
        await RunFiles(root).verify_large_image(RUN, IMAGE, planned)
    assert raised.value.failure is Failure.TRANSIENT
