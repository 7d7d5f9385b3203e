"""Work that is done behind the caller's back, in order and bounded in memory."""

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

log = logging.getLogger(__name__)

#: How much memory what waits may take, unless it is told otherwise: 128 images of 1024 x 1024 pixels.
PENDING_BYTES_LIMIT: Final = 512 * 1024 * 1024


class Behind:
    """Does one job after the other in a thread, which lives as long as there are jobs.

    A job is taken at once, unless what waits would have more than `bytes_limit` with it; then the caller
    waits. A job that is larger than that is taken when nothing else waits. At the interpreter's exit
    everything that was taken is done. A child after a fork has nothing to do: its parent does it.

    Args:
        verb: what it does to a run, as "store"; so the thread is called, too.
        bytes_limit: how many bytes of jobs may wait.
    """

    #: Whether the interpreter ends: what hooks that come later give is done at once.
    at_exit: ClassVar[bool] = False

    def __init__(self, verb: str, bytes_limit: int) -> None:
        self.verb = verb
        self._bytes_limit = bytes_limit
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()
        self._bytes = 0
        self._errors: list[BaseException] = []
        self._works = False

    def forget(self) -> None:
        """Begin anew in a child: neither the thread nor its jobs are here."""
        self._begin()

    def do(self, job: Callable[[], None], byte_count: int) -> None:
        """Take a job of so many bytes; see the class for when that takes time."""
        with self._changed:
            while self._bytes and self._bytes + byte_count > self._bytes_limit:
                self._changed.wait()
            self._jobs.append((job, byte_count))
            self._bytes += byte_count
            begins = not self._works
            self._works = True
        if begins:
            self._start()

    def _start(self) -> None:
        """Let a thread work. At the interpreter's end there may be none any more, or nobody waits for it."""
        if not Behind.at_exit:
            with suppress(RuntimeError):
                # No daemon: a process of multiprocessing ends without `atexit`, but waits for its threads.
                threading.Thread(target=self._work, name=f"pixaris-sync-{self.verb}").start()
                return
        self._work()

    def wait(self) -> None:
        """Wait until everything that was taken is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._works)

    def raise_error(self) -> None:
        """Raise the first error of a job since the last call, with a note on each of the others.

        Raises:
            Exception: what the job raised.
        """
        with self._changed:
            errors, self._errors = self._errors, []
        if errors:
            first, *others = errors
            for other in others:
                first.add_note(f"after it: {other}")
            raise first

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._works = False
                    self._changed.notify_all()
                    return
                job, byte_count = self._jobs.popleft()
            try:
                job()
            except BaseException as error:  # noqa: BLE001 - it is raised where somebody can see it
                with self._changed:
                    self._errors.append(error)
            del job
            with self._changed:
                self._bytes -= byte_count
                self._changed.notify_all()


_all: "weakref.WeakSet[Behind]" = weakref.WeakSet()


def _forget_all() -> None:
    for behind in list(_all):
        behind.forget()


def _finish_all() -> None:
    Behind.at_exit = True
    for behind in list(_all):
        behind.wait()
        try:
            behind.raise_error()
        except Exception:
            log.exception("at exit: cannot %s everything that was handed over", behind.verb)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_finish_all)
