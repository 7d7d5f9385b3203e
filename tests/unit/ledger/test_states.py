"""The tables of transitions are what the ledger does: every row happens, and nothing else."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from pixaris_sync.ledger import adoption, forgetting, intake, packs, pending_rows, retry, rows, uploads
from pixaris_sync.ledger.intake import FoundRecord
from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.ledger.states import FILE_TRANSITIONS, ROW_TRANSITIONS
from pixaris_sync.ledger.uploads import Receipt, UploadTask
from pixaris_sync.model import DamagedLine, DeliveryMethod, FileState, RemoteObject, RowState, RunKey
from pixaris_sync.rules.shards import mark_of
from tests.support.ledgers import (
    ALL,
    NOW,
    PROBLEM,
    RUN,
    TABLE,
    Book,
    file,
    found_run,
    inline,
    record,
    remote,
    tail,
)

Edge = tuple[str | None, str, str | None]
Event = Callable[[Book, UploadTask], object]
RowEvent = Callable[[Book, list[PendingRow]], object]
CHANGED = found_run(files=[file(size=11)])
SAME = found_run(files=[file()])
EMPTY = found_run()
METRIC = "score.json"


@contextmanager
def new_book() -> Iterator[Book]:
    book = Book(None)
    yield book
    book.ledger.close()


def look(book: Book, *, at: str = "files") -> str | None:
    states = book.states(at)
    return states[0] if states else None


# -- files -------------------------------------------------------------------------------------------------


def claimed(book: Book, *, in_doubt: bool = False, older: bool = False) -> UploadTask:
    book.take(found_run(record(), files=[file()]))
    [task] = book.claim()
    if older:
        book.upload(task)
        book.do(intake.take_in_runs, book.dataset(), [CHANGED])
        [task] = book.claim(later_seconds=1)
    if in_doubt:
        book.do(uploads.unclaim, task, in_doubt=True)
        [task] = book.claim(later_seconds=1)
    return task


def in_state(book: Book, state: FileState, *, in_doubt: bool, older: bool = False) -> UploadTask:
    """Bring a file into a state, by a way on which it was in doubt or not, an `older` version uploaded."""
    task = claimed(book, in_doubt=in_doubt, older=older)
    if state is FileState.UPLOADED:
        book.upload(task)
    elif state is FileState.QUARANTINED:
        book.do(uploads.quarantine_upload, task, PROBLEM)
    elif state in (FileState.PENDING, FileState.IN_DOUBT):
        book.do(uploads.unclaim, task, in_doubt=state is FileState.IN_DOUBT)
    assert look(book) == state
    return task


def changed_before(event: Event) -> Event:
    def both(book: Book, task: UploadTask) -> None:
        book.do(intake.take_in_runs, book.dataset(), [CHANGED])
        event(book, task)

    return both


def confirm(book: Book, task: UploadTask) -> None:
    book.do(uploads.confirm_uploads, [Receipt(task, remote(task), was_there=False)])


def reschedule(*, in_doubt: bool) -> Event:
    return lambda book, task: book.do(
        uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW, in_doubt=in_doubt
    )


def quarantine(book: Book, task: UploadTask) -> None:
    book.do(uploads.quarantine_upload, task, PROBLEM)


def unclaim(*, in_doubt: bool) -> Event:
    return lambda book, task: book.do(uploads.unclaim, task, in_doubt=in_doubt)


def adopt(book: Book, found: RemoteObject) -> None:
    book.do(adoption.adopt_objects, book.dataset(), {(RUN, file().path): found})


def carried_by_a_shard(task: UploadTask) -> RemoteObject:
    return replace(remote(task), size=task.version.size, metadata=mark_of(task.version))


def vanished(book: Book, task: UploadTask) -> None:
    del task
    book.do(intake.take_in_runs, book.dataset(), [EMPTY])


def give_up(book: Book, _: object) -> None:
    """The run is in trouble, and somebody deletes its folder and its line."""
    book.take(from_start=True)
    book.select("UPDATE runs SET state = 'quarantined'")
    dataset_id = book.dataset()
    book.ledger.write(lambda db: forgetting.forget_runs(db, dataset_id, [RUN]))


def edit_line(book: Book, _: object) -> None:
    """The run is in trouble, and somebody puts another line in the place of its own."""
    book.take(found_run(record(edited=True)), from_start=True)
    book.select("UPDATE runs SET state = 'quarantined'")
    book.do(forgetting.forget_edited, book.dataset())


#: What may happen to a file that is being uploaded, and to a file in any state.
UPLOAD_EVENTS: list[tuple[str, Event]] = [
    ("confirm_uploads", confirm),
    ("confirm_uploads", changed_before(confirm)),
    *(("reschedule_upload", reschedule(in_doubt=in_doubt)) for in_doubt in (False, True)),
    ("quarantine_upload", quarantine),
    ("quarantine_upload", changed_before(quarantine)),
    *(("unclaim", unclaim(in_doubt=in_doubt)) for in_doubt in (False, True)),
]
FILE_EVENTS: list[tuple[str, Event]] = [
    ("claim", lambda book, _: book.claim()),
    ("recover_uploads", lambda book, _: book.do(uploads.recover_uploads)),
    ("adopt_objects", lambda book, task: adopt(book, remote(task))),
    ("adopt_objects", lambda book, task: adopt(book, replace(remote(task), crc32c=None))),
    ("adopt_objects", lambda book, task: adopt(book, carried_by_a_shard(task))),
    ("take_in", lambda book, _: book.do(intake.take_in_runs, book.dataset(), [CHANGED])),
    ("take_in", lambda book, _: book.do(intake.take_in_runs, book.dataset(), [SAME])),
    ("take_in", vanished),
    ("retry_runs", lambda book, _: book.do(retry.retry_runs, None)),
    ("upload_again", lambda book, _: upload_again(book, file().path)),
    ("forget_runs", give_up),
    ("forget_edited", edit_line),
]


def upload_again(book: Book, path: str, *, accepted_before: float = NOW + 1) -> int:
    return book.do(retry.upload_again, [(record().run, path)], accepted_before=accepted_before)


def file_edges() -> Iterator[Edge]:
    """Every event on a file in every state, come to by either way."""
    with new_book() as book:
        claimed(book)
        yield None, "take_in", "pending"
    for state in FileState:
        events = FILE_EVENTS + (UPLOAD_EVENTS if state is FileState.UPLOADING else [])
        # What is pending was not in doubt before.
        for in_doubt in (False, state is not FileState.PENDING):
            for name, event in events:
                with new_book() as book:
                    task = in_state(book, state, in_doubt=in_doubt)
                    event(book, task)
                    yield state, name, look(book)
            yield from retried_edges(state, in_doubt=in_doubt)
            yield from retried_edges(state, in_doubt=in_doubt, older=True)
    with in_line() as book:
        upload_again(book, METRIC)
        yield "uploaded", "upload_again", look(book)
    with new_book() as book:
        task = claimed(book)
        book.do(uploads.confirm_uploads, [Receipt(task, None, was_there=False)])
        book.do(intake.take_in_runs, book.dataset(), [CHANGED])
        yield "uploaded", "take_in", look(book)


def retried_edges(state: FileState, *, in_doubt: bool, older: bool = False) -> Iterator[Edge]:
    """A file that somebody wanted tried again, came into a state, and is gone.

    `older`: an older version of it is uploaded.
    """
    ways: Mapping[FileState, Event] = {
        FileState.PENDING: lambda *_: None,
        FileState.IN_DOUBT: lambda *_: None,
        FileState.UPLOADING: lambda book, _: book.claim(),
        FileState.UPLOADED: lambda book, _: book.upload_all(),
        FileState.QUARANTINED: lambda book, _: quarantine(book, book.claim()[0]),
    }
    with new_book() as book:
        task = in_state(book, FileState.QUARANTINED, in_doubt=in_doubt, older=older)
        book.do(retry.retry_runs, None)
        ways[state](book, task)
        if look(book) == state:
            vanished(book, task)
            yield state, "take_in", look(book)


@contextmanager
def in_line(*, synced: bool = True) -> Iterator[Book]:
    """A run with a file that stood inline in its record, both of which arrived."""
    with new_book() as book:
        book.take(found_run(FoundRecord(record(), (inline(METRIC, b"{}"),))))
        book.upload_all()
        found = book.ready()
        book.do(rows.accept_rows, found)
        if synced:
            book.do(rows.confirm_rows, found)
        yield book


def test_files_change_as_the_table_says_and_not_otherwise() -> None:
    """Goal: the table is the truth. Method: all events on all states; what changed against the table."""
    seen = {edge for edge in file_edges() if edge[0] != edge[2]}
    assert seen == {(one.state, one.event, one.next_state) for one in FILE_TRANSITIONS}


# -- rows --------------------------------------------------------------------------------------------------


def sent(book: Book, method: DeliveryMethod = DeliveryMethod.STREAM) -> list[PendingRow]:
    book.take(found_run(record()))
    found = book.ready()
    book.do(rows.start_delivery, TABLE, found, method, "job")
    return found


def mark_in_doubt(book: Book, found: list[PendingRow]) -> None:
    book.do(rows.mark_in_doubt, found, PROBLEM, next_attempt_at=NOW)


def unasked(book: Book, *, taken: bool = False) -> list[PendingRow]:
    book.take(found_run(record(), just_written=False))
    book.select("UPDATE records SET taken = ?", taken)
    found: list[PendingRow] = book.ask(pending_rows.rows_to_ask_for, ALL, TABLE, 100)
    return found


def row_in_state(book: Book, state: RowState, *, taken: bool) -> list[PendingRow]:
    if state is RowState.UNASKED:
        return unasked(book, taken=taken)
    found = sent(book)
    if state is RowState.SENDING:
        return found
    ways: Mapping[RowState, Callable[[], object]] = {
        RowState.UNASKED: lambda: (book.do(rows.reschedule_rows, found), book.do(rows.recover_deliveries)),
        RowState.PENDING: lambda: book.do(rows.reschedule_rows, found),
        RowState.IN_DOUBT: lambda: mark_in_doubt(book, found),
        RowState.ACCEPTED: lambda: book.do(rows.accept_rows, found),
        RowState.SYNCED: lambda: (book.do(rows.accept_rows, found), book.do(rows.confirm_rows, found)),
        RowState.QUARANTINED: lambda: book.do(rows.quarantine_rows, found, PROBLEM),
    }
    if taken and state is RowState.QUARANTINED:
        # The service took it, or may have.
        book.do(rows.accept_rows, found)
    ways[state]()
    assert look(book, at="records") == state
    return found


def others_may_have_sent_it(book: Book, found: list[pending_rows.PendingRow]) -> None:
    """The table does not hold a row, but nothing in the bucket tells whether it was sent just now."""
    book.do(adoption.adopted, book.dataset(), listed=False)
    book.do(rows.permit_rows, found, doubt_until=NOW)


#: What may happen to rows that are being sent, to rows whose end is not known, and to a row in any state.
SENT_EVENTS: list[tuple[str, RowEvent]] = [
    ("accept_rows", lambda book, found: book.do(rows.accept_rows, found)),
    ("mark_in_doubt", mark_in_doubt),
]
OPEN_EVENTS: list[tuple[str, RowEvent]] = [
    ("reschedule_rows", lambda book, found: book.do(rows.reschedule_rows, found, PROBLEM)),
    ("quarantine_rows", lambda book, found: book.do(rows.quarantine_rows, found, PROBLEM)),
]
ASKED_EVENTS: list[tuple[str, RowEvent]] = [
    ("permit_rows", lambda book, found: book.do(rows.permit_rows, found, doubt_until=NOW)),
    ("permit_rows", others_may_have_sent_it),
    ("quarantine_rows", lambda book, found: book.do(rows.quarantine_rows, found, PROBLEM)),
]
READ_EVENTS: list[tuple[str, RowEvent]] = [
    ("confirm_rows", lambda book, found: book.do(rows.confirm_rows, found)),
]


def start(book: Book, found: list[PendingRow]) -> None:
    del found
    if ready := book.ready():
        book.do(rows.start_delivery, TABLE, ready, DeliveryMethod.STREAM, None)


def others_had_put_it_there(book: Book, found: list[PendingRow]) -> None:
    """A file of the run comes, and is in the bucket already; where the table is to be asked, it waits."""
    del found
    book.do(intake.take_in_runs, book.dataset(), [SAME])
    for task in book.claim():
        book.upload(task, was_there=True)


def misnamed(book: Book, *_: object) -> None:
    """The record is read again, and is another run's."""
    other = "20240101-000002_y"
    book.take(found_run(record(other, digest=record().digest), name=other), from_start=True)


