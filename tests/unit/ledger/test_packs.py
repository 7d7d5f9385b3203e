"""Finished runs are packed: they take little room, and everything that is asked of them is as before."""

import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from pixaris_sync.ledger import (
    database,
    datasets,
    intake,
    inventory,
    known,
    overview,
    packs,
    pending_rows,
    retry,
    rows,
    uploads,
)
from pixaris_sync.ledger.database import APPLICATION_ID, WAL_BYTES_LIMIT, Ledger, migrations, set_fact
from pixaris_sync.ledger.intake import FoundRecord, FoundRun
from pixaris_sync.ledger.packs import PackedFile, pack, unpack
from pixaris_sync.model import FoundFile
from tests.support.ledgers import ALL, PROBLEM, RUN, SHOES, TABLE, Book, file, found_run, inline, record
from tests.unit.ledger import test_state_machine as standing

A, B = file("generated_images/a.png"), file("generated_images/b.png", inode=8)
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def small_ledgers_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACKED_FROM_BYTES", 0)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def pack_all(book: Book) -> None:
    while book.ledger.write(packs.pack_finished):
        pass


def finish(book: Book, *runs: FoundRun) -> None:
    book.take(*runs)
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    assert set(book.states("runs")) == {"synced"}


def read_back_later(book: Book, *files: FoundFile, **options: Any) -> None:
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=files, **options)])


# -- the format ----------------------------------------------------------------------------------------

numbers = st.integers(-(2**63), 2**63 - 1)
paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(
    st.lists(
        st.builds(PackedFile, paths, numbers, numbers, numbers, st.none() | numbers, numbers), min_size=1
    )
)
@example([PackedFile('a "b"\\\n\0é\U0001f600.png', 2**62, 2**63 - 1, 2**63 - 1, 2**32 - 1, 2**63 - 1)])
@example([PackedFile("a", 0, 0, -(2**63), 0, 0), PackedFile("b", 0, 0, 2**63 - 1, None, 0)])
def test_what_was_packed_is_what_is_unpacked(files: list[PackedFile]) -> None:
    """Goal: no name and no number is too odd, nor too large. Method: any text, any number of SQLite's."""
    packed = pack(files)
    assert unpack(packed) == files
    paths_bytes = sum(len(json.dumps(one.path, ensure_ascii=False).encode()) for one in files)
    assert len(packed) <= paths_bytes + (len(files) + 1) * packs.PACKED_FILE_BYTES_MAX


def test_a_pack_is_read_as_it_is_documented() -> None:
    """Goal: packs of today can be read by later versions. Method: one written by hand."""
    by_hand = b'[["a","b","c"],[1,2,3],[10,-5,1],[7,1,1],[99,null,0],[4,-1,0]]'
    files = [
        PackedFile("a", 1, 10, 7, 99, 4),
        PackedFile("b", 2, 5, 8, None, 3),
        PackedFile("c", 3, 6, 9, 0, 3),
    ]
    assert unpack(zlib.compress(by_hand)) == files
    assert zlib.decompress(pack(files)) == by_hand


def test_a_file_of_a_finished_run_takes_few_bytes() -> None:
    """Goal: the size that the module states. Method: a run of twenty images, as they are stored."""
    run = [
        PackedFile(
            f"generated_images/image_{number:04d}.png",
            100_000 + number * number * 371,
            1_700_000_000_000_000_000 + number * 123_456_789 + number * number * 7919,
            5_000_000 + number,
            (number + 1) * 2_654_435_761 % 2**32,
            1_700_000_000_000_000 + number * number * 7919,
        )
        for number in range(20)
    ]
    assert len(pack(run)) / len(run) < 30


# -- packing -------------------------------------------------------------------------------------------


def test_a_finished_run_has_no_rows_of_files_and_is_told_of_as_before(book: Book) -> None:
    """Goal: nobody notices. Method: what `status`, `verify` and a scan ask, before and after packing."""
    book.take(found_run(FoundRecord(record(), (inline("score.json", b"{}"),)), files=[A, file("arg.png")]))
    finish(book)
    book.take(found_run(record("20240102-000001_y"), name="20240102-000001_y", files=[B]))
    questions: list[Callable[[], Any]] = [
        partial(book.ask, overview.overview, "tracking.jsonl"),
        partial(book.ask, inventory.inventory, SHOES),
        lambda: set(book.ask(known.local_paths, book.dataset(), RUN)),
        partial(book.ask, known.args_and_payloads, book.dataset(), [RUN]),
        partial(book.ask, known.inspected_runs, book.dataset(), synced_too=True),
    ]
    before = [question() for question in questions]

    pack_all(book)

    assert book.select("SELECT path, state FROM files") == [{"path": B.path, "state": "pending"}]
    assert [question() for question in questions] == before
    assert before[0].files["uploaded"] == 3
    assert before[2] == {A.path, "arg.png"}


