"""Runs contenders side by side: interleaved, so that a noisy minute of the machine meets all of them."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.busy import busy_loop
from tests.benchmarks.cloud import BUCKET, Cloud, running_cloud
from tests.benchmarks.contenders import CONTENDERS, Contender, Place
from tests.benchmarks.cores import Cores, choose_cores
from tests.benchmarks.processes import Measured, measure
from tests.benchmarks.results import SHARED, Case, Run
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.sets import RunSet, run_set

#: Behind the name of a set: everything was carried before, and nothing is new.
AGAIN = "-again"


class IncompleteError(RuntimeError):
    """A contender ended well, and the server does not hold what it should."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to compare.

    Attributes:
        cases: what is carried, how far, and in which setting of the machine.
        contenders: who carries it; those that cannot do a case are left out of it.
        repeats: how many rounds.
        cache: where sets are kept, and scratch folders made; on the disk that is meant.
    """

    cases: Sequence[Case]
    contenders: Sequence[Contender]
    repeats: int
    cache: Path

    def run(self) -> list[Run]:
        """Run everything; progress goes to standard error.

        Raises:
            IncompleteError: a contender did not carry what it should.
            ProgramFailedError: a contender failed.
        """
        cores = choose_cores()
        runs: list[Run] = []
        for what in dict.fromkeys(case.what for case in self.cases):
            runs_of_set = run_set(what.removesuffix(AGAIN), self.cache, bucket=BUCKET)
            cases = [case for case in self.cases if case.what == what]
            again = what.endswith(AGAIN)
            chosen = [c for c in self.contenders if (c.compares if again else c.carries(runs_of_set))]
            with ExitStack() as stack:
                tracks = [
                    stack.enter_context(_track(contender, runs_of_set, self.cache, cores, again=again))
                    for contender in chosen
                ]
                for repeat in range(self.repeats):
                    # Each round begins with another contender, so that none always follows the same one.
                    turned = tracks[repeat % len(tracks) :] + tracks[: repeat % len(tracks)]
                    for case in cases:
                        with _set(case, cores):
                            runs += [track.run(case, repeat) for track in turned]
        return runs

    def descriptions(self) -> Mapping[str, str]:
        """What each case's set is, in words."""
        found = {}
        for case in self.cases:
            shape = run_set(case.what.removesuffix(AGAIN), self.cache, bucket=BUCKET).shape
            found[case.what] = shape.described() + (", nothing new" if case.what.endswith(AGAIN) else "")
        return found


@dataclass(slots=True)
class _Track:
    """One contender with a server of its own, and what it keeps from one run to the next where it may."""

    contender: Contender
    runs: RunSet
    cloud: Cloud
    cache: Path
    cores: Cores
    again: bool
    kept: Path | None = None

    def prime(self) -> None:
        """Let the contender carry everything once, unmeasured."""
        self.cloud.reset(0, with_md5=self.contender.wants_md5)
        self.kept = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.cache))
        _progress(f"{self.contender.name} carries set {self.runs.shape.name} for the first time")
        place = self._place(self.kept, Case(self.runs.shape.name, 0))
        self._measure(place)
        self._make_sure_all_is_there(place)

    def run(self, case: Case, repeat: int) -> Run:
        """Measure one run."""
        if self.kept is None:
            self.cloud.reset(case.latency_ms, with_md5=self.contender.wants_md5)
        else:
            self.cloud.set_latency(case.latency_ms)
        with nullcontext(self.kept) if self.kept else scratch_folder(self.cache) as scratch:
            return self._run_in(self._place(scratch, case), case, repeat)

    def _run_in(self, place: Place, case: Case, repeat: int) -> Run:
        self.runs.warm()
        counts_before = self.cloud.counts()
        before, begun = self.cloud.load(), time.monotonic()
        measured = self._measure(place)
        share = self.cloud.load().share_since(before)
        counts = {k: n - counts_before.get(k, 0) for k, n in self.cloud.counts().items()}
        self._make_sure_all_is_there(place)
        first = self.cloud.uploads().began_at
        given = self.contender.subset(place) / self.runs.shape.runs
        scaled = self.contender.scaled(measured, place)
        gcs = sum(number for kind, number in counts.items() if kind.startswith("gcs."))
        _progress(
            f"{case.what} {case.latency_ms:g} ms, {case.setting}, round {repeat + 1}: {self.contender.name}: "
            f"{scaled.wall_seconds:.2f} s, CPU {scaled.cpu_seconds:.2f} s, server {share:.0%}"
        )
        return Run(
            case=case,
            contender=self.contender.name,
            repeat=repeat,
            wall_seconds=scaled.wall_seconds,
            cpu_seconds=scaled.cpu_seconds,
            peak_bytes=scaled.peak_bytes,
            requests_per_file=gcs / (self.runs.shape.files * given),
            server_share=share,
            share_of_set=given,
            counts={kind: number for kind, number in sorted(counts.items()) if number},
            first_upload_seconds=None if first is None or first < begun else first - begun,
        )

    def _place(self, scratch: Path, case: Case) -> Place:
        is_shared = case.setting == SHARED
        return Place(self.runs, self.cloud.address, scratch, case.latency_ms, is_shared)

    def _measure(self, place: Place) -> Measured:
        cores = self.cores.both if self.contender.both_cores else frozenset({self.cores.client})
        return measure(
            self.contender.command(place),
            environment=self.contender.environment(place),
            cores=cores,
            folder=place.scratch,
        )

    def _make_sure_all_is_there(self, place: Place) -> None:
        found = self.cloud.inventory()
        runs = self.contender.subset(place)
        files = runs * self.runs.shape.images_per_run
        rows = runs if self.contender.stores_rows else 0
        if (found.objects, found.rows) != (files, rows):
            raise IncompleteError(
                f"{self.contender.name} left {found.objects} objects and {found.rows} rows, "
                f"not {files} and {rows}"
            )
        if self.contender.keeps_names and found.digest != self.runs.digest:
            raise IncompleteError(f"{self.contender.name} left objects of other names or contents")


def _set(case: Case, cores: Cores) -> AbstractContextManager[object]:
    """The machine as the case wants it."""
    return busy_loop(cores.client) if case.setting == SHARED else nullcontext()


@contextmanager
def _track(contender: Contender, runs: RunSet, cache: Path, cores: Cores, *, again: bool) -> Iterator[_Track]:
    with running_cloud(cores.server) as cloud:
        track = _Track(contender, runs, cloud, cache, cores, again)
        try:
            if again:
                track.prime()
            yield track
        finally:
            if track.kept is not None:
                shutil.rmtree(track.kept)


def available(names: Sequence[str]) -> list[Contender]:
    """The contenders of these names that can run here; the others are told on standard error.

    Raises:
        KeyError: there is none of that name.
    """
    found = []
    for name in names:
        contender = CONTENDERS[name]
        if missing := contender.missing():
            _progress(f"{name} is left out: {missing}")
        else:
            found.append(contender)
    return found


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - what a long run tells meanwhile
