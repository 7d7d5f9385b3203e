"""Wiring of ``backfill --dry-run``."""

import time

from anyio import to_thread

from pixaris_sync.cli.wiring import ports
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.model import JsonValue
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.preview import preview as preview_of
from pixaris_sync.settings import Settings


async def preview(settings: Settings, mode: Mode) -> dict[str, JsonValue]:
    """What a backfill would do, by a copy of the ledger in memory; the folder need not be owned.

    Raises:
        ConfigurationError: folder, bucket, dataset or credentials are missing or unusable.
        LedgerError: there is a ledger that cannot be read.
        SyncError: the cloud could not be asked.
    """
    ledger = await to_thread.run_sync(lambda: Ledger.in_memory(copy_of=settings.ledger_path))
    try:
        async with ports(settings) as (store, sink):
            return await preview_of(settings, mode, ledger, store, sink, now=time.time())
    finally:
        ledger.close()
