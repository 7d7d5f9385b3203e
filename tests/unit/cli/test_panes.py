"""What `status --watch` shows of a view, at every size of a terminal."""

import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from pixaris_sync.cli.live import Rate
from pixaris_sync.cli.panes import Now, panes
from pixaris_sync.ledger.overview import Overview, ProblemRun
from pixaris_sync.ledger.progress import DatasetProgress, SyncedRun
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.totals import Totals
from pixaris_sync.ledger.waiting import WaitingRuns
from pixaris_sync.model import DatasetKey, RunKey, RunState
from pixaris_sync.monitoring.view import View
from pixaris_sync.process.ownership import Owner
from pixaris_sync.settings.model import Settings

AT = 1_700_000_000.0
OWNER = Owner(
    4194304, "a-host-with-a-long-name.example.org", "backfill", AT, Selection(("shop",), ("shoes",))
)
NOW = Now(OWNER, 123_456_789.0)
SETTINGS = Settings(
    gcp_project_id="project-with-a-name",
    gcp_bq_experiment_dataset="pixaris",
    gcp_pixaris_bucket_name="bucket",
    local_results_folder=Path("/data/of/somebody/with/a/deep/folder/structure/for/results/local_results"),
)


def dataset(name: str, *, under_way: int = 0, size: int = 0, **runs: int) -> DatasetProgress:
    states = {**dict.fromkeys(map(str, RunState), 0), **runs}
    waiting = under_way or runs.get("pending", 0)
    return DatasetProgress(
        DatasetKey("project", name), states, under_way, 10 * waiting, size, waiting, under_way, ""
    )


def view(*datasets: DatasetProgress, problems: tuple[ProblemRun, ...] = (), last: int = 0) -> View:
    waiting = sum(one.runs["pending"] for one in datasets)
    return View(
        read_at=AT,
        version="1",
        folder=SETTINGS.local_results_folder,
        destination=SETTINGS.destination,
        ledger=Path("/home/somebody/.local/state/pixaris-sync/local_results-0123456789abcdef.sqlite3"),
        ledger_bytes=3_456_789,
        overview=Overview(
            runs={},
            files={},
            rows={},
            pending_bytes=0,
            oldest_pending_at=None,
            last_synced_at=AT,
            torn_files=(),
            repeated_lines=0,
            waiting=(WaitingRuns(waiting, AT, "being uploaded"),) if waiting else (),
            problems=problems,
        ),
        datasets=tuple(sorted(datasets, key=lambda one: one.key)),
        last_runs=tuple(
            SyncedRun(
                RunKey("project", "set", f"20240101-{at:06d}_a-run"), 12, 123_456_789, 12, (), AT, AT + 2.3
            )
            for at in range(last)
        ),
        totals=Totals(0, 0, 0, 0),
    )


BUSY = view(
    dataset("large", synced=1_234_567, pending=98_765, under_way=64, size=987_654_321_000),
    dataset("sick", synced=3, failing=12_345, quarantined=7),
    dataset("name-" * 30, synced=8, pending=1),
    dataset("\x1b[31m名前\u202e", synced=2, pending=1),
    *(dataset(f"done-{number:03d}", synced=number) for number in range(184)),
    problems=(
        *(
            ProblemRun(
                f"project/sick/{at}", "failing", AT, f"it is away {'so ' * 40}", "run `pixaris-sync retry`"
            )
            for at in range(9)
        ),
        ProblemRun("project/sick/z", "quarantined", AT, "it is cut", "store it again"),
    ),
    last=12,
)


def shown(of: View, width: int, height: int = 40, now: Now = NOW) -> list[str]:
    console = Console(width=width, height=height, color_system=None)
    return [line.plain for line in panes(of, now, SETTINGS, console)]


@pytest.mark.parametrize("height", [10, 24, 50, 400])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    """Goal: no line wraps, none scrolls away. Method: a busy view with hostile names, at many sizes."""
    lines = shown(BUSY, width, height)
    assert len(lines) < height
    assert [line for line in lines if cell_len(line) > width] == []
    assert not re.search("[\x00-\x1f\u202e]", "".join(lines))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_numbers_stand_whole_at_every_width(width: int) -> None:
    """Goal: no number is cut or wrapped. Method: the rows of the table, their columns from the right."""
    lines = shown(BUSY, width)
    at = next(number for number, line in enumerate(lines) if line.startswith("dataset "))
    heads = re.split(r" {2,}", lines[at])[1:]
    large = next(line for line in lines if re.match(r"project/large ", line))
    cells = dict(zip(heads, re.split(r" {2,}", large)[1:], strict=True))
    assert cells["synced"] == "1234567"
    assert cells["waiting"] == "98701"
    assert cells["left"] == "919.8 GiB"
    assert cells.get("under way", "64") == "64"
    wide = {"under way", "failing", "to act on"} | ({"files left", "rows left"} if width > 80 else set())
    assert wide <= set(heads)
    total = dict(
        zip(
            heads,
            re.split(r" {2,}", next(line for line in lines if line.startswith("all ")))[1:],
            strict=True,
        )
    )
    assert (total["failing"], total["to act on"]) == ("12345", "7")
    assert str(OWNER) in " ".join(" ".join(lines).split())


def test_what_has_work_comes_first_and_the_rest_is_counted() -> None:
    """Goal: hundreds of datasets on one screen. Method: of 188, four have work; 24 lines."""
    lines = shown(BUSY, 120, 30)
    at = next(number for number, line in enumerate(lines) if line.startswith("dataset "))
    end = next(number for number, line in enumerate(lines) if re.match(r"and \d+ more", line))
    names = [line.split()[0] for line in lines[at + 1 : end]]
    assert names[0] == "project/large"
    assert {"project/sick", "project/large"} < set(names[:4])
    assert lines[end] == f"and {188 - len(names)} more, all synced"
    assert any(line.startswith("quarantined: project/sick/z") for line in lines)
    assert any(line.startswith("last synced") for line in lines)


def test_a_view_at_rest_says_so_and_stays_the_same() -> None:
    """Goal: calm. Method: everything is synced, twice; then nobody works and something waits."""
    rest = view(dataset("set", synced=3), last=1)
    lines = shown(rest, 80)
    assert "now     everything is synced, the last run at 2023-11-14T22:13:20+00:00" in lines
    assert lines == shown(rest, 80)
    assert lines[-1].split() == ["project/set/20240101-000000_a-run", "12", "117.7", "MiB", "2.3", "s"]
    idle = shown(view(dataset("set", pending=1, under_way=1)), 80, now=Now(None, 0.0, "it is locked"))
    assert "work    no process works on this folder" in idle
    assert "trouble it is locked" in idle
    assert "        `pixaris-sync sync` or `pixaris-sync watch` carries what waits" in idle
    assert "        1 pending: being uploaded" in idle


def test_rates_are_smoothed_over_some_seconds() -> None:
    """Goal: no number that jumps. Method: steady work, then rest, then another ledger."""
    seconds = 0.0
    rate = Rate(lambda: seconds)
    found = []
    for at in range(40):
        seconds = float(at)
        found.append(rate.of(Totals(0, 100 * min(at, 20), 0, 0)))
    assert found[0] == 0
    assert found[1:21] == [pytest.approx(100)] * 20
    assert 0 < found[25] < 100
    assert found[-1] == 0
    assert rate.of(Totals(0, 0, 0, 7)) == 0
