"""What ended, as the log is told of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import endings, intake, notices, retry, rows
from pixaris_sync.ledger.endings import SETTLES_SECONDS, Ending
from pixaris_sync.ledger.notices import Notice, Orphan
from pixaris_sync.model import DamagedLine, RunState
from tests.support.ledgers import NOW, PROBLEM, RUN, Book, file, found_run, record, tail

TRACKING_FILE = "tracking.jsonl"
OTHER = "20240102-000001_y"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    book.ledger.write(lambda db: endings.note_endings(db, synced=True))
    yield book
    book.ledger.close()


def taken(book: Book) -> list[Ending]:
    found: list[Ending] = book.do(endings.take_endings, TRACKING_FILE)[0]
    return found


def test_a_synced_run_has_its_files_and_times(book: Book) -> None:
    """Goal: a line of the log has all it says. Method: a run of two files takes 5 s."""
    book.take(found_run(record(), files=[file(size=10), file("b.png", size=5)]))
    book.upload_all()
    assert taken(book) == []
    book.now += 5
    book.do(rows.confirm_rows, book.ready())
    [ending] = taken(book)
    assert (ending.subject, ending.dataset) == (f"shop/shoes/{RUN}", "shop/shoes")
    assert (ending.state, ending.files, ending.bytes, ending.seconds) == (RunState.SYNCED, 2, 15, 5.0)
    assert not ending.sent
    assert taken(book) == []


def test_what_is_to_be_acted_on_is_told_once(book: Book) -> None:
    """Goal: once each, whatever scans do to it. Method: a run is quarantined, taken up, and put back."""
    book.take(found_run(record(), problem=PROBLEM))
    [ending] = taken(book)
    assert (ending.subject, ending.state) == (f"shop/shoes/{RUN}", RunState.QUARANTINED)
    assert (ending.cause, ending.hint) == (PROBLEM.cause, PROBLEM.hint)
    book.do(retry.retry_runs, None)
    book.take(found_run(record(), problem=PROBLEM), from_start=True)
    assert taken(book) == []


def test_what_was_told_by_an_earlier_process_is_not_told_again(book: Book, tmp_path: Path) -> None:
    """Goal: a restart is silent. Method: a run is quarantined; a new process puts it back as it was."""
    book.take(found_run(record(), problem=PROBLEM))
    book.ledger.close()
    again = Book(tmp_path)
    again.ledger.write(lambda db: endings.note_endings(db, synced=True))
    again.do(retry.retry_runs, None)
    again.take(found_run(record(), problem=PROBLEM), from_start=True)
    assert taken(again) == []
    again.ledger.close()


def test_lines_folders_and_notices_are_told_too(book: Book) -> None:
    """Goal: whatever needs somebody. Method: a damaged line, a folder without a line, one left out."""
    dataset_id = book.dataset()
    damaged = DamagedLine("digest", 3, "it is no JSON")
    book.do(intake.take_in, dataset_id, tail(damaged=[damaged]), [])
    book.do(notices.take_in_notices, "", [Notice("link", PROBLEM, quarantined=True)])
    book.do(notices.take_in_orphans, dataset_id, [Orphan(OTHER, young=False, problem=PROBLEM)])
    found = [(one.subject, one.state) for one in taken(book)]
    assert found == [(f"shop/shoes/{TRACKING_FILE}:3", "quarantined"), ("link", "quarantined")]
    # The cloud may know the folder.
    book.now = NOW + SETTLES_SECONDS
    assert [(one.subject, one.state) for one in taken(book)] == [(f"shop/shoes/{OTHER}", "incomplete")]


def test_what_is_not_synced_is_counted(book: Book) -> None:
    """Goal: a summary in few numbers. Method: a run that waits for a minute, and one to act on."""
    assert not book.ask(endings.anything_waits)
    book.take(found_run(record()), found_run(record(OTHER), name=OTHER, problem=PROBLEM))
    assert book.ask(endings.anything_waits)
    found = book.ask(endings.stand)
    assert (found.waiting, found.oldest_at, found.failing, found.to_act_on) == (1, NOW, 0, 1)
