"""The measurement of readings: that its ledgers hold what they say, and that it runs."""

from pathlib import Path

import pytest

from pixaris_sync.ledger.numbers import numbers
from tests.benchmarks.command_line import main
from tests.benchmarks.readings import IMAGES_PER_RUN, fill
from tests.support.ledgers import Book
from tests.support.slow_numbers import slow_numbers


def test_ledgers_hold_as_many_files_as_they_say(tmp_path: Path) -> None:
    """Goal: the measurement is of what it says. Method: three runs synced, two waiting, counted both ways."""
    book = Book(tmp_path)
    book.ledger.write(lambda db: fill(db, 3, synced=True))
    book.ledger.write(lambda db: fill(db, 2, synced=False, first=3))
    found = book.ask(numbers)
    assert (found.files["uploaded"], found.files["pending"]) == (3 * IMAGES_PER_RUN, 2 * IMAGES_PER_RUN)
    assert found == book.ask(slow_numbers)
    book.ledger.close()


def test_the_measurement_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: it works when it is needed. Method: a hundred files."""
    assert main(["readings", "--files", "100", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("numbers alone") == 2
