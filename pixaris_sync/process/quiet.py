"""What keeps a process quiet beside training: limits that can be changed while it works, and low priority."""

import logging
import os
import time
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from pixaris_sync.footprint import limit_arenas
from pixaris_sync.limits.bandwidth import Bandwidth, Pace
from pixaris_sync.limits.cpu import CpuGovernor
from pixaris_sync.ports import Clock
from pixaris_sync.process.live_limits import InForce, LimitFiles, LiveLimits
from pixaris_sync.process.signals import change_on_signal, ignore_change_signal
from pixaris_sync.settings.model import Settings

log = logging.getLogger(__name__)


def lower_footprint(settings: Settings) -> None:
    """What comes before all work: later threads share this one's memory, and have its priority."""
    limit_arenas()
    # From here on others may take this process for the owner of the folder.
    ignore_change_signal()
    if settings.quiet:
        from pixaris_sync.process.priority import lower_priority  # noqa: PLC0415 - only who works needs it

        lower_priority()


class Throttle:
    """The limits that a process holds to.

    Args:
        settings: what they are at first.
        ledger: the path of the ledger; beside it other processes ask for other limits.
        clock: to measure by.

    Attributes:
        pace: what uploads hold to.
    """

    def __init__(self, settings: Settings, ledger: Path, clock: Clock) -> None:
        self._clock = clock
        self._files = LimitFiles(ledger)
        self._bandwidth = Bandwidth(settings.bandwidth_limit_bytes_per_second)
        self._governor = CpuGovernor(settings.max_cpu_percent)
        self._limits = LiveLimits(
            bandwidth_limit_bytes_per_second=settings.bandwidth_limit_bytes_per_second,
            max_cpu_percent=settings.max_cpu_percent,
        )
        self.pace = Pace(self._bandwidth, clock)

    def throttle_seconds(self) -> float:
        """How long to wait before new work begins, then ask again; 0: begin."""
        if self._governor.max_cpu_percent is None:
            return 0.0
        return self._governor.throttle_seconds(self._clock.elapsed(), time.process_time())

    @property
    def limits(self) -> LiveLimits:
        """What is in force."""
        return self._limits

    async def listen(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Change limits when another process asks for it, until cancelled."""
        self._files.clear()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(change_on_signal, self._change)
                # Only now may anybody send the signal.
                self._publish()
                task_status.started()
        finally:
            self._files.clear()

    def _change(self) -> None:
        if not self._files.is_asked():
            return
        wanted = self._files.wanted()
        if wanted is not None:
            limits = self._limits.model_copy(update=wanted.model_dump(exclude_unset=True))
            self._bandwidth.change(limits.bandwidth_limit_bytes_per_second, self._clock.elapsed())
            self._governor.change(limits.max_cpu_percent)
            self._limits = limits
            log.info("%s", limits)
        self._publish()
        self._files.answered()

    def _publish(self) -> None:
        self._files.publish(InForce(pid=os.getpid(), limits=self._limits))
