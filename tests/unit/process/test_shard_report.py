"""What a shard leaves beside its ledger, and what is read of whatever lies there."""

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import FilesStanding, files_standing
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.process import shard_report
from pixaris_sync.process.shard_report import SUFFIX, ShardReport, ShardReporter, place_of, shard_reports
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.model import Settings
from tests.support.shard_reports import leave, report_of

NOW = 1_800_000_000.0
SHARD = Shard(2, 4)
WHOLE = report_of("2/4", NOW).as_json()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        gcp_project_id="project",
        gcp_bq_experiment_dataset="project.dataset",
        gcp_pixaris_bucket_name="bucket",
        local_results_folder=tmp_path / "results",
        state_dir=tmp_path / "state",
    )


_ROWS = """
INSERT INTO datasets (id, project, dataset, table_id, since, uploaded_files, open_files, open_bytes)
    VALUES (1, 'p', 'd', 't', 0, 1, 1, 30);
INSERT INTO runs (id, dataset_id, name, state, since, cause, hint, signature, committed) VALUES
    (1, 1, 'whole', 'pending', 0, NULL, NULL, 's', 1),
    (2, 1, 'half', 'pending', 0, NULL, NULL, 's', 1),
    (3, 1, 'new', 'pending', 0, NULL, NULL, NULL, 0),
    (4, 1, 'bad', 'quarantined', 0, '/r/p/d/bad/a.png is cut', 'store it again', 's', 1),
    (5, 1, 'worse', 'quarantined', 0, '/r/p/d/worse/a.png is cut', 'store it again', 's', 1);
INSERT INTO files (run_id, dataset_id, path, run_name, size, mtime_ns, inode, state, since) VALUES
    (1, 1, 'a.png', 'whole', 10, 1, 1, 'uploaded', 0),
    (2, 1, 'a.png', 'half', 30, 1, 1, 'pending', 0);
INSERT INTO notices VALUES ('', 'odd.txt', 'notice', 0, 'it is left out', '');
UPDATE totals SET value = 7 WHERE name = 'files_sent';
UPDATE totals SET value = 70 WHERE name = 'bytes_sent'
"""


@pytest.fixture
def ledger(settings: Settings) -> Path:
    """A shard's ledger: a whole run, a half one, a new one, and two that are quarantined by one cause."""
    path = settings.state_folder / "results-2-of-4.sqlite3"
    path.parent.mkdir()
    with closing(Ledger.open(path)) as made:
        for statement in _ROWS.split(";\n"):
            made.write(partial(_execute, statement))
    return path


def _execute(statement: str, db: Connection) -> None:
    db.execute(statement)


def read(path: Path) -> ShardReport:
    found = shard_reports(path.parent)
    assert not found.unreadable
    return found.reports[path.with_suffix(SUFFIX).name]


def test_a_report_tells_what_the_ledger_knows_and_how_the_shard_ended(
    settings: Settings, ledger: Path
) -> None:
    """Goal: the numbers are the ledger's. Method: one with known runs; told at work, then at the end."""
    reporter = ShardReporter(settings, ledger, SHARD, Selection(projects=("p*",), shard=SHARD))
    reporter.tell()
    told = read(ledger)
    assert (told.shard, told.selection) == (SHARD, "--project 'p*'")
    assert (told.folder, told.destination) == place_of(settings)
    assert (told.host, told.pid) == (socket.gethostname(), os.getpid())
    assert (told.ended_at, told.exit_code) == (None, None)
    assert (told.runs_found, told.runs_done, told.runs_waiting, told.runs_to_act_on) == (5, 1, 2, 2)
    assert (told.files_there, told.files_waiting, told.bytes_waiting) == (1, 1, 30)
    assert (told.files_sent, told.bytes_sent) == (7, 70)
    [cause] = told.causes
    assert (cause.state, cause.count, cause.run) == ("quarantined", 2, "p/d/bad")
    reporter.tell(exit_code=3)
    ended = read(ledger)
    assert (ended.exit_code, ended.begun_at) == (3, told.begun_at)
    assert ended.ended_at == ended.told_at >= told.told_at
    reporter.tell(
        exit_code=4, error=ConfigurationError("open bucket", "b", "it is not there", hint="make it")
    )
    first, second = read(ledger).causes
    assert (first.state, first.run, first.hint) == ("failed", "shard 2/4", "make it")
    assert "it is not there" in first.cause
    assert second == cause
    assert [path.name for path in ledger.parent.glob("*shard*")] == [ledger.with_suffix(SUFFIX).name]


@pytest.mark.parametrize("selection", [EVERYTHING, Selection(projects=("p",)), Selection(shard=SHARD)])
def test_counters_and_counting_tell_the_same(ledger: Path, selection: Selection) -> None:
    """Goal: it matters not how it is counted. Method: the whole ledger, and a selection that is all of it."""
    with closing(Ledger.open(ledger, read_only=True)) as known:
        found = known.read(lambda db: files_standing(db, selection))
    assert found == FilesStanding(5, 1, 2, 2, files_there=1, files_waiting=1, bytes_waiting=30)


def test_it_is_kept_until_the_end(settings: Settings, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: it is written at the beginning, and anew. Method: a short interval; the file's time moves on."""
    reporter = ShardReporter(settings, ledger, SHARD, EVERYTHING)
    assert reporter.interval_seconds == 10
    assert ShardReporter(settings, ledger, Shard(1, 300), EVERYTHING).interval_seconds == 30
    assert ShardReporter(settings, ledger, Shard(1, 50_000), EVERYTHING).interval_seconds == 60
    reporter.interval_seconds = 0.0
    monkeypatch.setattr(shard_report, "_COUNTING_SHARE", 1.0)
    seen: set[float] = set()

    async def see() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reporter.keep)
            with anyio.fail_after(60):
                while len(seen) < 3:
                    if ledger.with_suffix(SUFFIX).exists():
                        seen.add(read(ledger).told_at)
                    await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()

    anyio.run(see)


