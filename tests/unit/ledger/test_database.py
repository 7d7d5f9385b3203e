"""Opening, migrating and checking a ledger, and its transactions."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from pixaris_sync.errors import Failure, LedgerDamagedError, LedgerEmptyError, LedgerError
from pixaris_sync.ledger.database import APPLICATION_ID, Ledger, _statements, migrations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(path)
    yield ledger
    ledger.close()


def set_fact(db: sqlite3.Connection, name: str, value: str = "x") -> str:
    db.execute("INSERT INTO facts (name, value) VALUES (?, ?)", (name, value))
    return name


def facts(ledger: Ledger) -> list[str]:
    found: list[str] = ledger.read(
        lambda db: [row[0] for row in db.execute("SELECT name FROM facts ORDER BY name")]
    )
    return found


def other_database(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_new_ledger_is_marked_durable_and_private(ledger: Ledger, path: Path) -> None:
    """Goal: nobody else reads it and no commit is lost. Method: look at modes and pragmas."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    pragmas = ("application_id", "user_version", "journal_mode", "synchronous", "foreign_keys")
    found = [ledger._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert found == [APPLICATION_ID, migrations()[-1][0], "wal", 2, 1]
    ledger.write(lambda db: set_fact(db, "a"))
    for beside in path.parent.iterdir():
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600, beside.name


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    """Goal: every step has its place. Method: list the shipped files."""
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_opening_again_finds_what_was_written(path: Path) -> None:
    """Goal: it persists, and nothing is migrated twice. Method: write, close, open."""
    ledger = Ledger.open(path)
    ledger.write(lambda db: set_fact(db, "a"))
    ledger.close()
    ledger.close()
    again = Ledger.open(path)
    assert facts(again) == ["a"]
    again.close()


def test_what_an_older_ledger_knows_is_kept(path: Path) -> None:
    """Goal: an upgrade loses nothing. Method: a ledger of version 2 with what version 3 tells otherwise."""
    path.parent.mkdir()
    db = sqlite3.connect(path)
    for number, script in migrations()[:2]:
        db.executescript(f"{script}; PRAGMA user_version = {number}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("INSERT INTO datasets (id, project, dataset, table_id, since) VALUES (1, 'p', 'd', 't', 0)")
    db.execute("INSERT INTO runs (id, dataset_id, name, state, since) VALUES (1, 1, 'r', 'pending', 0)")
    files = [
        ("new.png", 10, 5, 7, "pending", 1),
        ("in_doubt.png", 10, 5, 7, "pending", 0),
        ("refused.png", 10, -1, 7, "quarantined", 0),
        ("score.json", 10, 0, 77, "pending", 1),
    ]
    db.executemany(
        "INSERT INTO files (run_id, dataset_id, rank, path, size, mtime_ns, inode, state, looked, since)"
        " VALUES (1, 1, 'r', ?, ?, ?, ?, ?, ?, 0)",
        files,
    )
    db.execute(
        "INSERT INTO records"
        " (dataset_id, run_id, rank, digest, ordinal, line, reading, found_at, state, since)"
        " VALUES (1, 1, 'r', 'x', 0, 1, -1, 0, 'quarantined', 0)"
    )
    db.commit()
    db.close()
    with closing(Ledger.open(path)) as ledger:
        found = ledger.read(
            lambda db: db.execute(
                "SELECT path, run_name, state, taken, forget_unless_found, inode, content_crc32c FROM files"
            ).fetchall()
        )
        assert [tuple(row) for row in found] == [
            ("new.png", "r", "pending", 0, 0, 7, None),
            ("in_doubt.png", "r", "in_doubt", 1, 0, 7, None),
            ("refused.png", "r", "quarantined", 1, 1, 7, None),
            ("score.json", "r", "pending", 0, 0, 0, 77),
        ]
        assert tuple(
            ledger.read(lambda db: db.execute("SELECT run_name, judge_anew FROM records").fetchone())
        ) == ("r", 1)
        assert ledger.damage() is None


def test_many_processes_may_open_a_ledger_while_it_is_migrated(path: Path) -> None:
    """Goal: a second one finds the work done. Method: hold the lock of the first until the second waits."""
    other_database(path, "PRAGMA journal_mode = WAL")
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    outcome: list[object] = []

    def second() -> None:
        ledger = Ledger.open(path)
        outcome.append(facts(ledger))
        ledger.close()

    waiting = threading.Thread(target=second)
    waiting.start()
    for _, script in migrations():
        for statement in _statements(script):
            first.execute(statement)
    first.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    first.execute(f"PRAGMA user_version = {migrations()[-1][0]}")
    first.execute("COMMIT")
    waiting.join()
    first.close()
    assert outcome == [[]]


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE datasets (x)",),
        ("PRAGMA user_version = 1",),
        ("PRAGMA application_id = 7",),
    ],
    ids=["has tables", "has a version", "has an id"],
)
def test_another_programs_database_is_left_alone(path: Path, statements: tuple[str, ...]) -> None:
    """Goal: nothing of it changes. Method: a database without our mark; compare its bytes."""
    other_database(path, *statements)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="another program") as refusal:
        Ledger.open(path)
    assert "--state-dir" in refusal.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_ledger_is_refused(path: Path, *, read_only: bool) -> None:
    """Goal: an older program spoils nothing. Method: raise the version by one."""
    newer = migrations()[-1][0] + 1
    other_database(path, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {newer}")
    with pytest.raises(LedgerError, match="newer") as refusal:
        Ledger.open(path, read_only=read_only)
    assert "upgrade" in refusal.value.hint


def test_a_damaged_file_is_refused(path: Path) -> None:
    """Goal: one clear error. Method: bytes that are no database."""
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LedgerError) as refusal:
        Ledger.open(path)
    assert str(path) in str(refusal.value)
    assert "rebuilds it" in refusal.value.hint


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """Goal: one clear error. Method: a file stands where the folder should be."""
    (tmp_path / "state").write_text("")
    with pytest.raises(LedgerError) as refusal:
        Ledger.open(tmp_path / "state" / "ledger.sqlite3")
    assert "--state-dir" in refusal.value.hint
    assert refusal.value.failure is Failure.PERMISSION


