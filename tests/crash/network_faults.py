"""A bad network, as a rule for a proxy: it refuses, resets, delays, loses, and holds back.

Faults are drawn from a seeded generator, one draw a request. Which request meets which draw depends on the
order in which real processes send them: a seed repeats the draws, and not which request they fall on.
"""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.support.proxy import STREAMS, Answer, Held, Loss, Outage, Proxy, Request


class Fault(StrEnum):
    """What may befall a request, or a connection."""

    LOST_REQUEST = Loss.REQUEST
    LOST_ANSWER = Loss.ANSWER
    CUT_ANSWER = Loss.HALF_ANSWER
    SWALLOWED_REQUEST = Loss.SWALLOWED_REQUEST
    WITHHELD_ANSWER = Loss.WITHHELD_ANSWER
    #: The connection is reset as soon as it is made.
    RESET_CONNECTION = "connection reset"
    #: The request is passed on a little later.
    DELAY = "delay"
    #: Nothing listens for a while, and what was connected is reset.
    OFFLINE = "offline"
    #: Packets of a request that carries rows are let go long after its client was killed or gave up. A reset
    #: overtakes them.
    HELD_PACKETS = "packets held"
    #: A proxy has taken a request that carries rows, and passes it on a little after its client has gone.
    HELD_REQUEST = "request held"


class Moment(StrEnum):
    """When an observer is called."""

    #: The whole request is there and will be passed on; it has not been yet.
    ARRIVED = "arrived"
    #: The answer is there; the client has not seen any of it.
    ANSWERED = "answered"


Observer = Callable[[Moment, Request, Answer | None], None]


@dataclass(frozen=True, slots=True)
class Chances:
    """How often what goes wrong.

    Attributes:
        faults: chances of a request to meet a fault; for RESET_CONNECTION: of a connection.
        delay_seconds: the shortest and the longest DELAY.
        requests_between_outages: the fewest and the most.
        outage_seconds: the shortest and the longest time OFFLINE.
        streams_between_held: the fewest and the most; packets are held, and requests by a proxy, in turn.
        packets_seconds: the shortest and the longest time of HELD_PACKETS.
        proxy_seconds: the shortest and the longest time of HELD_REQUEST.
    """

    faults: Mapping[Fault, float]
    delay_seconds: tuple[float, float] = (0.01, 0.3)
    requests_between_outages: tuple[int, int] = (60, 200)
    outage_seconds: tuple[float, float] = (0.2, 1.0)
    streams_between_held: tuple[int, int] = (1, 2)
    packets_seconds: tuple[float, float] = (4.0, 8.0)
    proxy_seconds: tuple[float, float] = (0.05, 0.4)


class NetworkFaults:
    """Decides by chance what becomes of the requests to one proxy.

    Args:
        proxy: whose rule it is.
        seed: of the faults.
        chances: which faults, how often.
        observe: called for each request that is passed on and for each answer, in threads, one at a time for
            each request; the request waits for it.

    Attributes:
        fired: how often each fault has happened.
    """

    def __init__(self, proxy: Proxy, seed: str, chances: Chances, observe: Observer) -> None:
        self._random = random.Random(seed)  # noqa: S311 - faults need no secrecy
        self._chances: Chances | None = chances
        self._lock = threading.Lock()
        self._until_outage = self._random.randint(*chances.requests_between_outages)
        self._until_held = self._random.randint(*chances.streams_between_held)
        self._held = itertools.cycle((Fault.HELD_PACKETS, Fault.HELD_REQUEST))
        self.fired: Counter[Fault] = Counter()
        self._observe = observe
        proxy.rule = self._decide
        proxy.answered = lambda request, answer: observe(Moment.ANSWERED, request, answer)
        proxy.refuses = self._refuse

    def heal(self) -> None:
        """No more faults from here on; an outage that has begun still ends by itself."""
        self._chances = None

    def _decide(self, request: Request) -> Loss | Outage | Held | None:
        outcome = self._draw_outcome(request)
        passed_on = (None, Loss.ANSWER, Loss.HALF_ANSWER, Loss.WITHHELD_ANSWER)
        if outcome in passed_on or isinstance(outcome, Held):
            self._observe(Moment.ARRIVED, request, None)
        return outcome

    def _draw_outcome(self, request: Request) -> Loss | Outage | Held | None:
        """What becomes of the next request; a delay is over when this returns."""
        with self._lock:
            chances = self._chances
            fault = self._draw_fault(chances, request) if chances is not None else None
            if fault is None or chances is None:
                return None
            self.fired[fault] += 1
            if fault is Fault.OFFLINE:
                return Outage(self._random.uniform(*chances.outage_seconds))
            if fault is Fault.HELD_PACKETS:
                return Held(self._random.uniform(*chances.packets_seconds), whole=False)
            if fault is Fault.HELD_REQUEST:
                return Held(self._random.uniform(*chances.proxy_seconds), whole=True)
            delay_seconds = self._random.uniform(*chances.delay_seconds)
        if fault is Fault.DELAY:
            time.sleep(delay_seconds)
            return None
        return Loss(fault)

    def _draw_fault(self, chances: Chances, request: Request) -> Fault | None:
        self._until_outage -= 1
        if self._until_outage <= 0:
            self._until_outage = self._random.randint(*chances.requests_between_outages)
            return Fault.OFFLINE
        self._until_held -= request.matches(STREAMS)
        if self._until_held <= 0:
            self._until_held = self._random.randint(*chances.streams_between_held)
            return next(self._held)
        chance = self._random.random()
        for fault, share in chances.faults.items():
            if fault is Fault.RESET_CONNECTION:
                continue
            chance -= share
            if chance < 0:
                return fault
        return None

    def _refuse(self) -> bool:
        with self._lock:
            chance = self._chances.faults.get(Fault.RESET_CONNECTION, 0.0) if self._chances else 0.0
            reset = self._random.random() < chance
            if reset:
                self.fired[Fault.RESET_CONNECTION] += 1
            return reset
