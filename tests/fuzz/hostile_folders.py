"""Harm done with folders and files: what must not be there, in every place where something else is meant."""

import json
import os
import shutil
import socket
import stat
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from tests.engine.local_folder import png
from tests.fuzz import awkward_names
from tests.fuzz.folder import IMAGES, TRACKING_FILE, HostileFolder, mirrored, write

Harm = Callable[[HostileFolder], None]
Thing = Callable[[HostileFolder, Path], None]
Place = Callable[[HostileFolder], Path]

_SPARSE_BYTES: Final = 2**40
_CHUNK_BYTES: Final = 2**29
_ODD_SECONDS: Final = (-(2**33), -(2**31), -1, 0, 2**31, 2**32, 9_300_000_000, 15_000_000_000)
_LETTERS: Final = ("café", "Zoë ü", "が", "ộ", "각")

# -- places: where something is meant to stand -------------------------------------------------------------


def project(hostile: HostileFolder) -> Path:
    path = hostile.root / f"project{hostile.number()}"
    hostile.track(hostile.run(path / "dataset"), {})
    return path


def dataset(hostile: HostileFolder) -> Path:
    path = hostile.root / "hostile" / f"dataset{hostile.number()}"
    hostile.track(hostile.run(path), {})
    return path


def run(hostile: HostileFolder) -> Path:
    path = hostile.run(hostile.dataset())
    hostile.track(path, {"score": 1})
    return path


def orphan(hostile: HostileFolder) -> Path:
    return hostile.run(hostile.dataset())


def images(hostile: HostileFolder) -> Path:
    return run(hostile) / IMAGES


def image(hostile: HostileFolder) -> Path:
    name = hostile.random.choice(["aimed.png", "aimed.JPG", "aimed.jpeg", ".aimed.png", "aimed.txt"])
    path = run(hostile) / IMAGES / name
    write(path, png(hostile.number()))
    return path


def saved_file(hostile: HostileFolder) -> Path:
    path = hostile.run(hostile.dataset())
    name = hostile.random.choice(["pose.png", "pose.json"])
    write(path / name, png(hostile.number()) if name == "pose.png" else b'{"a": 1}')
    hostile.track(path, {"pose": str(path / name)})
    return path / name


def args(hostile: HostileFolder) -> Path:
    """The ``args.json`` of a run whose line is damaged, so that it is needed for the recovery."""
    path = hostile.run(hostile.dataset())
    line = hostile.track(path, {"score": 1}, end=b"")
    tracking = path.parent / TRACKING_FILE
    cut = hostile.random.randrange(len(line))
    tracking.write_bytes(tracking.read_bytes()[: -len(line)] + line[:cut] + b"\n")
    return path / "args.json"


def tracking_file(hostile: HostileFolder) -> Path:
    return dataset(hostile) / TRACKING_FILE


# -- things: what stands there instead ---------------------------------------------------------------------


def nothing(_: HostileFolder, path: Path) -> None:
    assert not path.exists()


def link_outside(hostile: HostileFolder, path: Path) -> None:
    """A link to the same outside, so alike that it would be taken if it was followed."""
    path.symlink_to(mirrored(hostile, _aside(path)))


def relative_link_outside(hostile: HostileFolder, path: Path) -> None:
    path.symlink_to(os.path.relpath(mirrored(hostile, _aside(path)), path.parent))


def chain_of_links(hostile: HostileFolder, path: Path) -> None:
    target = mirrored(hostile, _aside(path))
    for _ in range(3):
        link = hostile.outside / f"link{hostile.number()}"
        link.symlink_to(target)
        target = link
    path.symlink_to(target)


def hanging_link(_: HostileFolder, path: Path) -> None:
    path.symlink_to("nowhere")


def link_in_a_circle(_: HostileFolder, path: Path) -> None:
    path.symlink_to(path.name)


def link_to_another_run(hostile: HostileFolder, path: Path) -> None:
    other = hostile.sound[0]
    path.symlink_to(other if path.suffix == "" else other / IMAGES / "0.png")


def link_upwards(_: HostileFolder, path: Path) -> None:
    path.symlink_to("../..")


def link_to_root(_: HostileFolder, path: Path) -> None:
    path.symlink_to("/")