ROW_EVENTS: list[tuple[str, RowEvent]] = [
    ("start_delivery", start),
    ("recover_deliveries", lambda book, _: book.do(rows.recover_deliveries)),
    ("confirm_uploads", others_had_put_it_there),
    ("adopted", lambda book, _: book.do(adoption.adopted, book.dataset())),
    ("retry_runs", lambda book, _: book.do(retry.retry_runs, None)),
    ("take_in", lambda book, _: book.take(found_run(record()), from_start=True)),
    ("take_in", misnamed),
    ("send_again", lambda book, _: send_again(book)),
    ("forget_runs", give_up),
    ("forget_edited", edit_line),
]


def send_again(book: Book, *, accepted_before: float = NOW + 1) -> int:
    of_record = (record().run, record().digest)
    return book.do(retry.send_again, [of_record], accepted_before=accepted_before)


EVENTS_OF_STATES: Mapping[RowState, list[tuple[str, RowEvent]]] = {
    RowState.UNASKED: READ_EVENTS + ASKED_EVENTS,
    RowState.PENDING: OPEN_EVENTS,
    RowState.SENDING: SENT_EVENTS + READ_EVENTS + OPEN_EVENTS,
    RowState.IN_DOUBT: READ_EVENTS + OPEN_EVENTS,
    RowState.ACCEPTED: READ_EVENTS + OPEN_EVENTS,
    RowState.SYNCED: [],
    RowState.QUARANTINED: READ_EVENTS,
}


