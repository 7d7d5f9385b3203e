"""``status --ledgers`` and ``status --forget``: every ledger is named, and exactly one is forgotten."""

import os
import pty
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pixaris_sync.cli.exits import Exit
from tests.support.command_line import CommandLine, Watching
from tests.support.stored_runs import store_run

COLUMNS = 80
_DESTINATION = (
    "PIXARIS_SYNC_GCP_PROJECT_ID",
    "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET",
    "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME",
)


def _elsewhere(command_line: CommandLine) -> CommandLine:
    """A command that knows the state folder and no destination."""
    return command_line.but(**dict.fromkeys(_DESTINATION), PIXARIS_SYNC_LOCAL_RESULTS_FOLDER="/nonexistent")


def _files(command_line: CommandLine) -> set[str]:
    return {path.name for path in command_line.state_dir.iterdir()}


def test_ledgers_are_listed_and_one_is_forgotten(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: `--ledgers` and `--forget`, without a destination.

    Method: two folders of which one goes away, a damaged ledger; forget the one, sync the other again.
    """
    other = command_line.having(local_results_folder=tmp_path / "other")
    other.folder = tmp_path / "other"
    store_run(command_line.folder)
    store_run(other.folder)
    command_line.sync()
    first = command_line.ledgers()
    other.sync()
    [second] = set(command_line.ledgers()) - set(first)
    shutil.rmtree(other.folder)
    aside = command_line.state_dir / f"{second.name}.damaged-20260101T000000000000Z"
    aside.write_bytes(b"damaged")
    (command_line.state_dir / "foreign.sqlite3").write_bytes(b"no database at all, of another program")

    stranger = _elsewhere(command_line)
    listed = stranger.run("status", "--ledgers", "--json")
    assert listed.code == 0, str(listed)
    found = {one["name"]: one for one in listed.document["ledgers"]}
    assert set(found) == {first[0].name, second.name, aside.name, "foreign.sqlite3"}
    assert found[first[0].name]["folder"] == str(command_line.folder)
    assert found[first[0].name]["folder_is_there"]
    assert found[first[0].name]["runs"]["synced"] == 1
    assert found[first[0].name]["destination"]["bucket"].startswith("bucket-")
    assert found[second.name]["folder"] == str(other.folder)
    assert not found[second.name]["folder_is_there"]
    assert found[aside.name]["set_aside"]
    assert found["foreign.sqlite3"]["trouble"]

    shown = stranger.run("status", "--ledgers")
    assert shown.code == 0, str(shown)
    assert f"4 ledgers in {command_line.state_dir}" in shown.stdout
    assert "(not there now)" in shown.stdout
    assert "1 synced, 0 waiting, 0 to act on" in shown.stdout
    for line in shown.stdout.splitlines():
        assert len(line) <= COLUMNS or "/" in line or ".damaged-" in line, line

    before = _files(command_line)
    forgotten = stranger.run("status", "--forget", second.name, "--yes", "--json")
    assert forgotten.code == 0, str(forgotten)
    assert forgotten.document["forgotten"] == second.name
    assert before - _files(command_line) == set(forgotten.document["files"])
    assert all(name.startswith(second.stem) and "damaged" not in name for name in forgotten.document["files"])
    assert second.name in forgotten.document["files"]
    gone = stranger.run("status", "--forget", aside.name, "--yes")
    assert (gone.code, gone.stdout) == (0, f"{aside.name} is forgotten: 1 file removed\n")

    # A folder whose ledger was forgotten is compared with the cloud, and nothing is sent twice.
    assert stranger.run("status", "--forget", first[0].name, "--yes").code == 0
    again = command_line.sync()
    assert (again["files_uploaded"], again["runs"]["synced"]) == (0, 1)
    assert command_line.run("verify").code == 0


def test_who_is_asked_may_say_no(command_line: CommandLine) -> None:
    """Goal: a question before anything is removed. Method: a terminal; no, then yes."""
    store_run(command_line.folder)
    command_line.sync()
    [ledger] = command_line.ledgers()
    for answer, said, left in ((b"\n", "nothing was changed", True), (b"y\n", "is forgotten", False)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        pipes: dict[str, Any] = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with _elsewhere(command_line).start("status", "--forget", ledger.name, **pipes) as process:
            stdout, stderr = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == 0, stderr
        assert "A ledger is only a cache." in stdout
        assert said in stdout
        assert all(len(line) <= COLUMNS or "/" in line for line in stdout.splitlines()), stdout
        assert ledger.exists() == left


def test_what_cannot_be_forgotten_is_told(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: each mistake has its message and exit code. Method: no such name, no terminal, in use."""
    store_run(command_line.folder)
    with Watching(command_line, tmp_path) as watch:
        watch.wait_until_ready()
        [ledger] = command_line.ledgers()
        stranger = _elsewhere(command_line)
        for arguments, code, said in (
            (("--forget", "other.sqlite3", "--yes"), Exit.CONFIGURATION, "there is none of this name"),
            (("--forget", str(ledger), "--yes"), Exit.CONFIGURATION, "there is none of this name"),
            (("--forget", ledger.name, "--yes"), Exit.OWNED, f"it is used by process {watch.process.pid}"),
            (("--forget", ledger.name, "--ledgers"), Exit.USAGE, "questions of their own"),
            (("--ledgers", "some-run"), Exit.USAGE, "questions of their own"),
            (("--yes",), Exit.USAGE, "--yes belongs to --forget"),
        ):
            refused = stranger.run("status", *arguments)
            assert refused.code == code, str(refused)
            assert said in " ".join(refused.stderr.split())
            assert "hint: " in refused.stderr
        work = {one["owner"] for one in stranger.run("status", "--ledgers", "--json").document["ledgers"]}
        assert f"process {watch.process.pid} " in str(work)
        assert watch.end() == 0, watch.log()
    asked = stranger.run("status", "--forget", ledger.name)
    assert asked.code == Exit.USAGE, str(asked)
    assert "there is no terminal to ask" in asked.stderr
    assert ledger.exists()


def test_a_state_folder_without_ledgers_is_no_mistake(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: a new machine. Method: a state folder that is not there; one that is a file."""
    new = _elsewhere(command_line).having(state_dir=tmp_path / "nowhere")
    assert new.run("status", "--ledgers").stdout == f"0 ledgers in {tmp_path / 'nowhere'}\n"
    (tmp_path / "file").touch()
    refused = _elsewhere(command_line).having(state_dir=tmp_path / "file").run("status", "--ledgers")
    assert refused.code == Exit.CONFIGURATION, str(refused)
    assert "Not a directory" in refused.stderr
