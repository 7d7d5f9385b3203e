"""What must be in the cloud in the end, told from the local folder alone, without the package's own code."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c

from pixaris_sync.model import RunKey
from tests.support.stored_runs import TRACKING_FILE

Record = Mapping[str, Any]


class ExpectedCloud:
    """What one results folder asks for, read whenever it is asked; only committed runs count.

    A line that is still being written is not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self) -> Iterator[tuple[RunKey, Record]]:
        """Every tracking record; equal lines are one."""
        for tracking in sorted(self.folder.glob(f"*/*/{TRACKING_FILE}")):
            project, dataset = tracking.parts[-3:-1]
            for line in dict.fromkeys(tracking.read_bytes().split(b"\n")[:-1]):
                record = json.loads(line)
                yield RunKey(project, dataset, record["experiment_run_name"]), record

    def lines(self) -> Counter[RunKey]:
        """How many tracking records each run has."""
        return Counter(run for run, _ in self.records())

    def objects(self) -> dict[str, str | Record]:
        """Every object that there must be, and what is in it.

        Returns:
            By name, the base64 of a file's crc32c as GCS tells it, or the dict that its JSON must hold.
        """
        found: dict[str, str | Record] = {}
        for run, record in self.records():
            for name, content in self._objects_of(run, record):
                found[name] = content if isinstance(content, Mapping) else _crc32c(content)
        return found

    def objects_by_run(self) -> dict[RunKey, set[str]]:
        """The names of the objects of each run."""
        found: dict[RunKey, set[str]] = {}
        for run, record in self.records():
            found.setdefault(run, set()).update(name for name, _ in self._objects_of(run, record))
        return found

    def _objects_of(self, run: RunKey, record: Record) -> Iterator[tuple[str, Path | Record]]:
        prefix = f"results/{run}"
        folder = self.folder / run.project / run.dataset / run.run
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "args.json":
                yield f"{prefix}/{path.relative_to(folder).as_posix()}", path
        for key, value in record.items():
            # A dict that was an arg is a file, and stands in the record by its path: this one is a metric.
            if isinstance(value, dict):
                yield f"{prefix}/{key}.json", value

    def fingerprint(self) -> dict[str, tuple[int, int, int]]:
        """Size, mtime and inode of everything in the folder."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            found[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return found


def _crc32c(path: Path) -> str:
    return base64.b64encode(google_crc32c.value(path.read_bytes()).to_bytes(4, "big")).decode()
