"""Flags that select runs, and plans, through the real command: what goes, what stays, what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, Watching
from tests.support.schemas import misfit
from tests.support.stored_runs import Reader, store_run
from tests.support.terminals import Terminal

#: The runs of `stored`, as they are called in these tests, and what selects some of them.
FLAGS = [
    (("--project", "proj*"), {"old", "young", "other"}),
    (("--project", "shop"), {"shop"}),
    (("--dataset", "data*", "--dataset", "another"), {"old", "young", "other", "shop"}),
    (("--run", "*_old"), {"old"}),
    (("--run", "project/another/*", "--run", "*_sho?"), {"other", "shop"}),
    (("--exclude", "project/dataset"), {"other", "shop"}),
    (("--exclude", "*_old", "--exclude", "shop/*"), {"young", "other"}),
    (("--project", "project", "--since", "2030-01-01"), set()),
    (("--until", "2030-01-01", "--dataset", "another"), {"other"}),
]
IDS = [" ".join(flags) for flags, _ in FLAGS]


@pytest.fixture
def command_line(quick_command_line: CommandLine) -> CommandLine:
    """The real command, mostly in this process: flags are about what it does, not about processes."""
    return quick_command_line


@pytest.fixture
def stored(command_line: CommandLine) -> dict[str, str]:
    """Runs of two projects and three datasets: their names as ``project/dataset/run``."""
    where = {"old": ("project", "dataset"), "young": ("project", "dataset"), "other": ("project", "another")}
    found = {}
    for name, (project, dataset) in {**where, "shop": ("shop", "dataset")}.items():
        run = store_run(command_line.folder, name, project=project, dataset=dataset)
        found[name] = str(run.key)
    return found


def carried(pixaris: Reader, stored: dict[str, str]) -> set[str]:
    """Which of the runs have objects."""
    objects = pixaris.objects()
    return {name for name, key in stored.items() if any(one.startswith(f"results/{key}/") for one in objects)}


def small(*flags: str) -> Any:
    """One choice of flags by default, the others where time does not matter."""
    return [
        pytest.param(given, names, id=name, marks=() if given == flags else pytest.mark.large)
        for (given, names), name in zip(FLAGS, IDS, strict=True)
    ]


@pytest.mark.parametrize(("flags", "selected"), small("--exclude", "*_old", "--exclude", "shop/*"))
def test_sync_carries_what_is_selected_and_then_the_rest(
    command_line: CommandLine,
    pixaris: Reader,
    stored: dict[str, str],
    flags: tuple[str, ...],
    selected: set[str],
) -> None:
    """Goal: nothing else goes, and a later pass takes it up. Method: sync, status and verify with flags."""
    first = command_line.sync(*flags)
    assert carried(pixaris, stored) == selected
    assert first["runs"]["synced"] == first["rows_synced"] == len(selected)
    assert sum(first["runs"].values()) == len(selected)

    status = command_line.run("status", "--json", *flags).document
    assert status["runs"]["synced"] == len(selected)
    assert status["files"]["uploaded"] == len(selected)
    assert (status["waiting"], status["problems"]) == ([], [])
    assert status["waiting_outside"] == first["waiting_outside"] <= len(stored) - len(selected)
    verified = command_line.run("verify", "--both-ways", "--json", *flags)
    assert verified.code == 0, str(verified)
    findings = [json.loads(line) for line in verified.stdout.splitlines()[:-1]]
    assert len(findings) == 3 * len(selected)

    command_line.sync()
    assert carried(pixaris, stored) == set(stored)
    assert command_line.run("verify", "--both-ways").code == 0


@pytest.mark.parametrize(("flags", "selected"), small("--run", "*_old"))
def test_backfill_and_its_plan_carry_what_is_selected(
    command_line: CommandLine,
    pixaris: Reader,
    stored: dict[str, str],
    tmp_path: Path,
    flags: tuple[str, ...],
    selected: set[str],
) -> None:
    """Goal: the plan's runs, and no others. Method: plan with flags, then apply without."""
    path = tmp_path / "plan.json"
    planned = command_line.run("backfill", "--plan", str(path), "--json", *flags).document
    assert planned["runs"] == len(selected)
    assert misfit("plan", json.loads(path.read_text())) == ""

    applied = command_line.run("backfill", "--apply", str(path), "--json")

    assert applied.code == 0, str(applied)
    assert applied.document["rows_synced"] == len(selected)
    assert carried(pixaris, stored) == selected


def test_watch_follows_what_is_selected(
    command_line: CommandLine, pixaris: Reader, stored: dict[str, str], tmp_path: Path
) -> None:
    """Goal: only that, also of what comes. Method: watch a dataset that is not there yet, and one that is."""
    flags = ("--dataset", "another", "--dataset", "later")
    with Watching(command_line, tmp_path, *flags) as watching:
        watching.wait_until_ready()
        store_run(command_line.folder, "left")
        come = str(store_run(command_line.folder, "come", dataset="later").key)
        names = {**stored, "come": come}
        watching.until(
            lambda: carried(pixaris, names) == {"other", "come"} and len(pixaris.runs(dataset="later")) == 1,
            "the runs that are selected are there",
        )
        assert watching.end() == 0
        log = watching.log()
    assert log.count("cannot select by --dataset later: nothing in the results folder") == 1
    assert "it carries what these flags select, and nothing else: --dataset another --dataset later" in log
    command_line.sync()
    assert set(stored) <= carried(pixaris, names)


