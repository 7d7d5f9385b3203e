"""``sync --repair`` on the emulators: what was removed from the cloud comes back, and nothing changes."""

import re
import shlex
from pathlib import Path

import pytest
from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine, Outcome
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, picture, store_run

TABLE = f"{PROJECT}_{DATASET}_experiment_results"
OTHER = "other"


@pytest.fixture
def runs(command_line: CommandLine) -> list[StoredRun]:
    """Three synced runs, one of them in a dataset of its own."""
    metrics = {"score": 0.5, "steps": 7, "details": {"a": 1}}
    args = {"flow": {"b": 2}, "mask": picture(9)}
    stored = [
        store_run(command_line.folder, "first", images=2, metrics=metrics, args=args),
        store_run(command_line.folder, "second", metrics={"score": 1.5, "steps": 8}),
        store_run(command_line.folder, "third", dataset=OTHER, metrics={"score": 2.5}),
    ]
    command_line.sync()
    return stored


def hinted(outcome: Outcome) -> list[str]:
    """The first command that a hint names, as arguments."""
    [command, *_] = re.findall(r"`pixaris-sync ([^`]+)`", outcome.stdout + outcome.stderr)
    return shlex.split(command)


def remove_object(bucket: Bucket, run: StoredRun, path: str) -> str:
    name = f"results/{run.key}/{path}"
    bucket.blob(name).delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    return name


@pytest.mark.large
def test_following_the_hint_of_verify_literally_restores_an_object(
    command_line: CommandLine, runs: list[StoredRun], bucket: Bucket, pixaris: Reader
) -> None:
    """Goal: the advice is true. Method: remove an object, run what `verify` says; then all is healthy."""
    before = {name: crc32c for name, (crc32c, _) in pixaris.objects().items()}
    remove_object(bucket, runs[0], "generated_images/image_1.png")
    told = command_line.run("verify")
    assert told.code == 1

    outcome = command_line.run(*hinted(told))

    assert hinted(told) == ["sync", "--repair"]
    assert outcome.code == 0, str(outcome)
    assert "taken up again: 1 object and 0 rows that the cloud had lost" in outcome.stdout
    assert {name: crc32c for name, (crc32c, _) in pixaris.objects().items()} == before
    assert command_line.run("verify").code == 0
    again = command_line.run("sync", "--repair")
    assert again.code == 0, str(again)
    assert "0 files uploaded (0 B), 0 found there, 0 rows synced" in again.stdout
    assert "nothing to repair: no object and no row is missing or different" in again.stdout


@pytest.mark.large
def test_finding_12_what_was_deleted_in_the_cloud_comes_back(
    command_line: CommandLine,
    runs: list[StoredRun],
    bucket: Bucket,
    warehouse: Warehouse,
    pixaris: Reader,
    tmp_path: Path,
) -> None:
    """Goal: objects, rows and whole tables are restored; sync alone leaves them as they are, and ends with 0.

    Method: delete objects of every kind, a row, and a table; verify, sync, repair; Pixaris reads all again.
    """
    first, second, third = runs
    before, frame = pixaris.objects(), pixaris.frame()
    paths = ("generated_images/image_0.png", "flow.json", "mask.png", "details.json")
    removed = [remove_object(bucket, first, path) for path in paths]
    table, other = warehouse.cloud.table(TABLE), f"{PROJECT}_{OTHER}_experiment_results"
    warehouse.ask(f"DELETE FROM `{table}` WHERE experiment_run_name = '{second.name}'")  # noqa: S608 - the test's own
    warehouse.client.delete_table(warehouse.cloud.table(other), retry=NO_RETRY, timeout=TIMEOUT_SECONDS)

    told = command_line.run("verify").stdout
    document = command_line.sync()

    for name in removed:
        assert f"- {name}: not in the bucket\n" in told
    assert f"- {TABLE}:{second.name}: not in the table\n" in told
    assert f"- {other}:{third.name}: not in the table\n" in told
    assert (document["files_uploaded"], document["rows_synced"]) == (0, 0)
    assert pixaris.runs() == [first.name]

    document = command_line.sync("--repair")

    assert document["repair"] == {"objects": 4, "rows": 2, "left": []}
    assert (document["files_uploaded"], document["rows_synced"]) == (4, 3)
    after = pixaris.objects()
    assert {name: crc32c for name, (crc32c, _) in after.items()} == {
        name: crc32c for name, (crc32c, _) in before.items()
    }
    assert {name for name, stored in after.items() if stored != before[name]} == set(removed)
    assert pixaris.frame().equals(frame)
    assert pixaris.runs(dataset=OTHER) == [third.name]
    assert set(pixaris.images(first.key, tmp_path)) == {"image_0.png", "image_1.png"}
    assert command_line.run("verify").code == 0


