"""What a training job notices of a backfill on the same machine: a loop of pure computing, timed.

With the backfill "beside", it and the server have the other core; with it "on the same core", only the server
is elsewhere. What remains beside is shared memory, caches and clock rate.
"""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cloud import BUCKET, Cloud, running_cloud
from tests.benchmarks.contenders import Place
from tests.benchmarks.cores import choose_cores, running_on
from tests.benchmarks.results import Spread
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import command, process
from tests.benchmarks.sets import RunSet, run_set

_LOOP = """
import sys
value = 1
for _ in range(int(sys.argv[1])):
    value = value * 1103515245 + 12345 & 0x7FFFFFFF
"""
_CALIBRATION_ROUNDS = 5_000_000
#: A backfill does its work in the middle of its time.
_RUN_UP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Times of the loop, in seconds, by where the backfill was."""

    alone: list[float]
    beside: list[float]
    same_core: list[float]

    def text(self) -> str:
        """In a few lines."""
        base = statistics.median(self.alone)
        lines = [f"loop alone: {Spread.of(self.alone).text()} s"]
        for name, times in (
            ("backfill on the other core", self.beside),
            ("on the same core", self.same_core),
        ):
            ratio = Spread.of(seconds / base for seconds in times)
            lines.append(f"{name}: {ratio.text(3)} times as long")
        return "\n".join(lines)


def measure_slowdown(
    cache: Path, *, what: str, latency_ms: float, loop_seconds: float, repeats: int, flags: str
) -> Slowdown:
    """Time the loop.

    Args:
        cache: where sets are kept, and scratch folders made.
        what: the set that is carried meanwhile, again and again.
        latency_ms: of the cloud.
        loop_seconds: how long the loop should take alone.
        repeats: how many rounds.
        flags: further flags for ``backfill``, such as its limits.
    """
    cores = choose_cores()
    here = frozenset({cores.client})
    elsewhere = cores.both - here or here
    runs = run_set(what, cache, bucket=BUCKET)
    rounds = int(_CALIBRATION_ROUNDS * loop_seconds / _time_loop(_CALIBRATION_ROUNDS, here))
    found = Slowdown([], [], [])
    with running_cloud(cores.server) as cloud:
        for _ in range(repeats):
            found.alone.append(_time_loop(rounds, here))
            for times, place_of_backfill in ((found.beside, elsewhere), (found.same_core, here)):
                with _backfilling(cloud, runs, cache, latency_ms, place_of_backfill, flags):
                    time.sleep(_RUN_UP_SECONDS)
                    times.append(_time_loop(rounds, here))
    return found


def _time_loop(rounds: int, core: frozenset[int]) -> float:
    with running_on(core):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", _LOOP, str(rounds)], check=True)
        return time.monotonic() - begun


@contextmanager
def _backfilling(
    cloud: Cloud, runs: RunSet, cache: Path, latency_ms: float, cores: frozenset[int], flags: str
) -> Iterator[None]:
    """Carry the set as often as needed, each time as if for the first time, until the block ends."""
    over = threading.Event()

    def carry() -> None:
        while not over.is_set():
            cloud.reset(latency_ms)
            with scratch_folder(cache) as scratch:
                place = Place(runs, cloud.address, scratch, latency_ms)
                with process(command("backfill", flags), place, cores, {}) as running:
                    while not over.wait(0.05) and not running.ended:
                        pass

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
