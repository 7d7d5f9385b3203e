"""A scripted server in the place of GCS, and a store that takes it for Google."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.gcs.store import GcsObjectStore
from tests.support.scripted_gcs import ENVIRONMENT, Script, open_store, serve_script


@pytest.fixture(params=[False, True], ids=["of Python", "of libuv"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops: the process runs in that of libuv, who uses the handlers mostly in Python's."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def script(anyio_backend: object, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    """A scripted server, and an environment without credentials or proxies."""
    assert anyio_backend
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    async with serve_script() as served:
        yield served


@pytest.fixture
async def store(script: Script, tmp_path: Path) -> AsyncIterator[GcsObjectStore]:
    """A store that takes the scripted server for Google."""
    async with open_store(script, tmp_path) as opened:
        yield opened
