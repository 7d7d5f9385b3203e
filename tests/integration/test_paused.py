"""``pause`` and ``resume``: a process that works begins nothing new, says so, and goes on without a loss."""

import json
import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.cli.limit import _seconds
from pixaris_sync.process.ownership import STORE_RESULTS, Ownership
from tests.support.command_line import CommandLine, Outcome, Watching
from tests.support.proxy import UPLOADS, Proxies, Request
from tests.support.stored_runs import store_run
from tests.support.waiting import eventually

_EVENTS_ONLY = ("--rescan-interval-seconds", "86400")
COLUMNS = 80


def _fits(outcome: Outcome) -> None:
    """Every line but those that name a process or a path fits a terminal."""
    for line in (outcome.stdout + outcome.stderr).splitlines():
        assert len(line) <= COLUMNS or "process " in line or "/" in line, line


def _synced(command_line: CommandLine) -> int:
    count = command_line.status()["runs"]["synced"]
    assert isinstance(count, int)
    return count


def test_a_paused_watch_begins_nothing_and_says_so(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: `pause` and `resume`. Method: pause, store, look everywhere that tells, resume."""
    store_run(proxied.folder, "first")
    with Watching(proxied, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        watch.until(lambda: _synced(proxied) == 1, "the first run is synced")

        paused = proxied.run("pause")
        assert paused.code == 0, str(paused)
        assert "until `pixaris-sync resume`" in paused.stdout
        assert "nothing is under way" in paused.stdout
        _fits(paused)

        uploads = proxies.uploads
        store_run(proxied.folder, "second")
        watch.until(lambda: proxied.status()["runs"]["pending"] == 1, "the second run is found")
        watch.until(
            lambda: any("paused by `pixaris-sync pause`" in told for told in watch.told("STATUS")),
            "systemd is told",
        )
        status = proxied.run("status")
        assert "      paused since " in status.stdout
        assert "notice: all work" in status.stdout
        document = proxied.status()
        assert document["pause"]["paused_until"] is None
        assert document["runs"] == {**document["runs"], "pending": 1, "synced": 1}
        assert proxies.uploads == uploads

        resumed = proxied.run("resume")
        assert (resumed.code, "goes on" in resumed.stdout) == (0, True), str(resumed)
        watch.until(lambda: _synced(proxied) == 2, "the second run is synced")
        assert proxied.status()["pause"] is None
        assert "notice: all work" not in proxied.run("status").stdout
        again = proxied.run("resume")
        assert (again.code, "was not paused" in again.stdout) == (0, True), str(again)
        assert watch.end() == 0, watch.log()
    assert watch.log().count("nothing new begins") == 1
    assert watch.log().count("the pause is over") == 1


def test_a_pause_for_a_time_ends_by_itself(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: `--for`. Method: two seconds; what was stored meanwhile is synced without a word."""
    command_line.folder.mkdir(exist_ok=True)
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        paused = command_line.run("pause", "--for", "2s", "--json")
        assert paused.code == 0, str(paused)
        assert paused.document["paused_until"] is not None
        store_run(command_line.folder)
        watch.until(lambda: _synced(command_line) == 1, "it goes on by itself")
        assert "the pause is over" in watch.log()


@pytest.mark.large
def test_sigterm_drains_a_paused_process(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: a pause holds up no shutdown, and ends with its process. Method: SIGTERM, then another start."""
    command_line.folder.mkdir(exist_ok=True)
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        assert command_line.run("pause").code == 0
        store_run(command_line.folder)
        watch.until(lambda: command_line.status()["runs"]["pending"] == 1, "the run is found")
        began = time.monotonic()
        assert watch.end(signal.SIGTERM) == 0, watch.log()
        assert time.monotonic() - began < 25
    document = command_line.status()
    assert (document["pause"], document["problems"]) == (None, [])
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        watch.until(lambda: _synced(command_line) == 1, "the next process is not paused")


@pytest.mark.large
def test_an_upload_that_takes_long_is_interrupted_and_done_later(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: a pause takes effect soon. Method: answers to uploads are held back until the pause is there."""
    held = [True]

    def hold(request: Request) -> None:
        if request.matches(UPLOADS):
            eventually(lambda: not held[0], "uploads are let go on", timeout_seconds=50)

    proxies.storage.rule = hold
    store_run(proxied.folder)
    with Watching(proxied, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        watch.until(lambda: proxied.status()["files"]["uploading"] > 0, "uploads are under way")
        paused = proxied.run("pause", "--json")
        assert (paused.code, paused.document["under_way"]) == (0, 0), str(paused)
        files = proxied.status()["files"]
        assert (files["uploading"], files["in_doubt"] > 0) == (0, True), files
        held[0] = False
        assert proxied.run("resume").code == 0
        watch.until(lambda: _synced(proxied) == 1, "it is synced after all")
        assert watch.end() == 0, watch.log()
    assert proxied.run("verify").code == 0


def test_what_cannot_be_is_refused_with_a_hint(command_line: CommandLine) -> None:
    """Goal: each mistake has its message and exit code.

    Method: no process at work, one that stores results, and values that are none.
    """

    def refusal(code: Exit, *arguments: str) -> str:
        refused = command_line.run(*arguments)
        assert refused.code == code, str(refused)
        assert "hint: " in refused.stderr
        return " ".join(refused.stderr.split())

    command_line.folder.mkdir(exist_ok=True)
    command_line.sync()
    [ledger] = command_line.ledgers()
    for command in ("pause", "resume"):
        assert "no process of this machine carries it" in refusal(Exit.CONFIGURATION, command)
    path_lock = ledger.with_suffix(".path.lock")
    with Ownership(
        command_line.folder, ledger.with_suffix(".owner"), STORE_RESULTS, path_lock=path_lock, waits=False
    ):
        assert "takes no wishes" in refusal(Exit.CONFIGURATION, "pause")
    said = refusal(Exit.USAGE, "pause", "--for", "2 weeks")
    assert "that is no length of time between a second and 30 days" in said
    said = refusal(Exit.CONFIGURATION, "limit", "--bandwidth-limit", "8,5MB")
    assert "must be a rate, or a timetable such as 08:00,5MB 20:00,none" in said


@pytest.mark.parametrize(
    ("span", "seconds"), [("2h", 7200), ("1h30m", 5400), ("30d", 2_592_000), ("90S", 90), (" 5m ", 300)]
)
def test_a_span_is_read(span: str, seconds: int) -> None:
    """Goal: `--for` as people write it. Method: some spans, and some that are none."""
    assert _seconds(span) == seconds
    for wrong in ("", "0s", "31d", "2", "h", "-1h", "1.5h", "2m1h"):
        with pytest.raises(CommandLineError):
            _seconds(wrong)


@pytest.mark.large
def test_a_pass_is_paused_too(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: `sync` is paused and goes on. Method: pause it while its first upload is on its way."""
    held = [True]

    def hold(request: Request) -> None:
        if request.matches(UPLOADS):
            eventually(lambda: not held[0], "uploads are let go on", timeout_seconds=50)

    proxies.storage.rule = hold
    store_run(proxied.folder)
    with proxied.start("sync", "--json", stdout=-1, stderr=-1) as process:
        try:
            eventually(proxied.ledgers, "there is a ledger")
            eventually(lambda: proxied.run("pause").code == 0, "it is paused")
            assert "pixaris-sync sync" in proxied.status()["owner"]
            held[0] = False
            assert process.poll() is None
            assert proxied.run("resume").code == 0
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["runs"]["synced"] == 1


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - of the test's own process
        text = answer.read().decode()
    assert isinstance(text, str)
    return text


def test_a_timetable_is_in_force_and_told(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: the entry in force and the next change. Method: a rate at all hours, but none for a minute."""
    command_line.folder.mkdir(exist_ok=True)
    now = time.localtime(time.time() + 2 * 3600)
    timetable = f"{now.tm_hour:02}:{now.tm_min:02},none {(now.tm_hour + 1) % 24:02}:{now.tm_min:02},5MB"
    flags = ("--bandwidth-limit", timetable, "--listen", "127.0.0.1:0", *_EVENTS_ONLY)
    with Watching(command_line, tmp_path, *flags) as watch:
        watch.wait_until_ready()
        watch.until(lambda: "serving status" in watch.log(), "the page is served")
        address = re.findall(r"http://[\w.:]+/", watch.log())[0]
        shown = command_line.run("limit")
        assert "bandwidth limit: 4.8 MiB/s until " in shown.stdout, str(shown)
        assert ", then none" in shown.stdout
        _fits(shown)
        document = command_line.run("limit", "--json").document
        assert document["bandwidth_limit_bytes_per_second"] == timetable
        assert document["bandwidth_limit_now_bytes_per_second"] == 5_000_000
        assert document["bandwidth_limit_changes_at"] is not None
        assert "bandwidth limit: 4.8 MiB/s, changes at " in command_line.run("status").stdout
        page = _page(address)
        assert "bandwidth limit: 4.8 MiB/s until " in page
        assert command_line.run("pause").code == 0
        assert "paused: by `pixaris-sync pause` since " in _page(address)
        assert "pixaris_sync_paused{" in _page(f"{address}metrics")
        assert _page(f"{address}healthz") == '{"status": "ok"}'
        assert _page(f"{address}readyz") == '{"status": "ready"}'
        by_hand = command_line.run("limit", "--bandwidth-limit", "off")
        assert by_hand.stdout == "bandwidth limit: none; processor limit: none\n", str(by_hand)
        assert watch.end() == 0, watch.log()