def test_only_runs_that_are_finished_are_packed(book: Book) -> None:
    """Goal: what is carried stands in rows. Method: pack at each step of a run's way."""
    book.take(found_run(record(), files=[A, B]))
    steps: list[Callable[[], object]] = [
        lambda: book.upload(book.claim(1)[0]),
        lambda: book.upload(book.claim(1)[0]),
        lambda: book.do(rows.accept_rows, book.ready()),
    ]
    for step in steps:
        pack_all(book)
        assert len(book.states("files")) == 2
        step()
    look = book.do(pending_rows.rows_to_read_back, ALL, TABLE, 1)
    book.do(rows.confirm_rows, look)
    pack_all(book)
    assert book.states("files") == []


def test_a_run_that_is_called_finished_against_its_files_is_not_packed(book: Book) -> None:
    """Goal: an open file is never taken for one that is there. Method: a ledger that contradicts itself."""
    finish(book, found_run(record(), files=[A, B]))
    book.select("UPDATE files SET state = 'pending' WHERE path = ?", A.path)
    pack_all(book)
    assert sorted(book.states("files")) == ["pending", "uploaded"]


def test_runs_without_files_are_packed_once(book: Book) -> None:
    """Goal: they are not looked at over and over. Method: pack; nothing is left to pack, a file comes."""
    finish(book, found_run(record()))
    pack_all(book)
    assert (
        book.select(
            "SELECT id FROM runs INDEXED BY runs_to_pack WHERE state = 'synced' AND packed_files IS NULL"
        )
        == []
    )
    read_back_later(book, A)
    assert (book.run_state(), book.states("files")) == (("pending", None), ["pending"])


def test_many_runs_are_packed_a_limited_number_at_a_time(book: Book) -> None:
    """Goal: nobody waits for long. Method: more finished runs than one transaction packs."""
    names = [f"20240101-{number:06d}_x" for number in range(packs.PACKED_RUNS_LIMIT + 1)]
    book.take(*(found_run(record(name, line=n), name=name, files=[A]) for n, name in enumerate(names)))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready(count=len(names)))
    assert book.ledger.write(packs.pack_finished) is True
    assert len(book.states("files")) == 1
    assert book.ledger.write(packs.pack_finished) is False
    assert book.states("files") == []


