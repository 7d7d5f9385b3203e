"""Syncs a results folder to fakes, with real threads and the real clock, also as a process of its own."""

import sys
from pathlib import Path

import anyio

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.pipeline.context import Mode
from tests.support.fake_cloud import FakeCloud


async def run_passes(root: Path, state: Path) -> FakeCloud:
    """Sync everything in two passes, of which the second looks at every file."""
    cloud = FakeCloud(root, ledger=Ledger.open(state / "ledger.sqlite3"))
    try:
        await cloud.sync()
        await cloud.sync(Mode(full=True))
    finally:
        cloud.ledger.close()
    return cloud


if __name__ == "__main__":
    anyio.run(run_passes, Path(sys.argv[1]), Path(sys.argv[2]))
