"""The machine's own clock, and one that cannot be set."""

import time

import anyio

from pixaris_sync.ports import Clock


class SystemClock:
    """Real time, for `ports.Clock`."""

    def now(self) -> float:
        """Seconds since the epoch, by the system's clock."""
        return time.time()

    def elapsed(self) -> float:
        """Seconds since the machine was started, suspended ones included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Wait for real."""
        await anyio.sleep(seconds)


class SteadyClock:
    """The time at which it was made, and what has passed since, however another clock is set meanwhile.

    Waiting times are measured by it: a row must not count as long awaited because a clock was put forward.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = clock.now() - clock.elapsed()

    def now(self) -> float:
        """Seconds since the epoch, by the other clock when this one was made."""
        return self._epoch + self._clock.elapsed()

    def elapsed(self) -> float:
        """As the other clock's."""
        return self._clock.elapsed()

    async def sleep(self, seconds: float) -> None:
        """As the other clock's."""
        await self._clock.sleep(seconds)
