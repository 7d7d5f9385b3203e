"""The page cache is left as it was found: it belongs to the data that training reads again and again.

What reading a file brings in leaves again. What was there stays: whoever has it there may want it soon, and
what was written just now is not on the disk yet. A file counts as there when its first page is. Where the
file system cannot tell, all stays.

Sources: preadv2(2) for RWF_NOWAIT, posix_fadvise(2).
"""

import os
from contextlib import suppress

#: Builds of Python that run on old systems do not have it.
_WITHOUT_WAITING: int | None = getattr(os, "RWF_NOWAIT", None)
#: Where the byte that is asked for would go.
_NOWHERE = bytearray(1)


def is_cached(handle: int) -> bool:
    """Whether reading an open file would bring nothing new into the cache, or nobody can tell.

    Where it would, the kernel may begin to read: asked again, it may say the opposite.
    """
    if _WITHOUT_WAITING is None:
        return True
    try:
        os.preadv(handle, [_NOWHERE], 0, _WITHOUT_WAITING)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def forget(handle: int) -> None:
    """Take an open file out of the cache, but for what is not written to the disk yet."""
    with suppress(OSError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
