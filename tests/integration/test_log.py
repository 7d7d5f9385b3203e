"""What commands say on stderr: lines for people, objects for machines, and a bar that breaks neither."""

import json
import os
import random
import re
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.command_line import TIMEOUT_SECONDS, CommandLine, Watching
from tests.support.proxy import Proxies, unavailable
from tests.support.stored_runs import PROJECT, store_run
from tests.support.terminals import Terminal

_LEVELS = "(DEBUG|INFO|WARNING|ERROR)"
_ON_TERMINAL = re.compile(rf"\d\d:\d\d:\d\d {_LEVELS} \S.*")
_IN_PIPE = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} {_LEVELS} \S.*")
_IN_JOURNAL = re.compile(rf"<[3467]>{_LEVELS} \S.*")
_SIZE = r"\d+(\.\d)? [KMG]?i?B"
_BAR = re.compile(rf"backfill [━╸╺ ]{{10}} (looking through the results folder|{_SIZE} of {_SIZE}(, [^,]+)*)")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*(3|9)[0-9][;m]")
_HOSTILE = "evil\x1b[31m \u202e"

_TERMINALS = pytest.mark.parametrize(
    ("columns", "variables"),
    [
        (80, {}),
        pytest.param(120, {"NO_COLOR": "1"}, marks=pytest.mark.large),
        pytest.param(200, {}, marks=pytest.mark.large),
    ],
)


def noise(seed: int, size: int = 100) -> Image.Image:
    """An image that does not become smaller when it is compressed."""
    pixels = random.Random(seed).randbytes(3 * size * size)  # noqa: S311 - no secret
    return Image.frombytes("RGB", (size, size), pixels)


def store_load(folder: Path) -> None:
    """Runs that take a while to send, and some on which somebody must act, each for another reason."""
    for number in range(12):
        store_run(folder, f"run{number}", images=[(noise(4 * number + at), f"{at}.png") for at in range(4)])
    for number in range(6):
        bad = store_run(folder, f"bad{number}", dataset="bad")
        # The line of the log is much longer than a terminal is wide.
        (bad.folder / "generated_images" / "image_0.png").write_bytes(b"\x89PNG\r\n\x1a\n" * (number + 1))
        (bad.folder / "generated_images" / "image_0.png").rename(
            bad.folder / "generated_images" / f"{number}{'x' * (30 * number)}.png"
        )


def are_whole(lines: list[str], *, bar: bool) -> bool:
    """Whether each line is one of the log; the last may be a bar."""
    if bar and lines and _BAR.fullmatch(lines[-1]):
        lines = lines[:-1]
    return all(map(_ON_TERMINAL.fullmatch, lines))


@_TERMINALS
def test_a_backfill_on_a_terminal_breaks_no_line(
    command_line: CommandLine, columns: int, variables: Any
) -> None:
    """Goal: bar and log share a terminal, and nothing stays but the log and the summary.

    Method: runs that take two seconds beside others whose trouble is told in long lines, on a terminal that
    is looked at all the while; the widest is made narrower meanwhile. In the end it shows the log, and what
    `status` says.
    """
    store_load(command_line.folder)
    slow = command_line.having(bandwidth_limit_bytes_per_second="800KiB", young_file_seconds=0)
    pictures: list[list[str]] = []
    with Terminal(slow, "backfill", columns=columns, **variables) as terminal:
        while terminal.process.poll() is None:
            pictures.append(terminal.calm_lines())
            if columns == 200 and len(pictures) == 10:
                terminal.resize(80)
        assert terminal.wait() == 3, terminal.seen.lines()
        lines = terminal.seen.lines()
        assert terminal.seen.cursor_shows

    bars = [picture[-1] for picture in pictures if picture and _BAR.fullmatch(picture[-1])]
    assert len(set(bars)) > 1, pictures
    assert any("files and " in bar and " to do" in bar for bar in bars), bars
    assert max(map(len, bars)) < 80
    begun = next(at for at, line in enumerate(lines) if re.match(r"\d+ files uploaded \(", line))
    for picture in pictures:
        shown = [line for line in picture if line not in lines[begun:]]
        assert are_whole(shown, bar=True), shown
    assert are_whole(lines[:begun], bar=False), lines
    assert any(" is quarantined: cannot verify" in line for line in lines[:begun]), lines
    assert any(" more are quarantined, the last " in line for line in lines[:begun]), lines
    status = [line for line in command_line.run("status").stdout.splitlines() if line]
    assert lines[begun + 1 :] == status
    assert bool(_COLOUR.search(terminal.written)) is not bool(variables)


