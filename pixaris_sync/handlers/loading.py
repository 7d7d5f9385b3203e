"""Reads the cloud for the handlers: projects and datasets, images, tables.

Each function may be called anywhere, as `portal` says, and leaves nothing behind that a child after a fork
could trip over: its connections and its tasks end with it.

Images are loaded to a hidden folder in their run's folder and renamed, so that a file under an image's name
is whole. A hidden folder that its loader left behind, as a kill does, goes with the next load.
"""

import logging
import os
import random
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread
import google_crc32c

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.errors import (
    Failure,
    LocalFileError,
    ObjectGoneError,
    ResultsUnreadableError,
    SyncError,
    TableNotFoundError,
)
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.handlers.portal import run as run_anywhere
from pixaris_sync.handlers.record import FILE_NAME_BYTES_MAX
from pixaris_sync.handlers.staging import held, make_hidden
from pixaris_sync.limits.backoff import Backoff
from pixaris_sync.model import DatasetKey, RemoteObject, RunKey
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import (
    FEEDBACK_FOLDER,
    GENERATED_IMAGES,
    RESERVED_PROJECT,
    RESULTS_PREFIX,
    object_name,
    table_id,
)
from pixaris_sync.rules.names import component_fault
from pixaris_sync.settings import Settings
from pixaris_sync.text import counted, printable, printable_line

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Listings, and images, that are loaded at the same time. Each image takes memory for some pieces, whatever
#: its size.
LISTINGS_LIMIT: Final = 16
IMAGES_LIMIT: Final = 32
#: How the names of hidden folders begin.
PREFIX: Final = ".loading-"
#: A terminal is told how far it is where loading takes longer.
QUIET_SECONDS: Final = 1.0
#: What somebody who waits for an answer waits for. A permission may come in minutes: that is too long.
_PASSING: Final = frozenset({Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT})
_READ_BYTES: Final = 1024 * 1024


def projects_and_datasets(settings: Settings) -> dict[str, list[str]]:
    """The datasets of each project of the bucket, both in the order of their objects' names.

    It takes a request for the projects and one for each of them, for each thousand of names.

    Raises:
        SyncError: the bucket cannot be read.
    """
    return _ask_bucket(settings, lambda store: list_projects(store, Patience.of(settings)))


def images_of_run(settings: Settings, run: RunKey, folder: str) -> list[str]:
    """Load the images of a run into ``<folder>/<project>/<dataset>/<run>/generated_images``.

    A file that is there already and has the checksum of its object is not loaded again; one that differs is
    replaced. An object whose name leads out of the folder is left out with a warning.

    Returns:
        The sorted paths of the images that the run has when they are loaded: of one that is replaced
        meanwhile the new content, and none that is deleted meanwhile.

    Raises:
        SyncError: the bucket cannot be read, after a few attempts. Each file is whole, or as it was before.
        LocalFileError: the folder cannot be written.
    """
    return _ask_bucket(settings, lambda store: load_images(store, Patience.of(settings), run, folder))


def results_of_dataset(settings: Settings, key: DatasetKey) -> "pd.DataFrame":
    """The table of a dataset, with the types that Google's client gives it.

    Raises:
        ResultsUnreadableError: there is no such table, or it cannot be read.
    """

    async def read() -> "pd.DataFrame":
        sink = BigQueryRowSink(
            settings.gcp_bq_experiment_dataset,
            settings.gcp_project_id,
            emulator_host=settings.bigquery_emulator_host,
            timeout_seconds=settings.request_timeout_seconds,
            threads_limit=1,
            frames=True,
        )
        try:
            return await read_results(sink, Patience.of(settings), key)
        finally:
            with anyio.CancelScope(shield=True):
                await sink.close()

    try:
        return run_anywhere(read)
    except SyncError as error:
        raise ResultsUnreadableError(
            error.operation,
            error.subject,
            error.cause,
            hint=error.hint,
            failure=error.failure,
            retry_after_seconds=error.retry_after_seconds,
        ) from error


