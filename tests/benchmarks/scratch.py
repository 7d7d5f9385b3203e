"""Folders that are gone afterwards."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A new folder in `cache`, on the disk that is measured."""
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=cache) as folder:
        yield Path(folder)
