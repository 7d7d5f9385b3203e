"""A scripted server in the place of GCS, and a store that takes it for Google."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pixaris_sync.gcs.store import GcsObjectStore
from tests.support.scripted_gcs import ENVIRONMENT, Script, open_store, serve_script


@pytest.fixture
async def script(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    """A scripted server, and an environment without credentials or proxies."""
    assert anyio_backend == "asyncio"
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    async with serve_script() as served:
        yield served


@pytest.fixture
async def store(script: Script, tmp_path: Path) -> AsyncIterator[GcsObjectStore]:
    """A store that takes the scripted server for Google."""
    async with open_store(script, tmp_path) as opened:
        yield opened
