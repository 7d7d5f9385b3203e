"""Every exit code of the table, from a real process."""

import json
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import Proxies, held_until, unavailable
from tests.support.stored_runs import Reader, append_line, store_run
from tests.support.waiting import eventually

_NO_PATIENCE = {
    "sync_attempts_limit": 1,
    "retry_delay_seconds_min": 0.01,
    "retry_delay_seconds_max": 0.01,
}


def test_0_everything_is_synced(command_line: CommandLine) -> None:
    """Goal: 0 for work done and for none to do. Method: sync an empty folder, then a run; read status."""
    assert command_line.run("sync").code == 0
    store_run(command_line.folder)

    outcome = command_line.run("sync")

    assert outcome.code == 0
    assert "1 synced" in outcome.stdout
    assert command_line.run("status").code == 0


def test_1_it_failed(command_line: CommandLine) -> None:
    """Goal: 1 for what no other code names. Method: another program's database in the ledger's place."""
    store_run(command_line.folder)
    command_line.sync()
    ledger = command_line.ledgers()[0]
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as database:
        database.execute("CREATE TABLE theirs (x)")

    outcome = command_line.run("sync")

    assert outcome.code == 1, str(outcome)
    assert outcome.stdout == ""
    assert [line.partition(":")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]


def test_a_damaged_ledger_is_rebuilt(command_line: CommandLine) -> None:
    """Goal: no failure and no second row. Method: overwrite the ledger of a synced run, then sync."""
    store_run(command_line.folder)
    command_line.sync()
    command_line.ledgers()[0].write_bytes(b"no ledger at all" * 1000)

    outcome = command_line.run("sync")

    assert outcome.code == 0, str(outcome)
    assert "0 files uploaded" in outcome.stdout
    assert "1 found there" in outcome.stdout
    assert "damaged" in outcome.stderr
    assert "notice:" in outcome.stdout


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("sync", "--no-such-flag"), ("retry",), ("retry", "--all", "run")],
    ids=" ".join,
)
def test_2_the_command_line_is_wrong(command_line: CommandLine, arguments: tuple[str, ...]) -> None:
    """Goal: 2 for usage. Method: what nobody knows, and what does not go together."""
    outcome = command_line.run(*arguments)

    assert outcome.code == 2, str(outcome)
    assert outcome.stdout == ""
    assert outcome.stderr


