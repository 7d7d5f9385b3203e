"""At most one process works on a results folder, and the second learns who the first is."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pixaris_sync.errors import FolderOwnedError
from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work
from pixaris_sync.process.ownership import Ownership, read_owner, running_owner

#: Takes the lock, says so, and holds it until its input ends or it is killed.
OWNER = """
import sys
from pathlib import Path
from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work
from pixaris_sync.process.ownership import Ownership
with Ownership(Path(sys.argv[1]), Path(sys.argv[2]), "watch", path_lock=Path(sys.argv[3])):
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.owner"


def path_lock_of(folder: Path, note: Path) -> Path:
    """One for each path, beside the note."""
    return note.parent / f"{folder.name}.path.lock"


def owning(folder: Path, note: Path, command: str) -> Ownership:
    return Ownership(folder, note, command, path_lock=path_lock_of(folder, note))


@contextmanager
def owner(folder: Path, note: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), str(note), str(path_lock_of(folder, note))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "owned\n"
            yield process
        finally:
            process.kill()


def refusal(folder: Path, note: Path) -> FolderOwnedError:
    with pytest.raises(FolderOwnedError) as caught, owning(folder, note, "sync"):
        pass
    return caught.value


def test_a_second_process_is_told_who_works_on_the_folder(folder: Path, note: Path) -> None:
    """Goal: pid and command are in the message. Method: another process owns it; then it ends."""
    with owner(folder, note) as process:
        error = refusal(folder, note)
        assert f"process {process.pid} " in error.cause
        assert "pixaris-sync watch" in error.cause
        assert str(folder) in str(error)
        assert error.hint
        process.communicate("")
    with owning(folder, note, "sync"):
        pass


def test_a_killed_owner_owns_nothing(folder: Path, note: Path) -> None:
    """Goal: no stale lock and no stale word of it. Method: SIGKILL; its note is still there."""
    with owner(folder, note) as process:
        assert read_owner(note) is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert note.exists()
    assert read_owner(note) is None
    with owning(folder, note, "sync"):
        found = read_owner(note)
        assert found is not None
        assert (found.pid, found.host, found.command) == (os.getpid(), socket.gethostname(), "sync")


def test_who_shares_only_the_state_folder_is_refused_too(folder: Path, note: Path, tmp_path: Path) -> None:
    """Goal: a machine that mounts both folders from a file server is kept out, and let in after a crash.

    Method: the lock on the results folder is not seen, as if there were two of them; the owner is killed.
    """
    elsewhere = tmp_path / "mounted"
    elsewhere.mkdir()
    with owner(folder, note) as process:
        cause = refusal(elsewhere, note).cause
        assert f"process {process.pid} on {socket.gethostname()} (pixaris-sync watch, since " in cause
        process.send_signal(signal.SIGKILL)
        process.wait()
        with owning(elsewhere, note, "sync"):
            assert (note.parent / "ledger.lock").stat().st_mode & 0o777 == 0o600


def test_owners_with_different_state_folders_still_meet(folder: Path, note: Path, tmp_path: Path) -> None:
    """Goal: the lock is on the folder, not on the state. Method: another note, absent or of somebody else."""
    elsewhere = tmp_path / "elsewhere" / "ledger.owner"
    with owner(folder, elsewhere) as process:
        assert f"process {process.pid} " in refusal(folder, note).cause
        note.parent.mkdir(exist_ok=True)
        stale = {"pid": os.getpid(), "host": socket.gethostname(), "command": "backfill", "since": 0}
        note.write_text(json.dumps(stale))
        cause = refusal(folder, note).cause
        assert f"process {process.pid} " in cause
        assert "backfill" not in cause


def test_a_folder_that_takes_the_place_of_another_has_no_second_owner(folder: Path, note: Path) -> None:
    """Goal: who works at a path goes on with what is put there, alone. Method: move, make, own anew.

    The other two locks do not see it: the folder is another one, and so is its ledger.
    """
    with owner(folder, note):
        moved = folder.rename(folder.with_name("moved"))
        folder.mkdir()
        assert "another process" in refusal(folder, note.with_name("other.owner")).cause
        assert "pixaris-sync watch" in refusal(moved, note).cause
    with owning(folder, note.with_name("other.owner"), "sync"):
        pass


