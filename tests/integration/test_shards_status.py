"""``status --shards``: real shards leave their reports, and a screen tells how far they are."""

import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli.exits import Exit
from pixaris_sync.process.shard_report import SUFFIX, shard_reports
from tests.support.command_line import TIMEOUT_SECONDS, CommandLine
from tests.support.proxy import Proxies, held_until
from tests.support.shard_reports import done, leave, report_of
from tests.support.stored_runs import store_run
from tests.support.terminals import Terminal
from tests.support.waiting import eventually

COLUMNS = 80
COUNT = 4


def shards(command_line: CommandLine, *arguments: str) -> dict[str, Any]:
    """The document of ``status --shards``, which fits its schema."""
    outcome = command_line.run("status", "--shards", "--json", *arguments)
    assert outcome.code == 0, str(outcome)
    return outcome.document


def test_shards_that_worked_are_told_and_the_others_are_missing(
    command_line: CommandLine, quick_command_line: CommandLine
) -> None:
    """Goal: what is missing, then what to do next. Method: 2 of 4 processes at once; what it names."""
    runs = [store_run(command_line.folder, f"run{number}", images=2) for number in range(8)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun: list[Any] = [
        command_line.start("backfill", "--shard", f"{number}/{COUNT}", powerless=False, **quiet)
        for number in (1, 3)
    ]
    assert [process.wait(TIMEOUT_SECONDS) for process in begun] == [0, 0]
    command_line = quick_command_line
    found = shards(command_line)
    assert [shard["state"] for shard in found["shards"]] == ["done", "not_begun", "done", "not_begun"]
    assert found["files"]["there"] == found["files"]["sent"] == 2 * found["runs"]["done"]
    assert found["runs"]["found"] == found["runs"]["done"] < len(runs)
    shown = command_line.run("status", "--shards")
    assert shown.code == 0, str(shown)
    assert "2 done, 2 not begun" in shown.stdout
    assert "shards 2 and 4 have not begun" in shown.stdout

    for command in commands_in(shown.stdout):
        assert command_line.run(*command).code == 0, command
    found = shards(command_line)
    assert found["states"] == {state: 4 * (state == "done") for state in found["states"]}
    assert found["runs"] == {"found": 8, "done": 8, "waiting": 0, "to_act_on": 0}
    assert found["files"] == {"there": 16, "waiting": 0, "sent": 16, "found": 0}
    # Another backfill, which finds all of it, and sends the rows.
    [last] = commands_in(command_line.run("status", "--shards").stdout)
    assert last == ["backfill"]
    document = command_line.run(*last, "--json").document
    assert (document["exit_code"], document["files_uploaded"], document["rows_synced"]) == (0, 0, 8)
    # A ledger takes its report with it.
    for ledger in command_line.run("status", "--ledgers", "--json").document["ledgers"]:
        if ledger["shard"] == "2/4":
            assert command_line.run("status", "--forget", ledger["name"], "--yes").code == 0
    assert shards(command_line)["shards"][1]["state"] == "not_begun"


def commands_in(shown: str) -> list[list[str]]:
    """The commands that are named as the next ones."""
    return [
        command.removeprefix("pixaris-sync ").split()
        for command in shown.partition("\nnext ")[2].split("`")[1::2]
    ]


def test_a_shard_with_a_bad_run_is_done_and_tells_of_it(quick_command_line: CommandLine) -> None:
    """Goal: problems with counts; the last pass is still what is next. Method: two runs without images."""
    for number in range(3):
        stored = store_run(quick_command_line.folder, f"run{number}")
        if number:
            for image in stored.folder.glob("generated_images/*"):
                image.unlink()
    assert quick_command_line.run("backfill", "--shard", "1/1").code == 0
    found = shards(quick_command_line)
    assert found["states"]["needs_attention"] == 1
    assert (found["runs"]["done"], found["runs"]["to_act_on"]) == (1, 2)
    [cause] = found["causes"]
    assert (cause["state"], cause["count"], cause["shards"]) == ("quarantined", 2, [1])
    shown = quick_command_line.run("status", "--shards").stdout
    assert "quarantined: 2 of shard 1\n  such as: " in shown
    assert commands_in(shown) == [["backfill"]]


@pytest.mark.parametrize(("number", "state"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "work_left")])
def test_a_shard_that_was_killed_or_stopped_is_told_and_goes_on(
    proxied: CommandLine, quick_command_line: CommandLine, proxies: Proxies, number: int, state: str
) -> None:
    """Goal: a shard that is at work, is ended, is begun again. Method: signals while an upload is held."""
    store_run(proxied.folder)
    asking = quick_command_line.but(**proxies.environment)
    quiet, released = subprocess.DEVNULL, threading.Event()
    usual, proxies.storage.rule = proxies.storage.rule, held_until(released)
    with proxied.start(
        "backfill", "--shard", "1/1", "--drain-timeout", "0.2", stdout=quiet, stderr=quiet
    ) as process:
        try:
            eventually(lambda: proxies.uploads, "an upload is on its way", timeout_seconds=120.0)
            at_work = eventually(lambda: shards(asking)["states"]["at_work"], "a report")
            [shard] = shards(asking)["shards"]
        finally:
            process.send_signal(number)
            process.wait(TIMEOUT_SECONDS)
            released.set()
            proxies.storage.rule = usual
    assert at_work == 1
    assert (shard["pid"], shard["exit_code"]) == (process.pid, None)
    assert shards(asking)["states"][state] == 1
    [command] = commands_in(asking.run("status", "--shards").stdout)
    assert command == ["backfill", "--shard", "1/1"]
    assert asking.run(*command).code == 0
    assert shards(asking)["states"]["done"] == 1


