"""Files on their way: claimed in order, confirmed, put off, given up, and found again after a crash."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import adoption, intake, uploads
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, RemoteObject
from tests.support.ledgers import ALL, NOW, PROBLEM, RUN, Book, file, found_run, inline, record, remote

OLD, NEW = "20240101-000001_old", "20250101-000001_new"
HATS = DatasetKey("shop", "hats")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def take(book: Book, name: str, *sizes: int, key: DatasetKey | None = None) -> None:
    files = [file(f"generated_images/{size}.png", size=size) for size in sizes]
    dataset_id = book.dataset(key) if key else book.dataset()
    book.take(found_run(record(name), name=name, files=files), dataset_id=dataset_id)


def order(tasks: list[uploads.UploadTask]) -> list[tuple[str, int]]:
    return [(task.run.run, task.version.size) for task in tasks]


def test_newest_runs_go_first_and_small_files_before_large(book: Book) -> None:
    """Goal: what was just stored shows first. Method: claim bit by bit, across datasets."""
    take(book, OLD, 3, 1)
    take(book, NEW, 5, 2)
    take(book, "20240601-000001_between", 4, key=HATS)
    expected = [(NEW, 2), (NEW, 5), ("20240601-000001_between", 4), (OLD, 1), (OLD, 3)]
    assert order(book.claim(2)) + order(book.claim(1)) + order(book.claim(5)) == expected
    assert book.claim() == []


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_the_order_is_the_same_however_many_datasets_share_it(book: Book, count: int) -> None:
    """Goal: looking into few datasets changes nothing. Method: compare with a plain sort of all files."""
    expected = []
    for number in range(40):
        name, size = f"2024010{number % 4}-00000{number % 3}_r{number}", number * 7 % 11
        take(book, name, size, key=DatasetKey("shop", f"d{number % 6}"))
        expected.append((name, size))
    expected.sort(key=lambda found: found[1])
    expected.sort(key=lambda found: found[0], reverse=True)
    claimed = []
    while tasks := book.claim(count):
        assert len(tasks) <= count
        claimed += order(tasks)
    assert claimed == expected


def test_runs_of_one_name_in_two_datasets_share_the_order_of_sizes(book: Book) -> None:
    """Goal: small before large, wherever it lies. Method: the smallest in either dataset, one claimed."""
    for small, large in ((1, 2), (4, 3)):
        name = f"20240101-00000{small}_x"
        take(book, name, small, key=HATS)
        take(book, name, large)
        assert order(book.claim(1)) == [(name, min(small, large))]


def test_a_claimed_file_is_claimed_once(book: Book) -> None:
    """Goal: one upload at a time per file. Method: claim twice; then give it back."""
    take(book, RUN, 1)
    [task] = book.claim()
    assert book.states("files") == ["uploading"]
    assert book.claim() == []
    book.do(uploads.unclaim, task, in_doubt=False)
    [again] = book.claim()
    assert (again.attempts, again.in_doubt) == (0, False)
    book.do(uploads.unclaim, again, in_doubt=True)
    [doubtful] = book.claim()
    assert doubtful.in_doubt is True


def test_nothing_is_sent_before_the_bucket_was_looked_at(book: Book) -> None:
    """Goal: a lost ledger repeats nothing. Method: a dataset that is not adopted yet."""
    dataset_id = book.dataset(adopted=False)
    book.take(found_run(record(), files=[file()]), dataset_id=dataset_id)
    assert book.claim() == []
    assert book.ask(uploads.next_upload_at, ALL) is None
    book.do(adoption.adopted, dataset_id)
    assert len(book.claim()) == 1


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(projects=("shop",)), {OLD, NEW}),
        (Selection(projects=("other",)), set()),
        (Selection(datasets=("hats",)), set()),
        (Selection(since="20250101-000000"), {NEW}),
        (Selection(until="20250101-000000"), {OLD}),
        (Selection(since="20240101-000001_old", until=NEW), {OLD}),
    ],
)
def test_a_selection_is_kept_to(book: Book, selection: Selection, expected: set[str]) -> None:
    """Goal: `backfill --since` carries that and no more. Method: two runs, one selection each."""
    take(book, OLD, 1)
    take(book, NEW, 1)
    assert {task.run.run for task in book.claim(selection=selection)} == expected


def test_adoption_finds_what_the_bucket_has(book: Book) -> None:
    """Goal: an equal object is not sent, another is not overwritten. Method: list one known, one stray."""
    dataset_id = book.dataset(adopted=False)
    book.take(found_run(record(), files=[file("a.png"), file("b.png")]), dataset_id=dataset_id)
    page = {
        (RUN, "a.png"): RemoteObject("a", 10, 77, 5),
        (RUN, "stray.png"): RemoteObject("s", 1, 1, 1),
        ("20200101-000000_unknown", "a.png"): RemoteObject("u", 1, 1, 1),
    }

    assert book.do(adoption.adopt_objects, dataset_id, page) == 1
    book.do(adoption.adopted, dataset_id)
    tasks = {task.path: (task.crc32c, task.generation, task.ours) for task in book.claim()}
    assert tasks == {"a.png": (77, 5, False), "b.png": (None, 0, False)}


def test_what_a_listing_tells_no_checksum_of_is_looked_up(book: Book) -> None:
    """Goal: unknown is not different. Method: list one of two files without its checksum."""
    dataset_id = book.dataset(adopted=False)
    book.take(found_run(record(), files=[file("a.png"), file("b.png")]), dataset_id=dataset_id)
    page = {(RUN, "a.png"): RemoteObject("a", 10, None, 5)}
    assert book.do(adoption.adopt_objects, dataset_id, page) == 1
    book.do(adoption.adopted, dataset_id)
    tasks = {task.path: (task.in_doubt, task.crc32c, task.generation, task.ours) for task in book.claim()}
    assert tasks == {"a.png": (True, None, 5, False), "b.png": (False, None, 0, False)}


def test_rows_of_runs_without_files_are_in_doubt_after_adoption(book: Book) -> None:
    """Goal: a lost ledger inserts no second row. Method: a run with a file beside one without."""
    dataset_id = book.dataset(adopted=False)
    book.take(found_run(record(OLD), name=OLD), dataset_id=dataset_id)
    book.take(found_run(record(NEW), name=NEW, files=[file()]), dataset_id=dataset_id)
    book.do(adoption.adopted, dataset_id)
    assert book.states("records") == ["in_doubt", "pending"]


def test_the_last_file_makes_the_row_ready(book: Book) -> None:
    """Goal: files before row. Method: confirm two files one after the other."""
    take(book, RUN, 1, 2)
    first, second = book.claim()
    book.upload(first)
    assert book.ready() == []
    book.upload(second)
    assert len(book.ready()) == 1
    kept = book.select("SELECT state, crc32c, generation, ours FROM files")
    assert [tuple(row.values()) for row in kept] == [("uploaded", 99, 1, 1)] * 2


def test_a_file_that_somebody_had_put_there_puts_the_row_in_doubt(book: Book) -> None:
    """Goal: what another ledger may have sent is looked for. Method: confirm with `was_there`."""
    take(book, RUN, 1)
    [task] = book.claim()
    book.upload(task, was_there=True)
    assert (book.states("records"), book.ready()) == (["in_doubt"], [])


def test_a_file_that_changed_on_the_way_is_sent_again(book: Book) -> None:
    """Goal: the newest version wins, over our own object. Method: take it in anew before the confirmation."""
    take(book, RUN, 1)
    [task] = book.claim()
    newer = file(task.path, size=2)
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[newer])])
    book.upload(task)
    assert (book.run_state(), book.ready()) == (("pending", None), [])
    assert book.claim() == []
    [again] = book.claim(later_seconds=1)
    assert (again.version, again.generation, again.ours, again.in_doubt) == (newer.version, 1, True, False)


def test_a_file_that_changed_on_the_way_is_not_given_up_for_its_past(book: Book) -> None:
    """Goal: a mended image is not quarantined. Method: take it in anew between claim and the verdict."""
    take(book, RUN, 1)
    [task] = book.claim()
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[file(task.path, size=2)])])
    book.do(uploads.quarantine_upload, task, PROBLEM)
    assert book.run_state() == ("pending", None)
    assert len(book.claim()) == 1


def test_a_file_that_is_put_off_waits_and_its_run_says_why(book: Book) -> None:
    """Goal: backoff is in the ledger. Method: fail once; claim too early and in time."""
    take(book, RUN, 1)
    [task] = book.claim()
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW + 60, in_doubt=True)
    assert book.run_state() == ("failing", PROBLEM.cause)
    assert book.claim() == []
    assert book.ask(uploads.next_upload_at, ALL) == NOW + 60
    book.now = NOW + 60
    [again] = book.claim()
    assert (again.attempts, again.in_doubt) == (1, True)
    book.upload(again)
    assert book.run_state() == ("pending", None)


def test_a_mended_file_clears_its_run_although_others_are_open(book: Book) -> None:
    """Goal: no stale cause, after a restart either. Method: fail, restart, upload one of two files."""
    take(book, RUN, 1, 2)
    first, second = book.claim()
    book.do(uploads.reschedule_upload, first, PROBLEM, next_attempt_at=NOW, in_doubt=False)
    book.do(uploads.unclaim, second, in_doubt=False)
    book.do(uploads.recover_uploads)
    assert book.run_state() == ("failing", PROBLEM.cause)
    first, second = book.claim()
    book.upload(first)
    assert book.run_state() == ("pending", None)


def test_a_pass_leaves_what_has_failed_too_often(book: Book) -> None:
    """Goal: `sync` ends. Method: two failures against a limit of two; without a limit it goes on."""
    take(book, RUN, 1)
    limited = Selection(attempts_limit=2)
    for _ in range(2):
        [task] = book.claim(selection=limited)
        book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW, in_doubt=False)
    assert book.claim(selection=limited) == []
    assert book.ask(uploads.next_upload_at, limited) is None
    assert len(book.claim()) == 1


def test_one_quarantined_file_does_not_stop_its_neighbours(book: Book) -> None:
    """Goal: the run is quarantined, its other files go on. Method: give up one of two."""
    take(book, RUN, 1, 2)
    first, second = book.claim()
    book.do(uploads.quarantine_upload, first, PROBLEM)
    book.upload(second)
    assert book.run_state() == ("quarantined", PROBLEM.cause)
    assert (book.states("files"), book.ready(), book.claim()) == (["quarantined", "uploaded"], [], [])


def test_a_session_is_kept_until_the_file_changes_or_is_there(book: Book) -> None:
    """Goal: a restart goes on in the middle. Method: keep a session, crash, claim; then change the file."""
    take(book, RUN, 1)
    [task] = book.claim()

    def keep(db: object, _now: float) -> None:
        uploads.keep_session(db, task, "https://session", 7)  # type: ignore[arg-type]

    book.do(keep)
    assert book.do(uploads.recover_uploads) == 1
    [again] = book.claim()
    assert (again.session_uri, again.in_doubt, again.sent_crc32c) == ("https://session", True, 7)
    book.do(uploads.recover_uploads)
    book.do(intake.take_in_runs, book.dataset(), [found_run(files=[file(task.path, size=2)])])
    [changed] = book.claim()
    assert changed.session_uri is None


def test_a_restart_tries_at_once_what_was_put_off(book: Book) -> None:
    """Goal: whoever starts the program wants it tried. Method: put off for a day, restart."""
    take(book, RUN, 1)
    [task] = book.claim()
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW + 86400, in_doubt=False)
    assert book.do(uploads.recover_uploads) == 0
    [again] = book.claim()
    assert again.attempts == 0


def test_content_of_a_dict_is_dropped_only_when_it_is_there(book: Book) -> None:
    """Goal: nothing is lost on failure. Method: fail, look, succeed, look."""
    book.take(found_run(intake.FoundRecord(record(), (inline("score.json", b"{}"),))))
    [task] = book.claim()
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW, in_doubt=False)
    [task] = book.claim()
    assert task.content == b"{}"
    receipt = uploads.Receipt(task, remote(task, crc32c=3, generation=4), was_there=False)
    book.do(uploads.confirm_uploads, [receipt])
    assert book.one("SELECT content, crc32c, generation FROM files") == {
        "content": None,
        "crc32c": 3,
        "generation": 4,
    }
