"""Opening the ledger for work: checked after a crash, rebuilt where it is damaged, never deleted."""

import sqlite3
from functools import partial
from pathlib import Path

import pytest

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.database import Ledger, get_fact, set_fact
from pixaris_sync.ledger.overview import overview
from pixaris_sync.ledger.rescue import IN_USE, working_ledger

NOW = 1_790_000_000.0
KEPT = "kept"


def leave_behind(path: Path, *, crashed: bool) -> None:
    """A ledger with something in it, closed in order or not."""
    with working_ledger(path, now=NOW) as ledger:
        ledger.write(partial(set_fact, name=KEPT, value="value"))
    if crashed:
        ledger = Ledger.open(path)
        ledger.write(partial(set_fact, name=IN_USE, value="before"))
        ledger.close()


def damage(path: Path, offset: int) -> None:
    """Overwrite a part of the file, as a dying disk would."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * 4096)


def kept(path: Path) -> str | None:
    with working_ledger(path, now=NOW) as ledger:
        found: str | None = ledger.read(partial(get_fact, name=KEPT))
    return found


def test_a_ledger_that_is_whole_is_gone_on_with(tmp_path: Path) -> None:
    """Goal: nothing is lost by a crash alone. Method: one closed in order, one not; both keep their facts."""
    for crashed in (False, True):
        path = tmp_path / f"{crashed}.sqlite3"
        leave_behind(path, crashed=crashed)
        assert kept(path) == "value"
        assert list(tmp_path.glob("*.damaged-*")) == []


@pytest.mark.parametrize("offset", [0, 4096, 3 * 4096])
def test_a_damaged_ledger_is_set_aside_and_replaced(
    tmp_path: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: work goes on, the old file is kept, the user is told. Method: overwrite header or pages."""
    path = tmp_path / "state" / "ledger.sqlite3"
    leave_behind(path, crashed=True)
    damage(path, offset)
    content = path.read_bytes()
    with working_ledger(path, now=NOW) as ledger:
        assert ledger.read(partial(get_fact, name=KEPT)) is None
        problems = ledger.read(partial(overview, tracking_file="t")).problems
    [aside] = [
        found for found in path.parent.glob("*.damaged-*") if not found.name.endswith(("-wal", "-shm"))
    ]
    assert aside.read_bytes() == content
    assert [(problem.run, problem.state) for problem in problems] == [(path.name, "notice")]
    assert aside.name in problems[0].cause
    assert aside.name in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", [0, 1])
def test_a_ledger_that_lacks_tables_is_set_aside_and_replaced(tmp_path: Path, version: int) -> None:
    """Goal: work goes on without trust in it. Method: drop a table; with and without its version."""
    path = tmp_path / "ledger.sqlite3"
    leave_behind(path, crashed=False)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE notices")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    assert kept(path) is None
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_a_ledger_that_was_only_begun_is_taken_as_it_is(tmp_path: Path) -> None:
    """Goal: nothing to set aside where nothing is. Method: an empty file; a user is told nothing."""
    path = tmp_path / "ledger.sqlite3"
    path.touch()
    with working_ledger(path, now=NOW) as ledger:
        assert ledger.read(partial(overview, tracking_file="t")).problems == ()
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_the_next_start_trusts_the_rebuilt_ledger(tmp_path: Path) -> None:
    """Goal: rebuilt once, not at every start. Method: damage, rebuild, write, open again."""
    path = tmp_path / "ledger.sqlite3"
    leave_behind(path, crashed=True)
    damage(path, 4096)
    leave_behind(path, crashed=False)
    assert kept(path) == "value"
    assert len([found for found in tmp_path.glob("*.damaged-*") if found.suffix.startswith(".damaged")]) == 1


def test_only_a_ledger_that_was_not_closed_in_order_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a start costs no more than it must. Method: count checks after an orderly end, and after none."""
    checks: list[Path] = []

    def check(ledger: Ledger) -> None:
        checks.append(ledger.path)

    monkeypatch.setattr(Ledger, "damage", check)
    path = tmp_path / "ledger.sqlite3"
    leave_behind(path, crashed=False)
    assert kept(path) == "value"
    assert checks == []
    leave_behind(path, crashed=True)
    assert kept(path) == "value"
    assert checks == [path]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Goal: only a damaged ledger is moved. Method: somebody else's healthy database in its place."""
    path = tmp_path / "ledger.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="another program"), working_ledger(path, now=NOW):
        pass
    assert path.read_bytes() == content
    assert list(tmp_path.glob("*.damaged-*")) == []
