"""Work with a ledger: one that is damaged, before or meanwhile, is rebuilt and never deleted."""

import random
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.errors import LedgerDamagedError, LedgerError
from pixaris_sync.ledger.database import APPLICATION_ID, Ledger, get_fact, set_fact
from pixaris_sync.ledger.overview import overview
from pixaris_sync.ledger.rescue import DAMAGED_AGAIN_SECONDS, work_with

NOW = 1_790_000_000.0
KEPT = "kept"


def keep(ledger: Ledger) -> None:
    ledger.write(partial(set_fact, name=KEPT, value="value"))


def kept(ledger: Ledger) -> str | None:
    found: str | None = ledger.read(partial(get_fact, name=KEPT))
    return found


def problems(ledger: Ledger) -> list[Any]:
    return list(ledger.read(partial(overview, tracking_file="t")).problems)


def damage(path: Path, offset: int) -> None:
    """Overwrite a page of the file, as a dying disk would."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(random.Random(offset).randbytes(4096))  # noqa: S311 - no secret


def set_aside(path: Path) -> list[Path]:
    return [
        found
        for found in path.parent.glob(f"{path.name}.damaged-*")
        if not found.name.endswith(("-wal", "-shm"))
    ]


def damaged_while_at_work(ledger: Ledger) -> None:
    """What SQLite says where it meets a damaged page."""

    def fail(_: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    ledger.write(fail)


def test_a_ledger_that_is_whole_is_gone_on_with(tmp_path: Path) -> None:
    """Goal: nothing is lost by an end, orderly or not. Method: one is closed, one left open with its log."""
    path = tmp_path / "ledger.sqlite3"
    work_with(path, keep)
    abandoned = Ledger.open(path)
    abandoned.write(partial(set_fact, name="another", value="value"))
    assert work_with(path, kept) == "value"
    abandoned.close()
    assert set_aside(path) == []


def test_any_page_of_a_ledger_may_be_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: work goes on, the old file is kept, the user is told. Method: overwrite one of them."""
    path = tmp_path / "state" / "ledger.sqlite3"
    work_with(path, keep)
    whole = path.read_bytes()
    for offset in range(0, len(whole), 7 * 4096):
        path.write_bytes(whole)
        damage(path, offset)
        content = path.read_bytes()
        caplog.clear()
        found, told = work_with(path, lambda ledger: (kept(ledger), problems(ledger)))
        [aside] = set_aside(path)
        assert (found, aside.read_bytes()) == (None, content)
        assert [(problem.run, problem.state) for problem in told] == [(path.name, "notice")]
        assert aside.name in told[0].cause
        assert aside.name in caplog.text
        assert path.stat().st_mode & 0o777 == 0o600
        aside.unlink()


def test_damage_that_shows_at_work_begins_the_work_anew(tmp_path: Path) -> None:
    """Goal: nothing to do by hand. Method: work meets a damaged page, alone or beside other errors; once."""
    for grouped in (False, True):
        path = tmp_path / f"{grouped}.sqlite3"
        calls: list[str | None] = []

        def work(ledger: Ledger, calls: list[str | None] = calls, grouped: bool = grouped) -> str:  # noqa: FBT001
            calls.append(kept(ledger))
            if len(calls) > 1:
                return "done"
            keep(ledger)
            try:
                damaged_while_at_work(ledger)
            except LedgerDamagedError as error:
                if grouped:
                    inner = ExceptionGroup("tasks", [error])
                    raise ExceptionGroup("tasks", [OSError("of another task"), inner]) from None
                raise
            return "not noticed"

        assert work_with(path, work) == "done"
        assert calls == [None, None]
        assert len(set_aside(path)) == 1


def test_a_disk_that_keeps_nothing_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    """Goal: bounded. Method: work meets damage ever again, at once and after a long time."""
    for seconds, expected in ((1.0, 2), (DAMAGED_AGAIN_SECONDS, 5)):
        path = tmp_path / f"{seconds}.sqlite3"
        calls: list[float] = []

        def work(ledger: Ledger, calls: list[float] = calls, expected: int = expected) -> None:
            calls.append(NOW)
            if len(calls) < expected or expected == 2:
                damaged_while_at_work(ledger)

        def now(calls: list[float] = calls, seconds: float = seconds) -> float:
            return NOW + len(calls) * seconds

        if expected == 2:
            with pytest.raises(LedgerDamagedError, match="damaged again") as failure:
                work_with(path, work, now=now)
            assert "--state-dir" in failure.value.hint
        else:
            work_with(path, work, now=now)
        assert len(calls) == expected
        # A start after that finds a ledger that can be worked with.
        assert work_with(path, kept) is None


