"""Runs whose row stood in the table before this ledger knew of them, and whose files are not here.

They were pruned, or somebody has removed their files. A run whose row is there had all of its files in the
bucket once: what the bucket has of it is taken in, so that ``verify`` compares it from then on. Where the
bucket lacks what the run must have, that is told: it cannot be restored from here.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

import anyio

from pixaris_sync.errors import Failure, LocalFileError, SyncError
from pixaris_sync.ledger.notices import Notice
from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.ledger.pruned import lacking_runs, take_in_objects
from pixaris_sync.model import Problem, RemoteObject, RunKey, TrackingRecord
from pixaris_sync.pipeline.context import Context
from pixaris_sync.rules.contract import GENERATED_IMAGES, IMAGE_SUFFIXES, files_of, object_name

log = logging.getLogger(__name__)

#: Runs of which the bucket is asked at the same time.
_LISTINGS_LIMIT: Final = 8
_GONE_HINT: Final = "restore it from a backup, if somebody needs it: nothing of it is left here"


async def take_in_pruned(context: Context, found: Sequence[PendingRow]) -> None:
    """Ask the bucket for the runs of these rows, which the table holds, whose folders lack something.

    An account that may not list goes on without.

    Raises:
        SyncError: the bucket cannot be asked now.
    """
    lacking = await context.apply(lacking_runs, found)
    saved: defaultdict[RunKey, set[str]] = defaultdict(set)
    for row in found:
        if row.run in lacking:
            saved[row.run] |= _saved_files(row)
    limiter = anyio.Semaphore(_LISTINGS_LIMIT)
    failed: list[SyncError] = []

    async def ask(run: RunKey) -> None:
        async with limiter:
            try:
                await _take_in(context, run, lacking[run], saved[run])
            except SyncError as error:
                failed.append(error)

    async with anyio.create_task_group() as tasks:
        for run in lacking:
            tasks.start_soon(ask, run)
    for error in failed:
        if error.failure is not Failure.PERMISSION:
            raise error
        log.info("objects of runs whose files are not here cannot be listed (%s)", error.cause)


async def _take_in(context: Context, run: RunKey, run_id: int, saved: Collection[str]) -> None:
    prefix = object_name(run, "")
    there: dict[str, RemoteObject] = {}
    async for page in context.store.list(prefix):
        there |= {remote.name.removeprefix(prefix): remote for remote in page}
    objects = []
    for path, remote in there.items():
        if path not in saved and not _is_image(path):
            continue
        # A bucket under a key of its owner's tells no checksums in listings.
        looked_up = remote if remote.crc32c is not None else await context.store.stat(remote.name)
        if looked_up is not None:
            objects.append((path, looked_up))
    missing = sorted(path for path in saved if path not in there)
    if not context.settings.accept_runs_without_images and not any(map(_is_image, there)):
        missing.append(f"{GENERATED_IMAGES}/*")
    notice = Notice(str(run), _gone(missing), quarantined=False) if missing else None
    await context.apply(take_in_objects, context.now(), run_id, objects, notice)


def _is_image(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == GENERATED_IMAGES and name.lower().endswith(IMAGE_SUFFIXES)


def _saved_files(row: PendingRow) -> frozenset[str]:
    if not row.payload:
        return frozenset()
    try:
        return frozenset(files_of(TrackingRecord(row.run, json.loads(row.payload), row.digest, 0)).saved)
    except LocalFileError:
        return frozenset()


def _gone(missing: Sequence[str]) -> Problem:
    return Problem(
        f"its row is in the table, and its files are neither here nor in the bucket: {', '.join(missing)}",
        _GONE_HINT,
    )
