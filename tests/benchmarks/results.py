"""What was measured, and what follows from it."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.cloud import SERVER_BOUND_SHARE
from tests.benchmarks.contenders import OBSTORE, OURS, RAW

MEGABYTE = 1_000_000
FREE, SHARED = "free", "shared"
#: Settings of the machine, in words.
SETTINGS: Final = {FREE: "free machine", SHARED: "core shared with a busy loop"}


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """What is carried, how far the cloud is, and what else the client's core does.

    Attributes:
        what: the name of a set, or of a set with `AGAIN` behind it where everything is there already.
        latency_ms: of every answer.
        setting: of the machine, one of `SETTINGS`.
    """

    what: str
    latency_ms: float
    setting: str = FREE

    def title(self, described: str) -> str:
        """As a heading."""
        return f"{self.what}: {described}, {self.latency_ms:g} ms, {SETTINGS[self.setting]}"

    def named(self) -> tuple[str, str]:
        """As the first two cells of a row: what and how far, and the setting."""
        return f"{self.what}, {self.latency_ms:g} ms", self.setting


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
        first_upload_seconds: from the start of the process until its first upload arrived; None: there was
            none.
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
    first_upload_seconds: float | None = None

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
        first_upload: seconds until the first upload arrived; None: there was none.
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
    first_upload: Spread | None


def standings(runs: Sequence[Run], case: Case) -> list[Standing]:
    """The contenders of a case, pixaris-sync first, then by wall time."""
    of_case = [run for run in runs if run.case == case]
    ours = {run.repeat: run for run in of_case if run.contender == OURS}
    found = []
    for contender in dict.fromkeys(run.contender for run in of_case):
        mine = [run for run in of_case if run.contender == contender]
        pairs = [(run, ours[run.repeat]) for run in mine if run.repeat in ours]
        firsts = [run.first_upload_seconds for run in mine if run.first_upload_seconds is not None]
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
                Spread.of(firsts) if firsts else None,
            )
        )
    return sorted(found, key=lambda standing: (standing.contender != OURS, standing.wall.median))


@dataclass(frozen=True, slots=True)
class Ratios:
    """Times over the best of raw gcloud-aio-storage in the same round."""

    wall: Spread
    cpu: Spread


def ratios(runs: Sequence[Run], case: Case, whose: str) -> Ratios | None:
    """The ratios of a contender in a case; None where it, or raw gcloud-aio-storage, did not carry it.

    Of a contender that was measured with several numbers of files at once, the best of each round counts.

    Args:
        runs: what was measured.
        case: which of it.
        whose: the contender's name, without such a number.
    """
    of_case = [run for run in runs if run.case == case]
    mine = [run for run in of_case if _family(run) == whose]
    rounds = {run.repeat for run in of_case if _family(run) == RAW} & {run.repeat for run in mine}
    if not rounds:
        return None

    def spread(seconds: Callable[[Run], float]) -> Spread:
        def best(family: str, repeat: int) -> float:
            return min(seconds(run) for run in of_case if _family(run) == family and run.repeat == repeat)

        return Spread.of(best(whose, repeat) / best(RAW, repeat) for repeat in rounds)

    return Ratios(spread(lambda run: run.wall_seconds), spread(lambda run: run.cpu_seconds))


def _family(run: Run) -> str:
    return run.contender.partition("/")[0]


def ratio_table(runs: Sequence[Run]) -> str:
    """The ratios of each case and setting as text that is Markdown too; nothing where there are none."""
    rows = []
    for case in dict.fromkeys(run.case for run in runs):
        if (ours := ratios(runs, case, OURS)) is not None:
            theirs = ratios(runs, case, OBSTORE)
            orientation = (theirs.wall.text(), theirs.cpu.text()) if theirs else ("", "")
            rows.append((*case.named(), ours.wall.text(), ours.cpu.text(), *orientation))
    if not rows:
        return ""
    head = ("case", "setting", "wall", "CPU", f"{OBSTORE} wall", f"{OBSTORE} CPU")
    lines = [
        f"### {OURS} over the best of {RAW} in the same round: median (least-most)",
        "",
        *table_lines([head, *rows]),
    ]
    return "\n".join(lines)


def table(runs: Sequence[Run], descriptions: Mapping[str, str]) -> str:
    """All cases as text that is Markdown too.

    Args:
        runs: what was measured.
        descriptions: of each case's set, by the case's `what`.
    """
    lines = [f"Measured on {machine_text(machine())}."]
    if found := ratio_table(runs):
        lines += ["", found]
    notes: set[str] = set()
    for case in dict.fromkeys(run.case for run in runs):
        heads = (
            "",
            "wall s",
            "first upload s",
            "CPU s",
            "peak MB",
            "requests/file",
            "wall ratio",
            "CPU ratio",
        )
        rows = [heads, *(_row(standing, notes) for standing in standings(runs, case))]
        lines += ["", f"### {case.title(descriptions[case.what])}", "", *table_lines(rows)]
        if case.setting == SHARED:
            notes.add(
                "With a shared core, pixaris-sync has --no-quiet: quiet, it would let the loop go first."
            )
    lines += ["", "Ratios are to pixaris-sync in the same round: median (least-most).", *sorted(notes)]
    return "\n".join(lines)


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
        standing.first_upload.text() if standing.first_upload else "",
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
        "processor": _processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def machine_text(told: Mapping[str, Any]) -> str:
    """What `machine` has told, in a line; older records lack parts of it."""
    parts = [f"{told['cores']} cores of {told.get('processor', told['machine'])}"]
    if memory := told.get("memory_bytes"):
        parts.append(f"{memory / (1000 * MEGABYTE):.0f} GB of memory")
    parts += [f"{told['system']} {told.get('kernel', '')}".rstrip(), f"Python {told['python']}"]
    return ", ".join(parts)


def _processor() -> str:
    """The model that the kernel names; some architectures have no such line."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, model = line.partition(":")
        if name.strip() == "model name":
            return model.strip()
    return platform.machine()


def write_json(path: Path, runs: Sequence[Run], descriptions: Mapping[str, str]) -> None:
    """Everything that was measured, and what follows from it, for machines."""
    cases = dict.fromkeys(run.case for run in runs)
    document = {
        "machine": machine(),
        "sets": dict(descriptions),
        "ratios": [
            {"case": asdict(case), "contender": whose, **asdict(found)}
            for case in cases
            for whose in (OURS, OBSTORE)
            if (found := ratios(runs, case, whose))
        ],
        "standings": [
            {"case": asdict(case), "contenders": [asdict(standing) for standing in standings(runs, case)]}
            for case in cases
        ],
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json_text(document))


def read_json(path: Path) -> tuple[Mapping[str, Any], list[Run]]:
    """The machine and the runs that `write_json` has written.

    Raises:
        OSError: the file cannot be read.
    """
    document = json.loads(path.read_text())
    runs = [Run(**{**run, "case": Case(**run["case"])}) for run in document["runs"]]
    return document["machine"], runs


def json_text(document: Mapping[str, Any]) -> str:
    """A document as JSON in which each entry of a list has a line of its own: changes are easy to read."""
    return _json_part(document) + "\n"


def _json_part(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(_json_part, value)) + "\n]"
    if isinstance(value, dict) and any(isinstance(part, list) for part in value.values()):
        return "{" + ",\n".join(f"{json.dumps(key)}: {_json_part(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)
