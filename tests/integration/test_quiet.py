"""Quiet beside training: real processes hold to limits, let them be changed, and step back."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.cli.exits import Exit
from pixaris_sync.process.priority import NICENESS
from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import UPLOADS, Proxies, Request
from tests.support.stored_runs import PROJECT, store_run

_EVENTS_ONLY = ("--rescan-interval-seconds", "86400")
_SECONDS = 4.0
#: An image of about 100 KB.
_SIDE = 180
_FILES = 300


class Uplink:
    """When each upload had arrived, and how large it was."""

    def __init__(self, proxies: Proxies) -> None:
        self.arrived: list[tuple[float, int]] = []
        proxies.storage.rule = self._note

    def _note(self, request: Request) -> None:
        if request.matches(UPLOADS):
            self.arrived.append((time.monotonic(), len(request.body)))

    @property
    def bytes(self) -> int:
        return sum(size for _, size in list(self.arrived))


def _prepare(results: Path, scratch: Path, byte_count: int) -> int:
    """Store a project aside, of about so many bytes; moved into the results folder it is there at once.

    Returns:
        How many bytes it has in images.
    """
    noise = random.Random(1).randbytes(_SIDE * _SIDE * 3)  # noqa: S311 - nothing that a PNG could make smaller
    image = Image.frombytes("RGB", (_SIDE, _SIDE), noise)
    prepared = scratch / "prepared"
    run = store_run(prepared, images=[(image, "0.png")])
    size = next(run.folder.rglob("0.png")).stat().st_size
    for number in range(1, byte_count // size):
        store_run(prepared, f"run-{number}", images=[(image, "0.png")])
    results.mkdir(exist_ok=True)
    return byte_count // size * size


def _move_in(results: Path, scratch: Path) -> float:
    """Let the prepared project appear; the time just before."""
    before = time.monotonic()
    (scratch / "prepared" / PROJECT).rename(results / PROJECT)
    return before


@pytest.mark.large
def test_uploads_are_never_faster_than_the_limit(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: within 5 % of the limit, in the real program. Method: 4 s of files, at each moment.

    How much is not sent too slowly is measured where no other program can take the machine's time: in virtual
    time, over a fake transport.
    """
    rate = 1_000_000
    size = _prepare(proxied.folder, tmp_path, int(_SECONDS * rate))
    uplink = Uplink(proxies)
    flags = ("--bandwidth-limit", f"{rate}B", *_EVENTS_ONLY)
    with Watching(proxied, tmp_path, *flags) as watch:
        watch.wait_until_ready()
        began = _move_in(proxied.folder, tmp_path)
        watch.until(lambda: uplink.bytes >= size, "all is uploaded")
        assert watch.end() == 0, watch.log()

    sent = 0
    for at, count in uplink.arrived:
        sent += count
        # What is saved up while nothing is sent, and one piece, may go at once.
        assert sent <= 1.05 * rate * (at - began) + 0.1 * rate + 64 * 1024
    took = uplink.arrived[-1][0] - began
    assert sent <= 1.05 * rate * took


@pytest.mark.large
def test_limits_are_changed_while_it_runs(proxied: CommandLine, proxies: Proxies, tmp_path: Path) -> None:
    """Goal: no restart to be faster. Method: lift the limit of a transfer that would take a minute."""
    size = _prepare(proxied.folder, tmp_path, 5_000_000)
    uplink = Uplink(proxies)
    flags = ("--bandwidth-limit", "80KB", "--max-cpu-percent", "90", *_EVENTS_ONLY)
    with Watching(proxied, tmp_path, *flags) as watch:
        watch.wait_until_ready()
        shown = proxied.run("limit", "--json")
        assert shown.document == {
            "bandwidth_limit_bytes_per_second": 80_000,
            "bandwidth_limit_now_bytes_per_second": 80_000,
            "bandwidth_limit_changes_at": None,
            "max_cpu_percent": 90.0,
        }
        began = _move_in(proxied.folder, tmp_path)
        watch.until(lambda: uplink.bytes > 0, "uploads begin")
        assert uplink.bytes <= 1.05 * 80_000 * (time.monotonic() - began) + 0.1 * 80_000 + 2 * 64 * 1024
        changed = proxied.run("limit", "--bandwidth-limit", "none")
        assert (changed.code, "bandwidth limit: none" in changed.stdout) == (0, True), str(changed)
        assert "processor limit: 90 % of one core" in changed.stdout
        watch.until(lambda: uplink.bytes >= size, "all is uploaded")
        assert time.monotonic() - began < size / 80_000 / 2
        assert watch.log().count("bandwidth limit: none; processor limit: 90 %") == 1
        # It was for this process alone.
        assert watch.end() == 0, watch.log()
    with Watching(proxied, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        shown = proxied.run("limit")
        assert shown.stdout == "bandwidth limit: none; processor limit: none\n"


def test_limits_of_nobody_are_not_changed(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: exit 4, a line and a hint. Method: no process; one that was killed; then a wish out of bounds."""
    nobody = command_line.run("limit")
    assert (nobody.code, nobody.stderr.count("\n")) == (Exit.CONFIGURATION, 2), str(nobody)
    with Watching(command_line, tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        refused = command_line.run("limit", "--bandwidth-limit", "1")
        assert refused.code == Exit.CONFIGURATION
        assert "bandwidth_limit_bytes_per_second" in refused.stderr
        assert command_line.run("limit").stdout.startswith("bandwidth limit: none")
        watch.kill()
    killed = command_line.run("limit", "--max-cpu-percent", "10")
    assert (killed.code, "hint: " in killed.stderr) == (Exit.CONFIGURATION, True), str(killed)


@pytest.mark.parametrize("quiet", [None, "false"], ids=["by default", "where it is not wanted"])
def test_it_steps_back_unless_it_must_not(
    command_line: CommandLine, tmp_path: Path, quiet: str | None
) -> None:
    """Goal: training never notices. Method: how nice a running process is: each thread, its session."""
    here = os.getpriority(os.PRIO_PROCESS, 0)
    with Watching(command_line.but(PIXARIS_SYNC_QUIET=quiet), tmp_path) as watch:
        watch.wait_until_ready()
        threads = [int(path.name) for path in Path(f"/proc/{watch.process.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {
            NICENESS if quiet is None else here
        }
        session = Path(f"/proc/{watch.process.pid}/autogroup")
        if session.exists():
            assert session.read_text().split()[-1] == (f"{NICENESS}" if quiet is None else "0")


@pytest.mark.large
def test_the_processor_limit_holds(proxied: CommandLine, proxies: Proxies, tmp_path: Path) -> None:
    """Goal: --max-cpu-percent. Method: many small files at a 25th of a core; what that uses, and how long.

    A busy machine can only make it use less. Without the limit the share is several times as large.
    """
    run = store_run(tmp_path / "prepared")
    [image] = run.folder.rglob("image_0.png")
    for number in range(1, _FILES):
        shutil.copy(image, image.with_name(f"image_{number}.png"))
    proxied.folder.mkdir(exist_ok=True)
    with Watching(proxied, tmp_path, "--max-cpu-percent", "4", *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        used, began = _cpu_seconds(watch.process.pid), _move_in(proxied.folder, tmp_path)
        watch.until(lambda: proxies.uploads >= _FILES, "all is uploaded")
        share = (_cpu_seconds(watch.process.pid) - used) / (time.monotonic() - began)
    assert share < 0.08


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads, by proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
