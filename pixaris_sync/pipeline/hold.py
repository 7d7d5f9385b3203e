"""A pause that somebody asked for: nothing new begins while it lasts, and what is under way ends soon.

It belongs to the process, not to an engine: a pass that repairs has one engine after another.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import anyio

from pixaris_sync.model import Problem
from pixaris_sync.ports import Clock
from pixaris_sync.waiting import Wakeup, wait_until

#: How long uploads that are under way may go on before they are interrupted, in seconds.
PATIENCE_SECONDS = 5.0


def _nothing() -> int:
    return 0


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")


class Hold:
    """Whether there is a pause.

    Attributes:
        since: when it began, in seconds since the epoch; None: there is none.
        until: when it ends by itself, likewise; None: only when it is ended.
        changes: told of each beginning and end.
        count_under_way: asked for tasks that are not done yet, also those that wait for the end.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.until: float | None = None
        self.changes = Wakeup()
        self.count_under_way: Callable[[], int] = _nothing
        self._resting = 0
        self._scopes: set[anyio.CancelScope] = set()

    def __str__(self) -> str:
        if self.since is None:
            return "not paused"
        until = "" if self.until is None else f" until {_when(self.until)}"
        return f"paused by `pixaris-sync pause` since {_when(self.since)}{until}"

    @property
    def problem(self) -> Problem:
        """What the ledger says of it."""
        return Problem(f"{self}: nothing new begins", "`pixaris-sync resume` goes on at once")

    def begin(self, now: float, until: float | None = None) -> None:
        """Begin a pause, or let the one that there is end at another time."""
        self.since = now if self.since is None else self.since
        self.until = until
        self.changes.notify()

    def end(self) -> None:
        """End the pause, if there is one."""
        self.since = self.until = None
        self.changes.notify()

    @contextmanager
    def interruptible(self) -> Iterator[anyio.CancelScope]:
        """Do what `interrupt` may cancel; the scope tells whether it was."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def interrupt(self) -> None:
        """Cancel what is under way and can be cancelled."""
        for scope in self._scopes:
            scope.cancel()

    @property
    def under_way(self) -> int:
        """How many transfers are not done yet."""
        return max(0, self.count_under_way() - self._resting)

    async def released(self, unless: Callable[[], bool] = lambda: False) -> None:
        """Wait until there is no pause, or `unless`, which `changes` must be told of; mostly not at all."""
        self._resting += 1
        try:
            while self.since is not None and not unless():
                await self.changes.listen().wait()
        finally:
            self._resting -= 1

    async def heed(self, clock: Clock, changed: Callable[[], Awaitable[None]]) -> None:
        """Call `changed` at each beginning and end, and interrupt what goes on for long, until cancelled."""
        told: tuple[float | None, float | None] = (None, None)
        while True:
            change = self.changes.listen()
            if (self.since, self.until) != told:
                told = (self.since, self.until)
                await changed()
            if self.since is not None:
                await wait_until(change, clock, clock.now() + PATIENCE_SECONDS)
                if not change.is_set():
                    self.interrupt()
            await change.wait()