@pytest.mark.large
def test_a_terminal_that_cannot_draw_and_a_pipe_get_lines(command_line: CommandLine) -> None:
    """Goal: no control characters where nobody obeys them. Method: TERM=dumb; a pipe and FORCE_COLOR."""
    store_load(command_line.folder)
    quick = command_line.having(young_file_seconds=0)
    with Terminal(quick, "backfill", TERM="dumb") as terminal:
        assert terminal.wait() == 3
    written = terminal.written.decode().replace("\r\n", "\n").splitlines()
    log = written[: next(at for at, line in enumerate(written) if re.match(r"\d+ files uploaded", line))]
    piped = quick.but(FORCE_COLOR="1", COLUMNS="40").run("backfill", "--full")
    assert log
    assert all(map(_IN_PIPE.fullmatch, log)), log
    assert all(map(_IN_PIPE.fullmatch, piped.stderr.splitlines())), piped.stderr
    assert "\x1b" not in piped.stderr + piped.stdout


@_TERMINALS
def test_watch_on_a_terminal_tells_what_was_synced(
    command_line: CommandLine, columns: int, variables: Any
) -> None:
    """Goal: whoever starts it by hand sees it work. Method: runs at its start, then Ctrl+C."""
    store_load(command_line.folder)
    quick = command_line.having(young_file_seconds=0)
    with Terminal(quick, "watch", columns=columns, **variables) as terminal:
        lines = terminal.calm_lines()
        while not any("caught up: nothing waits; 6 need attention" in line for line in lines):
            assert terminal.process.poll() is None, lines
            lines = terminal.calm_lines()
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        lines = terminal.seen.lines()
    assert are_whole(lines, bar=False), lines
    synced = [line.split(" synced ")[1] for line in lines if " synced " in line]
    alone = [line for line in synced if line.startswith(f"{PROJECT}/dataset/")]
    together = [int(line.split(" runs, ")[0]) for line in synced if line not in alone]
    assert len(alone) + sum(together) == 12, lines
    assert all(re.search(r": 4 files, 1\d\d\.\d KiB in \d+\.\d s$", line) for line in alone), lines
    assert lines[-1].endswith("INFO stopped: 6 runs need attention"), lines


def objects_of(text: str) -> list[dict[str, Any]]:
    """The objects of a log for machines; each line is one."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert one.keys() >= {"time", "level", "logger", "message"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
        assert (
            abs((datetime.now(UTC) - datetime.fromisoformat(one["time"])).total_seconds()) < TIMEOUT_SECONDS
        )
    return found


def test_the_log_for_machines_has_fields(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: `--log-format json` is read without guessing. Method: a run, and a hostile one without images."""
    run = store_run(command_line.folder, images=2)
    evil = store_run(command_line.folder, _HOSTILE, images=0, dataset="evil")
    with Watching(command_line, tmp_path, "--log-format", "json") as watch:
        watch.until(lambda: "caught up" in watch.log(), "it is caught up")
        assert watch.end() == 0
    log = watch.log()
    assert log.isascii()
    found = objects_of(log)
    [synced] = [one for one in found if one["message"].startswith("synced ")]
    assert (synced["level"], synced["run"], synced["files"]) == ("INFO", str(run.key), 2)
    assert synced["bytes"] > 100
    assert 0 <= synced["seconds"] < TIMEOUT_SECONDS
    [quarantined] = [one for one in found if one["level"] == "ERROR"]
    assert (quarantined["run"], quarantined["state"]) == (str(evil.key), "quarantined")
    assert "generated_images: it does not exist" in quarantined["cause"]


