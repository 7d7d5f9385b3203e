"""The folder for ledgers through the real command: one that cannot be used, and one whose disk is full."""

import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.in_process import InProcess
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, store_run

#: Replaces itself by a command whose files cannot grow beyond so many bytes: as on a disk that is full.
_FULL = (
    sys.executable,
    "-c",
    """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[1]),))
os.execv(sys.argv[2], sys.argv[2:])
""",
)


def _file(folder: Path) -> Path:
    folder.write_text("no folder")
    return folder


def _circle(folder: Path) -> Path:
    folder.symlink_to(folder)
    return folder


IMPOSSIBLE: dict[str, Callable[[Path], Path]] = {
    "a file": _file,
    "below a file": lambda folder: _file(folder) / "below",
    "a link in a circle": _circle,
    "below a link in a circle": lambda folder: _circle(folder) / "below",
    "a device": lambda _: Path("/dev/null"),
    "a folder of the kernel's": lambda _: Path("/proc/pixaris-sync"),
    "too long a name": lambda folder: folder / ("x" * 300),
    "nobody's home": lambda _: Path("~nobody-of-this-name/state"),
}


def _assert_refused(code: int, told: str) -> None:
    assert code == 4, told
    assert [line.partition(":")[0] for line in told.splitlines()] == ["error", "hint"], told


def test_a_state_folder_that_cannot_be_is_configuration(
    command_line: CommandLine, in_process: InProcess, tmp_path: Path
) -> None:
    """Goal: exit code 4, two lines, before any work. Method: each kind of place for it."""
    store_run(command_line.folder)
    for number, make in enumerate(IMPOSSIBLE.values()):
        folder = make(tmp_path / f"elsewhere-{number}")
        for command in ("sync", "backfill", "watch"):
            _assert_refused(*in_process.run(command, "--state-dir", str(folder), "--log-level", "error"))


def test_a_state_folder_that_is_read_only_is_configuration(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: the same for a user who may not write. Method: the folder, and one to be made in it."""
    store_run(command_line.folder)
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    for command, state in (("sync", folder), ("watch", folder), ("sync", folder / "below")):
        outcome = command_line.run(command, "--state-dir", str(state), "--log-level", "error", powerless=True)
        _assert_refused(outcome.code, outcome.stderr)
        assert "--state-dir" in outcome.stderr


def test_a_ledger_that_became_read_only_is_configuration(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: exit code 4, and all goes on once it is mended. Method: the file, then its folder, read-only."""
    runs = [store_run(command_line.folder, "first").name]
    command_line.sync()
    runs.append(store_run(command_line.folder, "second").name)
    [ledger] = command_line.ledgers()
    for path, mode in ((ledger, 0o400), (ledger.parent, 0o500)):
        before = path.stat().st_mode
        path.chmod(mode)
        outcome = command_line.run("sync", powerless=True)
        path.chmod(before)
        assert outcome.code == 4, outcome
        assert "Traceback" not in outcome.stderr
        assert pixaris.runs() == runs[:1]
    assert command_line.sync()["runs"]["synced"] == 2
    assert pixaris.runs() == runs


def test_a_full_state_disk_leaves_work_for_later(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: exit code 5 wherever it becomes full, nothing lost. Method: ever more room; then all there is."""
    runs = [store_run(command_line.folder, f"run-{at}", images=2).name for at in range(2)]
    for kibibytes in (0, 100):
        full = command_line.within(*_FULL, str(kibibytes * 1024))
        outcome = full.run("sync", "--log-level", "error")
        assert outcome.code == 5, outcome
        assert "Traceback" not in outcome.stderr
        assert [line.partition(":")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]
        assert "look after its disk and the free space there" in outcome.stderr
    assert command_line.run("sync").code == 0
    assert pixaris.runs() == runs
    assert command_line.run("verify").code == 0
