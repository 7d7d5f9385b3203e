"""Finds the ledger of a results folder and a destination.

What a ledger belongs to stands in it, not in its name: its *home*, which its owner writes down whenever it
begins to work. So a folder that was moved or mounted elsewhere finds its ledger, and no file is ever renamed
that SQLite may have open. In this order it is looked for, among the ledgers of the same destination:

1. Its home is at this path, and is this folder by device and inode; or the folder is missing just now.
2. Its home is at this path, with another device or inode: disks are numbered anew when they are mounted, and
   a backup is restored into new inodes. It is the same folder where it holds a run that the ledger knows; a
   ledger that knows none has nothing to mix up. Else what stood here was moved away, its ledger stays with
   it, and this is another folder.
3. Its home was at this path, and there is an empty folder now: the one that its disk is mounted on. Its home
   stays as it is, so that a folder that was moved away finds it too.
4. It says nothing of a home, and has a name that this folder's would have: an older version made it, or it is
   damaged, or only begun.
5. Its home was at another path, and is this folder by device and inode. Both numbers are used again once a
   folder is gone or a disk is mounted, so that the folder must hold a run that the ledger knows, and of two
   such ledgers neither is taken.

Each shard of a folder has one of its own, which is looked for in the same way.

Else it is a new one. A wrong guess costs reads and no second row: a new ledger asks before it sends, and what
a ledger knows beyond a folder's runs is history.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from pixaris_sync.ledger.database import get_fact, peek, set_fact
from pixaris_sync.model import RunKey
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.model import Settings

#: Under this name a ledger remembers its home.
HOME = "home"
SUFFIX = ".sqlite3"

#: What stands in the name of a shard's ledger.
_OF_SHARD = re.compile(r"\.shard(\d+of\d+)[.-]")

#: Whether a run's folder stands in the results folder.
Holds = Callable[[RunKey], bool]


class Home(Struct, frozen=True):
    """What a ledger belongs to.

    Attributes:
        destination: the names of bucket, BigQuery project and dataset, and the emulators. The project that
            jobs run in is no part of it.
        folder: the results folder's absolute path, without links.
        device: of the results folder; None while that is missing.
        inode: likewise.
        owned_at: when a process last began to work on it, in seconds since the epoch; 0: never.
        shard: the part of the folder that it knows alone, such as ``2/4``; empty: it knows all of it.
    """

    destination: tuple[str, ...]
    folder: str
    device: int | None
    inode: int | None
    owned_at: float = 0.0
    shard: str = ""

    def is_same_folder(self, other: "Home") -> bool:
        """Whether device and inode are the same, whatever the path."""
        return (self.device, self.inode) == (other.device, other.inode)


class FoundLedger(NamedTuple):
    """Which ledger is that of a results folder and a destination.

    Attributes:
        path: where it is, or is to be made.
        home: what it belongs to from now on.
        path_lock: a file that stands for the folder's path, to be locked by who works there.
        moved_from: where the folder was when it was worked with last, where that was elsewhere.
        left: for a new one: the ledger of another folder, which was at this path before.
    """

    path: Path
    home: Home
    path_lock: Path
    moved_from: str | None = None
    left: Path | None = None


def find_ledger(settings: Settings, holds: Holds, shard: Shard | None = None) -> FoundLedger:
    """The ledger of the settings' results folder and destination; nothing is written.

    Args:
        settings: which folder, which destination, and where ledgers are.
        holds: looks into that folder.
        shard: the ledger of this part of the folder, not that of all of it.
    """
    state, here = settings.state_folder, _home_of(settings, shard)
    names = _names(settings, here)
    first = state / names[0]
    lock = first.with_suffix(".path.lock")
    homes = {path: home_in(path) for path in _ledgers(state, shard)}
    alike = {
        path: home
        for path, home in homes.items()
        if home is not None and (home.destination, home.shard) == (here.destination, here.shard)
    }
    at_path = [path for path, home in alike.items() if home.folder == here.folder]
    # Of copies of one ledger, the one that was worked with last.
    at_path.sort(key=lambda path: alike[path].owned_at, reverse=True)
    for path in at_path:
        if here.inode is None or alike[path].is_same_folder(here):
            return FoundLedger(path, here, lock)
    said = {path: _is_known(path, holds) for path in at_path}
    # One that knows none may be of the empty folder that a disk is mounted on.
    for path in sorted(said, key=lambda path: said[path] is None):
        if said[path] is not False:
            return FoundLedger(path, here, lock)
    if at_path and _is_empty(settings.local_results_folder):
        return FoundLedger(at_path[0], alike[at_path[0]], lock)
    numbered = (path for path in homes if path.name.startswith(f"{first.stem}-"))
    for path in (first, state / names[1], *numbered):
        if homes.get(path) is None and may_exist(path):
            return FoundLedger(path, here, lock)
    moved = [path for path, home in alike.items() if home.is_same_folder(here) and _is_known(path, holds)]
    if len(moved) == 1:
        return FoundLedger(moved[0], here, lock, moved_from=alike[moved[0]].folder)
    return FoundLedger(_free(first, homes), here, lock, left=at_path[0] if at_path else None)


def may_exist(path: Path) -> bool:
    """Whether a ledger may be there; where that cannot be told, to open it tells why."""
    try:
        return path.exists()
    except OSError:
        return True


def remember_home(db: sqlite3.Connection, home: Home, now: float) -> None:
    """Write down what a ledger belongs to, as its owner."""
    set_fact(db, HOME, json.dumps(to_builtins(replace(home, owned_at=now))))


def _ledgers(state: Path, shard: Shard | None) -> list[Path]:
    """The ledgers that may be the one that is looked for, by their names.

    Those of other shards are not opened: their machines may be writing them, over a network file system.
    """
    with suppress(OSError):
        found = sorted(state.glob(f"*{SUFFIX}"))
        return [
            path for path in found if _part_in(path) == (f"{shard.number}of{shard.count}" if shard else "")
        ]
    return []


def _part_in(path: Path) -> str:
    """The shard whose ledger has this name; empty: it is of a whole folder."""
    found = _OF_SHARD.search(path.name)
    return found[1] if found else ""


def home_in(path: Path) -> Home | None:
    """What a ledger says of its home; None where it says nothing or cannot be read."""
    try:
        fact = peek(path, partial(get_fact, name=HOME))
        found = json.loads(fact or "{}")
        return Home(**{**found, "destination": tuple(found["destination"])})
    except (OSError, sqlite3.Error, ValueError, TypeError, KeyError):
        return None


def _is_known(path: Path, holds: Holds) -> bool | None:
    """Whether the results folder holds a run that a ledger knows; None where it knows none or is damaged."""

    def look(db: sqlite3.Connection) -> bool | None:
        found = None
        for run in db.execute(
            "SELECT project, dataset, name FROM runs JOIN datasets ON datasets.id = runs.dataset_id"
            " ORDER BY runs.id DESC"
        ):
            found = holds(RunKey(*run))
            if found:
                break
        return found

    try:
        return peek(path, look)
    except (OSError, sqlite3.Error):
        return None  # At its own path it is to be found, told of and rebuilt.


def _is_empty(folder: Path) -> bool:
    try:
        return all(path.name.startswith(".") for path in folder.iterdir())
    except OSError:
        return False


def destination_of(settings: Settings) -> tuple[str, ...]:
    """A destination's identity, as `Home.destination` is."""
    goal = settings.destination
    emulators = (settings.storage_emulator_host or "", settings.bigquery_emulator_host or "")
    # An emulator is a destination of its own, so that trying things out never touches a real ledger.
    hosts = (host.rpartition("://")[2].rstrip("/") for host in emulators)
    return (goal.bucket, goal.bq_project, goal.bq_dataset_id, *hosts)