def test_two_folders_have_two_owners(folder: Path, note: Path, tmp_path: Path) -> None:
    """Goal: no needless refusal. Method: own another folder at the same time."""
    (tmp_path / "other").mkdir()
    with owning(folder, note, "sync"), owning(tmp_path / "other", tmp_path / "other.owner", "sync"):
        pass


def test_owning_leaves_no_trace(folder: Path, note: Path) -> None:
    """Goal: the results folder stays as it is, and the note goes with its owner. Method: list both."""
    locks = {"ledger.lock", "results.path.lock"}
    with owning(folder, note, "sync"):
        assert list(folder.iterdir()) == []
        assert {path.name for path in note.parent.iterdir()} == {note.name, *locks}
        assert note.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in note.parent.iterdir()} == locks


def test_an_owner_that_fails_gives_the_folder_back(folder: Path, note: Path) -> None:
    """Goal: an error is no lock. Method: raise while owning."""
    with pytest.raises(ZeroDivisionError), owning(folder, note, "sync"):
        raise ZeroDivisionError
    with owning(folder, note, "sync"):
        pass


def test_a_note_that_cannot_be_written_does_not_stop_the_work(folder: Path, tmp_path: Path) -> None:
    """Goal: the lock is what counts. Method: a file stands where the note's folder should be."""
    (tmp_path / "state").write_text("")
    with owning(folder, tmp_path / "state" / "ledger.owner", "sync"):
        cause = refusal(folder, tmp_path / "elsewhere" / "ledger.owner").cause
        assert "on this machine" in cause


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', "null", '{"selection": 1}'])
def test_a_note_that_says_nothing_names_nobody(note: Path, text: str) -> None:
    """Goal: a torn note is no crash. Method: texts that are no note."""
    assert read_owner(note) is None
    note.parent.mkdir()
    note.write_text(text)
    assert read_owner(note) is None


def test_an_owner_on_another_machine_counts_as_alive(note: Path) -> None:
    """Goal: a folder on a network is not called free. Method: a note from elsewhere."""
    note.parent.mkdir()
    note.write_text(json.dumps({"pid": 2**22 + 1, "host": "elsewhere", "command": "watch", "since": 0}))
    found = read_owner(note)
    assert found is not None
    assert str(found) == (
        "process 4194305 on elsewhere (pixaris-sync watch, since 1970-01-01T00:00:00+00:00)"
    )


def test_only_who_holds_the_lock_is_the_running_owner(folder: Path, note: Path) -> None:
    """Goal: no signal to a stranger. Method: while an owner runs, and by its note when it was killed.

    The note is made to name this process: it lives, as whoever gets the number of a dead one does.
    """
    assert running_owner(folder, note) is None
    with owner(folder, note) as process:
        found = running_owner(folder, note)
        assert found is not None
        assert found.pid == process.pid
        told = json.loads(note.read_text())
        process.kill()
        process.wait()
        note.write_text(json.dumps(told | {"pid": os.getpid()}))
        assert read_owner(note) is not None
        assert running_owner(folder, note) is None


def test_an_owner_on_another_machine_runs_elsewhere(folder: Path, note: Path) -> None:
    """Goal: as above. Method: a note of another host, with the number of this very process."""
    with owning(folder, note, "watch"):
        found = running_owner(folder, note)
        assert found is not None
        assert found.pid == os.getpid()
        note.write_text(json.dumps(json.loads(note.read_text()) | {"host": "elsewhere"}))
        assert running_owner(folder, note) is None


def test_a_folder_that_is_gone_has_no_running_owner(folder: Path, note: Path) -> None:
    """Goal: no traceback. Method: remove it under its owner."""
    with owning(folder, note, "watch"):
        folder.rmdir()
        assert running_owner(folder, note) is None


def test_a_note_tells_what_the_owner_carries(folder: Path, note: Path) -> None:
    """Goal: who looks on knows what is left out. Method: owners of a part and of all; an older note."""
    part = Selection(projects=("a b",), since="20240102-000000", until="20240203-000000", attempts_limit=3)
    with Ownership(folder, note, "backfill", selection=part, path_lock=path_lock_of(folder, note)):
        found = read_owner(note)
        assert found is not None
        assert found.work == Work("backfill", part)
        assert (
            str(found.work) == "pixaris-sync backfill --project 'a b' --since 2024-01-02 --until 2024-02-03"
        )
        assert f"({found.work}, since" in str(found)
    note.write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere", "command": "sync", "since": 0}))
    older = read_owner(note)
    assert older is not None
    assert older.work == Work("sync", EVERYTHING)
