"""Finds the names of runs as GCPExperimentHandler does: the day before them, and more where that is taken.

Whoever writes the first object under a name has it: the bucket lets one writer create an object. So of two
machines that ask in the same instant, one goes on to the next name. What remains of a process that is killed
between that and the end of storing is one object without a row.
"""

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain, count
from typing import Final

import google_crc32c
from msgspec import Struct

from pixaris_sync.errors import Failure, ObjectConflictError, SyncError
from pixaris_sync.handlers.record import FILE_NAME_BYTES_MAX, cut, tame
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.ports import ObjectStore
from pixaris_sync.rules.contract import GENERATED_IMAGES, content_type, object_name, object_prefix
from pixaris_sync.rules.names import OBJECT_NAME_BYTES_MAX

#: The text with which an object tells whose name it is under.
OWNER: Final = "pixaris-sync-run"
#: What is kept free behind a run's name for what is added to it.
_ADDED_BYTES: Final = 32
_FOLDER_BYTES_MAX: Final = FILE_NAME_BYTES_MAX - _ADDED_BYTES
_FILE_BYTES_MAX: Final = len(f"/{GENERATED_IMAGES}/") + FILE_NAME_BYTES_MAX


class FirstFile(Struct, frozen=True):
    """The file of a run with which its name is taken: its path in the run's folder, and its content."""

    path: str
    content: bytes


def wanted_name(key: DatasetKey, name: str, now: datetime) -> str:
    """The name that a run is to have: ``<yymmdd>-<name>``.

    Slashes make folders, as in Pixaris. Any name is made usable: a part that is no name of a folder gets a
    mark, so does each character that no object's name can have, and what is too long is cut.
    """
    parts = [tame(part) for part in f"{now:%y%m%d}-{name}".split("/")]
    usable = [part if part.strip(".") and part != GENERATED_IMAGES else f"_{part}" for part in parts]
    named = "/".join(cut(part, _FOLDER_BYTES_MAX) for part in usable)
    room = OBJECT_NAME_BYTES_MAX - len(object_prefix(key).encode()) - _FILE_BYTES_MAX - _ADDED_BYTES
    return cut(named, room).rstrip("/")


def lone_names(wanted: str, now: datetime) -> Iterator[str]:
    """Names that nobody else gives, for whoever cannot ask: ``<wanted>-<HHMMSS>-<6 hex digits>``."""
    while True:
        yield f"{wanted}-{now:%H%M%S}-{secrets.token_hex(3)}"


async def take_name(
    store: ObjectStore,
    key: DatasetKey,
    wanted: str,
    *,
    now: datetime,
    is_taken: Callable[[str], bool],
    first_file: FirstFile | None,
) -> str:
    """Take the first free of ``<wanted>``, ``<wanted><HHMM>``, ``<wanted><HHMM>-2``, and so on.

    One request tells the names that are taken, whatever else is in the bucket.

    Args:
        store: the bucket.
        key: the dataset.
        wanted: as `wanted_name` gives it.
        now: the time that is added.
        is_taken: whether this machine knows a name as taken.
        first_file: what the name is taken with; None: the run has no file, and the name is not taken.

    Raises:
        SyncError: the bucket cannot be asked, or does not take the file.
    """
    prefix = f"{object_prefix(key)}{wanted}"
    known = {ending async for page in store.folders(prefix) for ending in page}
    later = f"{now:%H%M}"
    for ending in chain(["", later], (f"{later}-{number}" for number in count(2))):
        name = f"{wanted}{ending}"
        if ending in known or is_taken(name):
            continue
        if first_file is None or await _is_ours(store, RunKey(key.project, key.dataset, name), first_file):
            return name
    raise AssertionError("there is always another name")


async def _is_ours(store: ObjectStore, run: RunKey, file: FirstFile) -> bool:
    """Create a run's first object, and tell whether the name is ours by that."""
    name, owner = object_name(run, file.path), secrets.token_hex(16)
    try:
        created = await store.upload(
            name,
            file.content,
            content_type=content_type(file.path),
            crc32c=google_crc32c.value(file.content),
            if_generation=0,
            metadata={OWNER: owner},
        )
    except SyncError as error:
        if not isinstance(error, ObjectConflictError) and error.failure is not Failure.IN_DOUBT:
            raise
        # Our own answer may be the one that was lost.
        found = await store.stat(name)
        if found is None:
            raise
        if (found.metadata or {}).get(OWNER) != owner:
            return False
        created = found
    # Another machine may have begun with another file: who was first has the name.
    others = [
        one.generation async for page in store.list(object_name(run, "")) for one in page if one.name != name
    ]
    return all(created.generation < other for other in others)
