"""Emulators as processes on free loopback ports, with their logs."""

import functools
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

#: Where it listens and what it finds there comes on top.
FAKE_GCS_SERVER_FLAGS = ("-scheme", "http", "-backend", "memory")
_READY_SECONDS = 30.0
_FAREWELL_SECONDS = 15.0
#: A free port may be taken by somebody else before the emulator listens on it.
_START_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Running:
    """A running emulator: its base URL, and the file that it writes its log to."""

    url: str
    log: Path

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send JSON, or nothing, to a path and return the answer's JSON."""
        request = urllib.request.Request(  # noqa: S310 - the URL is this emulator's
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return json.load(answer)


@contextmanager
def running_sandbox(name: str, *arguments: str, folder: Path) -> Iterator[Running]:
    """Start one of the sandbox's emulators, which take a free port and tell it; end it afterwards.

    Args:
        name: its module in `pixaris_sync.sandbox`.
        arguments: for that module.
        folder: where its log goes.
    """
    command = [sys.executable, "-m", f"pixaris_sync.sandbox.{name}", *arguments, "--stop-with-stdin"]
    log = folder / f"sandbox-{name}.log"
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"{name} ended before it was ready:\n{log.read_text(errors='replace')}"
            ready = json.loads(line)
            yield Running(f"http://{ready['host']}:{ready['port']}", log)
        finally:
            process.stdin.close()
            _wait(process)


@contextmanager
def running_program(
    program: str, arguments: Callable[[int, int], Sequence[str]], *, ready_path: str, folder: Path
) -> Iterator[Running]:
    """Start a program that is told its port; end it afterwards.

    Args:
        program: its path.
        arguments: its arguments; takes the port that it is to answer at, and one more free port.
        ready_path: what it answers once it is ready.
        folder: where its log goes.
    """
    log = folder / f"{Path(program).name}.log"
    for _ in range(_START_ATTEMPTS):
        port, other_port = _free_port(), _free_port()
        url = f"http://127.0.0.1:{port}"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [program, *arguments(port, other_port)],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        try:
            look = functools.partial(_answers_or_ended, process, url + ready_path)
            eventually(look, f"{program} answers", timeout_seconds=_READY_SECONDS)
            if process.poll() is None:
                yield Running(url, log)
                return
        finally:
            process.terminate()
            _wait(process)
    raise AssertionError(f"{program} ended before it was ready:\n{log.read_text(errors='replace')}")


@contextmanager
def running_fake_gcs_server(program: str, folder: Path, *, bucket: str | None = None) -> Iterator[Running]:
    """Start fsouza/fake-gcs-server as deploy/compose.yaml does; end it afterwards.

    Args:
        program: its path.
        folder: where its log goes, and the empty folder that makes a bucket.
        bucket: a bucket that is there from the beginning.
    """
    data = folder / "data"
    data.mkdir()
    if bucket is not None:
        (data / bucket).mkdir()

    def arguments(port: int, _: int) -> list[str]:
        return [*FAKE_GCS_SERVER_FLAGS, "-host", "127.0.0.1", "-port", str(port), "-data", str(data)]

    with running_program(program, arguments, ready_path="/_internal/healthcheck", folder=folder) as running:
        yield running


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers_or_ended(process: subprocess.Popen[bytes], url: str) -> bool:
    if process.poll() is not None:
        return True
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - the URL is this emulator's
            return True
    except OSError:
        return False


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_FAREWELL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
