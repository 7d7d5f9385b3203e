"""``--help`` on a terminal of 80 columns: names and defaults whole, nothing cut off."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from functools import cache

import pytest

from tests.support.documents import COMMANDS

COLUMNS = 80


@cache
def shown(*arguments: str) -> str:
    """What ``pixaris-sync`` writes to a terminal of that width, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    command = [sys.executable, "-m", "pixaris_sync", *arguments, "--help"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
    ):
        os.close(theirs)
        pieces = []
        # Reading from a terminal that nobody has open any more ends with an error, not with nothing.
        while piece := _read(ours):
            pieces.append(piece)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(pieces).decode()).replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_flag_and_every_default_is_shown_whole(name: str) -> None:
    """Goal: a flag can be copied from help. Method: each name and default stands unbroken in its lines."""
    text = shown(*name.split())
    for parameter in COMMANDS[name].params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if parameter.param_type_name == "option":
                assert re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text), flag
        for default in re.findall(r"\[default: [^\]]+\]", parameter.help or ""):
            assert default in text, (parameter.name, default)


@pytest.mark.parametrize("name", [None, "config", *COMMANDS])
def test_nothing_is_cut_off(name: str | None) -> None:
    """Goal: whole sentences. Method: no ellipsis, no line wider than the terminal."""
    text = shown(*(name or "").split())
    assert max(map(len, text.splitlines())) <= COLUMNS
    syntax, _, rest = text.partition("\n")
    assert syntax.startswith("Usage: ")
    assert "..." not in rest
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_flag_says_what_it_does(name: str) -> None:
    """Goal: no flag without a meaning. Method: each parameter has a help text of its own."""
    assert all(parameter.help for parameter in COMMANDS[name].params)
