"""Findings as text and JSON."""

import json
from typing import Any

import pytest

from pixaris_sync.cli import report
from pixaris_sync.ledger.overview import Overview, ProblemRun
from pixaris_sync.ledger.waiting import WaitingRuns
from pixaris_sync.process.repair import Repair
from pixaris_sync.text import bytes_text, span_text
from pixaris_sync.verify import Finding, Kind, Sign

NOW = 1_700_000_000.0
EMPTY: dict[str, Any] = {
    "runs": {"synced": 0, "pending": 0},
    "files": {"uploaded": 0},
    "rows": {"in_doubt": 0},
    "pending_bytes": 0,
    "oldest_pending_at": None,
    "last_synced_at": None,
    "torn_files": (),
    "repeated_lines": 0,
    "waiting": (),
    "problems": (),
}
BUSY = {
    **EMPTY,
    "runs": {"synced": 2, "pending": 1},
    "rows": {"in_doubt": 3},
    "pending_bytes": 1536,
    "oldest_pending_at": NOW - 3700,
    "last_synced_at": NOW,
    "torn_files": ("p/d/tracking.jsonl",),
    "waiting": (WaitingRuns(1, NOW - 60, "its turn"),),
    "problems": (ProblemRun("p/d/r", "quarantined", NOW - 60, "it is cut", "store it again"),),
}


