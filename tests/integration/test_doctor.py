"""What `doctor` says of a set-up, before services that answer like the real ones, and what it leaves behind.

Acceptance: each seeded misconfiguration is named with its remedy in less than ten seconds, and nothing is
left in bucket, dataset or folder.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery

from tests.integration.cloud import Cloud
from tests.support.command_line import CommandLine, Outcome, Watching
from tests.support.proxy import Answer, Loss, Proxies, Request, Rule, refusal, unavailable
from tests.support.stored_runs import Reader, store_run

SECONDS_MAX = 10.0
COLUMNS = 80
_DATASET = r"^GET .*/datasets/[^/]+$"
_BUCKET = r"^GET /storage/v1/b/[^/]+$"
_PERMISSIONS = r"^GET .*/iam/testPermissions$"


@dataclass(frozen=True)
class Setup:
    """What a misconfiguration is made of: the command line before proxies, and a place for files."""

    proxies: Proxies
    cloud: Cloud
    scratch: Path


Seed = Callable[[CommandLine, Setup], CommandLine]


@dataclass(frozen=True)
class Seeded:
    """A misconfiguration and what must be said of it.

    Attributes:
        seed: makes it.
        check, verdict: the check that tells it.
        found, remedy: words that must stand there.
        powerless: file modes hold.
    """

    seed: Seed
    check: str
    found: str
    remedy: str
    verdict: str = "failed"
    powerless: bool = False


def _answers(pattern: str, answer: Answer | Loss) -> Rule:
    return lambda request: answer if request.matches(pattern) else None


def _storage(pattern: str, answer: Answer | Loss) -> Seed:
    def seed(command_line: CommandLine, setup: Setup) -> CommandLine:
        setup.proxies.storage.rule = _answers(pattern, answer)
        return command_line

    return seed


def _bigquery(pattern: str, answer: Answer | Loss) -> Seed:
    def seed(command_line: CommandLine, setup: Setup) -> CommandLine:
        setup.proxies.bigquery.rule = _answers(pattern, answer)
        return command_line

    return seed


def _bucket(**resource: Any) -> Seed:
    """The bucket as the service describes it."""
    return _storage(_BUCKET, _json({"location": "US", **resource}))


def _lifecycle(**condition: Any) -> Seed:
    return _bucket(lifecycle={"rule": [{"action": {"type": "Delete"}, "condition": condition}]})


def _dataset(**resource: Any) -> Seed:
    reference = {"projectId": "p", "datasetId": "d"}
    return _bigquery(_DATASET, _json({"datasetReference": reference, "location": "US", **resource}))


def _holding(*permissions: str) -> Seed:
    return _storage(_PERMISSIONS, _json({"permissions": [*permissions]}))


def _json(document: Mapping[str, Any], **headers: str) -> Answer:
    return Answer(200, json.dumps(document).encode(), headers)


def _setting(**variables: str | None) -> Seed:
    return lambda command_line, _: command_line.but(**variables)


def _denies(what: str, words: str) -> Rule:
    def rule(request: Request) -> Answer | None:
        return refusal(403, "accessDenied", words) if request.mentions(what) else None

    return rule


def _denied(what: str, words: str) -> Seed:
    def seed(command_line: CommandLine, setup: Setup) -> CommandLine:
        setup.proxies.bigquery.rule = _denies(what, words)
        return command_line

    return seed


def _clock(**ahead: float) -> Seed:
    def seed(command_line: CommandLine, setup: Setup) -> CommandLine:
        date = format_datetime(datetime.now(UTC) - timedelta(**ahead), usegmt=True)
        return _storage(_BUCKET, _json({"location": "US"}, Date=date))(command_line, setup)

    return seed


def _parent_folder(command_line: CommandLine, setup: Setup) -> CommandLine:
    parent = setup.scratch / "home"
    store_run(parent / "local_results")
    return command_line.but(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(parent))


def _project_folder(command_line: CommandLine, _: Setup) -> CommandLine:
    run = store_run(command_line.folder)
    return command_line.but(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(run.folder.parent.parent))


def _unreadable_dataset(command_line: CommandLine, _: Setup) -> CommandLine:
    store_run(command_line.folder).folder.parent.chmod(0o300)
    return command_line


def _closed_folder(command_line: CommandLine, _: Setup) -> CommandLine:
    store_run(command_line.folder)
    command_line.folder.chmod(0o600)
    return command_line


def _closed_state(command_line: CommandLine, _: Setup) -> CommandLine:
    command_line.state_dir.mkdir(mode=0o500)
    return command_line


def _no_certificates(command_line: CommandLine, setup: Setup) -> CommandLine:
    bundle = setup.scratch / "bundle.pem"
    bundle.write_text("no certificate")
    return command_line.but(REQUESTS_CA_BUNDLE=None, CURL_CA_BUNDLE=None, SSL_CERT_FILE=str(bundle))


def _google(command_line: CommandLine, **variables: str) -> CommandLine:
    return command_line.but(STORAGE_EMULATOR_HOST=None, BIGQUERY_EMULATOR_HOST=None, **variables)


def _damaged_credentials(command_line: CommandLine, setup: Setup) -> CommandLine:
    credentials = setup.scratch / "credentials.json"
    credentials.write_text('{"type": "service_account",')
    return _google(command_line, GOOGLE_APPLICATION_CREDENTIALS=str(credentials))


_TABLES = {
    "tables": [
        {
            "tableReference": {"projectId": "p", "datasetId": "d", "tableId": "a_b_experiment_results"},
            "expirationTime": "1900000000000",
            "type": "TABLE",
        }
    ]
}

SEEDED = {
    "missing setting": Seeded(
        _setting(PIXARIS_SYNC_GCP_PROJECT_ID=None),
        "setting",
        "gcp_project_id: it is set nowhere",
        "PIXARIS_SYNC_GCP_PROJECT_ID",
    ),
    "value out of bounds": Seeded(
        _setting(PIXARIS_SYNC_UPLOAD_CONCURRENCY_LIMIT="0"),
        "setting",
        "upload_concurrency_limit",
        "deploy/settings.md",
    ),
    "misspelt variable": Seeded(
        _setting(PIXARIS_SYNC_BUCKETNAME="b"),
        "setting",
        "PIXARIS_SYNC_BUCKETNAME",
        "correct its name",
        "warning",
    ),
    "parent folder": Seeded(
        _parent_folder, "folder", "the results folder lies in it", "set local_results_folder to"
    ),
    "project folder": Seeded(
        _project_folder, "folder", "the folder of one project", "set local_results_folder to"
    ),
    "no folder": Seeded(
        _setting(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER="/nowhere"),
        "folder",
        "it does not exist",
        "local_results_folder",
    ),
    "folder that cannot be entered": Seeded(
        _closed_folder, "folder", "permission denied", "enter it", powerless=True
    ),
    "unreadable dataset": Seeded(
        _unreadable_dataset, "folder", "1 path cannot be read", "chmod", powerless=True
    ),
    "state folder that cannot be written": Seeded(
        _closed_state, "state folder", "cannot write there", "--state-dir", powerless=True
    ),
    "state folder that cannot be made": Seeded(
        _setting(PIXARIS_SYNC_STATE_DIR="/proc/nowhere"),
        "state folder",
        "cannot make it",
        "--state-dir",
        powerless=True,
    ),
    "proxy that is none": Seeded(
        _setting(HTTPS_PROXY="socks5://proxy:1080"), "proxies", "https", "https_proxy"
    ),
    "certificates that are none": Seeded(_no_certificates, "certificates", "SSL_CERT_FILE", "PEM"),
    "damaged credentials": Seeded(_damaged_credentials, "login", "JSON", "GOOGLE_APPLICATION_CREDENTIALS"),
    "no bucket": Seeded(
        _setting(PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME="nobodys-bucket"),
        "bucket",
        "there is no bucket",
        "create the bucket",
    ),
    "refused credentials": Seeded(
        _storage(".", refusal(401, "authError", "Invalid Credentials")),
        "bucket",
        "credentials",
        "gcloud auth",
    ),
    "requester pays": Seeded(
        _storage(
            ".", refusal(400, "required", "Bucket is a requester pays bucket but no user project provided.")
        ),
        "bucket",
        "requester pays",
        "Requester Pays",
    ),
    "no leave to upload": Seeded(
        _holding("storage.objects.list"), "permissions", "storage.objects.create", "Storage Object User"
    ),
    "leave to upload alone": Seeded(
        _holding("storage.objects.create"),
        "permissions",
        "storage.objects.list",
        "enough to upload",
        "warning",
    ),
    "lifecycle": Seeded(_lifecycle(age=30), "lifecycle", "older than 30 days", "matchesPrefix"),
    "lifecycle below results": Seeded(
        _lifecycle(matchesPrefix=["results/shop"], age=1), "lifecycle", "older than 1 day", "matchesPrefix"
    ),
    "retention": Seeded(
        _bucket(retentionPolicy={"retentionPeriod": "86400"}),
        "retention",
        "1 d",
        "retention policy",
        "warning",
    ),
    "holds": Seeded(_bucket(defaultEventBasedHold=True), "holds", "hold", "event-based hold", "warning"),
    "no dataset": Seeded(
        _setting(PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET="nobodys"),
        "dataset",
        "there is no such dataset",
        "create the dataset",
    ),
    "tables that expire": Seeded(
        _dataset(defaultTableExpirationMs=str(60 * 24 * 3600 * 1000)),
        "expiration",
        "after 60 d",
        "default_table_expiration",
    ),
    "partitions that expire": Seeded(
        _dataset(defaultPartitionExpirationMs="86400000"), "partitions", "after 1 d", "expiration", "warning"
    ),
    "dataset of elsewhere": Seeded(
        _dataset(type="LINKED"), "kind of dataset", "elsewhere", "dataset of your own"
    ),
    "table with an end": Seeded(
        _bigquery(r"^GET .*/tables$", _json(_TABLES)),
        "table expiration",
        "a_b_experiment_results",
        "bq update",
    ),
    "no leave for jobs": Seeded(
        _denied("SELECT 1", "User does not have bigquery.jobs.create permission in project p."),
        "jobs",
        "bigquery.jobs.create",
        "BigQuery Job User",
    ),
    "no leave to create tables": Seeded(
        _denied("CREATE TABLE", "Permission bigquery.tables.create denied on dataset"),
        "create table",
        "bigquery.tables.create",
        "BigQuery Data Editor",
    ),
    "no leave to write rows": Seeded(
        _denied("insertAll", "Permission bigquery.tables.updateData denied on table"),
        "streaming",
        "bigquery.tables.updateData",
        "BigQuery Data Editor",
    ),
    "no billing": Seeded(
        _denied("insertAll", "Streaming insert is not allowed in the free tier"),
        "streaming",
        "load jobs",
        "billing",
        "warning",
    ),
    "clock off by minutes": Seeded(
        _clock(seconds=100), "clock", "ahead of the service", "timedatectl", "warning"
    ),
    "clock off by hours": Seeded(_clock(hours=-2), "clock", "behind the service", "timedatectl"),
    "storage that is down": Seeded(_storage(".", unavailable()), "bucket", "503", "an outage passes"),
    "tables that are silent": Seeded(
        _bigquery(".", Loss.SWALLOWED_REQUEST), "dataset", "no answer in", "an outage passes"
    ),
}
BY_DEFAULT = ("missing setting", "lifecycle", "tables that expire", "no leave to write rows")


@pytest.fixture
def setup(proxies: Proxies, cloud: Cloud, tmp_path: Path) -> Setup:
    """Where misconfigurations are made."""
    return Setup(proxies, cloud, tmp_path)


def _files(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def unchanged(
    command_line: CommandLine, cloud: Cloud, pixaris: Reader, bigquery_client: bigquery.Client
) -> Callable[[], AbstractContextManager[None]]:
    """Compares folder, ledgers, objects and tables before and after what is done in it, byte for byte."""

    def seen() -> tuple[object, ...]:
        tables = [table.table_id for table in bigquery_client.list_tables(cloud.dataset_ref)]
        state = _files(command_line.state_dir) if command_line.state_dir.exists() else None
        return _files(command_line.folder), state, pixaris.objects(), tables

    @contextmanager
    def compare() -> Iterator[None]:
        before = seen()
        yield
        assert seen() == before

    return compare


def _doctor(command_line: CommandLine, *arguments: str, powerless: bool = False) -> Outcome:
    """Run it, and see that it is done in time.

    On a machine that is busy with other things, whatever starts is late: by as much as a command that asks
    for nothing needs longer than a second, it may be later. That is asked only of what was late.
    """
    begun = time.monotonic()
    outcome = command_line.run("doctor", *arguments, powerless=powerless)
    seconds = time.monotonic() - begun
    if seconds >= SECONDS_MAX:
        begun = time.monotonic()
        assert command_line.run("doctor", "--help").code == 0
        slowness = max(1.0, time.monotonic() - begun)
        assert seconds < SECONDS_MAX * slowness, str(outcome)
    return outcome


def _checks(outcome: Outcome) -> list[dict[str, str]]:
    checks: list[dict[str, str]] = outcome.document["checks"]
    assert outcome.document["exit_code"] == outcome.code
    assert (outcome.code == 4) == any(check["verdict"] == "failed" for check in checks), str(outcome)
    return checks


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.large) for name in SEEDED]
)
def test_a_misconfiguration_is_named_with_its_remedy(
    name: str, proxied: CommandLine, setup: Setup, unchanged: Callable[[], AbstractContextManager[None]]
) -> None:
    """Goal: each is named with its remedy, exit 4 (0 for a warning), in time. Method: seed one, run doctor.

    Nothing is left in bucket, dataset or folder.
    """
    seeded = SEEDED[name]
    command_line = seeded.seed(proxied, setup)
    with unchanged():
        outcome = _doctor(command_line, "--json", powerless=seeded.powerless)
    checks = _checks(outcome)
    told = [one for one in checks if one["check"] == seeded.check and seeded.found in one["found"]]
    assert told, str(outcome)
    assert told[0]["verdict"] == seeded.verdict, str(outcome)
    assert seeded.remedy in told[0]["remedy"], str(outcome)
    # It is the one fault: what depends on it is "not checked", and all else is well.
    assert [one for one in checks if one["verdict"] == "failed"] == (told if outcome.code else []), str(
        outcome
    )


def test_a_good_set_up_is_told_at_80_columns(
    command_line: CommandLine, unchanged: Callable[[], AbstractContextManager[None]]
) -> None:
    """Goal: exit 0, and every line fits. Method: the emulators as they are, a run in the folder."""
    store_run(command_line.folder)
    with unchanged():
        outcome = _doctor(command_line)
    assert outcome.code == 0, str(outcome)
    lines = outcome.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("failed", "warning"))], str(outcome)
    # A path that is longer stands on a line of its own.
    assert all(len(line) <= COLUMNS or len(line.split()) == 1 for line in lines), str(outcome)
    assert lines[-1].split(" checks: ")[1].endswith("1 not checked")
    assert outcome.stderr == ""


def test_one_fault_hides_no_other(proxied: CommandLine, setup: Setup) -> None:
    """Goal: all is told at once. Method: settings, folder, bucket, dataset, clock, certificates."""
    both = Answer(
        200,
        json.dumps(
            {"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 1}}]}}
        ).encode(),
        {"Date": format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)},
    )
    setup.proxies.storage.rule = _answers(_BUCKET, both)
    wrong = _dataset(defaultTableExpirationMs="86400000")(_no_certificates(proxied, setup), setup)
    wrong = wrong.but(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER="/nowhere", PIXARIS_SYNC_CHUNK_BYTES="1")

    outcome = _doctor(wrong, "--json")

    failed = {check["check"] for check in _checks(outcome) if check["verdict"] == "failed"}
    assert failed == {"setting", "folder", "certificates", "lifecycle", "clock", "expiration"}, str(outcome)


def test_services_that_are_silent_are_told_in_time(proxied: CommandLine, setup: Setup) -> None:
    """Goal: an answer in ten seconds, whatever hangs. Method: both services take requests and say nothing."""
    setup.proxies.set_rule(lambda _: Loss.SWALLOWED_REQUEST)

    outcome = _doctor(proxied, "--json")

    verdicts = {check["check"]: check["verdict"] for check in _checks(outcome)}
    assert (outcome.code, verdicts["bucket"], verdicts["dataset"]) == (4, "failed", "failed"), str(outcome)
    dependent = ("permissions", "clock", "tables", "jobs", "create table", "streaming")
    assert {verdicts[name] for name in dependent} == {"not checked"}, str(outcome)
    assert verdicts["folder"] == "ok"


@pytest.mark.large
def test_a_service_that_nothing_listens_for(command_line: CommandLine) -> None:
    """Goal: the same without a network. Method: ports at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = _doctor(
            command_line.but(STORAGE_EMULATOR_HOST=nowhere, BIGQUERY_EMULATOR_HOST=nowhere), "--json"
        )
    failed = {check["check"] for check in _checks(outcome) if check["verdict"] == "failed"}
    assert failed == {"bucket", "dataset"}, str(outcome)


