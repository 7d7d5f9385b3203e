"""How far every dataset is, which runs were synced last, what was ever done, and the story of one run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from sqlite3 import Connection

import pytest

from pixaris_sync.ledger import intake, packs, progress, retry, rows, story, totals, uploads
from pixaris_sync.ledger.totals import Totals
from pixaris_sync.model import DamagedLine, RunKey
from tests.support.ledgers import NOW, PROBLEM, RUN, SHOES, Book, file, found_run, record, tail

OTHER = "20240102-000001_y"


@pytest.fixture(autouse=True)
def small_ledgers_are_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACKED_FROM_BYTES", 0)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def sync(book: Book, *names: str) -> None:
    for name in names:
        book.take(found_run(record(name), name=name, files=[file(size=10), file("args/b.png", size=5)]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())


def test_a_dataset_tells_its_runs_files_bytes_and_rows(book: Book) -> None:
    """Goal: numbers by dataset. Method: one run synced, one of whose two files one is on its way."""
    sync(book, RUN)
    book.take(found_run(record(OTHER), name=OTHER, files=[file(size=7), file("args/b.png", size=100)]))
    book.claim(1)
    [found] = book.ask(progress.dataset_progress)
    assert found.key == SHOES
    assert {state: count for state, count in found.runs.items() if count} == {"synced": 1, "pending": 1}
    assert (found.files_left, found.bytes_left, found.uploading, found.rows_left) == (2, 107, 1, 1)


def test_a_damaged_line_is_told_of_its_dataset(book: Book) -> None:
    """Goal: none counts as synced that needs attention. Method: a synced run, and two damaged lines."""
    sync(book, RUN)
    damaged = [DamagedLine(str(line), line, "it is no JSON") for line in (2, 3)]
    book.do(intake.take_in, book.dataset(), tail(damaged=damaged), [])
    [found] = book.ask(progress.dataset_progress)
    assert {state: count for state, count in found.runs.items() if count} == {"synced": 1, "quarantined": 2}


def test_the_runs_that_were_synced_last_come_first(book: Book) -> None:
    """Goal: packed or not, with files, bytes and times. Method: three runs, of which the second is packed."""
    for at, name in enumerate((RUN, OTHER, "20240103-000001_z")):
        book.now = NOW + 60 * at
        sync(book, name)
        if name == OTHER:
            assert not book.ledger.write(packs.pack_finished)
    found = book.ask(progress.last_synced_runs, 2)
    assert [one.run.run for one in found] == ["20240103-000001_z", OTHER]
    assert [(one.files, one.bytes, one.seconds) for one in found] == [(2, 15, 0.0)] * 2
    assert [(one.images, one.first_images) for one in found] == [(1, ("generated_images/a.png",))] * 2
    assert [one.synced_at for one in found] == [NOW + 120, NOW + 60]


def test_a_pack_is_counted_where_its_run_stands(book: Book) -> None:
    """Goal: packed files are counted once. Method: a run is packed, and forgotten."""
    sync(book, RUN)
    assert packed(book) == 0
    book.ledger.write(packs.pack_finished)
    assert packed(book) == 2
    run_id = book.one("SELECT id FROM runs")["id"]
    book.ledger.write(lambda db: packs.restore(db, run_id))
    assert packed(book) == 0
    book.ledger.write(packs.pack_finished)
    for table in ("packs", "records", "runs"):
        book.ledger.write(partial(delete_all, table=table))
    assert packed(book) == 0


def delete_all(db: Connection, table: str) -> None:
    db.execute(f"DELETE FROM {table}")  # noqa: S608 - a literal


def packed(book: Book) -> int:
    count = book.one("SELECT packed_files FROM datasets")["packed_files"]
    assert isinstance(count, int)
    return count


def test_what_was_sent_and_found_is_counted_for_good(book: Book) -> None:
    """Goal: numbers that only grow. Method: one file is sent, one was there, one has changed on the way."""
    book.take(found_run(record(), files=[file(size=10), file("args/b.png", size=5)]))
    first, second = book.claim()
    book.upload(first)
    book.upload(second, was_there=True)
    assert book.ask(totals.totals) == Totals(1, first.version.size, 1, second.version.size)


def test_a_run_tells_its_story(book: Book) -> None:
    """Goal: files, rows, attempts, times and causes. Method: a synced run, packed; one that failed."""
    sync(book, RUN)
    book.ledger.write(packs.pack_finished)
    book.take(found_run(record(OTHER), name=OTHER, files=[file(size=7)]))
    [task] = book.claim()
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW + 5, in_doubt=False)
    ids = [*book.ask(retry.find_runs, RUN), *book.ask(retry.find_runs, OTHER)]
    synced, failing = book.ask(story.run_stories, ids)
    assert (synced.run, synced.state) == (RunKey(SHOES.project, SHOES.dataset, RUN), "synced")
    assert [(one.path, one.size, one.state) for one in synced.files] == [
        ("args/b.png", 5, "uploaded"),
        ("generated_images/a.png", 10, "uploaded"),
    ]
    assert [(one.line, one.state, one.found_at) for one in synced.rows] == [(1, "synced", NOW)]
    [waiting] = failing.files
    assert (failing.state, failing.cause, failing.hint) == ("failing", PROBLEM.cause, PROBLEM.hint)
    assert (waiting.attempts, waiting.next_attempt_at, waiting.cause) == (1, NOW + 5, PROBLEM.cause)
