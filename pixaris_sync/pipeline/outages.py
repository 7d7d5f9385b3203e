"""What is away or denied, since when: told once when it begins, and once when it is over.

A network that is away is one outage, whatever it strikes: the bucket, tables, some sooner than others. Who
may do what is a matter of each destination.
"""

import logging
from collections.abc import Callable
from typing import Final

from msgspec import Struct, field

from pixaris_sync.errors import Failure, SyncError

log = logging.getLogger(__name__)

#: The key of an outage that stops everything.
EVERYTHING: Final = "everything"


class Outage(Struct):
    """Destinations that are away or deny.

    Attributes:
        since: when the first attempt failed.
        away: those that are, and until when each counts as such: nobody may try it again.
        work: those that work again.
        worked_at: since when the last of these does.
    """

    since: float
    away: dict[str, float] = field(default_factory=dict)
    work: list[str] = field(default_factory=list)
    worked_at: float = 0.0

    def goes_on(self, now: float) -> bool:
        """Whether one of them is known to be away."""
        return any(now < until for until in self.away.values())


class Outages:
    """Tells when outages begin, and knows which are over.

    Args:
        now: tells the time, in seconds since the epoch.
        patience_seconds: what was not tried again for so long after it may be is not known to be away.

    Attributes:
        begun: how many there have been.
    """

    def __init__(self, now: Callable[[], float], patience_seconds: float) -> None:
        self.begun = 0
        self._now = now
        self._patience_seconds = patience_seconds
        self._known: dict[str, Outage] = {}
        self._over: list[Outage] = []

    def rests(self, destination: str, error: SyncError, *, since: float, until: float) -> None:
        """Attempts at a destination fail `since` then; it is not tried again `until` then."""
        kind = Failure.TRANSIENT if error.failure is Failure.IN_DOUBT else error.failure
        denied = kind is Failure.PERMISSION
        key = f"{kind} {destination}" if denied else kind
        outage = self._known.get(key)
        if outage is None or not outage.goes_on(self._now()):
            level = logging.ERROR if denied else logging.WARNING
            told = "%s rests: %s; it is tried again until it works"
            log.log(level, told, destination, error, extra=_fields(destination, error))
            self._begins(key, since)
        elif destination not in outage.away:
            log.debug("%s rests too: %s", destination, error)
        outage = self._known[key]
        outage.away[destination] = until + self._patience_seconds
        if destination in outage.work:
            outage.work.remove(destination)

    def pauses(self, destination: str, error: SyncError, *, since: float) -> None:
        """An error of a destination stops everything."""
        if EVERYTHING not in self._known:
            told = "%s; everything is paused until this is mended"
            log.error(told, error, extra=_fields(destination, error))
            self._begins(EVERYTHING, since)

    def works(self, destination: str) -> None:
        """A destination works."""
        if not self._known:
            return
        for outage in self._known.values():
            if outage.away.pop(destination, None) is not None:
                outage.work.append(destination)
                outage.worked_at = self._now()
        self._end()

    def resumes(self, destination: str) -> None:
        """Everything goes on, as a destination works."""
        if paused := self._known.get(EVERYTHING):
            paused.work, paused.worked_at = [destination], self._now()
        self._end()

    def over(self) -> list[Outage]:
        """Those that are over since it was asked last."""
        self._end()
        over, self._over = self._over, []
        return over

    def _end(self) -> None:
        now = self._now()
        keys = [key for key, outage in self._known.items() if outage.work and not outage.goes_on(now)]
        self._over += [self._known.pop(key) for key in keys]

    def next_end_at(self) -> float | None:
        """When one is over although nothing happens; None: none is."""
        ends = [max(outage.away.values(), default=0.0) for outage in self._known.values() if outage.work]
        return min(ends, default=None)

    def _begins(self, key: str, since: float) -> None:
        self.begun += 1
        self._known[key] = Outage(since)


def _fields(destination: str, error: SyncError) -> dict[str, str]:
    return {"destination": destination, "cause": error.cause, "hint": error.hint}
