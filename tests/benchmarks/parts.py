"""For what the processor works while files are carried: a profile's samples by part of the work.

The innermost module of this package in a stack decides.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tests.benchmarks.results import table_lines

Stacks = Mapping[tuple[str, ...], int]

START, HTTP, LEDGER, READING, SCAN, ROWS, REST = PARTS = (
    "start-up",
    "HTTP",
    "ledger",
    "reading",
    "scan",
    "rows",
    "rest",
)
#: What each part is, in words.
MEANINGS: Final = {
    START: "imports, settings, and what else comes before the first file",
    HTTP: "uploads: heads, bodies, answers, connections",
    LEDGER: "what is known of runs, files and rows, kept durably",
    READING: "files read, images checked, checksums",
    SCAN: "folders listed, tracking lines read",
    ROWS: "tables, and rows sent and read back",
    REST: "the event loop, tasks, threads, limits, what is told",
}
#: By the beginning of a module's name, the first that fits; what fits none is `REST`.
_PART_OF: Final = {
    "gcs/inspection": START,
    "bigquery/glance": START,
    "bigquery/inspection": START,
    "cli/": START,
    "doctor/": START,
    "login/": START,
    "settings/": START,
    "footprint": START,
    "process/wiring": START,
    "process/ownership": START,
    "process/priority": START,
    "gcs/": HTTP,
    "ledger/": LEDGER,
    "local/contents": READING,
    "local/images": READING,
    "local/page_cache": READING,
    "local/safe_open": READING,
    "local/": SCAN,
    "pipeline/discovery": SCAN,
    "pipeline/intake": SCAN,
    "pipeline/arrival": SCAN,
    "pipeline/orphans": SCAN,
    "pipeline/adoption": SCAN,
    "rules/contract": SCAN,
    "rules/shards": SCAN,
    "bigquery/": ROWS,
    "rules/": ROWS,
    "pipeline/deliveries": ROWS,
    "pipeline/outgoing_rows": ROWS,
    "pipeline/lookups": ROWS,
    "pipeline/table_changes": ROWS,
}
#: Modules in which everything else happens, and the event loop runs: they do not say what it is for.
_RUNNERS: Final = ("cli/app", "cli/passes", "process/service", "__main__")
_OWN: Final = "(pixaris_sync/"
#: What the event loop calls by itself, below no module of ours, when something came or may go.
_CONNECTIONS: Final = ("(aiohttp/", "_SelectorSocketTransport", "(asyncio/sslproto")
#: On top of a stack: the event loop of libuv, of which no more is seen, and which has the sockets.
_LIBUV: Final = "Runner.run (asyncio/runners.py)"
_IMPORTS: Final = "(<frozen importlib"


def part_of(frames: tuple[str, ...]) -> str:
    """The part of the work that a stack, outermost frame first, is a sample of."""
    if any(_IMPORTS in frame for frame in frames):
        return START
    module = next((frame.partition(_OWN)[2] for frame in reversed(frames) if _OWN in frame), "")
    if module and not module.startswith(_RUNNERS):
        return next((part for begin, part in _PART_OF.items() if module.startswith(begin)), REST)
    if frames[-1] == _LIBUV or any(text in frame for frame in frames for text in _CONNECTIONS):
        return HTTP
    in_main_thread = any("<frozen runpy>" in frame for frame in frames)
    return START if in_main_thread and not any("(asyncio/" in frame for frame in frames) else REST


def by_part(stacks: Stacks) -> Mapping[str, float]:
    """The share of each part."""
    found: Counter[str] = Counter()
    for frames, number in stacks.items():
        found[part_of(frames)] += number
    total = max(1, sum(found.values()))
    return {part: found[part] / total for part in PARTS}


def parts_table(stacks: Stacks, *, cpu_seconds: float, files: int) -> str:
    """Each part as text that is Markdown too, in microseconds of processor time a file.

    Args:
        stacks: samples by stack.
        cpu_seconds: of the whole process, without the profiler.
        files: how many it has carried.
    """
    file_microseconds = cpu_seconds / files * 1_000_000
    rows = [
        (part, f"{share * file_microseconds:.0f}", f"{share:.0%}", MEANINGS[part])
        for part, share in by_part(stacks).items()
    ]
    head = ("part", "µs a file", "share", "what it is")
    return "\n".join(table_lines([head, *rows, ("all", f"{file_microseconds:.0f}", "100%", "")]))
