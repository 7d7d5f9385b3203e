"""A rate for each time of the day, and perhaps of the week: what is in force at a moment, and until when.

Written as rclone's ``--bwlimit`` takes it: ``08:00,5MB 20:00,none`` holds every day, ``Mon-08:00,5MB
Fri-18:00,off`` from those days on. Entries stand in any order, with blanks or semicolons between them; the
last one of the week goes on into the next week, and so around midnight.

Times are those that a clock on the wall shows. An entry begins when that clock first shows its time, or first
shows a later one, where it is put forward over it; when it is put back, it does not begin again.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORM = "08:00,5MB 20:00,none or Mon-08:00,5MB Sat-00:00,none"
_ENTRY = re.compile(
    rf"(?:(?P<day>{'|'.join(DAYS)})-)?(?P<hour>\d\d?):(?P<minute>\d\d),(?P<rate>\S+)", re.IGNORECASE
)


class Entry(NamedTuple):
    """From when on which rate holds.

    Attributes:
        day: of the week, 0 for Monday; None: every day.
        at: the time of the day.
        rate: bytes per second; None: no limit.
    """

    day: int | None
    at: time
    rate: int | None


class InForceNow(NamedTuple):
    """What a timetable says of a moment.

    Attributes:
        rate: bytes per second; None: no limit.
        until: when another rate begins to hold, in seconds since the epoch; None: never.
        next_rate: what holds then.
    """

    rate: int | None
    until: float | None
    next_rate: int | None


def is_timetable(text: str) -> bool:
    """Whether a text is meant as a timetable, right or wrong."""
    return "," in text or ":" in text


class Timetable(NamedTuple):
    """Rates by time.

    Args:
        entries: at least one.
        zone: whose clock it goes by; None: this machine's.
    """

    entries: tuple[Entry, ...]
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, rate: Callable[[str], int | None], zone: tzinfo | None = None) -> "Timetable":
        """Read a timetable; `rate` reads one rate.

        Raises:
            ValueError: it is none; the message says which part, and the form.
        """
        entries = [_entry(part, rate) for part in re.split(r"[\s;]+", text.strip())]
        begun: set[tuple[int, time]] = set()
        for entry in entries:
            begins = {(day, entry.at) for day in ([entry.day] if entry.day is not None else range(len(DAYS)))}
            if begins & begun:
                raise ValueError(f"has two entries for {entry.at:%H:%M}: leave one out")
            begun |= begins
        return cls(tuple(entries), zone)

    def at(self, now: float) -> InForceNow:
        """What holds at a moment, given in seconds since the epoch."""
        today = datetime.fromtimestamp(now, self.zone).date()
        # The same entry of the week before may still hold, and the next one be a week away.
        days = [today + timedelta(days=number) for number in range(-len(DAYS) - 1, len(DAYS) + 2)]
        entries = ((day, entry) for day in days for entry in self._entries_of(day))
        # Of entries that begin at one moment, as a clock is put forward over them, the last one counts.
        ordered = sorted(entries, key=lambda one: (one[0], one[1].at))
        rates = {self._instant(day, entry.at): entry.rate for day, entry in ordered}
        rate = next(rate for begin, rate in reversed(rates.items()) if begin <= now)
        changes = ((begin, other) for begin, other in rates.items() if begin > now and other != rate)
        until, next_rate = next(changes, (None, rate))
        return InForceNow(rate, until, next_rate)

    def _entries_of(self, day: date) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.day in (None, day.weekday())]

    def _instant(self, day: date, at: time) -> float:
        """When the clock on the wall first shows a time of a day, or a later one."""
        wanted = datetime.combine(day, at)
        first = self._seconds(wanted)
        if self._shown(first) == wanted:
            return first
        # The clock is put forward over it: the moment lies between what the two offsets make of it.
        before, after = self._seconds(wanted.replace(fold=1)), first
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (before, middle) if self._shown(middle) >= wanted else (middle, after)
        return after

    def _seconds(self, wanted: datetime) -> float:
        return wanted.replace(tzinfo=self.zone).timestamp()

    def _shown(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self.zone).replace(tzinfo=None, fold=0)


def _entry(part: str, rate: Callable[[str], int | None]) -> Entry:
    found = _ENTRY.fullmatch(part)
    if found is None:
        raise ValueError(f"must be a rate, or a timetable such as {FORM}; {part!r} is no entry of one")
    hour, minute = int(found["hour"]), int(found["minute"])
    if hour > 23 or minute > 59:  # noqa: PLR2004 - a clock's
        raise ValueError(f"has {found['hour']}:{found['minute']}, which no clock shows: use 00:00 to 23:59")
    day = found["day"]
    return Entry(None if day is None else DAYS.index(day.title()), time(hour, minute), rate(found["rate"]))
