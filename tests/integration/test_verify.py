"""The command ``verify`` on the emulators: what it finds, prints and exits with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine
from tests.support.stored_runs import DATASET, PROJECT, StoredRun, picture, store_run

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

_TABLE = f"{PROJECT}_{DATASET}_experiment_results"


@dataclass(frozen=True, slots=True)
class _Synced:
    """Two synced runs, and the means to spoil them."""

    command_line: CommandLine
    bucket: Bucket
    warehouse: Warehouse
    first: StoredRun
    second: StoredRun

    def object_of(self, run: StoredRun, path: str = "generated_images/image_0.png") -> str:
        return f"results/{run.key}/{path}"

    def row_of(self, run: StoredRun) -> str:
        return f"{_TABLE}:{run.name}"

    def delete_object(self, name: str) -> None:
        self.bucket.blob(name).delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)

    def put_object(self, name: str, content: bytes = b"another") -> None:
        self.bucket.blob(name).upload_from_string(content, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)

    def change_rows(self, sql: str) -> None:
        """Run a statement; ``{table}`` stands for the table, ``{run}`` for the first run's name."""
        table = f"`{self.warehouse.cloud.table(_TABLE)}`"
        self.warehouse.ask(sql.format(table=table, run=f"'{self.first.name}'"))

    def differences(self) -> list[tuple[str, str, str]]:
        """Sign, kind and subject of all findings but ``=``; the exit code must agree with them."""
        outcome = self.command_line.run("verify", "--both-ways", "--json")
        *findings, last = [json.loads(line) for line in outcome.stdout.splitlines()]
        found = [finding for finding in findings if finding["sign"] != "="]
        assert outcome.code == (1 if found else 0), str(outcome)
        assert sum(last["summary"].values()) == len(findings)
        assert last["summary"]["same"] == len(findings) - len(found)
        return [(finding["sign"], finding["kind"], finding["subject"]) for finding in found]


@pytest.fixture
def synced(command_line: CommandLine, bucket: Bucket, warehouse: Warehouse) -> _Synced:
    metrics = {"score": 0.5, "steps": 2**62 + 1, "words": "x", "good": True, "details": {"a": 1}}
    args = {"flow": {"b": 2}, "mask": picture(9), "empty": None, "odd key": [1, 2]}
    first = store_run(command_line.folder, "first", images=2, metrics=metrics, args=args)
    second = store_run(command_line.folder, "second", metrics={"score": float("nan")})
    command_line.sync()
    return _Synced(command_line, bucket, warehouse, first, second)


def test_after_a_sync_everything_is_the_same(synced: _Synced) -> None:
    """Goal: exit 0 and no noise. Method: verify right after a sync; count what was compared."""
    outcome = synced.command_line.run("verify")

    # 2 images, 2 saved args, 1 dict metric and 1 image; 2 rows; 2 runs of the ledger.
    assert outcome.code == 0, str(outcome)
    assert outcome.stdout == "10 same, 0 missing, 0 extra, 0 differs, 0 error\n"
    assert synced.differences() == []


def test_a_deleted_object_is_missing(synced: _Synced) -> None:
    """Goal: ``-``, and the ledger is belied. Method: delete one; read the lines for people too."""
    name = synced.object_of(synced.first)
    synced.delete_object(name)

    assert synced.differences() == [("-", "object", name), ("*", "ledger", str(synced.first.key))]
    outcome = synced.command_line.run("verify")
    lines = outcome.stdout.splitlines()
    assert outcome.code == 1
    assert lines[0] == f"- {name}: not in the bucket"
    assert lines[1].startswith(f"* {synced.first.key}: the ledger says synced, but ")
    assert lines[2:] == [
        "8 same, 1 missing, 0 extra, 1 differs, 0 error",
        "hint: `pixaris-sync sync --repair` restores what was removed from the cloud",
    ]


@pytest.mark.parametrize(
    "path",
    [
        "generated_images/image_0.png",
        pytest.param("mask.png", marks=pytest.mark.large),
        pytest.param("flow.json", marks=pytest.mark.large),
        pytest.param("details.json", marks=pytest.mark.large),
    ],
)
def test_a_changed_object_differs(synced: _Synced, path: str) -> None:
    """Goal: ``*`` for every kind of file. Method: overwrite it."""
    name = synced.object_of(synced.first, path)
    synced.put_object(name)

    assert synced.differences() == [("*", "object", name), ("*", "ledger", str(synced.first.key))]


def test_an_object_that_is_only_there_is_extra(synced: _Synced) -> None:
    """Goal: ``+``. Method: add an object to a run."""
    name = synced.object_of(synced.first, "generated_images/extra.png")
    synced.put_object(name)

    assert synced.differences() == [("+", "object", name)]


