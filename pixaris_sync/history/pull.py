"""Brings runs back from the cloud into the results folder, each whole or not at all.

A run that has its line here gets back what of its files is not here: its images, and the saved arguments
that the line names. A run without a line gets the record that its row tells (`lines`), or that of its
``args.json`` where that is here. What is here already is compared and never replaced. The line comes
last, so that no reader takes a run for stored before all of it is there.

The times of files are set to when the run was stored: so they do not look as if they were written now, and
whoever carries runs asks the table first whether it holds the row. It needs no ledger, and no ownership.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct, field

from pixaris_sync.errors import Failure, LocalFileError, NameRefusedError, SyncError
from pixaris_sync.history.candidates import stored_at
from pixaris_sync.history.cloud import Cloud, Rows
from pixaris_sync.history.lines import record_of
from pixaris_sync.local.placing import (
    complete_run,
    dataset_folder,
    free_bytes,
    is_there,
    refused,
    store_run,
    waiting_room,
    writing,
)
from pixaris_sync.local.removal import read_files
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.local.run_names import read_args
from pixaris_sync.local.safe_open import MissingFileError, opened_folder, opened_run
from pixaris_sync.local.storing import recover, write_file
from pixaris_sync.local.tracking_lines import LINE_BYTES_MAX, load_json
from pixaris_sync.model import DatasetKey, Problem, RemoteObject, RunKey, TrackingRecord
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import (
    ARGS_FILE,
    GENERATED_IMAGES,
    IMAGE_SUFFIXES,
    check_dataset_names,
    check_run_name,
    files_of,
    in_folder,
    object_name,
    parse_record,
)
from pixaris_sync.rules.names import component_fault
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import bytes_text, printable
from pixaris_sync.verify.expected import TAIL_BYTES_LIMIT

#: Objects of a run that are loaded at the same time.
_DOWNLOADS_LIMIT: Final = 8
#: Runs whose rows are read by one query.
_RUNS_LIMIT: Final = 100
#: What is left free on the disk.
_SPARE_BYTES: Final = 16 * 1024 * 1024
#: So long before now, at least, files of a run were written by their times.
_PAST_SECONDS: Final = 5.0
_FILE_NAME_BYTES_MAX: Final = 255
_UNKNOWN: Final = "neither the bucket, nor its table, nor a tracking file here has a run of this name"
_UNKNOWN_HINT: Final = "name it as project, project/dataset or project/dataset/run, as the bucket has it"
_CONFLICT_HINT: Final = "compare both; move the file that is here away, then pull again"
_RENAME_HINT: Final = "download it by hand: such a name is none of a file here"
_NOTHING_OF_IT: Final = "neither the bucket nor the table has anything of it yet"
_LATER_HINT: Final = "pull again once its machine has synced it"
_BACKUP_HINT: Final = "restore it from a backup; the other files of the run can be downloaded by hand"
_ROOM_HINT: Final = "make room on the disk, then pull again"
_LINES_HINT: Final = "repair, end or remove that line, then pull again: it may tell of this run"


class Pulled(Struct, frozen=True):
    """What became of a run: how many files came back, with how many bytes, and lines; or why none did.

    `passes`: the problem may pass by itself.
    """

    run: RunKey
    files: int = 0
    size: int = 0
    lines: int = 0
    problem: Problem | None = None
    passes: bool = False


class _NotInCloudError(SyncError):
    """The cloud has no run of this name, or not all of it: a row can be of another dataset's run."""


class _Lines(Struct):
    """A dataset's tracking file: the records of each run, and what cannot be read of it."""

    records: defaultdict[str, list[TrackingRecord]] = field(default_factory=lambda: defaultdict(list))
    unread: str = ""


