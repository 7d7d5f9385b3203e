"""What `status` tells, what a pass leaves, and how quarantined runs are taken up again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import (
    adoption,
    database,
    datasets,
    intake,
    known,
    notices,
    overview,
    pending_rows,
    retry,
    rows,
    uploads,
)
from pixaris_sync.ledger.intake import FoundRecord
from pixaris_sync.ledger.known import InspectedRun
from pixaris_sync.ledger.notices import Notice, Orphan
from pixaris_sync.ledger.selection import Selection, Work
from pixaris_sync.model import DamagedLine, DatasetKey, DeliveryMethod, FileState, Problem, RowState, RunState
from tests.support.ledgers import ALL, NOW, PROBLEM, RUN, TABLE, Book, file, found_run, inline, record, tail

OTHER = "20240102-000001_y"
NAME = "tracking.jsonl"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def look(book: Book) -> overview.Overview:
    return book.ask(overview.overview, NAME)


def release(book: Book, run_ids: list[int] | None = None) -> int:
    return book.do(retry.retry_runs, run_ids)


def quarantine_file(book: Book, name: str = RUN) -> None:
    book.take(found_run(record(name), name=name, files=[file()]))
    [task] = book.claim()
    book.do(uploads.quarantine_upload, task, PROBLEM)


def test_an_empty_ledger_has_every_state_at_zero(book: Book) -> None:
    """Goal: machines find every key. Method: look at nothing."""
    found = look(book)
    assert found.runs == {state.value: 0 for state in RunState}
    assert found.files == {state.value: 0 for state in FileState}
    assert found.rows == {state.value: 0 for state in RowState}
    assert (found.pending_bytes, found.oldest_pending_at, found.last_synced_at) == (0, None, None)
    assert (found.torn_lines, found.repeated_lines, found.problems) == (0, 0, ())


def test_counts_are_by_state(book: Book) -> None:
    """Goal: the sums are right. Method: one synced run, one with an open file, one damaged line."""
    book.take(found_run(record(), files=[file(size=3)]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    book.take(found_run(record(OTHER), name=OTHER, files=[file(size=5), file("b.png", size=6)]), torn_bytes=4)
    found = look(book)
    assert {state: count for state, count in found.runs.items() if count} == {"synced": 1, "pending": 1}
    assert {state: count for state, count in found.files.items() if count} == {"uploaded": 1, "pending": 2}
    assert {state: count for state, count in found.rows.items() if count} == {"synced": 1, "pending": 1}
    assert (found.pending_bytes, found.torn_lines, found.last_synced_at) == (11, 1, NOW)


def test_the_oldest_run_has_waited_since_it_was_found(book: Book) -> None:
    """Goal: an outage of days shows as days. Method: attempts that fail again and again."""
    book.take(found_run(record()))
    for minutes in range(1, 4):
        book.now = NOW + 60 * minutes
        book.do(rows.reschedule_rows, book.ready(), PROBLEM)
    book.take(found_run(record(OTHER), name=OTHER))
    assert look(book).oldest_pending_at == NOW
    book.do(rows.confirm_rows, [row for row in book.ready() if row.run.run == RUN])
    assert look(book).oldest_pending_at == book.now


def test_problems_are_named_with_cause_and_hint(book: Book) -> None:
    """Goal: somebody can act. Method: one of each kind of problem."""
    dataset_id = book.dataset()
    quarantine_file(book)
    line = DamagedLine("d", 7, "it is no JSON")
    book.do(intake.take_in, dataset_id, tail(damaged=[line]), [])
    book.do(
        notices.take_in_orphans, dataset_id, [Orphan(OTHER, young=False, problem=Problem("cut", "store it"))]
    )
    book.do(
        notices.take_in_notices,
        "",
        [Notice("link", PROBLEM, quarantined=True), Notice("x", PROBLEM, quarantined=False)],
    )
    found = {problem.run: (problem.state, problem.cause) for problem in look(book).problems}
    assert found == {
        f"shop/shoes/{RUN}": ("quarantined", PROBLEM.cause),
        f"shop/shoes/{NAME}:7": ("quarantined", "it is no JSON"),
        f"shop/shoes/{OTHER}": ("incomplete", "cut"),
        "link": ("quarantined", PROBLEM.cause),
        "x": ("notice", PROBLEM.cause),
    }
    assert look(book).pending_bytes == 0
    assert all(problem.hint and problem.since == NOW for problem in look(book).problems)
    assert look(book).runs["quarantined"] == 2
    assert book.ask(overview.work_left, ALL) == overview.WorkLeft(waiting=0, quarantined=4)


def test_lines_that_are_there_twice_are_told_of(book: Book) -> None:
    """Goal: nothing is left out in silence. Method: three equal lines; nobody must act on them."""
    book.take(found_run(record(line=1), record(line=2), record(line=3)))
    found = look(book)
    [notice] = found.problems
    assert (found.repeated_lines, notice.run, notice.state) == (2, f"shop/shoes/{NAME}", "notice")
    assert notice.cause == "2 lines repeat a record of this file, which is one row"
    assert book.ask(overview.work_left, ALL).quarantined == 0


def test_a_run_that_fails_is_named_with_what_failed_last(book: Book) -> None:
    """Goal: an outage is explained run by run. Method: two files fail one after another, then go on."""
    book.take(found_run(record(), files=[file("a.png"), file("b.png")]))
    first, second = book.claim()
    for minutes, task in enumerate((second, first), start=1):
        book.now = NOW + 60 * minutes
        problem = Problem(f"{task.path} failed", "wait")
        book.do(uploads.reschedule_upload, task, problem, next_attempt_at=book.now, in_doubt=False)
    [found] = look(book).problems
    assert (found.run, found.state) == (f"shop/shoes/{RUN}", "failing")
    assert (found.cause, found.hint, found.since) == (f"{first.path} failed", "wait", NOW + 60)
    assert look(book).waiting == ()
    assert book.ask(overview.work_left, ALL) == overview.WorkLeft(waiting=1, quarantined=0)
    book.upload_all()
    assert look(book).problems == ()


def test_what_a_pending_run_waits_for_is_told_at_every_step(book: Book) -> None:
    """Goal: no run without a reason. Method: carry one run through all steps; look after each."""

    def reason() -> str:
        [waiting] = look(book).waiting
        assert (waiting.runs, look(book).runs["pending"]) == (1, 1)
        return waiting.cause

    dataset_id = book.dataset(adopted=False)
    told = Problem("it is being stored", "")
    book.do(notices.take_in_orphans, dataset_id, [Orphan(RUN, young=True, problem=told)])
    assert reason() == told.cause
    book.take(found_run(record(), files=[file()]), dataset_id=dataset_id)
    assert "compared with the bucket" in reason()
    book.do(adoption.adopted, dataset_id)
    assert "waiting to be uploaded" in reason()
    [task] = book.claim()
    assert "being uploaded" in reason()
    book.do(uploads.recover_uploads)
    assert "which may hold files" in reason()
    [task] = book.claim()
    book.upload(task)
    assert "waiting to be sent" in reason()
    sent = book.ready()
    book.do(rows.start_delivery, TABLE, sent, DeliveryMethod.STREAM, None)
    assert "being sent" in reason()
    book.do(rows.recover_deliveries)
    assert "looked for in the table" in reason()
    book.do(rows.accept_rows, sent)
    assert "read back" in reason()
    book.do(rows.confirm_rows, sent)
    assert look(book).waiting == ()


def test_a_run_whose_folder_is_to_be_inspected_says_so(book: Book) -> None:
    """Goal: as above, after `retry`. Method: release a run whose row was refused; its files are there."""
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(rows.start_delivery, TABLE, book.ready(), DeliveryMethod.STREAM, None)
    book.do(rows.quarantine_rows, book.ask(pending_rows.delivered_by, 1)[2], PROBLEM)
    assert release(book) == 1
    [waiting] = look(book).waiting
    assert "inspected again" in waiting.cause


def test_runs_that_wait_for_the_same_are_counted_together(book: Book) -> None:
    """Goal: thousands in a line. Method: three runs in two steps; the larger group stands first."""
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    later = NOW + 60
    book.now = later
    for name in (OTHER, f"{OTHER}2"):
        book.take(found_run(record(name), name=name, files=[file()]))
    assert [(waiting.runs, waiting.since) for waiting in look(book).waiting] == [(2, later), (1, NOW)]


def test_what_is_left_is_what_was_selected(book: Book) -> None:
    """Goal: the exit code of `backfill --until` is about that. Method: a waiting run and a young folder."""
    book.take(found_run(record(), files=[file()]))
    book.do(notices.take_in_orphans, book.dataset(), [Orphan(OTHER, young=True, problem=PROBLEM)])
    book.select("UPDATE datasets SET torn_bytes = 7")
    assert book.ask(overview.work_left, ALL) == overview.WorkLeft(waiting=1, quarantined=0, unfinished=2)
    nothing = overview.WorkLeft(waiting=0, quarantined=0)
    assert book.ask(overview.work_left, Selection(projects=("other",))) == nothing
    assert book.ask(overview.work_left, Selection(until=RUN)).waiting == 0


def test_the_backlog_is_what_is_still_to_be_carried(book: Book) -> None:
    """Goal: progress is honest. Method: claimed, open, refused and done files and rows, then selections."""
    book.take(found_run(record(), files=[file("a", size=1), file("b", size=2), file("c", size=4)]))
    first, second = book.claim(2)
    book.do(uploads.quarantine_upload, first, PROBLEM)
    assert second.version.size == 2
    # Its row goes nowhere before somebody acts.
    assert book.ask(overview.backlog, ALL) == overview.Backlog(files=2, bytes=6, rows=0)
    release(book)
    assert book.ask(overview.backlog, ALL) == overview.Backlog(files=3, bytes=7, rows=1)
    assert book.ask(overview.backlog, Selection(datasets=("shoes",), since=RUN)).files == 3
    assert book.ask(overview.backlog, Selection(until=RUN)) == overview.Backlog(files=0, bytes=0, rows=0)
    book.do(rows.quarantine_rows, book_rows(book), PROBLEM)
    assert book.ask(overview.backlog, ALL).rows == 0


def book_rows(book: Book) -> list[pending_rows.PendingRow]:
    """Rows whether ready or not."""
    book.select("UPDATE records SET ready = 1")
    return book.ready()


def test_a_released_file_is_sent_again_and_expects_no_stranger(book: Book) -> None:
    """Goal: what was in the way may be gone. Method: quarantine a file over a strange object, release."""
    book.take(found_run(record(), files=[file()]))
    book.select("UPDATE files SET generation = 9, crc32c = 1")
    [task] = book.claim()
    book.do(uploads.quarantine_upload, task, PROBLEM)
    assert release(book) == 1
    assert book.run_state() == ("pending", None)
    [task] = book.claim()
    assert (task.generation, task.crc32c, task.attempts) == (0, None, 0)


def test_a_released_file_keeps_our_own_object(book: Book) -> None:
    """Goal: a newer version still replaces the older one. Method: quarantine the second version, release."""
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[file(size=11)])])
    [task] = book.claim(later_seconds=1)
    book.do(uploads.quarantine_upload, task, PROBLEM)
    release(book)
    [task] = book.claim()
    assert (task.generation, task.ours) == (1, True)


@pytest.mark.parametrize(("taken", "state"), [(False, "unasked"), (True, "accepted")])
def test_a_released_row_is_looked_for_when_the_table_may_hold_it(
    book: Book, *, taken: bool, state: str
) -> None:
    """Goal: `retry` makes no second row. Method: give up a row that was, or was not, accepted before."""
    book.take(found_run(record()))
    [row] = book.ready()
    if taken:
        book.do(rows.accept_rows, [row])
    book.do(rows.quarantine_rows, [row], PROBLEM)
    assert book.run_state() == ("quarantined", PROBLEM.cause)
    assert release(book) == 1
    assert (book.run_state(), book.states("records")) == (("pending", None), [state])


def test_a_released_run_sends_no_row_before_its_folder_was_inspected(book: Book) -> None:
    """Goal: files before row. Method: release a run whose folder was in trouble, then inspect it."""
    book.take(found_run(record(), files=[file()], problem=PROBLEM))
    assert release(book) == 1
    assert book.run_state() == ("pending", None)
    assert book.ask(known.inspected_runs, book.dataset(), synced_too=True) == [
        InspectedRun(RUN, None, troubled=False)
    ]
    book.do(datasets.refuse_dataset, book.dataset(), PROBLEM)
    book.do(datasets.refuse_dataset, book.dataset(), None)
    assert book.ready() == []
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[file()])])
    book.upload_all()
    assert len(book.ready()) == 1


def test_a_run_without_any_folder_is_quarantined_again_after_its_release(book: Book) -> None:
    """Goal: no run waits for ever without a cause. Method: release, inspect what is still not there."""
    missing = found_run(record(), problem=PROBLEM, signature="")
    book.take(missing)
    release(book)
    [run] = book.ask(known.inspected_runs, book.dataset(), synced_too=True)
    assert run.signature is None
    book.do(intake.take_in_runs, book.dataset(), [found_run(problem=PROBLEM, signature="")])
    assert book.run_state() == ("quarantined", PROBLEM.cause)


def test_a_release_does_not_lift_what_a_dataset_is_refused_for(book: Book) -> None:
    """Goal: one true state. Method: release a run of a refused dataset."""
    book.take(found_run(record(), files=[file()]))
    book.do(datasets.refuse_dataset, book.dataset(), PROBLEM)
    release(book)
    assert book.run_state() == ("quarantined", PROBLEM.cause)


def test_a_record_refused_at_intake_is_judged_anew(book: Book) -> None:
    """Goal: `retry` sends no row whose link shows another's dict. Method: release a clash, read again."""
    first = FoundRecord(record(line=1), (inline("score.json", b"{}"),))
    second = FoundRecord(record(line=2, note="b"), (inline("score.json", b"[]"),))
    book.take(found_run(first, second))
    book.upload_all()
    assert release(book) == 1
    assert [values.line for values in book.ready()] == []
    assert book.do(datasets.open_dataset, DatasetKey("shop", "shoes"), TABLE).position is None
    book.take(found_run(first, second), from_start=True)
    assert book.run_state()[0] == "quarantined"
    assert [row.line for row in book.ready()] == [1]


