"""Puts concrete adapters and a ledger together for an engine, and takes them apart again."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.clock import SystemClock
from pixaris_sync.footprint import importing, trusting_nobody
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import FoundLedger, find_ledger, remember_home
from pixaris_sync.ledger.rescue import work_with
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.limits.bandwidth import Pace
from pixaris_sync.local.mounts import network_filesystem
from pixaris_sync.login.login import Login
from pixaris_sync.model import RunKey
from pixaris_sync.ports import BucketInspection, DatasetInspection, ObjectStore, RowSink
from pixaris_sync.process.ownership import Ownership
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.model import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How many questions about the set-up of a service are asked at the same time.
_QUESTIONS_AT_ONCE = 8


@asynccontextmanager
async def ports(
    settings: Settings, *, frames: bool = False, pace: Pace | None = None
) -> AsyncIterator[tuple[ObjectStore, RowSink]]:
    """The bucket and the BigQuery dataset that the settings name.

    Args:
        settings: which, and how much at once.
        frames: tables can be read whole.
        pace: what uploads hold to.
    """
    login = login_of(settings)
    store = GcsObjectStore(
        settings.gcp_pixaris_bucket_name,
        emulator_host=settings.storage_emulator_host,
        login=login,
        connections_limit=settings.upload_concurrency_limit,
        timeout_seconds=settings.request_timeout_seconds,
        chunk_bytes=settings.chunk_bytes,
        pace=pace,
    )
    sink = BigQueryRowSink(
        settings.gcp_bq_experiment_dataset,
        settings.gcp_project_id,
        emulator_host=settings.bigquery_emulator_host,
        login=login,
        timeout_seconds=settings.request_timeout_seconds,
        job_timeout_seconds=settings.job_timeout_seconds,
        threads_limit=settings.warehouse_threads_limit,
        frames=frames,
        glances=True,
    )
    try:
        yield store, sink
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()
            await sink.close()
            login.close()


def login_of(settings: Settings) -> Login:
    """The login for the bucket and the tables of the settings."""
    return Login(
        timeout_seconds=settings.request_timeout_seconds,
        endpoints={"storage": settings.storage_endpoint, "bigquery": settings.bigquery_endpoint},
    )


def bucket_inspection(settings: Settings, login: Login) -> BucketInspection:
    """What asks the settings' bucket how it is set up."""
    with importing(), trusting_nobody():
        from pixaris_sync.gcs.inspection import GcsBucketInspection  # noqa: PLC0415 - imports the client

    return GcsBucketInspection(
        settings.gcp_pixaris_bucket_name,
        emulator_host=settings.storage_emulator_host,
        login=login,
        connections_limit=_QUESTIONS_AT_ONCE,
        timeout_seconds=settings.request_timeout_seconds,
        chunk_bytes=settings.chunk_bytes,
    )


def dataset_inspection(settings: Settings, login: Login) -> DatasetInspection:
    """What asks the settings' BigQuery dataset how it is set up.

    Raises:
        ConfigurationError: the setting is no dataset's name.
    """
    from pixaris_sync.bigquery.inspection import BigQueryDatasetInspection  # noqa: PLC0415 - `doctor` alone

    return BigQueryDatasetInspection(
        settings.gcp_bq_experiment_dataset,
        settings.gcp_project_id,
        emulator_host=settings.bigquery_emulator_host,
        login=login,
        timeout_seconds=settings.request_timeout_seconds,
        threads_limit=_QUESTIONS_AT_ONCE,
        glances=True,
    )


def found_ledger(settings: Settings, shard: Shard | None = None) -> FoundLedger:
    """The ledger of the settings' results folder and destination, or of a shard; it may not be there yet.

    Raises:
        ConfigurationError: it is no results folder, but one or two levels off.
    """
    from pixaris_sync.local.results_folder import LocalResults  # noqa: PLC0415 - some commands do without

    folder = LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name)
    folder.check_place()

    def holds(run: RunKey) -> bool:
        return folder.signature(run) is not None

    return find_ledger(settings, holds, shard)


def work_as_owner(
    settings: Settings,
    command: str,
    work: Callable[[Ledger], T],
    *,
    selection: Selection = EVERYTHING,
    waits: bool = True,
) -> T:
    """Do `work` with the ledger on the selected runs, with the results folder locked for this process.

    Shards of one folder share it, and each has its own ledger.

    Where a handler of a training process owns the folder, this waits for its end, unless `waits` is false.

    It is done once more where the ledger turns out to be damaged: see `rescue.work_with`.

    Raises:
        ConfigurationError: there is no results folder that can be read.
        FolderOwnedError: another process owns the folder.
        LedgerError: the ledger cannot be opened.
    """
    from pixaris_sync.local.results_folder import LocalResults  # noqa: PLC0415 - as above

    LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name).check()
    found = found_ledger(settings, selection.shard)
    path = found.path
    kind = network_filesystem(path.parent)
    if kind is not None:
        log.warning(
            "the state folder %s is on %s, where SQLite's locks cannot be trusted; "
            "choose a local folder with --state-dir",
            path.parent,
            kind,
        )
    clock = SystemClock()

    def work_at_home(ledger: Ledger) -> T:
        ledger.write(partial(remember_home, home=found.home, now=clock.now()))
        return work(ledger)

    # The lock first: a newer program must not migrate the ledger under an older one that works with it.
    with Ownership(
        settings.local_results_folder,
        path.with_suffix(".owner"),
        command,
        selection=selection,
        path_lock=found.path_lock,
        waits=waits,
    ):
        if found.moved_from is not None:
            log.info("the results folder was %s before: its ledger %s goes on", found.moved_from, path)
        if found.left is not None:
            log.info(
                "another folder was %s before, and keeps its ledger %s: this one gets a new one",
                found.home.folder,
                found.left,
            )
        return work_with(path, work_at_home, now=clock.now)
