"""The heartbeat: asked only when all is well, and never told whole."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixaris_sync.ledger import notices, rows, uploads
from pixaris_sync.ledger.selection import Work
from pixaris_sync.monitoring.heartbeat import INTERVAL_SECONDS, Heartbeat, all_is_well
from pixaris_sync.monitoring.view import Reader
from pixaris_sync.settings.model import Settings
from tests.support.beacon import UNTOLD, Beacon, running_beacon
from tests.support.ledgers import NOW, PROBLEM, Book, file, found_run, record


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    with running_beacon() as beacon:
        yield beacon


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path)
    yield book
    book.ledger.close()


@pytest.mark.anyio
async def test_what_answers_is_counted_and_not_told(beacon: Beacon, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: silence while it works. Method: one request, with its whole address."""
    caplog.set_level(logging.DEBUG)
    heartbeat = Heartbeat(beacon.url)
    await heartbeat.beat()
    assert beacon.asked == [f"/{UNTOLD}?key={UNTOLD}"]
    assert heartbeat.counts == {"ok": 1, "failed": 0}
    assert [record for record in caplog.records if record.name.startswith("pixaris_sync")] == []


@pytest.mark.anyio
async def test_what_does_not_answer_is_told_once_without_its_address(
    beacon: Beacon, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: one warning, no secret. Method: refusals, a redirect for ever, an answer, another refusal."""
    caplog.set_level(logging.INFO, "pixaris_sync")
    heartbeat = Heartbeat(beacon.url)
    beacon.status = 404
    await heartbeat.beat()
    beacon.status, beacon.headers = 302, {"Location": beacon.url}
    await heartbeat.beat()
    beacon.status = 200
    await heartbeat.beat()
    beacon.status = 500
    await heartbeat.beat()
    assert heartbeat.counts == {"ok": 1, "failed": 3}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "127.0.0.1" in caplog.text
    assert "it answered 404" in caplog.text
    assert UNTOLD not in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["nobody listens", "no such host", "no address", "no host"])
async def test_nothing_that_goes_wrong_is_raised_or_tells_the_address(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the work never notices. Method: a closed port, a name that nobody has, a port beyond all."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        url = {
            "nobody listens": f"http://127.0.0.1:{port}/{UNTOLD}",
            "no such host": f"http://nobody.invalid/{UNTOLD}",
            "no address": f"http://127.0.0.1/\x01{UNTOLD}",
            "no host": f"http://127 0 0 1/{UNTOLD}",
        }[broken]
        heartbeat = Heartbeat(url)
        await heartbeat.beat()
    assert heartbeat.counts == {"ok": 0, "failed": 1}
    assert len(caplog.records) == 1
    assert UNTOLD not in caplog.text


def test_all_is_well_only_where_nothing_waits_for_long(book: Book, tmp_path: Path) -> None:
    """Goal: real success alone. Method: nothing, a run on its way, late, failing, synced; notices."""
    settings = Settings(
        gcp_project_id="p",
        gcp_bq_experiment_dataset="p.d",
        gcp_pixaris_bucket_name="b",
        local_results_folder=tmp_path,
    )
    reader = Reader(settings, book.ledger.path, Work)

    def well(seconds: float = 0) -> bool:
        return all_is_well(reader.read(), NOW + seconds)

    assert not all_is_well(None, NOW)
    assert well()
    book.take(found_run(record(), files=[file(size=10)]))
    assert well(INTERVAL_SECONDS - 1)
    assert not well(INTERVAL_SECONDS)
    # During a pause nothing is on its way.
    assert not all_is_well(reader.read(), NOW, 0.0)
    [task] = book.claim(1)
    book.do(uploads.reschedule_upload, task, PROBLEM, next_attempt_at=NOW + 1, in_doubt=False)
    assert not well()
    book.now = NOW + 2
    book.upload_all()
    book.do(rows.confirm_rows, book.ready())
    assert well(INTERVAL_SECONDS)
    book.do(notices.take_in_notices, "", [notices.Notice("a file", PROBLEM, quarantined=False)])
    assert well()
    book.do(notices.take_in_notices, "", [notices.Notice("another", PROBLEM, quarantined=True)])
    assert not well()
    reader.close()
