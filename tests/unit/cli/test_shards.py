"""How far shards are, by what they left: states, sums, what is missing, what to do next."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.shards import (
    ShardState,
    _where,
    divisions,
    named,
    shards_document,
    shards_text,
    state_of,
)
from pixaris_sync.process.shard_report import Cause, ShardReport
from tests.support.documents import DEPLOY
from tests.support.schemas import misfit
from tests.support.shard_reports import done, report_of

NOW = 1_800_000_000.0
HERE = socket.gethostname()
COLUMNS = 80


def made(*reports: ShardReport) -> dict[str, Any]:
    """The whole document."""
    return {
        "state_folder": "/state",
        "folder": "/data/local_results",
        **shards_document(divisions(reports), NOW),
        "elsewhere": [],
        "unreadable": [],
    }


def document(*reports: ShardReport) -> dict[str, Any]:
    """The same, once it fits its schema."""
    found = made(*reports)
    assert not misfit("shards", json.loads(json.dumps(found)))
    return found


def text(*reports: ShardReport) -> str:
    """The screen, which fits."""
    shown = shards_text(made(*reports))
    assert all(len(line) <= COLUMNS for line in shown.splitlines()), shown
    return shown


def gone_pid() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("others", "state"),
    [
        ({}, ShardState.AT_WORK),
        ({"told_at": NOW - 179}, ShardState.AT_WORK),
        ({"told_at": NOW - 181}, ShardState.SILENT),
        # Its clock is ahead of ours.
        ({"told_at": NOW + 500}, ShardState.AT_WORK),
        ({"host": HERE, "pid": os.getpid()}, ShardState.AT_WORK),
        # Its number is that of another process by now.
        ({"host": HERE, "pid": os.getpid(), "told_at": NOW - 181}, ShardState.SILENT),
        ({"exit_code": 0}, ShardState.DONE),
        ({"exit_code": 0, "told_at": NOW - 9999}, ShardState.DONE),
        ({"exit_code": 0, "runs_to_act_on": 1}, ShardState.NEEDS_ATTENTION),
        ({"exit_code": 5}, ShardState.WORK_LEFT),
        ({"exit_code": 130}, ShardState.WORK_LEFT),
        ({"exit_code": 4}, ShardState.FAILED),
        ({"exit_code": 1}, ShardState.FAILED),
        ({"exit_code": 77}, ShardState.FAILED),
    ],
)
def test_a_shard_is_in_one_state(others: dict[str, Any], state: ShardState) -> None:
    """Goal: each report has one meaning. Method: a table of reports and states."""
    assert state_of(report_of("1/4", NOW, **others), NOW) is state


def test_a_killed_shard_is_told_by_its_process_where_that_was_here() -> None:
    """Goal: killed here is known at once, elsewhere after minutes. Method: a process that has ended."""
    pid = gone_pid()
    assert state_of(report_of("1/4", NOW, host=HERE, pid=pid), NOW) is ShardState.KILLED
    assert state_of(report_of("1/4", NOW, pid=pid), NOW) is ShardState.AT_WORK
    assert state_of(report_of("1/4", NOW, pid=pid, told_at=NOW - 600), NOW) is ShardState.SILENT
    shown = text(report_of("1/1", NOW, host=HERE, pid=pid))
    assert f"killed on {HERE}"[:15] in shown
    assert "`pixaris-sync backfill --shard 1/1`" in shown


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ([3], "shard 3"),
        ([3, 7], "shards 3 and 7"),
        ([1, 2], "shards 1 and 2"),
        ([1, 2, 3, 7], "shards 1 to 3 and 7"),
        ([1, 3, 5], "shards 1, 3 and 5"),
        (list(range(1, 1001)), "shards 1 to 1000"),
        (list(range(1, 40, 2)), "shards 1, 3, 5, 7, 9, 11 and 14 more"),
    ],
)
def test_shards_are_named_in_ranges(numbers: list[int], name: str) -> None:
    """Goal: many numbers stay readable. Method: a table."""
    assert named(numbers) == name


def test_what_is_missing_is_told_with_the_commands_that_begin_it() -> None:
    """Goal: `status --shards` tells what has not begun. Method: 8 shards, of which 3 and 7 left nothing."""
    shown = text(*(done(f"{number}/8", NOW) for number in (1, 2, 4, 5, 6, 8)))
    assert "6 done, 2 not begun" in shown
    assert "shards 3 and 7 have not begun" in shown
    assert "`pixaris-sync backfill --shard 3/8`" in shown
    assert "`pixaris-sync backfill --shard 7/8`" in shown
    assert "sends the rows" not in shown
    assert "shard 3 has not begun" in text(*(done(f"{number}/4", NOW) for number in (1, 2, 4)))


def test_when_all_are_done_the_last_pass_is_named_with_its_flags() -> None:
    """Goal: what to do next is right. Method: all done; one with runs to act on; with flags that select."""
    shown = text(*(done(f"{number}/3", NOW) for number in (1, 2, 3)))
    assert "run `pixaris-sync backfill`\n      which sends the rows" in shown
    assert "not begun" not in shown
    needy = done("3/3", NOW, runs_to_act_on=2, runs_done=8)
    shown = text(done("1/3", NOW), done("2/3", NOW), needy)
    assert "run `pixaris-sync backfill`\n      which sends the rows" in shown
    assert "28 of 30 done, 0 waiting, 2 to act on" in shown
    flags = {"selection": "--project 'shop*'"}
    shown = text(done("1/2", NOW, **flags), done("2/2", NOW, **flags))
    assert "run `pixaris-sync backfill --project 'shop*'`\n      which sends" in shown
    shown = text(done("1/2", NOW, **flags))
    assert "`pixaris-sync backfill --project 'shop*' --shard 2/2`" in shown


def test_commands_have_the_flags_that_this_one_has() -> None:
    """Goal: who copies a command asks the same folders. Method: flags of settings, one with a blank."""
    where = _where({"state_dir": "/shared/a b", "log_level": None}, Path("c.yaml"))
    assert where == " --config c.yaml --state-dir '/shared/a b'"
    found = shards_document(divisions([done("1/2", NOW)]), NOW, where=where)
    assert "  `pixaris-sync backfill --config c.yaml --state-dir '/shared/a b' --shard 2/2`" in found["next"]


def test_an_earlier_round_is_seen_by_its_age() -> None:
    """Goal: nobody takes yesterday's shards for today's. Method: one that ended a day ago, one at work."""
    before = done("1/3", NOW, begun_at=NOW - 90_000, ended_at=NOW - 86_400)
    shown = text(before, report_of("2/3", NOW))
    assert "done 1 d ago on node-17" in shown
    assert "\nended 1 d ago\n" in shown
    assert "\nended 1 d to 5 s ago\n" in text(before, report_of("2/3", NOW), done("3/3", NOW))


def test_numbers_are_summed() -> None:
    """Goal: the sums are those of the shards. Method: three shards, one of which has left nothing."""
    found = document(done("1/3", NOW), report_of("2/3", NOW))
    assert found["runs"] == {"found": 20, "done": 14, "waiting": 6, "to_act_on": 0}
    assert found["files"] == {"there": 140, "waiting": 60, "sent": 80, "found": 0}
    assert found["bytes"] == {"waiting": 6 * 2**20, "sent": 8 * 2**20}
    assert [shard["state"] for shard in found["shards"]] == ["done", "at_work", "not_begun"]
    shown = text(done("1/3", NOW), report_of("2/3", NOW))
    assert "140 in the bucket, 60 waiting (6.0 MiB)" in shown


def test_causes_are_put_together() -> None:
    """Goal: problems with counts. Method: two shards with the same cause, one of which failed, too."""
    cut = Cause(count=3, state="quarantined", run="p/d/r", cause="... is cut", hint="store it again")
    error = Cause(count=1, state="failed", run="shard 2/2", cause="no bucket", hint="make it")
    shown = text(
        done("1/2", NOW, causes=(cut,), causes_left=4),
        report_of("2/2", NOW, exit_code=4, causes=(error, cut)),
    )
    assert (
        "quarantined: 6 of shards 1 and 2\n  such as: p/d/r\n  cause: ... is cut\n  hint: store it again\n"
    ) in shown
    assert "failed: shard 2/2\n  cause: no bucket\n  hint: make it\n" in shown
    assert "failed with exit code 4" in shown
    assert "and 4 of other causes" in shown


def test_of_several_divisions_the_one_begun_last_counts_and_the_others_are_named() -> None:
    """Goal: three shards before, four now. Method: both, and one shard with other flags; a shard twice."""
    before = [done(f"{number}/3", NOW, begun_at=NOW - 90_000) for number in (1, 2, 3)]
    other = report_of("1/4", NOW, begun_at=NOW - 80_000, selection="--project shop")
    again = report_of("1/4", NOW, begun_at=NOW - 70_000, exit_code=5)
    now = [report_of(f"{number}/4", NOW) for number in (1, 2)]
    found = document(*before, other, *now, again)
    assert [shard["state"] for shard in found["shards"]] == ["at_work", "at_work", "not_begun", "not_begun"]
    assert [(one["count"], one["selection"], one["shards"]) for one in found["other_divisions"]] == [
        (4, "--project shop", 1),
        (3, "", 3),
    ]
    shown = text(*before, other, *now, again)
    assert "not counted: 3 shards of 3, begun 2027-01-14T07:00:00+00:00" in shown
    assert "not counted: 1 shard of 4 with --project shop, begun " in shown


def test_a_thousand_shards_are_a_screen() -> None:
    """Goal: readable, however many. Method: 1,000 shards in all states; then all but one done."""
    pid = gone_pid()
    reports = [done(f"{number}/1000", NOW) for number in range(1, 700)]
    reports += [report_of(f"{number}/1000", NOW) for number in range(700, 800)]
    reports += [report_of(f"{number}/1000", NOW, told_at=NOW - 9e4) for number in range(800, 803)]
    reports += [report_of(f"{number}/1000", NOW, host=HERE, pid=pid) for number in range(803, 806)]
    reports += [report_of(f"{number}/1000", NOW, exit_code=4) for number in range(806, 808)]
    reports += [done(f"{number}/1000", NOW, runs_to_act_on=1) for number in range(808, 810)]
    reports += [report_of(f"{number}/1000", NOW, exit_code=5) for number in range(810, 812)]
    shown = text(*reports)
    assert len(shown.splitlines()) < 45
    assert "shards 812 to 1000 have not begun" in shown
    assert "see whether shards 800 to 802 still work elsewhere" in shown
    assert "begin shards 800 to 807 and 810 to 1000: " in shown
    assert "and 92 more that are not done: --json lists all" in shown
    assert shown.index("killed on") < shown.index("failed with") < shown.index("at work for")
    assert len(document(*reports)["shards"]) == 1000
    shown = text(*(done(f"{number}/1000", NOW) for number in range(1, 1001) if number != 500))
    assert len(shown.splitlines()) < 12
    assert "shard 500 has not begun" in shown


def test_long_names_of_machines_fit() -> None:
    """Goal: 80 columns. Method: a name of 200 characters, with letters that a terminal would obey."""
    host = "node\x1b[31m" + "x" * 200
    large = {"files_there": 10**9, "files_waiting": 10**9, "bytes_waiting": 2**50}
    for others in ({}, {"told_at": NOW - 1e6}, {"exit_code": 4}, {"begun_at": 0.0}):
        shown = text(report_of("199/200", NOW, host=host, **{**large, **others}), done("1/2", 9e4))
        assert "\x1b" not in shown


def test_each_exit_code_of_a_pass_has_a_state() -> None:
    """Goal: a new exit code cannot be forgotten. Method: those that a shard ends with by itself."""
    fine = {code for code in Exit if state_of(done("1/1", NOW, exit_code=int(code)), NOW) != "failed"}
    assert fine == {Exit.OK, Exit.WORK_LEFT, Exit.INTERRUPTED}


def test_a_folder_without_reports_says_how_to_begin() -> None:
    """Goal: no empty screen. Method: no report at all."""
    assert text() == (
        "no shard of /data/local_results has left a report in /state\n\n"
        "next  `pixaris-sync backfill --shard 1/4` begins the first of four;\n"
        "      where some have begun, name their state folder with --state-dir"
    )


def test_the_page_shows_what_is_printed() -> None:
    """Goal: the example of the page is current. Method: print it anew."""
    cut = "the image generated_images/a.png is cut short"
    cause = Cause(count=2, state="quarantined", run="shop/shoes/r", cause=cut, hint="store the run again")
    shown = text(
        done("1/4", NOW, host="node-16", ended_at=NOW - 900, runs_done=8, runs_to_act_on=2, causes=(cause,)),
        report_of("2/4", NOW, host="node-17"),
        report_of("3/4", NOW, host="node-18", told_at=NOW - 720),
    )
    page = (DEPLOY / "shards.md").read_text(encoding="utf-8")
    assert f"```\n{shown}\n```" in page, shown
