"""Where the time of a whole pass goes: a flame graph, and a table of what takes most of it.

Samples of threads that wait are left out, so that what is left is processor time.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from tests.benchmarks.cloud import BUCKET, running_cloud
from tests.benchmarks.contenders import CONTENDERS, OURS, Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.processes import measure
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.service import command
from tests.benchmarks.sets import run_set

_SAMPLES_PER_SECOND = 400
#: Functions in which a thread waits for work, an answer or the time.
_WAITING = ("Condition.wait", "EpollSelector.select", "Event.wait", "_worker", "wait")
_WIDTH = 1200
_ROW_HEIGHT = 16
_CHARACTER_WIDTH = 6.6
_NARROWEST = 0.6
_OURS_COLOUR, _PYTHON_COLOUR, _OTHERS_COLOUR = "#e8743b", "#b9c4cf", "#f2c14e"

Stacks = Mapping[tuple[str, ...], int]


def draw_flames(cache: Path, target: Path, *, what: str, latency_ms: float, flags: str) -> str:
    """Profile ``backfill`` of a set.

    Args:
        cache: where sets are kept, and scratch folders made.
        target: the folder for ``<set>.svg``, and ``<set>.txt`` with collapsed stacks.
        what: the set.
        latency_ms: of the cloud.
        flags: further flags for ``backfill``.

    Returns:
        The functions and the modules that took most of the time.
    """
    cores = choose_cores()
    runs = run_set(what, cache, bucket=BUCKET)
    target.mkdir(parents=True, exist_ok=True)
    recorded = target.resolve() / f"{what}.txt"
    recorder = str(Path(sys.executable).parent / "py-spy")
    options = ("--rate", str(_SAMPLES_PER_SECOND), "--nolineno", "--format", "raw", "--output", str(recorded))
    with running_cloud(cores.server) as cloud, scratch_folder(cache) as scratch:
        cloud.reset(latency_ms)
        place = Place(runs, cloud.address, scratch, latency_ms)
        measure(
            (recorder, "record", *options, "--", *command("backfill", f"--json {flags}")),
            environment=CONTENDERS[OURS].environment(place),
            cores=cores.both,
            folder=scratch,
        )
    stacks = working_stacks(recorded.read_text())
    (target / f"{what}.svg").write_text(flame_graph(stacks))
    return summary(stacks, what)


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
    parts = [f"set {what}: {total} samples, {total / _SAMPLES_PER_SECOND:.2f} s"]
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

    def depth(self) -> int:
        """How many frames lie above each other at most."""
        return 1 + max((child.depth() for child in self.children.values()), default=0)


def flame_graph(stacks: Stacks) -> str:
    """An SVG: a row a call depth, width by samples, this project's own frames in a colour of their own."""
    root = _Frame()
    for frames, number in stacks.items():
        root.add(frames, number)
    height = root.depth() * _ROW_HEIGHT
    boxes = "\n".join(_boxes("all", root, 0, 0, _WIDTH / max(root.samples, 1)))
    style = "text{font:11px monospace;fill:#111}rect{stroke:#fff;stroke-width:.5}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}">'
        f"<style>{style}</style>\n{boxes}\n</svg>\n"
    )


def _boxes(name: str, frame: _Frame, left: float, row: int, sample_width: float) -> Iterator[str]:
    width = frame.samples * sample_width
    if width < _NARROWEST:
        return
    kind = _OTHERS_COLOUR
    if "(pixaris_sync/" in name:
        kind = _OURS_COLOUR
    elif "importlib" in name or "(" not in name:
        kind = _PYTHON_COLOUR
    y = row * _ROW_HEIGHT
    share = f"{name}: {frame.samples} samples, {width / _WIDTH:.1%}"
    label = name[: int(width / _CHARACTER_WIDTH)]
    yield (
        f'<g><title>{escape(share)}</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW_HEIGHT}" fill="{kind}"/>'
        f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(label)}</text></g>'
    )
    for child_name, child in sorted(frame.children.items()):
        yield from _boxes(child_name, child, left, row + 1, sample_width)
        left += child.samples * sample_width
