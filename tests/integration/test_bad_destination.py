"""What becomes of work whose destination, settings or permissions are wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, Outcome, Watching
from tests.support.proxy import Answer, Proxies, Request, refusal
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, run_objects, store_run

# -- permissions ------------------------------------------------------------------------------------------


#: The waits between attempts, short enough to see several.
_HASTY = {"retry_delay_seconds_min": 0.05, "retry_delay_seconds_max": 0.2, "sync_attempts_limit": 3}


def _denies_object(name: str) -> Callable[[Request], Answer | None]:
    message = (
        "account does not have storage.objects.create access to the Google Cloud Storage object. "
        "Permission 'storage.objects.create' denied on resource (or it may not exist)."
    )

    def rule(request: Request) -> Answer | None:
        denied = "/upload/" in request.path and request.mentions(name)
        return refusal(403, "forbidden", message) if denied else None

    return rule


def _denies_table(table: str, permission: str) -> Callable[[Request], Answer | None]:
    message = f"Access Denied: Table {table}: Permission {permission} denied on table (or it may not exist)."

    def rule(request: Request) -> Answer | None:
        denied = request.method != "GET" and request.mentions(table)
        return refusal(403, "accessDenied", message) if denied else None

    return rule


def test_an_object_that_may_not_be_written_fails_its_run_only(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: the missing permission is named, others go on. Method: 403 for one object; then allow it.

    It is allowed by itself some day: nothing is quarantined.
    """
    proxied = proxied.having(**_HASTY)
    runs = [store_run(proxied.folder, f"run-{number}", images=2) for number in range(3)]
    proxies.storage.rule = _denies_object(f"{runs[1].name}/generated_images/image_1.png")

    document = proxied.sync(expect=4)

    assert [problem["run"] for problem in document["problems"]] == [str(runs[1].key)]
    problem = document["problems"][0]
    assert problem["state"] == "failing"
    assert "storage.objects.create" in problem["cause"]
    assert "image_1.png" in problem["cause"]
    assert "storage.objects.create" in problem["hint"]
    assert pixaris.runs() == [runs[0].name, runs[2].name]
    proxies.storage.rule = lambda _: None
    assert proxied.having(doubt_settle_seconds=0.5).sync()["runs"]["synced"] == 3
    assert pixaris.runs() == [run.name for run in runs]