def test_3_some_runs_need_attention(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: 3 when all else is done. Method: a good run, and a line that is none; again in a second pass."""
    run = store_run(command_line.folder)
    append_line(run.tracking, "[]\n")

    codes = [command_line.run("sync").code for _ in range(2)]

    assert codes == [3, 3]
    assert pixaris.runs() == [run.name]


def test_4_settings_are_missing(command_line: CommandLine) -> None:
    """Goal: 4 for configuration. Method: no bucket is named; the other ways stand in test_bad_destination."""
    assert command_line.but(PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME=None).run("sync").code == 4


@pytest.fixture
def closed_address() -> Iterator[str]:
    """An address where nobody listens, kept from others while the test lasts."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def test_5_the_network_is_down(command_line: CommandLine, pixaris: Reader, closed_address: str) -> None:
    """Goal: 5 for work that a later try may finish. Method: nobody listens; then everybody does."""
    run = store_run(command_line.folder)
    offline = command_line.but(STORAGE_EMULATOR_HOST=closed_address, BIGQUERY_EMULATOR_HOST=closed_address)

    document = offline.having(**_NO_PATIENCE).sync(expect=5)

    assert document["runs"]["synced"] == 0
    assert sum(document["runs"][state] for state in ("pending", "failing")) == 1
    assert command_line.run("sync").code == 0
    assert pixaris.runs() == [run.name]


def test_5_one_of_the_services_is_down(proxied: CommandLine, proxies: Proxies, pixaris: Reader) -> None:
    """Goal: the same half way. Method: the bucket is well, BigQuery is not; then a second pass."""
    store_run(proxied.folder, "before")
    proxied.sync()
    run = store_run(proxied.folder, "run")
    proxies.bigquery.rule = lambda _: unavailable()

    document = proxied.having(**_NO_PATIENCE).sync(expect=5)

    assert document["files_uploaded"] == 1
    assert document["runs"]["failing"] == 1
    proxies.bigquery.rule = lambda _: None
    proxies.forget()
    assert proxied.having(doubt_settle_seconds=0.5).sync()["runs"]["synced"] == 2
    assert proxies.uploads == 0
    assert pixaris.runs()[-1] == run.name


def test_11_another_process_owns_the_folder(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: 11 and who it is. Method: sync and watch beside watch, also with another state folder."""
    with Watching(command_line, tmp_path) as watch:
        watch.wait_until_ready()
        pid = watch.process.pid
        owner = f"process {pid} "
        for command in ("sync", "watch", "backfill"):
            outcome = command_line.run(command)
            assert outcome.code == 11, str(outcome)
            assert owner in outcome.stderr
            assert "pixaris-sync watch" in outcome.stderr
            assert "hint:" in outcome.stderr
        elsewhere = command_line.run("sync", "--state-dir", str(tmp_path / "other state"))
        assert elsewhere.code == 11
        assert owner in elsewhere.stderr
        # Questions may be asked all the same.
        assert owner in json.loads(command_line.run("status", "--json").stdout)["owner"]
        assert watch.end() == 0

    assert command_line.run("sync").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_130_it_was_interrupted(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, number: signal.Signals
) -> None:
    """Goal: 130 for a pass cut short. Method: a signal while uploads are held; then another pass."""
    runs = [store_run(proxied.folder, f"run-{at}", images=2) for at in range(3)]
    release = threading.Event()
    proxies.storage.rule = held_until(release)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with proxied.start("sync", "--json", "--upload-concurrency-limit", "2", **pipes) as process:
        try:
            eventually(lambda: proxies.uploads == 2, "two uploads are under way")
            process.send_signal(number)
            # Only then it takes no new work.
            assert process.stderr is not None
            assert any("stopping" in line for line in process.stderr)
            release.set()
            printed, _ = process.communicate(timeout=60)
        finally:
            release.set()
            process.kill()

    assert process.returncode == 130
    document = json.loads(printed)
    assert (document["exit_code"], document["files_uploaded"], document["rows_synced"]) == (130, 2, 0)
    assert document["files"]["uploading"] == 0
    assert proxied.sync()["runs"]["synced"] == 3
    assert pixaris.runs() == [run.name for run in runs]


def test_5_what_is_still_being_written_is_left_for_a_later_pass(command_line: CommandLine) -> None:
    """Goal: no 0 while a run is not stored yet. Method: a torn line, then a folder without a line."""
    run = store_run(command_line.folder)
    line = run.line
    run.tracking.write_text(f"{line}\n{line[:30]}")
    assert command_line.sync(expect=5)["torn_lines"] == 1
    run.tracking.write_text(f"{line}\n")
    assert command_line.sync()["runs"]["synced"] == 1
    young = run.folder.with_name(f"{run.name}-young")
    (young / "generated_images").mkdir(parents=True)
    assert command_line.sync(expect=5)["runs"] == {**command_line.status()["runs"], "pending": 1, "synced": 1}
    (young / "generated_images").rmdir()
    young.rmdir()
    assert command_line.sync()["runs"]["pending"] == 0


@pytest.mark.large
def test_a_whole_last_record_without_its_newline_is_one_after_a_minute(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a lost newline loses no run, and doubles none when it comes.

    Method: cut it off; sync now, and by a clock that is a minute ahead; `verify`; then the newline and more.
    """
    (tmp_path / "ahead").mkdir()
    (tmp_path / "ahead" / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() + 61\n"
    )
    ahead = command_line.but(PYTHONPATH=str(tmp_path / "ahead"))
    first = store_run(command_line.folder, "first")
    whole = first.tracking.read_text()
    first.tracking.write_text(whole.rstrip("\n"))

    assert command_line.sync(expect=5)["torn_lines"] == 1
    assert pixaris.runs() == []
    document = ahead.sync()
    assert (document["torn_lines"], document["runs"]["synced"], document["problems"]) == (0, 1, [])
    assert pixaris.runs() == [first.name]
    assert ahead.run("verify").code == 0
    assert ahead.sync()["rows_synced"] == 0

    with first.tracking.open("a") as tracking:
        tracking.write("\n")
    document = command_line.sync()
    assert (document["rows_synced"], document["problems"]) == (0, [])
    second = store_run(tmp_path / "elsewhere", "second")
    second.folder.rename(first.folder.with_name(second.name))
    first.tracking.write_text(whole.rstrip("\n") + second.tracking.read_text())
    assert command_line.sync()["runs"]["synced"] == 2
    assert pixaris.runs() == sorted([first.name, second.name])
    assert command_line.run("verify").code == 0
