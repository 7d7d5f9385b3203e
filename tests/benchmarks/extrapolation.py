"""What very many files cost, from what was measured with fewer and from Google's published limits."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from pixaris_sync.limits.bandwidth import DOUBLING_SECONDS, WRITES_PER_SECOND_START
from pixaris_sync.pipeline.context import ASK_ROWS_LIMIT
from pixaris_sync.ports import LIST_PAGE_OBJECTS
from pixaris_sync.rules.prices import QUERY_BYTES_MIN, Operations
from pixaris_sync.settings.fields import SETTINGS

#: What ``python -m tests.benchmarks shards`` measured last, by hand.
MEASURED: Final = Path(__file__).parent / "shards.json"
SIZES: Final = (10**6, 10**8, 10**9)
TASKS: Final = {10**6: 1, 10**8: 16, 10**9: 100}
FILES_OF_A_RUN: Final = 10
#: A round trip to a file server, and a page of a listing: of the order that is usual, not measured here.
ROUND_TRIP_SECONDS: Final = 0.0005
PAGE_SECONDS: Final = 0.25
#: Looks at a run's folder and at each of its files, and how many of them a process has under way.
TRIPS_OF_A_RUN: Final = 4
TRIPS_OF_A_FILE: Final = 1
SCANS: Final = 2
LISTINGS: Final = 8
#: A row is asked for before it is sent, looked for while it is in doubt, and read back.
QUESTIONS_OF_A_ROW: Final = 3
NAME_BYTES: Final = 40
LEDGER_RUN_BYTES: Final = 500
_GIB: Final = 2**30
_UNITS: Final = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True, slots=True)
class MeasuredShards:
    """What one folder cost, by its file.

    Attributes:
        files: in the folder.
        machine: what kind of machine it was.
        shard_cpu_seconds: processor time a file, of a shard that carries it.
        repeated_cpu_seconds: of one that finds it in the bucket.
        rows_cpu_seconds: of the pass after them, its row included.
        shard_peak_bytes, rows_peak_bytes: resident memory.
        shard_ledger_bytes: on disk, a file.
    """

    files: int
    machine: str
    shard_cpu_seconds: float
    repeated_cpu_seconds: float
    rows_cpu_seconds: float
    shard_peak_bytes: int
    rows_peak_bytes: int
    shard_ledger_bytes: float

    @classmethod
    def last(cls) -> Self:
        """As it was written down last."""
        return cls(**json.loads(MEASURED.read_text(encoding="utf-8")))

    def write(self) -> None:
        """Write it down."""
        MEASURED.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def rows(measured: MeasuredShards) -> list[Sequence[str]]:
    """The table of ``deploy/scale.md``: what, then for each size."""
    return [
        ("tasks that carry files", *(f"{TASKS[size]}" for size in SIZES)),
        *(
            (what, *(of(measured, size) for size in SIZES))
            for what, of in (
                ("processor time of all tasks", _files_cpu),
                ("the same, of each", _task_cpu),
                ("the file server answers each for", _task_disk),
                ("the bucket's first hours allow it in", _ramp),
                ("processor time of the last pass", _rows_cpu),
                ("the file server answers it for", _rows_disk),
                ("the bucket is listed in", _listing),
                ("load jobs, if all is in one table", _load_jobs),
                ("days of one table's load jobs", _load_days),
                ("uploads and listings", _requests),
                ("queries", _queries),
                ("price of all that", _price),
                ("memory of a task", _task_memory),
                ("ledger of a task", _task_ledger),
                ("ledger of the last pass, at most", _rows_ledger),
            )
        ),
    ]


def _files_cpu(measured: MeasuredShards, files: int) -> str:
    return span(measured.shard_cpu_seconds * files)


def _task_cpu(measured: MeasuredShards, files: int) -> str:
    return span(measured.shard_cpu_seconds * files / TASKS[files])


def _disk_seconds(files: int) -> float:
    trips = files * TRIPS_OF_A_FILE + files / FILES_OF_A_RUN * TRIPS_OF_A_RUN
    return trips * ROUND_TRIP_SECONDS / SCANS


def _task_disk(_: MeasuredShards, files: int) -> str:
    return span(_disk_seconds(files // TASKS[files]))


def _ramp(_: MeasuredShards, files: int) -> str:
    """In the n-th time of `DOUBLING_SECONDS` it takes 2**n times what it takes in the first."""
    first = WRITES_PER_SECOND_START * DOUBLING_SECONDS
    periods = math.floor(math.log2(files / first + 1))
    left = files - first * (2**periods - 1)
    return span(periods * DOUBLING_SECONDS + left / (WRITES_PER_SECOND_START * 2**periods))


def _rows_cpu(measured: MeasuredShards, files: int) -> str:
    return span(measured.rows_cpu_seconds * files)


def _rows_disk(_: MeasuredShards, files: int) -> str:
    return span(_disk_seconds(files))


def _listing(_: MeasuredShards, files: int) -> str:
    return span(files / LIST_PAGE_OBJECTS * PAGE_SECONDS / LISTINGS)


def _load_jobs(_: MeasuredShards, files: int) -> str:
    return f"{math.ceil(files / FILES_OF_A_RUN / _default('load_rows_limit')):,}"


def _load_days(_: MeasuredShards, files: int) -> str:
    jobs = math.ceil(files / FILES_OF_A_RUN / _default("load_rows_limit"))
    return f"{math.ceil(jobs / _default('loads_per_day_limit'))}"


def _operations(files: int) -> Operations:
    runs = files // FILES_OF_A_RUN
    queries = math.ceil(runs / ASK_ROWS_LIMIT) * QUESTIONS_OF_A_ROW
    # The table is clustered by run: a query of runs that follow each other reads little, and bills the least.
    return Operations(
        uploads=files,
        listings=math.ceil(files / LIST_PAGE_OBJECTS),
        queries=queries,
        query_bytes=queries * max(QUERY_BYTES_MIN, ASK_ROWS_LIMIT * NAME_BYTES),
    )


def _requests(_: MeasuredShards, files: int) -> str:
    asked = _operations(files)
    return f"{amount(asked.uploads)} and {amount(asked.listings)}"


def _queries(_: MeasuredShards, files: int) -> str:
    return amount(_operations(files).queries)


def _price(_: MeasuredShards, files: int) -> str:
    return f"${_operations(files).dollars:,.0f}"


def _task_memory(measured: MeasuredShards, _: int) -> str:
    return f"{measured.shard_peak_bytes / 1e6:.0f} MB"


def _task_ledger(measured: MeasuredShards, files: int) -> str:
    return size_text(measured.shard_ledger_bytes * files / TASKS[files])


def _rows_ledger(measured: MeasuredShards, files: int) -> str:
    return size_text((measured.shard_ledger_bytes + LEDGER_RUN_BYTES / FILES_OF_A_RUN) * files)


def _default(key: str) -> int:
    value = SETTINGS[key].default
    assert isinstance(value, int)
    return value


def span(seconds: float) -> str:
    """A time with two digits, such as ``13 h``."""
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= 2 * unit), _UNITS[-1])
    value = seconds / unit
    return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"


def size_text(size: float) -> str:
    """A size, such as ``3.2 GB``."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def amount(number: int) -> str:
    """A number as a power of ten where it is one, such as ``10^8``; else with separators."""
    power = round(math.log10(number))
    return f"10^{power}" if number == 10**power and power > 3 else f"{number:,}"
