"""One table of exit codes."""

import json
import sys

import pytest

from pixaris_sync.cli import app, inspect
from pixaris_sync.cli.exits import Exit, exit_of, exit_of_pass
from pixaris_sync.errors import (
    ConfigurationError,
    Failure,
    FolderOwnedError,
    LedgerError,
    LocalFileError,
    SyncError,
)
from tests.support.schemas import misfit


def test_the_codes_are_those_that_were_promised() -> None:
    """Goal: scripts rely on them. Method: the whole table."""
    assert {member.name: member.value for member in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "PROBLEMS": 3,
        "CONFIGURATION": 4,
        "WORK_LEFT": 5,
        "OWNED": 11,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(
    ("kind", "failure", "ending"),
    [
        (SyncError, Failure.TRANSIENT, Exit.WORK_LEFT),
        (SyncError, Failure.QUOTA, Exit.WORK_LEFT),
        (SyncError, Failure.IN_DOUBT, Exit.WORK_LEFT),
        (SyncError, Failure.PERMISSION, Exit.CONFIGURATION),
        (SyncError, Failure.CREDENTIALS, Exit.CONFIGURATION),
        (SyncError, Failure.PERMANENT, Exit.FAILED),
        (ConfigurationError, Failure.PERMANENT, Exit.CONFIGURATION),
        (ConfigurationError, Failure.TRANSIENT, Exit.CONFIGURATION),
        (FolderOwnedError, Failure.PERMANENT, Exit.OWNED),
        (LedgerError, Failure.PERMANENT, Exit.FAILED),
        (LocalFileError, Failure.TRANSIENT, Exit.WORK_LEFT),
    ],
)
def test_an_error_ends_by_what_it_means(kind: type[SyncError], failure: Failure, ending: Exit) -> None:
    """Goal: the code says who must act. Method: every kind of failure, and the special errors."""
    assert exit_of(kind("do", "x", "y", failure=failure)) is ending


@pytest.mark.parametrize(
    ("waiting", "quarantined", "ending"),
    [(0, 0, Exit.OK), (0, 2, Exit.PROBLEMS), (3, 0, Exit.WORK_LEFT), (3, 2, Exit.WORK_LEFT)],
)
def test_a_pass_ends_by_what_it_leaves(waiting: int, quarantined: int, ending: Exit) -> None:
    """Goal: a script knows whether to come back. Method: each combination."""
    assert exit_of_pass(waiting=waiting, quarantined=quarantined) is ending


@pytest.mark.parametrize(
    ("waiting", "quarantined", "ending"),
    [(0, 0, Exit.OK), (0, 2, Exit.PROBLEMS), (3, 0, Exit.CONFIGURATION), (3, 2, Exit.CONFIGURATION)],
)
def test_a_pass_whose_work_is_denied_needs_somebody(waiting: int, quarantined: int, ending: Exit) -> None:
    """Goal: no script comes back for ever for a role that nobody grants. Method: the same, denied."""
    assert exit_of_pass(waiting=waiting, quarantined=quarantined, denied=True) is ending


def test_an_interruption_is_told_to_machines_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: whoever reads JSON learns of Ctrl+C. Method: interrupt a command, with and without it."""

    def interrupted(*_: object, **__: object) -> Exit:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "show_status", interrupted)
    printed = []
    for arguments in (["status", "--json"], ["status"]):
        monkeypatch.setattr(sys, "argv", ["pixaris-sync", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert ended.value.code == Exit.INTERRUPTED
        printed.append(capsys.readouterr().out)
    error = json.loads(printed[0])["error"]
    assert (error["cause"], error["exit_code"]) == ("it was interrupted", 130)
    assert misfit("error", {"error": error}) == ""
    assert printed[1] == ""
