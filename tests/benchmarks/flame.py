"""Where the time of a whole pass goes: flame graphs, the work by part, and what takes most of it.

Samples of threads that wait are left out, so that what is left is processor time.
"""

import compileall
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from tests.benchmarks.cloud import BUCKET, running_cloud
from tests.benchmarks.contenders import CONTENDERS, OURS, Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.parts import Stacks, parts_table
from tests.benchmarks.processes import measure
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import command
from tests.benchmarks.sets import run_set

#: More of them, and the program waits for its profiler most of the time.
_SAMPLES_PER_SECOND: Final = 100
#: A pass is profiled again until there are so many, but not for ever.
_SAMPLES_MIN: Final = 2_000
_PROFILES_MAX: Final = 8
#: The processor time is that of passes without the profiler: the least of so many, as others add to it only.
_PASSES: Final = 3
#: Functions in which a thread waits for work, an answer or the time.
_WAITING = ("Condition.wait", "EpollSelector.select", "Event.wait", "_worker", "wait")
_WIDTH = 1200
_ROW_HEIGHT = 16
_CHARACTER_WIDTH = 6.6
_NARROWEST = 0.6
#: A picture for a document has only boxes that are wide enough for it to be as small as this.
_SMALL_BYTES_MAX: Final = 60_000
_STYLE: Final = (
    "text{font:11px monospace;fill:#111}rect{stroke:#fff;stroke-width:.5}"
    ".o{fill:#e8743b}.p{fill:#b9c4cf}.l{fill:#f2c14e}"
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A ``sync`` of a set, by samples.

    Attributes:
        what: the set.
        files: how many were carried.
        cpu_seconds: of a pass without the profiler, the least of some.
        stacks: samples of several passes by stack, without those of threads that wait.
    """

    what: str
    files: int
    cpu_seconds: float
    stacks: Stacks

    def write(self, folder: Path) -> None:
        """Draw ``<set>.svg``, and write ``<set>.txt`` with collapsed stacks."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.what}.svg").write_text(flame_graph(self.stacks))
        lines = (f"{';'.join(frames)} {number}\n" for frames, number in self.stacks.items())
        (folder / f"{self.what}.txt").write_text("".join(lines))

    def parts(self) -> str:
        """The work by part, as text that is Markdown too."""
        table = parts_table(self.stacks, cpu_seconds=self.cpu_seconds, files=self.files)
        samples = sum(self.stacks.values())
        return (
            f"### set {self.what}: {self.cpu_seconds:.2f} s of processor for {self.files:,} files, "
            f"{samples:,} samples\n\n{table}\n"
        )


def profile(cache: Path, tree: Path, *, what: str, latency_ms: float, flags: str) -> Profile:
    """Profile ``sync`` of a set.

    It is not quiet: waiting for others to leave it a core would look like work.

    Args:
        cache: where sets are kept, and scratch folders made.
        tree: the checkout whose program is profiled.
        what: the set.
        latency_ms: of the cloud.
        flags: further flags for ``sync``.

    Raises:
        ProgramFailedError: it failed.
    """
    cores = choose_cores()
    runs = run_set(what, cache, bucket=BUCKET)
    # As an installed program is: else each pass would compile it anew where Python may write no bytecode.
    compileall.compile_dir(tree / "pixaris_sync", quiet=1)
    sync = command("sync", f"--json --no-quiet {flags}")
    recorder = (str(Path(sys.executable).parent / "py-spy"), "record", "--rate", str(_SAMPLES_PER_SECOND))
    stacks: Counter[tuple[str, ...]] = Counter()
    with running_cloud(cores.server) as cloud:

        def cpu_seconds(before: Sequence[str], on: frozenset[int], scratch: Path) -> float:
            cloud.reset(latency_ms)
            runs.warm()
            place = Place(runs, cloud.address, scratch, latency_ms)
            environment = {**CONTENDERS[OURS].environment(place), "PYTHONPATH": str(tree.resolve())}
            return measure((*before, *sync), environment=environment, cores=on, folder=scratch).cpu_seconds

        seconds = []
        for _ in range(_PASSES):
            with scratch_folder(cache) as scratch:
                seconds.append(cpu_seconds((), frozenset({cores.client}), scratch))
        for _ in range(_PROFILES_MAX):
            if stacks.total() < _SAMPLES_MIN:
                with scratch_folder(cache) as scratch:
                    recorded = scratch / "stacks"
                    options = ("--nolineno", "--format", "raw", "--output", str(recorded), "--")
                    cpu_seconds((*recorder, *options), cores.both, scratch)
                    stacks.update(working_stacks(recorded.read_text()))
    return Profile(what, runs.shape.files, min(seconds), stacks)


