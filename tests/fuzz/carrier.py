"""Carries a results folder to fakes, with real threads and the real clock, also as a process of its own."""

import sys
from pathlib import Path

import anyio

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.pipeline.context import Mode
from tests.support.fake_cloud import FakeCloud


async def carry(root: Path, state: Path) -> FakeCloud:
    """Carry everything in two passes, the second one a look at every file."""
    cloud = FakeCloud(root, ledger=Ledger.open(state / "ledger.sqlite3"))
    try:
        await cloud.sync()
        await cloud.sync(Mode(full=True))
    finally:
        cloud.ledger.close()
    return cloud


if __name__ == "__main__":
    anyio.run(carry, Path(sys.argv[1]), Path(sys.argv[2]))
