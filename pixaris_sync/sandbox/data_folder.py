"""The folder that a sandbox keeps its data in: whose it is, who uses it, and at which ports it was found."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixaris_sync.errors import ConfigurationError

#: What the folder is recognised by, and which layout it has.
_NOTE = "sandbox.json"
_NEW_NOTE = f"{_NOTE}.new"
_LAYOUT = 2
_LOCK = "sandbox.lock"
#: What is in a folder of the first layout, which had no note.
_FIRST_LAYOUT = {"storage", "bigquery"}
_HINT = "name an empty folder, or one of an earlier sandbox, with --data-dir"
#: Emulators whose sandbox was killed end within this time.
FAREWELL_SECONDS = 15.0
_LOOK_SECONDS = 0.1


class DataFolder:
    """A data folder, used by this process alone until `close`; emulators that have `lock` use it, too.

    Args:
        path: the folder; it is made where it is missing.

    Raises:
        ConfigurationError: it cannot be used; the cause says why, and by whom it is used already.

    Attributes:
        path: the folder.
        lock: a handle to hand on to the emulators: the folder is free when all have ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._check()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(
                error.strerror or str(error), "name a folder that can be written to"
            ) from None
        try:
            self._take()
            self._note = self._read_note()
            # From now on it is known as ours.
            self.remember(self._note["ports"])
        except BaseException:
            self.close()
            raise

    def port(self, name: str) -> int:
        """At which port an emulator was found before; 0: nowhere."""
        found: int = self._note["ports"].get(name, 0)
        return found

    def remember(self, ports: Mapping[str, int]) -> None:
        """Remember at which ports the emulators are found."""
        self._note["ports"] = dict(ports)
        fresh = self.path / _NEW_NOTE
        fresh.write_text(json.dumps(self._note), encoding="utf-8")
        fresh.replace(self.path / _NOTE)

    def close(self) -> None:
        """Let others use it, once the emulators have ended."""
        os.close(self.lock)

    def _check(self) -> None:
        """Make sure that it is ours, or empty, or not there."""
        try:
            names = {entry.name for entry in self.path.iterdir()}
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error.strerror or str(error), _HINT) from None
        if names and _NOTE not in names and not names <= {*_FIRST_LAYOUT, _LOCK, _NEW_NOTE}:
            raise self._unusable("it holds files that are no sandbox's", _HINT)

    def _take(self) -> None:
        deadline = time.monotonic() + FAREWELL_SECONDS
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(self.lock, 20, 0).decode(errors="replace").strip()
                # Of one that was killed, the emulators end by themselves.
                if time.monotonic() > deadline or (owner.isdigit() and Path(f"/proc/{owner}").exists()):
                    raise self._unusable(
                        f"the sandbox of process {owner or 'unknown'} uses it",
                        "end that one first, or name another folder with --data-dir",
                    ) from None
                time.sleep(_LOOK_SECONDS)
            else:
                os.ftruncate(self.lock, 0)
                os.pwrite(self.lock, str(os.getpid()).encode(), 0)
                return

    def _read_note(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"layout": _LAYOUT, "ports": {}}
        try:
            found = json.loads((self.path / _NOTE).read_bytes())
            if found["layout"] == _LAYOUT and all(isinstance(port, int) for port in found["ports"].values()):
                return {"layout": _LAYOUT, "ports": found["ports"]}
            cause = f"its data has layout {found['layout']}, and this version knows {_LAYOUT}"
        except FileNotFoundError:
            return fresh
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            cause = f"its {_NOTE} cannot be understood"
        raise self._unusable(cause, _HINT)

    def _unusable(self, cause: str, hint: str) -> ConfigurationError:
        return ConfigurationError("use data folder", str(self.path), cause, hint=hint)
