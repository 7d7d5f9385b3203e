"""A program that only computes, on the core of whatever is measured: the core is not the client's alone."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.benchmarks.cores import running_on

#: It ends with its standard input, and so with whoever started it, however that ends.
_LOOP: Final = """
import os, sys, threading

def end():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=end, daemon=True).start()
print("computing", flush=True)
value = 1
while True:
    value = value * 1103515245 + 12345 & 0x7FFFFFFF
"""


@contextmanager
def busy_loop(core: int) -> Iterator[subprocess.Popen[str]]:
    """Compute on a core, at normal priority, until the block ends."""
    command = [sys.executable, "-c", _LOOP]
    with running_on(frozenset({core})):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # As what is measured has one: where the kernel shares a core by session, neither gets more.
            start_new_session=True,
        )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process
        finally:
            process.stdin.close()