def test_a_run_whose_only_record_is_to_be_judged_anew_is_not_called_synced(book: Book) -> None:
    """Goal: no false claim between `retry` and the next pass. Method: release; all other rows are synced."""
    clash = FoundRecord(record(line=2, note="b"), (inline("score.json", b"[]"),))
    book.take(found_run(FoundRecord(record(line=1), (inline("score.json", b"{}"),)), clash))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    release(book)
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[])])
    state, cause = book.run_state()
    assert state == "quarantined"
    assert "still to be read" in (cause or "")


def test_damaged_lines_are_read_again_when_everything_is_released(book: Book) -> None:
    """Goal: a mended tracking file is noticed. Method: release all; the position is forgotten."""
    dataset_id = book.dataset()
    book.do(intake.take_in, dataset_id, tail(damaged=[DamagedLine("d", 1, "x")]), [])
    assert release(book) == 1
    assert book.do(datasets.open_dataset, DatasetKey("shop", "shoes"), TABLE).position is None


def test_only_named_runs_are_released(book: Book) -> None:
    """Goal: `retry NAME` is about that. Method: two quarantined runs, one named in each way, one unknown."""
    quarantine_file(book)
    quarantine_file(book, OTHER)
    by_path = book.ask(retry.find_runs, f"shop/shoes/{RUN}")
    assert by_path == book.ask(retry.find_runs, RUN)
    assert book.ask(retry.find_runs, "nothing") == []
    assert release(book, by_path) == 1
    assert (book.run_state()[0], book.run_state(OTHER)[0]) == ("pending", "quarantined")


