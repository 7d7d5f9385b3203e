"""Lets code that waits in an event loop be called from anywhere: a script, a thread, a notebook's loop."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def run(function: Callable[[], Awaitable[T]]) -> T:
    """Run it in an event loop of its own, in a thread of its own, and wait for it.

    So it works where a loop is running already, which would not let another one run inside it. What
    interrupts the waiting, as Ctrl+C does, cancels it.
    """
    with start_blocking_portal() as portal:
        return portal.call(function)
