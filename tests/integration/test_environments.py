"""The environment that a command is started in: locales, closed streams. None of it breaks work."""

import subprocess

import pytest

from tests.support.command_line import COMMAND, CommandLine
from tests.support.stored_runs import Reader, store_run

#: What a C locale was before Python helped itself: nothing but ASCII.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(command_line: CommandLine, words: str) -> "subprocess.CompletedProcess[str]":
    """Run words of a shell with the command in front of them."""
    return subprocess.run(  # noqa: S602 - it closes streams
        f"{' '.join(COMMAND)} {words}",
        shell=True,
        env=command_line.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_under_an_ascii_locale_names_are_carried_and_shown(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: a name is its bytes. Method: runs and a damaged file called in UTF-8; all commands."""
    run = store_run(command_line.folder, "größe", metrics={"schärfe": 0.5})
    bad = store_run(command_line.folder, "kaputt_ß")
    (bad.folder / "generated_images" / "bild_ü.png").write_bytes(b"no image")
    ascii_only = command_line.but(**ASCII)

    outcome = ascii_only.run("sync", "--young-file-seconds", "0")

    assert outcome.code == 3, outcome
    assert "Traceback" not in outcome.stderr
    assert pixaris.runs() == [run.name]
    status = ascii_only.run("status")
    assert "kaputt_\\xdf" in status.stdout
    assert ascii_only.run("status", "--json").document["problems"]
    assert "Traceback" not in status.stderr
    assert command_line.run("verify").code != 0


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_with_closed_streams_work_goes_on(command_line: CommandLine, pixaris: Reader, closed: str) -> None:
    """Goal: nobody need listen. Method: each of the streams is closed; the ledger is none of them."""
    run = store_run(command_line.folder, "run")

    done = shell(command_line, f"sync {closed}")

    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert pixaris.runs() == [run.name]
    assert command_line.run("verify").code == 0
