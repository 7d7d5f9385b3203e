"""Whether bucket and dataset are there: asked once, before the first work of a new ledger."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.database import get_fact, set_fact
from pixaris_sync.pipeline.context import Context

CHECKED = "destination_checked_at"


class Destination:
    """Bucket and dataset. Once they were seen, the ledger knows; later, failures of work tell.

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

    async def ask_early(self) -> None:
        """Begin to ask before the answer is needed; a failure is for whoever needs it."""
        with suppress(SyncError):
            await self.confirm()

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
