"""Rows on their way: sent with the intent written down, read back before they count, found after a crash."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import pending_rows, rows
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DamagedLine, DatasetKey, DeliveryMethod, RowState
from tests.support.ledgers import ALL, NOW, PROBLEM, RUN, TABLE, Book, file, found_run, record, values_of

DAY = pending_rows.DAY_SECONDS


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def name(number: int) -> str:
    return f"20240101-{number:06d}_x"


def take(book: Book, count: int = 1) -> list[pending_rows.PendingRow]:
    """Runs whose files are in the bucket."""
    runs = [found_run(record(name(n), line=n), name=name(n), files=[file()]) for n in range(1, count + 1)]
    book.take(*runs)
    book.upload_all()
    return book.ready()


def send(
    book: Book, found: list[pending_rows.PendingRow], method: DeliveryMethod = DeliveryMethod.STREAM
) -> int:
    job_id = "job" if method is DeliveryMethod.LOAD else None
    return book.do(rows.start_delivery, TABLE, found, method, job_id)


def due(book: Book, count: int = 100) -> list[pending_rows.PendingRow]:
    return book.do(pending_rows.rows_to_read_back, ALL, TABLE, count)


def test_a_row_knows_its_record(book: Book) -> None:
    """Goal: what is sent is the record. Method: take one in and ask for it."""
    book.take(found_run(record(line=4, digest="d", seed=1)))
    [row] = book.ready()
    assert (row.run.run, row.digest, row.ordinal, row.line, row.attempts, row.sends) == (RUN, "d", 0, 4, 0, 0)
    assert values_of(row) == {"experiment_run_name": RUN, "seed": 1}


def test_newest_runs_go_first_up_to_a_limit(book: Book) -> None:
    """Goal: what was just stored shows first. Method: three runs, two wanted."""
    take(book, 3)
    assert [row.run.run for row in book.ready(2)] == [name(3), name(2)]
    assert book.ready(table="another") == []


def test_datasets_that_share_a_table_share_its_order(book: Book) -> None:
    """Goal: a collision of names loses nobody. Method: `a_b`+`c` and `a`+`b_c`, newest in each in turn."""
    table = "a_b_c_experiment_results"
    for number, key in enumerate([DatasetKey("a_b", "c"), DatasetKey("a", "b_c")] * 2, 1):
        book.take(found_run(record(name(number)), name=name(number)), dataset_id=book.dataset(key))
    found = book.ready(3, table=table)
    assert [(row.run.project, row.run.run) for row in found] == [
        ("a", name(4)),
        ("a_b", name(3)),
        ("a", name(2)),
    ]
    [backlog] = book.table_backlogs()
    assert (backlog.table_id, backlog.ready) == (table, 4)


def test_the_intent_is_in_the_ledger_before_anything_is_sent(book: Book) -> None:
    """Goal: nothing is sent twice by chance. Method: start a delivery; nothing of it is ready any more."""
    found = take(book, 2)
    delivery = send(book, found)
    assert (book.states("records"), book.ready()) == (["sending", "sending"], [])
    method, job_id, sent = book.ask(pending_rows.delivered_by, delivery)
    assert (method, job_id, [row.sends for row in sent]) == (DeliveryMethod.STREAM, None, [1, 1])
    assert {row.id for row in sent} == {row.id for row in found}


def test_accepted_is_not_synced_until_it_was_read_back(book: Book) -> None:
    """Goal: a row counts when it was seen. Method: accept, look, confirm."""
    found = take(book)
    send(book, found)
    book.do(rows.accept_rows, found)
    assert book.run_state(name(1)) == ("pending", None)
    [row] = due(book)
    assert row.state is RowState.ACCEPTED
    book.do(rows.confirm_rows, [row])
    assert book.run_state(name(1)) == ("synced", None)
    kept = book.one("SELECT payload, delivery_id, state FROM records")
    assert kept == {"payload": None, "delivery_id": None, "state": "synced"}
    assert book.table_backlogs() == []


def test_a_run_is_synced_when_all_its_rows_are(book: Book) -> None:
    """Goal: two records of one run are two rows. Method: confirm one after the other."""
    book.take(found_run(record(line=1), record(line=2, note=2)))
    first, second = book.ready()
    book.do(rows.confirm_rows, [first])
    assert book.run_state() == ("pending", None)
    known = book.ask(pending_rows.rows_of_runs, TABLE, [second.run.run])[second.run.run]
    assert known == pending_rows.RowsOfRun([], {second.run.dataset_key: 1})
    book.do(rows.confirm_rows, [second])
    assert book.run_state() == ("synced", None)


def test_a_row_in_doubt_is_looked_for_and_not_sent(book: Book) -> None:
    """Goal: a lost answer is no second row. Method: doubt, then look too early and in time."""
    found = take(book)
    send(book, found)
    book.do(rows.mark_in_doubt, found, PROBLEM, next_attempt_at=NOW + 5)
    assert book.run_state(name(1)) == ("failing", PROBLEM.cause)
    assert (book.ready(), due(book)) == ([], [])
    book.now = NOW + 5
    [row] = due(book)
    assert (row.state, row.attempts, row.since) == (RowState.IN_DOUBT, 1, NOW)

    assert row.looked_at is None
    book.do(rows.read_back_later, [row], next_attempt_at=NOW + 10)
    assert due(book) == []
    book.now += 5
    assert (due(book)[0].since, due(book)[0].looked_at) == (NOW, NOW + 5)


def test_a_row_whose_fate_cannot_be_asked_says_why_until_it_is_known(book: Book) -> None:
    """Goal: `status` names the trouble, the row stays where it is. Method: trouble, then the answer."""
    found = take(book)
    send(book, found)
    book.do(rows.accept_rows, found)
    book.do(rows.note_trouble, found, PROBLEM)
    assert (book.states("records"), book.run_state(name(1))) == (["accepted"], ("failing", PROBLEM.cause))
    book.do(rows.confirm_rows, due(book))
    assert book.run_state(name(1)) == ("synced", None)


def test_a_row_that_was_not_taken_is_sent_again_later(book: Book) -> None:
    """Goal: backoff is in the ledger. Method: put off with a problem, by load job from now on."""
    found = take(book)
    send(book, found)
    book.do(rows.reschedule_rows, found, PROBLEM, next_attempt_at=NOW + 60, by_load=True)
    assert book.run_state(name(1)) == ("failing", PROBLEM.cause)
    [backlog] = book.table_backlogs()
    assert (backlog.ready, backlog.by_load, backlog.next_at) == (0, False, NOW + 60)
    book.now = NOW + 60
    [backlog] = book.table_backlogs()
    assert (backlog.ready, backlog.by_load, backlog.next_at) == (1, True, None)
    [row] = book.ready()
    assert (row.attempts, row.sends) == (1, 1)


def test_a_row_that_was_only_stopped_by_its_neighbour_has_not_failed(book: Book) -> None:
    """Goal: no blame. Method: put off without a problem."""
    found = take(book)
    send(book, found)
    book.do(rows.reschedule_rows, found)
    assert book.run_state(name(1)) == ("pending", None)
    assert book.ready()[0].attempts == 0


def test_a_refused_batch_is_halved_without_using_up_attempts(book: Book) -> None:
    """Goal: one bad row holds up no others. Method: refuse every batch with row 3 in it until it is alone."""
    take(book, 8)
    limited = Selection(attempts_limit=2)
    sizes = []
    while batch := book.ready(selection=limited):
        sizes.append(len(batch))
        send(book, batch)
        if name(3) not in [row.run.run for row in batch]:
            book.do(rows.confirm_rows, batch)
        elif len(batch) > 1:
            book.do(rows.reschedule_rows, batch, PROBLEM, batch_limit=len(batch) // 2)
        else:
            book.do(rows.quarantine_rows, batch, PROBLEM)
    assert sizes[0] == 8
    states = {row["name"]: row["state"] for row in book.select("SELECT name, state FROM runs")}
    assert states == {name(n): "quarantined" if n == 3 else "synced" for n in range(1, 9)}


def test_a_quarantined_row_waits_for_somebody(book: Book) -> None:
    """Goal: nothing is retried without hope. Method: give up; nothing is ready or due for ever."""
    found = take(book)
    send(book, found)
    book.do(rows.quarantine_rows, found, PROBLEM)
    book.now += 365 * DAY
    assert book.run_state(name(1)) == ("quarantined", PROBLEM.cause)
    assert (book.ready(), due(book), book.table_backlogs()) == ([], [], [])


def test_a_crash_puts_streamed_rows_in_doubt_and_keeps_load_jobs(book: Book) -> None:
    """Goal: exactly once across crashes. Method: one delivery of each kind, then recovery."""
    streamed, loaded = take(book, 2)
    send(book, [streamed])
    delivery = send(book, [loaded], DeliveryMethod.LOAD)
    assert book.do(rows.recover_deliveries) == 1
    assert [row.id for row in due(book)] == [streamed.id]
    [backlog] = book.table_backlogs()
    assert backlog.unfinished_load == delivery
    method, job_id, sent = book.ask(pending_rows.delivered_by, delivery)
    assert (method, job_id, [row.id for row in sent]) == (DeliveryMethod.LOAD, "job", [loaded.id])


def test_a_restart_tries_at_once_what_was_put_off(book: Book) -> None:
    """Goal: whoever starts the program wants it tried. Method: put off for a day, restart."""
    found = take(book)
    book.do(rows.reschedule_rows, found, PROBLEM, next_attempt_at=NOW + DAY)
    book.do(rows.recover_deliveries)
    assert book.ready() == []
    [row] = book.ask(pending_rows.rows_to_ask_for, ALL, TABLE, 8)
    assert (row.state, row.attempts) == (RowState.UNASKED, 0)


def test_a_table_stands_as_its_rows_do(book: Book) -> None:
    """Goal: the planner sees everything. Method: rows in each state, load jobs of today and before."""
    found = take(book, 6)
    book.do(rows.accept_rows, [found[0]])
    book.do(rows.mark_in_doubt, [found[1]], PROBLEM, next_attempt_at=NOW + 9)
    book.do(rows.reschedule_rows, [found[2]], by_load=True)
    for started_at in (NOW - DAY - 1, NOW - DAY + 1, NOW):
        book.now = started_at
        delivery = send(book, [], DeliveryMethod.LOAD)
        book.do(rows.end_delivery, delivery)
    send(book, [])
    book.now = NOW
    book.do(rows.table_changed, TABLE)
    [backlog] = book.table_backlogs()
    assert (backlog.ready, backlog.by_load, backlog.to_read_back, backlog.next_at) == (4, True, 1, NOW + 9)
    assert (backlog.unfinished_load, backlog.changed_at, backlog.loads_today) == (None, NOW, 2)


def test_rows_of_open_or_other_runs_do_not_stand(book: Book) -> None:
    """Goal: nothing is planned that may not be sent. Method: a run whose file is open; then a selection."""
    take(book)
    book.take(found_run(record(name(2)), name=name(2), files=[file()]))
    [backlog] = book.table_backlogs()
    assert backlog.ready == 1
    assert book.table_backlogs(Selection(projects=("other",))) == []
    assert book.table_backlogs(Selection(until=name(1))) == []


def test_rows_that_have_failed_too_often_stand_for_a_later_pass(book: Book) -> None:
    """Goal: `sync` ends, and still looks for what is in doubt. Method: a limit of one failure."""
    first, second = take(book, 2)
    book.do(rows.reschedule_rows, [first], PROBLEM)
    book.do(rows.mark_in_doubt, [second], PROBLEM, next_attempt_at=NOW)
    [backlog] = book.table_backlogs(Selection(attempts_limit=1))
    assert (backlog.ready, backlog.to_read_back) == (0, 1)


def test_deliveries_of_long_ago_are_forgotten_unless_open(book: Book) -> None:
    """Goal: the ledger does not grow for ever. Method: end one today, when old ones are there."""
    [row] = take(book)
    old, opened = send(book, []), send(book, [row], DeliveryMethod.LOAD)
    book.do(rows.end_delivery, old)
    book.now = NOW + 3 * DAY
    fresh = send(book, [])
    book.do(rows.end_delivery, fresh)
    assert [found["id"] for found in book.select("SELECT id FROM deliveries")] == [opened, fresh]


def test_all_that_waits_for_a_table_is_told_in_commit_order(book: Book) -> None:
    """Goal: types of new columns are chosen by all of it.

    Method: runs by name against the order of their lines; one synced, one quarantined, one without its files,
    and one damaged line are among them.
    """
    lines = {name(4): 1, name(3): 2, name(2): 3, name(1): 4}
    book.take(*(found_run(record(run, line=line), name=run, files=[file()]) for run, line in lines.items()))
    book.upload_all()
    by_run = {row.run.run: row for row in book.ready()}
    book.do(rows.confirm_rows, [by_run[name(3)]])
    book.do(rows.quarantine_rows, [by_run[name(2)]], PROBLEM)
    late = found_run(record(name(0), line=5), name=name(0), files=[file("late.png")])
    book.take(late, damaged=[DamagedLine("d", 6, "it is cut")])

    ids = book.ask(pending_rows.waiting_records, TABLE)
    found = book.ask(pending_rows.records_of, ids)

    assert [row.run.run for row in found] == [name(4), name(1), name(0)]
    book.do(rows.confirm_rows, [by_run[name(4)]])
    again = book.ask(pending_rows.records_of, ids)
    assert [row.run.run for row in again] == [name(1), name(0)]
    assert not book.ask(pending_rows.waiting_records, "another")