def row_edges() -> Iterator[Edge]:
    """Every event on a row in every state; a load job that was cut off; lines that are refused or damaged."""
    for state, events in EVENTS_OF_STATES.items():
        for taken in (False, True):
            for name, event in events + ROW_EVENTS:
                with new_book() as book:
                    event(book, row_in_state(book, state, taken=taken))
                    yield state, name, look(book, at="records")
    with new_book() as book:
        sent(book, DeliveryMethod.LOAD)
        book.do(rows.recover_deliveries)
        yield "sending", "recover_deliveries", look(book, at="records")
    for just_written in (False, True):
        with new_book() as book:
            book.take(found_run(record(), just_written=just_written))
            yield None, "take_in", look(book, at="records")
    with new_book() as book:
        # The service may have taken it, and it was quarantined.
        found = sent(book)
        mark_in_doubt(book, found)
        book.do(rows.quarantine_rows, found, PROBLEM)
        book.do(retry.retry_runs, None)
        yield "quarantined", "retry_runs", look(book, at="records")
    for just_written in (False, True):
        with new_book() as book:
            book.take(found_run(record(), just_written=just_written))
            yield None, "take_in", look(book, at="records")
    for name, event in (("forget_runs", give_up), ("forget_edited", edit_line)):
        with new_book() as book:
            others_may_have_sent_it(book, unasked(book))
            event(book, None)
            yield "in_doubt", name, look(book, at="records")
    for in_doubt in (False, True):
        with new_book() as book:
            book.take(found_run(record()))
            if in_doubt:
                # Others may have sent it, under the name that it was taken for.
                book.do(adoption.adopted, book.dataset(), listed=False)
            before = look(book, at="records")
            misnamed(book)
            yield before, "take_in", look(book, at="records")
    yield from clash_edges()
    yield from damaged_edges()
    for synced in (False, True):
        with in_line(synced=synced) as book:
            upload_again(book, METRIC)
            yield "synced" if synced else "accepted", "upload_again", look(book, at="records")


