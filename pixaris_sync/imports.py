"""Imports that cost no more than they must.

Python looks for garbage whenever so many objects have been made, now and then among all there are. Modules
are objects by the ten thousand and none of them is garbage: while much is imported, a fifth of the time goes
into looking at them.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import modules within, of which many others come: garbage is not looked for meanwhile.

    What there is at the end is not looked at ever after (`gc.freeze`): it stays as long as the process. Of
    what other threads are at meanwhile, that is so little that it does not matter.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
