"""Views as a page may have to show them: nothing, much, trouble, names that want to do harm, very many."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pixaris_sync.ledger.overview import Overview, ProblemRun
from pixaris_sync.ledger.progress import DatasetProgress, SyncedRun
from pixaris_sync.ledger.totals import Totals
from pixaris_sync.ledger.waiting import WaitingRuns
from pixaris_sync.model import DatasetKey, Destination, FileState, RowState, RunKey, RunState
from pixaris_sync.monitoring.view import View

#: Pages tell how long ago things were.
NOW = float(int(time.time()))
MEBIBYTE = 1024 * 1024
#: Each would do something somewhere: in HTML, in an attribute, in a script, in a terminal, in the eye.
HOSTILE_NAMES = (
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    '" onmouseover="document.title=\'taken\'" x="',
    "' autofocus onfocus=document.title='taken' '",
    "]]><!-- </title></style></textarea> -->",
    "javascript:document.title='taken'",
    "&lt;b&gt; & &#x3c; &amp",
    "\u202egnp.exe\u202c \u2066left\u2069",
    "\x1b[31mred\x1b[0m \x07\x00\x7f",
    "two\nlines\r\n\tand \u2028 more",
    "שלום عالم",
    "long" + "-x" * 125,
    "unbroken" + "x" * 247,
    "lone \udc80 surrogate",
    "{{7*7}} ${7*7} `rm -rf ~`",
)


def counts(states: Any, **given: int) -> dict[str, int]:
    return {str(state): given.get(str(state), 0) for state in states}


def view(
    *,
    runs: dict[str, int] | None = None,
    files: dict[str, int] | None = None,
    problems: Sequence[ProblemRun] = (),
    waiting: Sequence[WaitingRuns] = (),
    datasets: Sequence[DatasetProgress] = (),
    last_runs: Sequence[SyncedRun] = (),
    folder: Path = Path("/data/local_results"),
    **changes: Any,
) -> View:
    """A view of an empty ledger, but for what is given."""
    overview = Overview(
        runs=counts(RunState, **(runs or {})),
        files=counts(FileState, **(files or {})),
        rows=counts(RowState),
        pending_bytes=0,
        oldest_pending_at=None,
        last_synced_at=None,
        torn_files=(),
        repeated_lines=0,
        waiting=tuple(waiting),
        problems=tuple(problems),
    )
    made = View(
        read_at=NOW,
        version="1.2.3",
        folder=folder,
        destination=Destination("acme-images", "acme-pixaris", "acme-images.experiments"),
        ledger=Path("/var/lib/pixaris-sync/local_results-1a2b3c.sqlite3"),
        ledger_bytes=3 * MEBIBYTE,
        overview=overview,
        datasets=tuple(datasets),
        last_runs=tuple(last_runs),
        totals=Totals(0, 0, 0, 0),
    )
    return with_changes(made, **changes)


def with_changes(made: View, **changes: Any) -> View:
    """The view with other values of its own, or of its overview."""
    of_overview = {name: value for name, value in changes.items() if name in Overview.__struct_fields__}
    others = {name: value for name, value in changes.items() if name not in of_overview}
    return replace(made, overview=replace(made.overview, **of_overview), **others)


def dataset(name: str, project: str = "shoes", *, cause: str = "", **runs: int) -> DatasetProgress:
    pending = runs.get("pending", 0)
    return DatasetProgress(
        DatasetKey(project, name),
        counts(RunState, **runs),
        under_way=min(1, pending),
        files_left=8 * pending,
        bytes_left=8 * pending * MEBIBYTE,
        rows_left=pending,
        uploading=min(6, pending),
        cause=cause,
    )


def synced_run(
    name: str = "20240101-120000_baseline",
    project: str = "shoes",
    dataset: str = "studio",
    *,
    images: int = 3,
    ago: float = 60.0,
) -> SyncedRun:
    paths = tuple(f"generated_images/{at}.png" for at in range(min(4, images)))
    size = images * 2 * MEBIBYTE
    return SyncedRun(
        RunKey(project, dataset, name), images + 1, size, images, paths, NOW - ago - 1.3, NOW - ago
    )


def problem(
    run: str, cause: str, *, state: str = "quarantined", hint: str = "mend it", ago: float = 3600.0
) -> ProblemRun:
    return ProblemRun(run, state, NOW - ago, cause, hint)


def empty(**changes: Any) -> View:
    return view(**changes)


def busy(**changes: Any) -> View:
    names = ("baseline", "guidance-7.5", "lora-v2", "steps-40", "dark-background", "controlnet", "upscaled")
    made = view(
        runs={"synced": 1_348, "pending": 37},
        files={"uploaded": 10_784, "pending": 290, "uploading": 6},
        datasets=[
            dataset("studio", synced=812, pending=25),
            dataset("outdoor", synced=392, pending=12),
            *(dataset(name, "bags", synced=48) for name in ("white", "street", "macro")),
        ],
        last_runs=[
            synced_run(f"20240101-12{at:02}00_{name}", images=count, ago=40.0 * at + 3)
            for at, (name, count) in enumerate(zip(names, (3, 1, 4, 12, 2, 0, 6), strict=True))
        ],
        waiting=[
            WaitingRuns(31, NOW - 320, "waiting to be uploaded"),
            WaitingRuns(6, NOW - 300, "being uploaded"),
        ],
        pending_bytes=592 * MEBIBYTE,
        oldest_pending_at=NOW - 320,
        last_synced_at=NOW - 3,
        totals=Totals(10_784, 21_160 * MEBIBYTE, 12, 30 * MEBIBYTE),
    )
    return with_changes(made, **changes)


def synced(**changes: Any) -> View:
    full = busy()
    made = view(
        runs={"synced": 1_241},
        files={"uploaded": 9_928},
        datasets=[
            dataset("studio", synced=837),
            dataset("outdoor", synced=404),
            *(dataset(name, "bags", synced=48) for name in ("white", "street", "macro")),
        ],
        last_runs=full.last_runs,
        last_synced_at=NOW - 3,
        totals=full.totals,
    )
    return with_changes(made, **changes)


def with_problems(**changes: Any) -> View:
    outage = "cannot upload object results/shoes/studio/{}/generated_images/0.png: the service answered 503"
    runs = [f"shoes/studio/20240101-11{at // 60:02}{at % 60:02}_sweep" for at in range(212)]
    made = view(
        runs={"synced": 902, "pending": 4, "failing": 212, "quarantined": 3, "incomplete": 1},
        files={"uploaded": 7_216, "pending": 1_700},
        datasets=[
            dataset("studio", synced=600, pending=4, failing=212, quarantined=2),
            dataset("outdoor", synced=302, incomplete=1),
            dataset("a/b", "bags", quarantined=1, cause="GCS takes no slash in the name of a dataset"),
        ],
        problems=[
            *(
                problem(run, outage.format(run.rpartition("/")[2]), state="failing", hint="", ago=900 - at)
                for at, run in enumerate(runs)
            ),
            problem(
                "shoes/studio/20240101-101500_broken",
                "cannot verify image shoes/studio/20240101-101500_broken/generated_images/2.png: image "
                "cannot be verified: its chunk IDAT is cut short",
                hint="replace the image by a whole one; one that is still being written is looked at again",
            ),
            problem(
                "shoes/studio/experiment_tracking.jsonl:118",
                "the line is no JSON",
                hint="correct the line, or delete it; then `pixaris-sync retry`",
                ago=86_400,
            ),
            problem(
                "shoes/outdoor/20240101-090000_aborted",
                "no tracking line names this run folder",
                state="incomplete",
                hint="delete the folder if the run was aborted",
                ago=10_000,
            ),
            problem("bags/white", "lines that repeat a record: 3; they are one row", state="notice", hint=""),
        ],
        last_runs=busy().last_runs,
        waiting=[WaitingRuns(4, NOW - 900, "waiting to be uploaded")],
        pending_bytes=3_400 * MEBIBYTE,
        oldest_pending_at=NOW - 900,
        last_synced_at=NOW - 901,
        totals=Totals(7_216, 14_000 * MEBIBYTE, 0, 0),
    )
    return with_changes(made, **changes)


def hostile(**changes: Any) -> View:
    """Every name and text is hostile."""
    made = view(
        runs={"synced": 5, "quarantined": len(HOSTILE_NAMES)},
        datasets=[dataset(name, name, cause=name, quarantined=1) for name in HOSTILE_NAMES],
        problems=[problem(f"p/d/{name}", name, hint=name) for name in HOSTILE_NAMES],
        last_runs=[
            synced_run(name, name, name)._replace(first_images=(f"generated_images/{name}",), images=1)
            for name in HOSTILE_NAMES
        ],
        waiting=[WaitingRuns(1, NOW, name) for name in HOSTILE_NAMES],
        folder=Path("/data/<b>results</b>\x1b[31m"),
    )
    return with_changes(made, **changes)


def many(number: int = 1000, **changes: Any) -> View:
    """So many datasets, and so many problems of causes of their own."""
    made = view(
        runs={"synced": 50 * number, "quarantined": number},
        files={"uploaded": 1_000 * number},
        datasets=[dataset(f"dataset-{at:04}", synced=50, quarantined=at % 2) for at in range(number)],
        problems=[
            problem(f"shoes/dataset-{at:04}/run", f"cannot read shoes/dataset-{at:04}/run/a.png: fault {at}")
            for at in range(number)
        ],
        last_runs=[synced_run(f"run-{at}", images=20) for at in range(12)],
    )
    return with_changes(made, **changes)