def test_an_error_that_ends_a_shard_is_told(quick_command_line: CommandLine) -> None:
    """Goal: a shard that cannot work says why. Method: a bucket that is not there."""
    store_run(quick_command_line.folder)
    lost = quick_command_line.having(gcp_pixaris_bucket_name="no-such-bucket")
    refused = lost.run("backfill", "--shard", "1/2")
    assert refused.code == Exit.CONFIGURATION, str(refused)
    found = shards(lost)
    assert found["states"]["failed"] == 1
    cause, *others = found["causes"]
    assert (cause["state"], cause["run"]) == ("failed", "shard 1/2")
    # That its bucket could not be listed is told of the run, too, where that answer came before the other.
    assert [one["state"] for one in others] in ([], ["failing"])
    assert cause["hint"] == "create the bucket, or correct the setting gcp_pixaris_bucket_name"
    # Of another destination, it is named and not counted.
    other = shards(quick_command_line)
    assert other["count"] == 0
    assert [one["bucket"] for one in other["elsewhere"]] == ["no-such-bucket"]


def test_a_thousand_shards_fit_a_screen_of_80_columns(
    command_line: CommandLine, quick_command_line: CommandLine
) -> None:
    """Goal: readable in a terminal and in a pipe. Method: 1,000 reports of others, one damaged, another N."""
    assert quick_command_line.run("backfill", "--shard", "1/3").code == 0
    [real] = shard_reports(command_line.state_dir).reports.values()
    now = time.time()
    place = {"folder": real.folder, "destination": real.destination, "begun_at": now}
    for number in range(1, 1001):
        if number in (3, 7):
            continue
        make = report_of if number % 10 == 0 else done
        told = {**place, "told_at": now - 875_000 if number > 500 else now}
        told |= {"ended_at": now - 875_000} if make is done else {}
        leave(make(f"{number}/1000", now, **told), command_line.state_dir)
    leave(done("1/1000", now), command_line.state_dir, "other")
    (command_line.state_dir / f"torn{SUFFIX}").write_text('{"version": 1, "shard": "8/10')
    piped = quick_command_line.run("status", "--shards")
    assert piped.code == 0, str(piped)
    lines = piped.stdout.splitlines()
    assert len(lines) < 50
    assert all(len(line) <= COLUMNS or str(command_line.folder) in line for line in lines), piped.stdout
    assert "50 not heard of, 50 at work, 898 done, 2 not begun" in piped.stdout.replace("\n      ", " ")
    assert "shards 3 and 7 have not begun" in piped.stdout
    assert "not counted: 1 shard of 3, begun " in piped.stdout
    assert "not counted: 1 shard of /data/local_results, to gs://bucket and project.dataset" in piped.stdout
    assert f"not read: torn{SUFFIX}: it is no whole report of a shard" in piped.stdout
    assert len(shards(quick_command_line)["shards"]) == 1000
    with Terminal(command_line, "status", "--shards") as terminal:
        assert terminal.wait() == 0
        seen = terminal.seen.lines()
    assert seen == [line.rstrip() for line in lines if line]


def test_with_other_questions_it_is_refused(quick_command_line: CommandLine) -> None:
    """Goal: each mistake has its message. Method: RUN, --watch, --ledgers, --forget, flags that select."""
    for arguments, said in (
        (("--shards", "some-run"), "questions of their own"),
        (("--shards", "--watch"), "questions of their own"),
        (("--shards", "--ledgers"), "questions of their own"),
        (("--shards", "--forget", "one"), "questions of their own"),
        (("--shards", "--project", "shop"), "flags that select runs belong to"),
        (("--shards", "--since", "2026-01-01"), "flags that select runs belong to"),
    ):
        refused = quick_command_line.run("status", *arguments)
        assert refused.code == Exit.USAGE, str(refused)
        assert said in " ".join(refused.stderr.split())
        assert "hint: " in refused.stderr


def test_a_state_folder_that_cannot_be_listed_is_told(
    quick_command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: its message and exit code. Method: a file in its place; a folder that is not there."""
    (tmp_path / "file").touch()
    refused = quick_command_line.having(state_dir=tmp_path / "file").run("status", "--shards")
    assert refused.code == Exit.CONFIGURATION, str(refused)
    assert "Not a directory" in refused.stderr
    assert shards(quick_command_line.having(state_dir=tmp_path / "nowhere"))["count"] == 0
