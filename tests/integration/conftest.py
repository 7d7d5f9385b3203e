"""One sandbox for all integration tests; each test gets a bucket and a dataset of its own in it."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.cloud import bigquery
from google.cloud.storage import Bucket, Client

from pixaris_sync.sandbox.emulators import Sandbox
from tests.integration.cloud import Cloud, new_cloud
from tests.integration.in_process import CommandLineInProcess, InProcess
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine
from tests.support.proxy import Proxies, Proxy
from tests.support.stored_runs import Reader

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Pixaris read frames the way it does: Google's client announces that it will drop this one day."""
    announced = "ignore:Retrieving DataFrames via google-cloud-bigquery:PendingDeprecationWarning"
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.filterwarnings(announced))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Both emulators, started once."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def cloud(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A new bucket and a new dataset; this process's environment points at them during the test."""
    return new_cloud(sandbox, monkeypatch)


@pytest.fixture
def bigquery_client(cloud: Cloud) -> Iterator[bigquery.Client]:
    """Google's own BigQuery client, whose default dataset is the test's."""
    with bigquery.Client(project=cloud.project) as client:
        yield client


@pytest.fixture
def warehouse(bigquery_client: bigquery.Client, cloud: Cloud) -> Warehouse:
    """The test's dataset in few words."""
    return Warehouse(bigquery_client, cloud)


@pytest.fixture
def bucket(cloud: Cloud) -> Bucket:
    """The test's bucket through Google's own client."""
    return Client(project=cloud.project).bucket(cloud.bucket)


@pytest.fixture
def gcp_handler(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "GCPExperimentHandler":
    """The real handler on the test's bucket and dataset. The test runs in a folder that takes its litter."""
    litter = tmp_path / "working_directory"
    litter.mkdir()
    monkeypatch.chdir(litter)
    return cloud.handler()


@pytest.fixture
def local_results(tmp_path: Path) -> Path:
    """An empty results folder."""
    folder = tmp_path / "local_results"
    folder.mkdir()
    return folder


@pytest.fixture
def command_line(cloud: Cloud, local_results: Path, tmp_path: Path) -> CommandLine:
    """The real command line on the test's results folder, bucket and dataset."""
    return CommandLine(local_results, tmp_path / "state", cloud.environment)


@pytest.fixture
def quick_command_line(cloud: Cloud, local_results: Path, tmp_path: Path) -> CommandLine:
    """The same in this process; a row that an earlier pass left is not looked for half a minute long."""
    command_line = CommandLineInProcess(local_results, tmp_path / "state", cloud.environment)
    return command_line.having(doubt_settle_seconds=0.5)


@pytest.fixture
def pixaris(gcp_handler: "GCPExperimentHandler") -> Reader:
    """The test's bucket and dataset as Pixaris reads them."""
    return Reader(gcp_handler)


@pytest.fixture
def proxies(cloud: Cloud) -> Iterator[Proxies]:
    """What may stand between a command and the emulators."""
    with (
        Proxy(cloud.environment["STORAGE_EMULATOR_HOST"]) as storage,
        Proxy(cloud.environment["BIGQUERY_EMULATOR_HOST"]) as bigquery,
    ):
        yield Proxies(storage, bigquery)
    assert storage.failures + bigquery.failures == []


@pytest.fixture
def proxied(command_line: CommandLine, proxies: Proxies) -> CommandLine:
    """The real command line, with the proxies between it and the emulators."""
    return command_line.but(**proxies.environment)


@pytest.fixture
def in_process(
    command_line: CommandLine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcess]:
    """The command line's environment around this process."""
    for name, value in command_line.environment.items():
        monkeypatch.setenv(name, value)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield InProcess(capsys, monkeypatch)
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
