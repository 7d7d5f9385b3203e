"""The questions that are asked all the time cost as much as their answer, however much is in the ledger."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.ledger import known, numbers, overview, pending_rows, progress, rows, totals, uploads
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DeliveryMethod
from tests.support.ledgers import ALL, NOW, TABLE, Book, file, found_run, record, remote

RUNS = 60
CLAIM = partial(uploads.claim, selection=ALL, count=8)
READY = partial(pending_rows.ready_rows, selection=ALL, table_id=TABLE, count=8)
LOOK = partial(pending_rows.rows_to_read_back, selection=ALL, table_id=TABLE, count=8)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A third of the runs synced, a third with rows ready, a third with open files."""
    book = Book(tmp_path)
    for number in range(RUNS):
        name = f"20240101-{number:06d}_x"
        files = [file(f"{n}.png", size=n) for n in range(5)]
        book.take(found_run(record(name, line=number), name=name, files=files))
        if number == RUNS // 3:
            book.upload_all()
            book.do(rows.confirm_rows, book.ready())
        elif number == 2 * RUNS // 3:
            book.upload_all()
            book.do(rows.accept_rows, book.ready(2))
    yield book
    book.ledger.close()


def plans(book: Book, operation: Callable[[sqlite3.Connection], object]) -> list[str]:
    """What SQLite does for each statement of an operation."""
    db, statements = book.ledger._connection, set[str]()
    db.set_trace_callback(statements.add)
    book.ledger.read(operation)
    db.set_trace_callback(None)
    known = [one for one in statements if re.match(r"\s*(SELECT|UPDATE|DELETE)", one)]
    return [row[3] for one in known for row in db.execute(f"EXPLAIN QUERY PLAN {one}").fetchall()]


def in_the_middle(transition: Callable[..., Any], *args: Any) -> Callable[[sqlite3.Connection], Any]:
    return lambda db: transition(db, NOW, *args)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda db: CLAIM(db, NOW), id="claim"),
        pytest.param(lambda db: uploads.next_upload_at(db, ALL), id="next_upload_at"),
        pytest.param(lambda db: READY(db, NOW), id="ready_rows"),
        pytest.param(lambda db: pending_rows.table_backlogs(db, NOW, ALL), id="backlogs"),
        pytest.param(lambda db: overview.backlog(db, ALL), id="backlog"),
        pytest.param(lambda db: overview.work_left(db, ALL), id="work_left"),
        pytest.param(known.unfinished_datasets, id="unfinished_datasets"),
        pytest.param(lambda db: uploads.recover_uploads(db, NOW), id="recover_uploads"),
        pytest.param(lambda db: rows.end_delivery(db, NOW, 1), id="end_delivery"),
        pytest.param(lambda db: pending_rows.delivered_by(db, 1), id="delivered_by"),
    ],
)
def test_no_question_scans_or_sorts_what_it_does_not_answer(
    book: Book, operation: Callable[[sqlite3.Connection], object]
) -> None:
    """Goal: proportional to the answer. Method: SQLite's plan scans small tables only, sorts nothing."""
    book.do(rows.start_delivery, TABLE, [], DeliveryMethod.STREAM, None)
    found = plans(book, operation)
    assert found
    assert [step for step in found if "TEMP B-TREE" in step] == []
    scans = [step for step in found if step.startswith("SCAN")]
    assert [step for step in scans if not re.match(r"SCAN (d|datasets|notices|deliveries)\b", step)] == []


@pytest.mark.parametrize(
    "selection",
    [
        pytest.param(Selection(projects=("sh*",), datasets=("shoes",)), id="datasets"),
        pytest.param(Selection(runs=("20240101-00004*",)), id="beginning"),
        pytest.param(Selection(runs=("*_x", "shop/shoes/*5_x")), id="patterns"),
        pytest.param(Selection(exclude=("*7_x", "shop/hats")), id="exclude"),
    ],
)
def test_a_selection_is_found_by_the_same_indexes(book: Book, selection: Selection) -> None:
    """Goal: a part costs no more than all. Method: the plans of claims and rows; what is claimed matches."""
    claim = partial(uploads.claim, selection=selection, count=8)
    questions = (
        lambda db: claim(db, NOW),
        lambda db: uploads.next_upload_at(db, selection),
        lambda db: pending_rows.ready_rows(db, NOW, selection, TABLE, 8),
        lambda db: pending_rows.table_backlogs(db, NOW, selection),
    )
    for question in questions:
        found = plans(book, question)
        scans = [step for step in found if step.startswith("SCAN")]
        assert [step for step in scans if not re.match(r"SCAN (d|datasets|deliveries)\b", step)] == []
        assert [step for step in found if "TEMP B-TREE" in step] == []
    book.ledger.write(lambda db: uploads.recover_uploads(db, NOW))
    claimed = book.claim(selection=selection)
    assert claimed
    assert all(selection.takes(task.run) for task in claimed)


