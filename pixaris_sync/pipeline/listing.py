"""A listing of the bucket that is begun before it is needed."""

from collections.abc import AsyncIterator, Sequence

import anyio

from pixaris_sync.errors import SyncError
from pixaris_sync.model import RemoteObject


class EarlyListing:
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
