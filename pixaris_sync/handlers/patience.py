"""Asks the cloud for somebody who waits for the answer: several times, and side by side."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Final, TypeVar

import anyio
from msgspec import Struct

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.limits.backoff import Backoff
from pixaris_sync.settings.model import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: A permission may come in minutes: that is too long to wait for.
_PASSING: Final = frozenset({Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT})


class Patience(Struct, frozen=True):
    """How often something is tried that fails for reasons that pass.

    Attributes:
        backoff: how long to wait in between.
        attempts_limit: how often at most.
        wait_seconds_max: a service that asks to be left alone for longer has failed.
    """

    backoff: Backoff
    attempts_limit: int
    wait_seconds_max: float

    @classmethod
    def of(cls, settings: Settings) -> "Patience":
        """What the settings say of passes."""
        backoff = Backoff(settings.retry_delay_seconds_min, settings.retry_delay_seconds_max)
        return cls(backoff, settings.sync_attempts_limit, settings.request_timeout_seconds)

    async def attempt(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again where it failed for a reason that passes.

        Raises:
            SyncError: the last failure.
        """
        jitter = random.Random()  # noqa: S311 - nothing to guess
        for attempts in count(1):
            try:
                return await work()
            except SyncError as error:
                wait_seconds = self.backoff.delay_seconds(attempts, jitter, error)
                passes = error.failure in _PASSING and wait_seconds <= self.wait_seconds_max
                if not passes or attempts >= self.attempts_limit:
                    raise
                log.debug("attempt %d failed, the next in %.1f s: %s", attempts, wait_seconds, error)
            await anyio.sleep(wait_seconds)
        raise AssertionError


async def joined(pages: AsyncIterator[Sequence[T]]) -> list[T]:
    """All that is on the pages."""
    return [one async for page in pages for one in page]


async def side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[R]], limit: int) -> list[R]:
    """What `work` makes of each, in their order; at most `limit` at the same time.

    Raises:
        SyncError: the first; the others are ended.
    """
    waiting = iter(enumerate(items))
    made: dict[int, R] = {}
    errors: list[SyncError] = []

    async def take() -> None:
        for number, item in waiting:
            try:
                made[number] = await work(item)
            except SyncError as error:
                errors.append(error)
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(limit):
            tasks.start_soon(take)
    if errors:
        raise errors[0]
    return [made[number] for number in sorted(made)]
