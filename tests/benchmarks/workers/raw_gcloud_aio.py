"""gcloud-aio-storage alone: every file read at once and uploaded in one request, so many at the same time.

Usage: raw_gcloud_aio.py FOLDER BUCKET AT_ONCE, with STORAGE_EMULATOR_HOST set.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from gcloud.aio.storage import Storage

folder, bucket, at_once = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


async def carry(storage: Storage, paths: Iterator[Path]) -> None:
    """Upload files until there are none left."""
    for path in paths:
        name = f"results/{path.relative_to(folder)}"
        await storage.upload(bucket, name, path.read_bytes(), content_type="image/png", timeout=600)


async def carry_all(paths: Iterator[Path]) -> None:
    """Upload so many at the same time."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:
        storage = Storage(session=session)  # type: ignore[arg-type]  # its twin without asyncio
        await asyncio.gather(*(carry(storage, paths) for _ in range(at_once)))


asyncio.run(carry_all(iter(sorted(folder.glob("*/*/*/generated_images/*")))))
