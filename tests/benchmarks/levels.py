"""How good the level of concurrency is that pixaris-sync finds by itself, against levels held fixed.

The same program carries the same files, with each level and with the one that it finds, interleaved. What
counts is files per second as the server sees them, of the second half of the files: start-up is the same for
all, and the search for the level is over by then. It ends where the last upload begins: after that there is
nothing to fill a level with. The whole is told too, from the first upload's beginning.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.benchmarks.cloud import BUCKET, SERVER_BOUND_SHARE, Cloud, SeenUploads, running_cloud
from tests.benchmarks.contenders import Place
from tests.benchmarks.cores import Cores, choose_cores
from tests.benchmarks.processes import ProgramFailedError
from tests.benchmarks.results import Spread, json_text, machine, table_lines
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import command, process
from tests.benchmarks.sets import PIXARIS_PROJECT, RunSet, run_set

_WORKER = Path(__file__).parent / "workers" / "held_level.py"
_LOOK_SECONDS = 0.1
_BYTES_MAX = 4_000_000_000


@dataclass(frozen=True, slots=True)
class LevelCase:
    """What is carried and how.

    Attributes:
        what: the set.
        latency_ms: of every answer.
        at_once: how many uploads at the same time the service takes; it refuses others. 0: all.
    """

    what: str
    latency_ms: float
    at_once: int = 0

    def title(self) -> str:
        """As a heading."""
        refuses = f", more than {self.at_once} at once refused" if self.at_once else ""
        return f"{self.what}, {self.latency_ms:g} ms{refuses}"


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast files arrived.

    Attributes:
        whole: files per second from the first upload's beginning.
        steady: the same of the second half of the files, until the last upload began.
        level: how many uploads were under way in that time on average.
        server_share: the share of its core that the server used, from the first upload to the last.
    """

    whole: float
    steady: float
    level: float
    server_share: float


@dataclass(frozen=True, slots=True)
class LevelRun:
    """One run.

    Attributes:
        case: what it did.
        fixed: the level that was held; None: it found its own.
        repeat: in which round.
        files: how many arrived.
        rates: how fast.
        refused: how many uploads were.
    """

    case: LevelCase
    fixed: int | None
    repeat: int
    files: int
    rates: Rates
    refused: int


