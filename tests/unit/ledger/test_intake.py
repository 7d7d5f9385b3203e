"""Taking in what a scan found: which records are new, which files changed, what is damaged or an orphan."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import datasets, intake, known, notices, retry, rows, uploads
from pixaris_sync.ledger.intake import FoundRecord
from pixaris_sync.ledger.known import InspectedRun
from pixaris_sync.ledger.notices import Notice, Orphan
from pixaris_sync.model import DamagedLine, DatasetKey, DeliveryMethod, FoundFile, Problem
from tests.support.ledgers import (
    ALL,
    NOW,
    PROBLEM,
    RUN,
    SHOES,
    TABLE,
    Book,
    file,
    found_run,
    inline,
    record,
    tail,
)

OTHER = "20240101-000002_y"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def damaged(digest: str = "d", line: int = 1) -> DamagedLine:
    return DamagedLine(digest, line, "it is no JSON")


def test_a_dataset_is_taken_in_once(book: Book) -> None:
    """Goal: one dataset, one id. Method: open it twice, beside another."""
    first = book.do(datasets.open_dataset, SHOES, TABLE)
    assert (first.position, first.read_whole, first.adopted) == (None, False, False)
    assert book.do(datasets.open_dataset, SHOES, TABLE).id == first.id
    assert book.do(datasets.open_dataset, DatasetKey("shop", "hats"), "t").id != first.id


def test_the_position_is_kept_with_the_records(book: Book) -> None:
    """Goal: a restart reads on. Method: take in a part and the rest; ask for the dataset in between."""
    dataset_id = book.dataset()
    part = tail([record()], more=True, offset=50)
    book.do(intake.take_in, dataset_id, part, [found_run(record())])
    known = book.do(datasets.open_dataset, SHOES, TABLE)
    assert (known.position, known.read_whole) == (part.position, False)
    book.do(intake.take_in, dataset_id, tail(torn_bytes=7), [])
    known = book.do(datasets.open_dataset, SHOES, TABLE)
    assert known.read_whole
    assert book.one("SELECT torn_bytes FROM datasets")["torn_bytes"] == 7


def test_a_position_whose_records_failed_does_not_move(book: Book) -> None:
    """Goal: no record is skipped. Method: a file that the ledger refuses, in the same transaction."""
    dataset_id = book.dataset()
    bad = found_run(record(), files=[file(size=2**70)])
    with pytest.raises(OverflowError):
        book.do(intake.take_in, dataset_id, tail([record()]), [bad])
    assert book.do(datasets.open_dataset, SHOES, TABLE).position is None
    assert book.select("SELECT * FROM records") == []


def test_equal_lines_of_one_file_are_one_record(book: Book) -> None:
    """Goal: one record, one row. Method: the same line three times, in two parts of one reading."""
    assert book.take(found_run(record(line=1), record(line=2)), from_start=True) == 1
    assert book.take(found_run(record(line=3))) == 0
    found = book.select("SELECT ordinal, line FROM records ORDER BY line")
    assert [tuple(row.values()) for row in found] == [(0, 1)]
    assert book.one("SELECT repeated_lines FROM datasets")["repeated_lines"] == 2


def test_a_file_read_again_from_its_start_brings_nothing_new(book: Book) -> None:
    """Goal: exactly once, after truncation and rewriting too. Method: the same records, at other lines."""
    book.take(found_run(record(line=1), record(line=2)), from_start=True)
    assert book.take(found_run(record(line=5), record(line=6)), from_start=True) == 0
    assert [row["line"] for row in book.select("SELECT line FROM records ORDER BY id")] == [5]
    assert book.one("SELECT repeated_lines FROM datasets")["repeated_lines"] == 1
    book.take(found_run(record(line=1)), from_start=True)
    assert book.one("SELECT repeated_lines FROM datasets")["repeated_lines"] == 0


def test_a_file_read_again_brings_only_what_was_added(book: Book) -> None:
    """Goal: a rewritten file loses and repeats nothing. Method: read again; one line is equal, one new."""
    book.take(found_run(record(line=1)), from_start=True)
    again = found_run(record(line=1), record(line=2), record(line=3, note="new"))
    assert book.take(again, from_start=True) == 1


def test_a_line_that_was_removed_stays_known(book: Book) -> None:
    """Goal: a rotated file forgets nothing. Method: rotate away, then read the old line once more."""
    book.take(found_run(record()), from_start=True)
    assert book.take(found_run(record(OTHER), name=OTHER), from_start=True) == 1
    assert book.take(found_run(record()), from_start=True) == 0
    assert len(book.states("records")) == 2


def test_equal_records_of_two_datasets_are_two_records(book: Book) -> None:
    """Goal: identity is per file. Method: one digest in two datasets."""
    hats = book.dataset(DatasetKey("shop", "hats"))
    assert book.take(found_run(record())) == 1
    assert book.take(found_run(record()), dataset_id=hats) == 1


def test_a_damaged_line_shows_until_it_is_mended(book: Book) -> None:
    """Goal: visible with its line, gone when mended. Method: damage, read on, then read a mended file."""
    dataset_id = book.dataset()
    first = tail(damaged=[damaged(line=4)], from_start=True)
    book.do(intake.take_in, dataset_id, first, [])
    book.do(intake.take_in, dataset_id, tail(), [])
    line = book.one("SELECT line, state, cause, hint FROM records")
    assert (line["line"], line["state"], line["cause"]) == (4, "quarantined", "it is no JSON")
    assert "args.json" in line["hint"]
    book.take(found_run(record()), from_start=True)
    assert book.states("records") == ["pending"]


def test_a_damaged_line_is_not_forgotten_while_the_file_is_only_half_read(book: Book) -> None:
    """Goal: no flicker in `status`. Method: read a file again in two parts, the damage in the second."""
    dataset_id = book.dataset()
    book.do(intake.take_in, dataset_id, tail(damaged=[damaged()], from_start=True), [])
    book.do(intake.take_in, dataset_id, tail(from_start=True, more=True), [])
    assert len(book.states("records")) == 1
    book.do(intake.take_in, dataset_id, tail(damaged=[damaged(line=9)]), [])
    assert book.one("SELECT line FROM records")["line"] == 9


def test_equal_damaged_lines_are_counted_each(book: Book) -> None:
    """Goal: the count is right. Method: two equal ones, read twice."""
    dataset_id = book.dataset()
    for _ in range(2):
        both = tail(damaged=[damaged(line=1), damaged(line=2)], from_start=True)
        book.do(intake.take_in, dataset_id, both, [])
    assert len(book.states("records")) == 2


def test_a_file_that_is_as_it_was_stays_uploaded(book: Book) -> None:
    """Goal: nothing is sent twice. Method: upload, then take the run in again."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file()])])
    assert book.states("files") == ["uploaded"]


