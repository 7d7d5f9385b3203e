"""Small and quick to start: the program runs beside training and is started for each pass.

What each function brings, as measured with the sets of tests/benchmarks:

| function | brings |
| --- | --- |
| `without` | 107 MB and 15 % of the processor time: the BigQuery client imports pandas for frames alone |
| `limit_arenas` | 32 MB while files of 5 MB are uploaded (set B) |
| `importing`, `claim_process` | 55 ms a start, and 9 % of the processor time |
| what `importing` leaves for later, or out | 80 ms a start |
| `trusting_nobody` | 50 ms before the first request to the bucket |

`importing`, `without` and `trusting_nobody` change what all of the process shares, and do so only where the
program has claimed it. In somebody else's process, garbage that is frozen would never be freed, other threads
would not find their libraries, and who needs frames later would not get them.
"""

import atexit
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any, Final

#: Python looks for garbage after so many new objects. Requests leave next to none, so its default finds none.
_NEW_OBJECTS: Final = 20_000
#: The option of glibc's mallopt(3) that limits the number of arenas.
_M_ARENA_MAX: Final = -8
#: glibc's own variable for the same; a user's choice goes before.
_ARENA_VARIABLE: Final = "MALLOC_ARENA_MAX"
#: What requests imports to guess how a text is encoded that does not say it, of which nothing here makes use.
_GUESSERS: Final = ("chardet", "charset_normalizer")
#: How its warning begins where it finds none of them.
_NO_GUESSER: Final = "Unable to find acceptable character detection dependency"
#: What libraries import and most processes never look into: what Google's clients sign with by keys, what
#: reads XML, and checks of attrs. None of them makes itself known elsewhere, as messages of protobuf do: what
#: builds on such would not find it.
_LATER: Final = frozenset(
    {
        *("google.auth.crypt", "google.auth.iam", "google.auth.jwt", "jwt"),
        *("attr.validators", "xml.etree.ElementTree"),
    }
)


class _Process:
    claimed = False


class _Thread(threading.local):
    #: How many `importing` it is in.
    imports = 0
    trusts_nobody = False


_THREAD = _Thread()


class _Later:
    """Finds what is to be loaded when something of it is asked for, and not when `importing` imports it.

    The first versions of Python 3.11 and 3.12 do not guard that moment against other threads. Of what is in
    `_LATER` only logins make use, under a lock.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _THREAD.imports or fullname not in _LATER:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


def claim_process() -> None:
    """Take this process for the program's own.

    From now on garbage is looked for rarely, and not at all at the end of the process, which frees everything
    anyway.
    """
    _Process.claimed = True
    atexit.register(gc.freeze)
    sys.meta_path.insert(0, _Later())
    gc.set_threshold(_NEW_OBJECTS)
    warnings.filterwarnings("ignore", _NO_GUESSER)


_IMPORTING: Final = threading.RLock()


@contextmanager
def importing() -> Iterator[None]:
    """Do not look for garbage while modules are imported that import many others.

    Modules are objects by the ten thousand, and none of them is garbage. Later looks leave out all objects
    that exist at the end (`gc.freeze`): modules stay as long as the process, and what other threads made
    meanwhile is little.

    What few processes need is left for later (`_LATER`), and libraries that guess encodings are left out.

    One thread at a time: modules that import each other in a circle are found half made by a thread that
    enters it elsewhere.
    """
    with _IMPORTING:
        if not _Process.claimed:
            yield
            return
        was_enabled = gc.isenabled()
        gc.disable()
        _THREAD.imports += 1
        try:
            with without(*_GUESSERS):
                yield
        finally:
            _THREAD.imports -= 1
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


@contextmanager
def trusting_nobody() -> Iterator[None]:
    """Let TLS contexts that this thread makes meanwhile load no certificates.

    aiohttp makes two when it is imported, which nothing here connects by: see `login.certificates`. One that
    verifies and trusts nobody refuses everybody, so that whoever used it by mistake would connect to nobody.
    """
    if not _Process.claimed:
        yield
        return
    import ssl  # noqa: PLC0415 - `--help` does without

    if not hasattr(ssl.SSLContext.load_default_certs, "__wrapped__"):
        # They stay, as other threads may be in them when this one ends.
        for name in ("load_default_certs", "set_default_verify_paths"):
            setattr(ssl.SSLContext, name, _unless_nobody_is_trusted(getattr(ssl.SSLContext, name)))
    _THREAD.trusts_nobody = True
    try:
        yield
    finally:
        _THREAD.trusts_nobody = False


def _unless_nobody_is_trusted(load: Callable[..., None]) -> Callable[..., None]:
    @wraps(load)
    def load_unless(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - handed on
        if not _THREAD.trusts_nobody:
            load(*arguments, **options)

    return load_unless


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
