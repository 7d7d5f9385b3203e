"""Rates that hold: bytes on the uplink, objects written to a bucket, updates of a table.

All bytes form one stream that passes at the rate. What is asked for gets the next free *offset* in it, and
waits until the stream has come so far. An offset does not move when a task that waits for it wakes up late,
so lateness does not add up and the rate is exact as long as there is work. While there is none, a *burst* of
`BURST_SECONDS` is saved up and no more, as in a token bucket.

A body reserves its offsets as a whole, before its request begins, and its pieces follow each other from
there: bodies pass one after another at the full rate, not all at once at a crawl. So no request is open
longer than its own body needs, and its time limit holds however many uploads wait. A body whose connection is
slower than the rate falls behind and loses its offsets to others; what it sends then goes first and delays
others.

Time is passed in, in seconds, by a clock that is never set (`ports.Clock.elapsed`).
"""

from collections import deque

from pixaris_sync.ports import Clock

#: The slowest rate that may be set: with less, a body would exceed the time limit of its request.
BYTES_PER_SECOND_MIN = 64 * 1024
#: Bodies are sent in pieces of about this size: what HTTP clients hand over at once.
PIECE_BYTES = 64 * 1024
#: What may be sent at once after a pause: so many seconds at the rate.
BURST_SECONDS = 0.1
#: A body may catch up with so much, after its connection stood still; what is beyond loses its offset.
LATENESS_SECONDS_MAX = 0.5
#: No wait is longer at once, so that another rate, or the end of all work, soon applies to what waits.
WAIT_SECONDS_MAX = 0.25

#: "Start with a request rate below or near" this, "double the request rate no faster than every 20 minutes":
#: Cloud Storage's "Request rate and access distribution guidelines", for writes to one bucket.
WRITES_PER_SECOND_START = 1_000.0
DOUBLING_SECONDS = 20 * 60.0

#: So many updates of a table's metadata in so much time, and a little more for clocks that differ; see
#: `UpdateRate`.
UPDATES_LIMIT = 5
UPDATES_SECONDS = 10.5


class Bandwidth:
    """How many bytes per second all uploads together may send; can be changed at any time.

    Args:
        bytes_per_second: the rate; None for no limit.

    Raises:
        ValueError: the rate is below `BYTES_PER_SECOND_MIN`.
    """

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self._rate: float | None = None
        # How many bytes had passed at `_at`, and where the last reservation ends.
        self._passed, self._at, self._end = 0.0, 0.0, 0.0
        self.change(bytes_per_second, 0.0)

    @property
    def bytes_per_second(self) -> float | None:
        """The rate; None: there is no limit."""
        return self._rate

    def change(self, bytes_per_second: float | None, now: float) -> None:
        """Set another rate, or none; it applies also to what waits already.

        Raises:
            ValueError: the rate is below `BYTES_PER_SECOND_MIN`.
        """
        if bytes_per_second is not None and bytes_per_second < BYTES_PER_SECOND_MIN:
            raise ValueError(f"bytes_per_second must be at least {BYTES_PER_SECOND_MIN}")
        self._advance(now)
        self._rate = bytes_per_second

    def reserve(self, count: int, now: float) -> float:
        """Reserve `count` bytes and return their offset: how many bytes of the stream go before."""
        self._advance(now)
        burst = (self._rate or 0.0) * BURST_SECONDS
        offset = max(self._end, self._passed - burst)
        self._end = offset + count
        return offset

    def delay_seconds(self, offset: float, now: float) -> float:
        """How long to wait before the byte at `offset` is sent, then ask again; 0: send it."""
        if self._rate is None:
            return 0.0
        self._advance(now)
        ahead = offset - self._passed
        # A part of a byte is a rounding error, and a sleep that short would return at once, for ever.
        return min(ahead / self._rate, WAIT_SECONDS_MAX) if ahead >= 1 else 0.0

    def lateness(self, offset: float, now: float) -> float:
        """How many bytes the stream is past `offset`, if that is too far; else 0.

        Then the connection was slower than the rate. Sent from this offset on, what is left of the body would
        go at once.
        """
        if self._rate is None:
            return 0.0
        self._advance(now)
        late = self._passed - offset
        return late if late > self._lateness_max else 0.0

    def return_unused(self, count: float, now: float) -> float:
        """Let others have up to `count` bytes that were reserved and not sent in time.

        Returns:
            How many they have: no more than makes a moment's burst.
        """
        self._advance(now)
        returned = min(count, self._lateness_max)
        self._passed += returned
        return returned

    def delay_others(self, count: float, now: float) -> None:
        """Let `count` bytes pass that were not reserved: all that waits does so for that much longer."""
        self._advance(now)
        self._passed -= count

    @property
    def _lateness_max(self) -> float:
        return (self._rate or 0.0) * LATENESS_SECONDS_MAX + PIECE_BYTES

    def _advance(self, now: float) -> None:
        if self._rate is not None:
            self._passed += self._rate * max(0.0, now - self._at)
        else:
            # Without a limit everything passes at once, and is not owed later.
            self._passed = max(self._passed, self._end)
        self._at = max(now, self._at)


