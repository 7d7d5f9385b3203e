"""A machine for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.machine import Machine, in_memory_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for a machine."""
    with in_memory_folder() as folder:
        yield folder


@pytest.fixture
def machine(folder: Path) -> Machine:
    """A machine with an empty results folder, and an empty cloud."""
    return Machine(folder)
