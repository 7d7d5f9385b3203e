"""Compares a dataset that is new to the ledger with the bucket, so that nothing is sent twice."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import anyio

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.intake import KnownDataset, open_dataset
from pixaris_sync.ledger.uploads import adopt_objects, adopted
from pixaris_sync.model import DatasetKey, RemoteObject
from pixaris_sync.pipeline.context import Context
from pixaris_sync.rules.contract import object_prefix, table_id

log = logging.getLogger(__name__)


class Adoption:
    """Adopts datasets, several at a time if need be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._early: dict[DatasetKey, _EarlyListing] = {}

    async def ask_early(
        self, keys: Sequence[DatasetKey], ask_destination: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Ask what datasets that are new will need to know once they are scanned: what is in the bucket."""
        context = self._context
        for key in keys:
            known = await context.apply(open_dataset, context.now(), key, table_id(key))
            if not known.adopted:
                early = self._early[key] = _EarlyListing(context.store.list(object_prefix(key)))
                async with anyio.create_task_group() as asking:
                    asking.start_soon(early.begin)
                    asking.start_soon(ask_destination)

    async def adopt(
        self, known: KnownDataset, confirmed: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Take what the bucket holds of a dataset for what it is.

        An account that may write but not list goes on without: then the generation precondition of each
        upload tells which files are there already, and every row is looked for before it is sent.

        Args:
            known: the dataset.
            confirmed: returns once it is known that the destination can be used; None: it is known.

        Raises:
            SyncError: the bucket cannot be listed now, or what `confirmed` raises.
        """
        context, prefix, listed = self._context, object_prefix(known.key), True
        early = self._early.pop(known.key, None)
        try:
            async for page in early.read() if early else context.store.list(prefix):
                objects = dict(_by_run_and_path(prefix, page))
                await context.apply(adopt_objects, known.id, objects)
        except SyncError as error:
            if error.failure is not Failure.PERMISSION:
                raise
            listed = False
            log.info("objects of %s cannot be listed; uploads tell what is there already", known.key)
        if confirmed is not None:
            await confirmed()
        await context.apply(adopted, context.now(), known.id, listed=listed)


class _EarlyListing:
    """Pages of objects, of which the first is asked for while something else is done.

    Args:
        pages: a listing, not begun.
    """

    def __init__(self, pages: AsyncIterator[Sequence[RemoteObject]]) -> None:
        self._pages = pages
        self._first: Sequence[RemoteObject] = ()
        self._failed: SyncError | None = None
        self._asked = anyio.Event()

    async def begin(self) -> None:
        """Ask for the first page; a failure is for whoever reads."""
        try:
            async for page in self._pages:
                self._first = page
                break
        except SyncError as error:
            self._failed = error
        self._asked.set()

    async def read(self) -> AsyncIterator[Sequence[RemoteObject]]:
        """All pages; `begin` must have been called.

        Raises:
            SyncError: as the listing does.
        """
        await self._asked.wait()
        if self._failed is not None:
            raise self._failed
        if self._first:
            yield self._first
        async for page in self._pages:
            yield page


def _by_run_and_path(
    prefix: str, objects: Sequence[RemoteObject]
) -> Iterable[tuple[tuple[str, str], RemoteObject]]:
    for remote in objects:
        run, slash, path = remote.name.removeprefix(prefix).partition("/")
        if slash:
            yield (run, path), remote
