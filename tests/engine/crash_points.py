"""The end of a process, at any chosen instant."""

from collections import Counter
from collections.abc import Sequence

from pixaris_sync.ledger.database import Ledger, Operation


class CrashError(BaseException):
    """The process is gone. No ``except Exception`` may outlive it."""


class CrashPoints:
    """The instants at which a process can end, and the one at which it does.

    Attributes:
        crashed: the process is gone.
        counts: how many instants of each kind have been: ``step`` (a turn of the event loop), ``begin`` and
            ``commit`` (before and after a transaction), ``call`` and ``answer`` (before a call has an effect,
            and after), ``upload``, ``stream`` and ``load`` (such a request is on its way), ``queued`` (a load
            job waits for its turn).
    """

    def __init__(self) -> None:
        self.crashed = False
        self.counts: Counter[str] = Counter()
        self._kind = ""
        self._left = 0

    def arm(self, kind: str, left: int) -> None:
        """Let the process end at the `left`-th instant of this kind from now on, 1 being the next."""
        self._kind, self._left = kind, left

    def restart(self) -> None:
        """Begin another process; an end that was chosen and has not come stays chosen."""
        if self.crashed:
            self.crashed, self._kind = False, ""

    def survives(self, kind: str) -> bool:
        """Note an instant; whether the process goes on."""
        self.counts[kind] += 1
        if not self.crashed and kind == self._kind:
            self._left -= 1
            self.crashed = self._left <= 0
        return not self.crashed

    def reach(self, kind: str) -> None:
        """Note an instant.

        Raises:
            CrashError: the process is gone.
        """
        if not self.survives(kind):
            raise CrashError(kind)


class CrashingLedger(Ledger):
    """A ledger that a process can end at, right before and right after each transaction."""

    crash_points = CrashPoints()

    def apply(self, operations: Sequence[Operation]) -> list[object]:
        self.crash_points.reach("begin")
        results = super().apply(operations)
        self.crash_points.reach("commit")
        return results
