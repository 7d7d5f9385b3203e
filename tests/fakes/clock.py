"""A clock that stands still until a test moves it, and one that hurries."""

import heapq
import itertools

import anyio
import anyio.lowlevel

from pixaris_sync.clock import SystemClock

#: How much faster than the machine's own a clock is that hurries.
HURRY = 100.0


class HurriedClock(SystemClock):
    """Waits by it are short, for tests that own no event loop; the day hurries as well."""

    def __init__(self) -> None:
        self._began = super().now() - self.elapsed()

    def now(self) -> float:
        """The time of day when it was made, and what has passed since by it."""
        return self._began + self.elapsed()

    def elapsed(self) -> float:
        """So many times what has really passed."""
        return super().elapsed() * HURRY

    async def sleep(self, seconds: float) -> None:
        """Wait a part of it."""
        await super().sleep(seconds / HURRY)


class ManualClock:
    """Implements `pixaris_sync.ports.Clock`. Time passes by `advance`, for sleepers and `now` alike.

    A sleeper wakes once as much time as it asked for has passed, however the wall clock was set meanwhile.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._wall = now
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def elapsed(self) -> float:
        """Seconds that have passed."""
        return self._passed

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has gone past it."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        sleeper = (self._passed + seconds, next(self._order), anyio.Event())
        heapq.heappush(self._sleepers, sleeper)
        try:
            await sleeper[2].wait()
        finally:
            if sleeper in self._sleepers:  # cancelled
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass and wake whose time has come, earliest first; they run when the caller awaits."""
        if seconds < 0:
            raise ValueError("time does not pass backwards: set the wall clock with jump()")
        self._wall += seconds
        self._passed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            heapq.heappop(self._sleepers)[2].set()

    def advance_to_next(self) -> bool:
        """Let just as much time pass as the next sleeper waits for; False when nobody sleeps."""
        wait = self.seconds_to_next
        if wait is None:
            return False
        deadline = self._sleepers[0][0]
        self.advance(wait)
        self._passed = max(self._passed, deadline)  # rounding must not leave the sleeper asleep
        self.advance(0)
        return True

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forward or back, without waking anybody."""
        self._wall += seconds

    @property
    def sleeping(self) -> int:
        """How many sleep."""
        return len(self._sleepers)

    @property
    def seconds_to_next(self) -> float | None:
        """How long the next sleeper still waits; None when nobody sleeps."""
        return max(0.0, self._sleepers[0][0] - self._passed) if self._sleepers else None
