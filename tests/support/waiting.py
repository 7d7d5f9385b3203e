"""Waiting for a condition instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Between two looks at a condition.
POLL_SECONDS = 0.01


def eventually(look: Callable[[], T], what: str, *, timeout_seconds: float = 30.0) -> T:
    """What `look` answers, as soon as that is true.

    Raises:
        AssertionError: it was not true in time; the message says `what` and the last answer.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what} (last: {answer!r})"
        time.sleep(POLL_SECONDS)
    return answer
