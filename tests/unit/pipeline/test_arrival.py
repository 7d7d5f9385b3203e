"""How a run came: what tells one that Pixaris writes here from one that is copied in."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.local.run_folder import FolderTimes, RunInspection
from pixaris_sync.model import DatasetKey, RunKey, Tail, TailPosition
from pixaris_sync.pipeline.arrival import Arrivals, Piece, written_with_line

NOW = 1_700_000_000.0
SECOND_NS = 1_000_000_000
SHOES = DatasetKey("shop", "shoes")


def ns(seconds: float) -> int:
    return int((NOW + seconds) * SECOND_NS)


def name_at(seconds: float, zone: Any = UTC) -> str:
    return datetime.fromtimestamp(NOW + seconds, zone).strftime("%Y%m%d-%H%M%S_run")


@pytest.fixture
def far_away() -> Iterator[None]:
    """A machine whose local time is not UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "XXX-05:30"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("far_away")
@pytest.mark.parametrize(
    ("name", "times", "line_at", "is_written"),
    [
        (name_at(-9), FolderTimes(ns(-1), ns(-8)), 0.0, True),
        (name_at(5.5 * 3600 - 9), FolderTimes(ns(-1), ns(-8)), 0.0, True),
        (name_at(-900), FolderTimes(ns(-1), ns(-899)), 0.0, True),
        ("a run without a time", FolderTimes(ns(-1), ns(-8)), 0.0, True),
        ("99999999-999999_x", FolderTimes(ns(-1), ns(-8)), 0.0, True),
        (name_at(0), FolderTimes(ns(0)), 0.0, True),
        (name_at(-9), FolderTimes(ns(1), ns(-8)), 0.0, False),
        (name_at(-9), FolderTimes(ns(-1), ns(-8), times_set=True), 0.0, False),
        (name_at(-90), FolderTimes(ns(-1), ns(-8)), 0.0, False),
        (name_at(3600), FolderTimes(ns(-1), ns(-8)), 0.0, False),
    ],
    ids=[
        "named in UTC",
        "named in local time",
        "stored for minutes",
        "no time in its name",
        "no such time",
        "without files",
        "newer than its line",
        "times of another place",
        "named long before",
        "named in another zone",
    ],
)
def test_pixaris_writes_the_line_last_and_names_the_time(
    name: str, times: FolderTimes, line_at: float, *, is_written: bool
) -> None:
    """Goal: each sign counts. Method: one run for each, on a machine east of Greenwich."""
    assert written_with_line(name, times, ns(line_at)) is is_written


@pytest.fixture
def arrivals() -> Arrivals:
    context = SimpleNamespace(
        settings=SimpleNamespace(still_folder_seconds=5.0),
        mode=SimpleNamespace(follow=True),
        now=lambda: NOW,
        age_seconds=lambda changed_ns: NOW - changed_ns / SECOND_NS,
    )
    return Arrivals(cast("Any", context))


POSITION = TailPosition(device=1, inode=2, size=10, mtime_ns=ns(0), offset=10, line=1, digest="d")


@pytest.mark.parametrize(
    ("position", "tail", "grown"),
    [
        (POSITION, {}, True),
        (None, {"from_start": True}, True),
        (POSITION, {"from_start": True}, False),
        (replace(POSITION, inode=3), {}, False),
        (replace(POSITION, device=3), {}, False),
        (POSITION, {"changed_ns": ns(2)}, False),
    ],
    ids=["appended", "new", "rewritten", "replaced", "on another disk", "times of another place"],
)
def test_a_file_that_was_put_in_place_did_not_grow(
    arrivals: Arrivals, position: TailPosition | None, tail: dict[str, Any], *, grown: bool
) -> None:
    """Goal: only what was appended counts as written here. Method: a reading of each kind."""
    reading = {"from_start": False, "changed_ns": ns(0), **tail}
    read = Tail(POSITION, records=(), damaged=(), torn_bytes=0, more=False, **reading)
    assert arrivals.piece(position, read, followed=True) == Piece(read.changed_ns, grown=grown, followed=True)


def test_a_file_is_followed_from_its_end_or_from_before_it_was_there(arrivals: Arrivals) -> None:
    """Goal: who did not see a line arrive says so. Method: known, new, and read datasets."""
    known = KnownDataset(1, SHOES, POSITION, read_whole=True, adopted=True)
    arrivals.listed([SHOES])
    assert not arrivals.follows(known)
    assert not arrivals.follows(known._replace(position=None))
    new = known._replace(key=DatasetKey("shop", "new"), position=None)
    arrivals.listed([SHOES, new.key])
    assert arrivals.follows(new)
    assert not arrivals.follows(new._replace(position=POSITION))
    arrivals.read_to_end(SHOES)
    assert arrivals.follows(known)


@pytest.mark.parametrize(
    ("age_seconds", "piece", "just_written", "waits"),
    [
        (1.0, Piece(ns(0), grown=True, followed=True), True, False),
        (1.0, Piece(ns(0), grown=True, followed=False), False, False),
        (1.0, Piece(ns(0), grown=False, followed=True), False, True),
        (90.0, Piece(ns(0), grown=True, followed=True), False, False),
    ],
    ids=["seen arriving", "found at the start", "the file was replaced", "old and still"],
)
def test_a_run_is_just_written_where_its_arrival_was_seen(
    arrivals: Arrivals, age_seconds: float, piece: Piece, *, just_written: bool, waits: bool
) -> None:
    """Goal: no row counts as new that another process may have sent. Method: one run of each kind."""
    run = RunKey("shop", "shoes", name_at(-age_seconds))
    times = FolderTimes(ns(-age_seconds), ns(-age_seconds))
    arrival = arrivals.judge(run, RunInspection((), (), "signature", times), piece)
    assert arrival.just_written is just_written
    assert arrival.quiet_at == (NOW - age_seconds + 5.0 if waits else None)
