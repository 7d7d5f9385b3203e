"""The first contact: are bucket and dataset there, and what does the bucket hold already?"""

import logging
from collections.abc import Awaitable, Callable

import anyio

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.database import get_fact, set_fact
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.uploads import adopt_objects, adopted, adoption_failed
from pixaris_sync.pipeline.context import BUCKET, Context, problem_of
from pixaris_sync.rules.contract import object_prefix, run_and_path
from pixaris_sync.waiting import wait_until

log = logging.getLogger(__name__)

#: The fact that bucket and dataset were there, and when.
CHECKED = "destination_checked_at"
#: So many datasets at once are compared with the bucket.
ADOPTIONS_LIMIT = 8


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
        drain_asked: set when the process is to end.
        stops: told of an error; whether it stops everything.
    """

    def __init__(
        self,
        context: Context,
        first_check: FirstCheck,
        drain_asked: anyio.Event,
        stops: Callable[[SyncError], bool],
    ) -> None:
        self._context = context
        self._first_check = first_check
        self._drain_asked = drain_asked
        self._stops = stops
        self._limiter = anyio.CapacityLimiter(ADOPTIONS_LIMIT)

    async def adopt(self, known: KnownDataset) -> None:
        """Adopt a dataset: try until it is done, a pass has tried often enough, or everything stops."""
        context, gate, attempts = self._context, self._context.gate(BUCKET), 0
        while not context.draining:
            if context.halted:
                await context.hold.released(lambda: context.draining)
                continue
            if not gate.is_open(context.now()):
                await wait_until(self._drain_asked, context.clock, gate.opens_at)
                continue
            try:
                async with self._limiter:
                    # It may have closed while others went first: an outage must not cost one try each.
                    if not self._may_begin():
                        continue
                    with context.hold.interruptible() as scope:
                        await adopt(context, known, self._first_check)
                    if scope.cancelled_caught:
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
        async for page in context.store.list(object_prefix(known.key)):
            placed = ((run_and_path(known.key, remote.name), remote) for remote in page)
            objects = {place: remote for place, remote in placed if place is not None}
            await context.apply(adopt_objects, context.now(), known.id, objects)
    except SyncError as error:
        if error.failure is not Failure.PERMISSION:
            raise
        listed = False
        log.info("objects of %s cannot be listed; uploads tell what is there already", known.key)
    if first_check is not None:
        await first_check.confirm()
    await context.apply(adopted, context.now(), known.id, listed=listed)
