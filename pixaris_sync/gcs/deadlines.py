"""Time limits of many requests, at the price of one timer.

The HTTP client's own limit is a timer for each request, and a look at it wherever the request waits: a tenth
of what a small upload costs. Here one timer looks at all of them, so a request may live longer than its limit
by the time between two looks.

How a task is interrupted, and how that is told from a cancellation that comes from elsewhere, is as in
``asyncio.timeout``: see "Task cancellation" in the reference of asyncio.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: Between two looks lies this share of the shortest limit, but never more than so long.
LOOK_SHARE = 0.05
LOOK_SECONDS_MAX = 1.0


class _Request:
    """What is waited for in a task, and until when by the loop's clock."""

    __slots__ = ("cancelling", "ends_at", "overdue", "task")

    def __init__(self, task: "asyncio.Task[Any]", ends_at: float) -> None:
        self.task = task
        self.ends_at = ends_at
        self.cancelling = task.cancelling()
        self.overdue = False


class Deadlines:
    """Interrupts requests that take too long. Looks only while there are some.

    Args:
        shortest_seconds: the shortest limit that will be asked for.
    """

    def __init__(self, shortest_seconds: float) -> None:
        self._look_seconds = min(LOOK_SECONDS_MAX, shortest_seconds * LOOK_SHARE)
        self._open: set[_Request] = set()
        self._next_look: asyncio.TimerHandle | None = None

    async def hold(self, seconds: float, request: Awaitable[T]) -> T:
        """Wait for a request.

        Raises:
            TimeoutError: it took longer than `seconds`, and was cancelled.
        """
        loop = asyncio.get_running_loop()
        # Where there is a running loop, there is a task that awaits this.
        task = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        held = _Request(task, loop.time() + seconds)
        self._open.add(held)
        if self._next_look is None:
            self._next_look = loop.call_later(self._look_seconds, self._look, loop)
        try:
            return await request
        except asyncio.CancelledError as error:
            if held.overdue and task.cancelling() == held.cancelling + 1:
                raise TimeoutError from error
            raise
        finally:
            self._open.discard(held)
            if held.overdue:
                task.uncancel()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for held in self._open:
            if held.ends_at <= now and not held.overdue:
                held.overdue = True
                held.task.cancel()
        self._next_look = loop.call_later(self._look_seconds, self._look, loop) if self._open else None
