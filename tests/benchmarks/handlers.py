"""Pixaris' own handlers and ours, call by call, side by side.

Each call is timed in a process of its own, after one that is not: what is imported, and the table that the
first run makes, are no part of it.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.cloud import BUCKET, DATASET, PROJECT, Cloud, running_cloud
from tests.benchmarks.contenders import CONTENDERS, Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.processes import measure
from tests.benchmarks.results import Spread, table_lines
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.sets import run_set

_WORKER = Path(__file__).parent / "workers" / "handler_calls.py"
PIXARIS, OURS, BEHIND = "pixaris", "ours", "behind"
#: How they are told in the table.
_TITLES = {PIXARIS: "Pixaris", OURS: "ours", BEHIND: "ours, wait=False"}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is timed.

    Attributes:
        title: what it is, in words.
        where: ``local`` or ``cloud``.
        method: ``store``, ``images`` or ``projects``.
        images: how many are stored, or must be found.
        side: of each picture that is stored, in pixels.
        objects: that are in the bucket before.
        datasets: that they are in.
        object_bytes: the size of each.
    """

    title: str
    where: str
    method: str
    images: int = 0
    side: int = 0
    objects: int = 0
    datasets: int = 1
    object_bytes: int = 100

    @property
    def handlers(self) -> Sequence[str]:
        """Who is timed."""
        return (PIXARIS, OURS, BEHIND) if self.method == "store" else (PIXARIS, OURS)


CALLS = (
    Call("local store, 10 images of 1024 x 1024", "local", "store", images=10, side=1024),
    Call("cloud store, 10 images of 64 x 64", "cloud", "store", images=10, side=64),
    Call("the same, after 5,000 objects", "cloud", "store", images=10, side=64, objects=5_000),
    Call("load 100 images of 100 KB", "cloud", "images", images=100, objects=100, object_bytes=100_000),
    Call("projects and datasets, 20,000 objects in 50", "cloud", "projects", objects=20_000, datasets=50),
)


class WrongAnswerError(RuntimeError):
    """A call did not return what it should."""


@dataclass(slots=True)
class Timed:
    """One call by one handler.

    Attributes:
        seconds: of the call, by round.
        stored: until everything was stored, by round.
        requests: for a call, of both services, by the last round.
    """

    seconds: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    requests: float = 0.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """A call at a latency, by each handler."""

    call: Call
    latency_ms: float
    timed: Mapping[str, Timed]

    def rows(self) -> Iterator[Sequence[str]]:
        """As rows of a table; ratios are taken within each round."""
        stores = self.call.method == "store"
        base = self.timed[PIXARIS].seconds
        where = f", {self.latency_ms:g} ms" if self.call.where == "cloud" else ""
        for name, timed in self.timed.items():
            ratio = Spread.of(theirs / mine for theirs, mine in zip(base, timed.seconds, strict=True))
            yield (
                self.call.title + where,
                _TITLES[name],
                Spread.of(1000 * seconds for seconds in timed.seconds).text(0),
                Spread.of(1000 * seconds for seconds in timed.stored).text(0) if stores else "",
                "" if name == PIXARIS else ratio.text(1),
                f"{timed.requests:g}" if self.call.where == "cloud" else "",
            )


def measure_handlers(
    cache: Path, calls: Sequence[Call], *, latencies: Sequence[float], repeats: int, times: int
) -> list[Measurement]:
    """Time the calls.

    Args:
        cache: where scratch folders are made.
        calls: which ones.
        latencies: of the cloud, in ms; local calls are timed once.
        repeats: how many rounds; in each, all handlers come right after each other.
        times: how often each process calls; the first is not counted.

    Raises:
        WrongAnswerError: a call did not return what it should.
        ProgramFailedError: a call failed.
    """
    cores = choose_cores()
    found = []
    with running_cloud(cores.server) as cloud:
        for call in calls:
            for latency in latencies if call.where == "cloud" else [0.0]:
                timed = {name: Timed() for name in call.handlers}
                for _ in range(repeats):
                    for name, times_of in timed.items():
                        _measure_one(cache, cloud, call, latency, name, times, times_of)
                found.append(Measurement(call, latency, timed))
    return found


def _measure_one(
    cache: Path, cloud: Cloud, call: Call, latency_ms: float, name: str, times: int, timed: Timed
) -> None:
    cores = choose_cores()
    cloud.reset(0)
    cloud.seed(call.objects, datasets=call.datasets, size=call.object_bytes)
    cloud.set_latency(latency_ms)
    with scratch_folder(cache) as scratch:
        arguments = [str(scratch / "results")]
        if call.where == "cloud":
            arguments = [PROJECT, f"{PROJECT}.{DATASET}", BUCKET]
        task = {
            "handler": name,
            "where": call.where,
            "arguments": arguments,
            "folder": str(scratch),
            "call": call.method,
            "times": times,
            "images": call.images,
            "side": call.side,
        }
        place = Place(run_set("tiny", cache, bucket=BUCKET), cloud.address, scratch, latency_ms)
        measured = measure(
            [sys.executable, str(_WORKER), json.dumps(task)],
            environment=CONTENDERS["pixaris-sync"].environment(place),
            # A handler works in the training's own process, which may use every core.
            cores=cores.both,
            folder=scratch,
        )
    told = json.loads(measured.output)
    expected = {"store": 0, "images": call.images, "projects": call.datasets}[call.method]
    if told["answers"] != expected:
        raise WrongAnswerError(f"{name}, {call.title}: {told['answers']} instead of {expected}")
    timed.seconds.append(statistics.median(told["seconds"][1:]))
    timed.stored.append(statistics.median(told["stored"][1:]))
    timed.requests = round(sum(cloud.counts().values()) / times, 1)


def handlers_text(found: Sequence[Measurement]) -> str:
    """What was measured as text that is Markdown too."""
    head = ("", "handler", "returns after ms", "stored after ms", "times as fast", "requests")
    return "\n".join(table_lines([head, *(row for each in found for row in each.rows())]))
