"""Signals: draining within a time limit, and other limits while a process works.

SIGTERM, SIGINT, or the SIGHUP of a terminal that is gone, drains: no new work, what is in flight may end
within the limit, the rest is abandoned safely (the ledger knows it is in doubt). Who wants to finish all work
first does so until the limit is near, and then drains. A second signal abandons at
once: what has not ended a moment later, such as a request in a thread, ends with the process, as by a kill.
`CHANGE_SIGNAL` says that other limits are wanted; SIGHUP could not be told from a hang-up.
"""

import logging
import os
import signal
import stat
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct

from pixaris_sync.ports import Clock
from pixaris_sync.process.systemd import Notifier

log = logging.getLogger(__name__)

#: After a second signal, so long for what ends by itself: a terminal gets its cursor back.
FORCED_END_SECONDS = 1.0
#: Of the time that it may take to end, what is kept for draining after what is to be finished first.
DRAIN_SHARE = 0.2
DRAIN_SECONDS_MAX = 10.0
#: What `pixaris-sync limit` sends.
CHANGE_SIGNAL = signal.SIGUSR1


class Interruption(Struct):
    """How a process was told to stop: the first signal (None: it was not), and whether a second forced it."""

    number: int | None = None
    forced: bool = False


class Stop(NamedTuple):
    """What is done at the first signal.

    Attributes:
        drain: called so that no new work begins.
        finish: called instead, so that all work is finished; `drain` follows when the time is nearly over.
    """

    drain: Callable[[], None]
    finish: Callable[[], None] | None = None

    def begin(self, timeout_seconds: float, notifier: Notifier) -> None:
        """Begin to end, and say so."""
        what, seconds = "finishing what is in flight", timeout_seconds
        if self.finish is not None:
            what, seconds = (
                "carrying what is stored by now",
                timeout_seconds - _drain_seconds(timeout_seconds),
            )
        log.info("stopping: %s (up to %g s)", what, seconds)
        notifier.tell(STOPPING="1", STATUS=what)
        (self.finish or self.drain)()

    async def drain_in_time(self, timeout_seconds: float, clock: Clock) -> None:
        """Drain while there still is time for it, where all work was to be finished first."""
        if self.finish is None:
            return
        drain_seconds = _drain_seconds(timeout_seconds)
        seconds = timeout_seconds - drain_seconds
        await clock.sleep(seconds)
        log.warning(
            "not all could be carried within %g s: finishing what is in flight (up to %g s)",
            seconds,
            drain_seconds,
        )
        self.drain()


def _drain_seconds(timeout_seconds: float) -> float:
    return min(DRAIN_SHARE * timeout_seconds, DRAIN_SECONDS_MAX)


#: What a process exits with that was told to end like this.
ExitCode = Callable[[Interruption], int]


def _interrupted(_: Interruption) -> int:
    return 128 + signal.SIGINT


@asynccontextmanager
async def interruptible(
    drain: Callable[[], None] | None = None,
    *,
    finish: Callable[[], None] | None = None,
    drain_timeout_seconds: float,
    clock: Clock,
    notifier: Notifier,
    forced_code: ExitCode = _interrupted,
) -> AsyncIterator[tuple[TaskGroup, Interruption]]:
    """Let a signal drain what is done meanwhile, and end it where it does not in time.

    Without a way to `drain`, it ends at once; with a way to `finish`, that comes before: see `Stop`. What
    the task group has besides is cancelled at the end. `forced_code` is what the process exits with after a
    second signal, where it has not ended by itself.
    """
    interruption = Interruption()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            await tasks.start(
                partial(
                    drain_on_signal,
                    Stop(drain or scope.cancel, finish),
                    scope,
                    interruption,
                    drain_timeout_seconds=drain_timeout_seconds,
                    clock=clock,
                    notifier=notifier,
                    forced_code=forced_code,
                )
            )
            yield tasks, interruption
        tasks.cancel_scope.cancel()


async def drain_on_signal(
    stop: Stop,
    scope: anyio.CancelScope,
    interruption: Interruption,
    *,
    drain_timeout_seconds: float,
    clock: Clock,
    notifier: Notifier,
    forced_code: ExitCode = _interrupted,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Wait for an end signal and `stop`; cancel `scope` when that takes too long or at a second signal."""
    signals = [signal.SIGTERM, signal.SIGINT]
    # Under nohup it is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    leave = partial(_leave, interruption, forced_code)
    try:
        try:
            with anyio.open_signal_receiver(*signals) as received:
                task_status.started()
                async for number in received:
                    interruption.number = number
                    if number == signal.SIGHUP:
                        _leave_terminal()
                    stop.begin(drain_timeout_seconds, notifier)
                    break
                async with anyio.create_task_group() as race:
                    race.start_soon(stop.drain_in_time, drain_timeout_seconds, clock)
                    race.start_soon(_cancel_after, scope, drain_timeout_seconds, clock)
                    async for number in received:
                        # A closed terminal may send it twice: nobody asks for haste.
                        if number == signal.SIGHUP:
                            continue
                        log.warning("stopping at once; what was in flight is looked up at the next start")
                        interruption.forced = True
                        _end_soon(forced_code(interruption))
                        scope.cancel()
                        race.cancel_scope.cancel()
        finally:
            if interruption.number is not None:
                # Connections that are closed from now on may wait for requests, too.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, leave)
    except KeyboardInterrupt:
        # A second signal in the moment between the two, in which Python's own handler is in force.
        if interruption.number is None:
            raise
        leave()


def _leave(interruption: Interruption, forced_code: ExitCode, *_: object) -> None:
    interruption.forced = True
    os._exit(forced_code(interruption))


def _end_soon(code: int) -> None:
    """Exit in a moment if there still is a process, whatever it waits for."""
    timer = threading.Timer(FORCED_END_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()


def _leave_terminal() -> None:
    """Send nothing more to a terminal that is gone: each word would be an error."""
    with Path(os.devnull).open("r+b", buffering=0) as nowhere:
        for handle in (0, 1, 2):
            with suppress(OSError):
                if stat.S_ISCHR(os.fstat(handle).st_mode):
                    os.dup2(nowhere.fileno(), handle)


async def change_on_signal(
    change: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Call `change` at each `CHANGE_SIGNAL`, until cancelled; it is ignored before and after."""
    try:
        with anyio.open_signal_receiver(CHANGE_SIGNAL) as received:
            task_status.started()
            async for _ in received:
                change()
    finally:
        ignore_change_signal()


def ignore_change_signal() -> None:
    """Let `CHANGE_SIGNAL` do nothing: as long as no task waits for it, it would end the process."""
    signal.signal(CHANGE_SIGNAL, signal.SIG_IGN)


async def _cancel_after(scope: anyio.CancelScope, seconds: float, clock: Clock) -> None:
    await clock.sleep(seconds)
    log.warning("abandoning what is in flight after %g s; it is looked up at the next start", seconds)
    scope.cancel()
