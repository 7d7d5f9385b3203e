"""A disk that fails at a given operation, a process that ends there, or one that is interrupted there."""

import enum
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

#: What changes the disk, as ``os`` calls it; whatever is built upon it calls these.
_OPERATIONS: Final = ("mkdir", "open", "write", "fsync", "rename", "ftruncate", "unlink", "rmdir")


class Interrupted(BaseException):
    """As Ctrl+C is, no error."""


class Fault(enum.Enum):
    """What happens at the operation."""

    #: It fails, once; of a write, half is done.
    ERROR = "the disk fails once"
    #: All that follow fail, too: nothing is done after it, as in a process that was killed.
    END = "the process ends"
    #: It is done, and then what called it is interrupted, if that is the main thread.
    INTERRUPT = "somebody interrupts"


class FailingDisk:
    """Counts what changes the disk, from 0, and has a fault at one operation, or at none."""

    def __init__(self, at: int | None = None, fault: Fault = Fault.ERROR) -> None:
        self.count = 0
        self._at = at
        self._fault = fault

    def _operation(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            at, self.count = self.count, self.count + 1
            is_here = at == self._at
            if self._fault is Fault.INTERRUPT:
                done = real(*args, **options)
                if is_here and threading.current_thread() is threading.main_thread():
                    if name == "open":
                        os.close(done)
                    raise Interrupted
                return done
            is_after = self._at is not None and at > self._at and self._fault is Fault.END
            if not is_here and not is_after:
                return real(*args, **options)
            if name == "write" and is_here:
                real(args[0], args[1][: len(args[1]) // 2])
            raise OSError(errno.ENOSPC, f"{name} {at} fails")

        return operation

    @contextmanager
    def under(self) -> Iterator[None]:
        """Be the disk of this process for a while."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _OPERATIONS:
                patch.setattr(os, name, self._operation(name, getattr(os, name)))
            yield
