"""The end of a process, at any chosen instant."""

from collections import Counter
from collections.abc import Sequence

from pixaris_sync.ledger.database import Ledger, Operation


class CrashError(BaseException):
    """The process is gone. No ``except Exception`` may outlive it."""


class Fuse:
    """Ends a process at a chosen instant.

    Attributes:
        burnt: the process is gone.
        counts: how many instants of each kind have been: ``step`` (a turn of the event loop), ``begin`` and
            ``commit`` (before and after a transaction), ``call`` and ``answer`` (before a call has an effect,
            and after), ``upload``, ``stream`` and ``load`` (such a request is on its way).
    """

    def __init__(self) -> None:
        self.burnt = False
        self.counts: Counter[str] = Counter()
        self._kind = ""
        self._left = 0

    def light(self, kind: str, left: int) -> None:
        """Let a process end at the `left`-th instant of this kind from now on, 1 being the next."""
        self._kind, self._left = kind, left

    def renew(self) -> None:
        """Begin another process; a fuse that was lit and has not burnt stays lit."""
        if self.burnt:
            self.burnt, self._kind = False, ""

    def passes(self, kind: str) -> bool:
        """Note an instant; whether the process goes on."""
        self.counts[kind] += 1
        if not self.burnt and kind == self._kind:
            self._left -= 1
            self.burnt = self._left <= 0
        return not self.burnt

    def tick(self, kind: str) -> None:
        """Note an instant.

        Raises:
            CrashError: the process is gone.
        """
        if not self.passes(kind):
            raise CrashError(kind)


class CrashingLedger(Ledger):
    """A ledger that a process can end at, right before and right after each transaction."""

    fuse = Fuse()

    def apply(self, operations: Sequence[Operation]) -> list[object]:
        self.fuse.tick("begin")
        results = super().apply(operations)
        self.fuse.tick("commit")
        return results
