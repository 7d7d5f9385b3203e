"""A pause that somebody asked for: nothing new begins while it lasts, and what is under way ends soon.

It belongs to the process, not to an engine: a pass that repairs has one engine after another.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Self, cast

from pixaris_sync.model import Problem
from pixaris_sync.ports import Clock
from pixaris_sync.waiting import Wakeup, wait_until

#: How long uploads that are under way may go on before they are interrupted, in seconds.
PATIENCE_SECONDS = 5.0


def _nothing() -> int:
    return 0


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")


class Interruptible:
    """What a task does while this is entered, until `interrupt` ends it.

    A cancel scope does more, and takes a tenth of what a small file costs.

    Args:
        entered: it is among these, while it is entered.

    Attributes:
        interrupted: it was ended.
    """

    __slots__ = ("_asked", "_cancelling", "_entered", "_task", "interrupted")

    def __init__(self, entered: "set[Interruptible]") -> None:
        self.interrupted = self._asked = False
        self._entered = entered

    def __enter__(self) -> Self:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._entered.add(self)
        return self

    def interrupt(self) -> None:
        """End it, at what it waits for."""
        if not self._asked:
            self._asked = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._entered.discard(self)
        # As `asyncio.timeout` does: who else has cancelled the task still has.
        self.interrupted = (
            self._asked and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
        )
        return self.interrupted


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
        self._interruptible: set[Interruptible] = set()

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

    def interruptible(self) -> "Interruptible":
        """Do what `interrupt` may cancel; what this returns tells whether it was."""
        return Interruptible(self._interruptible)

    def interrupt(self) -> None:
        """Cancel what is under way and can be cancelled."""
        for work in self._interruptible:
            work.interrupt()

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