def test_a_small_ledger_is_left_as_it_is(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no work where nothing is to be gained. Method: one run and the size that holds; fill it."""
    monkeypatch.undo()
    finish(book, found_run(record(), files=[A]))
    pack_all(book)
    assert book.states("files") == ["uploaded"]
    book.ledger.write(partial(set_fact, name="filling", value="x" * packs.PACKED_FROM_BYTES))
    pack_all(book)
    assert book.states("files") == []


def test_a_transaction_that_fails_leaves_everything_as_it_was(book: Book) -> None:
    """Goal: a crash in the middle is harmless. Method: undo the transaction that packs, after it did."""
    finish(book, found_run(record(), files=[A, B]))

    def fail(db: sqlite3.Connection) -> None:
        packs.pack_finished(db)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.ledger.write(fail)
    assert book.states("files") == ["uploaded", "uploaded"]
    assert book.select("SELECT * FROM packs") == []
    assert book.one("SELECT packed_files FROM runs")["packed_files"] is None


# -- changes after packing -----------------------------------------------------------------------------


def test_a_look_at_what_is_as_it_was_writes_nothing(book: Book) -> None:
    """Goal: looking at a million files anew costs no writing. Method: count the rows that SQLite changes."""
    finish(book, found_run(FoundRecord(record(), (inline("score.json", b"{}"),)), files=[A, B]))
    pack_all(book)
    for files in ((A, B), (A,)):
        # What is gone is noted once.
        read_back_later(book, *files)
        before = book.ledger._connection.total_changes
        read_back_later(book, *files)
        assert book.ledger._connection.total_changes == before
    assert book.run_state() == ("synced", None)


def dismiss(book: Book) -> None:
    """Somebody removes a bad image and says "again"; a problem with the others stays away."""
    read_back_later(book, A, B, file("bad.png"))
    [task] = [task for task in book.claim(later_seconds=2) if task.path == "bad.png"]
    book.do(uploads.quarantine_upload, task, PROBLEM)
    book.do(retry.retry_runs, None)
    read_back_later(book, A, B)


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(lambda book: read_back_later(book, A, B), id="nothing"),
        pytest.param(lambda book: read_back_later(book, file(A.path, size=11), B), id="a size"),
        pytest.param(lambda book: read_back_later(book, A, file(B.path, mtime_ns=6, inode=8)), id="a time"),
        pytest.param(lambda book: read_back_later(book, file(A.path, inode=9), B), id="an inode"),
        pytest.param(lambda book: read_back_later(book, A, B, file("generated_images/c.png")), id="one more"),
        pytest.param(lambda book: read_back_later(book, A), id="one is gone"),
        pytest.param(lambda book: read_back_later(book, problem=PROBLEM), id="all are gone"),
        pytest.param(lambda book: read_back_later(book, A, B, signature="another"), id="a signature"),
        pytest.param(dismiss, id="one is dismissed"),
        pytest.param(lambda book: book.do(retry.retry_runs, [1]), id="again"),
        pytest.param(lambda book: book.do(datasets.refuse_dataset, 1, PROBLEM), id="refused"),
        pytest.param(lambda book: book.take(found_run(record(note="new"), files=[A, B])), id="a record"),
        pytest.param(
            lambda book: book.take(found_run(record(note="new"), files=[A, B], problem=PROBLEM)),
            id="a record whose files are missing",
        ),
        pytest.param(
            lambda book: book.take(
                found_run(FoundRecord(record(note="new"), (inline("score.json", b"{}"),)), files=[A, B])
            ),
            id="a record with the same dict",
        ),
        pytest.param(
            lambda book: book.take(
                found_run(FoundRecord(record(note="new"), (inline("score.json", b"[]"),)), files=[A, B])
            ),
            id="a record with another dict",
        ),
        pytest.param(
            lambda book: book.take(
                found_run(FoundRecord(record(note="new"), (inline("more.json", b"[]"),)), files=[A, B])
            ),
            id="a record with a dict of its own",
        ),
    ],
)
def test_what_happens_to_a_packed_run_is_what_would_have_happened(
    tmp_path: Path, happens: Callable[[Book], object]
) -> None:
    """Goal: packing changes nothing but the room it takes.

    Method: the same happens to two ledgers, one packed before; then their runs, records, files and what is
    sent next are compared, and once more when all is finished.
    """
    books = [Book(tmp_path / name) for name in ("plain", "packed")]
    for book in books:
        finish(book, found_run(FoundRecord(record(), (inline("score.json", b"{}"),)), files=[A, B]))
    pack_all(books[1])
    assert books[1].states("files") == []
    for book in books:
        book.now += 100
        happens(book)

    plain, packed = (everything(book) for book in books)
    assert plain == packed
    tasks = [book.claim(later_seconds=2) for book in books]
    assert [set(map(told, claimed)) for claimed in tasks] == [set(map(told, tasks[0]))] * 2
    for book, claimed in zip(books, tasks, strict=True):
        for task in claimed:
            book.upload(task)
        book.do(rows.confirm_rows, book.ready())
        pack_all(book)
    plain, packed = (everything(book) for book in books)
    assert plain == packed
    for book in books:
        book.ledger.close()


def told(task: uploads.UploadTask) -> tuple[object, ...]:
    """All of a task but the row that it stands in."""
    return (
        task.run,
        task.path,
        task.version,
        task.content,
        task.generation,
        task.crc32c,
        task.ours,
        task.in_doubt,
    )


def everything(book: Book) -> tuple[Any, ...]:
    files = book.select(
        "SELECT run_name, path, content, size, mtime_ns, inode, state, crc32c, generation, ours, taken,"
        " attempts, cause, hint FROM files WHERE state <> 'uploaded' ORDER BY path"
    )
    runs = book.select("SELECT name, state, since, cause, hint, signature, folder_cause, committed FROM runs")
    records = book.select("SELECT digest, state, cause, ready, taken FROM records ORDER BY id")
    return (
        files,
        runs,
        records,
        book.ask(inventory.inventory, SHOES),
        book.ask(overview.overview, "tracking.jsonl"),
        set(book.ask(known.local_paths, book.dataset(), RUN)),
    )


def test_a_pack_that_is_damaged_counts_as_empty(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a bad spot of a disk ends nothing. Method: spoil a pack; its files are taken in anew."""
    finish(book, found_run(record(), files=[A, B]))
    pack_all(book)
    packed = bytearray(book.one("SELECT packed FROM packs")["packed"])
    packed[len(packed) // 2] ^= 0xFF
    book.select("UPDATE packs SET packed = ?", bytes(packed))
    with caplog.at_level(logging.WARNING):
        assert book.ask(inventory.inventory, SHOES).uploaded == {}
        read_back_later(book, A, B)
    assert "looked for in the bucket" in caplog.text
    assert book.states("files") == ["pending", "pending"]
    assert book.select("SELECT * FROM packs") == []


class PackedLedger(standing.Ledger):
    """The transitions of a ledger in any order, with packing between any two of them."""

    def __init__(self) -> None:
        super().__init__()
        self._from_bytes, packs.PACKED_FROM_BYTES = packs.PACKED_FROM_BYTES, 0

    def teardown(self) -> None:
        packs.PACKED_FROM_BYTES = self._from_bytes
        super().teardown()

    @rule()
    def pack_what_is_finished(self) -> None:
        pack_all(self.book)

    @invariant()
    def every_file_is_where_the_model_has_it(self) -> None:
        found = {
            (row["run_name"], row["path"]): (row["state"], row["cause"])
            for row in self.book.select("SELECT run_name, path, state, cause FROM files")
        }
        for row in self.book.select("SELECT id, name, packed_files FROM runs WHERE packed_files IS NOT NULL"):
            files = self.book.ask(packs.packed_files, row["id"])
            assert len(files) == row["packed_files"]
            assert not any(rank == row["name"] for rank, _ in found), "some packed, some not"
            found.update({(row["name"], one.path): ("uploaded", None) for one in files})
        assert found == {
            (name, path): (one.state, one.cause)
            for name, run in self.model.items()
            for path, one in run.files.items()
        }


TestPacked = PackedLedger.TestCase
TestPacked.settings = standing.TestStanding.settings


# -- ledgers of before, and space ----------------------------------------------------------------------


def test_a_ledger_of_before_is_packed_too(tmp_path: Path) -> None:
    """Goal: an upgrade is enough. Method: a ledger as the first version made it, with a finished run."""
    path = tmp_path / "ledger.sqlite3"
    db = sqlite3.connect(path)
    db.executescript(migrations()[0][1])
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    db.execute(
        "INSERT INTO datasets (id, project, dataset, table_id, adopted_at, since)"
        " VALUES (1, ?, ?, 'table', 1, 1)",
        (SHOES.project, SHOES.dataset),
    )
    db.execute(
        "INSERT INTO runs (id, dataset_id, name, state, since, signature, committed)"
        " VALUES (1, 1, ?, 'synced', 1, 'signature', 1)",
        (RUN,),
    )
    db.execute(
        "INSERT INTO files (run_id, dataset_id, path, rank, size, mtime_ns, inode, state, since, crc32c,"
        " generation, ours) VALUES (1, 1, 'a.png', ?, 10, 5, 7, 'uploaded', 1, 99, 4, 1)",
        (RUN,),
    )
    db.commit()
    db.close()
    ledger = Ledger.open(path)
    assert ledger.write(packs.pack_finished) is False
    assert ledger.read(partial(packs.packed_files, run_id=1)) == [PackedFile("a.png", 10, 5, 7, 99, 4)]
    assert ledger.read(partial(inventory.inventory, key=SHOES)).uploaded == {(RUN, "a.png"): 99}
    # It was made without what it takes to become shorter.
    leave_unused(ledger, 4 * MEBIBYTE)
    assert ledger.write(packs.pages_to_give_back) == 0
    ledger.close()


def leave_unused(ledger: Ledger, size: int, *, used: int = 0) -> None:
    ledger.write(partial(set_fact, name="unused", value="x" * size))
    ledger.write(partial(set_fact, name="used", value="x" * used))
    ledger.write(lambda db: db.execute("DELETE FROM facts WHERE name = 'unused'").rowcount)


@pytest.mark.parametrize(
    ("unused", "used", "given"),
    [(4 * MEBIBYTE, 0, True), (4 * MEBIBYTE, 13 * MEBIBYTE, False), (MEBIBYTE - 65536, 0, False)],
    ids=["much", "less than its share", "little"],
)
def test_space_is_given_back_where_it_is_much(tmp_path: Path, unused: int, used: int, *, given: bool) -> None:
    """Goal: the file shrinks after a bulk of runs, and is not worked on for nothing.

    Method: leave unused pages behind; follow the engine's steps; the file's size and content afterwards.
    """
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger.open(path)
    leave_unused(ledger, unused, used=used)
    pages = ledger.write(packs.pages_to_give_back)
    assert (pages * 4096 >= unused) is given
    for _ in range(0, pages, packs.GIVEN_BACK_PAGES_LIMIT):
        ledger.write(packs.give_pages_back)
        assert ledger.damage() is None
    assert ledger.write(packs.pages_to_give_back) == 0
    assert len(ledger.read(partial(database.get_fact, name="used")) or "") == used
    ledger.close()
    assert (path.stat().st_size < used + unused) is given


def test_the_log_of_changes_does_not_stay_as_long_as_it_once_was(tmp_path: Path) -> None:
    """Goal: no second copy of a big change stays. Method: a large change, then small ones, past its limit."""
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger.open(path)
    leave_unused(ledger, 4 * WAL_BYTES_LIMIT)
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size > WAL_BYTES_LIMIT
    for value in range(3):
        ledger.write(partial(set_fact, name="small", value=str(value)))
    assert log.stat().st_size <= WAL_BYTES_LIMIT
    ledger.close()
