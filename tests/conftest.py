"""What all tests share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: the Google clients know no other event loop."""
    return "asyncio"
