"""The machine's own clock."""

import time

import anyio


class SystemClock:
    """Real time, for `ports.Clock`."""

    def now(self) -> float:
        """Seconds since the epoch, by the system's clock."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait for real."""
        await anyio.sleep(seconds)