def test_releasing_what_is_synced_changes_nothing(book: Book) -> None:
    """Goal: `retry` of a good run is harmless. Method: release it by name."""
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    assert release(book, book.ask(retry.find_runs, RUN)) == 0
    assert book.run_state() == ("synced", None)
    assert (book.claim(), book.ready()) == ([], [])


def test_facts_and_datasets_are_remembered(book: Book) -> None:
    """Goal: small things persist. Method: write one down twice; list datasets."""

    def note(db: object, _now: float, value: str) -> None:
        database.set_fact(db, "name", value)  # type: ignore[arg-type]

    book.do(note, "a")
    book.do(note, "b")
    assert book.ask(database.get_fact, "name") == "b"
    assert book.ask(database.get_fact, "other") is None
    book.dataset()
    assert book.ask(known.known_datasets) == [DatasetKey("shop", "shoes")]


def test_a_row_that_nobody_sent_is_in_quarantine_with_its_run(book: Book) -> None:
    """Goal: "in doubt" only of what may be there. Method: a run in quarantine, its row unsent, then sent."""
    book.take(found_run(record(), just_written=False, files=[file()]))
    [row] = book.ask(pending_rows.rows_to_ask_for, ALL, TABLE, 10)
    book.do(adoption.adopted, book.dataset(), listed=False)
    book.do(rows.permit_rows, [row], doubt_until=NOW)
    assert look(book).rows["in_doubt"] == 1
    [task] = book.claim()
    book.do(uploads.quarantine_upload, task, PROBLEM)
    found = {state: count for state, count in look(book).rows.items() if count}
    assert found == {"quarantined": 1}
    assert book.ask(overview.backlog, ALL) == overview.Backlog(files=0, bytes=0, rows=0)
    book.select("UPDATE records SET sends = 1")
    assert look(book).rows["in_doubt"] == 1