def clash_edges() -> Iterator[Edge]:
    def store(book: Book, number: int, *, just_written: bool = True) -> None:
        one = FoundRecord(record(score=number), (inline(METRIC, bytes(number)),))
        book.take(found_run(one, just_written=just_written), from_start=True)

    for just_written in (False, True):
        with new_book() as book:
            store(book, 1)
            store(book, 2)
            yield None, "take_in", book.states("records")[1]
            book.do(retry.retry_runs, None)
            yield "quarantined", "retry_runs", book.states("records")[1]
            book.select("DELETE FROM records WHERE id = 1")
            book.select("DELETE FROM files")
            store(book, 2, just_written=just_written)
            yield "quarantined", "take_in", look(book, at="records")


def damaged_edges() -> Iterator[Edge]:
    with new_book() as book:
        line = DamagedLine("d", 1, "it is no JSON")
        book.do(intake.take_in, book.dataset(), tail(damaged=[line]), [])
        yield None, "take_in", look(book, at="records")
        book.do(intake.take_in, book.dataset(), tail(from_start=True), [])
        yield "quarantined", "take_in", look(book, at="records")


def test_what_is_wanted_back_is_asked_for_and_counts_as_sent() -> None:
    """Goal: no second row, and all of its run comes back. Method: want a row back; read its line."""
    with new_book() as book:
        row_in_state(book, RowState.SYNCED, taken=True)
        book.now = NOW + 100
        assert send_again(book) == 1
        assert book.run_state() == ("quarantined", retry.TO_BE_READ)
        [position] = book.select("SELECT tail FROM datasets")
        assert position["tail"] is None
        book.take(found_run(record(), just_written=False), from_start=True)
        [row] = book.select("SELECT state, taken, sends, payload FROM records")
        assert (row["state"], row["taken"], row["sends"]) == ("unasked", 0, 2)
        assert row["payload"]
        # The table holds it after all: what its run lacks in the bucket is wanted back all the same.
        [asked] = book.ask(pending_rows.rows_to_ask_for, ALL, TABLE, 100)
        book.do(intake.take_in_runs, book.dataset(), [SAME])
        book.do(rows.confirm_rows, [asked])
        [wanted] = book.claim()
        assert not wanted.stood


