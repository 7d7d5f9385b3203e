"""One reading of everything, made again only where something has changed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger import rows
from pixaris_sync.ledger.selection import Work
from pixaris_sync.monitoring.view import Reader
from pixaris_sync.settings.model import Settings
from tests.support.ledgers import RUN, Book, file, found_run, record


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


@pytest.fixture
def reader(book: Book, tmp_path: Path) -> Iterator[Reader]:
    settings = Settings(
        gcp_project_id="p",
        gcp_bq_experiment_dataset="p.d",
        gcp_pixaris_bucket_name="b",
        local_results_folder=tmp_path,
    )
    reader = Reader(settings, book.ledger.path, Work)
    yield reader
    reader.close()


def test_a_view_shows_what_the_ledger_knows(book: Book, reader: Reader) -> None:
    """Goal: everything from one reading. Method: one synced run."""
    book.take(found_run(record(), files=[file(size=10)]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    view = reader.read()
    assert view.overview.runs["synced"] == 1
    assert [one.runs["synced"] for one in view.datasets] == [1]
    assert [one.run.run for one in view.last_runs] == [RUN]
    assert (view.totals.files_sent, view.totals.bytes_sent) == (1, 10)
    assert view.ledger_bytes >= book.ledger.path.stat().st_size


def test_nothing_is_read_again_until_something_changes(book: Book, reader: Reader) -> None:
    """Goal: a look at what is at rest costs nothing. Method: the same object, until a run is taken in."""
    first = reader.read()
    assert reader.read() is first
    book.take(found_run(record(), files=[file()]))
    second = reader.read()
    assert second is not first
    assert second.overview.runs["pending"] == 1


def test_a_ledger_that_takes_the_place_of_another_is_read(book: Book, reader: Reader, tmp_path: Path) -> None:
    """Goal: no view of what was set aside. Method: replace the file as a rescue does; then take it away."""
    book.take(found_run(record(), files=[file()]))
    assert reader.read().overview.runs["pending"] == 1
    path = book.ledger.path
    book.ledger.close()
    for one in path.parent.glob(f"{path.name}*"):
        one.rename(one.with_name(f"aside-{one.name}"))
    with pytest.raises(LedgerError):
        reader.read()
    with closing(Book(tmp_path).ledger):
        assert reader.read().overview.runs["pending"] == 0
