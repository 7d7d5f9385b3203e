"""Reads the cloud for the handlers: projects and datasets, images, tables.

Each function may be called anywhere, as `portal` says, and leaves nothing behind that a child after a fork
could trip over: its connections and its tasks end with it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.errors import ResultsUnreadableError, SyncError, TableNotFoundError
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.handlers.downloads import IMAGES_LIMIT, load_images
from pixaris_sync.handlers.patience import Patience, joined, side_by_side
from pixaris_sync.handlers.portal import run as run_anywhere
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.process.wiring import login_of
from pixaris_sync.rules.contract import FEEDBACK_FOLDER, RESERVED_PROJECT, RESULTS_PREFIX, table_id
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

#: Projects whose datasets are listed at the same time.
LISTINGS_LIMIT: Final = 16


def projects_and_datasets(settings: Settings) -> dict[str, list[str]]:
    """The datasets of each project of the bucket, both in the order of their objects' names.

    It takes a request for the projects and one for each of them, for each thousand of names.

    Raises:
        SyncError: the bucket cannot be read.
    """
    return _ask_bucket(settings, lambda store: list_projects(store, Patience.of(settings)))


def images_of_run(settings: Settings, run: RunKey, folder: str) -> list[str]:
    """Load the images of a run; see `load_images` for what is promised."""
    return _ask_bucket(settings, lambda store: load_images(store, Patience.of(settings), run, folder))


def results_of_dataset(settings: Settings, key: DatasetKey) -> "pd.DataFrame":
    """The table of a dataset, with the types that Google's client gives it.

    Raises:
        ResultsUnreadableError: there is no such table, or it cannot be read.
    """

    async def read() -> "pd.DataFrame":
        login = login_of(settings)
        sink = BigQueryRowSink(
            settings.gcp_bq_experiment_dataset,
            settings.gcp_project_id,
            emulator_host=settings.bigquery_emulator_host,
            login=login,
            timeout_seconds=settings.request_timeout_seconds,
            threads_limit=1,
            frames=True,
        )
        try:
            return await read_results(sink, Patience.of(settings), key)
        finally:
            with anyio.CancelScope(shield=True):
                await sink.close()
                login.close()

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
        login = login_of(settings)
        store = GcsObjectStore(
            settings.gcp_pixaris_bucket_name,
            emulator_host=settings.storage_emulator_host,
            login=login,
            connections_limit=IMAGES_LIMIT,
            timeout_seconds=settings.request_timeout_seconds,
            chunk_bytes=settings.chunk_bytes,
        )
        try:
            return await ask(store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()
                login.close()

    return run_anywhere(asked)


async def list_projects(store: ObjectStore, patience: Patience) -> dict[str, list[str]]:
    """See `projects_and_datasets`."""

    async def folders(prefix: str) -> list[str]:
        return await patience.attempt(lambda: joined(store.folders(prefix)))

    async def datasets(project: str) -> list[str]:
        names = await folders(f"{RESULTS_PREFIX}{project}/")
        return [name for name in names if name != FEEDBACK_FOLDER]

    projects = [name for name in await folders(RESULTS_PREFIX) if name != RESERVED_PROJECT]
    return dict(zip(projects, await side_by_side(projects, datasets, LISTINGS_LIMIT), strict=True))


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
