"""How the lives of a process go and end: drawn, and carried out."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.crash.wire import Kind, kind_of
from tests.support.faulty_proxy import Answer, Moment
from tests.support.proxy import Request

if TYPE_CHECKING:
    import subprocess

#: A life that is to end by time: while the process starts, or so long after its first request.
_START_SECONDS = (0.05, 1.5)
_WORK_SECONDS = (0.01, 1.5)
#: A few live long enough to come to rest, and stream what is new.
_STEADY_SECONDS = (2.0, 5.0)
#: How long a request or a write of the ledger is waited for, after the first request.
_PATIENCE_SECONDS = 2.0
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fate:
    """How a life begins and when it is to end: at the first of what is set, at the latest after `seconds`.

    Attributes:
        command: ``watch``, ``sync`` or ``backfill``.
        seconds: after the first request of this life, or after its start.
        from_start: after its start.
        requests: at a request of one of these kinds.
        moment: before it is served, or once it is.
        writes: at this change of the ledger's file.
        count: at the so-manieth such request or change.
    """

    command: str
    seconds: float
    from_start: bool = False
    requests: tuple[Kind, ...] = ()
    moment: Moment = Moment.ARRIVED
    writes: bool = False
    count: int = 1

    @property
    def is_timed(self) -> bool:
        """Whether nothing but time is to end it."""
        return not self.requests and not self.writes

    @property
    def trigger(self) -> str:
        """What is to end it, in words, if no request is."""
        if self.writes:
            return "ledger written"
        return "time after start" if self.from_start else "time after first request"


#: What a fate may wait for, and how many of it at most.
_OCCASIONS: tuple[tuple[tuple[Kind, ...], int], ...] = (
    ((Kind.UPLOAD,), 6),
    ((Kind.SESSION, Kind.CHUNK), 3),
    ((Kind.STREAM, Kind.LOAD), 3),
    ((Kind.STREAM, Kind.LOAD), 1),
    ((Kind.QUERY, Kind.OTHER), 4),
    ((Kind.QUERY,), 2),
)


def draw_fate(chance: random.Random) -> Fate:
    """Draw how a life goes."""
    command = chance.choices(("watch", "sync", "backfill"), (8, 1, 1))[0]
    kind = chance.choices(("start", "work", "steady", "request", "writes"), (4, 4, 2, 16, 6))[0]
    if kind == "start":
        return Fate(command, chance.uniform(*_START_SECONDS), from_start=True)
    if kind == "work":
        return Fate(command, chance.uniform(*_WORK_SECONDS))
    if kind == "steady":
        return Fate("watch", chance.uniform(*_STEADY_SECONDS))
    if kind == "writes":
        return Fate(command, _PATIENCE_SECONDS, writes=True, count=chance.randint(1, 15))
    requests, count_max = chance.choice(_OCCASIONS)
    moment, count = chance.choice(list(Moment)), chance.randint(1, count_max)
    return Fate(command, _PATIENCE_SECONDS, requests=requests, moment=moment, count=count)


class Assassin:
    """Kills one process at the moment that its fate says; an observer of its proxies.

    Attributes:
        hit: why the process was killed; empty while it was not.
        first_request_at: when its first request arrived, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fate: Fate | None = None
        self._left = 0
        self._handle = -1
        self.hit = ""
        self.first_request_at: float | None = None

    def observe(self, moment: Moment, request: Request, _: Answer | None) -> None:
        """Look whether this is the moment."""
        with self._lock:
            fate = self._fate
            if self.first_request_at is None:
                self.first_request_at = time.monotonic()
            kind = kind_of(request)
            if fate is None or fate.moment is not moment or kind not in fate.requests:
                return
            self._left -= 1
            if self._left == 0:
                self._strike(f"{kind} {moment}")

    def strike(self, why: str) -> None:
        """Kill it now, unless that was done."""
        with self._lock:
            self._strike(why)

    def _strike(self, why: str) -> None:
        if self._handle >= 0 and not self.hit:
            # Another process may have its number by now: the handle means this one (pidfd_open(2)).
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                self.hit = why

    @contextmanager
    def after(self, process: "subprocess.Popen[str]", fate: Fate) -> Iterator[None]:
        """Be after a process while the context is open; it is dead afterwards."""
        with self._lock:
            self._handle, self._fate = os.pidfd_open(process.pid), fate
            self._left, self.hit, self.first_request_at = fate.count, "", None
        try:
            yield
        finally:
            self.strike("end")
            process.wait(_END_SECONDS)
            with self._lock:
                os.close(self._handle)
                self._handle, self._fate = -1, None