def test_retry_beside_the_service_is_noticed(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: `retry` needs no restart. Method: an object is held, then not; `retry` as another process.

    Nothing wakes the service but that process' writing to the ledger.
    """
    held = refusal(403, "retentionPolicyNotMet", "object is under a retention policy")
    proxies.storage.rule = lambda request: held if request.mentions("denied/") else None
    with Watching(proxied, tmp_path, "--rescan-interval-seconds", "86400") as watch:
        watch.wait_until_ready()
        run = store_run(proxied.folder, "denied")
        watch.until(lambda: proxied.status()["runs"]["quarantined"] == 1, "its run needs attention")
        proxies.storage.rule = lambda _: None
        assert proxied.run("retry", "--all").code == 0
        watch.until(lambda: pixaris.runs() == [run.name], "its row can be read")
        assert watch.end() == 0


@pytest.mark.parametrize(
    "there_before",
    [pytest.param(False, id="new table"), pytest.param(True, id="known table", marks=pytest.mark.large)],
)
def test_a_table_that_may_not_be_written_fails_its_runs_only(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, *, there_before: bool
) -> None:
    """Goal: the missing permission is named, others go on. Method: 403 for all writes to one table."""
    if there_before:
        for dataset in ("denied", "allowed"):
            store_run(proxied.folder, "before", dataset=dataset)
        proxied.sync()
    permission = "bigquery.tables.updateData" if there_before else "bigquery.tables.create"
    proxies.bigquery.rule = _denies_table(f"{PROJECT}_denied_experiment_results", permission)
    # Two in one batch: none of them may be taken for the bad row of it.
    denied = [store_run(proxied.folder, f"run-{number}", dataset="denied") for number in range(2)]
    allowed = store_run(proxied.folder, "run-2", dataset="allowed")

    hasty = proxied.having(table_settle_seconds=0, **_HASTY)
    document = hasty.sync(expect=4)

    failing = [problem["run"] for problem in document["problems"] if problem["state"] == "failing"]
    assert sorted(failing) == [str(run.key) for run in denied]
    assert document["runs"]["quarantined"] == 0
    assert all(permission in problem["cause"] for problem in document["problems"])
    assert all("BigQuery" in problem["hint"] for problem in document["problems"])
    assert pixaris.runs(dataset="allowed")[-1] == allowed.name
    assert len(pixaris.runs(dataset="denied")) == there_before
    proxies.bigquery.rule = lambda _: None
    assert hasty.sync()["problems"] == []
    assert pixaris.runs(dataset="denied")[-2:] == [run.name for run in denied]


def test_an_account_that_may_only_write_objects_is_enough(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: a write-only service account. Method: 403 for every question to the bucket, also after a loss."""
    run = store_run(proxied.folder, args={"flow": {"a": 1}})

    def only_writes(request: Request) -> Answer | None:
        message = "account does not have storage.objects.list access to the bucket."
        return refusal(403, "forbidden", message) if request.method == "GET" else None

    proxies.storage.rule = only_writes
    # It is unknown what was sent before: the table is asked for so long before the row is sent.
    hasty = proxied.but(PIXARIS_SYNC_DOUBT_SETTLE_SECONDS="0.5")

    assert hasty.sync()["rows_synced"] == 1
    assert pixaris.runs() == [run.name]
    assert set(pixaris.objects()) == run_objects(run, "flow.json", "generated_images/image_0.png")


# -- what must be there before any work --------------------------------------------------------------------


@pytest.fixture
def stored(command_line: CommandLine) -> StoredRun:
    """A run that could be synced if everything else were right."""
    return store_run(command_line.folder)


def _assert_refused(outcome: Outcome, *, naming: str) -> None:
    """Exit 4, one line that names what is wrong, and a hint."""
    assert outcome.code == 4, str(outcome)
    assert outcome.stdout == ""
    said = [line for line in outcome.stderr.splitlines() if " INFO " not in line]
    assert [line.partition(":")[0] for line in said] == ["error", "hint"], str(outcome)
    assert naming in said[0], str(outcome)


def _no_folder(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def _file_instead(folder: Path) -> None:
    _no_folder(folder)
    folder.write_text("")


def _unreadable(folder: Path) -> None:
    folder.chmod(0o300)


def _not_to_be_entered(folder: Path) -> None:
    folder.chmod(0o600)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("spoil", "command"),
    [
        *((spoil, "sync") for spoil in (_no_folder, _file_instead, _unreadable, _not_to_be_entered)),
        (_no_folder, "watch"),
    ],
)
def test_a_results_folder_that_cannot_be_read_is_told(
    command_line: CommandLine, spoil: Callable[[Path], None], command: str
) -> None:
    """Goal: exit 4 before any work. Method: move it, put a file there, take away permissions."""
    spoil(command_line.folder)
    try:
        outcome = command_line.run(command, powerless=True)
    finally:
        command_line.folder.chmod(0o700) if command_line.folder.exists() else None

    _assert_refused(outcome, naming=str(command_line.folder))
    assert not command_line.state_dir.exists()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("content", "naming"),
    [
        (None, "No such file"),
        ("a: [", "not valid YAML"),
        ("- a list", "not a mapping"),
        ("pixaris_sync:\n  no_such_key: 1", "no_such_key"),
        ("pixaris_sync:\n  upload_concurrency_limit: 0", "upload-concurrency-limit"),
        ("pixaris_sync:\n  chunk_bytes: many", "chunk-bytes"),
    ],
)
def test_a_config_that_cannot_be_used_is_told(
    command_line: CommandLine, tmp_path: Path, content: str | None, naming: str
) -> None:
    """Goal: exit 4. Method: no file, no YAML, no mapping, keys and values that nobody knows."""
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)

    outcome = command_line.run("sync", "--config", str(config))

    _assert_refused(outcome, naming=naming.replace("-", "_") if content and ":\n" in content else naming)
    assert not command_line.state_dir.exists()


