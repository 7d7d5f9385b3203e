"""obstore alone: every file read at once and put in one request, so many at the same time.

By its blocking calls in threads: those use less processor than its calls for asyncio.

Usage: obstore_put.py FOLDER BUCKET AT_ONCE, with STORAGE_EMULATOR_HOST set.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import GCSStore

folder, bucket, at_once = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = GCSStore(
    bucket,
    # Told to sign nothing, it would still ask for a token whenever it uploads.
    config={"base_url": os.environ["STORAGE_EMULATOR_HOST"], "bearer_token": "none"},
    client_options={"allow_http": True, "timeout": "600s"},
)


def put(path: Path) -> None:
    """Upload one file."""
    name = f"results/{path.relative_to(folder)}"
    kind = {"Content-Type": "image/png"}
    obstore.put(store, name, path.read_bytes(), attributes=kind, use_multipart=False)


with ThreadPoolExecutor(at_once) as threads:
    for _ in threads.map(put, sorted(folder.glob("*/*/*/generated_images/*"))):
        pass
