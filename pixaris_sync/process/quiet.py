"""What keeps a process quiet beside training: limits that can be changed while it works, and low priority."""

import logging
import os
import time
from pathlib import Path

import anyio
from anyio.abc import TaskStatus
from msgspec import UNSET, structs

from pixaris_sync.footprint import limit_arenas
from pixaris_sync.limits.bandwidth import Bandwidth, Pace
from pixaris_sync.limits.cpu import CpuGovernor
from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.ports import Clock
from pixaris_sync.process.live_limits import InForce, LimitFiles, LiveLimits
from pixaris_sync.process.signals import change_on_signal, ignore_change_signal
from pixaris_sync.settings.model import Settings
from pixaris_sync.waiting import Wakeup, wait_until

log = logging.getLogger(__name__)

#: How often the clock on the wall is looked at while something is to happen at a time, and how often others
#: are told how much is under way while a pause begins.
WALL_CLOCK_LOOK_SECONDS = 60.0
UNDER_WAY_LOOK_SECONDS = 0.1


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
        hold: the pause that somebody asked for.
    """

    def __init__(self, settings: Settings, ledger: Path, clock: Clock) -> None:
        self._clock = clock
        self._files = LimitFiles(ledger)
        self._limits = LiveLimits(
            bandwidth_limit_bytes_per_second=settings.bandwidth_limit_bytes_per_second,
            max_cpu_percent=settings.max_cpu_percent,
        )
        self._rate = self._limits.rate_at(clock.now())
        self._bandwidth = Bandwidth(self._rate.rate)
        self._governor = CpuGovernor(settings.max_cpu_percent)
        self._changes = Wakeup()
        share = settings.fleet.writes_per_second_start
        self.pace = Pace(self._bandwidth, clock, writes_per_second_start=share)
        self.hold = Hold()

    def throttle_seconds(self) -> float:
        """How long to wait before new work begins, then ask again; 0: begin."""
        self._keep_to_timetable()
        if self._governor.max_cpu_percent is None:
            return 0.0
        return self._governor.throttle_seconds(self._clock.elapsed(), time.process_time())

    @property
    def limits(self) -> LiveLimits:
        """What it was told."""
        return self._limits

    @property
    def in_force(self) -> InForce:
        """What is in force."""
        return InForce(
            pid=os.getpid(),
            limits=self._limits,
            rate=self._rate.rate,
            rate_until=self._rate.until,
            next_rate=self._rate.next_rate,
            paused_since=self.hold.since,
            paused_until=self.hold.until,
            under_way=self.hold.under_way,
        )

    async def listen(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Change what is in force when another process asks for it, or it is time, until cancelled."""
        self._files.clear()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(change_on_signal, self._change)
                # Only now may anybody send the signal.
                self._publish()
                tasks.start_soon(self._keep_time)
                task_status.started()
        finally:
            self._files.clear()

    def _change(self) -> None:
        if not self._files.is_asked():
            return
        wanted = self._files.wanted()
        if wanted is not None:
            if wanted.paused is not UNSET:
                self._pause(wanted=wanted.paused, seconds=wanted.pause_seconds)
            if wanted.limits:
                self._limits = structs.replace(self._limits, **wanted.limits)
                self._take_rate()
                self._governor.change(self._limits.max_cpu_percent)
                log.info("%s", self.in_force)
        self._publish()
        self._files.answered()
        self._changes.notify()

    def _pause(self, *, wanted: bool, seconds: float | None = None) -> None:
        hold, now = self.hold, self._clock.now()
        if wanted:
            hold.begin(now, None if seconds is None else now + seconds)
            log.info("%s: nothing new begins", hold)
        elif hold.since is not None:
            hold.end()
            log.info("the pause is over")

    def end_pause(self) -> None:
        """End the pause, if there is one, and say so."""
        self._pause(wanted=False)
        self._changes.notify()

    def _take_rate(self) -> None:
        self._rate = self._limits.rate_at(self._clock.now())
        self._bandwidth.change(self._rate.rate, self._clock.elapsed())

    def _keep_to_timetable(self) -> None:
        """Change the rate, where that is due."""
        if self._rate.until is not None and self._clock.now() >= self._rate.until:
            before = self._rate.rate
            self._take_rate()
            if self._rate.rate != before:
                log.info("%s", self.in_force)

    async def _keep_time(self) -> None:
        """Do what is due: another rate, the end of a pause; tell how much is under way while there is one."""
        told = self.in_force
        while True:
            changes = self._changes.listen()
            self._keep_to_timetable()
            hold = self.hold
            if hold.until is not None and self._clock.now() >= hold.until:
                self._pause(wanted=False)
            if self.in_force != told:
                told = self.in_force
                self._publish()
            due = [at for at in (self._rate.until, hold.until) if at is not None]
            if due:
                # The clock on the wall may be set, and a machine that sleeps wakes up late.
                due.append(self._clock.now() + WALL_CLOCK_LOOK_SECONDS)
            if hold.since is not None and told.under_way:
                due.append(self._clock.now() + UNDER_WAY_LOOK_SECONDS)
            await wait_until(changes, self._clock, min(due, default=None))

    def _publish(self) -> None:
        self._files.publish(self.in_force)