@pytest.mark.parametrize("question", [numbers.numbers, progress.dataset_progress, totals.totals])
def test_what_is_shown_all_the_time_comes_from_counters_and_indexes(
    book: Book, question: Callable[[sqlite3.Connection], object]
) -> None:
    """Goal: a look costs the same however many files there are. Method: no plan reads a file, run or row."""
    # The walk to the run that waits longest ends with it.
    small = r"SCAN (d|datasets|facts|totals|\(subquery-\d+\)|c USING INDEX records_waiting)( |$)"
    found = [step for step in plans(book, question) if step.startswith("SCAN")]
    assert [step for step in found if "COVERING INDEX" not in step and not re.match(small, step)] == []
    assert not any("files" in step for step in found)


def test_the_last_runs_are_found_by_their_index(book: Book) -> None:
    """Goal: a dozen runs among a million. Method: the plan goes down one index, and sorts nothing."""
    found = plans(book, lambda db: progress.last_synced_runs(db, 3))
    assert [step for step in found if step.startswith("SCAN")] == ["SCAN c USING INDEX records_synced"]
    assert not any("TEMP B-TREE" in step for step in found)


def test_rows_to_look_for_are_found_by_their_index(book: Book) -> None:
    """Goal: what is synced costs nothing. Method: the plan searches records, and sorts only what is due."""
    found = plans(book, lambda db: LOOK(db, NOW))
    assert any("SEARCH records USING INDEX records_unsynced" in step for step in found)
    assert not any(step.startswith("SCAN") for step in found)


def test_what_waits_for_a_table_is_read_from_an_index_alone(book: Book) -> None:
    """Goal: what is synced costs nothing, and no record is read to put it in order. Method: SQLite's plan."""
    found = plans(book, lambda db: pending_rows.waiting_records(db, TABLE))
    assert any("SEARCH records USING COVERING INDEX records_in_order" in step for step in found), found
    assert not any(step.startswith("SCAN") for step in found)


def test_transitions_of_one_file_or_row_look_at_its_run_only(book: Book) -> None:
    """Goal: confirming costs the same at any size. Method: the plans of confirm and accept scan nothing."""
    [task] = book.claim(1)
    [row] = book.ready(1)
    receipt = uploads.Receipt(task, remote(task), was_there=True)
    confirm = partial(uploads.confirm_uploads, now=NOW, receipts=[receipt])
    for operation in (
        confirm,
        in_the_middle(rows.accept_rows, [row]),
        in_the_middle(rows.confirm_rows, [row]),
    ):
        found = plans(book, operation)
        assert any(step.startswith("SEARCH") for step in found)
        assert not any(re.match(r"SCAN (f|c|r|files|records|runs)\b", step) for step in found), found


def test_forgetting_a_delivery_does_not_look_through_the_records(book: Book) -> None:
    """Goal: the check of the foreign key is a search. Method: SQLite takes few steps, fewer than runs."""

    def steps(sql: str) -> int:
        db, counted = book.ledger._connection, 0

        def count() -> None:
            nonlocal counted
            counted += 1

        db.execute("BEGIN")
        db.execute("INSERT INTO deliveries (id, table_id, method, started_at) VALUES (999, 't', 'load', 0)")
        db.set_progress_handler(count, 1)
        db.execute(sql)
        db.set_progress_handler(None, 1)
        db.execute("ROLLBACK")
        return counted

    assert steps("DELETE FROM deliveries WHERE id = 999") < RUNS