def _home_of(settings: Settings, shard: Shard | None) -> Home:
    destination, part = destination_of(settings), str(shard or "")
    folder = settings.local_results_folder.resolve()
    try:
        status = folder.stat()
    except OSError:
        return Home(destination, str(folder), None, None, shard=part)
    return Home(destination, str(folder), status.st_dev, status.st_ino, shard=part)


def _names(settings: Settings, home: Home) -> tuple[str, str]:
    """The name for a new ledger, and the one that older versions gave, by the spelling of settings."""
    bucket, project, dataset, *hosts = home.destination
    spelled = (settings.storage_emulator_host or "", settings.bigquery_emulator_host or "")
    return (
        _name(home, project, f"{project}.{dataset}", bucket, *hosts),
        _name(home, settings.gcp_project_id, settings.gcp_bq_experiment_dataset, bucket, *spelled),
    )


def _name(home: Home, *destination: str) -> str:
    folder, part = home.folder, f".shard{home.shard.replace('/', 'of')}" if home.shard else ""
    identity = "\0".join([folder, *destination])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    shown = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(folder).name)[:40]
    return f"{shown}-{digest}{part}{SUFFIX}"


def _free(path: Path, taken: Collection[Path]) -> Path:
    """A path for a new ledger: the first choice may be that of a folder which has moved."""
    choices = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(choice for choice in chain([path], choices) if choice not in taken)
