"""Small and quick to start: the program runs beside training and is started for each pass.

What each function brings, as measured with the sets of tests/benchmarks:

| function | brings |
| --- | --- |
| `without` | 107 MB and 15 % of the processor time: the BigQuery client imports pandas for frames alone |
| `limit_arenas` | 32 MB while files of 5 MB are uploaded (set B) |
| `importing`, `claim_process` | 55 ms a start, and 9 % of the processor time |

`importing` and `without` change what all of the process shares, and do so only where the program has claimed
it. In somebody else's process, garbage that is frozen would never be freed, other threads would not find
their libraries, and who needs frames later would not get them.
"""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Python looks for garbage after so many new objects. Requests leave next to none, so its default finds none.
_NEW_OBJECTS: Final = 20_000
#: The option of glibc's mallopt(3) that limits the number of arenas.
_M_ARENA_MAX: Final = -8
#: glibc's own variable for the same; a user's choice goes before.
_ARENA_VARIABLE: Final = "MALLOC_ARENA_MAX"


class _Process:
    claimed = False


def claim_process() -> None:
    """Take this process for the program's own.

    From now on garbage is looked for rarely, and not at all at the end of the process, which frees everything
    anyway.
    """
    _Process.claimed = True
    atexit.register(gc.freeze)
    gc.set_threshold(_NEW_OBJECTS)


@contextmanager
def importing() -> Iterator[None]:
    """Do not look for garbage while modules are imported that import many others.

    Modules are objects by the ten thousand, and none of them is garbage. Later looks leave out all objects
    that exist at the end (`gc.freeze`): modules stay as long as the process, and what other threads made
    meanwhile is little.
    """
    if not _Process.claimed:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def without(*libraries: str) -> Iterator[None]:
    """Let imports of these libraries fail meanwhile, as if they were not installed; those imported stay.

    None in the place of a module makes its import fail: see "The module cache" in Python's reference.
    """
    hidden = [name for name in libraries if name not in sys.modules] if _Process.claimed else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is no module, as documented
    try:
        yield
    finally:
        for name in hidden:
            # What was imported meanwhile under one of these names stays.
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


def limit_arenas() -> None:
    """Let all threads that begin after this share one pool of memory; without glibc, nothing happens.

    glibc gives each thread a pool of its own ("arena"). Files are read in one thread and freed in another, so
    free memory would lie in pools that are not used again. Threads that share an interpreter's lock do not
    wait for each other in one pool.
    """
    import ctypes  # noqa: PLC0415 - `--help` does without

    libc = ctypes.CDLL(None)
    if _ARENA_VARIABLE not in os.environ and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_ARENA_MAX, 1)
