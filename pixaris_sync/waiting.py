"""Waking tasks that wait for a change, without losing a wake-up in between."""

import anyio

from pixaris_sync.ports import Clock


class Wakeup:
    """Says "something changed" to all that listen.

    `listen` before looking at the state, then look, then wait: a change in between ends the wait. Nothing is
    ever cleared, so nothing can be cleared too early.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def listen(self) -> anyio.Event:
        """An event that the next `notify` sets."""
        return self._event

    def notify(self) -> None:
        """Wake all that have listened so far."""
        event, self._event = self._event, anyio.Event()
        event.set()


async def wait_until(event: anyio.Event, clock: Clock, at: float | None) -> None:
    """Wait for an event, but not beyond a time in seconds since the epoch; None: for as long as it takes."""
    if at is None:
        await event.wait()
        return
    async with anyio.create_task_group() as race:

        async def timer() -> None:
            await clock.sleep(max(0.0, at - clock.now()))
            race.cancel_scope.cancel()

        race.start_soon(timer)
        await event.wait()
        race.cancel_scope.cancel()
