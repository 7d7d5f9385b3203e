"""Whether the results folder is there as it was, or its disk is away: then what is missing says nothing.

A mount that goes away leaves the empty folder that it lay on, or nothing, or errors for whoever looks. It may
be the results folder's, a project's or a dataset's. Folders are known by device and inode, as they were seen
by this process; a folder of another identity that holds all that was there is the same one mounted anew.

All methods block and may be called by several threads.
"""

import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pixaris_sync.errors import Failure, LocalFileError, SyncError, open_files_hint
from pixaris_sync.local.safe_open import MissingFileError, local_error, opened_folder
from pixaris_sync.model import DatasetKey
from pixaris_sync.text import printable

_HINT: Final = (
    "mount its disk again, or put the folder back: everything then goes on by itself. "
    "Where it is gone for good, restart pixaris-sync"
)

#: Device and inode.
_Identity = tuple[int, int]
_Parts = tuple[str, ...]


class AbsentError(LocalFileError):
    """A folder is not there as it was, and with it all below it: that passes, and nothing is judged by it.

    Attributes:
        whole: it is the results folder itself, and nothing at all can be done in it.
    """

    def __init__(self, subject: str, cause: str, *, whole: bool = False) -> None:
        super().__init__("work in folder", printable(subject), cause, hint=_HINT, failure=Failure.TRANSIENT)
        # The folder may be there, and this process cannot look.
        self.hint = open_files_hint(self) or _HINT
        self.whole = whole


class PartlyAbsentError(AbsentError):
    """What is missing or cannot be read in a folder is not judged; work goes on with all else in it."""


class Presence:
    """Knows the folders of one results folder, `root`, as they were when they were there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._known = False
        self._datasets: frozenset[DatasetKey] = frozenset()
        self._seen: dict[_Parts, _Identity] = {}

    def know(self, datasets: Collection[DatasetKey]) -> None:
        """Runs of these datasets are known, so that an empty results folder cannot be all there is."""
        self._known |= bool(datasets)

    def listed(self, datasets: Collection[DatasetKey]) -> None:
        """Take in what the results folder holds, while it is there."""
        with self._lock:
            if not datasets or self._is_another():
                return
            self._known = True
            self._datasets = frozenset(datasets)
            projects = {(key.project,) for key in datasets}
            for parts in [(), *sorted(projects), *((key.project, key.dataset) for key in datasets)]:
                with suppress(LocalFileError):
                    self._take(parts)

    def away(self) -> AbsentError | None:
        """Why nothing can be done in the results folder; None: it is there, or another one is."""
        try:
            with opened_folder(self._root, ()) as folder, os.scandir(folder) as entries:
                empty = all(entry.name.startswith(".") for entry in entries)
        except LocalFileError as error:
            return AbsentError(str(self._root), error.cause, whole=True)
        except OSError as error:
            cause = local_error("list", str(self._root), error).cause
            return AbsentError(str(self._root), cause, whole=True)
        if empty and self._known:
            return AbsentError(str(self._root), "it is empty, and runs were in it", whole=True)
        return None

    def absence(self, key: DatasetKey) -> AbsentError | None:
        """Why nothing can be done in a dataset's folder now; None: it is there, or was deleted."""
        if error := self.away():
            return error
        with self._lock:
            for parts in ((key.project,), (key.project, key.dataset)):
                if fault := self._absence_of(parts):
                    return AbsentError("/".join(parts), fault)
        return None

    def excuse(self, key: DatasetKey, error: SyncError) -> AbsentError | None:
        """Why nothing follows from what is wrong in a dataset; None: it is to be judged.

        That is `absence`; or the disk could not be asked; or something is missing while the results folder is
        another one, which lacks datasets.
        """
        if absent := self.absence(key):
            return absent
        if error.failure.retryable:
            return PartlyAbsentError(error.subject, error.cause)
        with self._lock:
            if isinstance(error, MissingFileError) and self._is_another():
                cause = "another folder is in its place, without all it held"
                return PartlyAbsentError(str(self._root), cause)
        return None

    def _take(self, parts: _Parts) -> None:
        """Note a folder as it is now; an empty one in the place of another is none."""
        with opened_folder(self._root, parts) as folder:
            identity = _identity(os.fstat(folder))
            known = self._seen.get(parts)
            if known is None or (known != identity and not _is_empty(folder)):
                self._seen[parts] = identity

    def _is_another(self) -> bool:
        """Whether another results folder is in the place of this one, which lacks what this one held."""
        known = self._seen.get(())
        try:
            identity = _identity(self._root.stat())
        except OSError:
            return False  # `away` tells.
        if known in (None, identity):
            return False
        if not all(self._is_there((key.project, key.dataset)) for key in self._datasets):
            return True
        # The same, mounted anew.
        self._seen = {(): identity}
        return False

    def _is_there(self, parts: Sequence[str]) -> bool:
        try:
            with opened_folder(self._root, parts):
                return True
        except LocalFileError:
            return False

    def _absence_of(self, parts: _Parts) -> str | None:
        known = self._seen.get(parts)
        try:
            with opened_folder(self._root, parts) as folder:
                other = known is not None and known != _identity(os.fstat(folder))
                return "it is empty, and was another folder before" if other and _is_empty(folder) else None
        except MissingFileError as error:
            return error.cause if known is not None and known[0] != self._device_above(parts) else None
        except LocalFileError as error:
            return error.cause if error.failure.retryable else None
        except OSError as error:
            return local_error("list", "/".join(parts), error).cause

    def _device_above(self, parts: _Parts) -> int | None:
        above = self._seen.get(parts[:-1])
        return above[0] if above else None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _is_empty(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return next(iter(entries), None) is None