def document(values: dict[str, Any], now: float = NOW) -> dict[str, Any]:
    return report.status_document(Overview(**values), now)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**30, "1.0 GiB"),
        (2**42, "4.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_bytes_are_written_for_people(count: int, text: str) -> None:
    """Goal: readable sizes. Method: both sides of each step."""
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (7500, "2 h 5 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_spans_are_written_for_people(seconds: float, text: str) -> None:
    """Goal: two units tell enough. Method: both sides of each step."""
    assert span_text(seconds) == text


def test_times_are_in_utc() -> None:
    """Goal: no guessing of zones. Method: a known moment, and none."""
    assert report.when(NOW) == "2023-11-14T22:13:20+00:00"
    assert report.when(None) is None


def test_the_status_document_has_what_was_promised() -> None:
    """Goal: machines rely on it. Method: compare the whole document; it is one line of ASCII JSON."""
    found = document(BUSY)
    assert found == {
        "runs": {"synced": 2, "pending": 1},
        "files": {"uploaded": 0},
        "rows": {"in_doubt": 3},
        "pending_bytes": 1536,
        "oldest_pending_seconds": 3700.0,
        "last_synced_at": "2023-11-14T22:13:20+00:00",
        "torn_lines": 1,
        "torn_files": ["p/d/tracking.jsonl"],
        "repeated_lines": 0,
        "pruned": 0,
        "waiting": [{"runs": 1, "since": "2023-11-14T22:12:20+00:00", "cause": "its turn"}],
        "problems": [
            {
                "run": "p/d/r",
                "state": "quarantined",
                "since": "2023-11-14T22:12:20+00:00",
                "cause": "it is cut",
                "hint": "store it again",
            }
        ],
    }
    line = report.as_json({**found, "name": "é\n"})
    assert json.loads(line) == {**found, "name": "é\n"}
    assert line.isascii()
    assert "\n" not in line


def test_a_clock_set_back_makes_no_age_negative() -> None:
    """Goal: no nonsense in dashboards. Method: ask at a time before."""
    assert document(BUSY, NOW - 9999)["oldest_pending_seconds"] == 0.0
    assert document(EMPTY)["oldest_pending_seconds"] is None


def test_the_status_text_says_what_the_document_holds() -> None:
    """Goal: people see the same. Method: compare the whole text."""
    assert report.status_text(document(BUSY)).splitlines() == [
        "runs  2 synced, 1 pending",
        "files none",
        "rows  3 in doubt",
        "wait  1.5 KiB to upload, oldest run waiting for 1 h 1 min",
        "      1 pending: its turn",
        f"work  {report.NOBODY}: `pixaris-sync sync` or `pixaris-sync watch` carries what waits",
        "last  2023-11-14T22:13:20+00:00",
        "torn  the last line of p/d/tracking.jsonl is unfinished",
        "",
        "quarantined: p/d/r (since 2023-11-14T22:12:20+00:00)",
        "  cause: it is cut",
        "  hint: store it again",
    ]


def failing(number: int, cause: str) -> ProblemRun:
    run = f"p/d/r{number}"
    return ProblemRun(run, "failing", NOW - number, cause.format(run), "")


def test_an_outage_of_many_runs_is_told_in_few_lines() -> None:
    """Goal: readable at night, whole for machines. Method: thousands of runs, each cause names one."""
    outage = [
        failing(number, "cannot upload object results/{}/a.png: it says 503") for number in range(10_000)
    ]
    quarantined = ProblemRun("p/d/z", "quarantined", NOW, "it is cut", "store it again")
    found = document({**EMPTY, "problems": (*outage, quarantined)})
    assert len(found["problems"]) == 10_001
    assert report.status_text(found).splitlines()[5:] == [
        "",
        "quarantined: p/d/z (since 2023-11-14T22:13:20+00:00)",
        "  cause: it is cut",
        "  hint: store it again",
        "",
        "failing: 10000 of the same cause (the first since 2023-11-14T19:26:41+00:00)",
        "  p/d/r0",
        "  p/d/r1",
        "  p/d/r2",
        "  and 9997 more: --json lists all",
        "  cause: cannot upload object ...: it says 503",
    ]


def test_a_group_of_a_few_names_each_of_them() -> None:
    """Goal: nothing hidden that has room. Method: two runs of one cause, one of another."""
    problems = (failing(1, "this"), failing(2, "this"), failing(3, "that of {}"))
    lines = report.status_text(document({**EMPTY, "problems": problems})).splitlines()
    assert lines[6:9] == [
        "failing: 2 of the same cause (the first since 2023-11-14T22:13:18+00:00)",
        "  p/d/r1",
        "  p/d/r2",
    ]
    assert lines[-1] == "  cause: that of p/d/r3"
    assert not any("more" in line for line in lines)


def test_causes_without_end_are_cut_and_counted() -> None:
    """Goal: the text stays short, and says what it leaves out. Method: each run has a cause of its own."""
    shown = report.PROBLEMS_SHOWN
    problems = tuple(failing(number, f"cause {number}") for number in range(shown + 7))
    text = report.status_text(document({**EMPTY, "problems": problems}))
    assert text.count("cause: ") == shown
    assert text.splitlines()[-1] == "and 7 more with 7 other causes: --json lists all"


def test_an_empty_status_is_calm() -> None:
    """Goal: nothing where nothing is. Method: an empty ledger."""
    text = report.status_text(document(EMPTY))
    assert "nothing synced yet" in text
    assert "waiting for" not in text
    assert "torn" not in text


def test_a_pass_says_what_it_did_first() -> None:
    """Goal: the answer to `sync`. Method: the first line of its text."""
    done = {
        "files_uploaded": 3,
        "files_found": 1,
        "bytes": 2048,
        "bytes_found": 1024,
        "rows_synced": 2,
        "seconds": 1.3,
    }
    text = report.pass_text({**document(EMPTY), **done})
    first = "3 files uploaded (2.0 KiB), 1 found there (1.0 KiB), 2 rows synced in 1.3 s"
    assert text.splitlines()[0] == first
    assert text.endswith(report.status_text(document(EMPTY)))


def test_a_repair_says_what_it_took_up_and_what_it_left() -> None:
    """Goal: the answer to `sync --repair`. Method: a healthy state; then much that it left as it is."""
    done = {
        "files_uploaded": 0,
        "files_found": 0,
        "bytes": 0,
        "bytes_found": 0,
        "rows_synced": 0,
        "seconds": 1.3,
    }
    healthy = report.repair_document(Repair())
    assert healthy == {"objects": 0, "rows": 0, "left": []}
    second = report.pass_text({**document(EMPTY), **done, "repair": healthy}).splitlines()[1]
    assert second == "nothing to repair: no object and no row is missing or different"
    differs = Finding(Sign.DIFFERS, Kind.ROW, "t:run", "other values than in the record: a")
    left = report.repair_document(Repair(2, 1, [differs] * (report.PROBLEMS_SHOWN + 3)))
    lines = report.pass_text({**document(EMPTY), **done, "repair": left}).splitlines()[1:]
    assert lines[0] == "taken up again: 2 objects and 1 row that the cloud had lost"
    shown = lines[1 : report.PROBLEMS_SHOWN + 1]
    assert shown == ["left  * t:run: other values than in the record: a"] * report.PROBLEMS_SHOWN
    assert lines[report.PROBLEMS_SHOWN + 1] == "left  and 3 more: --json lists all"


def test_columns_are_as_wide_as_their_longest_entry() -> None:
    """Goal: aligned. Method: names of two lengths, and nothing."""
    assert report.table_text([("a", "1"), ("bbb", "2")]) == "a    1\nbbb  2"
    assert report.table_text([]) == ""