@pytest.mark.parametrize(
    "newer", [file(size=11), file(mtime_ns=6), file(inode=8)], ids=["size", "mtime", "inode"]
)
def test_a_newer_version_of_a_file_is_sent_over_the_one_that_is_ours(book: Book, newer: FoundFile) -> None:
    """Goal: overwrite only our own object. Method: change each part of the version after the upload."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[newer])])
    assert book.run_state() == ("pending", None)
    # The service takes one write a second for a name.
    assert book.claim() == []
    [task] = book.claim(later_seconds=1)
    assert (task.version, task.generation, task.ours) == (newer.version, 1, True)


def test_a_quarantined_file_that_was_mended_is_tried_again(book: Book) -> None:
    """Goal: mending is enough. Method: quarantine, change the file, take the run in."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    [task] = book.claim()
    book.do(uploads.quarantine_upload, task, PROBLEM)
    assert book.run_state() == ("quarantined", PROBLEM.cause)
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file(size=12)])])
    assert book.run_state() == ("pending", None)


def test_a_folder_in_trouble_brings_no_files(book: Book) -> None:
    """Goal: nothing that would look complete. Method: a run whose folder has a problem, then none."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()], problem=PROBLEM))
    assert book.run_state() == ("quarantined", PROBLEM.cause)
    assert (book.states("files"), book.ready()) == ([], [])
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file()])])
    assert book.run_state() == ("pending", None)
    assert book.states("files") == ["pending"]


def test_what_a_folder_loses_after_the_upload_is_no_problem(book: Book) -> None:
    """Goal: who tidies up after the upload is not told off. Method: a problem once all files are there."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(intake.take_in_runs, dataset_id, [found_run(problem=PROBLEM)])
    assert book.run_state() == ("pending", None)
    assert len(book.ready()) == 1