def _delete(synced: _Synced) -> list[tuple[str, str, str]]:
    synced.change_rows("DELETE FROM {table} WHERE experiment_run_name = {run}")
    return [("-", "row", synced.row_of(synced.first)), ("*", "ledger", str(synced.first.key))]


def _double(synced: _Synced) -> list[tuple[str, str, str]]:
    synced.change_rows("INSERT INTO {table} SELECT * FROM {table} WHERE experiment_run_name = {run}")
    return [("+", "row", synced.row_of(synced.first))]


def _change(synced: _Synced) -> list[tuple[str, str, str]]:
    synced.change_rows("UPDATE {table} SET steps = 2 WHERE experiment_run_name = {run}")
    return [("*", "row", synced.row_of(synced.first)), ("*", "ledger", str(synced.first.key))]


@pytest.mark.parametrize("spoil", [pytest.param(_delete, marks=pytest.mark.large), _double, _change])
def test_a_row_that_is_not_as_it_should_be_is_found(
    synced: _Synced, spoil: Callable[[_Synced], list[tuple[str, str, str]]]
) -> None:
    """Goal: ``-``, ``+`` and ``*`` for rows. Method: delete, double or change one with SQL."""
    expected = spoil(synced)

    assert synced.differences() == expected


@pytest.mark.large
def test_what_another_machine_stored_is_no_difference_unless_both_ways(
    synced: _Synced, gcp_handler: "GCPExperimentHandler", tmp_path: Path
) -> None:
    """Goal: machines that share a dataset can verify; a doubled row of one's own is still found.

    Method: another machine syncs a run to the dataset, and the real GCPExperimentHandler stores one; verify
    with and without the flag, then with a row of the own run twice.
    """
    folder = tmp_path / "another" / "local_results"
    folder.mkdir(parents=True)
    another = CommandLine(folder, tmp_path / "another" / "state", synced.command_line.environment)
    another = another.but(
        PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(folder), PIXARIS_SYNC_STATE_DIR=str(another.state_dir)
    )
    store_run(folder, "another machine's")
    another.sync()
    gcp_handler.store_results(
        PROJECT,
        DATASET,
        "elsewhere",
        [(picture(3), "image_0.png")],
        {"score": 0.25},
        {"experiment_run_name": "elsewhere"},
    )

    outcome = synced.command_line.run("verify")
    assert outcome.code == 0, str(outcome)
    assert outcome.stdout.splitlines() == [
        "10 same, 0 missing, 4 extra, 0 differs, 0 error",
        "4 objects and rows are only in the cloud: --both-ways lists them",
    ]
    assert another.run("verify").code == 0
    found = synced.differences()
    assert [(sign, kind) for sign, kind, _ in found] == [("+", "object")] * 2 + [("+", "row")] * 2
    assert all("elsewhere" in subject or "another" in subject for _, _, subject in found)

    _double(synced)
    outcome = synced.command_line.run("verify")
    assert outcome.code == 1
    assert outcome.stdout.startswith(
        f"+ {synced.row_of(synced.first)}: one row more than there are records\n"
    )


def test_a_run_stored_since_the_last_sync_is_missing(synced: _Synced) -> None:
    """Goal: what waits is no secret. Method: store a run, verify, sync, verify."""
    new = store_run(synced.command_line.folder, "new")

    assert synced.differences() == [
        ("-", "object", synced.object_of(new)),
        ("-", "row", synced.row_of(new)),
        ("-", "ledger", str(new.key)),
    ]
    synced.command_line.sync()
    assert synced.differences() == []


def test_before_the_first_sync_there_is_nothing_to_compare(command_line: CommandLine) -> None:
    """Goal: a clear error. Method: verify without a ledger."""
    store_run(command_line.folder, "run")

    outcome = command_line.run("verify")

    assert outcome.code != 0
    assert "nothing was ever synced" in outcome.stderr
    assert "hint: " in outcome.stderr
    assert not command_line.state_dir.exists()


def test_a_ledger_that_was_only_begun_is_as_good_as_none(command_line: CommandLine) -> None:
    """Goal: a process killed while it makes its ledger leaves no riddle. Method: an empty file."""
    command_line.sync()
    [ledger] = command_line.ledgers()
    command_line.forget_ledger()
    ledger.touch()
    for question in ("status", "verify"):
        outcome = command_line.run(question)
        assert outcome.code == 4, str(outcome)
        assert "nothing was ever synced" in outcome.stderr
    command_line.sync()
    assert command_line.run("status").code == 0
