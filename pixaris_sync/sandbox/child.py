"""What an emulator's process owes the process that started it: say when it is ready, never outlive it."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TextIO

#: How long a clean end may take once the parent is gone; then the process ends without one.
FAREWELL_SECONDS = 5.0

_READ_BYTES = 1024


def reserve_stdout() -> TextIO:
    """Take standard output for `announce_ready` alone; all else that is printed goes to standard error."""
    reserved = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return reserved


def announce_ready(reserved: TextIO, host: str, port: int) -> None:
    """Write one line of JSON, ``{"host": ..., "port": ...}``: the server answers from now on."""
    reserved.write(json.dumps({"host": host, "port": port}) + "\n")
    reserved.close()


def end_on_signals() -> None:
    """Let SIGTERM and SIGINT raise SystemExit, so that what was opened is closed; the exit code is 0."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def stop_with_parent() -> None:
    """Send this process SIGTERM once its standard input ends, which it does when the parent is gone.

    The parent holds the other end of the pipe, and the kernel closes it however the parent dies. A process
    that does not end in time after that is ended at once, so that none is ever left behind.
    """
    threading.Thread(target=_wait_for_the_end_of_stdin, name="parent-watch", daemon=True).start()


def _wait_for_the_end_of_stdin() -> None:
    # os.read and not sys.stdin: a thread blocked in a buffered reader breaks the interpreter's shutdown.
    with contextlib.suppress(OSError):
        while os.read(0, _READ_BYTES):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FAREWELL_SECONDS)
    os._exit(1)
