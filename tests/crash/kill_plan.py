"""When a process is killed: plans drawn by chance, and the killer that carries them out."""

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

from tests.crash.network_faults import Moment
from tests.crash.request_log import RequestKind, kind_of
from tests.support.proxy import Answer, Request

if TYPE_CHECKING:
    import subprocess

#: A process that is killed by time alone: while it starts, or so long after its first request.
_START_SECONDS = (0.05, 1.5)
_WORK_SECONDS = (0.01, 1.5)
#: A few go on long enough to come to rest, and stream what is new.
_STEADY_SECONDS = (2.0, 5.0)
#: How long a request or a write of the ledger is waited for, after the first request.
_PATIENCE_SECONDS = 2.0
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class KillPlan:
    """How a process is started and when it is killed.

    It is killed at the first request or write that is set, and at the latest after `seconds`.

    Attributes:
        command: ``watch``, ``sync`` or ``backfill``.
        seconds: after its first request, or after its start.
        from_start: whether `seconds` count from its start.
        requests: at a request of one of these kinds.
        after_rows: of those, only at one that follows after rows were taken.
        moment: before it is served, or once it is.
        writes: at this change of the ledger's file.
        count: at the so-manieth such request or change.
    """

    command: str
    seconds: float
    from_start: bool = False
    requests: tuple[RequestKind, ...] = ()
    after_rows: bool = False
    moment: Moment = Moment.ARRIVED
    writes: bool = False
    count: int = 1

    @property
    def is_timed(self) -> bool:
        """Whether nothing but time kills it."""
        return not self.requests and not self.writes

    @property
    def trigger(self) -> str:
        """What kills it, in words, if no request does."""
        if self.writes:
            return "ledger written"
        return "time after start" if self.from_start else "time after first request"


_CARRY_ROWS = (RequestKind.STREAM, RequestKind.LOAD)
#: What a plan may wait for, how many of it at most, and whether rows must have been taken before: then it is
#: when they are read back, which is over in no time.
_OCCASIONS: tuple[tuple[tuple[RequestKind, ...], int, bool], ...] = (
    ((RequestKind.UPLOAD,), 6, False),
    ((RequestKind.SESSION, RequestKind.CHUNK), 3, False),
    (_CARRY_ROWS, 3, False),
    (_CARRY_ROWS, 1, False),
    ((RequestKind.QUERY, RequestKind.OTHER), 4, False),
    ((RequestKind.QUERY,), 2, False),
    ((RequestKind.QUERY,), 1, True),
)


def draw_kill_plan(chance: random.Random) -> KillPlan:
    """Draw a plan."""
    command = chance.choices(("watch", "sync", "backfill"), (8, 1, 1))[0]
    kind = chance.choices(("start", "work", "steady", "request", "writes"), (4, 4, 2, 16, 6))[0]
    if kind == "start":
        return KillPlan(command, chance.uniform(*_START_SECONDS), from_start=True)
    if kind == "work":
        return KillPlan(command, chance.uniform(*_WORK_SECONDS))
    if kind == "steady":
        return KillPlan("watch", chance.uniform(*_STEADY_SECONDS))
    if kind == "writes":
        return KillPlan(command, _PATIENCE_SECONDS, writes=True, count=chance.randint(1, 15))
    requests, count_max, after_rows = chance.choice(_OCCASIONS)
    moment, count = chance.choice(list(Moment)), chance.randint(1, count_max)
    return KillPlan(
        command, _PATIENCE_SECONDS, requests=requests, after_rows=after_rows, moment=moment, count=count
    )


class Killer:
    """Kills one process at the moment that its plan says; an observer of the faults of its network.

    Attributes:
        killed_at: the instant at which the process was killed, in words; empty while it was not.
        first_request_at: when its first request arrived, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plan: KillPlan | None = None
        self._left = 0
        self._rows_taken = False
        self._handle = -1
        self.killed_at = ""
        self.first_request_at: float | None = None

    def observe(self, moment: Moment, request: Request, _: Answer | None) -> None:
        """Kill the process if this is the moment; an observer of `NetworkFaults`."""
        with self._lock:
            plan = self._plan
            if self.first_request_at is None:
                self.first_request_at = time.monotonic()
            kind = kind_of(request)
            self._rows_taken |= kind in _CARRY_ROWS and moment is Moment.ANSWERED
            if plan is None or plan.moment is not moment or kind not in plan.requests:
                return
            if plan.after_rows and not self._rows_taken:
                return
            self._left -= 1
            if self._left == 0:
                self._kill(f"{kind} {moment}")

    def kill(self, why: str) -> None:
        """Kill it now, unless that was done."""
        with self._lock:
            self._kill(why)

    def _kill(self, why: str) -> None:
        if self._handle >= 0 and not self.killed_at:
            # Another process may have its number by now: the handle means this one (pidfd_open(2)).
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                self.killed_at = why

    @contextmanager
    def watching(self, process: "subprocess.Popen[str]", plan: KillPlan) -> Iterator[None]:
        """Follow a plan while the context is open; the process is dead afterwards."""
        with self._lock:
            self._handle, self._plan = os.pidfd_open(process.pid), plan
            self._left, self.killed_at, self.first_request_at = plan.count, "", None
            self._rows_taken = False
        try:
            yield
        finally:
            self.kill("end")
            process.wait(_END_SECONDS)
            with self._lock:
                os.close(self._handle)
                self._handle, self._plan = -1, None