def test_errors_are_objects_too_where_the_log_is_for_machines(command_line: CommandLine) -> None:
    """Goal: nothing on stderr is something else. Method: a command that cannot work."""
    outcome = command_line.but(PIXARIS_SYNC_LOG_FORMAT="json").run("status")
    [found] = objects_of(outcome.stderr)
    assert (outcome.code, found["level"]) == (4, "ERROR")
    assert found["cause"] == "nothing was ever synced from this folder to this destination"
    assert "pixaris-sync sync" in found["hint"]


def test_lines_in_the_journal_tell_their_priority(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: `journalctl -p err` finds what somebody must act on, and no name forges a line.

    Method: stderr is what JOURNAL_STREAM names, or not; a run without images whose name is hostile.
    """
    evil = store_run(command_line.folder, _HOSTILE, images=0)
    path = tmp_path / "journal"
    with path.open("w") as journal:
        status = os.fstat(journal.fileno())
        command = command_line.but(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        with command.start("sync", stdout=subprocess.DEVNULL, stderr=journal) as process:
            assert process.wait(TIMEOUT_SECONDS) == 3
    lines = path.read_text().splitlines()
    assert all(map(_IN_JOURNAL.fullmatch, lines)), lines
    [told] = [line for line in lines if line.startswith("<3>")]
    assert told.startswith(
        f"<3>ERROR project/dataset/{evil.name[:15]}_evil\\x1b[31m \\u202e is quarantined: "
    )
    command_line.forget_ledger()
    elsewhere = command_line.but(JOURNAL_STREAM="1:2").run("sync")
    assert all(map(_IN_PIPE.fullmatch, elsewhere.stderr.splitlines())), elsewhere.stderr


def test_watch_tells_an_outage_and_a_folder_that_vanished_once_each(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: what is away has one line, and its end another, which says for how long, and what waited.

    Method: a service whose bucket and tables fail while three runs come, and then are well; then its dataset
    is moved away, and back; then it is stopped.
    """
    quick = proxied.having(
        retry_delay_seconds_min=0.1, retry_delay_seconds_max=0.3, rescan_interval_seconds=0.2
    )
    store_run(proxied.folder, "first")
    folder = proxied.folder / PROJECT / "dataset"
    with Watching(quick, tmp_path) as watch:

        def wait_for(words: str, times: int = 1) -> None:
            watch.until(lambda: watch.log().count(words) >= times, f"{words} in the log, {times} times")

        wait_for("caught up: nothing waits")
        proxies.set_rule(lambda _: unavailable())
        for number in range(3):
            store_run(proxied.folder, f"run{number}")
        wait_for(" rests: ")
        proxies.set_rule(lambda _: None)
        wait_for("caught up: nothing waits", times=2)
        folder.rename(tmp_path / "elsewhere")
        wait_for(f"gone from the results folder: {PROJECT}/dataset; what the cloud has stays")
        (tmp_path / "elsewhere").rename(folder)
        wait_for(f"there again: {PROJECT}/dataset")
        assert watch.end() == 0
    log = watch.log()
    assert log.count(" rests: ") == 1, log
    [end] = re.findall(r"INFO (.*) works? again after \d+ s; (\d) runs? waited", log)
    assert end[0] in ("the bucket", f"the bucket, table {PROJECT}_dataset_experiment_results"), log
    assert end[1] == "3", log
    assert log.count("gone from the results folder") == log.count("there again") == 1, log
    assert log.splitlines()[-1].endswith("INFO stopped: nothing waits"), log
