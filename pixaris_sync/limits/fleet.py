"""A machine's share of what many machines use together, without talking to each other.

A fleet is so many machines that write to one bucket and to the same tables, each with a results folder and a
ledger of its own. What the services allow to all of them together is divided by their number; see `Fleet`.

Of updates of a table five are allowed in ten seconds. Up to five machines get a whole number of them each.
More machines take *turns*: each waits for a moment by chance, within a time that is long enough for all of
them (`Fleet.turn_seconds`), makes its updates, and leaves the table alone for as long again. So machines that
need the same at the same moment, as when jobs end together, come one after another; and who comes later finds
the columns that it needs and adds none.
"""

import random
from typing import NamedTuple

from pixaris_sync.limits.bandwidth import UPDATES_LIMIT, UPDATES_SECONDS, WRITES_PER_SECOND_START

#: With more machines the share of a table's load jobs would be less than one a day: 1,500 are allowed.
MACHINES_MAX = 1_500
#: Updates of a table that a turn may hold: columns are added, others made wider, and rows are loaded.
UPDATES_OF_TURN = 3
#: Turns come by chance, so that some fall together. Where each holds one update, as nearly all do, this part
#: of what is allowed is used, and one of 100 is refused; where each holds two, twice that, and one of 10.
TURNS_SHARE = 0.25
#: A turn that was not taken for so long has passed: its moment was by chance, this one is not.
TURN_PASSES_SECONDS = UPDATES_SECONDS
#: Who waited by another clock than this one's may be early by this.
ROUNDING_SECONDS = 0.001


class Fleet(NamedTuple):
    """How many machines share a bucket and its tables, this one too; what is this one's part.

    One machine alone has all of it.
    """

    size: int = 1

    def loads_per_day(self, limit: int) -> int:
        """Of so many load jobs for a table in a day, those of this machine; at least one."""
        return max(1, limit // self.size)

    def spacing_seconds(self, seconds: float) -> float:
        """The least time between two load jobs of this machine, so that those of all are so far apart."""
        return seconds * self.size

    @property
    def writes_per_second_start(self) -> float:
        """How many objects per second this machine may write to the bucket at first."""
        return WRITES_PER_SECOND_START / self.size

    @property
    def takes_turns(self) -> bool:
        """Whether there are more machines than updates of a table at once."""
        return self.size > UPDATES_LIMIT

    @property
    def updates_limit(self) -> int:
        """How many updates of a table this machine may make in `bandwidth.UPDATES_SECONDS`, where it may."""
        return UPDATES_OF_TURN if self.takes_turns else UPDATES_LIMIT // self.size

    @property
    def turn_seconds(self) -> float:
        """Within this time each machine has a turn at a table; 0: whenever it likes."""
        return self.size * UPDATES_SECONDS / (UPDATES_LIMIT * TURNS_SHARE) if self.takes_turns else 0.0


class Turns:
    """When this machine may update its tables.

    Args:
        fleet: which it belongs to.
        chance: chooses the moments.

    Times are in seconds since any moment, by a clock that is never set.
    """

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self._fleet = fleet
        self._chance = chance
        #: By table: when the next turn is, and when the last one ended.
        self._next: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._taken: set[str] = set()

    def next_at(self, table: str, now: float) -> float:
        """When the next turn at a table is that somebody waits for; `now` or earlier: take it."""
        seconds = self._fleet.turn_seconds
        if not seconds or table in self._taken:
            return now
        at = self._next.get(table)
        if at is None or now - at > TURN_PASSES_SECONDS:
            rested_at = self._ended.get(table, now - seconds) + seconds
            at = self._next[table] = max(rested_at, now + self._chance.uniform(0.0, seconds))
        return at

    def take(self, table: str, now: float) -> bool:
        """Begin this machine's turn at a table, unless it is not its turn; `end` must follow."""
        if self.next_at(table, now) > now + ROUNDING_SECONDS:
            return False
        self._taken.add(table)
        return True

    def is_taken(self, table: str) -> bool:
        """Whether it is this machine's turn."""
        return not self._fleet.takes_turns or table in self._taken

    def end(self, table: str, now: float, *, used: bool) -> None:
        """End a turn, if there is one; one that was not `used` may be taken again while it has not passed."""
        if table in self._taken:
            self._taken.remove(table)
            if used:
                self._ended[table] = now
                self._next.pop(table, None)
