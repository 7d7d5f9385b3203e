"""How much of the processor the process may take: a budget over time, checked before each piece of work.

Work cannot be stopped half way, so it is paid for afterwards: its owner is told how long to pause until what
the process has used fits what it was allowed. Debt is never forgiven, so the share holds over any time that
is long against one piece of work; of time in which nothing was used, at most `BURST_SECONDS` count.

Once all is used up, work pauses until a whole burst is allowed again. Much of what files cost is shared by
those that are carried together; one by one they cost ten times as much.

All threads of the process are paid for: give `time.process_time()` or its like.
"""

#: How much unused time may be made up for, in seconds of the clock.
BURST_SECONDS = 0.5
#: No pause is longer at once: ask again after it.
PAUSE_SECONDS_MAX = 1.0

#: Less is not worth a pause: to wake up uses some time, too.
PAUSE_SECONDS_MIN = 0.02


class CpuGovernor:
    """Tells how long to pause before new work.

    Args:
        max_cpu_percent: of one core, so 150 is one and a half; None for no limit.

    Raises:
        ValueError: the limit is not positive.
    """

    def __init__(self, max_cpu_percent: float | None = None) -> None:
        self._share: float | None = None
        self._debt_seconds = 0.0
        self._pausing = False
        self._seen: tuple[float, float] | None = None
        self.change(max_cpu_percent)

    @property
    def max_cpu_percent(self) -> float | None:
        """The limit, of one core; None: there is none."""
        return None if self._share is None else self._share * 100

    def change(self, max_cpu_percent: float | None) -> None:
        """Set another limit, or none; debts of before are forgotten.

        Raises:
            ValueError: the limit is not positive.
        """
        if max_cpu_percent is not None and max_cpu_percent <= 0:
            raise ValueError("max_cpu_percent must be positive")
        self._share = None if max_cpu_percent is None else max_cpu_percent / 100
        self._debt_seconds, self._pausing, self._seen = 0.0, False, None

    def throttle_seconds(self, now: float, cpu_seconds: float) -> float:
        """How long to wait before new work begins, then ask again; 0: begin.

        Args:
            now: the time, by a clock that is never set.
            cpu_seconds: what the process has used of all processors since it began.
        """
        if self._share is None:
            return 0.0
        if self._seen is not None:
            then, used = self._seen
            self._debt_seconds += (cpu_seconds - used) - self._share * max(0.0, now - then)
        self._debt_seconds = max(self._debt_seconds, -self._share * BURST_SECONDS)
        self._seen = (now, cpu_seconds)
        pause = self._debt_seconds / self._share + BURST_SECONDS
        self._pausing = pause >= PAUSE_SECONDS_MIN and (self._pausing or self._debt_seconds > 0)
        return min(pause, PAUSE_SECONDS_MAX) if self._pausing else 0.0
