"""Nothing secret in what the real process prints, logs and keeps, whatever the services answer it."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest
from PIL import Image

from pixaris_sync.cli.exits import Exit
from tests.support import command_line as command_lines
from tests.support.command_line import CommandLine, Outcome
from tests.support.proxy import DELIVERIES, UPLOADS, Answer, Proxies, Request, refusal
from tests.support.scripted_bigquery import ScriptedBigQuery, scripted_bigquery
from tests.support.scripted_gcs import ENVIRONMENT
from tests.support.secrets import (
    ACCESS_TOKEN,
    SESSION_ID,
    SIGNED_QUERY,
    cells,
    misplaced,
    private_key,
    secrets_in,
    service_account_key,
)
from tests.support.stored_runs import store_run

_ROOT = Path(__file__).parents[2]
_SETTINGS = {
    "log_level": "debug",
    "sync_attempts_limit": 1,
    "resumable_threshold_bytes": 262144,
    "chunk_bytes": 262144,
    "doubt_settle_seconds": 0.1,
    "table_settle_seconds": 0,
    "retry_delay_seconds_min": 0.05,
    "retry_delay_seconds_max": 0.05,
}
_SESSION = re.compile(r"upload_id=([^&\s]+)")


@dataclass
class Secretive:
    """A machine that works with credentials, and everything that it printed.

    Attributes:
        tokens: the service that gives it access tokens.
        proxies: what stands between it and the emulators.
    """

    command_line: CommandLine
    proxies: Proxies
    tokens: ScriptedBigQuery
    printed: list[str] = field(default_factory=list)

    def run(self, *arguments: str, **settings: object) -> Outcome:
        """Run a command to its end and keep what it printed."""
        outcome = self.command_line.having(**settings).run(*arguments)
        self.printed += [outcome.stdout, outcome.stderr]
        return outcome

    def sync(self) -> int:
        return self.run("sync", "--json", **_SETTINGS).code

    def ask(self) -> None:
        """Ask everything that can be asked."""
        for question in (["status"], ["verify", "--json"]):
            self.run(*question)

    @property
    def sessions(self) -> set[str]:
        """The ids of all upload sessions so far, as they are sent and as they are given."""
        seen = (*self.proxies.storage.seen, *self.proxies.bigquery.seen)
        ids = {found for request in seen for found in _SESSION.findall(request.target)}
        return ids | {quote(found, safe="+%") for found in ids}

    def sessions_in(self, text: str) -> list[str]:
        """Those ids that stand in a text."""
        return [session for session in self.sessions if session in text]

    @property
    def leaks(self) -> list[str]:
        """The secrets that it printed."""
        return secrets_in("\n".join(self.printed), "Bearer ya29", *self.sessions)

    @property
    def text_of_state(self) -> str:
        """Every byte that it keeps, as a character."""
        files = (path for path in self.command_line.state_dir.rglob("*") if path.is_file())
        return b"".join(path.read_bytes() for path in files).decode("latin-1")


@pytest.fixture
def machine(
    command_line: CommandLine, proxies: Proxies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Secretive]:
    """One run with a large and a small image, and a process that has a service account's key."""
    monkeypatch.setattr(command_lines, "COMMAND", (*command_lines.COMMAND[:2], "tests.support.credentialed"))
    pixels = Random(1).randbytes(400 * 300 * 3)  # noqa: S311 - pixels that do not compress
    large = Image.frombytes("RGB", (400, 300), pixels)
    store_run(command_line.folder, images=[(large, "large.png"), (large.resize((9, 9)), "small.png")])
    with scripted_bigquery() as tokens:
        key = tmp_path / "key.json"
        key.write_text(json.dumps(service_account_key(f"{tokens.url}/token")))
        credentialed = command_line.but(**dict.fromkeys(ENVIRONMENT)).but(
            **proxies.environment, GOOGLE_APPLICATION_CREDENTIALS=str(key), PYTHONPATH=str(_ROOT)
        )
        yield Secretive(credentialed, proxies, tokens)
        assert any(asked.path == "/token" for asked in tokens.asked)


def _tells_everything(status: int, *, only: str) -> Callable[[Request], Answer | None]:
    """Answer requests that match with an error that quotes what it knows."""

    def rule(request: Request) -> Answer | None:
        if not request.matches(only):
            return None
        message = (
            f"{request.target} upload_id={SESSION_ID} Authorization: Bearer {ACCESS_TOKEN} "
            f"https://storage.googleapis.com/b/o?{SIGNED_QUERY} {private_key()}"
        )
        return refusal(status, "invalid", message)

    return rule


@pytest.mark.large
def test_a_process_that_is_refused_tells_no_secret(machine: Secretive) -> None:
    """Goal: clean output, logs and ledger. Method: uploads, then rows, are refused; secrets quoted."""
    storage, bigquery = machine.proxies.storage, machine.proxies.bigquery
    codes = []
    for proxy, kind, status in (
        (storage, UPLOADS, 401),
        (storage, UPLOADS, 403),
        (bigquery, DELIVERIES, 503),
    ):
        proxy.rule = _tells_everything(status, only=kind)
        codes.append(machine.sync())
        machine.run("status", "--json")
        proxy.rule = lambda _: None
        machine.run("retry", "--all")
    machine.ask()
    assert codes == [Exit.CONFIGURATION, Exit.CONFIGURATION, Exit.WORK_LEFT]
    assert machine.leaks == []
    [ledger] = machine.command_line.ledgers()
    assert [cell for cell in cells(ledger) if misplaced(*cell)] == []
    assert machine.sync() == Exit.OK, machine.printed[-1]


@pytest.mark.large
def test_a_session_is_kept_while_its_upload_is_open_and_not_a_moment_longer(machine: Secretive) -> None:
    """Goal: of all secrets, the ledger holds a session's address alone, until the upload has ended.

    Method: an upload breaks off in the middle, a later process ends it; every byte that is kept is read.
    """
    machine.proxies.storage.rule = _tells_everything(503, only=r"^PUT /upload/storage/")
    assert machine.sync() != 0
    machine.ask()
    [ledger] = machine.command_line.ledgers()
    kept = [cell[:2] for cell in cells(ledger) if machine.sessions_in(str(cell[2]))]
    assert kept == [("files", "session_uri")]
    assert machine.sessions_in(machine.text_of_state)

    machine.proxies.storage.rule = lambda _: None
    assert machine.sync() == 0, machine.printed[-1]
    machine.ask()
    assert machine.leaks == []
    assert machine.sessions_in(machine.text_of_state) == []
    assert secrets_in(machine.text_of_state) == []


def test_the_search_finds_what_is_there(machine: Secretive) -> None:
    """Goal: the tests above can fail. Method: secrets of each kind in a ledger, a log and an output."""
    assert machine.sync() == 0
    assert machine.sessions
    [ledger] = machine.command_line.ledgers()
    planted = (ACCESS_TOKEN, f"upload_id={SESSION_ID}", SIGNED_QUERY, private_key())
    for secret in planted:
        with closing(sqlite3.connect(ledger)) as db, db:
            db.execute("UPDATE runs SET cause = ?", (secret,))
        assert secrets_in(machine.text_of_state), secret
        assert [cell[:2] for cell in cells(ledger) if misplaced(*cell)] == [("runs", "cause")]
        assert secrets_in(f"2024-01-01 WARNING it says {secret}"), secret
    # The whole run is searched as well.
    ledger.unlink()
    for session in machine.sessions:
        assert machine.leaks == []
        machine.printed = [f"PUT /upload?upload_id={session} HTTP/1.1"]
        assert machine.leaks
        machine.printed = []