class PacedBody:
    """One request's body on its way through a `Bandwidth`.

    Args:
        bandwidth: shared with all other uploads.
        clock: to wait by.
        byte_count: how long the body is, about.
    """

    def __init__(self, bandwidth: Bandwidth, clock: Clock, byte_count: int) -> None:
        self._bandwidth = bandwidth
        self._clock = clock
        self._offset = bandwidth.reserve(byte_count, clock.elapsed())
        self._end = self._offset + byte_count

    async def turn(self) -> None:
        """Wait until the first byte may be sent: before the request, and its time limit, begin."""
        while delay := self._bandwidth.delay_seconds(self._offset, self._clock.elapsed()):
            await self._clock.sleep(delay)

    async def piece(self, byte_count: int) -> None:
        """Wait until the next piece may be sent; what exceeds the stated length is paid for afterwards."""
        now = self._clock.elapsed()
        if late := self._bandwidth.lateness(self._offset, now):
            unused = max(0.0, min(late, self._end - self._offset))
            returned = self._bandwidth.return_unused(unused, now)
            self._offset += late + returned
            # What it reserved passes later by as much as the stream has leapt ahead.
            self._end += returned
        await self.turn()
        beyond = min(byte_count, max(0.0, self._offset + byte_count - self._end))
        if beyond:
            self._bandwidth.delay_others(beyond, self._clock.elapsed())
        self._offset += byte_count - beyond


class WriteRate:
    """How many objects per second may be written to a bucket: it must be given time to grow.

    The rate is `start` at first, and in each period of `DOUBLING_SECONDS` at most twice what was really
    written in the one before. So what several machines write together at most doubles, too.

    Args:
        start: objects per second.
    """

    def __init__(self, start: float = WRITES_PER_SECOND_START) -> None:
        self._rate = self._start = start
        self._next_at = 0.0
        self._period_began: float | None = None
        self._written = 0

    @property
    def writes_per_second(self) -> float:
        """The rate of the present period."""
        return self._rate

    def reserve(self, now: float) -> float:
        """Reserve one write, and return how long to wait for it, in seconds."""
        if self._period_began is None:
            self._period_began = now
        elif now - self._period_began >= DOUBLING_SECONDS:
            written_per_second = self._written / (now - self._period_began)
            self._rate = max(self._start, 2 * written_per_second)
            self._period_began, self._written = now, 0
        self._written += 1
        self._next_at = max(self._next_at, now - BURST_SECONDS)
        delay = max(0.0, self._next_at - now)
        self._next_at += 1 / self._rate
        return delay


class UpdateRate:
    """How often one table may be updated: created, altered, or appended to by a load job.

    BigQuery allows five updates of a table's metadata in 10 seconds, and counts load jobs that append to it
    with them: "Standard tables" of its page "Quotas and limits" (https://cloud.google.com/bigquery/quotas).
    What others use up is refused to us, and tried again as any other refusal.

    An update counts from its end on, because it may take effect at any time before.

    Args:
        limit: how many in `UPDATES_SECONDS`.
    """

    def __init__(self, limit: int = UPDATES_LIMIT) -> None:
        self._limit = limit
        self._ended: deque[float] = deque(maxlen=limit)

    def delay_seconds(self, now: float) -> float:
        """How long to wait before another update, then ask again; 0: begin."""
        if len(self._ended) < self._limit:
            return 0.0
        return min(max(0.0, self._ended[0] + UPDATES_SECONDS - now), WAIT_SECONDS_MAX)

    def note(self, now: float) -> None:
        """An update has ended, well or badly."""
        self._ended.append(now)


class Pace:
    """What all uploads to one bucket hold to.

    Args:
        bandwidth: for their bodies.
        clock: to wait by.
        writes_per_second_start: how many objects per second may be written to the bucket at first.
    """

    def __init__(
        self, bandwidth: Bandwidth, clock: Clock, *, writes_per_second_start: float = WRITES_PER_SECOND_START
    ) -> None:
        self._bandwidth = bandwidth
        self._clock = clock
        self._writes = WriteRate(writes_per_second_start)

    async def next_object(self) -> None:
        """Wait until one more object may be written to the bucket."""
        if delay := self._writes.reserve(self._clock.elapsed()):
            await self._clock.sleep(delay)

    async def next_body(self, byte_count: int) -> PacedBody | None:
        """Wait for the turn of a request's body; None where there is no limit: it may be sent as it is."""
        if self._bandwidth.bytes_per_second is None:
            return None
        body = PacedBody(self._bandwidth, self._clock, byte_count)
        await body.turn()
        return body
