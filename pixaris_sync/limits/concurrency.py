"""How many uploads at once: as many as pay, found by growing while latency stays as it is.

Concurrency pays until something is full: the uplink, the processor, the service. Beyond that, each further
upload only makes all of them slower. So few uploads, the *floor*, tell what an upload has to take, and each
*round*, about the time that an upload takes, tells by what factor it takes longer with more. By Little's law
`limit / factor` uploads that did not wait would carry as much: that many are *useful*.

- Growth is exponential, as in TCP's slow start, while at least `PAYS_SHARE` of those beyond the floor are
  useful. Where fewer are, the limit goes back to where so many would be. If it had just grown, it does not
  grow again for a while.
- A *push-back* (429, 503, a time-out) multiplies the limit by `PUSHED_BACK_SHARE`, once for all uploads that
  were under way together. For `CAUTION_SECONDS` it grows in small steps, with pauses in between.
- Where latency rises and does not fall with the limit, the limit arrives at the floor. There that latency
  becomes the expected one, and the limit grows again.

Uploads differ in size, so the factor compares each with the mean of its size. Rounds in which there was too
little work to fill the limit say nothing about it and change nothing.

Nearest relatives: TCP Vegas (Brakmo and Peterson, 1995), which compares latency with its minimum, and the
gradient of Netflix' concurrency-limits, which takes standing latency for normal after a while.
Nothing here knows requests or sleeps; time is passed in, in seconds, by a clock that is never set.
"""

from collections import defaultdict
from enum import Enum, auto

from msgspec import Struct, field

#: The floor, where the search begins: no flood anywhere, no burden in memory, and two rounds away from what
#: a distant service needs.
LIMIT_START = 16
#: Growth in a round: before anything was found to be full, later, and for a while after a push-back.
FACTOR_START, FACTOR_LATER, FACTOR_CAUTIOUS = 4.0, 2.0, 1.15
#: Of the uploads beyond the floor at least this share must be useful.
PAYS_SHARE = 0.4
#: What is left of the limit after a push-back, and how long it is approached in small steps.
PUSHED_BACK_SHARE = 0.75
CAUTION_SECONDS = 60.0
#: After growth that did not pay: at least so long, and so many rounds, to make it cost next to nothing.
PAUSE_SECONDS = 2.0
PAUSE_ROUNDS = 20
#: A round has at least so many uploads, and a mean is taken of no fewer.
ROUND_UPLOADS_MIN = 8


class Outcome(Enum):
    """How an upload ended, as far as the load is concerned."""

    #: The object is in the bucket.
    OK = auto()
    #: The service was asked for too much: 429, 503, no answer in time.
    PUSHED_BACK = auto()
    #: Anything else: the file, permissions, a broken connection. It says nothing about the load.
    FAILED = auto()


class _Round(Struct):
    """The uploads that began since a moment and have ended.

    Attributes:
        began: the moment.
        filled: whether there was work enough to reach the limit.
        uploads: how many.
        seconds: by size class, how many ended and how long they took together.
    """

    began: float
    filled: bool
    uploads: int = 0
    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))


class AdaptiveConcurrency:
    """The limit of uploads at the same time; told of each upload that starts or ends.

    Args:
        limit_max: never more than this at once.
        limit_start: the floor, where to begin; `limit_max` if that is less. Only push-backs go below.

    Attributes:
        limit: how many uploads may be under way now; at least one.

    Raises:
        ValueError: a limit is not positive.
    """

    def __init__(self, limit_max: int, *, limit_start: int = LIMIT_START) -> None:
        if min(limit_max, limit_start) <= 0:
            raise ValueError("limits must be positive")
        self._limit_max = limit_max
        self._floor = self._limit = float(min(limit_start, limit_max))
        self.limit = round(self._limit)
        self._under_way = 0
        self._growth_factor = FACTOR_START
        self._grown = False
        self._paused_until = 0.0
        self._pushed_back_at = float("-inf")
        #: By size class, how long an upload takes on average when few are under way.
        self._expected: dict[int, float] = {}
        self._round = _Round(0.0, filled=False)

    @property
    def under_way(self) -> int:
        """How many have started and not ended."""
        return self._under_way

    @property
    def free(self) -> int:
        """How many more may start now; never negative."""
        return max(0, self.limit - self._under_way)

    def started(self) -> None:
        """An upload has begun; `ended` must follow, also for one that was cancelled."""
        self._under_way += 1
        if self._under_way >= self.limit:
            self._round.filled = True

    def ended(self, now: float, seconds: float, byte_count: int, outcome: Outcome) -> None:
        """An upload has ended.

        Args:
            now: the time.
            seconds: how long ago it started, waiting for memory, bandwidth and the processor included.
            byte_count: the size of its file.
            outcome: how it ended.
        """
        self._under_way -= 1
        began = now - seconds
        if outcome is Outcome.PUSHED_BACK and began >= self._pushed_back_at:
            self._growth_factor, self._pushed_back_at = FACTOR_LATER, now
            self._paused_until = now + PAUSE_SECONDS
            # Under way may be less than allowed: what was too much is the former.
            self._set_limit(now, min(self._limit, self._under_way + 1.0) * PUSHED_BACK_SHARE)
        # What began before the limit was changed says nothing about it. Sums of times may be rounded.
        this = self._round
        if outcome is not Outcome.OK or began < this.began - 1e-9:
            return
        this.uploads += 1
        of_size = this.seconds[byte_count.bit_length() // 2]
        of_size[0] += 1
        of_size[1] += seconds
        # At the start time counts more than certainty.
        enough = self._limit / 2 if self._growth_factor == FACTOR_START else self._limit
        if this.uploads >= max(ROUND_UPLOADS_MIN, enough):
            self._set_limit(now, self._judge(now, this) if this.filled else self._limit)

    def _set_limit(self, now: float, limit: float) -> None:
        before, self._limit = self._limit, min(max(limit, 1.0), float(self._limit_max))
        self.limit = round(self._limit)
        self._grown = self._limit > before
        self._round = _Round(now, filled=self._under_way >= self.limit)

    def _judge(self, now: float, this: _Round) -> float:
        """The next limit, by what a round has told."""
        beyond = self._limit - self._floor
        useful_beyond = self._limit / self._latency_factor(this) - self._floor
        if beyond > 0 and useful_beyond < PAYS_SHARE * beyond:
            self._growth_factor = FACTOR_LATER
            if self._grown:
                self._paused_until = now + max(PAUSE_SECONDS, PAUSE_ROUNDS * (now - this.began))
            return self._floor + max(0.0, useful_beyond / PAYS_SHARE)
        if now < self._paused_until:
            return self._limit
        if now - self._pushed_back_at < CAUTION_SECONDS:
            self._paused_until = now + PAUSE_SECONDS
            return self._limit * FACTOR_CAUTIOUS
        return self._limit * self._growth_factor

    def _latency_factor(self, this: _Round) -> float:
        """How much longer uploads took than they must; learns from the round what that is."""
        few = self._limit <= self._floor
        took = must = 0.0
        for size, (count, seconds) in this.seconds.items():
            mean = seconds / count
            expected = self._expected.setdefault(size, mean)
            if count >= ROUND_UPLOADS_MIN and (few or mean < expected):
                expected = self._expected[size] = mean
            took += seconds
            must += count * expected
        # By a clock that is not fine enough, uploads can take no time at all: that says nothing.
        return took / must if min(took, must) > 0 else 1.0
