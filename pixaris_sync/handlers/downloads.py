"""Loads the images of a run, so that a file under an image's name is whole.

They are loaded to a hidden folder in the run's folder and renamed. A hidden folder that its loader left
behind, as a kill does, goes with the next load.
"""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Final

import anyio
import anyio.to_thread
import google_crc32c

from pixaris_sync.errors import LocalFileError, ObjectGoneError
from pixaris_sync.handlers.patience import Patience, joined, side_by_side
from pixaris_sync.handlers.record import FILE_NAME_BYTES_MAX
from pixaris_sync.local.storing import held, make_hidden
from pixaris_sync.model import RemoteObject, RunKey
from pixaris_sync.ports import ObjectStore
from pixaris_sync.rules.contract import GENERATED_IMAGES, RESULTS_PREFIX, object_name
from pixaris_sync.rules.names import component_fault
from pixaris_sync.text import counted, printable, printable_line

log = logging.getLogger(__name__)

#: Images that are loaded at the same time. Each takes memory for some pieces, whatever its size.
IMAGES_LIMIT: Final = 32
#: How the names of hidden folders begin.
PREFIX: Final = ".loading-"
#: A terminal is told how far it is where loading takes longer.
QUIET_SECONDS: Final = 1.0
_READ_BYTES: Final = 1024 * 1024


async def load_images(store: ObjectStore, patience: Patience, run: RunKey, folder: str) -> list[str]:
    """Load the images of a run into ``<folder>/<project>/<dataset>/<run>/generated_images``.

    A file that is there already and has the checksum of its object is not loaded again; one that differs is
    replaced. An object whose name leads out of the folder, or is none of a file, is left out with a warning.

    Returns:
        The sorted paths of the images that the run has when they are loaded: of one that is replaced
        meanwhile the new content, and none that is deleted meanwhile.

    Raises:
        SyncError: the bucket cannot be read, after a few attempts. Each file is whole, or as it was before.
        LocalFileError: the folder cannot be written.
    """
    prefix = object_name(run, f"{GENERATED_IMAGES}/")
    listed = await patience.attempt(lambda: joined(store.list(prefix)))
    images = [_Image(store, patience, found, place) for found, place in _places(listed, folder)]
    there = await side_by_side(images, _Image.is_there, IMAGES_LIMIT)
    missing = [image for image, is_there in zip(images, there, strict=True) if not is_there]
    run_folder = os.path.join(folder, run.project, run.dataset, run.run)
    if images:
        _remove_left(run_folder)
    if missing:
        with _hidden_folder(run_folder) as hidden, _progress(missing) as advance:

            async def load(numbered: tuple[int, _Image]) -> None:
                number, image = numbered
                await image.load(hidden / str(number), advance)

            await side_by_side(enumerate(missing), load, IMAGES_LIMIT)
    return sorted(image.place for image in images if image.exists)


def _places(listed: Iterable[RemoteObject], folder: str) -> Iterator[tuple[RemoteObject, str]]:
    """The images of a listing, and where each of them goes."""
    for found in listed:
        path = found.name.removeprefix(RESULTS_PREFIX)
        if path.endswith("/"):
            continue  # What Google's console makes for an empty folder.
        faults = ((repr(part), _fault(part)) for part in path.split("/"))
        if bad := next(((part, fault) for part, fault in faults if fault), None):
            log.warning("object %s is left out: its part %s %s", printable_line(found.name), *bad)
        else:
            yield found, os.path.join(folder, path)


def _fault(part: str) -> str | None:
    if len(part.encode()) > FILE_NAME_BYTES_MAX:
        return f"has more than {FILE_NAME_BYTES_MAX} bytes"
    return component_fault(part)


class _Image:
    """An image in the bucket, and its place on the disk.

    Attributes:
        place: where its file is.
        exists: whether the bucket has it, as far as is known.
        size: of its content, in bytes.
    """

    def __init__(self, store: ObjectStore, patience: Patience, found: RemoteObject, place: str) -> None:
        self._store = store
        self._patience = patience
        self._name = found.name
        self._found: RemoteObject | None = found
        self.place = place
        self.size = found.size

    @property
    def exists(self) -> bool:
        return self._found is not None

    async def is_there(self) -> bool:
        """Whether there is nothing to load: the file is the object's, or there is no object."""
        if self._found is not None and self._found.crc32c is None:
            # A bucket under a key of its owner's tells no checksums in listings.
            await self._look_up()
        if self._found is None:
            return True
        return await anyio.to_thread.run_sync(_holds, self.place, self._found)

    async def load(self, temporary: Path, advance: Callable[[int], None]) -> None:
        """Load it by way of a temporary file, unless it is deleted meanwhile."""
        while self._found is not None:
            try:
                await self._patience.attempt(partial(self._fetch, self._found, temporary))
            except ObjectGoneError:
                await self._look_up()
            else:
                break
        advance(self.size)

    async def _look_up(self) -> None:
        self._found = await self._patience.attempt(lambda: self._store.stat(self._name))

    async def _fetch(self, found: RemoteObject, temporary: Path) -> None:
        with _writing(self.place):
            async with await anyio.open_file(temporary, "wb") as file:

                async def write(piece: bytes) -> None:
                    with _writing(self.place):
                        await file.write(piece)

                await self._store.download(found, write)
            await anyio.to_thread.run_sync(_put, temporary, self.place)


@contextmanager
def _writing(place: str) -> Iterator[None]:
    """Translate what the disk says.

    Raises:
        LocalFileError: it refused.
    """
    try:
        yield
    except OSError as error:
        cause = error.strerror or type(error).__name__
        hint = "let the folder be written, with room enough, then load the images again"
        raise LocalFileError("write image", printable(place), cause, hint=hint) from error


def _put(temporary: Path, place: str) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.replace(temporary, place)


def _holds(place: str, found: RemoteObject) -> bool:
    """Whether a file is that of an object, by its size and checksum; one that cannot be read is not."""
    try:
        seen = os.stat(place)
        if not S_ISREG(seen.st_mode) or seen.st_size != found.size:
            return False
        crc32c = 0
        with open(place, "rb") as file:
            while piece := file.read(_READ_BYTES):
                crc32c = google_crc32c.extend(crc32c, piece)
    except OSError:
        return False
    return crc32c == found.crc32c


def _remove_left(folder: str) -> None:
    """Remove the hidden folders of loaders that are gone."""
    for left in Path(folder).glob(f"{PREFIX}*"):
        with suppress(OSError), held(left):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _hidden_folder(folder: str) -> Iterator[Path]:
    """A hidden folder in a folder, for as long as it is needed.

    Raises:
        LocalFileError: the disk refused.
    """
    with _writing(folder):
        os.makedirs(folder, exist_ok=True)
        hidden, handle = make_hidden(Path(folder), PREFIX)
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(handle)


@contextmanager
def _progress(images: Sequence[_Image]) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many bytes are loaded, once that takes long; what is yielded is told of each."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - on a terminal alone
    from rich.progress import (  # noqa: PLC0415 - the same
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(counted(len(images), "image"), total=sum(image.size for image in images))
    begin = threading.Timer(QUIET_SECONDS, bar.start)
    begin.daemon = True
    begin.start()
    try:
        yield lambda size: bar.advance(task, size)
    finally:
        begin.cancel()
        begin.join()
        if bar.live.is_started:
            bar.stop()
