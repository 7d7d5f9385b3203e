"""The first contact: are bucket and dataset there, and what does the bucket hold already?"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from sqlite3 import Connection

import anyio

from pixaris_sync.errors import Failure, NameRefusedError, SyncError
from pixaris_sync.ledger.adoption import (
    adopt_objects,
    adopted,
    adoption_failed,
    compare_anew,
    listed_by_run,
    parts_to_list,
    unsent_runs,
)
from pixaris_sync.ledger.database import get_fact, set_fact
from pixaris_sync.ledger.datasets import KnownDataset, open_dataset, refuse_dataset
from pixaris_sync.ledger.notices import Notice
from pixaris_sync.model import DatasetKey, Problem, RemoteObject, RunKey
from pixaris_sync.pipeline.context import BUCKET, Context, problem_of
from pixaris_sync.rules.contract import (
    check_dataset_names,
    listing_hazard,
    object_name,
    object_prefix,
    run_and_path,
    table_id,
)
from pixaris_sync.waiting import Wakeup, wait_until

log = logging.getLogger(__name__)

#: The fact that bucket and dataset were there, and when.
CHECKED = "destination_checked_at"
#: So many datasets at once are compared with the bucket.
ADOPTIONS_LIMIT = 8
#: So many listings of one of them are made at once.
LISTINGS_LIMIT = 8


class FirstCheck:
    """Whether bucket and dataset are there: asked once, before the first work of a new ledger.

    Once they were seen, the ledger knows; later, failures of work tell.

    Attributes:
        confirmed: they are known to be there.
    """

    def __init__(self, context: Context) -> None:
        self.confirmed = False
        self._context = context
        self._asking = anyio.Lock()

    async def confirm(self) -> None:
        """Make sure that both can be used.

        Raises:
            ConfigurationError: one is not there, or credentials are missing or refused.
            SyncError: one could not be asked.
            LedgerError: the ledger cannot be written.
        """
        async with self._asking:
            if self.confirmed:
                return
            context = self._context
            if await context.apply(get_fact, CHECKED) is None:
                await self._ask_both()
                await context.apply(set_fact, CHECKED, repr(context.now()))
            self.confirmed = True

    async def _ask_both(self) -> None:
        failed: dict[str, SyncError] = {}

        async def ask(name: str, check: Callable[[], Awaitable[None]]) -> None:
            try:
                await check()
            except SyncError as error:
                failed[name] = error

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask, "bucket", self._context.store.check)
            asking.start_soon(ask, "dataset", self._context.sink.check)
        for name in sorted(failed):
            raise failed[name]


class FirstContact:
    """Has each dataset adopted, however long that takes.

    Args:
        context: what the engine's parts share.
        first_check: see `adopt`.
        hurry: told when the process is to end, and when what failed is to be tried at once.
        stops: told of an error; whether it stops everything.
    """

    def __init__(
        self,
        context: Context,
        first_check: FirstCheck,
        hurry: Wakeup,
        stops: Callable[[SyncError], bool],
    ) -> None:
        self._context = context
        self._first_check = first_check
        self._hurry = hurry
        self._stops = stops
        self._limiter = anyio.CapacityLimiter(ADOPTIONS_LIMIT)

    async def adopt(self, known: KnownDataset) -> None:
        """Adopt a dataset: try until it is done, a pass has tried often enough, or everything stops."""
        context, gate, attempts = self._context, self._context.gate(BUCKET), 0
        while not context.draining:
            hurried = self._hurry.listen()
            if context.halted:
                await context.hold.released(lambda: context.draining)
                continue
            if not gate.is_open(context.now()):
                await wait_until(hurried, context.clock, gate.opens_at)
                continue
            try:
                async with self._limiter:
                    # It may have closed while others went first: an outage must not cost one try each.
                    if not self._may_begin():
                        continue
                    with context.hold.interruptible() as work:
                        await adopt(context, known, self._first_check)
                    if work.interrupted:
                        continue
            except Exception as caught:  # noqa: BLE001 - whatever it is, others go on
                error = context.reports.as_error("compare with the bucket", str(known.key), caught)
                attempts += 1
                context.failed(BUCKET, error)
                await context.apply(adoption_failed, context.now(), known.id, problem_of(error))
                if self._stops(error):
                    return
                if attempts >= context.mode.selection.attempts_limit:
                    log.warning("%s", error)
                    return
            else:
                context.succeeded(BUCKET)
                return

    def _may_begin(self) -> bool:
        context = self._context
        return not context.halted and context.gate(BUCKET).is_open(context.now())


async def adopt(context: Context, known: KnownDataset, first_check: FirstCheck | None = None) -> None:
    """Compare a dataset that is new to the ledger with the bucket, so that nothing is sent twice.

    An account that may write but not list goes on without: then the generation precondition of each upload
    tells which files are there already, and every row is looked for before it is sent.

    Args:
        context: what the engine's parts share.
        known: the dataset.
        first_check: must have confirmed the destination before; None: nothing will be sent there.

    Raises:
        SyncError: the bucket cannot be listed now, or what `FirstCheck.confirm` raises.
    """
    listed = True
    try:
        await _compare(context, known)
    except SyncError as error:
        if error.failure is not Failure.PERMISSION:
            raise
        listed = False
        log.info(
            "objects of %s cannot be listed (%s); uploads tell what is there already", known.key, error.cause
        )
    if first_check is not None:
        await first_check.confirm()
    await context.apply(adopted, context.now(), known.id, listed=listed)


async def _compare(context: Context, known: KnownDataset) -> None:
    """List what the files of a dataset may have become, in parts side by side.

    Raises:
        SyncError: the bucket cannot be listed now.
    """
    prefix, shard = object_prefix(known.key), context.mode.selection.shard
    parts = await context.apply(parts_to_list, known.id)
    if not parts:
        return
    if shard is None or not await context.apply(listed_by_run, known.id, shard.count):
        names = [(prefix, f"{prefix}{first}", f"{prefix}{end}" if end else "") for first, end in parts]
        await _list_side_by_side(context, known, names)
        return
    # A shard that begins mostly finds nothing, and one request tells.
    pages = 0
    async with aclosing(context.store.list(prefix)) as listing:
        async for page in listing:
            await _take(context, known, page)
            pages += 1
            if pages > 1:
                break
    after = ""
    while pages > 1 and (runs := await context.apply(unsent_runs, known.id, after)):
        keys = [RunKey(known.key.project, known.key.dataset, run) for run in runs]
        of_runs = [(object_name(key, ""), "", "") for key in keys]
        await _list_side_by_side(context, known, of_runs)
        after = runs[-1]


async def _list_side_by_side(
    context: Context, known: KnownDataset, listings: Iterable[tuple[str, str, str]]
) -> None:
    """List names by prefix, start and end each; the first that fails ends it."""
    failed: list[SyncError] = []
    limiter = anyio.CapacityLimiter(LISTINGS_LIMIT)

    async def take_all(prefix: str, start: str, end: str) -> None:
        async with limiter:
            if failed:
                return
            try:
                async for page in context.store.list(prefix, start=start, end=end):
                    await _take(context, known, page)
            except SyncError as error:
                failed.append(error)

    async with anyio.create_task_group() as tasks:
        for listing in listings:
            tasks.start_soon(take_all, *listing)
    if failed:
        raise failed[0]


async def _take(context: Context, known: KnownDataset, page: Sequence[RemoteObject]) -> None:
    placed = ((run_and_path(known.key, remote.name), remote) for remote in page)
    objects = {place: remote for place, remote in placed if place is not None}
    await context.apply(adopt_objects, context.now(), known.id, objects)


class Opening:
    """Opens datasets for a scan."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._compared: set[DatasetKey] = set()

    async def open(self, key: DatasetKey) -> tuple[KnownDataset, Problem | None, list[Notice]]:
        """What is known of a dataset; why it is refused for its names, if it is; what is told of them else.

        A backfill compares each dataset with the bucket, also one that the ledger knows: shards may have
        carried what is new in it. What a plan says was looked for when it was made.
        """
        mode, refused, notices = self._context.mode, *_check_names(key)
        anew = mode.bulk and not (mode.selection.shard or mode.selection.planned or key in self._compared)
        self._compared.add(key)
        known = await self._context.apply(_open, self._context.now(), key, refused, anew=anew)
        return known, refused, notices


def _open(
    db: Connection, now: float, key: DatasetKey, refused: Problem | None, *, anew: bool
) -> KnownDataset:
    """Find a dataset, or take it in, and say whether it is refused."""
    known = open_dataset(db, now, key, table_id(key))
    refuse_dataset(db, now, known.id, refused)
    if anew:
        compare_anew(db, known.id)
        return known._replace(adopted=False)
    return known


def _check_names(key: DatasetKey) -> tuple[Problem | None, list[Notice]]:
    """Why a dataset is refused for its names, if it is; and what is to be told of them otherwise."""
    try:
        check_dataset_names(key)
    except NameRefusedError as error:
        return problem_of(error), []
    hazard = listing_hazard(key)
    if hazard is None:
        return None, []
    return None, [Notice(str(key), Problem(hazard, "rename it, if that is not wanted"), quarantined=False)]
