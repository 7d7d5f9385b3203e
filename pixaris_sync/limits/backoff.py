"""When to try again: failure and attempt in, delay out. It neither sleeps nor knows what failed.

Attempts that may be repeated for ever (the cloud is unreachable for days) are made rare by the cap; the next
time is kept in the ledger by the caller, so a restart changes nothing.
"""

import random
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from pixaris_sync.errors import SyncError

#: Those who are asked to wait equally long do not come back together: some wait longer by up to this part.
RETRY_AFTER_SPREAD = 0.25
#: A service that asks for a longer pause is asked again after this one: a wrong date must not end the work.
RETRY_AFTER_SECONDS_MAX = 3600.0


def retry_after_seconds(value: str, now: float) -> float | None:
    """How long a ``Retry-After`` header asks to wait: it holds seconds or a date (RFC 9110, 10.2.3).

    Args:
        value: the header's value; empty where there is none.
        now: seconds since the epoch.

    Returns:
        Seconds, 0 for a date that has passed; None for no value and for one that is neither.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


class Backoff(NamedTuple):
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
            error: the last failure; what the service asked for (``Retry-After``) is the least wait, up to
                `RETRY_AFTER_SECONDS_MAX`, and a little is added by chance.
        """
        # 2**attempts overflows a float long before days of outage end.
        doubled = self.delay_seconds_min * 2.0 ** min(attempts - 1, 60)
        delay = min(doubled, self.delay_seconds_max) * jitter.uniform(0.5, 1.0)
        asked = (error.retry_after_seconds if error is not None else None) or 0.0
        if not asked:
            return delay
        return max(delay, min(asked, RETRY_AFTER_SECONDS_MAX) * jitter.uniform(1.0, 1.0 + RETRY_AFTER_SPREAD))