def _ask_bucket(settings: Settings, ask: Callable[[ObjectStore], Awaitable[T]]) -> T:
    async def asked() -> T:
        store = GcsObjectStore(
            settings.gcp_pixaris_bucket_name,
            emulator_host=settings.storage_emulator_host,
            connections_limit=IMAGES_LIMIT,
            timeout_seconds=settings.request_timeout_seconds,
            chunk_bytes=settings.chunk_bytes,
        )
        try:
            return await ask(store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    return run_anywhere(asked)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried that fails for reasons that pass.

    Attributes:
        backoff: how long to wait in between.
        attempts_limit: how often at most.
        wait_seconds_max: a service that asks to be left alone for longer has failed.
    """

    backoff: Backoff
    attempts_limit: int
    wait_seconds_max: float

    @classmethod
    def of(cls, settings: Settings) -> "Patience":
        """What the settings say of passes."""
        backoff = Backoff(settings.retry_delay_seconds_min, settings.retry_delay_seconds_max)
        return cls(backoff, settings.sync_attempts_limit, settings.request_timeout_seconds)

    async def attempt(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again where it failed for a reason that passes.

        Raises:
            SyncError: the last failure.
        """
        jitter = random.Random()  # noqa: S311 - nothing to guess
        for attempts in count(1):
            try:
                return await work()
            except SyncError as error:
                wait_seconds = self.backoff.delay_seconds(attempts, jitter, error)
                passes = error.failure in _PASSING and wait_seconds <= self.wait_seconds_max
                if not passes or attempts >= self.attempts_limit:
                    raise
                log.debug("attempt %d failed, the next in %.1f s: %s", attempts, wait_seconds, error)
            await anyio.sleep(wait_seconds)
        raise AssertionError


async def list_projects(store: ObjectStore, patience: Patience) -> dict[str, list[str]]:
    """See `projects_and_datasets`."""

    async def folders(prefix: str) -> list[str]:
        return await patience.attempt(lambda: _joined(store.folders(prefix)))

    async def datasets(project: str) -> list[str]:
        names = await folders(f"{RESULTS_PREFIX}{project}/")
        return [name for name in names if name != FEEDBACK_FOLDER]

    projects = [name for name in await folders(RESULTS_PREFIX) if name != RESERVED_PROJECT]
    return dict(zip(projects, await _side_by_side(projects, datasets, LISTINGS_LIMIT), strict=True))


async def read_results(sink: RowSink, patience: Patience, key: DatasetKey) -> "pd.DataFrame":
    """See `results_of_dataset`.

    Raises:
        TableNotFoundError: there is no such table.
        SyncError: it cannot be read.
    """
    table = table_id(key)
    frame = await patience.attempt(lambda: sink.read_table(table))
    if frame is None:
        raise TableNotFoundError(
            "read table",
            table,
            "there is no such table",
            hint="check the names of project and dataset; a table is made when their first run is stored",
        )
    return frame


async def load_images(store: ObjectStore, patience: Patience, run: RunKey, folder: str) -> list[str]:
    """See `images_of_run`."""
    prefix = object_name(run, f"{GENERATED_IMAGES}/")
    listed = await patience.attempt(lambda: _joined(store.list(prefix)))
    images = [_Image(store, patience, found, place) for found, place in _places(listed, folder)]
    there = await _side_by_side(images, _Image.is_there, IMAGES_LIMIT)
    missing = [image for image, is_there in zip(images, there, strict=True) if not is_there]
    run_folder = os.path.join(folder, run.project, run.dataset, run.run)
    if images:
        _remove_left(run_folder)
    if missing:
        with _hidden_folder(run_folder) as hidden, _progress(missing) as advance:

            async def load(numbered: tuple[int, _Image]) -> None:
                number, image = numbered
                await image.load(hidden / str(number), advance)

            await _side_by_side(enumerate(missing), load, IMAGES_LIMIT)
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


async def _joined(pages: AsyncIterator[Sequence[T]]) -> list[T]:
    return [one async for page in pages for one in page]


async def _side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[R]], limit: int) -> list[R]:
    """What `work` makes of each, in their order; at most `limit` at the same time.

    Raises:
        SyncError: the first; the others are ended.
    """
    waiting = iter(enumerate(items))
    made: dict[int, R] = {}
    errors: list[SyncError] = []

    async def take() -> None:
        for number, item in waiting:
            try:
                made[number] = await work(item)
            except SyncError as error:
                errors.append(error)
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(limit):
            tasks.start_soon(take)
    if errors:
        raise errors[0]
    return [made[number] for number in sorted(made)]
