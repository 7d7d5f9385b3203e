"""What systemd is told: readiness, a status line, signs of life (the protocol of sd_notify(3))."""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from pixaris_sync.ports import Clock
from pixaris_sync.waiting import wait_until

STATUS_INTERVAL_SECONDS = 2.0
#: The same while nothing happens.
STATUS_INTERVAL_SECONDS_MAX = 30.0


class Notifier:
    """Tells systemd how the service is; silent where systemd does not listen."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")

    @property
    def listens(self) -> bool:
        """Whether anybody is told."""
        return bool(self._address)

    @property
    def watchdog_seconds(self) -> float | None:
        """How often a sign of life must be given at least, half of what systemd allows; None: never."""
        allowed_us = os.environ.get("WATCHDOG_USEC", "")
        return int(allowed_us) / 2_000_000 if allowed_us.isdigit() and int(allowed_us) else None

    def tell(self, **state: str) -> None:
        """Send ``NAME=value`` pairs: READY, STATUS, STOPPING, WATCHDOG."""
        if not self._address:
            return
        # An address in the abstract namespace is written with an @ in front.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(f"{name}={value}" for name, value in state.items())
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link,
        ):
            link.sendto(message.encode(), address)


async def tell_status(
    notifier: Notifier,
    clock: Clock,
    describe: Callable[[], Awaitable[str]],
    stirs: Callable[[], anyio.Event] | None = None,
) -> None:
    """Keep systemd's status line and watchdog fed until cancelled.

    Args:
        notifier: who tells it.
        clock: time.
        describe: the status. It must go through the parts that have to be alive, so that a stuck one starves
            the watchdog.
        stirs: an event that is set once there may be another status; until then it is told less often.
    """
    watchdog_seconds = notifier.watchdog_seconds or STATUS_INTERVAL_SECONDS_MAX
    interval = min(STATUS_INTERVAL_SECONDS, watchdog_seconds)
    longest = min(STATUS_INTERVAL_SECONDS_MAX, watchdog_seconds)
    told = ""
    while True:
        stirred = stirs() if stirs else None
        status = await describe()
        notifier.tell(WATCHDOG="1", **({"STATUS": status} if status != told else {}))
        told = status
        await clock.sleep(interval)
        if stirred is not None:
            await wait_until(stirred, clock, clock.now() + longest - interval)
