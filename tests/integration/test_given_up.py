"""What a user gives up or mends by hand: each hint does what it says, and nothing is told for ever."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, StoredRun, store_run

GIVE_UP = "put it back, or give the run up: delete its folder and its line of the tracking file"


def problem_of(document: dict[str, Any], run: StoredRun) -> dict[str, Any]:
    [problem] = [problem for problem in document["problems"] if problem["run"] == str(run.key)]
    return dict(problem)


def edit_line(run: StoredRun, edit: Callable[[dict[str, Any]], None] | None) -> None:
    """Change a run's line, or take it out."""
    lines = []
    for line in run.tracking.read_text().splitlines():
        record = json.loads(line)
        if record["experiment_run_name"] == run.name:
            if edit is None:
                continue
            edit(record)
        lines.append(json.dumps(record) + "\n")
    run.tracking.write_text("".join(lines))


def test_a_run_is_given_up_by_deleting_its_folder_and_its_line(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: nothing is told for ever of what somebody gave up, and what comes back is new.

    Method: lose a run's folder. Take away the whole tracking file, then only the line; then bring both back.
    """
    good, bad = store_run(command_line.folder, "good"), store_run(command_line.folder, "bad")
    shutil.copytree(bad.folder, tmp_path / "spare")
    line = bad.line
    shutil.rmtree(bad.folder)

    lost = command_line.sync(expect=3)
    bad.tracking.rename(tmp_path / "tracking")
    away = command_line.sync(expect=3)
    (tmp_path / "tracking").rename(bad.tracking)
    edit_line(bad, None)
    outcome = command_line.run("sync", "--json")

    assert problem_of(lost, bad)["hint"] == GIVE_UP
    assert away["runs"]["quarantined"] == 1
    assert outcome.code == 0, str(outcome)
    assert f"{bad.key}: given up" in outcome.stderr
    assert outcome.document["problems"] == []
    runs, rows = (
        {state: count for state, count in outcome.document[of].items() if count} for of in ("runs", "rows")
    )
    assert (runs, rows) == ({"synced": 1}, {"synced": 1})
    assert "1 synced" in command_line.run("status").stdout
    shutil.copytree(tmp_path / "spare", bad.folder)
    with bad.tracking.open("a") as tracking:
        tracking.write(line + "\n")
    assert command_line.sync()["rows_synced"] == 1
    assert pixaris.runs() == sorted([good.name, bad.name])


def test_a_run_goes_on_without_a_saved_argument_that_is_gone(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: "take its key out of the run's line" works. Method: lose the file of one; do it."""
    run = store_run(command_line.folder, args={"flow": {"a": 1}, "seed": 7}, metrics={"rating": {"b": 2}})
    (run.folder / "flow.json").unlink()

    lost = command_line.sync(expect=3)
    edit_line(run, lambda record: record.pop("flow"))
    command_line.sync()

    hint = "put it back, or take its key out of the run's line of the tracking file"
    assert problem_of(lost, run)["hint"] == hint
    frame = pixaris.frame()
    assert ("flow" in frame, list(frame["seed"])) == (False, [7])
    assert {name.rpartition("/")[2] for name in pixaris.objects()} == {"image_0.png", "rating.json"}


def test_a_run_goes_on_without_an_image_that_is_gone(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: "let `pixaris-sync retry` go on without it" works, for an image.

    Method: one is cut short, so that its run waits; it is deleted.
    """
    run = store_run(command_line.folder, images=2)
    image = run.folder / "generated_images" / "image_1.png"
    image.write_bytes(image.read_bytes()[:40])

    command_line.sync(expect=5)
    image.unlink()
    gone = command_line.sync("--young-file-seconds", "0", expect=3)
    assert command_line.run("retry", str(run.key)).code == 0
    command_line.sync()

    assert problem_of(gone, run)["hint"] == "put it back, or let `pixaris-sync retry` go on without it"
    assert [name.rpartition("/")[2] for name in pixaris.objects()] == ["image_0.png"]
    assert pixaris.runs() == [run.name]


def test_of_two_runs_that_clash_one_is_stored_again(
    command_line: CommandLine, pixaris: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: "store one of them again, and take its line out" works.

    Method: two of one name in one second, whose metrics differ; do it.
    """
    with monkeypatch.context() as patch:
        patch.setattr("pixaris.experiment_handlers.local.time.strftime", lambda _: "20240101-000000")
        first = store_run(command_line.folder, "same", metrics={"rating": {"a": 1}})
        store_run(command_line.folder, "same", metrics={"rating": {"a": 2}})

    clash = command_line.sync(expect=3)
    again = store_run(command_line.folder, "again", metrics={"rating": {"a": 2}})
    lines = first.tracking.read_text().splitlines(keepends=True)
    first.tracking.write_text("".join([lines[0], *lines[2:]]))
    mended = command_line.sync()

    hint = "store one of them again, and take its line out of the tracking file"
    assert problem_of(clash, first)["hint"].endswith(hint)
    assert {state: count for state, count in mended["rows"].items() if count} == {"synced": 2}
    assert pixaris.runs() == sorted([first.name, again.name])
    assert len(pixaris.objects()) == 4
