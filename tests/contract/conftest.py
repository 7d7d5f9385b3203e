"""Backends of the contract suites: fakes, emulators, and a real project where one is named."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import create_server

from tests.contract.buckets import (
    EMULATED_BUCKET,
    REAL_BUCKET,
    REAL_PROJECT,
    BucketBackend,
    fake_bucket,
    google_bucket,
)
from tests.support.bigquery import bigquery_emulator
from tests.support.row_sinks import (
    REAL_DATASET,
    SinkUnderTest,
    drop_real_tables,
    emulated_sink,
    fake_sink,
    real_sink,
)

__all__ = ["bigquery_emulator"]  # a fixture, found by its name here


@pytest.fixture(scope="session")
def storage_emulator() -> Iterator[Any]:
    """A GCS emulator on a free loopback port, without buckets between tests; ``.port`` tells the port."""
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    server.port = server._api._httpd.server_port
    yield server
    server.stop()


@pytest.fixture(params=["fake", "emulator", *(["gcp"] if REAL_BUCKET and REAL_PROJECT else [])])
async def bucket(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[BucketBackend]:
    """A bucket without objects under the backend's prefix, once for every kind of backend."""
    assert anyio_backend == "asyncio"
    if request.param == "fake":
        yield fake_bucket()
        return
    emulator_host = None
    if request.param == "emulator":
        server = request.getfixturevalue("storage_emulator")
        server.wipe()
        create_bucket(EMULATED_BUCKET, server._storage)
        emulator_host = f"127.0.0.1:{server.port}"
    async for backend in google_bucket(emulator_host):
        yield backend


@pytest.fixture(
    params=[
        "fake",
        "emulator",
        # Only the real service needs minutes until streaming knows a table.
        *([pytest.param("gcp", marks=pytest.mark.timeout(900))] if REAL_PROJECT and REAL_DATASET else []),
    ]
)
def made(request: pytest.FixtureRequest) -> Iterator[SinkUnderTest]:
    """A row sink, once for every kind of backend."""
    if request.param == "fake":
        yield fake_sink()
    elif request.param == "emulator":
        yield emulated_sink(request.getfixturevalue("bigquery_emulator"))
    else:
        assert REAL_PROJECT
        assert REAL_DATASET
        sink = real_sink(REAL_PROJECT, REAL_DATASET)
        yield sink
        drop_real_tables(REAL_PROJECT, REAL_DATASET, sink.tables)


@pytest.fixture
async def under(made: SinkUnderTest) -> AsyncIterator[SinkUnderTest]:
    """The same, closed afterwards."""
    yield made
    await made.sink.close()
    await made.dataless.close()
