"""When to try again: failure and attempt in, delay out. It neither sleeps nor knows what failed.

Attempts that may be repeated for ever (the cloud is away for days) are made rare by the cap; the next time
is kept in the ledger by the caller, so a restart changes nothing.
"""

import random
from dataclasses import dataclass

from pixaris_sync.errors import SyncError


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full-range jitter over the upper half, capped.

    Attributes:
        delay_seconds_min: the delay after the first failure, before jitter.
        delay_seconds_max: no delay is longer, unless the service asks for one.
    """

    delay_seconds_min: float
    delay_seconds_max: float

    def delay_seconds(self, attempts: int, jitter: random.Random, error: SyncError | None = None) -> float:
        """The wait before the next attempt.

        Args:
            attempts: how many have failed so far, at least 1.
            jitter: where randomness comes from.
            error: the last failure; what the service asked for (``Retry-After``) is the least wait.
        """
        # 2**attempts overflows a float long before days of outage end.
        doubled = self.delay_seconds_min * 2.0 ** min(attempts - 1, 60)
        delay = min(doubled, self.delay_seconds_max) * jitter.uniform(0.5, 1.0)
        asked = error.retry_after_seconds if error is not None else None
        return max(delay, asked or 0.0)
