"""A world for each test."""

from pathlib import Path

import pytest

from tests.engine.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine with an empty results folder, and an empty cloud."""
    return World(tmp_path)
