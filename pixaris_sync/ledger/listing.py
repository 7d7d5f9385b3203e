"""All ledgers of a state folder, also those of folders that are gone, and how one is forgotten."""

from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import SUFFIX, Home, home_in
from pixaris_sync.ledger.numbers import Numbers, numbers
from pixaris_sync.ledger.rescue import COMPANIONS, SET_ASIDE

#: What lies beside a ledger for its owner and those who ask it. The empty files that are locked stay: a lock
#: on a removed file would keep nobody out.
_BESIDE = (
    ".owner",
    ".new",
    ".limits.json",
    ".limits.wanted.json",
    ".limits.aside.json",
    ".shard.json",
    ".shard.new",
)


class KnownLedger(Struct, frozen=True):
    """A ledger, as far as it tells.

    Attributes:
        path: where it is; the name of this file is its name.
        set_aside: it was damaged, and another one took its place.
        home: what it belongs to; None: it does not say, as older versions made it.
        folder_is_there: whether the results folder is there now.
        bytes: its size on the disk.
        numbers: how much is in which state; None: that cannot be read, for the `trouble`.
        trouble: why not.
    """

    path: Path
    set_aside: bool
    home: Home | None
    folder_is_there: bool
    bytes: int
    numbers: Numbers | None
    trouble: str


def known_ledgers(state_folder: Path) -> list[KnownLedger]:
    """All ledgers there, by their names; nothing is written.

    Raises:
        OSError: the folder cannot be listed; one that is not there holds none.
    """
    try:
        names = sorted(path.name for path in state_folder.iterdir())
    except FileNotFoundError:
        return []
    set_aside = {name for name in names if f"{SUFFIX}{SET_ASIDE}" in name and not name.endswith(COMPANIONS)}
    return [_look(state_folder / name) for name in names if name.endswith(SUFFIX) or name in set_aside]


def _look(path: Path) -> KnownLedger:
    set_aside = not path.name.endswith(SUFFIX)
    home = home_in(path)
    found: Numbers | None = None
    trouble = "it was damaged, and another one took its place" if set_aside else ""
    if not set_aside:
        try:
            with closing(Ledger.open(path, read_only=True)) as ledger:
                found = ledger.read(partial(numbers, at_work=False))
        except LedgerError as error:
            trouble = error.cause
    folder_is_there = False
    if home is not None:
        with suppress(OSError):
            folder_is_there = Path(home.folder).is_dir()
    size = sum(_size(one) for one in _files(path))
    return KnownLedger(path, set_aside, home, folder_is_there, size, found, trouble)


def forget(ledger: KnownLedger) -> list[Path]:
    """Remove a ledger's files, and no others. Nobody may be working with it: the caller holds its lock.

    Returns:
        What was removed.

    Raises:
        OSError: something cannot be removed; what is left is found again.
    """
    removed = [path for path in _files(ledger.path) if path.exists()]
    # The database last: as long as it is there, the rest is its.
    for path in reversed(removed):
        path.unlink(missing_ok=True)
    return removed


def _files(path: Path) -> list[Path]:
    beside = [] if SET_ASIDE in path.name else [path.with_suffix(suffix) for suffix in _BESIDE]
    return [path, *(path.with_name(path.name + companion) for companion in COMPANIONS), *beside]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