def test_it_disturbs_no_process_that_works_there(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: it can be asked at any time. Method: while `watch` runs; who works there is told."""
    with Watching(command_line, tmp_path) as watch:
        watch.wait_until_ready()
        outcome = _doctor(command_line, "--json")
        [at_work] = [check["found"] for check in _checks(outcome) if check["check"] == "at work"]
        assert f"process {watch.process.pid} " in at_work
        assert outcome.code == 0, str(outcome)
        assert watch.end() == 0
        assert "ERROR" not in watch.log()


# -- the quick part, before the first work with a new ledger ------------------------------------------------


@pytest.mark.parametrize("command", ["sync", pytest.param("watch", marks=pytest.mark.large)])
def test_a_destination_that_loses_results_is_refused_at_first(
    proxied: CommandLine, setup: Setup, pixaris: Reader, command: str
) -> None:
    """Goal: exit 4 before anything is written. Method: a dataset whose tables expire, and a new ledger."""
    store_run(proxied.folder)
    _dataset(defaultTableExpirationMs="86400000")(proxied, setup)

    outcome = proxied.run(command)

    assert outcome.code == 4, str(outcome)
    assert "is deleted after 1 d" in outcome.stderr
    assert "accept_expiring_destination" in outcome.stderr
    assert (proxied.ledgers(), setup.proxies.uploads, pixaris.objects()) == ([], 0, {})


def test_whoever_means_it_goes_on(proxied: CommandLine, setup: Setup, pixaris: Reader) -> None:
    """Goal: who knows better decides. Method: a bucket that deletes; then that is accepted."""
    run = store_run(proxied.folder)
    _lifecycle(age=30)(proxied, setup)
    assert proxied.run("sync").code == 4
    accepted = proxied.having(accept_expiring_destination=True)

    outcome = accepted.run("sync")

    assert outcome.code == 0, str(outcome)
    assert "WARNING lifecycle: the bucket's lifecycle deletes objects older than 30 days" in outcome.stderr
    assert pixaris.runs() == [run.name]
    # The ledger is no new one any more.
    assert proxied.sync()["runs"]["synced"] == 1


def test_an_outage_does_not_keep_a_service_from_starting(
    proxied: CommandLine, setup: Setup, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: `watch` waits, as it did. Method: nothing but 503 at its first start, and then the services."""
    run = store_run(proxied.folder)
    setup.proxies.set_rule(lambda _: unavailable())
    hasty = proxied.having(retry_delay_seconds_min=0.05, retry_delay_seconds_max=0.2)
    with Watching(hasty, tmp_path) as watch:
        watch.until(proxied.ledgers, "it has begun")
        setup.proxies.set_rule(lambda _: None)
        watch.until(lambda: pixaris.runs() == [run.name], "its row can be read")
        assert watch.end() == 0
