"""Stores a run so that it is there whole or not at all, whatever ends the process or the machine.

`local.storing` says how. Here images and arguments become files, on all free cores.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from PIL import Image

from pixaris_sync.handlers.pictures import encode
from pixaris_sync.handlers.record import NewRun
from pixaris_sync.local.storing import (
    COMMIT,
    PREFIX,
    RUN,
    append,
    locked,
    make_folder,
    make_hidden,
    remove_hidden,
    rename_run,
    sync_folder,
    write_file,
)
from pixaris_sync.rules.contract import ARGS_FILE, GENERATED_IMAGES


class StagedRun:
    """A run whose images and saved arguments are on the disk, without a name yet. Use once.

    Made by `stage`. It is committed or discarded; both may be done again after an error.
    """

    def __init__(self, dataset_folder: Path, tracking_file: str, run: NewRun) -> None:
        self._dataset_folder = dataset_folder
        self._tracking = dataset_folder / tracking_file
        self._run = run
        self._handle: int | None
        self._hidden, self._handle = make_hidden(dataset_folder, PREFIX)
        self._files = self._hidden / RUN

    def write_files(self) -> None:
        """Encode and write everything, on all free cores, and wait until it is on the disk."""
        self._files.mkdir()
        folders = [self._files]
        # By what they are made of: Pillow takes notes in an image while it saves it, so one thread does that.
        contents: defaultdict[int, list[tuple[Path, Callable[[], bytes]]]] = defaultdict(list)
        if self._run.images:
            folders.append(self._files / GENERATED_IMAGES)
            folders[-1].mkdir()
        for name, image in self._run.images.items():
            contents[id(image)].append((folders[-1] / name, partial(encode, image, name)))
        for name, value in self._run.arguments.items():
            if isinstance(value, Image.Image):
                content = partial(encode, value, name, all_info=True)
            else:
                content = partial(value.encode, "ascii")
            contents[id(value)].append((self._files / name, content))
        _on_all_cores([partial(_write_made, files) for files in contents.values()])
        for folder in folders:
            sync_folder(folder)

    @property
    def files(self) -> dict[str, Path]:
        """Where its files are, by their paths in the run's folder."""
        found = (path for path in self._files.rglob("*") if path.is_file())
        return {str(path.relative_to(self._files)): path for path in found}

    def commit(self, names: Iterable[str], *, timestamp: str, recorded_folder: str) -> str:
        """Give the run the first of the names that no folder has, and append its line.

        Args:
            names: in the order of preference, ever more of them.
            timestamp: when the run was stored, for its record.
            recorded_folder: the dataset's folder, as the paths of saved arguments begin with it.

        Returns:
            The run's name.

        Raises:
            OSError: the disk refused. The run is there whole, or not at all.
        """
        with locked(self._tracking) as tracking:
            name = next(name for name in names if not os.path.lexists(self._dataset_folder / name))
            record = self._run.record(os.path.join(recorded_folder, name), name, timestamp)
            write_file(self._files / ARGS_FILE, json.dumps(record).encode("ascii"))
            line = json.dumps(record) + "\n"
            tracking_file = str(self._tracking.relative_to(self._dataset_folder))
            commit = {"name": name, "tracking_file": tracking_file, "line": line}
            write_file(self._hidden / COMMIT, json.dumps(commit).encode("ascii"))
            sync_folder(self._files)
            sync_folder(self._hidden)
            try:
                rename_run(self._files, self._dataset_folder, name)
                append(tracking, line.encode("ascii"), self._dataset_folder)
            except BaseException:
                # Without its line it is no run, and its name is free again.
                with suppress(OSError):
                    if not self._files.exists():
                        (self._dataset_folder / name).rename(self._files)
                raise
        self.discard()
        return name

    def discard(self) -> None:
        """Remove what is hidden. Safe to call twice."""
        if self._handle is not None:
            remove_hidden(self._hidden)
            os.close(self._handle)
            self._handle = None


def stage(dataset_folder: Path, tracking_file: str, run: NewRun) -> StagedRun:
    """Write a run's files to the disk, hidden.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    make_folder(dataset_folder)
    staged = StagedRun(dataset_folder, tracking_file, run)
    try:
        staged.write_files()
    except BaseException:
        staged.discard()
        raise
    return staged


def _write_made(files: Iterable[tuple[Path, Callable[[], bytes]]]) -> None:
    for path, make in files:
        write_file(path, make())


class _Cores:
    """A thread for each core that this process may use; Pillow encodes without Python's lock."""

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None

    def forget(self) -> None:
        """A child has none of its parent's threads."""
        self.pool = None


_cores = _Cores()
os.register_at_fork(after_in_child=_cores.forget)


def _on_all_cores(tasks: list[Callable[[], None]]) -> None:
    """Do all of these side by side, and raise the first error."""
    if _cores.pool is None:
        _cores.pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "pixaris-sync-encode")
    try:
        futures = [_cores.pool.submit(task) for task in tasks]
    except RuntimeError:
        # The interpreter ends, and lets nobody begin anything in a thread.
        for task in tasks:
            task()
        return
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