def test_reading_only_makes_nothing(path: Path) -> None:
    """Goal: `status` leaves no trace. Method: read a ledger that is not there, and one that is empty."""
    with pytest.raises(LedgerError):
        Ledger.open(path, read_only=True)
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    with pytest.raises(LedgerEmptyError, match="nothing was ever written"):
        Ledger.open(path, read_only=True)
    assert path.read_bytes() == b""


#: What a process that is ended while it makes a ledger may leave behind, and what only looks like it.
BEGUN = {
    "an empty file": (),
    "a log and no table": ("PRAGMA journal_mode = WAL",),
    "a mark and no table": (f"PRAGMA application_id = {APPLICATION_ID}",),
}


@pytest.mark.parametrize("statements", BEGUN.values(), ids=BEGUN)
def test_a_ledger_that_was_only_begun_is_begun_anew(path: Path, statements: tuple[str, ...]) -> None:
    """Goal: an unlucky instant costs nothing. Method: leave each of these behind; read, copy and open it."""
    path.parent.mkdir()
    path.touch()
    other_database(path, *statements)
    with pytest.raises(LedgerEmptyError) as refusal:
        Ledger.open(path, read_only=True)
    assert "begins anew" in refusal.value.hint
    for ledger in (Ledger.in_memory(copy_of=path), Ledger.open(path)):
        ledger.write(lambda db: set_fact(db, "a"))
        assert facts(ledger) == ["a"]
        ledger.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("version", "cause"), [(0, "only half made"), (migrations()[-1][0], "lacks tables: datasets, deliveries")]
)
def test_a_ledger_of_which_a_part_is_missing_is_damaged(
    path: Path, version: int, cause: str, *, read_only: bool
) -> None:
    """Goal: it is rebuilt, not trusted. Method: our mark and one table alone, with and without a version."""
    other_database(
        path,
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {version}",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT)",
    )
    with pytest.raises(LedgerDamagedError, match=cause) as refusal:
        Ledger.open(path, read_only=read_only)
    assert "rebuilds it" in refusal.value.hint
    with pytest.raises(LedgerDamagedError, match=cause):
        Ledger.in_memory(copy_of=path)


