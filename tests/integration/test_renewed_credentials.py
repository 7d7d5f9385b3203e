"""Credentials that are refused and then renewed, while ``watch`` runs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pixaris_sync import USER_AGENT
from tests.support import command_line as command_lines
from tests.support.command_line import CommandLine, Watching
from tests.support.renewed_login import Login
from tests.support.scripted_bigquery import scripted_bigquery
from tests.support.scripted_gcs import ENVIRONMENT
from tests.support.stored_runs import Reader, store_run

_ROOT = Path(__file__).parents[2]
_QUICK = {"retry_delay_seconds_min": 0.1, "retry_delay_seconds_max": 0.1, "table_settle_seconds": 0}

_PAUSED = "everything is paused until this is mended"


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A file of credentials that the commands of this test work with."""
    monkeypatch.setattr(command_lines, "COMMAND", (*command_lines.COMMAND[:2], "tests.support.credentialed"))
    with scripted_bigquery() as service:
        login = Login(tmp_path / "credentials.json", service)
        monkeypatch.setattr(service, "next_answer", login.answer)
        yield login


def test_a_login_that_expired_and_was_renewed_needs_no_restart(
    command_line: CommandLine, login: Login, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: whoever logs in again is done, whatever credentials they were and are.

    Method: one `watch` works with a login, which is revoked; with the next one, whose file is missing for a
    while; and with a service account's key. Each time a run is stored meanwhile, and arrives afterwards.
    """
    machine = command_line.but(**dict.fromkeys(ENVIRONMENT)).but(
        GOOGLE_APPLICATION_CREDENTIALS=str(login.file), PYTHONPATH=str(_ROOT)
    )
    login.write(login.as_user("first"))
    login.good = b"first"
    stored = [store_run(machine.folder, "first").name]
    with Watching(machine.having(**_QUICK), tmp_path) as watch:
        watch.until(lambda: pixaris.runs() == stored, "the login works")
        for name, content, missing in (
            ("second", login.as_user("second"), False),
            ("third", login.as_user("third"), True),
            ("assertion", login.as_robot(), False),
        ):
            # What still asks would be refused in the same pause.
            synced = len(stored)
            watch.until(lambda: machine.status()["runs"]["synced"] == synced, "nothing is under way")  # noqa: B023
            told = watch.log().count(_PAUSED)
            login.good = b""
            if missing:
                login.file.unlink()
            stored.append(store_run(machine.folder, name).name)
            watch.until(partial(_is_paused_again, watch, told), "it is paused")
            login.write(content)
            login.good = name.encode()
            watch.until(lambda: sorted(pixaris.runs()) == sorted(stored), f"the {name} login works")
        watch.until(lambda: machine.status()["runs"]["synced"] == len(stored), "all of it is synced")
        assert watch.end() == 0, watch.log()
    assert {asked.headers["User-Agent"] for asked in login.service.asked} == {USER_AGENT}


def _is_paused_again(watch: Watching, told: int) -> bool:
    return watch.log().count(_PAUSED) > told
