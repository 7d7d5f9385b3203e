"""Bounds on what happens at once: bytes in memory, and pauses for a destination in trouble."""

import random
from collections import deque
from collections.abc import Collection

import anyio

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.limits.backoff import Backoff

#: So many denials in a row at most are taken for those of single items.
TOLERATED_DENIALS_MAX = 64
#: So many tables that are denied, and none that is taken, are the dataset's denial.
TABLES_DENIED_ALIKE = 2


class ByteBudget:
    """At most so many bytes are held at the same time; who asks first is served first."""

    def __init__(self, bytes_limit: int) -> None:
        if bytes_limit <= 0:
            raise ValueError("bytes_limit must be positive")
        self._limit = bytes_limit
        self._held = 0
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    @property
    def held_bytes(self) -> int:
        """How many bytes are held now."""
        return self._held

    async def acquire(self, count: int) -> int:
        """Wait until `count` bytes fit and hold them; more than the limit counts as the limit.

        Returns:
            What to give to `release`.
        """
        count = min(count, self._limit)
        if self._waiting or self._held + count > self._limit:
            turn = (count, anyio.Event())
            self._waiting.append(turn)
            try:
                await turn[1].wait()
            except BaseException:
                if turn[1].is_set():
                    self.release(count)
                else:
                    self._waiting.remove(turn)
                    self._admit()
                raise
        else:
            self._held += count
        return count

    def release(self, count: int) -> None:
        """Give back what `acquire` answered."""
        self._held -= count
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._held + self._waiting[0][0] <= self._limit:
            count, turn = self._waiting.popleft()
            self._held += count
            turn.set()


class Gate:
    """Pauses for a destination in trouble, so that an outage costs one attempt at a time, not all.

    A denial (`Failure.PERMISSION`) is taken for one of everything, until others are taken: an item that is
    denied again while the destination works is denied alone, and closes no gate; nor for long does one that
    nobody else has been denied beside. Where such come often, ever more denials in a row are tolerated before
    the gate closes.

    Attributes:
        failures: how many attempts have failed since the last success.
        failing_since: when the first of them did, in seconds since the epoch.
        opens_at: no attempt before this time, in seconds since the epoch.
        last_error: what failed last; None after a success.
    """

    def __init__(self, backoff: Backoff, jitter: random.Random) -> None:
        self._backoff = backoff
        self._jitter = jitter
        self.failures = 0
        self.failing_since = 0.0
        self.opens_at = 0.0
        self.last_error: SyncError | None = None
        #: The one item that was denied since the last success, how many were in a row, how many may be.
        self._denied: int | None = None
        self._denials = 0
        self._tolerated = 0

    def failed(self, now: float, error: SyncError, *, item: int | None = None, again: bool = False) -> float:
        """Note a failure; failures of attempts that were under way together count once.

        Args:
            now: seconds since the epoch.
            error: what failed.
            item: what it was tried with, where it can be that alone which is denied.
            again: that item has failed before.

        Returns:
            When the failed attempt may be repeated; `now` where it is no failure of the destination.
        """
        if item is not None and error.failure is Failure.PERMISSION and self._denied_alone(item, again):
            return now
        self.last_error = error
        if now >= self.opens_at:
            self.failing_since = self.failing_since if self.failures else now
            self.failures += 1
            self.opens_at = now + self._backoff.delay_seconds(self.failures, self._jitter, error)
        return self.opens_at

    def _denied_alone(self, item: int, again: bool) -> bool:  # noqa: FBT001 - as in `failed`
        if self.failures:
            alone = item == self._denied
            self._denied = item if alone else None
            return alone
        self._denials += not again
        self._denied = item
        return again or self._denials <= self._tolerated

    def succeeded(self) -> None:
        """Note a success: the destination is healthy."""
        if self.last_error is not None and self.last_error.failure is Failure.PERMISSION:
            spared = self.failures == 1
            self._tolerated = min(max(1, 2 * self._tolerated), TOLERATED_DENIALS_MAX) if spared else 0
        self._denials = 0
        self.failures = 0
        self.opens_at = 0.0
        self.last_error = None

    def try_soon(self, backoff: Backoff) -> None:
        """Let the next attempt be made at once, and others by this backoff; it is no healthier for that."""
        self._backoff = backoff
        self.failures = min(self.failures, 1)
        self.opens_at = 0.0

    def is_open(self, now: float) -> bool:
        """Whether an attempt may be made now."""
        return now >= self.opens_at


class SharedDenial:
    """Tells tables that are denied because the dataset is from those that are denied alone.

    Where several are denied one after another, and none is taken, the dataset denies all of them; unless they
    were denied beside others that were taken.
    """

    def __init__(self) -> None:
        self._denied: set[str] = set()
        self._alone: set[str] = set()
        #: When a table was denied last, as a number that grows.
        self._last: dict[str, int] = {}
        self._count = 0

    def denied(self, table: str) -> bool:
        """Note that a table was denied; whether all are."""
        self._count += 1
        self._last[table] = self._count
        if table not in self._alone:
            self._denied.add(table)
        return len(self._denied) >= TABLES_DENIED_ALIKE

    def taken(self, table: str) -> frozenset[str]:
        """Note that a table was taken; the others that were denied until now may be tried again."""
        others = frozenset(self._denied - {table})
        self._alone = (self._alone | others) - {table}
        self._denied.clear()
        self._last.pop(table, None)
        return others

    def next_probe(self, tables: Collection[str]) -> str | None:
        """Which of these tables finds out whether all are denied still: the one denied least lately."""
        return min(tables, key=lambda table: self._last.get(table, 0), default=None)
