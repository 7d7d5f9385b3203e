"""Asking watchfiles for events: often while some may be on their way, and not at all while nothing happens.

watchfiles can only be asked again and again whether there are events, by a thread that sleeps for a step in
between. Twenty steps in a second are little, and still most of what an idle service would cost. So a
`Doorbell` hangs on the same folders: it says when to begin to ask, and watchfiles says what has happened.
"""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from watchfiles._rust_notify import RustNotify

from pixaris_sync.local.inotify import Doorbell

log = logging.getLogger(__name__)

#: No wait for events in a thread is longer; nothing depends on its length.
_WAIT_SECONDS_MAX: Final = 60.0
#: Without any event for so long, the watching thread wakes less often, and later not at all before it rings.
_QUIET_AFTER_SECONDS: Final = 1.0
#: Events may come later than their ring by what the thread of watchfiles is kept waiting on a busy machine.
_ASLEEP_AFTER_SECONDS: Final = 5.0

#: What watchfiles reports: kinds of change, as `watchfiles.Change`, and paths.
Events = frozenset[tuple[int, str]]


class Stop:
    """What the watching thread asks at each step: the caller's event, or the end of this generator."""

    def __init__(self, stop: anyio.Event) -> None:
        self._stop = stop
        self.ended = threading.Event()

    def is_set(self) -> bool:
        """Whether to stop; by this name watchfiles asks."""
        return self.ended.is_set() or self._stop.is_set()


class Ear:
    """Asks a watcher for events: again and again while some may come, then not before the bell rings.

    Args:
        watcher: whom to ask.
        bell: on the same folders; None: the watcher is asked all the time.
        debounce_ms: see `changes`.
        step_ms: see `changes`.
        quiet_step_ms: see `changes`.
    """

    def __init__(
        self, watcher: RustNotify, bell: Doorbell | None, debounce_ms: int, step_ms: int, quiet_step_ms: int
    ) -> None:
        self._watcher = watcher
        self._bell = bell
        self._debounce_ms = debounce_ms
        self._step_ms = step_ms
        self._quiet_step_ms = quiet_step_ms
        self._stirred_at = anyio.current_time()

    async def listen(self, flag: Stop, stop: anyio.Event) -> Events:
        """Wait for events; none when it is time to ask again, or to stop."""
        quiet_seconds = anyio.current_time() - self._stirred_at
        if self._bell is not None:
            if quiet_seconds >= _ASLEEP_AFTER_SECONDS:
                await _first_of(self._bell.wait, stop.wait)
                self._stirred_at, quiet_seconds = anyio.current_time(), 0.0
            # What happens from here on is either seen now or rings again.
            self._bell.hush()
        if quiet_seconds < _QUIET_AFTER_SECONDS:
            step_ms, wait_seconds = self._step_ms, _QUIET_AFTER_SECONDS - quiet_seconds
        elif self._bell is not None:
            step_ms, wait_seconds = self._quiet_step_ms, _ASLEEP_AFTER_SECONDS - quiet_seconds
        else:
            step_ms, wait_seconds = self._quiet_step_ms, _WAIT_SECONDS_MAX
        wait_ms = max(step_ms, int(wait_seconds * 1000))
        events = await to_thread.run_sync(
            _wait, self._watcher, self._debounce_ms, step_ms, wait_ms, flag, abandon_on_cancel=True
        )
        if events:
            self._stirred_at = anyio.current_time()
        return events

    def close(self) -> None:
        """Give the bell back."""
        if self._bell is not None:
            self._bell.close()


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    async with anyio.create_task_group() as race:

        async def run(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            race.cancel_scope.cancel()

        for wait in waits:
            race.start_soon(run, wait)


def hang_bell(folders: Iterable[Path]) -> Doorbell | None:
    """None where there is no such bell; watching works without, and costs some more.

    Raises:
        FileNotFoundError: a folder is gone.
    """
    try:
        return Doorbell(folders)
    except FileNotFoundError:
        raise
    except OSError as error:
        log.debug("watching without a doorbell: %s", error.strerror)
        return None


def _wait(watcher: RustNotify, debounce_ms: int, step_ms: int, wait_ms: int, stop: Stop) -> Events:
    """Wait for events; none after `wait_ms` without any."""
    answer = watcher.watch(debounce_ms, step_ms, wait_ms, stop)
    return frozenset(answer) if isinstance(answer, set) else frozenset()