def test_what_is_under_way_is_in_doubt_where_nobody_is_at_work(book: Book) -> None:
    """Goal: after a kill nothing is "being uploaded". Method: a claimed file, a row being sent."""

    def told() -> tuple[str, int, int]:
        found = book.ask(overview.overview, NAME, at_work=None)
        assert (found.files["uploading"], found.rows["sending"]) == (0, 0)
        [waiting] = found.waiting
        return waiting.cause, found.files["in_doubt"], found.rows["in_doubt"]

    book.take(found_run(record(), files=[file()]))
    [task] = book.claim()
    looked_up = "being looked up in the bucket, which may hold files already"
    assert told() == (looked_up, 1, 0)
    book.upload(task)
    book.do(rows.start_delivery, TABLE, book.ready(), DeliveryMethod.STREAM, None)
    looked_for = "being looked for in the table, which may hold the row already"
    assert told() == (looked_for, 0, 1)
    assert look(book).rows["sending"] == 1


def test_downloaded_folders_are_counted_and_stay_so_while_they_look_the_same(book: Book) -> None:
    """Goal: one notice a dataset, remembered. Method: two of them; one changes; ask again; `retry` one."""
    dataset_id = book.dataset()
    cut = Problem("cut", "store it")

    def take(*signatures: str, again: bool = False) -> list[str]:
        orphans = [
            Orphan(f"2024010{at}-000001_x", young=False, problem=cut, signature=signature)
            for at, signature in enumerate(signatures, start=1)
        ]
        return book.do(notices.take_in_orphans, dataset_id, orphans, again=again)

    names = take("a", "b")
    book.do(notices.note_answers, dataset_id, dict(zip(names, ("a", "b"), strict=True)), {})
    [notice] = look(book).problems
    assert (notice.run, notice.state) == ("shop/shoes", "notice")
    assert notice.cause.startswith("2 run folders are copies of")
    assert look(book).runs["downloaded"] == 2
    assert book.ask(overview.work_left, ALL) == overview.WorkLeft(waiting=0, quarantined=0)
    assert take("a", "b") == []
    assert take("a", "other") == [names[1]]
    assert take("a", "other", again=True) == names
    book.do(notices.note_answers, dataset_id, {names[0]: "a"}, {names[1]: Problem("it lacks one", "look")})
    assert [problem.cause for problem in look(book).problems if problem.run.endswith(names[1])] == [
        "it lacks one"
    ]
    release(book, book.ask(retry.find_runs, names[0]))
    assert names[0] in take("a", "other")


