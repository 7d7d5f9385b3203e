"""A request's time limit, which is one of standing still.

It begins anew whenever the other end acknowledges or sends something, so that a slow connection carries a
body of any size, and a dead one is noticed as soon with a large body as with none.
"""

import asyncio
from typing import Final

from msgspec import Struct

from pixaris_sync.gcs.bodies import Transfer
from pixaris_sync.limits.bandwidth import BYTES_PER_SECOND_MIN

#: Where the system does not tell what arrives, the slowest connection on which a body of any size still does
#: within its time limit; a limit that can be set is never slower.
_SLOWEST_UPLINK_BYTES_PER_SECOND: Final = BYTES_PER_SECOND_MIN

#: So often within a time limit it is looked whether something has moved.
_LOOKS: Final = 8


class _Request(Struct, eq=False):
    """What is watched: how far it has come, and since when it has not come further."""

    limit: asyncio.Timeout
    transfer: Transfer
    unmeasured_seconds: float
    moved_at: float
    moved: tuple[tuple[int, int] | None, int] = (None, 0)


class Standstill:
    """Lets the limits of requests expire once nothing of them has moved for so many seconds.

    One timer is for all of them, and none where nothing is under way: to start and stop one for each took
    twice as long as all else that a limit does.

    Args:
        seconds: how long nothing may move, in either direction.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._under_way: set[_Request] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, limit: asyncio.Timeout, transfer: Transfer, byte_count: int) -> _Request:
        """Watch a request with a body of so many bytes; `end` must follow."""
        unmeasured_seconds = self._seconds + byte_count / _SLOWEST_UPLINK_BYTES_PER_SECOND
        request = _Request(limit, transfer, unmeasured_seconds, self._loop.time())
        self._under_way.add(request)
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)
        return request

    def end(self, request: _Request) -> None:
        """Watch it no longer."""
        self._under_way.discard(request)

    def close(self) -> None:
        """Watch nothing any more."""
        self._under_way.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now, next_look = self._loop.time(), self._seconds / _LOOKS
        for request in tuple(self._under_way):
            left = self._left_seconds(request, now)
            if left <= 0:
                self._under_way.discard(request)
                request.limit.reschedule(now)
            else:
                next_look = min(next_look, left)
        self._timer = self._loop.call_later(next_look, self._look) if self._under_way else None

    def _left_seconds(self, request: _Request, now: float) -> float:
        transfer, moved_bytes = request.transfer, request.transfer.moved_bytes()
        moved = (moved_bytes, transfer.received_bytes)
        if transfer.waits or moved != request.moved:
            request.moved, request.moved_at = moved, now
        measured = moved_bytes is not None or not transfer.begun
        return request.moved_at + (self._seconds if measured else request.unmeasured_seconds) - now