def rates(seen: SeenUploads, until: float) -> Rates:
    """How fast files arrived until a moment of the monotonic clock; pure.

    Raises:
        ValueError: too few have arrived.
    """
    ended = [(at, seconds) for at, seconds in seen.ended if at <= until]
    half = ended[len(ended) // 2 :]
    # Where all have begun before half of them have ended, the rest is all that there is.
    steady = [one for one in half if one[0] <= seen.last_began_at] or half
    if seen.began_at is None or len(steady) < 2 or steady[-1][0] <= steady[0][0]:
        raise ValueError("too few uploads to tell how fast they were")
    (begun, seconds_before), (over, seconds_after) = steady[0], steady[-1]
    return Rates(
        len(ended) / (ended[-1][0] - seen.began_at),
        (len(steady) - 1) / (over - begun),
        (seconds_after - seconds_before) / (over - begun),
        seen.cpu_seconds / (seen.ended[-1][0] - seen.began_at),
    )


@dataclass(frozen=True, slots=True)
class Levels:
    """What to compare.

    Attributes:
        cache: where sets are kept, and scratch folders made.
        cases: what to carry.
        fixed: the levels to hold.
        repeats: how many rounds.
        files_min: a set is copied until it has so many files, or `_BYTES_MAX` together.
        seconds_max: a run that takes longer is ended; what has arrived counts.
        flags: further flags for pixaris-sync.
    """

    cache: Path
    cases: Sequence[LevelCase]
    fixed: Sequence[int]
    repeats: int = 1
    files_min: int = 10_000
    seconds_max: float = 20.0
    flags: str = ""

    def run(self) -> list[LevelRun]:
        """Run everything; progress goes to standard error.

        Raises:
            ProgramFailedError: a run failed, or did not carry everything.
        """
        cores = choose_cores()
        found: list[LevelRun] = []
        with running_cloud(cores.server) as cloud:
            for case in self.cases:
                with self._copies(case.what) as runs:
                    levels = [None, *self.fixed]
                    for repeat in range(self.repeats):
                        # Each round begins with another level, so that none always follows the same one.
                        turn = repeat % len(levels)
                        for level in levels[turn:] + levels[:turn]:
                            found.append(self._run_one(cloud, cores, runs, case, level, repeat))
                            _progress(found[-1])
        return found

    @contextmanager
    def _copies(self, what: str) -> Iterator[RunSet]:
        """A set several times over, as projects of their own; the files are links."""
        runs = run_set(what, self.cache, bucket=BUCKET)
        shape = runs.shape
        bytes_most = max(1, _BYTES_MAX // (shape.files * shape.image_bytes))
        copies = min(-(-self.files_min // shape.files), bytes_most)
        with scratch_folder(self.cache) as folder:
            for number in range(copies):
                source = runs.folder / PIXARIS_PROJECT
                shutil.copytree(source, folder / f"copy{number}", copy_function=os.link)
            yield RunSet(replace(shape, runs=copies * shape.runs), folder, "")

    def _run_one(
        self, cloud: Cloud, cores: Cores, runs: RunSet, case: LevelCase, level: int | None, repeat: int
    ) -> LevelRun:
        cloud.reset(case.latency_ms, at_once=case.at_once)
        program = command("backfill", self.flags)
        if level is not None:
            program = (sys.executable, str(_WORKER), str(level), *program[program.index("backfill") :])
        with scratch_folder(self.cache) as scratch:
            place = Place(runs, cloud.address, scratch, case.latency_ms)
            with process(program, place, frozenset({cores.client}), {}) as running:
                deadline = time.monotonic() + self.seconds_max
                while not running.ended and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)
                in_time, over = running.ended, time.monotonic()
            stored = cloud.inventory().objects
            # Where the service refuses, some are left for a later pass.
            if in_time and not case.at_once and (running.popen.returncode or stored != runs.shape.files):
                log = (scratch / "log").read_text()
                raise ProgramFailedError(f"{stored} of {runs.shape.files} files arrived: {log[-1000:]}")
        seen = cloud.uploads()
        return LevelRun(case, level, repeat, stored, rates(seen, over), seen.refused)


def _progress(run: LevelRun) -> None:
    level = "its own level" if run.fixed is None else f"level {run.fixed}"
    print(  # noqa: T201 - what a long run tells meanwhile
        f"{run.case.title()}, round {run.repeat + 1}: {level}: {run.rates.steady:.0f} files/s, "
        f"{run.rates.level:.1f} under way, server {run.rates.server_share:.0%}",
        file=sys.stderr,
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good the level is that was found.

    Attributes:
        best: the fixed level with the most files per second.
        ratio: files per second at the level that was found, over those at the best in the same round.
        whole_ratio: the same, the search for it included.
    """

    best: int
    ratio: Spread
    whole_ratio: Spread


def verdict(runs: Sequence[LevelRun], case: LevelCase) -> Verdict:
    """Judge one case. With one round, the best of several noisy numbers is too good; with more, hardly."""
    of_case = [run for run in runs if run.case == case]
    levels = dict.fromkeys(run.fixed for run in of_case if run.fixed is not None)

    def rate(level: int) -> float:
        return statistics.median(run.rates.steady for run in of_case if run.fixed == level)

    best = max(levels, key=rate)
    of_best = {run.repeat: run.rates for run in of_case if run.fixed == best}
    found = [(run.rates, of_best[run.repeat]) for run in of_case if run.fixed is None]
    return Verdict(
        best,
        Spread.of(mine.steady / theirs.steady for mine, theirs in found),
        Spread.of(mine.whole / theirs.whole for mine, theirs in found),
    )


def levels_text(runs: Sequence[LevelRun]) -> str:
    """All cases as text that is Markdown too."""
    lines: list[str] = []
    for case in dict.fromkeys(run.case for run in runs):
        of_case = [run for run in runs if run.case == case]
        rows = [("level", "files/s", "whole", "under way", "refused")]
        for level in sorted({run.fixed for run in of_case}, key=lambda fixed: (fixed is None, fixed or 0)):
            mine = [run for run in of_case if run.fixed == level]
            bound = "!" if any(run.rates.server_share > SERVER_BOUND_SHARE for run in mine) else ""
            rows.append(
                (
                    ("its own" if level is None else str(level)) + bound,
                    Spread.of(run.rates.steady for run in mine).text(0),
                    Spread.of(run.rates.whole for run in mine).text(0),
                    Spread.of(run.rates.level for run in mine).text(1),
                    Spread.of(run.refused for run in mine).text(0),
                )
            )
        lines += ["", f"### {case.title()}", "", *table_lines(rows)]
        judged = verdict(runs, case)
        said = f"Its own level carries {judged.ratio.text()} times the files/s of the best one held"
        lines += ["", f"{said}, {judged.best}; its search included {judged.whole_ratio.text()}."]
    lines += [
        "",
        "Files/s: of the second half of the files, as the server sees them.",
        "! The server was the limit.",
    ]
    return "\n".join(lines).lstrip("\n")


def write_levels(path: Path, runs: Sequence[LevelRun]) -> None:
    """Everything that was measured, and what follows from it, for machines."""
    cases = dict.fromkeys(run.case for run in runs)
    document = {
        "machine": machine(),
        "verdicts": [{"case": asdict(case), **asdict(verdict(runs, case))} for case in cases],
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json_text(document))
