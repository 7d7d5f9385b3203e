"""Lines that stand in a tracking file twice: what `status` itself advises, restored backups, merged files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, StoredRun, store_run

#: Appends to a tracking file, one after another, with a pass after each.
Steps = Sequence[Callable[[StoredRun, bytes], bytes]]


def args_json(run: StoredRun, _: bytes) -> bytes:
    return (run.folder / "args.json").read_bytes()


def line_end(_: StoredRun, __: bytes) -> bytes:
    return b"\n"


def args_json_as_line(run: StoredRun, rest: bytes) -> bytes:
    return args_json(run, rest) + b"\n"


def rest_of_line(_: StoredRun, rest: bytes) -> bytes:
    return rest


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([line_end, args_json_as_line], id="ended, then its args.json"),
        pytest.param([args_json_as_line], id="its args.json right behind"),
        pytest.param([args_json_as_line, args_json_as_line], id="the same twice", marks=pytest.mark.large),
        pytest.param(
            [rest_of_line, args_json_as_line], id="finished, then its args.json", marks=pytest.mark.large
        ),
        pytest.param(
            [lambda run, rest: line_end(run, rest) + args_json_as_line(run, rest)],
            id="both at once",
            marks=pytest.mark.large,
        ),
    ],
)
def test_what_status_advises_for_a_torn_line_makes_one_row(
    command_line: CommandLine, pixaris: Reader, steps: Steps
) -> None:
    """Goal: our own advice doubles nothing.

    Method: a run whose line a crash cut; `status` is asked, and its hint is followed to the letter, in each
    way in which people do that, with a pass after each step. No line stays damaged, and `verify` agrees.
    """
    # Stored in one second: what comes before the score could be of either.
    whole, run = (store_run(command_line.folder, f"run_{of}", metrics={"score": of}) for of in "ab")
    lines = run.tracking.read_bytes().splitlines(keepends=True)
    torn = lines[1].index(b'"b"') + 3
    run.tracking.write_bytes(lines[0] + lines[1][:torn])
    patient = command_line.having(incomplete_after_seconds=0)
    document = patient.sync(expect=5)
    assert document["torn_lines"] == 1
    [advice] = [problem["hint"] for problem in document["problems"] if problem["state"] == "incomplete"]
    assert "append its content as a line to the tracking file" in advice

    for step in steps:
        with run.tracking.open("ab") as tracking:
            tracking.write(step(run, lines[1][torn:]))
        patient.sync()

    assert pixaris.runs() == sorted([whole.name, run.name])
    assert command_line.run("verify").code == 0


@pytest.mark.parametrize("ledger_lost", [False, pytest.param(True, marks=pytest.mark.large)])
def test_a_tracking_file_that_was_restored_behind_itself_adds_no_row(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path, *, ledger_lost: bool
) -> None:
    """Goal: `cat backup >> file`, and a file that holds everything twice, are one row for each run.

    Method: a run before the backup, one after it; then both ways, also with the ledger lost. `status` counts
    the lines, and `verify` agrees.
    """
    runs = [
        store_run(command_line.folder, f"run-{number}", metrics={"number": number}) for number in range(2)
    ]
    backup = tmp_path / "backup.jsonl"
    backup.write_bytes(runs[0].tracking.read_bytes())
    command_line.sync()
    runs.append(store_run(command_line.folder, "run-2", metrics={"number": 2}))

    with runs[0].tracking.open("ab") as tracking:
        tracking.write(backup.read_bytes())
    assert command_line.sync()["repeated_lines"] == 2
    runs[0].tracking.write_bytes(runs[0].tracking.read_bytes() * 2)
    if ledger_lost:
        command_line.forget_ledger()
    document = command_line.having(doubt_settle_seconds=1).sync()

    assert pixaris.runs() == [run.name for run in runs]
    assert document["rows"]["synced"] == 3
    [notice] = document["problems"]
    assert (notice["state"], document["repeated_lines"]) == ("notice", 7)
    assert notice["cause"].startswith("7 lines repeat")
    assert command_line.run("verify").code == 0


def test_a_damaged_line_is_replaced_as_its_hint_says(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: the other hint doubles nothing either.

    Method: a line that is a piece of anything; the content of args.json takes its place, and the run's own
    line stands behind it.
    """
    run = store_run(command_line.folder, "run")
    line = run.tracking.read_bytes()
    run.tracking.write_bytes(b'{"a piece": "of something else"\n' + line)
    [found] = command_line.sync(expect=3)["problems"]
    assert "where the run's args.json is whole, put its content in the line's place" in found["hint"]
    assert found["run"].endswith(":1")

    run.tracking.write_bytes(args_json_as_line(run, b"") + line)
    document = command_line.sync()

    assert document["repeated_lines"] == 1
    assert pixaris.runs() == [run.name]
    assert command_line.run("verify").code == 0
