"""Group commit: many tasks write to the ledger at once, and what arrives together is committed together.

`Journal.write` returns when the change is durable. While one transaction is being committed the next
operations gather, so that their number per transaction grows with the load and a commit costs the same for
one as for a hundred. Waiting callers are the only queue, so it is bounded by the tasks that exist.
"""

import logging
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, cast

import anyio
from anyio import to_thread

from pixaris_sync.errors import LedgerDamagedError, LedgerError
from pixaris_sync.ledger.database import Ledger, Operation, check_on_disk
from pixaris_sync.ledger.trouble import damaged
from pixaris_sync.ports import Clock
from pixaris_sync.text import span_text

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How often a ledger that cannot be written is tried again.
TROUBLE_PAUSE_SECONDS = 5.0


class _Entry:
    """An operation on its way, and what became of it."""

    __slots__ = ("done", "operation", "outcome")

    def __init__(self, operation: Callable[[sqlite3.Connection], Any]) -> None:
        self.operation = operation
        self.done = anyio.Event()
        self.outcome: Any = None


class Journal:
    """Serves a ledger to many tasks. `run` must be running for `write` to return.

    Args:
        ledger: an open one.
        threaded: commit in a worker thread.
        clock: to wait with, where the ledger cannot be written (disk full, read-only): everybody who writes
            waits, so that no new work begins, until it can. None: they get the error.

    Attributes:
        trouble: why the ledger cannot be written now; None where it can.
    """

    def __init__(self, ledger: Ledger, *, threaded: bool = True, clock: Clock | None = None) -> None:
        self.trouble: LedgerError | None = None
        self._ledger = ledger
        self._threaded = threaded
        self._clock = clock
        self._queue: list[_Entry] = []
        self._arrived = anyio.Event()
        self._closed = False
        self._ended = False
        self._trouble_since = 0.0
        self._damage: LedgerDamagedError | None = None
        # One thread at a time touches the connection.
        self._limiter = anyio.CapacityLimiter(1)

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Apply an operation and wait until it is durable.

        A cancelled caller does not take its operation back: it may still be applied.

        Raises:
            LedgerDamagedError: the ledger is damaged; `run` has ended for that.
            LedgerError: the ledger cannot be written; the operation was not applied.
        """
        if self._damage is not None:
            raise self._damage
        if self._ended:
            raise RuntimeError("the journal has ended: nobody would commit this")
        entry = _Entry(operation)
        self._queue.append(entry)
        self._arrived.set()
        await entry.done.wait()
        if isinstance(entry.outcome, BaseException):
            raise entry.outcome
        return cast("T", entry.outcome)

    async def run(self) -> None:
        """Commit what arrives until `close`; what arrived before that is committed.

        Raises:
            LedgerDamagedError: the ledger is damaged.
        """
        while True:
            if not self._queue:
                if self._closed:
                    self._ended = True
                    return
                self._arrived = anyio.Event()
                await self._arrived.wait()
                continue
            batch, self._queue = self._queue, []
            await self._commit(batch)

    async def _commit(self, batch: list[_Entry]) -> None:
        operations = [entry.operation for entry in batch]
        outcomes: list[Any] | None = None
        while outcomes is None:
            try:
                outcomes = await self._apply(operations)
            except LedgerDamagedError as error:
                # Nothing can be written any more, by anybody: whoever opened the ledger makes a new one.
                self._damage = error
                for entry in (*batch, *self._queue):
                    entry.outcome = error
                    entry.done.set()
                raise
            except LedgerError as error:
                if self._clock is None or self._closed:
                    outcomes = [error] * len(batch)
                    break
                if self.trouble is None:
                    log.error("%s; nothing new begins until it can be written (%s)", error, error.hint)  # noqa: TRY400 - no bug
                    self._trouble_since = self._clock.elapsed()
                self.trouble = error
                await self._clock.sleep(TROUBLE_PAUSE_SECONDS)
            else:
                if self.trouble is not None and self._clock is not None:
                    away = span_text(self._clock.elapsed() - self._trouble_since)
                    log.info("the ledger can be written again, after %s", away)
                self.trouble = None
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.outcome = outcome
            entry.done.set()

    async def _apply(self, operations: list[Operation]) -> list[Any]:
        # No caller may go on before it is known whether these are durable.
        with anyio.CancelScope(shield=True):
            if self._threaded:
                outcomes = await to_thread.run_sync(self._ledger.apply, operations, limiter=self._limiter)
            else:
                outcomes = self._ledger.apply(operations)
        return outcomes

    async def changes_of_others(self) -> int:
        """A number that changes when another process has written to the ledger."""
        if self._threaded:
            return await to_thread.run_sync(self._ledger.changes_of_others, limiter=self._limiter)
        return self._ledger.changes_of_others()

    async def check(self) -> None:
        """Look whether the ledger is whole as it stands on the disk: pages in memory hide damage there.

        Raises:
            LedgerDamagedError: it is not.
        """
        path = self._ledger.path
        found = await to_thread.run_sync(check_on_disk, path) if self._threaded else check_on_disk(path)
        if found is not None:
            raise damaged(path, found)

    def close(self) -> None:
        """Let `run` end once everything that arrived is committed."""
        self._closed = True
        self._arrived.set()
