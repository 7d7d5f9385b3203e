"""Puts concrete adapters together for a command, and takes them apart again."""

import logging
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.cli.late import LateStore
from pixaris_sync.clock import SystemClock
from pixaris_sync.errors import ConfigurationError, LedgerEmptyError
from pixaris_sync.imports import importing
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, WorkLeft, overview
from pixaris_sync.ledger.rescue import working_ledger
from pixaris_sync.limits.bandwidth import Pace
from pixaris_sync.local.mounts import network_filesystem
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.process.ownership import Ownership
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.signals import Interruption, Notifier, drain_on_signal, tell_status
from pixaris_sync.rules.names import printable_line
from pixaris_sync.settings import Settings, load_settings

if TYPE_CHECKING:
    from pixaris_sync.local.watch import Changed

log = logging.getLogger(__name__)

Beside = Callable[[Engine], Coroutine[Any, Any, None]]


def settings_for(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """Settings from all sources, and logging as they say.

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """
    settings = load_settings(flags, config=config)
    set_up_logging(settings.log_level)
    return settings


class LineFormatter(logging.Formatter):
    """Writes each message on one line: names of files must neither forge lines nor steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class calls it so
        """See `logging.Formatter`."""
        record.message = printable_line(record.message)
        return super().formatMessage(record)


def set_up_logging(level: str) -> None:
    """Messages go to stderr; a terminal gets colours and keeps its progress bar."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
        handler.setFormatter(LineFormatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pixaris_sync").setLevel(level.upper())


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

    def make_store() -> ObjectStore:
        with importing():
            from pixaris_sync.gcs.store import GcsObjectStore

        return GcsObjectStore(
            settings.gcp_pixaris_bucket_name,
            emulator_host=settings.storage_emulator_host,
            connections_limit=settings.upload_concurrency_limit,
            timeout_seconds=settings.request_timeout_seconds,
            chunk_bytes=settings.chunk_bytes,
            pace=pace,
        )

    store = LateStore(make_store)
    sink = BigQueryRowSink(
        settings.gcp_bq_experiment_dataset,
        settings.gcp_project_id,
        emulator_host=settings.bigquery_emulator_host,
        timeout_seconds=settings.request_timeout_seconds,
        job_timeout_seconds=settings.job_timeout_seconds,
        threads_limit=settings.warehouse_threads_limit,
        frames=frames,
    )
    try:
        yield store, sink
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()
            await sink.close()


@contextmanager
def owned_ledger(settings: Settings, command: str) -> Iterator[Ledger]:
    """The ledger, with the results folder locked for this process.

    Raises:
        ConfigurationError: there is no results folder that can be read.
        FolderOwnedError: another process owns the folder.
        LedgerError: the ledger cannot be opened.
    """
    from pixaris_sync.local.results_folder import LocalResults

    LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name).check()
    path = settings.ledger_path
    kind = network_filesystem(path.parent)
    if kind is not None:
        log.warning(
            "the state folder %s is on %s, where SQLite's locks cannot be trusted; "
            "choose a local folder with --state-dir",
            path.parent,
            kind,
        )
    # The lock first: a newer program must not migrate the ledger under an older one that works with it.
    with (
        Ownership(settings.local_results_folder, path.with_suffix(".owner"), command),
        working_ledger(path, now=SystemClock().now()) as ledger,
    ):
        yield ledger


def open_known_ledger(settings: Settings, *, read_only: bool = False) -> Ledger:
    """The ledger of work that was begun before.

    Raises:
        ConfigurationError: there is none yet.
        LedgerError: it cannot be opened.
    """
    path = settings.ledger_path
    try:
        if path.exists():
            return Ledger.open(path, read_only=read_only)
    except LedgerEmptyError:
        pass  # A process was ended while it made one: there is none.
    raise ConfigurationError(
        "read ledger",
        str(path),
        "nothing was ever synced from this folder to this destination",
        hint="run `pixaris-sync sync` first, or check the folder, the destination and --state-dir",
    )


def read_overview(settings: Settings) -> Overview:
    """Where everything stands, also while another process works.

    Raises:
        ConfigurationError: there is no ledger yet.
        LedgerError: it cannot be read.
    """
    ledger = open_known_ledger(settings, read_only=True)
    try:
        found: Overview = ledger.read(partial(overview, tracking_file=settings.dataset_tracking_file_name))
        return found
    finally:
        ledger.close()


async def run_engine(
    settings: Settings, mode: Mode, ledger: Ledger, *, beside: Beside | None = None
) -> tuple[WorkLeft | None, Interruption]:
    """Run the engine until it is done, or until a signal ends it.

    Args:
        settings: where, and how much at once.
        mode: which kind of pass.
        ledger: an open ledger of an owned folder.
        beside: runs beside the engine and is cancelled at its end (progress).

    Returns:
        What is left (None where it was abandoned), and whether it was interrupted.
    """
    clock, notifier, interruption = SystemClock(), Notifier(), Interruption()
    left: WorkLeft | None = None
    throttle = Throttle(settings, clock)
    async with ports(settings, pace=throttle.pace) as (store, sink), anyio.create_task_group() as tasks:
        engine = Engine(
            settings=settings,
            mode=mode,
            ledger=ledger,
            store=store,
            sink=sink,
            clock=clock,
            jitter=random.Random(),  # noqa: S311 - jitter needs no secrecy
        )
        engine.context.throttle_seconds = throttle.throttle_seconds
        with anyio.CancelScope() as scope:
            await tasks.start(
                partial(
                    drain_on_signal,
                    engine.drain,
                    scope,
                    interruption,
                    drain_timeout_seconds=settings.drain_timeout_seconds,
                    clock=clock,
                    notifier=notifier,
                )
            )
            await tasks.start(throttle.listen)
            if mode.follow:
                tasks.start_soon(_keep_following, engine, settings, clock, notifier)
            if beside is not None:
                tasks.start_soon(beside, engine)
            left = await engine.run()
        tasks.cancel_scope.cancel()
    return left, interruption


def _changes(settings: Settings) -> "AsyncIterator[Changed]":
    """Begin to watch: by events, or by polling where other machines write without any."""
    # Only those who follow need it.
    from pixaris_sync.local.watch import changes

    folder = settings.local_results_folder
    kind = network_filesystem(folder)
    if kind is not None:
        log.info("%s is on %s, which tells of no changes by other machines: it is polled", folder, kind)
    return changes(
        folder,
        anyio.Event(),
        polling=kind is not None,
        tracking_file=settings.dataset_tracking_file_name,
    )


async def _keep_following(engine: Engine, settings: Settings, clock: SystemClock, notifier: Notifier) -> None:
    from pixaris_sync.pipeline.follower import follow

    await engine.started()
    notifier.tell(READY="1", STATUS="catching up")
    async with anyio.create_task_group() as tasks:
        if notifier.listens:
            tasks.start_soon(tell_status, notifier, clock, engine.describe, engine.stirs)
        await follow(
            engine,
            partial(_changes, settings),
            clock=clock,
            rescan_interval_seconds=settings.rescan_interval_seconds,
        )