def test_other_errors_than_damage_are_the_callers(tmp_path: Path) -> None:
    """Goal: only damage is mended here. Method: others, alone and in a group."""
    path = tmp_path / "ledger.sqlite3"
    failures = (KeyError("one"), ExceptionGroup("tasks", [KeyError("one")]))
    for failure in failures:

        def work(_: Ledger, failure: Exception = failure) -> None:
            raise failure

        with pytest.raises(type(failure)) as raised:
            work_with(path, work)
        assert raised.value is failure
    assert set_aside(path) == []


def spoil(*statements: str) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        with sqlite3.connect(path) as db:
            for statement in statements:
                db.execute(statement)
        db.close()

    return do


def cut(to: int) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:to])

    return do


def is_replaced_by(content: bytes) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        path.write_bytes(content)

    return do


def undecodable(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"in a text", b"in \xff text"))


SPOILT: dict[str, Callable[[Path], None]] = {
    "a table is missing": spoil("DROP TABLE notices"),
    "and its version": spoil("DROP TABLE notices", "PRAGMA user_version = 0"),
    "its version is another": spoil("PRAGMA user_version = 2"),
    "its mark is gone": spoil("PRAGMA application_id = 0"),
    "its mark is another": spoil(f"PRAGMA application_id = {APPLICATION_ID + 1}"),
    "its end is missing": cut(-5000),
    "nearly all is missing": cut(50),
    "it is something else": is_replaced_by(b"no ledger at all" * 1000),
}


@pytest.mark.parametrize("damage", SPOILT.values(), ids=SPOILT)
def test_a_ledger_that_is_not_what_it_says_is_replaced(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Goal: work goes on without trust in it. Method: each of these; the start after trusts the new one."""
    path = tmp_path / "ledger.sqlite3"
    work_with(path, keep)
    damage(path)
    assert work_with(path, kept) is None
    assert len(set_aside(path)) == 1
    work_with(path, keep)
    assert work_with(path, kept) == "value"
    assert len(set_aside(path)) == 1


def test_text_that_cannot_be_read_is_damage_as_well(tmp_path: Path) -> None:
    """Goal: what no structure of SQLite's guards. Method: spoil a text on the disk; who reads it says so."""
    path = tmp_path / "ledger.sqlite3"
    work_with(path, lambda ledger: ledger.write(partial(set_fact, name=KEPT, value="in a text")))
    undecodable(path)
    assert work_with(path, kept) is None
    assert len(set_aside(path)) == 1


def test_what_nobody_thought_of_lets_the_ledger_be_looked_at(tmp_path: Path) -> None:
    """Goal: damage that shows as something else. Method: an odd error, in a whole and a damaged one."""
    path = tmp_path / "ledger.sqlite3"

    def odd(_: sqlite3.Connection) -> None:
        raise ValueError("odd")

    work_with(path, keep)
    for expected in (ValueError, LedgerDamagedError):
        ledger = Ledger.open(path)
        if expected is LedgerDamagedError:
            damage(path, 6 * 4096)
        with pytest.raises(expected):
            ledger.write(odd)
        ledger.close()


def test_a_ledger_that_was_only_begun_is_taken_as_it_is(tmp_path: Path) -> None:
    """Goal: nothing to set aside where nothing is. Method: an empty file; a user is told nothing."""
    path = tmp_path / "ledger.sqlite3"
    path.touch()
    assert work_with(path, problems) == []
    assert set_aside(path) == []


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Goal: only a damaged ledger is moved. Method: somebody else's healthy database in its place."""
    path = tmp_path / "ledger.sqlite3"
    spoil("CREATE TABLE theirs (x)")(path)
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="another program"):
        work_with(path, keep)
    assert path.read_bytes() == content
    assert set_aside(path) == []
