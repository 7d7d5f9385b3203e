"""The results folder is moved, mounted or spelled otherwise: it goes on where it was."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import HOME
from tests.support.command_line import COMMAND, CommandLine, Watching
from tests.support.proxy import Proxies
from tests.support.stored_runs import Reader, store_run


def at(command_line: CommandLine, folder: Path) -> CommandLine:
    """The same command line on another folder."""
    return CommandLine(folder, command_line.state_dir, command_line.environment)


@pytest.mark.large
def test_a_moved_folder_goes_on_and_another_in_its_place_begins(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: nothing is asked or sent anew, nothing is mixed up. Method: mv, then sync; mkdir, then sync."""
    old = [store_run(proxied.folder, f"old-{number}", args={"flow": {"a": number}}) for number in range(2)]
    proxied.sync()
    moved = at(proxied, proxied.folder.rename(tmp_path / "moved"))
    plan = moved.run("backfill", "--dry-run", "--json").document
    proxies.forget()

    assert (plan["files"], plan["files_found"], plan["rows"]) == (0, 0, 0)
    assert moved.status()["runs"]["synced"] == 2
    assert moved.run("retry", "--all").stdout == "0 runs taken up again\n"
    first = moved.run("sync")
    again = moved.run("sync")

    assert (first.code, again.code) == (0, 0)
    assert f"the results folder was {proxied.folder} before: its ledger {proxied.ledgers()[0]} goes on" in (
        first.stderr
    )
    assert "before" not in again.stderr
    assert proxies.seen == []
    assert len(proxied.ledgers()) == 1
    assert moved.run("verify").code == 0

    proxied.folder.mkdir()
    new = store_run(proxied.folder, "new")
    assert proxied.run("status").code == 4
    document = proxied.sync()
    assert (document["rows_synced"], document["runs"]["synced"]) == (1, 1)
    assert pixaris.runs() == sorted(run.name for run in [*old, new])
    assert (moved.status()["runs"]["synced"], proxied.status()["runs"]["synced"]) == (2, 1)
    assert moved.status()["ledger"] != proxied.status()["ledger"]


@pytest.mark.large
def test_another_folder_in_the_place_of_a_moved_one_is_told(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: who moved it by mistake learns where its ledger is. Method: mv, a new run, two syncs."""
    store_run(command_line.folder)
    command_line.sync()
    command_line.folder.rename(tmp_path / "moved")
    store_run(command_line.folder, "new")
    [ledger] = command_line.ledgers()

    told = [command_line.run("sync").stderr.count(f"keeps its ledger {ledger}") for _ in range(2)]

    assert told == [1, 0]


@pytest.mark.large
def test_a_folder_that_is_moved_under_a_service_is_still_owned_by_it(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: one owner, and questions find it. Method: mv under watch, mkdir; ask and sync at both."""
    store_run(command_line.folder)
    with Watching(command_line, tmp_path) as watch:
        watch.wait_until_ready()
        watch.until(lambda: command_line.status()["runs"]["synced"] == 1, "its run is synced")
        owner = f"process {watch.process.pid} "
        moved = at(command_line, command_line.folder.rename(tmp_path / "moved"))
        command_line.folder.mkdir()

        assert owner in moved.status()["owner"]
        assert moved.run("limit", "--bandwidth-limit", "5MiB").stdout.startswith("bandwidth limit: 5.0 MiB/s")
        for place in (moved, command_line):
            outcome = place.run("sync")
            assert outcome.code == 11, str(outcome)
        assert watch.end() == 0


@pytest.mark.parametrize(
    "spelled",
    [{"GCP_PROJECT_ID": "another-project"}, {"GCP_BQ_EXPERIMENT_DATASET": None}],
    ids=["another project pays", "the dataset without its project"],
)
def test_a_destination_that_is_spelled_otherwise_is_the_same(
    proxied: CommandLine, proxies: Proxies, spelled: dict[str, str | None]
) -> None:
    """Goal: a corrected setting sends nothing again. Method: sync, change it, sync; no request is seen."""
    store_run(proxied.folder, args={"flow": {"a": 1}})
    proxied.sync()
    proxies.forget()
    dataset = proxied.environment["PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET"].split(".")[1]

    other = proxied.but(**{f"PIXARIS_SYNC_{key}": value or dataset for key, value in spelled.items()})

    assert other.sync()["rows_synced"] == 0
    assert other.status()["runs"]["synced"] == 1
    assert proxies.seen == []


@pytest.mark.large
def test_a_ledger_of_an_older_version_goes_on(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: an upgrade asks nothing anew. Method: the name of then, no word of a home, a bare dataset."""
    dataset = proxied.environment["PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET"].split(".")[1]
    proxied = proxied.having(gcp_bq_experiment_dataset=dataset)
    store_run(proxied.folder)
    proxied.sync()
    proxies.forget()
    [path] = proxied.ledgers()
    ledger = Ledger.open(path)
    ledger.write(lambda db: db.execute("DELETE FROM facts WHERE name = ?", (HOME,)).rowcount)
    ledger.close()
    names = ("GCP_PROJECT_ID", "GCP_BQ_EXPERIMENT_DATASET", "GCP_PIXARIS_BUCKET_NAME")
    variables = [
        *(f"PIXARIS_SYNC_{name}" for name in names),
        "STORAGE_EMULATOR_HOST",
        "BIGQUERY_EMULATOR_HOST",
    ]
    spelled = [str(proxied.folder), *(proxied.environment[name] for name in variables)]
    digest = hashlib.sha256("\0".join(spelled).encode()).hexdigest()[:16]
    old = path.rename(path.with_name(f"local-results-{digest}.sqlite3"))

    assert proxied.sync()["runs"]["synced"] == 1

    assert proxied.ledgers() == [old]
    assert proxies.seen == []


def test_a_folder_that_is_mounted_elsewhere_goes_on(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: a mount is like a move. Method: a bind mount that one process sees; needs the right to mount."""
    store_run(proxied.folder)
    proxied.sync()
    proxies.forget()
    (tmp_path / "mounted").mkdir()
    mount = f'mount --bind "{proxied.folder}" "{tmp_path / "mounted"}"'
    elsewhere = ["unshare", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*elsewhere, mount], check=False).returncode:
        pytest.skip("no right to mount")

    mounted = at(proxied, tmp_path / "mounted")
    outcome = subprocess.run(
        [*elsewhere, f'{mount} && exec "$0" "$@"', *COMMAND, "sync", "--json"],
        env=mounted.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert json.loads(outcome.stdout)["runs"]["synced"] == 1
    assert len(proxied.ledgers()) == 1
    assert proxies.seen == []


def test_a_state_folder_that_may_not_be_entered_is_told(command_line: CommandLine) -> None:
    """Goal: one line and a hint, no traceback. Method: take its rights away, also from root."""
    store_run(command_line.folder)
    command_line.sync()
    command_line.state_dir.chmod(0)
    try:
        outcomes = [command_line.run(command, powerless=True) for command in ("sync", "status", "verify")]
    finally:
        command_line.state_dir.chmod(0o700)

    for outcome in outcomes:
        assert outcome.code != 0
        assert "Traceback" not in outcome.stderr, str(outcome)
        assert "hint:" in outcome.stderr
