"""Memory goes back where it can be used again.

glibc gives each thread a pool of its own ("arena"). Contents of files are read in one thread and freed in
another, so that what is free lies in pools that nobody takes from while new memory is fetched: it costs up to
a third more memory, and time for the system to fetch it. Threads that share an interpreter's lock do not get
into each other's way in one pool.

Source: mallopt(3), M_ARENA_MAX.
"""

import ctypes
import os
from typing import Final

_M_ARENA_MAX: Final = -8
#: glibc's own variable; whoever sets it knows better.
_VARIABLE: Final = "MALLOC_ARENA_MAX"


def limit_arenas() -> None:
    """Let all threads that begin after this share one pool of memory; nothing where there is no glibc."""
    libc = ctypes.CDLL(None)
    if _VARIABLE not in os.environ and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_ARENA_MAX, 1)
