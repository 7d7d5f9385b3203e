"""gcsfs: one ``put`` of all files, with its own defaults.

Usage: gcsfs_put.py FOLDER BUCKET, with STORAGE_EMULATOR_HOST set.
"""

import sys
from pathlib import Path

import gcsfs

folder, bucket = Path(sys.argv[1]), sys.argv[2]
paths = sorted(folder.glob("*/*/*/generated_images/*"))
files = gcsfs.GCSFileSystem(project="bench-project", token="anon")  # noqa: S106 - this means "without"
files.put([str(path) for path in paths], [f"{bucket}/results/{path.relative_to(folder)}" for path in paths])
