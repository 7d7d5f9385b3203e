"""Time that jumps: an event loop whose clock goes straight to the next timer whenever nothing else can run.

A week of outage takes milliseconds, and the same program makes the same steps every time, because nothing
depends on how fast the machine is. Three things that would never end are errors instead: a loop in which
nothing can ever happen again (`StalledError`), one that runs on and on without time passing, and one that
passes a limit of steps (`RunawayError`).

Threads would make steps depend on the machine, so `run` makes ``anyio.to_thread.run_sync`` work in line.
"""

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

T = TypeVar("T")

#: Rounding must not leave a timer a hair's breadth in the future for ever.
_RESOLUTION_SECONDS = 1e-6
_STEPS_WITHOUT_TIME_MAX = 50_000


class StalledError(AssertionError):
    """Every task waits for another one: nothing can ever happen again."""


class RunawayError(AssertionError):
    """The program is busy without getting anywhere."""


class VirtualClock:
    """Implements `pixaris_sync.ports.Clock` and runs programs in its time.

    Attributes:
        elapsed_seconds: how much time has passed since the clock was made, across all programs.
        steps: how many turns all event loops have made.
        steps_limit: more are a `RunawayError`.
        on_step: called at each turn of a loop, before tasks run; true where it gave the loop something to do.
        seconds_to_event: how long until something happens that no task waits for; time stops there.
    """

    def __init__(self, epoch: float = 1_700_000_000.0, *, steps_limit: int = 5_000_000) -> None:
        self.elapsed_seconds = 0.0
        self.steps = 0
        self.steps_limit = steps_limit
        self.on_step: Callable[[], bool] = lambda: False
        self.seconds_to_event: Callable[[], float] = lambda: math.inf
        self._epoch = epoch

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._epoch + self.elapsed_seconds

    def elapsed(self) -> float:
        """Seconds that have passed."""
        return self.elapsed_seconds

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time."""
        await anyio.sleep(seconds)

    def let_pass(self, seconds: float) -> None:
        """Let time pass between two programs."""
        if seconds < 0:
            raise ValueError("time does not pass backwards: set the wall clock with jump()")
        self.elapsed_seconds += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forward or back; nobody sleeps shorter or longer for that."""
        self._epoch += seconds

    def run(self, program: Callable[[], Awaitable[T]]) -> T:
        """Run an async program to its end, in an event loop of its own.

        Raises:
            StalledError, RunawayError: it would never end.
        """
        with threads_in_line():
            return anyio.run(program, backend_options={"loop_factory": partial(_VirtualLoop, self)})


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that asks a `VirtualClock` for the time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        return self._clock.elapsed_seconds

    def run_in_executor(  # type: ignore[override] # the base's arguments are unpacked types
        self,
        executor: Any,  # noqa: ARG002 - there is none
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Call the function where it stands; aiofiles comes this way."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the future
            future.set_exception(error)
        return future


class _JumpingSelector(selectors.SelectSelector):
    """Waits by moving the clock. The loop calls `select` once in each of its turns."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._steps_without_time = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        clock = self._clock
        clock.steps += 1
        self._steps_without_time += 1
        if clock.steps > clock.steps_limit or self._steps_without_time > _STEPS_WITHOUT_TIME_MAX:
            error = RunawayError(f"{clock.steps} steps, {self._steps_without_time} without time passing")
            # What is under way must still be able to unwind.
            self._steps_without_time, clock.steps_limit = 0, clock.steps + _STEPS_WITHOUT_TIME_MAX
            raise error
        if clock.on_step():
            return []
        if timeout is None:
            if ready := super().select(0):
                return ready
            raise StalledError("every task waits, and nothing is going to wake one")
        if timeout > 0:
            clock.elapsed_seconds += max(min(timeout, clock.seconds_to_event()), _RESOLUTION_SECONDS)
            self._steps_without_time = 0
        return []


@contextmanager
def threads_in_line() -> Iterator[None]:
    """Let ``anyio.to_thread.run_sync`` call the function where it stands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.to_thread, "run_sync", _run_in_line)
        yield


async def _run_in_line(function: Callable[..., T], *args: Any, **_options: Any) -> T:
    await anyio.lowlevel.checkpoint()
    return function(*args)
