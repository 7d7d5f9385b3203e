"""Commands that documents show, and a shell that runs them as a user does who reads along."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.documents import REPOSITORY
from tests.support.scripted_gcs import unused_port
from tests.support.waiting import eventually

COMMAND_SECONDS = 100.0
BASH = "/bin/bash"
#: How commands begin that stay until they are told to end, with the text by which they tell that they are
#: there; None where they tell the service manager.
STAYING = {
    "pixaris-sync watch": None,
    "pixaris-sync sandbox": "Ctrl+C ends it",
    "pixaris-sync ui": "Ctrl+C ends it",
}
#: The heading of the operator's walk, which is one story and ends its document.
WALK = "## An operator's walk"
#: Where documents serve the page.
PAGE_PORT = "9465"
PYTHON = "(cd ~ && python -) <<'PYTHON'\n"


@dataclass(frozen=True, slots=True)
class Shown:
    """A command in a document, and the answer that the document shows to it, if it shows one.

    Python is a command that runs it in the user's home.
    """

    command: str
    answer: str | None

    @property
    def is_python(self) -> bool:
        """Whether it is a block of Python."""
        return self.command.startswith(PYTHON)

    def check(self, answer: str) -> None:
        """Compare what it answered with what the document shows, but for what differs from time to time."""
        if self.answer is not None:
            # A program's numbers are those of its own text, but for the date in a run's name.
            varying = r"\d{6,}" if self.is_python else r"\d+(\.\d+)?"
            found, shown = (_shape(text, varying) for text in (answer, self.answer))
            assert found == shown, f"{self.command} answers:\n{answer}"


def shown_in(text: str) -> list[Shown]:
    """The ``sh`` and ``python`` blocks of a text in order; a ``text`` block answers what is before it."""
    found: list[Shown] = []
    for kind, block in re.findall(r"^```(sh|python|text)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if kind == "sh":
            found += [Shown(command, None) for command in _commands(block)]
        elif kind == "python":
            found.append(Shown(f"{PYTHON}{block}PYTHON", None))
        else:
            found[-1] = Shown(found[-1].command, block)
    return found


def _commands(block: str) -> Iterator[str]:
    """Whole commands, which may take several lines."""
    begun = ""
    for line in block.splitlines():
        begun = f"{begun}\n{line}" if begun else line
        whole = not line.endswith("\\")
        if (
            whole
            and subprocess.run([BASH, "-n", "-c", begun], capture_output=True, check=False).returncode == 0
        ):
            if begun.strip() and not begun.startswith("#"):
                yield begun
            begun = ""
    assert not begun, f"this is no whole command: {begun}"


def _shape(text: str, varying: str) -> list[str]:
    """An answer's lines without what differs from one time to the next, and without blanks at the end."""
    return [re.sub(varying, "0", line).rstrip() for line in text.strip().splitlines()]


class Shell:
    """A shell that remembers its variables from one command to the next, as one at a terminal does."""

    def __init__(self, environment: Mapping[str, str], scratch: Path, *, folder: Path = REPOSITORY) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self._variables = scratch / "variables"

    def run(self, command: str) -> str:
        """Run a command to its end, with the exit code that a comment names, else 0; what stdout got."""
        with subprocess.Popen(
            [BASH, "-euo", "pipefail", "-c", f"trap 'env -0 > \"{self._variables}\"' EXIT\n{command}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=COMMAND_SECONDS)
            except BaseException:
                # What the shell has begun would outlive it.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        meant = re.search(r"# ends with (\d+)$", command)
        assert process.returncode == (int(meant[1]) if meant else 0), f"{command}\n{stdout}\n{stderr}"
        pairs = self._variables.read_text().rstrip("\0").split("\0")
        self._environment = dict(pair.split("=", 1) for pair in pairs)
        return stdout

    @contextlib.contextmanager
    def running(self, command: str, log: Path) -> Iterator[None]:
        """Keep a command running that stays; Ctrl+C must end it well."""
        address, sign = log.with_suffix(".notify"), STAYING[" ".join(command.split()[:2])]
        address.unlink(missing_ok=True)
        with log.open("w") as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(address))
            notices.settimeout(COMMAND_SECONDS)
            process = subprocess.Popen(
                [BASH, "-c", f"exec {command.replace(PAGE_PORT, str(unused_port()))}"],
                cwd=self._folder,
                env={**self._environment, "NOTIFY_SOCKET": str(address)},
                stdout=file,
                stderr=file,
            )
            try:
                if sign:
                    eventually(lambda: sign in log.read_text(), f"{command} is there")
                else:
                    while b"READY=1" not in notices.recv(4096):
                        pass
                yield
                process.send_signal(signal.SIGINT)
                assert process.wait(COMMAND_SECONDS) == 0, log.read_text()
            finally:
                process.kill()
                process.wait()
