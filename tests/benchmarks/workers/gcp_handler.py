"""A ``GCPExperimentHandler``, Pixaris' or ours, given the same images and records, one run after another.

Ours waits for each run's row, as it does unless it is told otherwise, and as Pixaris' does.

Usage: gcp_handler.py MODULE FOLDER PROJECT BQ_DATASET BUCKET RUNS, with both emulators' addresses set. It
prints how many seconds passed from the first run to the end, so that time for imports is not multiplied when
only some of the runs are stored.
"""

import contextlib
import importlib
import io
import json
import sys
import time
from pathlib import Path

from PIL import Image

module, project, bq_dataset, bucket = sys.argv[1], *sys.argv[3:6]
folder, runs = Path(sys.argv[2]), int(sys.argv[6])
handler = importlib.import_module(module).GCPExperimentHandler(project, f"{project}.{bq_dataset}", bucket)
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