def test_what_is_deleted_is_overwritten(path: Path) -> None:
    """Goal: no secret outlives its use. Method: delete and replace among others; search the file's bytes."""
    ledger = Ledger.open(path)
    for name in "abc":
        ledger.write(partial(set_fact, name=name, value=f"secret-{name}" * 100))
    ledger.write(lambda db: db.execute("DELETE FROM facts WHERE name = 'b'").rowcount)
    ledger.write(lambda db: db.execute("UPDATE facts SET value = '' WHERE name = 'c'").rowcount)
    ledger.close()
    content = path.read_bytes()
    assert [name for name in "abc" if f"secret-{name}".encode() in content] == ["a"]
    assert [beside.name for beside in path.parent.iterdir()] == [path.name]


def test_a_reader_sees_what_a_writer_has_committed_and_cannot_write(ledger: Ledger, path: Path) -> None:
    """Goal: `status` while the daemon runs. Method: two openings of one file."""
    reader = Ledger.open(path, read_only=True)
    before = reader.changes_of_others()
    ledger.write(lambda db: set_fact(db, "a"))
    assert reader.changes_of_others() != before
    assert facts(reader) == ["a"]
    with pytest.raises(LedgerError, match="readonly"):
        reader.write(lambda db: set_fact(db, "b"))
    reader.close()


def test_an_operation_that_fails_is_undone_alone(ledger: Ledger) -> None:
    """Goal: its neighbours in the transaction go on. Method: one raises after it has written."""

    def fail(db: sqlite3.Connection) -> None:
        set_fact(db, "half")
        raise KeyError("reason")

    first, failed, twice, last = ledger.apply(
        [lambda db: set_fact(db, "a"), fail, lambda db: set_fact(db, "a"), lambda db: set_fact(db, "b")]
    )
    assert (first, last) == ("a", "b")
    assert isinstance(failed, KeyError)
    assert isinstance(twice, sqlite3.IntegrityError)
    assert facts(ledger) == ["a", "b"]


def test_write_raises_what_its_operation_raises(ledger: Ledger) -> None:
    """Goal: one operation, one outcome. Method: raise in it."""
    with pytest.raises(ZeroDivisionError):
        ledger.write(lambda _: 1 // 0)


def test_a_full_disk_undoes_all_of_the_transaction(ledger: Ledger) -> None:
    """Goal: nothing half. Method: SQLite's page limit stands for the disk; the second operation fills it."""
    ledger.write(lambda db: set_fact(db, "before"))
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full") as failure:
        ledger.apply([lambda db: set_fact(db, "small"), lambda db: set_fact(db, "large", "x" * 100_000)])
    assert "free space" in failure.value.hint
    assert facts(ledger) == ["before"]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    ledger.write(lambda db: set_fact(db, "after"))
    assert facts(ledger) == ["after", "before"]


def test_damage_that_an_operation_meets_is_the_ledgers_failure(ledger: Ledger) -> None:
    """Goal: never an operation's own error. Method: SQLite's error for a malformed image."""

    def meet_damage(_: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with pytest.raises(LedgerError, match="malformed"):
        ledger.apply([lambda db: set_fact(db, "a"), meet_damage])
    assert facts(ledger) == []


def test_an_interrupted_transaction_leaves_the_ledger_usable(ledger: Ledger) -> None:
    """Goal: Ctrl+C undoes and locks nobody out. Method: raise KeyboardInterrupt in an operation."""

    def interrupt(db: sqlite3.Connection) -> None:
        set_fact(db, "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.apply([interrupt])
    assert facts(ledger) == []
    ledger.write(lambda db: set_fact(db, "a"))
    assert facts(ledger) == ["a"]


def test_what_a_read_writes_is_undone(ledger: Ledger) -> None:
    """Goal: reading changes nothing. Method: write in a read."""
    ledger.read(lambda db: set_fact(db, "a"))
    assert facts(ledger) == []
