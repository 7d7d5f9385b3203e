"""One owner: at most one process works on a results folder.

There are three locks, all advisory (``flock``), all gone with their process, however that ends:

- on the results folder itself: it needs no file in there, and is seen by every process on the machine
  whatever its state folder;
- on a file beside the ledger: where the state folder is on a network file system, it is seen by processes
  on other machines too, and the file server takes it from a machine that has crashed. (A folder cannot be
  locked there: that takes a handle for writing.)
- on a file that stands for the folder's path: where a folder is moved away and another one put in its place
  while a process works there, both of the others are of the one that was moved.

Shards of one folder (`rules.shards`) share the lock on it, which keeps out whoever carries all of it. Of the
two files each shard has its own.

Beside the ledger a note tells who the owner is, for the message that the second one gets. A handler in a
training process owns its spool for moments, again and again: commands wait for it.
"""

import fcntl
import json
import logging
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct, to_builtins

from pixaris_sync.errors import FolderOwnedError
from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work

log = logging.getLogger(__name__)

#: The command that the note of a handler names.
STORE_RESULTS = "store_results"
#: How often the lock is tried while a handler holds it, and how long where the owner's note is not there: it
#: is written a moment after the lock was taken.
_TRY_AGAIN_SECONDS = 0.1
_UNTOLD_SECONDS = 1.0
#: Of the files that are locked. They stay: a lock on a removed file would keep nobody out.
LOCK_SUFFIX = ".lock"


class Owner(Struct, frozen=True):
    """Who owns a folder: a process on a host, doing `command` since `since` (seconds since the epoch).

    `selection` is which runs it carries; notes of older versions do not tell it.
    """

    pid: int
    host: str
    command: str
    since: float
    selection: Selection = EVERYTHING

    @property
    def work(self) -> Work:
        """What it does."""
        return Work(self.command, self.selection)

    def __str__(self) -> str:
        doing = "storing results" if self.command == STORE_RESULTS else self.work
        when = datetime.fromtimestamp(self.since, tz=UTC).isoformat(timespec="seconds")
        return f"process {self.pid} on {self.host} ({doing}, since {when})"


class Ownership:
    """The lock on a results folder, held while this context is entered.

    Args:
        folder: the results folder.
        note: where to say who the owner is, if it can be written there; its folder is made.
        command: what this process does.
        selection: which runs it carries; a shard shares the folder with other shards.
        path_lock: the file that stands for the folder's path.
        waits: whether to wait where a handler holds the lock.
    """

    def __init__(
        self,
        folder: Path,
        note: Path,
        command: str,
        *,
        selection: Selection = EVERYTHING,
        path_lock: Path,
        waits: bool = False,
    ) -> None:
        self._folder = folder
        self._note = note
        self._command = command
        self._selection = selection
        self._path_lock = path_lock
        self._waits = waits
        self._handles: list[int] = []

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            FolderOwnedError: another process holds it; the cause says which.
        """
        begun, is_told = time.monotonic(), False
        while True:
            try:
                self._take()
            except FolderOwnedError:
                owner, _ = _seen_owner(self._folder, self._note)
                untold = owner is None and time.monotonic() - begun < _UNTOLD_SECONDS
                if not self._waits or not (untold or (owner and owner.command == STORE_RESULTS)):
                    raise
                if owner is not None and not is_told:
                    is_told = True
                    log.info("%s is owned by %s: waiting for its end", self._folder, owner)
                time.sleep(_TRY_AGAIN_SECONDS)
            else:
                return self

    def _take(self) -> None:
        shared = self._selection.shard is not None
        self._lock(os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), shared=shared)
        # A state folder that cannot be written shows soon enough elsewhere.
        with suppress(OSError):
            self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for lock in (self._note.with_suffix(LOCK_SUFFIX), self._path_lock):
                self._lock(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        self._write_note()

    def _lock(self, handle: int, *, shared: bool = False) -> None:
        self._handles.append(handle)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            described = describe_owner(self._folder, self._note) or "another process on this machine"
            raise FolderOwnedError(
                "work on folder",
                str(self._folder),
                f"it is owned by {described}",
                hint="stop it first, or let it do the work: `pixaris-sync status` shows how far it is",
            ) from None
        except OSError:
            if len(self._handles) == 1:
                log.warning("%s cannot be locked: make sure that no other process works on it", self._folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        with suppress(OSError):
            self._note.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        while self._handles:
            handle = self._handles.pop()
            # A child that was forked meanwhile has the handle too: closing it would keep the lock.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _write_note(self) -> None:
        owner = Owner(os.getpid(), socket.gethostname(), self._command, time.time(), self._selection)
        fresh = self._note.with_suffix(".new")
        # It only serves a message: a full disk shows soon enough elsewhere.
        with suppress(OSError):
            self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_text(json.dumps(to_builtins(owner)), encoding="utf-8")
            fresh.chmod(0o600)
            fresh.replace(self._note)


def describe_owner(folder: Path, note: Path) -> str | None:
    """Who works on a folder, for people, by the note there or by the kernel's locks; None: nobody is seen.

    Raises:
        OSError: the folder is not there.
    """
    owner, pids = _seen_owner(folder, note)
    if owner is not None:
        return str(owner)
    return f"process {pids[0]} on this machine" if pids else None


def _seen_owner(folder: Path, note: Path) -> tuple[Owner | None, list[int]]:
    """The owner that a note names, if it can be the folder's, and which processes hold the folder's lock."""
    owner, pids = read_owner(note), _locking_pids(folder)
    # Its owner may work with another state folder, and the note here be of an earlier one.
    return (owner if owner is not None and (owner.pid in pids or not pids) else None), pids


def read_owner(note: Path) -> Owner | None:
    """The owner that a note names; None where there is no note, or its process is gone."""
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        owner = Owner(**{**told, "selection": Selection.of_document(told.get("selection", {}))})
        return None if is_gone(owner.host, owner.pid) else owner
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return None


def running_owner(folder: Path, note: Path) -> Owner | None:
    """The process of this machine that owns a folder; None where that is not certain.

    The kernel must know the lock as its: a number from an old note may be that of any other process by now.
    """
    owner = read_owner(note)
    if owner is None or owner.host != socket.gethostname():
        return None
    try:
        return owner if owner.pid in _locking_pids(folder) else None
    except OSError:
        return None


def is_gone(host: str, pid: int) -> bool:
    """Whether a process was one of this machine, and is there no more: it left its note when it was killed.

    Raises:
        OverflowError: no process has such a number.
    """
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # It lives, as another user.
    return False


def _locking_pids(folder: Path) -> list[int]:
    """Which processes hold an flock on a folder, by Linux' ``/proc/locks``; empty where that does not tell.

    A file of another disk with the same inode number counts too: devices are not named alike everywhere.
    """
    inode = str(folder.stat().st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        # "1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF" (proc(5)); "->" is one that waits.
        if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == inode and fields[4].isdigit():
            found.append(int(fields[4]))
    return [pid for pid in found if pid > 0]
