"""One owner: at most one process works on a results folder.

The lock is an advisory ``flock`` on the results folder itself: it needs no file in there, is seen by every
process on the machine whatever its state folder, and vanishes with the process, however that ends. Beside
the ledger a note tells who the owner is, for the message that the second one gets.
"""

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pixaris_sync.errors import FolderOwnedError


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a folder: a process on a host, doing `command` since `since` (seconds since the epoch)."""

    pid: int
    host: str
    command: str
    since: float

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.since, tz=UTC).isoformat(timespec="seconds")
        return f"process {self.pid} on {self.host} (pixaris-sync {self.command}, since {when})"


class Ownership:
    """The lock on a results folder, held while this context is entered.

    Args:
        folder: the results folder.
        note: where to say who the owner is; its folder exists.
        command: what this process does.
    """

    def __init__(self, folder: Path, note: Path, command: str) -> None:
        self._folder = folder
        self._note = note
        self._command = command
        self._handle = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            FolderOwnedError: another process holds it; the cause says which.
        """
        self._handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise FolderOwnedError(
                "work on folder",
                str(self._folder),
                f"it is owned by {self._describe_owner()}",
                hint="stop it first, or let it do the work: `pixaris-sync status` shows how far it is",
            ) from None
        except OSError:
            # A file system without flock on folders: the ledger's own locks still guard the state.
            pass
        self._write_note()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._note.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        os.close(self._handle)
        self._handle = -1

    def _write_note(self) -> None:
        owner = Owner(os.getpid(), socket.gethostname(), self._command, time.time())
        fresh = self._note.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(self._note)

    def _describe_owner(self) -> str:
        owner = read_owner(self._note)
        if owner is not None:
            return str(owner)
        pid = _locking_pid(self._folder)
        return f"process {pid} on this machine" if pid else "another process on this machine"


def read_owner(note: Path) -> Owner | None:
    """Who says to own the folder that this note is about; None where nobody does."""
    try:
        return Owner(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _locking_pid(folder: Path) -> int | None:
    """Which process holds an flock on a folder, by Linux' ``/proc/locks``; None where that does not tell."""
    inode = str(folder.stat().st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:  # noqa: PLR2004 - proc(5)
            return int(fields[4])
    return None
