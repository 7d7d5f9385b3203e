"""A world for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.world import World, in_memory_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for a world."""
    with in_memory_folder() as folder:
        yield folder


@pytest.fixture
def world(folder: Path) -> World:
    """A machine with an empty results folder, and an empty cloud."""
    return World(folder)
