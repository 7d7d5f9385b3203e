"""What was measured, and what follows from it."""

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.cloud import SERVER_BOUND_SHARE
from tests.benchmarks.contenders import OURS

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """What is carried, and how far the cloud is.

    Attributes:
        what: the name of a set, or of a set with `AGAIN` behind it where everything is there already.
        latency_ms: of every answer.
    """

    what: str
    latency_ms: float

    def title(self, described: str) -> str:
        """As a heading."""
        return f"{self.what}: {described}, {self.latency_ms:g} ms"


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of one contender.

    Attributes:
        case: what it did.
        contender: its name.
        repeat: in which round; runs of one round are compared with each other.
        wall_seconds: from start to end of the process.
        cpu_seconds: user and system time, children included.
        peak_bytes: resident memory.
        requests_per_file: requests to GCS for each file of the set.
        server_share: the share of its core that the server used.
        share_of_set: the part of the set that was given; the rest of the time is extrapolated.
        counts: requests by kind.
    """

    case: Case
    contender: str
    repeat: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    requests_per_file: float
    server_share: float
    share_of_set: float = 1.0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def server_bound(self) -> bool:
        """Whether the server, and not the contender, decided how long it took."""
        return self.server_share > SERVER_BOUND_SHARE


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and what it lies between."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of these values.

        Raises:
            ValueError: there is none.
        """
        known = list(values)
        if not known:
            raise ValueError("no values")
        return cls(statistics.median(known), min(known), max(known))

    def text(self, digits: int = 2) -> str:
        """Median, and least to most where they differ."""
        median, least, most = (f"{value:.{digits}f}" for value in (self.median, self.least, self.most))
        return median if least == most else f"{median} ({least}-{most})"


@dataclass(frozen=True, slots=True)
class Standing:
    """One contender in one case.

    Attributes:
        contender: its name.
        wall: seconds.
        cpu: seconds.
        peak: bytes.
        requests_per_file: requests to GCS.
        wall_ratio: its wall time over pixaris-sync's in the same round; None without that.
        cpu_ratio: the same of CPU time.
        server_bound: the server was the limit in a round.
        share_of_set: see `Run`.
    """

    contender: str
    wall: Spread
    cpu: Spread
    peak: Spread
    requests_per_file: float
    wall_ratio: Spread | None
    cpu_ratio: Spread | None
    server_bound: bool
    share_of_set: float


def standings(runs: Sequence[Run], case: Case) -> list[Standing]:
    """The contenders of a case, pixaris-sync first, then by wall time."""
    of_case = [run for run in runs if run.case == case]
    ours = {run.repeat: run for run in of_case if run.contender == OURS}
    found = []
    for contender in dict.fromkeys(run.contender for run in of_case):
        mine = [run for run in of_case if run.contender == contender]
        pairs = [(run, ours[run.repeat]) for run in mine if run.repeat in ours]
        found.append(
            Standing(
                contender,
                Spread.of(run.wall_seconds for run in mine),
                Spread.of(run.cpu_seconds for run in mine),
                Spread.of(run.peak_bytes for run in mine),
                statistics.median(run.requests_per_file for run in mine),
                Spread.of(run.wall_seconds / our.wall_seconds for run, our in pairs) if pairs else None,
                Spread.of(run.cpu_seconds / our.cpu_seconds for run, our in pairs) if pairs else None,
                any(run.server_bound for run in mine),
                min(run.share_of_set for run in mine),
            )
        )
    return sorted(found, key=lambda standing: (standing.contender != OURS, standing.wall.median))


def table(runs: Sequence[Run], descriptions: Mapping[str, str]) -> str:
    """All cases as text that is Markdown too.

    Args:
        runs: what was measured.
        descriptions: of each case's set, by the case's `what`.
    """
    lines: list[str] = []
    notes: set[str] = set()
    for case in dict.fromkeys(run.case for run in runs):
        heads = ("", "wall s", "CPU s", "peak MB", "requests/file", "wall ratio", "CPU ratio")
        rows = [heads, *(_row(standing, notes) for standing in standings(runs, case))]
        lines += ["", f"### {case.title(descriptions[case.what])}", "", *table_lines(rows)]
    lines += ["", "Ratios are to pixaris-sync in the same round: median (least-most).", *sorted(notes)]
    return "\n".join(lines).lstrip("\n")


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as a Markdown table, in columns of equal width; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return [head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body]


def _row(standing: Standing, notes: set[str]) -> tuple[str, ...]:
    marks = ""
    if standing.share_of_set < 1:
        marks += "*"
        notes.add("* Measured on a part of the set and extrapolated.")
    if standing.server_bound:
        marks += "!"
        notes.add("! The server was the limit: the contender may be faster than this.")
    return (
        standing.contender + marks,
        standing.wall.text(),
        standing.cpu.text(),
        f"{standing.peak.median / MEGABYTE:.0f}",
        f"{standing.requests_per_file:.2f}",
        standing.wall_ratio.text() if standing.wall_ratio else "",
        standing.cpu_ratio.text() if standing.cpu_ratio else "",
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def write_json(path: Path, runs: Sequence[Run], descriptions: Mapping[str, str]) -> None:
    """Everything that was measured, and what follows from it, for machines."""
    cases = dict.fromkeys(run.case for run in runs)
    document = {
        "machine": machine(),
        "sets": dict(descriptions),
        "standings": [
            {"case": asdict(case), "contenders": [asdict(standing) for standing in standings(runs, case)]}
            for case in cases
        ],
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json_text(document))


def json_text(document: Mapping[str, Any]) -> str:
    """A document as JSON in which each entry of a list has a line of its own: changes are easy to read."""
    return _json_part(document) + "\n"


def _json_part(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(_json_part, value)) + "\n]"
    if isinstance(value, dict) and any(isinstance(part, list) for part in value.values()):
        return "{" + ",\n".join(f"{json.dumps(key)}: {_json_part(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)
