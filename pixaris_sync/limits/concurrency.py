"""How many uploads at once: found by trying, judged by what it brings.

Concurrency pays until something is full: the uplink, the processor, the service. Beyond that, each further
upload only makes all of them slower. The controller therefore tries another limit for one *round*, about the
time that an upload takes, and keeps it if it paid:

    start ──▶ up: four times as much ──pays──▶ up again, to `limit_max`
                    │ does not pay, or latency has swollen
                    ▼
              down: half as much ──nothing lost──▶ down again, to `LIMIT_QUIET`
                    │ throughput falls
                    ▼
              back, and rest; then up again, by twice

*Throughput* is load divided by latency (Little's law). Latency is a factor: how much longer uploads took
than the best round of their size took on average, so that rounds with other files can be compared. Latency
that has risen while less load does not lower it is the service's own: it becomes what is expected.

A *push-back* (429, 503, a time-out) cuts the limit at once, and once for all uploads that were under way
together. Up to `CEILING_SECONDS` later the limit at which it happened is approached in small steps.

Uploads that end while there is too little work to fill the limit say nothing about it and change nothing.

Nearest relatives: BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016), which also looks
for the least load with the highest throughput; the gradient of Netflix' concurrency-limits, which lets
standing latency pass for normal and cannot come down from a start that was too high; TCP's slow start.
Nothing here knows requests or sleeps; time is passed in, in seconds, by a clock that is never set.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum, auto

#: Where the search begins: no flood anywhere, and two rounds away from what a distant service needs.
LIMIT_START = 16
#: The search for less ends here: what so few uploads hold in memory is no burden.
LIMIT_QUIET = 16
#: How much is tried at once before anything was found to be full, later, and near a limit that was too much.
FACTOR_START, FACTOR_LATER, FACTOR_CAUTIOUS = 4.0, 2.0, 1.15
#: More load pays if throughput grows by at least this share of it.
PAYS_SHARE = 0.3
#: A trial of more load that gained less than this started where all was full already: less is tried at once.
FULL_GAIN = 1.1
#: Less load pays if at least this share of throughput is left.
KEPT_SHARE = 0.96
#: More load than filled the bottleneck is kept by this factor: uploads that move in step leave gaps.
HEADROOM = 1.6
#: Latency above this factor means that uploads wait for each other.
SWOLLEN = 1.25
#: Latency below this factor means that they do not; then a share of the rest between trials is enough.
CALM = 1.1
CALM_REST_SHARE = 0.25
#: What is left of the limit after a push-back.
PUSHED_BACK_SHARE = 0.75
#: From this share of a limit that was pushed back, steps are small.
CAUTION_SHARE = 0.75
#: How long a limit that was pushed back is approached in small steps.
CEILING_SECONDS = 60.0
#: Between trials that did not pay: at least so long, and so many rounds, to make them cost next to nothing.
REST_SECONDS = 2.0
REST_ROUNDS = 20
#: With less than this share of the limit under way on average, there was too little work.
FILLED_SHARE = 0.8
#: A round has at least so many uploads.
ROUND_UPLOADS_MIN = 8


class Outcome(Enum):
    """How an upload ended, as far as the load is concerned."""

    #: The object is in the bucket.
    OK = auto()
    #: The service was asked for too much: 429, 503, no answer in time.
    PUSHED_BACK = auto()
    #: Anything else: the file, permissions, a broken connection. It says nothing about the load.
    FAILED = auto()


@dataclass(slots=True)
class _Round:
    """The uploads that began since a moment and have ended.

    Attributes:
        began: the moment.
        load: how many were under way, but at most the limit, times the seconds for which they were: the
            moments in which many have ended and nobody has looked for more work yet must not count.
        seconds: by size class, how many ended and how long they took together.
    """

    began: float
    uploads: int = 0
    load: float = 0.0
    seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))


@dataclass(frozen=True, slots=True)
class _Trial:
    """A limit under trial: the one before it, and what that one brought."""

    limit_before: float
    throughput_before: float


class AdaptiveConcurrency:
    """The limit of uploads at the same time; told of each upload that starts or ends.

    Args:
        limit_max: never more than this at once.
        limit_start: where to begin; `limit_max` if that is less.

    Raises:
        ValueError: a limit is not positive.
    """

    def __init__(self, limit_max: int, *, limit_start: int = LIMIT_START) -> None:
        if min(limit_max, limit_start) <= 0:
            raise ValueError("limits must be positive")
        self._limit_max = limit_max
        self._limit = float(min(limit_start, limit_max))
        self._whole_limit = round(self._limit)
        self._under_way = 0
        self._seen_at = 0.0
        self._expected: dict[int, float] = {}
        self._round: _Round | None = None
        self._trial: _Trial | None = None
        self._starting = True
        self._descend_next = False
        self._rest_seconds = REST_SECONDS
        self._rest_until = self._calm_rest_until = 0.0
        self._pushed_back_at = float("-inf")
        self._ceiling = float("inf")

    @property
    def limit(self) -> int:
        """How many uploads may be under way now; at least one."""
        return self._whole_limit

    @property
    def under_way(self) -> int:
        """How many have started and not ended."""
        return self._under_way

    @property
    def free(self) -> int:
        """How many more may start now; never negative."""
        return max(0, self.limit - self._under_way)

    def started(self, now: float) -> None:
        """An upload has begun; `ended` must follow, also for one that was cancelled.

        Args:
            now: the time.
        """
        self._pass_time(now)
        if self._round is None:
            self._round = _Round(now)
        self._under_way += 1

    def ended(self, now: float, seconds: float, byte_count: int, outcome: Outcome) -> None:
        """An upload has ended.

        Args:
            now: the time.
            seconds: how long ago it started, waiting for memory, bandwidth and the processor included.
            byte_count: the size of its file.
            outcome: how it ended.
        """
        self._pass_time(now)
        self._under_way -= 1
        if outcome is Outcome.PUSHED_BACK:
            self._back_off(now, began=now - seconds)
        if outcome is not Outcome.OK:
            return
        if (this := self._round) is None:
            return
        # The sum of what has passed can be less than the difference by a rounding error.
        if now - seconds < this.began - 1e-9:
            return
        this.uploads += 1
        of_size = this.seconds[byte_count.bit_length() // 2]
        of_size[0] += 1
        of_size[1] += seconds
        # At the start time counts more than certainty.
        enough = self.limit // 2 if self._starting else self.limit
        if this.uploads >= max(ROUND_UPLOADS_MIN, enough):
            self._end_round(now, this)

    def _pass_time(self, now: float) -> None:
        if self._round is not None:
            self._round.load += min(self._under_way, self._whole_limit) * max(0.0, now - self._seen_at)
        self._seen_at = now

    def _set_limit(self, now: float, limit: float) -> None:
        """Change the limit; uploads that began before say nothing about the new one."""
        self._limit = min(max(limit, 1.0), float(self._limit_max))
        self._whole_limit = round(self._limit)
        self._round = _Round(now)

    def _back_off(self, now: float, *, began: float) -> None:
        if began < self._pushed_back_at:
            return
        self._pushed_back_at = now
        self._ceiling = self._limit
        self._starting = self._descend_next = False
        self._trial = None
        # Under way may be less than allowed: what was too much is the former.
        self._set_limit(now, min(self._limit, self._under_way + 1.0) * PUSHED_BACK_SHARE)
        self._rest_until = self._calm_rest_until = now + REST_SECONDS

    def _rest(self, now: float) -> None:
        """No trial for a while, and none for a shorter while if nothing waits for anything."""
        self._rest_until = now + self._rest_seconds
        self._calm_rest_until = now + self._rest_seconds * CALM_REST_SHARE

    def _end_round(self, now: float, this: _Round) -> None:
        was, latency = self._latency(this)
        mean_load = this.load / (now - this.began) if now > this.began else 0.0
        self._rest_seconds = max(REST_SECONDS, REST_ROUNDS * (now - this.began))
        if now - self._pushed_back_at > CEILING_SECONDS:
            self._ceiling = float("inf")
        self._round = _Round(now)
        filled = mean_load >= FILLED_SHARE * self.limit
        if self._trial is not None:
            trial, self._trial = self._trial, None
            if filled:
                gain = mean_load / was / trial.throughput_before
                self._judge(now, trial, gain, mean_load / latency, latency)
            else:
                self._set_limit(now, trial.limit_before)
        elif filled and self._may_try(now, latency):
            self._try_next(now, mean_load / latency, latency)

    def _may_try(self, now: float, latency: float) -> bool:
        if self._starting or self._descend_next:
            return True
        # A trial that failed while nothing waits now may have met with a moment's trouble.
        return now >= (self._calm_rest_until if latency <= CALM else self._rest_until)

    def _latency(self, this: _Round) -> tuple[float, float]:
        """How much longer the uploads of a round took than expected before it, and by what it taught."""
        for size, (count, seconds) in this.seconds.items():
            self._expected.setdefault(size, seconds / count)
        took = sum(seconds for _, seconds in this.seconds.values())
        expected_before = sum(count * self._expected[size] for size, (count, _) in this.seconds.items())
        for size, (count, seconds) in this.seconds.items():
            if count >= ROUND_UPLOADS_MIN:
                self._expected[size] = min(self._expected[size], seconds / count)
        expected = sum(count * self._expected[size] for size, (count, _) in this.seconds.items())
        # By a clock that is not fine enough, uploads can take no time at all: that says nothing.
        return (took / expected_before, took / expected) if min(took, expected) > 0 else (1.0, 1.0)

    def _try_next(self, now: float, throughput: float, latency: float, *, rising: bool = False) -> None:
        """Begin a trial, if there is one worth its cost."""
        before = self._limit
        descends, self._descend_next = self._descend_next, False
        if descends or (latency > SWOLLEN and not rising):
            wanted = max(before / 2, min(before, LIMIT_QUIET))
        else:
            factor = FACTOR_START if self._starting else FACTOR_LATER
            wanted = min(before * factor, self._limit_max)
            if wanted > CAUTION_SHARE * self._ceiling:
                wanted = max(
                    min(wanted, CAUTION_SHARE * self._ceiling), min(before * FACTOR_CAUTIOUS, self._limit_max)
                )
        if wanted <= before:
            self._starting = False
        if round(wanted) == round(before):
            self._rest(now)
            return
        self._trial = _Trial(before, throughput)
        self._set_limit(now, wanted)

    def _judge(self, now: float, trial: _Trial, gain: float, throughput: float, latency: float) -> None:
        """Keep the limit that was tried, or go back."""
        tried, before = self._limit, trial.limit_before
        if tried > before:
            if gain >= 1 + PAYS_SHARE * (tried / before - 1):
                if self._ceiling < float("inf"):
                    self._rest_until = self._calm_rest_until = now + REST_SECONDS
                else:
                    self._try_next(now, throughput, latency, rising=True)
                return
            self._starting = False
            # As the limit before may have been too much as well, less is tried next.
            self._descend_next = gain <= FULL_GAIN
            if not self._descend_next:
                self._rest(now)
            self._set_limit(now, min(tried, max(before, before * gain * HEADROOM)))
        elif gain >= KEPT_SHARE:
            self._descend_next = True
            self._try_next(now, throughput, latency)
        else:
            self._rest(now)
            for size in self._expected:
                self._expected[size] *= latency
            self._set_limit(now, before)
