"""pixaris-sync as a running process: the ``watch`` service, or a pass that goes on beside something else."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contenders import CONTENDERS, OURS, Place
from tests.benchmarks.cores import running_on
from tests.benchmarks.processes import cpu_seconds_of, memory_of

_STOP_SECONDS = 60
#: A process that uses less than this share of a core for so long has nothing to do.
_QUIET_SHARE = 0.01
_QUIET_SECONDS = 5.0


class NotReadyError(RuntimeError):
    """The process did not come as far as it should."""


def command(word: str, extra: str = "") -> Sequence[str]:
    """How pixaris-sync is started with a command word and further flags."""
    return (sys.executable, "-m", "pixaris_sync", word, *shlex.split(extra))


@dataclass(frozen=True, slots=True)
class Running:
    """A running process."""

    popen: subprocess.Popen[bytes]

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.popen.poll() is not None

    @property
    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return cpu_seconds_of(self.popen.pid)

    @property
    def resident_bytes(self) -> int:
        """Resident memory now."""
        return memory_of(self.popen.pid)[1]

    def wait_until_quiet(self, timeout_seconds: float) -> None:
        """Return once it hardly uses its core.

        Raises:
            NotReadyError: it goes on for longer than `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            before = self.cpu_seconds
            time.sleep(_QUIET_SECONDS)
            if self.cpu_seconds - before < _QUIET_SHARE * _QUIET_SECONDS:
                return
        raise NotReadyError(f"still busy after {timeout_seconds:g} s")


@contextmanager
def process(
    arguments: Sequence[str], place: Place, cores: frozenset[int], extra: Mapping[str, str]
) -> Iterator[Running]:
    """Start a process of pixaris-sync, and end it."""
    environment = {**os.environ, **CONTENDERS[OURS].environment(place), **extra}
    log = place.scratch / "log"
    with log.open("ab") as output, running_on(cores):
        started = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)
    try:
        yield Running(started)
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def watching(
    place: Place,
    cores: frozenset[int],
    *,
    flags: str = "",
    extra: Mapping[str, str] | None = None,
    ready_seconds: float = 60,
) -> Iterator[Running]:
    """Run ``watch``, and go on when it says that it is ready.

    Args:
        place: where.
        cores: that it may run on.
        flags: further flags.
        extra: further environment variables.
        ready_seconds: how long it may take to be ready.

    Raises:
        NotReadyError: it took longer.
    """
    # The path of a socket may not be long.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = str(Path(folder) / "notify")
        told.bind(address)
        told.settimeout(ready_seconds)
        with process(
            command("watch", flags), place, cores, {**(extra or {}), "NOTIFY_SOCKET": address}
        ) as running:
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
            except TimeoutError:
                log = (place.scratch / "log").read_text()
                raise NotReadyError(f"not ready after {ready_seconds:g} s: {log[-1000:]}") from None
            # Nobody reads what it tells from now on, and nobody must wait for that.
            told.close()
            yield running
