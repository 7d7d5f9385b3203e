"""What is in the cloud leaves the spool, and nothing else does."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import asdict

from pixaris_sync.handlers.spool import empty, make_spool, spool_settings
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.datasets import open_dataset
from pixaris_sync.model import DatasetKey, TailPosition
from pixaris_sync.rules.contract import DEFAULT_TRACKING_FILE
from pixaris_sync.settings.model import Settings

KEY = DatasetKey("project", "dataset")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "spool"
    make_spool(folder)
    return spool_settings("gcp", "gcp.pixaris", "bucket", str(folder))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite3")
    yield ledger
    ledger.close()


def line_of(run: str) -> bytes:
    return json.dumps({"experiment_run_name": run}).encode() + b"\n"


def put(settings: Settings, run: str) -> Path:
    """Put a run in the spool, as the only one of its dataset."""
    folder = settings.local_results_folder / KEY.project / KEY.dataset
    (folder / run).mkdir(parents=True)
    (folder / DEFAULT_TRACKING_FILE).write_bytes(line_of(run))
    return folder / run


def note_read(ledger: Ledger, lines: bytes) -> None:
    """Let the ledger know of lines that were read, and of nothing that is left to do."""
    position = TailPosition(1, 1, len(lines), 1, len(lines), 1, hashlib.sha256(lines).hexdigest())
    ledger.write(lambda db: open_dataset(db, 0.0, KEY, "table"))
    ledger.write(lambda db: db.execute("UPDATE datasets SET tail = ?", (json.dumps(asdict(position)),)))


def test_what_is_in_the_cloud_is_removed(settings: Settings, ledger: Ledger) -> None:
    """Goal: disks do not fill. Method: a run whose line was read, with nothing left to do."""
    run = put(settings, "261127-a")
    note_read(ledger, line_of("261127-a"))

    empty(settings, ledger)

    assert list(run.parent.rglob("[!.]*")) == []


def test_a_run_that_came_after_the_pass_stays(settings: Settings, ledger: Ledger) -> None:
    """Goal: no run is lost. Method: after a removed tracking file, another one of the same size."""
    note_read(ledger, line_of("261127-a"))
    run = put(settings, "261127-b")

    empty(settings, ledger)

    assert run.is_dir()
    assert (run.parent / DEFAULT_TRACKING_FILE).read_bytes() == line_of("261127-b")


def test_a_folder_that_no_handler_made_is_left_alone(settings: Settings, ledger: Ledger) -> None:
    """Goal: nobody's results are removed. Method: a results folder of somebody's own as the spool."""
    run = put(settings, "261127-a")
    for mark in settings.local_results_folder.glob(".pixaris*"):
        mark.unlink()
    note_read(ledger, line_of("261127-a"))

    empty(settings, ledger)

    assert run.is_dir()