@pytest.mark.large
def test_finding_12_a_deleted_column_is_told_and_its_rows_stay(
    command_line: CommandLine, runs: list[StoredRun], warehouse: Warehouse, pixaris: Reader
) -> None:
    """Goal: a row that lost a value differs, it is not missing. Method: drop a column; verify, repair."""
    table = warehouse.cloud.table(TABLE)
    warehouse.ask(f"ALTER TABLE `{table}` DROP COLUMN steps")

    told = command_line.run("verify").stdout
    document = command_line.sync("--repair")

    lines = [f"* {TABLE}:{run.name}: other values than in the record: steps" for run in runs[:2]]
    assert [line for line in told.splitlines() if line.startswith(f"* {TABLE}")] == lines
    assert (document["repair"]["objects"], document["repair"]["rows"]) == (0, 0)
    assert [finding["sign"] for finding in document["repair"]["left"]] == ["*", "*"]
    assert pixaris.runs() == [run.name for run in runs[:2]]


@pytest.mark.large
def test_what_others_put_in_place_of_what_they_removed_stays(
    command_line: CommandLine, runs: list[StoredRun], bucket: Bucket, warehouse: Warehouse, pixaris: Reader
) -> None:
    """Goal: nothing that is there is overwritten or sent twice.

    Method: replace an object, correct a cell, add a column and fill it; repair tells the first two.
    """
    name = f"results/{runs[0].key}/mask.png"
    bucket.blob(name).upload_from_string(b"theirs", retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    table = warehouse.cloud.table(TABLE)
    warehouse.ask(f"ALTER TABLE `{table}` ADD COLUMN review STRING")
    warehouse.ask(f"UPDATE `{table}` SET review = 'good' WHERE TRUE")  # noqa: S608 - the test's own
    warehouse.ask(f"UPDATE `{table}` SET steps = 9 WHERE experiment_run_name = '{runs[1].name}'")  # noqa: S608

    document = command_line.sync("--repair")

    assert (document["repair"]["objects"], document["repair"]["rows"]) == (0, 0)
    assert [(left["sign"], left["subject"]) for left in document["repair"]["left"]] == [
        ("*", name),
        ("*", f"{TABLE}:{runs[1].name}"),
    ]
    assert pixaris.content(name) == b"theirs"
    assert list(pixaris.frame()["steps"]) == [7, 9]


@pytest.mark.large
def test_what_is_gone_here_too_is_told(
    command_line: CommandLine, runs: list[StoredRun], bucket: Bucket
) -> None:
    """Goal: exit 3 and the remedy, not a false 0. Method: remove a file and its object; repair."""
    path = "generated_images/image_0.png"
    name = remove_object(bucket, runs[0], path)
    (runs[0].folder / path).unlink()

    outcome = command_line.run("sync", "--repair")

    assert outcome.code == 3, str(outcome)
    assert f"left  - {name}: not in the bucket; the local file is gone too" in outcome.stdout
    left = command_line.sync("--repair", expect=3)["repair"]["left"]
    assert [finding["hint"] for finding in left] == ["restore it from a backup"]
