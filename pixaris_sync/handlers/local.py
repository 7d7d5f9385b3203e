"""Runs in a folder of this machine: what ``pixaris.experiment_handlers.local`` documents, and keeps whole.

The layout is that of Pixaris' LocalExperimentHandler (0.11.4): either reads what the other wrote.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixaris_sync.errors import NameRefusedError
from pixaris_sync.handlers.base import StoringHandler
from pixaris_sync.handlers.behind import PENDING_BYTES_LIMIT, Behind
from pixaris_sync.handlers.frames import read_tracking_file
from pixaris_sync.handlers.record import NewRun, local_names, new_run
from pixaris_sync.handlers.staging import stage
from pixaris_sync.local.storing import recover
from pixaris_sync.rules.contract import (
    DEFAULT_TRACKING_FILE,
    FEEDBACK_FOLDER,
    GENERATED_IMAGES,
    IMAGE_SUFFIXES,
)
from pixaris_sync.rules.names import component_fault
from pixaris_sync.text import printable

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

_STAMP = "%Y%m%d-%H%M%S"


class LocalExperimentHandler(StoringHandler):
    """Stores and loads runs in a folder.

    A run is stored as ``<folder>/<project>/<dataset>/<YYYYmmdd-HHMMSS>_<name>``, with its images as PNG in
    ``generated_images``, its arguments and metrics in ``args.json``, and a line in the dataset's tracking
    file. It is there whole or not at all, whatever ends the process or the machine.

    May be used by many threads, pickled, and taken along into another process.

    Args:
        local_results_folder: the folder; it is made when the first run is stored.
        wait: whether `store_results` returns when the run is on the disk. Else it returns when the images are
            copied; the rest is done behind, in order. `flush`, `close`, the end of a ``with`` block and the
            interpreter's exit wait for it. A crash loses at most what was not flushed.
        pending_bytes_limit: how many bytes of images may wait to be stored; `store_results` waits where there
            would be more.
    """

    _kept = ("local_results_folder", "wait", "pending_bytes_limit")

    def __init__(
        self,
        local_results_folder: str = "local_results",
        *,
        wait: bool = True,
        pending_bytes_limit: int = PENDING_BYTES_LIMIT,
    ) -> None:
        self.local_results_folder = local_results_folder
        self.wait = wait
        self.pending_bytes_limit = pending_bytes_limit
        self._begin()

    def _begin(self) -> None:
        self._behind = Behind("store", self.pending_bytes_limit)
        #: Dataset folders in which what others left behind was looked for.
        self._recovered: set[Path] = set()

    def store_results(
        self,
        project: str,
        dataset: str,
        experiment_run_name: str,
        image_name_pairs: "Iterable[tuple[Image.Image, str]]",
        metric_values: Mapping[str, Any],
        args: Mapping[str, Any] = {},
        dataset_tracking_file_name: str = DEFAULT_TRACKING_FILE,
    ) -> None:
        """Store a run.

        Args:
            project: the project's name, which becomes a folder.
            dataset: the dataset's name, which becomes a folder.
            experiment_run_name: the run's name; its folder has the time before it, and a number after it
                where a run of that second has the same name.
            image_name_pairs: pictures of any Pillow mode with their names. A file is called by the name up to
                its first point, by all of it where that would be the name of several.
            metric_values: metrics by name.
            args: arguments by name. Images and dicts are saved as files of the run; images in the list
                ``pillow_images`` stand beside the generated ones, as ``z_<node name>.png``.
            dataset_tracking_file_name: the name of the tracking file.

        Raises:
            NameRefusedError: a name leads out of the folder, or is none of a folder.
            SyncError: a value is nested too deeply, or refers to itself.
            OSError: the disk refused; nothing of the run is there. Without `wait`, errors of earlier runs are
                raised here too, after this one was taken.
        """
        self._validate_experiment_run_name(experiment_run_name)
        for name in (project, dataset, dataset_tracking_file_name):
            _check_name(name)
        run = new_run(image_name_pairs, metric_values, args, named=local_names)
        place = os.path.join(self.local_results_folder, project, dataset)
        write = partial(
            self._write, Path(place).absolute(), place, experiment_run_name, dataset_tracking_file_name
        )
        if self.wait:
            write(run)
        else:
            kept = run.detached()
            self._behind.do(partial(write, kept), kept.image_bytes)
            self._behind.raise_error()

    def flush(self) -> None:
        """Wait until every run that was taken is on the disk.

        Raises:
            OSError: the disk refused one; the others are stored.
        """
        self._behind.wait()
        self._behind.raise_error()

    def load_projects_and_datasets(self) -> dict[str, list[str]]:
        """The folders of the results folder, and the folders in each, both sorted.

        Raises:
            FileNotFoundError: there is no results folder.
        """
        root = self.local_results_folder
        return {
            project: [name for name in _folders(os.path.join(root, project)) if name != FEEDBACK_FOLDER]
            for project in _folders(root)
        }

    def load_experiment_results_for_dataset(self, project: str, dataset: str) -> "pd.DataFrame":
        """The records of a dataset as a frame, in the order in which they were stored.

        A line that is damaged is left out, with a warning.

        Returns:
            The frame; an empty one where there is nothing.
        """
        if not project or not dataset:
            import pandas as pd  # noqa: PLC0415 - storing does without

            return pd.DataFrame()
        return read_tracking_file(Path(self.local_results_folder) / project / dataset / DEFAULT_TRACKING_FILE)

    def load_images_for_experiment(
        self, project: str, dataset: str, experiment_run_name: str, local_results_directory: str
    ) -> list[str]:
        """The sorted paths of a run's images in `local_results_directory`.

        Raises:
            FileNotFoundError: there is no such run.
        """
        run = os.path.join(local_results_directory, project, dataset, experiment_run_name)
        images = os.path.join(run, GENERATED_IMAGES)
        if os.path.isdir(run) and not os.path.lexists(images):
            return []
        names = (name for name in os.listdir(images) if name.endswith(IMAGE_SUFFIXES))
        return sorted(os.path.join(images, name) for name in names)

    def _validate_experiment_run_name(self, experiment_run_name: str) -> None:
        _check_name(f"_{experiment_run_name}")

    def _write(self, folder: Path, recorded: str, name: str, tracking_file: str, run: NewRun) -> None:
        if folder not in self._recovered:
            recover(folder)
            self._recovered.add(folder)
        staged = stage(folder, tracking_file, run)
        try:
            timestamp = time.strftime(_STAMP)
            staged.commit(_names(f"{timestamp}_{name}"), timestamp=timestamp, recorded_folder=recorded)
        except BaseException:
            staged.discard()
            raise


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _check_name(name: str) -> None:
    """Refuse a name that leads out of its folder. With slashes it makes folders in folders, as in Pixaris."""
    for part in name.split("/"):
        if fault := component_fault(part):
            raise NameRefusedError(
                "store run", printable(name), f"the name {part!r} {fault}", hint="give it another name"
            )


def _folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