@pytest.mark.usefixtures("stored")
def test_a_setting_that_is_missing_is_told(command_line: CommandLine) -> None:
    """Goal: exit 4 and how to set it. Method: take each of the three names of the destination away."""
    for key in ("GCP_PROJECT_ID", "GCP_BQ_EXPERIMENT_DATASET", "GCP_PIXARIS_BUCKET_NAME"):
        outcome = command_line.but(**{f"PIXARIS_SYNC_{key}": None}).run("sync")

        _assert_refused(outcome, naming=key.lower())
        assert f"PIXARIS_SYNC_{key}" in outcome.stderr


@pytest.mark.usefixtures("stored")
def test_a_state_folder_inside_the_results_is_refused(command_line: CommandLine) -> None:
    """Goal: Pixaris would list it as a project. Method: put it there; nothing is made."""
    inside = command_line.folder / "state"

    outcome = command_line.run("sync", "--state-dir", str(inside))

    _assert_refused(outcome, naming=str(inside))
    assert not inside.exists()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("content", [None, "no JSON", "{}"], ids=["missing", "garbage", "empty"])
def test_credentials_that_cannot_be_used_are_told(
    command_line: CommandLine, tmp_path: Path, content: str | None
) -> None:
    """Goal: exit 4 before any work. Method: no emulator, and a credentials file that is none."""
    credentials = tmp_path / "credentials.json"
    if content is not None:
        credentials.write_text(content)
    real = command_line.but(
        STORAGE_EMULATOR_HOST=None,
        BIGQUERY_EMULATOR_HOST=None,
        GOOGLE_APPLICATION_CREDENTIALS=str(credentials),
    )

    outcome = real.run("sync")

    _assert_refused(outcome, naming="credentials")
    assert "gcloud auth application-default login" in outcome.stderr


@pytest.mark.usefixtures("stored")
def test_credentials_that_are_refused_are_told(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: exit 4. Method: every request is answered with 401."""
    proxies.set_rule(lambda _: refusal(401, "authError", "Invalid Credentials"))

    _assert_refused(proxied.run("sync"), naming="credentials")

    assert proxies.uploads == 0


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("key", ["GCP_PIXARIS_BUCKET_NAME", "GCP_BQ_EXPERIMENT_DATASET"])
def test_a_destination_that_is_not_there_is_told(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, key: str
) -> None:
    """Goal: exit 4 before any work. Method: a bucket, then a dataset, that does not exist; no upload."""
    outcome = proxied.but(**{f"PIXARIS_SYNC_{key}": "missing_one"}).run("sync")

    _assert_refused(outcome, naming="missing_one")
    assert key.lower() in outcome.stderr
    assert (proxies.uploads, proxies.deliveries) == (0, 0)
    assert pixaris.objects() == {}


def test_pixaris_own_config_is_taken_as_it_is(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: one file for both. Method: its three keys beside others and ours, nothing in the environment."""
    run = store_run(command_line.folder)
    keys = ("GCP_PROJECT_ID", "GCP_BQ_EXPERIMENT_DATASET", "GCP_PIXARIS_BUCKET_NAME")
    document = {
        **{key.lower(): command_line.environment[f"PIXARIS_SYNC_{key}"] for key in keys},
        "comfy_api_url": "http://localhost:8188",
        "pixaris_sync": {"young_file_seconds": 1},
    }
    config = command_line.folder.parent / "config.yaml"
    config.write_text(json.dumps(document))

    bare = command_line.but(**{f"PIXARIS_SYNC_{key}": None for key in keys})

    assert bare.sync("--config", str(config))["rows_synced"] == 1
    assert pixaris.runs(PROJECT, DATASET) == [run.name]


@pytest.mark.large
def test_a_results_folder_one_or_two_levels_off_is_refused_and_the_right_one_named(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: no "runs none" with exit code 0. Method: each command on each level around the right folder."""
    right = tmp_path / "home" / "local_results"
    run = store_run(right)
    for folder in (right.parent, run.folder.parent.parent, run.folder.parent):
        wrong = CommandLine(folder, command_line.state_dir, command_line.environment)
        commands = ("sync", "backfill", "watch", "status", "verify") if folder == right.parent else ("sync",)
        for outcome in map(wrong.run, commands):
            assert outcome.code == 4, str(outcome)
            assert outcome.stderr.endswith(f"hint: set local_results_folder to {right}\n"), str(outcome)
    assert command_line.sync()["runs"]["synced"] == 0
    assert CommandLine(right, command_line.state_dir, command_line.environment).sync()["rows_synced"] == 1
