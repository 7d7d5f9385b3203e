"""Which processor cores the server and the clients run on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores by role.

    Attributes:
        server: the core of the server, and of this program; None where there is only one core for all.
        client: the core of whatever is measured.
        both: all of them.
    """

    server: int | None
    client: int
    both: frozenset[int]


def choose_cores() -> Cores:
    """The first two cores that this program may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        return Cores(None, allowed[0], frozenset(allowed))
    return Cores(allowed[0], allowed[1], frozenset(allowed[:2]))


@contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """Let this thread, and the processes that it starts, run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
