"""The real ``GCPExperimentHandler``, given the same images and records, one run after another.

Usage: gcp_handler.py FOLDER PROJECT BQ_DATASET BUCKET RUNS, with both emulators' addresses set. It prints how
many seconds passed from the first run to the end, so that time for imports is not multiplied when only some
of the runs are stored.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from PIL import Image
from pixaris.experiment_handlers.gcp import GCPExperimentHandler

folder, runs = Path(sys.argv[1]), int(sys.argv[5])
handler = GCPExperimentHandler(sys.argv[2], f"{sys.argv[2]}.{sys.argv[3]}", sys.argv[4])
begun, cpu_begun = time.monotonic(), time.process_time()
stored = 0
for tracking in sorted(folder.glob("*/*/experiment_tracking.jsonl")):
    for line in tracking.read_text().splitlines():
        if stored == runs:
            break
        record = json.loads(line)
        name = record.pop("experiment_run_name")
        images = sorted((tracking.parent / name / "generated_images").iterdir())
        pairs = [(Image.open(path), path.name) for path in images]
        metrics = {key: record.pop(key) for key in ("clip_score", "aesthetic_score")}
        with contextlib.redirect_stdout(io.StringIO()):
            handler.store_results(
                tracking.parents[1].name, tracking.parent.name, name, pairs, metrics, record
            )
        stored += 1
spent = {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - cpu_begun, "runs": stored}
print(json.dumps(spent))  # noqa: T201 - the measuring program reads it
