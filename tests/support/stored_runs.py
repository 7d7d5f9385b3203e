"""Runs stored with the real LocalExperimentHandler, and what is read back through GCPExperimentHandler."""

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.cloud.storage import Client
from PIL import Image

from pixaris_sync.model import RunKey

if TYPE_CHECKING:
    import pandas as pd

PROJECT, DATASET = "project", "dataset"
TRACKING_FILE = "experiment_tracking.jsonl"

_storing = threading.Lock()


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as LocalExperimentHandler stored it: its key, its folder and its tracking file."""

    key: RunKey
    folder: Path
    tracking: Path

    @property
    def name(self) -> str:
        """Its ``experiment_run_name`` in the record, in the bucket and in the row."""
        return self.key.run

    @property
    def line(self) -> str:
        """Its line in the tracking file."""
        lines = self.tracking.read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if json.loads(line)["experiment_run_name"] == self.name)


@functools.cache
def picture(shade: int = 0, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """A small image; another for each shade."""
    pixels = bytes((7 * shade + 31 * at) % 256 for at in range(size[0] * size[1] * 3))
    return Image.frombytes("RGB", size, pixels)


def store_run(
    results: Path,
    name: str = "run",
    *,
    project: str = PROJECT,
    dataset: str = DATASET,
    images: int | Sequence[tuple[Image.Image, str]] = 1,
    metrics: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    **options: Any,
) -> StoredRun:
    """Store a run with the real LocalExperimentHandler.

    Args:
        results: the results folder.
        name: what the caller calls the run; the handler puts the time in front.
        project: the project it is stored in.
        dataset: the dataset it is stored in.
        images: the generated images, or how many to make up.
        metrics: as the handler takes them.
        args: as the handler takes them.
        options: further arguments of ``store_results``.
    """
    from pixaris.experiment_handlers.local import LocalExperimentHandler  # noqa: PLC0415 - takes a while

    made = [(picture(at), f"image_{at}.png") for at in range(images)] if isinstance(images, int) else images
    tracking = results / project / dataset / options.get("dataset_tracking_file_name", TRACKING_FILE)
    with _storing:
        LocalExperimentHandler(str(results)).store_results(
            project, dataset, name, list(made), dict(metrics or {}), dict(args or {}), **options
        )
        last = tracking.read_bytes().splitlines()[-1]
    run = RunKey(project, dataset, json.loads(last)["experiment_run_name"])
    return StoredRun(run, tracking.parent / run.run, tracking)


def append_line(tracking: Path, text: str) -> None:
    """Append to a tracking file as the handler does; without a newline the line is torn."""
    tracking.parent.mkdir(parents=True, exist_ok=True)
    with tracking.open("a", encoding="utf-8") as file:
        file.write(text)


@dataclass(frozen=True, slots=True)
class Reader:
    """The destination as Pixaris reads it, and its objects.

    Attributes:
        handler: the real GCPExperimentHandler.
    """

    handler: Any

    def frame(self, project: str = PROJECT, dataset: str = DATASET) -> "pd.DataFrame":
        """All rows of a dataset in the order of their run names, as Pixaris loads them."""
        loaded: pd.DataFrame = self.handler.load_experiment_results_for_dataset(project, dataset)
        return loaded.sort_values("experiment_run_name", ignore_index=True)

    def runs(self, project: str = PROJECT, dataset: str = DATASET) -> list[str]:
        """The run names of all rows of a dataset in order; none where there is no table."""
        try:
            return list(self.frame(project, dataset)["experiment_run_name"])
        except RuntimeError as error:
            # So the handler says it, whatever the cause.
            assert "Not found" in str(error)  # noqa: PT017 - anything else fails the test
            return []

    def images(self, run: RunKey, folder: Path) -> dict[str, Image.Image]:
        """The images of a run by name, downloaded by Pixaris into `folder`."""
        paths = self.handler.load_images_for_experiment(run.project, run.dataset, run.run, str(folder))
        found: dict[str, Image.Image] = {}
        for path in map(Path, paths):
            with Image.open(path) as image:
                image.load()
                found[path.name] = image
        return found

    def objects(self, prefix: str = "") -> dict[str, tuple[str, int]]:
        """All objects: name to crc32c and generation."""
        listed = self._bucket().list_blobs(prefix=prefix, retry=None, timeout=_TIMEOUT_SECONDS)
        return {blob.name: (blob.crc32c, int(blob.generation)) for blob in listed}

    def content(self, name: str) -> bytes:
        """An object's bytes."""
        content = self._bucket().blob(name).download_as_bytes(retry=None, timeout=_TIMEOUT_SECONDS)
        return bytes(content)

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._bucket().blob(name).delete(retry=None, timeout=_TIMEOUT_SECONDS)

    def _bucket(self) -> Any:
        return Client(project=self.handler.gcp_project_id).bucket(self.handler.gcp_pixaris_bucket_name)


_TIMEOUT_SECONDS = 20.0


def run_objects(run: StoredRun, *names: str) -> set[str]:
    """The names of objects of a run."""
    return {f"results/{run.key}/{name}" for name in names}
