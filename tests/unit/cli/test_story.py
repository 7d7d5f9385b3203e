"""One run's story as text and JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli.story import run_document, run_text
from pixaris_sync.ledger import retry, rows, story, uploads
from pixaris_sync.model import DeliveryMethod, Problem
from pixaris_sync.settings.model import Settings
from tests.support.ledgers import NOW, RUN, TABLE, Book, file, found_run, record
from tests.support.schemas import misfit


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


def told(book: Book) -> dict[str, Any]:
    settings = Settings(
        gcp_project_id="gcp",
        gcp_bq_experiment_dataset="pixaris",
        gcp_pixaris_bucket_name="bucket",
        local_results_folder=Path("/results"),
    )
    [found] = book.ask(story.run_stories, book.ask(retry.find_runs, RUN))
    document = run_document(found, settings)
    assert misfit("story", {"runs": [document]}) == ""
    return document


def test_the_story_of_a_synced_run_tells_its_times(book: Book) -> None:
    """Goal: when did what happen. Method: found, delivered and read back at three times; the whole text."""
    book.take(found_run(record(line=7), files=[file(size=10), file("args.json", size=2000)]))
    book.now = NOW + 1
    book.upload_all()
    sent = book.ready()
    book.do(rows.start_delivery, TABLE, sent, DeliveryMethod.STREAM, None)
    book.now = NOW + 2
    book.do(rows.accept_rows, sent)
    book.now = NOW + 63.5
    book.do(rows.confirm_rows, sent)
    document = told(book)
    assert run_text(document, None).splitlines() == [
        f"shop/shoes/{RUN}: synced (since 2023-11-14T22:14:23+00:00)",
        "  time    1 min 3 s from its line to its row",
        f"  bucket  gs://bucket/results/shop/shoes/{RUN}/",
        f"  table   gcp.pixaris.{TABLE}",
        "  row     line 7: synced (since 2023-11-14T22:14:23+00:00)",
        "          line found 2023-11-14T22:13:20+00:00",
        "          sent 1 time",
        "          accepted 2023-11-14T22:13:22+00:00",
        "          read back 2023-11-14T22:14:23+00:00",
        "  files   2 uploaded (2.0 KiB)",
        "            2.0 KiB  args.json",
        "            10 B  generated_images/a.png",
    ]
    assert document["seconds"] == 63.5
    assert [one["size"] for one in document["files"]] == [2000, 10]


def test_the_story_of_a_run_in_trouble_tells_each_cause_and_what_to_do(book: Book) -> None:
    """Goal: many files in few lines, and all of them for machines. Method: 500 files, of which 20 fail.

    No line is longer than 80 columns but for names, and none is cut.
    """
    files = [file(f"generated_images/image_{number:03d}.png", size=1024) for number in range(500)]
    book.take(found_run(record(), files=files))
    for task in book.claim(20):
        cause = f"cannot upload object results/shop/shoes/{RUN}/{task.path}: the service answered 503"
        problem = Problem(cause, "nothing to do: it is tried again with growing waits until it is there")
        book.do(uploads.reschedule_upload, task, problem, next_attempt_at=NOW + 5, in_doubt=False)
    document = told(book)
    assert len(document["files"]) == 500
    assert document["seconds"] is None
    text = run_text(document, 80)
    assert text.splitlines()[0] == f"shop/shoes/{RUN}: failing (since 2023-11-14T22:13:20+00:00)"
    assert [line for line in text.splitlines() if len(line) > 80 and f"/{RUN}/" not in line] == []
    assert " ".join(text.split()) == " ".join(run_text(document, None).split())
    plain = run_text(document, None).splitlines()
    at = plain.index("  files   20 pending (20.0 KiB)")
    first = "1.0 KiB  generated_images/image_000.png, failed 1 time in a row"
    assert plain[at + 1 : at + 3] == [
        "          cause: cannot upload object ...: the service answered 503",
        f"            {first}, tried again at 2023-11-14T22:13:25+00:00",
    ]
    assert plain[at + 12 : at + 14] == [
        "            and 10 more: --json lists all",
        "          480 pending (480.0 KiB)",
    ]


def test_the_story_of_a_pending_run_tells_what_it_waits_for(book: Book) -> None:
    """Goal: no state without a reason. Method: a new run, whose name is hostile to terminals."""
    name = "20240101-000001_\x1b[31m"
    book.take(found_run(record(name), name=name, files=[file()]))
    book.select("UPDATE runs SET name = ?", RUN)
    document = told(book)
    assert document["cause"] == "waiting to be uploaded"
    book.select("UPDATE runs SET name = ?", name)
    assert run_text({**document, "run": name}, None).startswith("20240101-000001_\\x1b[31m: pending")
