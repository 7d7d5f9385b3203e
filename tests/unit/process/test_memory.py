"""One pool of memory for all threads."""

import os
import platform
import subprocess
import sys

import pytest

#: Threads that each hold some memory; then how many pools beside the main one there are. Each reserves
#: 64 MiB of addresses, of which most may not be touched yet.
SCRIPT = """
import sys, threading
from pathlib import Path
from pixaris_sync.process.memory import limit_arenas

if sys.argv[1] == "shared":
    limit_arenas()
held, rest = [], threading.Event()
filled = threading.Barrier(5)

def fill():
    held.append([bytes(50_000) for _ in range(20)])
    filled.wait()
    rest.wait()

threads = [threading.Thread(target=fill) for _ in range(4)]
for thread in threads:
    thread.start()
filled.wait()
pools = 0
for line in Path("/proc/self/maps").read_text().splitlines():
    addresses, access, *_ = line.split()
    begin, end = (int(part, 16) for part in addresses.split("-"))
    pools += access.startswith("---") and 48 * 2**20 < end - begin < 64 * 2**20
print(pools)
rest.set()
"""


def pools(how: str, **environment: str) -> int:
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, how],
        env={**inherited, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools")
def test_threads_share_one_pool() -> None:
    """Goal: what one thread frees another can use. Method: pools are counted, with and without."""
    assert pools("shared") == 0
    assert pools("apart") > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools")
def test_whoever_sets_the_number_of_pools_gets_it() -> None:
    """Goal: the environment goes before. Method: glibc's own variable allows many."""
    assert pools("shared", MALLOC_ARENA_MAX="8") > 0
