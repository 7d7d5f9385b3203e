"""The real command line in processes of its own, configured by flags and an environment of the test's."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pixaris_sync.settings.model import environment_variable
from tests.support.schemas import OF_COMMANDS, misfit_in
from tests.support.waiting import eventually

T = TypeVar("T")

TIMEOUT_SECONDS = 60.0
COMMAND = (sys.executable, "-m", "pixaris_sync")

#: Replaces itself by a command for which file modes hold although root runs it: it drops CAP_DAC_OVERRIDE and
#: CAP_DAC_READ_SEARCH (capabilities(7)) from the bounding set (PR_CAPBSET_DROP, prctl(2)). For others it
#: changes nothing.
_POWERLESS = (
    sys.executable,
    "-c",
    """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.prctl(24, 1, 0, 0, 0), libc.prctl(24, 2, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
""",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.stdout}\n{self.stderr}"


class CommandLine:
    """``pixaris-sync`` on one results folder and one destination.

    Args:
        folder: the results folder.
        state_dir: where ledgers go.
        environment: what points at the destination. Variables of ours that stand in this process's own
            environment are not handed on.
    """

    def __init__(self, folder: Path, state_dir: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.state_dir = state_dir
        self._around: tuple[str, ...] = ()
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("PIXARIS_SYNC_")}
        self.environment = {
            **inherited,
            **environment,
            "PIXARIS_SYNC_LOCAL_RESULTS_FOLDER": str(folder),
            "PIXARIS_SYNC_STATE_DIR": str(state_dir),
            # Last in line for the processor, it would wait for whatever else this machine does.
            "PIXARIS_SYNC_QUIET": "false",
            # Tests damage runs and mend them by hand, which looks like copying: nobody need wait for that.
            "PIXARIS_SYNC_STILL_FOLDER_SECONDS": "0",
        }

    def but(self, **variables: str | None) -> Self:
        """The same with other environment variables; None takes one away."""
        changed = type(self)(self.folder, self.state_dir, {})
        changed._around = self._around
        changed.environment = {
            name: text for name, text in {**self.environment, **variables}.items() if text is not None
        }
        return changed

    def within(self, *program: str) -> Self:
        """The same, started by a program that replaces itself by the command it is given."""
        changed = self.but()
        changed._around = program
        return changed

    def having(self, **settings: object) -> Self:
        """The same with these settings in its environment: not every setting has a flag."""
        return self.but(**{environment_variable(key): str(value) for key, value in settings.items()})

    def start(self, *arguments: str, powerless: bool = False, **options: Any) -> "subprocess.Popen[str]":
        """Start a command in a session of its own.

        Args:
            arguments: as on the command line.
            powerless: file modes hold for it even when the test runs as root.
            options: for Popen.
        """
        return subprocess.Popen(
            [*(_POWERLESS if powerless else ()), *self._around, *COMMAND, *arguments],
            text=True,
            env=self.environment,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )

    def run(self, *arguments: str, powerless: bool = False) -> Outcome:
        """Run a command to its end."""
        outcome = self._run(*arguments, powerless=powerless)
        if "--json" in arguments:
            command = next(words for words in (" ".join(arguments[:2]), arguments[0]) if words in OF_COMMANDS)
            misfit = misfit_in(command, outcome.code, outcome.stdout)
            assert not misfit, f"{misfit}\n{outcome}"
        return outcome

    def _run(self, *arguments: str, powerless: bool) -> Outcome:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(*arguments, powerless=powerless, **pipes) as process:
            try:
                stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
            finally:
                process.kill()
        return Outcome(process.returncode, stdout, stderr)

    def sync(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """``sync --json``: its document, once its exit code is the expected one."""
        outcome = self.run("sync", "--json", *arguments)
        assert outcome.code == expect, f"expected {expect}: {outcome}"
        assert outcome.document["exit_code"] == expect
        return outcome.document

    def status(self) -> dict[str, Any]:
        """``status --json``."""
        outcome = self.run("status", "--json")
        assert outcome.code == 0, str(outcome)
        return outcome.document

    def ledgers(self) -> list[Path]:
        """All ledgers in the state folder."""
        return sorted(self.state_dir.glob("*.sqlite3"))

    def forget_ledger(self) -> None:
        """Lose the ledger and everything beside it."""
        shutil.rmtree(self.state_dir)
        self.state_dir.mkdir(mode=0o700)


class Watching:
    """``pixaris-sync watch`` as a service manager sees it, for as long as the context is open.

    Args:
        command_line: on what.
        scratch: a folder for its log and the notification socket.
        arguments: further flags.

    Attributes:
        notices: what it told the service manager so far, a dict of ``NAME=value`` pairs for each message.
    """

    def __init__(self, command_line: CommandLine, scratch: Path, *arguments: str) -> None:
        self._command_line = command_line
        self._arguments = arguments
        self._log = scratch / "watch.log"
        self._address = scratch / "notify"
        self.notices: list[dict[str, str]] = []
        self._process: subprocess.Popen[str] | None = None
        self._socket: socket.socket | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._listener.start()
        watch = self._command_line.but(NOTIFY_SOCKET=str(self._address))
        with self._log.open("w") as log:
            self._process = watch.start("watch", *self._arguments, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self._socket is not None
        self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(TIMEOUT_SECONDS)
        self._socket.close()

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The process."""
        assert self._process is not None
        return self._process

    def _listen(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            while message := self._socket.recv(4096):
                pairs = (line.partition("=") for line in message.decode().split("\n"))
                self.notices.append({name: value for name, _, value in pairs})

    def told(self, name: str) -> list[str]:
        """All values that it told under a name, in order."""
        return [notice[name] for notice in list(self.notices) if name in notice]

    def until(self, look: Callable[[], T], what: str) -> T:
        """What `look` answers, as soon as that is true; a failure shows the log.

        Raises:
            AssertionError: it was not true in time, or the process ended by itself.
        """

        def look_while_it_lives() -> T:
            ended = self.process.poll()
            assert ended in (None, -signal.SIGKILL), f"it ended by itself with {ended}"
            return look()

        try:
            return eventually(look_while_it_lives, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def wait_until_ready(self) -> None:
        """Wait until it says that it is ready."""
        self.until(lambda: self.told("READY"), "watch is ready")

    def has_ended(self) -> bool:
        """Whether the process ended."""
        return self.process.poll() is not None

    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_SECONDS)