@pytest.mark.parametrize("synced", [False, True])
def test_a_row_that_was_just_accepted_is_not_taken_up(*, synced: bool) -> None:
    """Goal: what only does not show yet is not sent twice. Method: want a row back that was just taken."""
    with in_line(synced=synced) as book:
        assert send_again(book, accepted_before=NOW) == synced
        assert upload_again(book, METRIC, accepted_before=NOW) == synced
        assert book.states("files") == ([] if synced else ["uploaded"])


def test_files_of_a_packed_run_are_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no file is out of reach. Method: pack a synced run; want one of its two files back."""
    monkeypatch.setattr(packs, "PACKED_FROM_BYTES", 0)
    with new_book() as book:
        book.take(found_run(record(), files=[file("generated_images/a.png"), file("generated_images/b.png")]))
        book.upload_all()
        found = book.ready()
        book.do(rows.confirm_rows, found)
        book.ledger.write(packs.pack_finished)
        assert book.states("files") == []
        assert upload_again(book, "generated_images/b.png") == 1
        [wanted] = book.claim()
        assert (wanted.path, wanted.generation, wanted.crc32c) == ("generated_images/b.png", 0, None)
        assert [wanted.ours, wanted.in_doubt, wanted.stood] == [False, False, False]
        assert book.states("files") == ["uploaded", "uploading"]
        assert book.run_state() == ("pending", None)


def test_what_nobody_knows_is_not_taken_up() -> None:
    """Goal: no run is made up. Method: a run, a path and a digest that the ledger does not know."""
    with in_line() as book:
        stranger = RunKey("shop", "shoes", "20240101-000009_x")
        asked = [(stranger, METRIC), (record().run, "other.json")]
        assert book.do(retry.upload_again, asked, accepted_before=NOW) == 0
        asked = [(stranger, record().digest), (record().run, "another digest")]
        assert book.do(retry.send_again, asked, accepted_before=NOW) == 0
        assert book.run_state() == ("synced", None)


def test_rows_change_as_the_table_says_and_not_otherwise() -> None:
    """Goal: the table is the truth. Method: all events on all states; what changed against the table."""
    seen = {edge for edge in row_edges() if edge[0] != edge[2]}
    assert seen == {(one.state, one.event, one.next_state) for one in ROW_TRANSITIONS}


@pytest.mark.parametrize("transitions", [FILE_TRANSITIONS, ROW_TRANSITIONS])
def test_every_transition_stands_once_and_says_when(
    transitions: tuple[tuple[str | None, str, str | None, str], ...],
) -> None:
    """Goal: a table that people can read. Method: no row twice; a reason each; the event is a function."""
    assert len({row[:3] for row in transitions}) == len(transitions)
    assert all(row[3] for row in transitions)
    events = {row[1] for row in transitions}
    modules = (adoption, forgetting, intake, retry, rows, uploads)
    assert all(any(hasattr(module, event) for module in modules) for event in events)


def test_the_run_of_these_tests_is_the_usual_one() -> None:
    """Goal: `found_run()` is about the file's run. Method: their names."""
    assert (CHANGED.name, SAME.name, EMPTY.name) == (RUN, RUN, RUN)
