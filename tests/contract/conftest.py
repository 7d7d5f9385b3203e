"""Backends of the contract suites: fakes, emulators, and a real project where one is named."""

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter
from gcp_storage_emulator.server import create_server

from tests.contract import buckets, row_sinks
from tests.contract.bigquery import (
    EmulatedBigQuery,
    running_bigquery_emulator,
    running_local_bigquery,
    running_sandbox_bigquery,
)
from tests.contract.buckets import (
    REAL_BUCKET,
    REAL_PROJECT,
    BucketBackend,
    emulated_bucket,
    fake_bucket,
    real_bucket,
)
from tests.contract.row_sinks import (
    REAL_DATASET,
    SinkUnderTest,
    drop_real_tables,
    emulated_sink,
    fake_sink,
    real_sink,
)
from tests.support import backend_report
from tests.support.emulators import Running, running_fake_gcs_server, running_sandbox
from tests.support.installed_emulators import BIGQUERY_EMULATOR, FAKE_GCS_SERVER, LOCAL_BIGQUERY, NAMES, find

BUCKET_BACKENDS = {
    "fake": "ObjectStore on the fake",
    "emulator": "ObjectStore on gcp-storage-emulator",
    "sandbox": "ObjectStore on the sandbox",
    FAKE_GCS_SERVER: f"ObjectStore on {FAKE_GCS_SERVER}",
    "gcp": "ObjectStore on Google Cloud",
}
SINK_BACKENDS = {
    "fake": "RowSink on the fake",
    "sandbox": "RowSink on the sandbox",
    LOCAL_BIGQUERY: f"RowSink on {LOCAL_BIGQUERY}",
    BIGQUERY_EMULATOR: f"RowSink on {BIGQUERY_EMULATOR}",
    "gcp": "RowSink on Google Cloud",
}

#: This emulator has not been seen running where this was written. How it differs from the service is told,
#: test by test, and fails none until somebody has looked; then it belongs into a list like `DIFFERENCES`.
NOT_JUDGED = pytest.mark.xfail(reason="the emulator's fault or ours: not judged yet", strict=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(capability, ...): fails where the backend is known to lack it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    backend_report.add_log(item, report)
    backend_report.fold(report)
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    missing = {}
    for name in NAMES:
        emulator = find(name)
        if not emulator.program:
            missing[(BUCKET_BACKENDS | SINK_BACKENDS)[name]] = emulator.missing
    if not (REAL_PROJECT and REAL_BUCKET):
        missing[BUCKET_BACKENDS["gcp"]] = "the environment names no project and bucket for tests"
    if not (REAL_PROJECT and REAL_DATASET):
        missing[SINK_BACKENDS["gcp"]] = "the environment names no project and dataset for tests"
    backend_report.summarise(terminalreporter, missing)


def expect_differences(
    request: pytest.FixtureRequest, kind: str, known: Mapping[str, Mapping[Any, str]]
) -> None:
    """Let a test fail, and no other way, that needs what this kind of backend is known to lack."""
    differences = known.get(kind, {})
    for marker in request.node.iter_markers("needs"):
        for capability in differences.keys() & set(marker.args):
            seen = f"{kind}: {differences[capability]}"
            request.applymarker(pytest.mark.xfail(reason=seen, strict=True))


def program_of(name: str) -> str:
    """The path of an emulator's program; skips the test where there is none."""
    emulator = find(name)
    if not emulator.program:
        backend_report.skip_backend(emulator.missing)
    return emulator.program


@pytest.fixture(scope="session")
def gcp_storage_emulator() -> Iterator[str]:
    """The URL of gcp-storage-emulator as it comes."""
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{server._api._httpd.server_port}"
    server.stop()


@pytest.fixture(scope="session")
def sandbox_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("sandbox")
    with running_sandbox("storage", "--bucket", "pixaris-sync-contract", folder=folder) as running:
        yield running


@pytest.fixture(scope="session")
def fake_gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    program, folder = program_of(FAKE_GCS_SERVER), tmp_path_factory.mktemp(FAKE_GCS_SERVER)
    with running_fake_gcs_server(program, folder) as running:
        yield running


@pytest.fixture(scope="session")
def sandbox_bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBigQuery]:
    with running_sandbox_bigquery(tmp_path_factory.mktemp("sandbox")) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def bigquery_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBigQuery]:
    program, folder = program_of(BIGQUERY_EMULATOR), tmp_path_factory.mktemp(BIGQUERY_EMULATOR)
    with running_bigquery_emulator(program, folder) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def local_bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBigQuery]:
    program, folder = program_of(LOCAL_BIGQUERY), tmp_path_factory.mktemp(LOCAL_BIGQUERY)
    with running_local_bigquery(program, folder) as emulator:
        yield emulator


@pytest.fixture(
    params=[
        "fake",
        "emulator",
        "sandbox",
        FAKE_GCS_SERVER,
        *(["gcp"] if REAL_BUCKET and REAL_PROJECT else []),
    ]
)
async def bucket(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[BucketBackend]:
    """A bucket without objects under the backend's prefix, once for every kind of backend."""
    assert anyio_backend == "asyncio"
    kind = request.param
    backend_report.note_backend(request.node, BUCKET_BACKENDS[kind])
    expect_differences(request, kind, buckets.DIFFERENCES)
    if kind == "fake":
        backends = fake_bucket()
    elif kind == "gcp":
        backends = real_bucket()
    elif kind == "emulator":
        backends = emulated_bucket(request.getfixturevalue("gcp_storage_emulator"))
    else:
        fixture = "sandbox_storage" if kind == "sandbox" else "fake_gcs_server"
        running: Running = request.getfixturevalue(fixture)
        backend_report.note_log(request.node, running.log)
        backends = emulated_bucket(running.url)
    async for backend in backends:
        yield backend


@pytest.fixture(
    params=[
        "fake",
        "sandbox",
        LOCAL_BIGQUERY,
        pytest.param(BIGQUERY_EMULATOR, marks=NOT_JUDGED),
        # Only the real service needs minutes until streaming knows a table.
        *([pytest.param("gcp", marks=pytest.mark.timeout(900))] if REAL_PROJECT and REAL_DATASET else []),
    ]
)
def made(request: pytest.FixtureRequest) -> Iterator[SinkUnderTest]:
    """A row sink, once for every kind of backend."""
    kind = request.param
    backend_report.note_backend(request.node, SINK_BACKENDS[kind])
    expect_differences(request, kind, row_sinks.DIFFERENCES)
    if kind == "fake":
        yield fake_sink()
    elif kind == "gcp":
        assert REAL_PROJECT
        assert REAL_DATASET
        sink = real_sink(REAL_PROJECT, REAL_DATASET)
        yield sink
        drop_real_tables(REAL_PROJECT, REAL_DATASET, sink.tables)
    else:
        fixture = "sandbox_bigquery" if kind == "sandbox" else kind.replace("-", "_")
        emulator: EmulatedBigQuery = request.getfixturevalue(fixture)
        backend_report.note_log(request.node, emulator.running.log)
        yield emulated_sink(emulator)


@pytest.fixture
async def under(made: SinkUnderTest) -> AsyncIterator[SinkUnderTest]:
    """The same, closed afterwards."""
    yield made
    await made.sink.close()
    await made.dataless.close()