def test_a_repair_restores_what_is_selected(
    command_line: CommandLine, pixaris: Reader, stored: dict[str, str]
) -> None:
    """Goal: `sync --repair` keeps to flags. Method: remove all objects, repair one dataset, then all."""
    command_line.sync()
    for name in pixaris.objects():
        pixaris.delete(name)
    done = command_line.sync("--repair", "--dataset", "another")
    assert done["repair"]["objects"] == 1
    assert carried(pixaris, stored) == {"other"}
    command_line.sync("--repair")
    assert carried(pixaris, stored) == set(stored)


def test_what_is_left_out_is_not_judged(command_line: CommandLine, stored: dict[str, str]) -> None:
    """Goal: no quarantine from a pass that is not about it. Method: a run without images; two passes."""
    bare = command_line.folder / stored["young"] / "generated_images"
    for image in bare.iterdir():
        image.unlink()
    done = command_line.sync("--run", "*_old")
    assert (done["runs"]["quarantined"], done["problems"]) == (0, [])
    everything = command_line.status()
    assert everything["runs"]["quarantined"] == 0
    done = command_line.sync(expect=3)
    assert done["runs"]["quarantined"] == 1


COMMANDS = ("sync", "backfill", "verify", "status")
MISTAKES = [
    (("--project", "projct"), ("--project projct: nothing", "did you mean --project project?")),
    (("--dataset", "none*"), ("--dataset 'none*': nothing", "there are another, dataset")),
    (("--run", "nobody"), ("--run nobody: nothing", "there are 2")),
    (
        ("--exclude", "project/datset"),
        ("project/datset: nothing", "did you mean --exclude project/dataset?"),
    ),
    (("--run", ""), ("--run: an empty pattern matches nothing", "give --run a name, or leave it out")),
    (
        ("--since", "2025-01-02", "--until", "2025-01-01"),
        ("--since 2025-01-02 --until 2025-01-01: no day", "give --until a later date than --since"),
    ),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pattern_that_matches_nothing_is_an_error(
    command_line: CommandLine, stored: dict[str, str], command: str
) -> None:
    """Goal: acceptance 4, message and exit code. Method: each mistake, before any ledger and with one."""
    assert stored
    mistakes = MISTAKES if command == "sync" else MISTAKES[:1]
    for flags, (cause, hint) in mistakes:
        outcome = command_line.run(command, *flags)
        assert outcome.code == 2, str(outcome)
        error, told = outcome.stderr.splitlines()
        assert error.startswith("error: cannot select by "), error
        assert cause in error
        assert told.startswith("hint: ")
        assert hint in told
        assert outcome.stdout == ""
        assert not command_line.ledgers()


def test_a_mistake_is_readable_on_a_terminal(command_line: CommandLine, stored: dict[str, str]) -> None:
    """Goal: acceptance 4, at 80 columns. Method: a real terminal; then the hint is followed."""
    assert stored
    with Terminal(command_line, "sync", "--project", "projct") as terminal:
        assert terminal.wait() == 2
        assert all(len(row) <= 80 for row in terminal.seen.rows())
        [hint] = [line for line in terminal.seen.lines() if line.startswith("hint: ")]
    flags = hint.removeprefix("hint: did you mean ").removesuffix("?").split()
    assert command_line.run("sync", *flags).code == 0


def test_an_apply_is_refused_with_the_difference(
    command_line: CommandLine, pixaris: Reader, stored: dict[str, str], tmp_path: Path
) -> None:
    """Goal: acceptance 3, message and exit code. Method: change folder and flags, damage the file."""
    path = tmp_path / "plan.json"
    outcome = command_line.run("backfill", "--plan", str(path), "--project", "project")
    assert outcome.code == 0, str(outcome)
    assert all(len(line) <= 80 for line in outcome.stdout.splitlines() if str(path) not in line)
    assert "list price of November 2026, US, without free tier" in outcome.stdout
    assert command_line.run("backfill", "--plan", str(path)).code == 4
    os.utime(next((command_line.folder / stored["old"] / "generated_images").iterdir()), ns=(0, 1))
    for number in range(25):
        store_run(command_line.folder, f"new-{number:02}")

    refused = command_line.run("backfill", "--apply", str(path))

    assert refused.code == 1, str(refused)
    *lines, rest = refused.stdout.splitlines()
    assert lines[0].startswith(stored["old"])
    assert lines[0].endswith(": the file was changed")
    assert (len(lines), rest) == (20, "and 6 more: --json lists all")
    assert refused.stderr.startswith(f"error: cannot apply plan {path}: 26 things have changed")
    told = [
        json.loads(line)
        for line in command_line.run("backfill", "--apply", str(path), "--json").stdout.splitlines()
    ]
    assert len(told[0]["differences"]) == 26
    assert told[1]["error"]["exit_code"] == 1
    assert pixaris.objects() == {}

    for flags in (("--apply", str(path), "--project", "shop"), ("--apply", str(path), "--dry-run")):
        other = command_line.run("backfill", *flags)
        assert other.code == 2, str(other)
    other = command_line.but(PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME="elsewhere").run(
        "backfill", "--apply", str(path)
    )
    assert (other.code, "it is for the bucket" in other.stderr) == (1, True), str(other)
    path.write_text(path.read_text().replace("sent", "done", 1))
    damaged = command_line.run("backfill", "--apply", str(path))
    assert damaged.code == 1
    assert "it was changed after it was written" in damaged.stderr
    assert command_line.run("backfill", "--apply", str(tmp_path / "none")).code == 4