def test_the_row_of_a_run_that_is_arriving_waits_and_its_files_do_not(book: Book) -> None:
    """Goal: files at once, the row when all is still. Method: two looks, the second one finds nothing new."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()], quiet_at=book.now + 5))
    book.upload_all()
    assert (book.run_state(), book.ready()) == (("pending", None), [])
    assert book.ask(known.next_look_at, dataset_id, ALL) == book.now + 5
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file()])])
    assert len(book.ready()) == 1
    assert book.ask(known.next_look_at, dataset_id, ALL) is None


def test_what_is_missing_while_a_run_is_arriving_is_no_problem_yet(book: Book) -> None:
    """Goal: no alarm amid a copy, and none forgotten. Method: a problem, with and without hope."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()], problem=PROBLEM, quiet_at=book.now + 5))
    assert (book.run_state(), book.states("files"), book.ready()) == (("pending", None), [], [])
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file()], problem=PROBLEM)])
    assert (book.run_state(), book.ready()) == (("quarantined", PROBLEM.cause), [])


@pytest.mark.parametrize(
    ("files", "signature", "state"),
    [
        ([], "signature", "synced"),
        ([], "other", "synced"),
        ([file("generated_images/b.png")], "other", "pending"),
    ],
    ids=["as it was", "something was removed", "a file came"],
)
def test_a_synced_run_is_no_longer_synced_while_files_of_it_arrive(
    book: Book, files: list[FoundFile], signature: str, state: str
) -> None:
    """Goal: a look alone makes no run wait. Method: look at a finished run whose folder is not still."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    again = found_run(files=[file(), *files], signature=signature, quiet_at=book.now + 5)
    book.do(intake.take_in_runs, dataset_id, [again])
    book.upload_all()
    assert book.run_state() == (state, None)
    book.do(intake.take_in_runs, dataset_id, [found_run(files=[file(), *files], signature=signature)])
    assert book.run_state() == ("synced", None)


def test_inline_dicts_become_files_of_the_run(book: Book) -> None:
    """Goal: a dict metric is an object. Method: a record with one; its content is kept until it is sent."""
    found = FoundRecord(record(), (inline("score.json", b"{}"),))
    book.take(found_run(found, files=[file()]))
    [_, task] = sorted(book.claim(), key=lambda task: task.path)
    assert (task.path, task.content) == ("score.json", b"{}")
    book.upload_all()
    book.upload(task)
    assert book.one("SELECT content FROM files WHERE path = 'score.json'")["content"] is None
    assert book.ask(known.local_paths, book.dataset(), RUN) == ["generated_images/a.png"]


def test_two_records_of_one_run_may_share_an_equal_dict(book: Book) -> None:
    """Goal: no false alarm. Method: the same content twice."""
    runs = [FoundRecord(record(note=note), (inline("score.json", b"{}"),)) for note in "ab"]
    book.take(found_run(*runs))
    assert book.states("records") == ["pending", "pending"]
    assert len(book.states("files")) == 1


def test_two_records_of_one_run_cannot_have_two_dicts_of_one_name(book: Book) -> None:
    """Goal: no value is replaced by another's. Method: other content; the first record goes on unharmed."""
    first = FoundRecord(record(note="a"), (inline("score.json", b"{}"),))
    second = FoundRecord(record(note="b"), (inline("score.json", b"[]"), inline("extra.json", b"1")))
    book.take(found_run(first, second))
    assert book.states("records") == ["pending", "quarantined"]
    assert [row["path"] for row in book.select("SELECT path FROM files")] == ["score.json"]
    state, cause = book.run_state()
    assert state == "quarantined"
    assert cause is not None
    assert "score.json" in cause


def test_a_refused_dataset_stops_its_runs_until_it_is_accepted(book: Book) -> None:
    """Goal: the rule that is broken shows at every run. Method: refuse, then lift it."""
    dataset_id = book.dataset()
    book.take(found_run(record(), files=[file()]))
    book.do(datasets.refuse_dataset, dataset_id, PROBLEM)
    assert book.run_state() == ("quarantined", PROBLEM.cause)
    assert book.claim() == []
    book.do(datasets.refuse_dataset, dataset_id, None)
    assert book.run_state() == ("pending", None)
    assert len(book.claim()) == 1


