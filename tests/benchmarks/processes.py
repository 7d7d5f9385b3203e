"""Runs a program as a whole process and measures it: time, processor, memory."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cores import running_on

_SAMPLE_SECONDS = 0.02
_KIBIBYTE = 1024


class ProgramFailedError(RuntimeError):
    """The program that was measured did not succeed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a program.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time, of its children too.
        peak_bytes: the most resident memory; of several processes, the largest sum seen.
        output: what it printed.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cores: frozenset[int],
    folder: Path,
    timeout_seconds: float = 1800,
) -> Measured:
    """Run a program to its end.

    Args:
        command: the program and its arguments.
        environment: variables on top of this program's.
        cores: where it may run.
        folder: its working directory.
        timeout_seconds: when it is given up.

    Raises:
        ProgramFailedError: it failed or took too long; the message holds the end of what it wrote.
    """
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as err, running_on(cores):
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    watcher = MemoryWatcher(process.pid)
    killer = threading.Timer(timeout_seconds, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    killer.cancel()
    watcher.finish()
    process.returncode = os.waitstatus_to_exitcode(status)
    output = (folder / "stdout").read_text(errors="replace")
    if process.returncode:
        errors = (folder / "stderr").read_text(errors="replace")
        raise ProgramFailedError(
            f"{command[0]} ended with {process.returncode}: {output[-500:]}{errors[-2000:]}"
        )
    return Measured(wall, usage.ru_utime + usage.ru_stime, watcher.peak_bytes, output)


class MemoryWatcher(threading.Thread):
    """Looks at the resident memory of a process and its descendants until told to finish."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        """See `threading.Thread`."""
        while not self._done.wait(_SAMPLE_SECONDS):
            self.look()

    def look(self) -> None:
        """Look once."""
        now = 0
        for pid in _with_descendants(self._pid):
            with contextlib.suppress(OSError):
                peak, resident = memory_of(pid)
                now += resident
                # The kernel's own mark of one process knows what lies between two looks.
                self.peak_bytes = max(self.peak_bytes, peak)
        self.peak_bytes = max(self.peak_bytes, now)

    def finish(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


def memory_of(pid: int) -> tuple[int, int]:
    """Bytes of resident memory of a process: the most it had, and now.

    Raises:
        OSError: there is no such process.
    """
    peak = resident = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak = int(line.split()[1]) * _KIBIBYTE
        elif line.startswith("VmRSS:"):
            resident = int(line.split()[1]) * _KIBIBYTE
    return peak, resident


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a running process and its threads, without its children.

    Raises:
        OSError: there is no such process.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Fields 14 and 15 of proc_pid_stat(5); the first after the name is the third.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _with_descendants(int(child))
