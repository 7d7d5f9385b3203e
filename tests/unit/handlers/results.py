"""What is in a dataset's folder, as every reader of it sees that."""

import json
from pathlib import Path

from PIL import Image

from pixaris_sync.handlers import LocalExperimentHandler

TRACKING_FILE = "experiment_tracking.jsonl"
#: The files of a run that `store` makes.
FILES = {"args.json", "note.json", "generated_images/a.png", "generated_images/b.png"}


def store(handler: LocalExperimentHandler, name: str = "run") -> None:
    """Store a small run, of all kinds of files."""
    images = [(Image.new("RGB", (2, 2), "red"), "a.png"), (Image.new("F", (2, 2), 0.5), "b")]
    handler.store_results("p", "d", name, images, {"score": 0.5}, {"note": {"x": 1}})


def whole_runs(dataset: Path, tracking_file: str = TRACKING_FILE) -> list[str]:
    """The names of the runs, in the order of their lines. Nothing but whole runs must be there."""
    lines = (
        (dataset / tracking_file).read_bytes().split(b"\n") if (dataset / tracking_file).exists() else [b""]
    )
    assert lines.pop() == b"", "the last line is torn"
    records = [json.loads(line) for line in lines]
    names = [record["experiment_run_name"] for record in records]
    folders = {path.name for path in dataset.iterdir() if path.is_dir()} if dataset.exists() else set()
    assert sorted(names) == sorted(folders)
    for record in records:
        run = dataset / record["experiment_run_name"]
        assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == FILES
        assert json.loads((run / "args.json").read_bytes()) == record
        assert (run / "note.json").samefile(record["note"])
        for image in (run / "generated_images").iterdir():
            with Image.open(image) as opened:
                opened.load()
    return names