def test_orphans_are_young_then_incomplete_then_gone_or_committed(book: Book) -> None:
    """Goal: an unfinished run shows, and only while it is one. Method: one folder through its whole life."""
    dataset_id = book.dataset()
    for young, state in ((True, "pending"), (False, "incomplete")):
        book.do(
            notices.take_in_orphans, dataset_id, [Orphan(RUN, young, Problem("no line", "")), orphan(OTHER)]
        )
        assert book.run_state() == (state, "no line")
    book.do(notices.take_in_orphans, dataset_id, [orphan(RUN)])
    assert [row["name"] for row in book.select("SELECT name FROM runs")] == [RUN]
    book.take(found_run(record(), files=[file()]))
    assert book.run_state() == ("pending", None)
    book.do(notices.take_in_orphans, dataset_id, [])
    assert book.run_state() == ("pending", None)


def test_an_orphan_keeps_the_time_of_its_state(book: Book) -> None:
    """Goal: `status` says since when. Method: list it again later, in the same state and in another."""
    dataset_id = book.dataset()
    book.do(notices.take_in_orphans, dataset_id, [orphan(RUN)])
    book.now += 60
    book.do(notices.take_in_orphans, dataset_id, [orphan(RUN)])
    assert book.one("SELECT since FROM runs")["since"] == NOW
    book.do(notices.take_in_orphans, dataset_id, [Orphan(RUN, young=True, problem=PROBLEM)])
    assert book.one("SELECT since FROM runs")["since"] == NOW + 60


def test_notices_are_those_of_the_last_look(book: Book) -> None:
    """Goal: each notice shows while it holds, since it began. Method: two looks, in two scopes."""
    first, second = (Notice(name, PROBLEM, quarantined=name == "a") for name in "ab")
    book.do(notices.take_in_notices, "", [first, second])
    book.do(notices.take_in_notices, "shop/shoes", [first])
    book.now += 60
    book.do(notices.take_in_notices, "", [first])
    found = [tuple(row.values()) for row in book.select("SELECT scope, subject, state, since FROM notices")]
    assert sorted(found) == [("", "a", "quarantined", NOW), ("shop/shoes", "a", "quarantined", NOW)]
    book.do(notices.take_in_notices, "", [second])
    assert book.one("SELECT state FROM notices WHERE scope = ''")["state"] == "notice"


def test_folders_to_inspect_and_payloads_are_those_of_committed_runs(book: Book) -> None:
    """Goal: a later look knows what to compare. Method: a committed run beside an orphan."""
    dataset_id = book.dataset()
    book.take(found_run(record(line=3, seed=1)))
    book.do(notices.take_in_orphans, dataset_id, [orphan(OTHER)])
    assert book.ask(known.inspected_runs, dataset_id, synced_too=False) == [
        InspectedRun(RUN, "signature", troubled=False)
    ]
    [(line, payload)] = book.ask(known.payloads, dataset_id, RUN)
    assert (line, '"seed": 1' in payload) == (3, True)


def orphan(name: str) -> Orphan:
    return Orphan(name, young=False, problem=Problem("no line", ""))


def test_a_record_whose_run_is_known_by_now_moves_to_it(book: Book) -> None:
    """Goal: one record, one run, also where an earlier reading took it for another's, and nothing was sent.

    Method: a record of a run without a folder; retry; the same record of another run; and again as before.
    """
    book.take(found_run(record(digest="d"), files=[], problem=PROBLEM), from_start=True)
    book.do(retry.retry_runs, None)
    assert book.do(datasets.open_dataset, SHOES, TABLE).position is None
    moved = found_run(record(OTHER, digest="d"), name=OTHER, files=[file()], just_written=False)
    assert book.take(moved, from_start=True) == 1
    assert [row["name"] for row in book.select("SELECT name FROM runs")] == [OTHER]
    assert book.one("SELECT run_name, state FROM records") == {"run_name": OTHER, "state": "unasked"}


def test_what_was_sent_keeps_its_run_though_its_folder_has_gone(book: Book) -> None:
    """Goal: history stays. Method: a synced record whose line tells of another run when it is read again."""
    book.take(found_run(record(digest="d"), files=[file()]))
    book.upload_all()
    book.do(rows.start_delivery, TABLE, book.ready(), DeliveryMethod.STREAM, None)
    before = book.select("SELECT * FROM runs")
    assert book.take(found_run(record(OTHER, digest="d"), name=OTHER, problem=PROBLEM), from_start=True) == 0
    assert book.select("SELECT * FROM runs") == before
