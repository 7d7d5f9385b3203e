"""The real command on the emulators, while others change, lose and remove things: no row comes twice."""

import json
import shutil
from pathlib import Path

import pytest
from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, picture, store_run

TABLE = f"{PROJECT}_{DATASET}_experiment_results"


@pytest.fixture
def runs(command_line: CommandLine) -> list[StoredRun]:
    """Three synced runs: one with a saved file, so that its row holds a link."""
    stored = [
        store_run(command_line.folder, "linked", images=2, metrics={"score": 0.5}, args={"mask": picture(9)}),
        store_run(command_line.folder, "plain", metrics={"score": 1.5}),
        store_run(command_line.folder, "pruned", metrics={"score": 2.5}),
    ]
    command_line.sync()
    return stored


def lose_ledger(command_line: CommandLine) -> None:
    for path in command_line.state_dir.iterdir():
        path.unlink()


def remove_objects(bucket: Bucket, run: StoredRun) -> None:
    for blob in list(
        bucket.list_blobs(prefix=f"results/{run.key}/", retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    ):
        blob.delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)


def assert_nothing_sent(command_line: CommandLine, pixaris: Reader, runs: list[StoredRun]) -> None:
    """A dry run foresees nothing, a pass does nothing, and each run has one row."""
    before = pixaris.objects()
    plan = command_line.run("backfill", "--dry-run", "--json").document
    document = command_line.sync()

    assert (plan["files"], plan["rows"], plan["not_carried"]) == (0, 0, [])
    assert document["files_uploaded"] == 0
    assert document["runs"] == {**dict.fromkeys(document["runs"], 0), "synced": len(runs)}
    assert pixaris.runs() == sorted(run.name for run in runs)
    assert pixaris.objects() == before


@pytest.mark.large
def test_finding_1_a_lost_ledger_and_objects_that_are_gone(
    command_line: CommandLine, runs: list[StoredRun], bucket: Bucket, pixaris: Reader
) -> None:
    """Goal: a run whose row stands was synced; what its objects lack is told, and not sent again by itself.

    Method: remove all objects of a run, lose the ledger, sync; `verify` tells, `sync --repair` restores.
    """
    remove_objects(bucket, runs[0])
    lose_ledger(command_line)

    assert_nothing_sent(command_line, pixaris, runs)

    told = command_line.run("verify")
    assert told.code == 1
    assert f"- results/{runs[0].key}/mask.png: not in the bucket" in told.stdout
    document = command_line.sync("--repair")
    assert document["repair"] == {"objects": 3, "rows": 0, "left": []}
    assert command_line.run("verify").code == 0
    assert pixaris.runs() == sorted(run.name for run in runs)


@pytest.mark.large
def test_finding_1_another_project_is_not_another_row(
    command_line: CommandLine, runs: list[StoredRun], pixaris: Reader
) -> None:
    """Goal: links in other words make no other row. Method: lose the ledger, correct gcp_project_id, sync."""
    lose_ledger(command_line)
    corrected = command_line.having(gcp_project_id="corrected-project")

    assert_nothing_sent(corrected, pixaris, runs)

    assert corrected.run("verify").code == 0


@pytest.mark.large
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE `{table}` ADD COLUMN review STRING; UPDATE `{table}` SET review = 'good' WHERE TRUE",
        "UPDATE `{table}` SET score = 0.75 WHERE score < 1",
        (
            "CREATE OR REPLACE TABLE `{table}` AS"
            " SELECT * REPLACE (CAST(score AS STRING) AS score) FROM `{table}`"
        ),
    ],
    ids=["a column was added and filled", "a cell was corrected", "a type was changed"],
)
def test_finding_2_a_lost_ledger_and_rows_that_somebody_touched(
    command_line: CommandLine, runs: list[StoredRun], warehouse: Warehouse, pixaris: Reader, change: str
) -> None:
    """Goal: what others add or change makes no other row. Method: each change, a lost ledger, a pass."""
    for statement in change.format(table=warehouse.cloud.table(TABLE)).split("; "):
        warehouse.ask(statement)
    lose_ledger(command_line)

    assert_nothing_sent(command_line, pixaris, runs)


@pytest.mark.large
def test_finding_8_two_machines_one_after_the_other(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a copy of a folder is synced from anywhere. Method: a run without images, two folders."""
    accepting = command_line.having(accept_runs_without_images=True)
    run = store_run(accepting.folder, "bare", images=0, metrics={"score": 0.5})
    accepting.sync()
    other = tmp_path / "other machine"
    shutil.copytree(accepting.folder, other / "local_results")
    second = CommandLine(other / "local_results", other / "state", accepting.environment)

    assert_nothing_sent(second, pixaris, [run])


def test_finding_9_an_older_ledger_comes_back(
    command_line: CommandLine, runs: list[StoredRun], pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a backup of the ledger repeats nothing. Method: copy it, sync more, put the copy back, sync."""
    shutil.copytree(command_line.state_dir, tmp_path / "backup")
    later = store_run(command_line.folder, "later", metrics={"score": 3.5})
    command_line.sync()
    shutil.rmtree(command_line.state_dir)
    shutil.copytree(tmp_path / "backup", command_line.state_dir)

    assert_nothing_sent(command_line, pixaris, [*runs, later])


@pytest.mark.large
def test_finding_10_records_that_make_equal_rows_need_a_row_each(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: neither is lost, nor claimed falsely. Method: 1 and 1.0 in records of a run."""
    run = store_run(command_line.folder, "twice", metrics={"score": 1.0})
    tracking = command_line.folder / PROJECT / DATASET / "experiment_tracking.jsonl"
    record = json.loads(tracking.read_text(encoding="utf-8"))
    with tracking.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**record, "score": 1}) + "\n")

    document = command_line.sync()

    assert document["rows_synced"] == 2
    assert pixaris.runs() == [run.name, run.name]
    lose_ledger(command_line)
    again = command_line.sync()
    assert (again["runs"]["synced"], again["files_uploaded"]) == (1, 0)
    assert pixaris.runs() == [run.name, run.name]


def test_finding_13_a_lost_ledger_and_runs_that_were_pruned_here(
    command_line: CommandLine, runs: list[StoredRun], pixaris: Reader
) -> None:
    """Goal: they are history, and nothing is wrong with them. Method: delete a run, lose the ledger."""
    shutil.rmtree(command_line.folder / str(runs[2].key))
    lose_ledger(command_line)

    assert_nothing_sent(command_line, pixaris, runs)

    assert command_line.status()["problems"] == []
