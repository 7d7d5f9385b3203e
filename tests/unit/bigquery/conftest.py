"""A scripted server in the place of BigQuery, and a sink that asks it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from pixaris_sync.bigquery.sink import BigQueryRowSink
from tests.support.scripted_bigquery import DATASET, PROJECT, ScriptedBigQuery, scripted_bigquery


@pytest.fixture
def server() -> Iterator[ScriptedBigQuery]:
    """A scripted server; the test must ask for every answer that it scripts."""
    with scripted_bigquery() as server:
        yield server
        assert not server.left, "the script was not played to its end"


@pytest.fixture
async def sink(server: ScriptedBigQuery) -> AsyncIterator[BigQueryRowSink]:
    """A sink that takes the scripted server for BigQuery."""
    sink = BigQueryRowSink(
        f"{PROJECT}.{DATASET}", PROJECT, emulator_host=server.url, timeout_seconds=10, threads_limit=2
    )
    yield sink
    await sink.close()
