"""The real ``pixaris-sync watch`` as a process: started, known to be ready, ended with SIGTERM."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pixaris_sync.errors import SyncError

READY_SECONDS = 60.0
DRAIN_SECONDS = 60.0

#: In a session of its own it would be last in line for the processor, while somebody looks on.
_COMMAND = (sys.executable, "-m", "pixaris_sync", "watch", "--no-quiet", "--config", os.devnull)
_LOG_LINES = 20
_DATAGRAM_BYTES = 4096
_OWN_VARIABLES = "PIXARIS_SYNC_"


class WatchProcess:
    """``pixaris-sync watch`` on one results folder, for as long as the context is open.

    It is configured by `environment` alone: variables of ours that stand in this process's own environment
    are not handed on. Readiness is what it tells systemd, over a socket of our own.

    Args:
        local_results_folder: what to watch.
        scratch: an existing folder for its state, its log and the socket.
        environment: variables to add.
    """

    def __init__(self, local_results_folder: Path, scratch: Path, environment: Mapping[str, str]) -> None:
        self._folder = local_results_folder
        self._state = scratch / "state"
        self._log = scratch / "watch.log"
        self._socket_path = scratch / "notify"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        self._environment = {**inherited, **environment, "NOTIFY_SOCKET": str(self._socket_path)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _start(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, self._log.open("wb") as log:
            notices.bind(str(self._socket_path))
            self._process = subprocess.Popen(  # noqa: S603 - our own command under our own interpreter
                [
                    *_COMMAND,
                    *("--local-results-folder", str(self._folder)),
                    *("--state-dir", str(self._state)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                # A Ctrl+C is for the parent, which then ends this process in order.
                start_new_session=True,
            )
            self._wait_until_ready(notices)

    def _wait_until_ready(self, notices: socket.socket) -> None:
        deadline = time.monotonic() + READY_SECONDS
        notices.settimeout(0.1)
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notices.recv(_DATAGRAM_BYTES).split(b"\n"):
                    return
        raise self._failure("it did not say that it is ready")

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            SyncError: it ended; the cause ends with its last words.
        """
        assert self._process is not None  # noqa: S101 - only used within the context
        code = self._process.poll()
        if code is not None:
            raise self._failure(f"it ended with exit code {code}")

    def end(self) -> None:
        """Send SIGTERM and wait for a clean end.

        Raises:
            SyncError: it did not end in time, or not with exit code 0.
        """
        self.check()
        assert self._process is not None  # noqa: S101 - only used within the context
        self._process.terminate()
        try:
            code = self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failure("it did not end after SIGTERM") from None
        if code != 0:
            raise self._failure(f"it ended with exit code {code} after SIGTERM")

    def _failure(self, what: str) -> SyncError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(lines[-_LOG_LINES:])
        return SyncError("run", "pixaris-sync watch", f"{what}\n{said}".rstrip())

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