def test_a_folder_that_cannot_be_written_is_told_once(
    settings: Settings, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the shard goes on. Method: a folder in the report's place; then it can be written again."""
    blocked = ledger.with_suffix(SUFFIX)
    blocked.mkdir()
    reporter = ShardReporter(settings, ledger, SHARD, EVERYTHING)
    with caplog.at_level(logging.INFO):
        reporter.tell()
        reporter.tell()
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        assert "work goes on" in caplog.text
        blocked.rmdir()
        reporter.tell()
        reporter.tell()
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    assert read(ledger).shard == SHARD


def test_a_ledger_that_cannot_be_read_leaves_the_numbers_as_they_were(
    settings: Settings, ledger: Path
) -> None:
    """Goal: a shard in trouble still tells that it lives. Method: its ledger becomes no database."""
    reporter = ShardReporter(settings, ledger, SHARD, EVERYTHING)
    reporter.tell()
    before = read(ledger)
    for path in ledger.parent.glob(f"{ledger.name}*"):
        path.write_bytes(b"no database at all")
    reporter.tell(exit_code=5)
    after = read(ledger)
    assert (after.files_there, after.causes, after.exit_code) == (before.files_there, before.causes, 5)


def _broken() -> Iterator[tuple[str, bytes]]:
    document = json.loads(WHOLE)
    changes: dict[str, dict[str, Any]] = {
        "another shard": {"shard": "5/4"},
        "no shard": {"shard": 7},
        "a negative number": {"files_there": -1},
        "a number beyond all": {"bytes_sent": 10**400},
        "a time beyond all": {"told_at": 1e300},
        "no process": {"pid": 0},
        "no destination": {"destination": ["bucket"]},
        "another kind": {"causes": {"a": 1}},
    }
    for name, change in changes.items():
        yield name, json.dumps({**document, **change}).encode()
    yield "not a number", WHOLE.replace(b'"told_at":', b'"told_at":NaN,"x":')
    yield "nothing", b""
    yield "a list", b"[]"
    yield "too deep", b"[" * 100_000
    yield "too long", WHOLE[:-1] + b',"x":"' + b"x" * 2**20 + b'"}'


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in _broken()])
def test_what_is_no_report_is_named_and_the_others_are_read(tmp_path: Path, content: bytes) -> None:
    """Goal: one bad file hides no shard. Method: each kind of damage beside a whole report."""
    leave(report_of("1/4", NOW), tmp_path, "whole")
    (tmp_path / f"bad{SUFFIX}").write_bytes(content)
    found = shard_reports(tmp_path)
    assert found.unreadable == {f"bad{SUFFIX}": "it is no whole report of a shard"}
    assert [str(one.shard) for one in found.reports.values()] == ["1/4"]


def test_a_newer_version_and_things_that_are_no_files_are_named(tmp_path: Path) -> None:
    """Goal: as above. Method: a report of a later form, one with more keys, a folder, a pipe, a link."""
    newer = {**json.loads(WHOLE), "version": 2, "shard": {"of": 4}}
    (tmp_path / f"newer{SUFFIX}").write_text(json.dumps(newer))
    (tmp_path / f"richer{SUFFIX}").write_text(json.dumps({**json.loads(WHOLE), "speed": 5}))
    (tmp_path / f"folder{SUFFIX}").mkdir()
    os.mkfifo(tmp_path / f"pipe{SUFFIX}")
    (tmp_path / f"link{SUFFIX}").symlink_to(tmp_path / f"richer{SUFFIX}")
    (tmp_path / "other.json").write_bytes(WHOLE)
    found = shard_reports(tmp_path)
    assert list(found.reports) == [f"richer{SUFFIX}"]
    assert set(found.unreadable) == {f"{name}{SUFFIX}" for name in ("newer", "folder", "pipe", "link")}
    assert found.unreadable[f"newer{SUFFIX}"] == "a newer version of pixaris-sync wrote it"


@given(st.data())
def test_damage_of_any_kind_breaks_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Goal: as above. Method: bytes cut out of a whole report and put in; it is read, or named."""
    begin = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(begin, len(WHOLE)))
    folder = tmp_path_factory.mktemp("state")
    (folder / f"one{SUFFIX}").write_bytes(WHOLE[:begin] + data.draw(st.binary(max_size=9)) + WHOLE[end:])
    found = shard_reports(folder)
    assert len(found.reports) + len(found.unreadable) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: NFS says ESTALE then. Method: the first opening fails so; then all of them do."""
    leave(report_of("1/4", NOW), tmp_path)
    fails = [True]
    opened: Any = os.open

    def stale(*arguments: Any, **options: Any) -> int:
        if fails and fails.pop():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        handle: int = opened(*arguments, **options)
        return handle

    monkeypatch.setattr(os, "open", stale)
    assert len(shard_reports(tmp_path).reports) == 1
    fails += [True, True]
    assert list(shard_reports(tmp_path).unreadable.values()) == [os.strerror(errno.ESTALE)]


def test_a_state_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    """Goal: a new machine is no mistake. Method: no folder; a file in its place."""
    assert shard_reports(tmp_path / "nowhere").reports == {}
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        shard_reports(tmp_path / "file")