def working_stacks(collapsed: str) -> Stacks:
    """Samples by stack, outermost frame first, without those of threads that wait."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in collapsed.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = tuple(stack.split(";"))
        if stack and frames[-1].partition(" ")[0] not in _WAITING:
            found[frames] += int(number)
    return found


def summary(stacks: Stacks, what: str, *, lines_most: int = 25) -> str:
    """A table: the functions on top, and the innermost modules of this project."""
    functions: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for frames, number in stacks.items():
        functions[frames[-1]] += number
        own = next((frame for frame in reversed(frames) if "(pixaris_sync/" in frame), "(none)")
        modules[own.rpartition("(")[2].rstrip(")")] += number
    total = sum(functions.values())
    parts = [f"set {what}: {total} samples"]
    for title, counted in (("function on top", functions), ("innermost module of pixaris-sync", modules)):
        parts += ["", f"  share  {title}"]
        parts += [f"  {number / total:5.1%}  {name}" for name, number in counted.most_common(lines_most)]
    return "\n".join(parts)


@dataclass(slots=True)
class _Frame:
    samples: int = 0
    children: dict[str, "_Frame"] = field(default_factory=dict)

    def add(self, frames: Sequence[str], number: int) -> None:
        """Count a stack below this frame."""
        frame = self
        frame.samples += number
        for name in frames:
            frame = frame.children.setdefault(name, _Frame())
            frame.samples += number


def flame_graph(stacks: Stacks, *, bytes_max: int | None = None) -> str:
    """An SVG: a row a call depth, width by samples, this project's own frames in a colour of their own.

    With `bytes_max`, as many of the narrowest boxes are left out as that takes.
    """
    root = _Frame()
    for frames, number in stacks.items():
        root.add(frames, number)
    narrowest = _NARROWEST
    while True:
        boxes = list(_boxes("all", root, 0, 0, _WIDTH / max(root.samples, 1), narrowest))
        height = (1 + max((row for row, _ in boxes), default=0)) * _ROW_HEIGHT
        drawn = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">'
            f"<style>{_STYLE}</style>\n" + "\n".join(box for _, box in boxes) + "\n</svg>\n"
        )
        if bytes_max is None or len(drawn.encode()) <= bytes_max or len(boxes) <= 1:
            return drawn
        narrowest *= 1.1


def small_flame_graph(stacks: Stacks) -> str:
    """The same, fit for a document: without the frames of Python's import system, and what is narrow."""
    found: Counter[tuple[str, ...]] = Counter()
    for frames, number in stacks.items():
        found[tuple(frame for frame in frames if "<frozen importlib" not in frame)] += number
    return flame_graph(found, bytes_max=_SMALL_BYTES_MAX)


def _boxes(
    name: str, frame: _Frame, left: float, row: int, sample_width: float, narrowest: float
) -> Iterator[tuple[int, str]]:
    width = frame.samples * sample_width
    if width < narrowest:
        return
    kind = "l"
    if "(pixaris_sync/" in name:
        kind = "o"
    elif "importlib" in name or "(" not in name:
        kind = "p"
    y = row * _ROW_HEIGHT
    share = f"{name}: {frame.samples} samples, {width / _WIDTH:.1%}"
    label = name[: int(width / _CHARACTER_WIDTH)]
    text = f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(label)}</text>' if label else ""
    place = f'x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_ROW_HEIGHT}"'
    yield row, f'<g><title>{escape(share)}</title><rect class="{kind}" {place}/>{text}</g>'
    for child_name, child in sorted(frame.children.items()):
        yield from _boxes(child_name, child, left, row + 1, sample_width, narrowest)
        left += child.samples * sample_width
