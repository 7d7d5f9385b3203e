"""What a training job notices of a backfill on the same machine: loops of pure computing, timed.

With the backfill "beside" one loop, it and the server have the other core: what remains is shared memory,
caches and clock rate. On the "full" machine every core but the server's has a loop, as if loader workers
filled it, and the backfill takes what it gets of these cores.
"""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    """Times of a loop, in seconds: one, and many that fill all cores but the server's.

    Attributes:
        loops: how many fill them.
        alone, beside: of one, alone and with the backfill on the other core.
        full_alone, full_beside: of one of the many, without the backfill and with it among them.
    """

    loops: int
    alone: list[float]
    beside: list[float]
    full_alone: list[float]
    full_beside: list[float]

    def text(self) -> str:
        """In a few lines."""
        many = f"{self.loops} loops on {self.loops} cores" if self.loops > 1 else "a loop on one core"
        lines: list[str] = []
        for what, alone, backfilling, where in (
            ("a loop", self.alone, self.beside, "on the other core"),
            (many, self.full_alone, self.full_beside, "on the same"),
        ):
            base = statistics.median(alone)
            with_itself, ratio = (
                Spread.of(seconds / base for seconds in times) for times in (alone, backfilling)
            )
            lines.append(f"{what}: {Spread.of(alone).text()} s alone, against itself {with_itself.text(3)}")
            lines.append(f"with a backfill {where}: {ratio.text(3)} times as long")
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
    full = frozenset(os.sched_getaffinity(0)) - {cores.server} or here
    rounds = int(_CALIBRATION_ROUNDS * loop_seconds / _time_loops(_CALIBRATION_ROUNDS, here))
    found = Slowdown(len(full), [], [], [], [])
    with running_cloud(cores.server) as cloud:
        for _ in range(repeats):
            for alone, beside, of_loops, of_backfill in (
                (found.alone, found.beside, here, elsewhere),
                (found.full_alone, found.full_beside, full, full),
            ):
                alone.append(_time_loops(rounds, of_loops))
                with _backfilling(cloud, runs, cache, latency_ms, of_backfill, flags):
                    time.sleep(_RUN_UP_SECONDS)
                    beside.append(_time_loops(rounds, of_loops))
    return found


def _time_loops(rounds: int, cores: frozenset[int]) -> float:
    """How long a loop takes on average, if each core has one; which has which is for the kernel to say."""
    command = [sys.executable, "-c", _LOOP, str(rounds)]
    with running_on(cores):
        begun = time.monotonic()
        loops = [subprocess.Popen(command) for _ in cores]
    with ThreadPoolExecutor(len(loops)) as threads:
        ended = list(threads.map(lambda loop: (loop.wait(), time.monotonic()), loops))
    assert {code for code, _ in ended} == {0}
    return statistics.mean(at for _, at in ended) - begun


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
