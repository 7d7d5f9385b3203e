"""Which folder a record's run has, and which folders no record's run has.

A record names its run's folder, below its dataset's. Not so those of Pixaris 0.1.0 and 0.2.0: their names
lack the time, which the folder has. Blocking.
"""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.damaged_lines import candidate
from pixaris_sync.local.safe_open import listed, local_error, opened_file, opened_folder, opened_run
from pixaris_sync.model import DamagedLine, DatasetKey, RunKey, TrackingRecord
from pixaris_sync.rules.contract import (
    ARGS_FILE,
    FIRST_IMAGES,
    GENERATED_IMAGES,
    STAMPED,
    in_folder,
    same_name,
    stamped_name,
)
from pixaris_sync.rules.names import OBJECT_NAME_BYTES_MAX
from pixaris_sync.text import is_utf8

_BLOCK_BYTES: Final = 1024 * 1024


class RunFolder(NamedTuple):
    """A folder with the name of a run, and when it changed, in ns since the epoch."""

    name: str
    changed_ns: int


def placed(root: Path, record: TrackingRecord, *, args_bytes_max: int) -> TrackingRecord | DamagedLine:
    """Give a record its run's whole name.

    A name that begins with the record's time is whole. Of another, the folder with that time before it
    decides, then the folder that is called so, then the one of which ``args.json`` holds the very record.
    Where there is none yet, it is the first that is waited for.

    Args:
        root: the results folder.
        record: as its line has it.
        args_bytes_max: a longer ``args.json`` is not looked into.

    Returns:
        The record; a damaged line where its folder cannot be told, with the folders that it may be.
    """
    name, stamped = record.run.run, stamped_name(record.values, record.run.run)
    if stamped is None and STAMPED.match(name):
        return record
    for folder in (stamped, name):
        if folder is not None and _is_folder(root, _beside(record.run, folder)):
            return in_folder(record, folder) or record
    folders = list(_folders_like(root, record.run))
    holding = [folder for folder in folders if _holds(root, record, folder, args_bytes_max)]
    if len(holding) == 1:
        return in_folder(record, holding[0]) or record
    if stamped is not None and not STAMPED.match(name):
        return in_folder(record, stamped) or record
    if not folders:
        return record
    cause = f"no folder is called {name!r}, and nothing tells which one is meant of: {', '.join(folders)}"
    return DamagedLine(f"odd {record.digest}", record.line, cause)


def unnamed(
    root: Path, key: DatasetKey, folders: Sequence[RunFolder], named: Collection[str]
) -> list[RunFolder]:
    """The runs' folders of a dataset that no record's run has; those in a folder have its time.

    Args:
        root: the results folder.
        key: the dataset.
        folders: those in the dataset's folder that begin like a run's.
        named: the names of the runs that records tell of.
    """
    left = [
        RunFolder(name, folder.changed_ns)
        for folder in folders
        if folder.name not in named
        for name in _runs_in(root, RunKey(*_parts(key), folder.name))
    ]
    # What exists as it is spelled is no other spelling's folder.
    exact = {folder.name for folder in (*folders, *left)}
    alike = {same_name(name) for name in named if name not in exact}
    return [run for run in left if run.name not in named and same_name(run.name) not in alike]


def read_args(root: Path, run: RunKey, *, bytes_limit: int) -> bytes | None:
    """The bytes of a run's ``args.json``, None where there are more than `bytes_limit`.

    Raises:
        MissingFileError: it does not exist.
        LocalFileError: it is a link, no regular file, or cannot be read.
    """
    subject = f"{run}/{ARGS_FILE}"
    with (
        opened_run(root, run) as folder,
        opened_file(folder, ARGS_FILE, subject=subject) as (handle, status),
    ):
        if status.st_size > bytes_limit:
            return None
        try:
            return b"".join(blocks(handle, 0, status.st_size))
        except OSError as error:
            raise local_error("read", subject, error) from error


def blocks(handle: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from `start` to `end`, or to where it ends by now."""
    while start < end and (block := os.pread(handle, min(_BLOCK_BYTES, end - start), start)):
        yield block
        start += len(block)


def _parts(key: DatasetKey) -> tuple[str, str]:
    return key.project, key.dataset


def _beside(run: RunKey, name: str) -> RunKey:
    return RunKey(run.project, run.dataset, name)


def _is_folder(root: Path, run: RunKey) -> bool:
    """Whether a run's folder is there, if not always to be entered."""
    try:
        with opened_run(root, run):
            return True
    except LocalFileError:
        return False


def _folders_like(root: Path, run: RunKey) -> Iterator[str]:
    """The folders of a dataset that are called as a run, with a time before it."""
    first, *below = run.run.split("/")
    try:
        with opened_folder(root, _parts(run.dataset_key)) as folder, listed(folder, str(run)) as entries:
            names = [entry.name for entry in entries]
    except LocalFileError:
        return
    for name in sorted(names):
        if STAMPED.match(name) and same_name(STAMPED.sub("", name, count=1)) == same_name(first):
            whole = "/".join((name, *below))
            if is_utf8(whole) and _is_folder(root, _beside(run, whole)):
                yield whole


def _holds(root: Path, record: TrackingRecord, folder: str, args_bytes_max: int) -> bool:
    """Whether a folder's ``args.json`` is this very record."""
    run = _beside(record.run, folder)
    try:
        args = read_args(root, run, bytes_limit=args_bytes_max)
    except LocalFileError:
        return False
    found = None if args is None else candidate(run.dataset_key, folder, args)
    return found is not None and found.digest == record.digest


def _runs_in(root: Path, run: RunKey) -> Iterator[str]:
    """The runs in a folder that begins like a run's: itself, or, where it only leads to folders, those."""
    waiting = [run.run]
    while waiting:
        name = waiting.pop()
        below: list[str] = []
        is_run = False
        with (
            suppress(LocalFileError),
            opened_run(root, _beside(run, name)) as folder,
            listed(folder, f"{run.dataset_key}/{name}") as entries,
        ):
            for entry in entries:
                if _leads_on(entry):
                    below.append(f"{name}/{entry.name}")
                else:
                    is_run = True
        deep = any(len(path.encode()) > OBJECT_NAME_BYTES_MAX for path in below)
        if is_run or deep or not below:
            yield name
        else:
            waiting += sorted(below, reverse=True)


def _leads_on(entry: "os.DirEntry[str]") -> bool:
    try:
        is_folder = stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
    return is_folder and is_utf8(entry.name) and entry.name not in (GENERATED_IMAGES, FIRST_IMAGES)
