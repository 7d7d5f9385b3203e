"""google-cloud-storage's transfer manager, with threads.

Usage: transfer_manager.py FOLDER BUCKET THREADS, with STORAGE_EMULATOR_HOST set.
"""

import sys
from pathlib import Path

from google.cloud.storage import Client, transfer_manager

folder, bucket, threads = (
    Path(sys.argv[1]),
    Client(project="bench-project").bucket(sys.argv[2]),
    int(sys.argv[3]),
)
paths = sorted(folder.glob("*/*/*/generated_images/*"))
transfer_manager.upload_many(
    [(str(path), bucket.blob(f"results/{path.relative_to(folder)}")) for path in paths],
    worker_type=transfer_manager.THREAD,
    max_workers=threads,
    raise_exception=True,
)