def test_what_the_process_at_work_does_not_carry_is_told(book: Book) -> None:
    """Goal: nobody waits for what nobody carries. Method: processes that select a part, all, and nobody.

    A run of each kind: selected, too old, without a time in its name, of another dataset, and failing ones
    that were tried often enough or are not selected.
    """
    at_work = "`pixaris-sync backfill --dataset shoes --since 2024-01-02 --until 2024-03-01`"
    left_out = f"left out by {at_work}, which is at work: run `pixaris-sync sync` afterwards"
    given_up = "tried often enough by the process that is at work: the next one tries again"
    turn = "waiting to be sent to the table"
    for name in (RUN, OTHER, "undated", "20240103-000001_old", "20240101-000009_old"):
        book.take(found_run(record(name), name=name))
    boots = book.dataset(DatasetKey("shop", "boots"))
    book.take(found_run(record(OTHER, digest="boots"), name=OTHER), dataset_id=boots)
    failing = [row for row in book.ready() if row.run.run.endswith("_old")]
    for _ in range(3):
        book.do(rows.reschedule_rows, failing, PROBLEM)

    def told(at_work: Work | None) -> tuple[dict[str, int], dict[str, str]]:
        found = book.ask(overview.overview, NAME, at_work=at_work)
        hints = {one.run.rpartition("/")[2]: one.hint for one in found.problems}
        return {one.cause: one.runs for one in found.waiting}, hints

    part = Selection(datasets=("shoes",), since="20240102-000000", until="20240301-000000", attempts_limit=3)
    waiting, hints = told(Work("backfill", part))
    assert waiting == {turn: 1, left_out: 2, f"without a time in the name, and so {left_out}": 1}
    assert hints == {
        "20240103-000001_old": f"{PROBLEM.hint}; {given_up}",
        "20240101-000009_old": f"{PROBLEM.hint}; {left_out}",
    }
    for everything in (Work("watch"), None):
        waiting, hints = told(everything)
        assert waiting == {turn: 4}
        assert set(hints.values()) == {PROBLEM.hint}
    _, hints = told(Work("sync", Selection(attempts_limit=4)))
    assert set(hints.values()) == {PROBLEM.hint}


def test_tracking_files_whose_last_line_is_torn_are_named(book: Book) -> None:
    """Goal: one finds the file. Method: one dataset of two."""
    book.take(found_run(record()), torn_bytes=4)
    book.take(found_run(record(digest="boots")), dataset_id=book.dataset(DatasetKey("shop", "boots")))
    found = look(book)
    assert (found.torn_files, found.torn_lines) == ((f"shop/shoes/{NAME}",), 1)
