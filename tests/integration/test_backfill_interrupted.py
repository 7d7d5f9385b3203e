"""``backfill`` that is killed in the middle and has lost its ledger."""

import subprocess
import threading

import pytest

from tests.support.command_line import CommandLine
from tests.support.proof_summary import Tell
from tests.support.proxy import DELIVERIES, UPLOADS, Answer, Proxies, Request
from tests.support.stored_runs import DATASET, PROJECT, Reader, store_run

RUNS = 60
#: Several batches, so that some rows are there and others are not; no more than may be loaded at once.
SETTINGS = {"load_rows_limit": 20, "upload_concurrency_limit": 4, "doubt_settle_seconds": 2}


class Killer:
    """Kills a process once so many requests of a kind have been served."""

    def __init__(self, pattern: str, after: int) -> None:
        self._pattern = pattern
        self._left = after
        self._lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None

    def served(self, request: Request, _: Answer) -> None:
        """What a proxy is to call with each answer."""
        with self._lock:
            self._left -= request.matches(self._pattern)
            if self._left <= 0 and self.process is not None:
                self.process.kill()


@pytest.mark.parametrize(
    ("pattern", "after"),
    [
        pytest.param(UPLOADS, 5, id="after 5 uploads", marks=pytest.mark.large),
        pytest.param(UPLOADS, 45, id="after 45 uploads", marks=pytest.mark.large),
        pytest.param(DELIVERIES, 1, id="when the first load job begins", marks=pytest.mark.large),
        pytest.param(DELIVERIES, 2, id="when the second has its rows"),
    ],
)
def test_a_ledger_deleted_in_the_middle_of_a_backfill(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tell: Tell, pattern: str, after: int
) -> None:
    """Goal: no second row, no second upload of an unchanged file, by the real process.

    Method: it is killed after some uploads or deliveries, before it has their answers; its ledger is deleted,
    and it is run again at once. Pixaris reads the rows; objects keep their generations.
    """
    names = [f"run-{number:02}" for number in range(RUNS)]
    runs = [store_run(proxied.folder, name, metrics={"score": 0.5}) for name in names]
    killer, limited = Killer(pattern, after), proxied.having(**SETTINGS)
    proxies.storage.answered = proxies.bigquery.answered = killer.served
    with limited.start("backfill", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        killer.process = process
    assert process.returncode == -9
    killer.process = None
    before = pixaris.objects()
    assert before
    proxied.forget_ledger()

    again = limited.run("backfill", "--json")

    assert again.code == 0, str(again)
    assert again.document["runs"]["synced"] == RUNS
    after_all = pixaris.objects()
    assert len(after_all) == RUNS
    assert {name: after_all[name] for name in before} == before
    assert pixaris.runs(PROJECT, DATASET) == sorted(run.name for run in runs)
    tell(
        "real backfills without their ledgers",
        {"processes killed": 1, "objects that were there": len(before)},
    )
