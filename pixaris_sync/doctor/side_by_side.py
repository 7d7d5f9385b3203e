"""Does several things at the same time, and waits for none of them longer than it wants to."""

import threading
import time
from collections.abc import Callable, Iterable


def side_by_side(jobs: Iterable[Callable[[], object]], seconds: float) -> None:
    """Call all of these, and return when all have ended, or after so many seconds.

    Each has a thread that keeps no process from ending. A name server that is silent holds its caller for
    half a minute, and a file server for ever, whatever time limit is set.
    """
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
