"""Small and quick to start: the program runs beside training and is started for each pass.

What each function brings, as measured with the sets of tests/benchmarks:

| function | brings |
| --- | --- |
| `without` | 107 MB and 15 % of the processor time: the BigQuery client imports pandas for frames alone |
| `limit_arenas` | 32 MB while files of 5 MB are uploaded (set B) |
| `importing`, `collect_rarely` | 55 ms a start, and 9 % of the processor time |
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


@contextmanager
def importing() -> Iterator[None]:
    """Do not look for garbage while modules are imported that import many others.

    Modules are objects by the ten thousand, and none of them is garbage. Later looks leave out all objects
    that exist at the end (`gc.freeze`): modules stay as long as the process, and what other threads made
    meanwhile is little.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def collect_rarely() -> None:
    """Look for garbage rarely, and not at all at the end of the process, which frees everything anyway."""
    atexit.register(gc.freeze)
    gc.set_threshold(_NEW_OBJECTS)


@contextmanager
def without(*libraries: str) -> Iterator[None]:
    """Let imports of these libraries fail meanwhile, as if they were not installed; those imported stay.

    None in the place of a module makes its import fail: see "The module cache" in Python's reference.
    """
    hidden = [name for name in libraries if name not in sys.modules]
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
    free memory would lie in pools that nobody takes from. Threads that share an interpreter's lock do not
    wait for each other in one pool.
    """
    import ctypes  # noqa: PLC0415 - `--help` does without

    libc = ctypes.CDLL(None)
    if _ARENA_VARIABLE not in os.environ and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_ARENA_MAX, 1)