class Puller:
    """Pulls runs into a results folder.

    Args:
        settings: which folder and destination.
        store: the bucket.
        sink: the tables; they can be read whole.
        now: the time, in seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        sink: RowSink,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._cloud = Cloud(store, sink)
        self._now = now
        self._tracking_file = settings.dataset_tracking_file_name
        self._results = LocalResults(settings.local_results_folder, self._tracking_file)
        self._root = self._results.root

    async def pull(self, names: Sequence[str]) -> AsyncIterator[Pulled]:
        """Pull what these names tell: ``project``, ``project/dataset`` or ``project/dataset/run``.

        These are the runs that the table has rows of, and those that the tracking file here has lines of:
        what others remove of the one or the other is no reason to leave files of a run in the bucket alone.
        What a table that several datasets share has of the others, and what only this machine has, is left
        out where no run is named.

        Raises:
            ConfigurationError: folder, bucket, BigQuery dataset or credentials are missing or unusable.
            SyncError: nobody knows a name, the cloud could not be asked, or nobody can be authenticated.
        """
        await to_thread.run_sync(self._results.check)
        await self._cloud.check()
        wanted: dict[DatasetKey, set[str]] = {}
        named: set[RunKey] = set()
        for name in names:
            for key, runs in (await self._named(name, named)).items():
                wanted.setdefault(key, set()).update(runs)
        for key, runs in sorted(wanted.items()):
            async for pulled in self._of_dataset(key, sorted(runs), named):
                yield pulled

    async def _named(self, name: str, told: set[RunKey]) -> dict[DatasetKey, set[str]]:
        """The runs that a name stands for; added to `told`: those that are told even if nothing is to pull.

        Raises:
            SyncError: there is none, or the cloud cannot be asked.
        """
        project, _, rest = name.partition("/")
        dataset, _, run = rest.partition("/")
        keys = [DatasetKey(project, dataset)] if dataset else await self._datasets(project)
        found: dict[DatasetKey, set[str]] = {}
        for key in keys:
            check_dataset_names(key)
            here = await to_thread.run_sync(self._runs_here, key)
            found[key] = await self._cloud.runs_in_table(key, run) | (here & {run} if run else here)
        if is_only_in_bucket := not any(found.values()):
            # Without row and line it cannot be pulled: why not, is told.
            found = {key: await self._cloud.runs_in_bucket(key, run) for key in keys}
        if run or is_only_in_bucket:
            told |= {RunKey(key.project, key.dataset, one) for key, runs in found.items() for one in runs}
        if not any(found.values()):
            raise SyncError("pull", printable(name), _UNKNOWN, hint=_UNKNOWN_HINT)
        return found

    async def _datasets(self, project: str) -> list[DatasetKey]:
        """The datasets of a project in the bucket, and those here whose names a table can have."""
        found = set(await self._cloud.datasets(project))
        for key in (await to_thread.run_sync(self._results.datasets)).keys:
            with suppress(NameRefusedError):
                if key.project == project:
                    check_dataset_names(key)
                    found.add(key)
        return sorted(found)

    def _runs_here(self, key: DatasetKey) -> set[str]:
        """The runs that a tracking file here has lines of. Blocks.

        One that cannot be read has none: why, is told with each run of the table.
        """
        with suppress(LocalFileError):
            return set(self._read_lines(key).records)
        return set()

    # -- one dataset, one run ----------------------------------------------------------------------------

    async def _of_dataset(
        self, key: DatasetKey, runs: Sequence[str], named: Collection[RunKey]
    ) -> AsyncIterator[Pulled]:
        for start in range(0, len(runs), _RUNS_LIMIT):
            some = runs[start : start + _RUNS_LIMIT]
            keys = [RunKey(key.project, key.dataset, name) for name in some]
            try:
                # What a pull or a handler that was ended left behind is ended first.
                await to_thread.run_sync(self._recover, key)
                lines = await to_thread.run_sync(self._read_lines, key)
                rows = await self._cloud.rows(key, some)
            except SyncError as error:
                for run in keys:
                    yield _failed(run, error)
                continue
            for run in keys:
                try:
                    yield await self._one(run, lines, rows)
                except SyncError as error:
                    if not isinstance(error, _NotInCloudError) or run in named:
                        yield _failed(run, error)

    def _recover(self, key: DatasetKey) -> None:
        """Blocks."""
        with suppress(MissingFileError), opened_folder(self._root, (key.project, key.dataset)):
            recover(self._root / key.project / key.dataset)

    def _read_lines(self, key: DatasetKey) -> _Lines:
        """Read a tracking file whole. Blocks.

        Raises:
            LocalFileError: it cannot be read.
        """
        lines, position = _Lines(), None
        path = f"{key}/{self._tracking_file}"
        while tail := self._results.tail(key, position, bytes_limit=TAIL_BYTES_LIMIT):
            for record in tail.records:
                lines.records[record.run.run].append(record)
            for damaged in tail.damaged:
                lines.unread = lines.unread or f"line {damaged.line} of {path} is damaged"
            if not tail.more:
                if tail.torn_bytes:
                    lines.unread = lines.unread or f"the last line of {path} is unfinished"
                break
            position = tail.position
        return lines

    async def _one(self, run: RunKey, lines: _Lines, rows: Rows) -> Pulled:
        """Pull a run.

        Raises:
            SyncError: nothing of it was changed here.
        """
        check_run_name(run)
        objects = await self._cloud.objects(run)
        records, is_new = lines.records[run.run], False
        if not records:
            if lines.unread:
                raise refused(run, "", lines.unread, _LINES_HINT)
            records, is_new = await self._records_of(run, rows, objects), True
        wanted = self._wanted(run, records, objects)
        missing = await self._missing(run, wanted)
        if not objects and run.run not in rows.of_runs:
            raise _NotInCloudError("pull", printable(str(run)), _NOTHING_OF_IT, hint=_LATER_HINT)
        args = json.dumps(records[-1].values).encode("ascii")
        has_args = await to_thread.run_sync(self._has_args, run)
        size = sum(remote.size for remote in missing)
        if not missing and not is_new and has_args:
            return Pulled(run)
        with dataset_folder(self._root, run.dataset_key) as folder:
            free = free_bytes(folder)
            if free < size + _SPARE_BYTES:
                cause = f"it needs {bytes_text(size)}, and the disk has {bytes_text(free)} left"
                raise LocalFileError("write", str(run), cause, hint=_ROOM_HINT, failure=Failure.TRANSIENT)
            with writing(str(run)), waiting_room(folder) as files:
                staged = await self._load(run, missing, files)
                if not has_args:
                    staged[ARGS_FILE] = files / ARGS_FILE
                await to_thread.run_sync(self._finish, run, staged, args)
                text = b"".join(json.dumps(one.values).encode("ascii") + b"\n" for one in records)
                await to_thread.run_sync(
                    self._put_in_place, run, folder, files, staged, text if is_new else b""
                )
        return Pulled(run, len(staged), size, len(records) if is_new else 0)

    async def _missing(self, run: RunKey, wanted: Mapping[str, RemoteObject | None]) -> list[RemoteObject]:
        """The objects of a run of which no file is here; what is here is the same.

        Raises:
            SyncError: a file is another one here, or is nowhere; or it cannot be compared.
        """
        reading = partial(read_files, self._root, run, list(wanted))
        here = {file.path: file.crc32c for file in await to_thread.run_sync(reading)}
        missing = []
        for path, remote in wanted.items():
            if remote is None:
                if path not in here:
                    raise refused(run, path, "it is neither here nor in the bucket", _BACKUP_HINT)
            elif path not in here:
                missing.append(remote)
            elif here[path] != (await self._cloud.looked_up(remote)).crc32c:
                raise refused(run, path, "the file that is here has another content", _CONFLICT_HINT)
        return missing

    async def _records_of(
        self, run: RunKey, rows: Rows, objects: Mapping[str, RemoteObject]
    ) -> list[TrackingRecord]:
        """The records of a run that has no line here.

        Raises:
            SyncError: nothing in the cloud tells them.
        """
        found = rows.of_runs.get(run.run, ())
        if not found:
            cause = "the table has no row of it yet"
            raise _NotInCloudError("pull", printable(str(run)), cause, hint=_LATER_HINT)
        if not objects and not self._settings.accept_runs_without_images:
            cause = "the bucket has no file of it"
            raise _NotInCloudError("pull", printable(str(run)), cause, hint=_LATER_HINT)
        if len(found) == 1 and (kept := await to_thread.run_sync(self._kept_record, run)) is not None:
            return [kept]
        folder = str(self._settings.local_results_folder)
        made = (record_of(row, run, folder, rows.columns) for row in found)
        return [parse_record(run.dataset_key, values, 0) for values in made]

    def _kept_record(self, run: RunKey) -> TrackingRecord | None:
        """The record in a run's args.json, where that is here and whole. Blocks."""
        try:
            args = read_args(self._root, run, bytes_limit=LINE_BYTES_MAX)
            if args is None:
                return None
            record = parse_record(run.dataset_key, load_json(args, f"{run}/{ARGS_FILE}"), 0)
        except SyncError:
            return None
        return record if in_folder(record, run.run) is record else None

    def _wanted(
        self, run: RunKey, records: Sequence[TrackingRecord], objects: Mapping[str, RemoteObject]
    ) -> dict[str, RemoteObject | None]:
        """The files that a run has, by path, and their objects; None: there is none.

        Raises:
            LocalFileError: one has a name that is none of a file here.
        """
        saved = {name for record in records for name in files_of(record).saved}
        images = {path for path in objects if _is_image(path)}
        for path in (*saved, *images):
            name = path.removeprefix(f"{GENERATED_IMAGES}/")
            fault = component_fault(name)
            if len(name.encode()) > _FILE_NAME_BYTES_MAX:
                fault = f"has more than {_FILE_NAME_BYTES_MAX} bytes"
            if fault:
                raise refused(run, path, f"its name {fault}", _RENAME_HINT)
        return {path: objects.get(path) for path in sorted(saved | images)}

    async def _load(self, run: RunKey, missing: Sequence[RemoteObject], files: Path) -> dict[str, Path]:
        """Load objects of a run into a folder; where each is, by its path in the run's folder."""
        prefix = object_name(run, "")
        staged = {remote.name.removeprefix(prefix): remote for remote in missing}
        limiter = anyio.Semaphore(_DOWNLOADS_LIMIT)
        failed: list[SyncError] = []

        async def load(path: str, remote: RemoteObject) -> None:
            async with limiter:
                if failed:
                    return
                try:
                    with writing(f"{run}/{path}"):
                        await self._load_one(remote, files / path, f"{run}/{path}")
                except SyncError as error:
                    failed.append(error)

        if any("/" in path for path in staged):
            (files / GENERATED_IMAGES).mkdir()
        async with anyio.create_task_group() as tasks:
            for path, remote in staged.items():
                tasks.start_soon(load, path, remote)
        for error in failed:
            raise error
        return {path: files / path for path in staged}

    async def _load_one(self, remote: RemoteObject, place: Path, subject: str) -> None:
        async with await anyio.open_file(place, "xb") as file:

            async def write(piece: bytes) -> None:
                with writing(subject):
                    await file.write(piece)

            await self._cloud.store.download(await self._cloud.looked_up(remote), write)
            await file.flush()
            await to_thread.run_sync(os.fsync, file.wrapped.fileno())

    def _has_args(self, run: RunKey) -> bool:
        """Whether a run has something called args.json here. Blocks."""
        try:
            with opened_run(self._root, run) as folder:
                os.lstat(ARGS_FILE, dir_fd=folder)
        except (MissingFileError, FileNotFoundError):
            return False
        return True

    def _finish(self, run: RunKey, staged: Mapping[str, Path], args: bytes) -> None:
        """Write args.json, where it is asked for, and set the times of all files. Blocks."""
        if ARGS_FILE in staged:
            write_file(staged[ARGS_FILE], args)
        at = min(stored_at(run.run) or self._now(), self._now() - _PAST_SECONDS)
        for place in staged.values():
            os.utime(place, (at, at))

    def _put_in_place(
        self, run: RunKey, folder: Path, files: Path, staged: Mapping[str, Path], lines: bytes
    ) -> None:
        """Blocks; raises as `complete_run` and `store_run`."""
        if is_there(self._root, run):
            complete_run(self._root, folder, self._tracking_file, run, staged, lines)
        else:
            store_run(folder, self._tracking_file, run, files, lines)


def _is_image(path: str) -> bool:
    """Whether Pixaris lists a file of a run as an image of it."""
    folder, _, name = path.rpartition("/")
    is_hidden = name.startswith(".") and name.lower() not in IMAGE_SUFFIXES
    return folder == GENERATED_IMAGES and name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden


def _failed(run: RunKey, error: SyncError) -> Pulled:
    """What becomes of a run after this error, if it is not one that stops everything."""
    if error.stops_everything:
        raise error
    return Pulled(run, problem=Problem(str(error), error.hint), passes=error.failure.retryable)
