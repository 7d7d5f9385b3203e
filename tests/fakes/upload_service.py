"""A service that takes uploads, in virtual time: latency, a shared uplink, one processor, an allowed rate.

An upload first waits for the client's only processor, then shares the uplink equally with all others that are
being sent, then waits for the answer. Uploads beyond the service's rate are answered by a push-back after the
latency, without taking anything in.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from pixaris_sync.limits.concurrency import Outcome


class Controller(Protocol):
    @property
    def limit(self) -> int: ...

    def started(self) -> None: ...

    def ended(self, now: float, seconds: float, byte_count: int, outcome: Outcome) -> None: ...


class Fixed:
    """A limit that stays."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def started(self) -> None:
        pass

    def ended(self, now: float, seconds: float, byte_count: int, outcome: Outcome) -> None:
        pass


@dataclass(frozen=True)
class Service:
    """What the world is like.

    Attributes:
        latency_seconds: from the last byte to the answer.
        processor_seconds: what each upload costs the client, one after another.
        bytes_per_second: the uplink.
        uploads_per_second: more are pushed back; a burst of half a second is let pass.
        noise: sigma of the lognormal factor on the latency.
        latency_at: replaces the latency, by the time.
        turn_seconds: how long after an upload's end the next one is begun, so that several may end before.
        cold_seconds: what an upload waits on top for each connection that was not open yet.
    """

    latency_seconds: float = 0.0
    processor_seconds: float = 0.0005
    bytes_per_second: float = 125e6
    uploads_per_second: float | None = None
    noise: float = 0.0
    latency_at: Callable[[float], float] | None = None
    turn_seconds: float = 0.0
    cold_seconds: float = 0.0


@dataclass
class Told:
    """How it went.

    Attributes:
        seconds: when the last upload ended.
        pushed_back: how many were, and were sent again.
        limits: the limit by time, at each end of an upload.
        under_way_max: the most at once.
    """

    seconds: float = 0.0
    pushed_back: int = 0
    limits: list[tuple[float, int]] = field(default_factory=list)
    under_way_max: int = 0

    def limit_at(self, seconds: float) -> int:
        return next(limit for time, limit in reversed(self.limits) if time <= seconds)


def run(service: Service, controller: Controller, sizes: Sequence[int], *, seed: int = 1) -> Told:
    """Upload files of these sizes, in this order, as many at once as the controller allows."""
    return _Run(service, controller, sizes, seed).go()


class _Run:
    def __init__(self, service: Service, controller: Controller, sizes: Sequence[int], seed: int) -> None:
        self.service, self.controller = service, controller
        self.todo = list(reversed(sizes))
        self.random = random.Random(seed)  # noqa: S311 - the same run every time
        self.now, self.told = 0.0, Told()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        self.under_way = self.connections = 0
        self.processor_free_at = 0.0
        # Uploads share the uplink equally: each is done when every one of them could have sent `share` bytes.
        self.sending: list[tuple[float, int, Callable[[], None]]] = []
        self.share, self.share_at, self.generation = 0.0, 0.0, 0
        self.allowed, self.allowed_at = 0.0, 0.0

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (time, next(self.numbers), what))

    def go(self) -> Told:
        self.start()
        while self.events:
            self.now, _, what = heapq.heappop(self.events)
            what()
        assert not self.todo
        assert not self.under_way
        self.told.seconds = self.now
        return self.told

    def start(self) -> None:
        while self.todo and self.under_way < self.controller.limit:
            self.under_way += 1
            self.told.under_way_max = max(self.told.under_way_max, self.under_way)
            self.controller.started()
            self.upload(self.todo.pop(), self.now)

    def upload(self, size: int, began: float) -> None:
        cold = self.service.cold_seconds if self.under_way > self.connections else 0.0
        self.connections = max(self.connections, self.under_way)
        self.processor_free_at = max(self.now, self.processor_free_at) + self.service.processor_seconds

        def prepared() -> None:
            if self.allows():
                self.send(size, lambda: self.at(self.now + self.latency(), answered))
            else:
                self.at(self.now + self.latency(), pushed_back)

        def answered() -> None:
            self.end(size, began, Outcome.OK)

        def pushed_back() -> None:
            self.told.pushed_back += 1
            self.todo.append(size)
            self.end(size, began, Outcome.PUSHED_BACK)

        self.at(self.processor_free_at + cold, prepared)

    def end(self, size: int, began: float, outcome: Outcome) -> None:
        self.under_way -= 1
        self.controller.ended(self.now, self.now - began, size, outcome)
        self.told.limits.append((self.now, self.controller.limit))
        if self.service.turn_seconds:
            self.at(self.now + self.service.turn_seconds, self.start)
        else:
            self.start()

    def latency(self) -> float:
        latency_at = self.service.latency_at
        base = latency_at(self.now) if latency_at else self.service.latency_seconds
        return base * self.random.lognormvariate(0, self.service.noise) if self.service.noise else base

    def allows(self) -> bool:
        rate = self.service.uploads_per_second
        if rate is None:
            return True
        self.allowed = min(rate / 2, self.allowed + rate * (self.now - self.allowed_at))
        self.allowed_at = self.now
        if self.allowed < 1:
            return False
        self.allowed -= 1
        return True

    def advance(self) -> None:
        if self.sending:
            rate = self.service.bytes_per_second / len(self.sending)
            self.share += rate * (self.now - self.share_at)
        self.share_at = self.now

    def send(self, size: int, then: Callable[[], None]) -> None:
        self.advance()
        heapq.heappush(self.sending, (self.share + size, next(self.numbers), then))
        self.plan()

    def plan(self) -> None:
        self.generation += 1
        generation = self.generation
        if not self.sending:
            return
        left = max(0.0, self.sending[0][0] - self.share) * len(self.sending)

        def sent() -> None:
            if generation != self.generation:
                return
            self.advance()
            done, _, then = heapq.heappop(self.sending)
            self.share = max(self.share, done)
            self.plan()
            then()

        self.at(self.now + left / self.service.bytes_per_second, sent)
