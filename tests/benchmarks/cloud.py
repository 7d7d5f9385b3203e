"""The benchmark's cloud, seen from the program that measures: started, told what to do, asked how it went."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

#: Above this share of its core, the server was what the clients waited for.
SERVER_BOUND_SHARE = 0.85

PROJECT, DATASET, BUCKET = "bench-project", "bench_dataset", "bench-bucket"


@dataclass(frozen=True, slots=True)
class Load:
    """What the server had used when it was asked.

    Attributes:
        cpu: seconds of its core.
        at: the machine's monotonic clock, in seconds.
    """

    cpu: float
    at: float

    def share_since(self, before: "Load") -> float:
        """The share of its core that it used since `before`."""
        return (self.cpu - before.cpu) / max(self.at - before.at, 1e-9)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the server holds: how many objects, a digest of their names and checksums, how many rows."""

    objects: int
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What was done, and not only what is there.

    Attributes:
        stored: how often an object was created or replaced.
        refused: how many uploads a precondition has refused, as the object was there.
        tables: by name, how many ``rows`` a table has, of how many ``runs``, and how many ``load_jobs`` it
            had.
    """

    stored: int
    refused: int
    tables: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class SeenUploads:
    """How uploads came and went; times are of the machine's monotonic clock, in seconds.

    Attributes:
        began_at: when the first one that was taken began; None: there was none.
        last_began_at: when the last one did.
        ended: for each object stored, when its upload ended, and how long all uploads together had been under
            way by then.
        refused: how many were not taken.
        cpu_seconds: what the server used from the first beginning to the last end.
    """

    began_at: float | None
    last_began_at: float
    ended: tuple[tuple[float, float], ...]
    refused: int
    cpu_seconds: float


class Cloud:
    """A running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def reset(
        self, latency_ms: float, *, with_md5: bool = False, at_once: int = 0, keep: bool = False
    ) -> None:
        """Forget everything, and answer with this latency from now on, with MD5 checksums or without.

        Of uploads, `at_once` are taken at the same time (0: all) and others refused with 503. With `keep`,
        their contents are kept, and can be downloaded.
        """
        self._ask("reset", f"?latency_ms={latency_ms}&md5={with_md5}&at_once={at_once}&keep={keep}")

    def set_latency(self, latency_ms: float) -> None:
        """Answer with this latency from now on."""
        self._ask("latency", f"?latency_ms={latency_ms}")

    def seed(self, objects: int, *, datasets: int, size: int) -> None:
        """Make objects of so many bytes in `BUCKET`, a hundred images a run, evenly in this many datasets."""
        self._ask("seed", f"?bucket={BUCKET}&objects={objects}&datasets={datasets}&size={size}")

    def counts(self) -> Mapping[str, int]:
        """Requests by kind since the last reset."""
        found: Mapping[str, int] = self._ask("counts")
        return found

    def uploads(self) -> SeenUploads:
        """How uploads came and went since the last reset."""
        found = self._ask("uploads")
        return SeenUploads(
            found["began_at"],
            found["last_began_at"],
            tuple((at, seconds) for at, seconds in found["ended"]),
            found["refused"],
            found["cpu_seconds"],
        )

    def load(self) -> Load:
        """What the server has used."""
        found = self._ask("load")
        return Load(found["cpu"], found["at"])

    def inventory(self) -> Inventory:
        """What the server holds."""
        return Inventory(**self._ask("inventory"))

    def stored(self) -> Stored:
        """What was stored since the last reset."""
        return Stored(**self._ask("stored"))

    def arrived_at(self, run: str) -> float | None:
        """When a run's row arrived, on the machine's monotonic clock; None while it has not."""
        found: float | None = self._ask("arrived", f"?run={quote(run)}")
        return found

    def _ask(self, what: str, query: str = "") -> Any:
        address = f"{self.address}/bench/{what}{query}"
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - the server started here
            return json.load(answer)


@contextmanager
def running_cloud(core: int | None) -> Iterator[Cloud]:
    """A server in a process of its own, pinned to `core` if one is given."""
    command = [sys.executable, "-m", "tests.benchmarks.server"]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Cloud(process.stdout.readline().strip())
        finally:
            # The server ends with its standard input.
            process.stdin.close()