def link_to_endless_file(_: HostileFolder, path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_feedback(hostile: HostileFolder, path: Path) -> None:
    path.symlink_to(hostile.forbidden[0])


def folder(hostile: HostileFolder, path: Path) -> None:
    write(path / "pose.png", png(hostile.number()))
    write(path / IMAGES / "below.png", png(hostile.number()))


def deep_folders(hostile: HostileFolder, path: Path) -> None:
    write(path.joinpath(*["d"] * 60, "deep.png"), png(hostile.number()))


def many_files(_: HostileFolder, path: Path) -> None:
    path.mkdir()
    for number in range(200):
        (path / f"{number}.png").touch()


def fifo(_: HostileFolder, path: Path) -> None:
    os.mkfifo(path)


def unix_socket(_: HostileFolder, path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            # Addresses are short: the way there goes through the handle.
            listener.bind(f"/proc/self/fd/{handle}/{path.name}")
    finally:
        os.close(handle)


def device(_: HostileFolder, path: Path) -> None:
    """``/dev/zero`` by number; only root may make one, and not everywhere: else the place stays empty."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        return


def empty_file(_: HostileFolder, path: Path) -> None:
    path.touch()


def text_file(_: HostileFolder, path: Path) -> None:
    path.write_text("no picture\n")


def zeros(_: HostileFolder, path: Path) -> None:
    path.write_bytes(bytes(5000))


def cut_image(hostile: HostileFolder, path: Path) -> None:
    whole = png(hostile.number())
    path.write_bytes(whole[: hostile.random.randrange(1, len(whole))])


def mutated_image(hostile: HostileFolder, path: Path) -> None:
    path.write_bytes(awkward_names.mutated(hostile.random, png(hostile.number())))


def large_image(hostile: HostileFolder, path: Path) -> None:
    path.write_bytes(png(hostile.number(), 9 * 1024 * 1024))


def image_of_a_terabyte(_: HostileFolder, path: Path) -> None:
    """A sparse file that begins like an image."""
    path.write_bytes(png(1)[:40])
    os.truncate(path, _SPARSE_BYTES)


def chunk_of_half_a_gigabyte(_: HostileFolder, path: Path) -> None:
    """A PNG with one chunk that must not be held in memory."""
    head = png(1)[:33]
    path.write_bytes(head + _CHUNK_BYTES.to_bytes(4, "big") + b"IDAT")
    os.truncate(path, len(head) + _CHUNK_BYTES + 12)


def deep_json(hostile: HostileFolder, path: Path) -> None:
    path.write_text(awkward_names.nested(hostile.random, 100_000))


def unreadable(hostile: HostileFolder, path: Path) -> None:
    _aside(path).rename(path)
    hostile.lock(path)


FOLDER_THINGS: Final[tuple[Thing, ...]] = (
    nothing,
    link_outside,
    relative_link_outside,
    chain_of_links,
    hanging_link,
    link_in_a_circle,
    link_to_another_run,
    link_upwards,
    link_to_root,
    link_to_endless_file,
    link_to_feedback,
    folder,
    deep_folders,
    many_files,
    fifo,
    unix_socket,
    device,
    empty_file,
    text_file,
    unreadable,
)
FILE_THINGS: Final[tuple[Thing, ...]] = (
    *FOLDER_THINGS,
    zeros,
    cut_image,
    mutated_image,
    large_image,
    deep_json,
)
#: Who puts these elsewhere means that they are uploaded, and that takes its time.
IMAGE_THINGS: Final[tuple[Thing, ...]] = (*FILE_THINGS, image_of_a_terabyte, chunk_of_half_a_gigabyte)
THINGS: Final[Mapping[Place, tuple[Thing, ...]]] = {
    project: FOLDER_THINGS,
    dataset: FOLDER_THINGS,
    run: FOLDER_THINGS,
    orphan: FOLDER_THINGS,
    images: FOLDER_THINGS,
    image: IMAGE_THINGS,
    saved_file: FILE_THINGS,
    args: IMAGE_THINGS,
    tracking_file: FILE_THINGS,
}


def _aside(path: Path) -> Path:
    return path.with_name(f".aside-{path.name}")


def harm(place: Place, thing: Thing, hostile: HostileFolder) -> None:
    path = place(hostile)
    aside = _aside(path)
    path.rename(aside)
    thing(hostile, path)
    if aside.is_dir():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def _odd_name(place: Place, hostile: HostileFolder) -> None:
    """A place under odd names; its parent is the same, and so is what is in it."""
    for name in hostile.random.sample(awkward_names.FILE_NAMES, 3):
        path = place(hostile)
        keeps_suffix = path.is_file() and place is not tracking_file
        named = path.with_name(f"{name[:200]}{path.suffix}" if keeps_suffix else name)
        if not named.exists():
            path.rename(named)


def _odd_run(hostile: HostileFolder) -> None:
    """Runs with odd names in a folder and in its record alike."""
    where = hostile.dataset()
    for name in hostile.random.sample(awkward_names.FILE_NAMES, 3):
        path = hostile.run(where, f"20250101-000000_{name}"[:120])
        hostile.track(path, {"pose": str(path / "pose.png")})
        if hostile.random.random() < 0.5:
            write(path / "pose.png", png(hostile.number()))


def _odd_saved_file(hostile: HostileFolder) -> None:
    """Args saved as files under odd keys."""
    path = hostile.run(hostile.dataset())
    values = {}
    for name in hostile.random.sample(awkward_names.FILE_NAMES, 5):
        write(path / f"{name}.json", json.dumps({"n": hostile.number()}).encode())
        values[name] = str(path / f"{name}.json")
    hostile.track(path, values)


def _alike_but_for_case(hostile: HostileFolder) -> None:
    path = run(hostile)
    for name in ("A.png", "a.png", "a.PNG", "e\u0301.png", "\u00e9.png"):
        write(path / IMAGES / name, png(hostile.number()))


def _odd_times(hostile: HostileFolder) -> None:
    """Files and folders from before 1970, from years to come, and from beyond what 64 bits of ns hold."""
    for seconds in hostile.random.sample(_ODD_SECONDS, 3):
        path = hostile.sound_run(hostile.root / "hostile" / f"times{hostile.number()}")
        for old in (
            path / IMAGES / "0.png",
            path / "args.json",
            path / IMAGES,
            path,
            path.parent / TRACKING_FILE,
        ):
            os.utime(old, (seconds, seconds))


def _taken_apart(hostile: HostileFolder) -> None:
    """Folders and files whose letters a Mac has taken apart, while the record has them composed."""
    where = hostile.dataset()
    for letters in hostile.random.sample(_LETTERS, 2):
        name = hostile.run_name(letters)
        path = hostile.run(where, unicodedata.normalize("NFD", name))
        write(path / unicodedata.normalize("NFD", f"{letters}.json"), b'{"a": 1}')
        record = {letters: f"{name}/{letters}.json"}
        hostile.append(where, json.dumps(hostile.record(where / name, record)).encode() + b"\n")
        hostile.sound.append(where / name)
        if hostile.random.random() < 0.3:
            # Both spellings side by side: then it is the one that the record has.
            hostile.run(where, name)
            write(where / name / f"{letters}.json", b'{"a": 2}')


def _names_with_slashes(hostile: HostileFolder) -> None:
    """Runs in folders in folders; one that only seems to be, and one behind a link."""
    where = hostile.dataset()
    for below in hostile.random.sample(("org/model", "a/b/c/d", "a\\b/c", "..x/y", "generated_images/x"), 3):
        name = hostile.run_name(below)
        path = hostile.run(where, name)
        hostile.append(where, json.dumps(hostile.record_of(name, {})).encode() + b"\n")
        hostile.sound.append(path)
    hostile.run(where, hostile.run_name("unfinished/model"))
    for name in ("x/../../calm/plain", "x//y", "x/./y", "/x", "x/"):
        record = hostile.record_of(f"20250101-000000_{name}", {})
        hostile.append(where, json.dumps(record).encode() + b"\n")
    first = hostile.run_name("link")
    (where / first).mkdir()
    mirror = mirrored(hostile, hostile.sound[0])
    (where / first / "model").symlink_to(mirror)
    hostile.append(where, json.dumps(hostile.record_of(f"{first}/model", {})).encode() + b"\n")


def _of_the_first_versions(hostile: HostileFolder) -> None:
    """Records without the time of their runs, and images where pixaris 0.1.0 kept them."""
    where = hostile.dataset()
    for _ in range(3):
        path = hostile.run(where, hostile.run_name("r0"))
        if hostile.random.random() < 0.5:
            (path / IMAGES).rename(path / "images")
        record = {**hostile.record(path, {}), "experiment_run_name": "r0"}
        if hostile.random.random() < 0.3:
            record["timestamp"] = "noon"
        write(path / "args.json", json.dumps(record).encode())
        hostile.append(where, json.dumps(record).encode() + b"\n")
        if record["timestamp"] != "noon":
            hostile.sound.append(path)


def _datasets_with_slashes(hostile: HostileFolder) -> None:
    """Datasets too deep to be carried, in a sound dataset and in a folder that is none."""
    where = hostile.dataset()
    for below in (
        where / "cats",
        where / "a" / "b",
        hostile.root / f"team{hostile.number()}" / "shop" / "hats",
    ):
        path = hostile.run(below)
        hostile.track(path, {"score": 1})
        hostile.too_deep.append(below)


def harms() -> dict[str, Harm]:
    """Every harm of this kind, by its name."""
    found: dict[str, Harm] = {}
    for place, things in THINGS.items():
        for thing in things:
            found[f"{thing.__name__} as {place.__name__}"] = partial(harm, place, thing)
        found[f"odd name of {place.__name__}"] = partial(_odd_name, place)
    others = (
        _odd_run,
        _odd_saved_file,
        _alike_but_for_case,
        _odd_times,
        _taken_apart,
        _names_with_slashes,
        _of_the_first_versions,
        _datasets_with_slashes,
    )
    for other in others:
        found[other.__name__.strip("_").replace("_", " ")] = other
    return found
