"""One run as it stands on disk: its files, what is missing, whether it changed, why it is incomplete.

Blocking. The run's folder is reached as `safe_open` says: never through a symbolic link.
"""

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from pixaris_sync.errors import LocalFileError, SyncError
from pixaris_sync.local.run_names import read_args
from pixaris_sync.local.safe_open import (
    MissingFileError,
    changed_ns_of,
    inode_of,
    irregularity,
    listed,
    local_error,
    opened_file,
    opened_run,
    version_of,
)
from pixaris_sync.local.tracking_lines import LINE_BYTES_MAX, load_json
from pixaris_sync.model import FileVersion, FoundFile, RunKey
from pixaris_sync.rules.contract import (
    ARGS_FILE,
    FIRST_IMAGES,
    GENERATED_IMAGES,
    IMAGE_SUFFIXES,
    UNLISTED_SUFFIXES,
    check_object_name,
    object_name,
)
from pixaris_sync.text import printable

#: What is written has equal times. So much later than its mtime a file changes only where that was set.
TIMES_SET_NS: Final = 1_000_000_000
_IMAGES_HINT: Final = (
    "put the images back; where runs without images are meant, set accept_runs_without_images"
)


class FolderTimes(Struct):
    """When a run's folder, its images' folder and all that lies in them changed; hidden files count too.

    Attributes:
        newest_ns: the last change of any, in ns since the epoch.
        oldest_ns: of the last changes of the files, the earliest; 0: there are no files.
        times_set: of a file, its mtime lies before its last change, as copying leaves it that keeps times.
    """

    newest_ns: int = 0
    oldest_ns: int = 0
    times_set: bool = False

    def take(self, status: os.stat_result) -> None:
        """Take a file or folder into account."""
        changed_ns = changed_ns_of(status)
        self.newest_ns = max(self.newest_ns, changed_ns)
        if stat.S_ISREG(status.st_mode):
            self.oldest_ns = min(self.oldest_ns or changed_ns, changed_ns)
            self.times_set |= changed_ns - status.st_mtime_ns > TIMES_SET_NS


class RunInspection(NamedTuple):
    """What of a run is on disk.

    Attributes:
        files: what belongs in the bucket, sorted by path.
        problems: what is missing or cannot be carried; the run cannot go while there is one. A transient
            one means that the disk could not be asked.
        signature: see `signature`; empty where the run's folder cannot be opened.
        unlisted: the suffixes of other pictures and films beside its images, which are left out.
        times: when it changed; None where the run's folder cannot be opened.
    """

    files: tuple[FoundFile, ...]
    problems: tuple[SyncError, ...]
    signature: str
    times: FolderTimes | None = None
    unlisted: tuple[str, ...] = ()


def inspect(
    root: Path, run: RunKey, saved_files: Sequence[str], *, accept_without_images: bool
) -> RunInspection:
    """Look at everything of a run that belongs in the bucket. See `results_folder.LocalResults.inspect`."""
    times = FolderTimes()
    # Taken first: what is added while we look makes another signature.
    try:
        with opened_run(root, run) as folder:
            signed = _signature(folder)
            _take_times(times, folder, str(run))
    except LocalFileError as error:
        return RunInspection((), (error,), "")
    files: dict[str, FoundFile] = {}
    problems: list[SyncError] = []
    unlisted: set[str] = set()
    try:
        images = _list_images(root, run, problems, times, unlisted)
        if not images and not problems and not accept_without_images:
            others = f", only {_joined(unlisted)}" if unlisted else ""
            problems.append(_without_images(run, f"there is no image in it{others}"))
    except MissingFileError as error:
        images = {}
        if not accept_without_images:
            problems.append(_without_images(run, error.cause))
    except LocalFileError as error:
        images = {}
        problems.append(error)
    for path in (*images, *saved_files):
        try:
            check_object_name(object_name(run, path))
            files[path] = FoundFile(path, images.get(path) or _saved_version(root, run, path))
        except SyncError as error:
            problems.append(error)
    found = tuple(files[path] for path in sorted(files))
    return RunInspection(found, tuple(problems), signed, times, tuple(sorted(unlisted)))


def signature(root: Path, run: RunKey) -> str | None:
    """A run's signature. See `results_folder.LocalResults.signature`."""
    try:
        with opened_run(root, run) as folder:
            return _signature(folder)
    except LocalFileError:
        return None


def changed_ns(root: Path, run: RunKey) -> int:
    """When something in a run's folder or among its images last changed, in ns since the epoch.

    What was copied in with its old times changed when it came.

    Raises:
        LocalFileError: the run's folder is missing or cannot be read.
    """
    with opened_run(root, run) as folder:
        newest = _newest_ns(folder, str(run))
        with suppress(LocalFileError), opened_run(root, run, (GENERATED_IMAGES,)) as images:
            newest = max(newest, _newest_ns(images, f"{run}/{GENERATED_IMAGES}"))
    return newest


def contents(root: Path, run: RunKey) -> dict[str, FileVersion | None]:
    """All files of a run by path. See `results_folder.LocalResults.contents`."""
    found: dict[str, FileVersion | None] = {}
    for folders in ((), (GENERATED_IMAGES,)):
        subject = "/".join((str(run), *folders))
        with (
            suppress(MissingFileError),
            opened_run(root, run, folders) as folder,
            listed(folder, subject) as entries,
        ):
            for entry in entries:
                path = "/".join((*folders, entry.name))
                if entry.name.startswith(".") or path in (ARGS_FILE, GENERATED_IMAGES, FIRST_IMAGES):
                    continue
                status = entry.stat(follow_symlinks=False)
                found[path] = version_of(status) if stat.S_ISREG(status.st_mode) else None
    return found


def incomplete_reason(root: Path, run: RunKey) -> str:
    """What can be said about a run folder that no tracking line names, in one sentence."""
    try:
        args = read_args(root, run, bytes_limit=LINE_BYTES_MAX)
        if args is not None:
            load_json(args, f"{run}/{ARGS_FILE}")
    except MissingFileError:
        return f"{ARGS_FILE} is missing: the run was stopped before its record was stored"
    except LocalFileError as error:
        failed = "storing the run failed half way, as Pixaris does with images inside a list"
        return f"{ARGS_FILE} is not whole ({error.cause}): {failed}"
    if args is None:
        return f"{ARGS_FILE} is longer than any record may be"
    return f"{ARGS_FILE} is whole, but no line of the tracking file names this run"


def _take_times(times: FolderTimes, folder: int, subject: str) -> None:
    times.take(os.fstat(folder))
    with listed(folder, subject) as entries:
        for entry in entries:
            _take_entry(times, entry)


def _take_entry(times: FolderTimes, entry: os.DirEntry[str]) -> None:
    # A temporary file may have got its name meanwhile.
    with suppress(FileNotFoundError):
        times.take(entry.stat(follow_symlinks=False))


def _list_images(
    root: Path, run: RunKey, problems: list[SyncError], times: FolderTimes, unlisted: set[str]
) -> dict[str, FileVersion]:
    """The images of a run; what stands in an image's place and cannot be one becomes a problem.

    Hidden files are left out, but for one that is named by its suffix alone: so Pixaris saves an image whose
    name begins with a dot.
    """
    versions: dict[str, FileVersion] = {}
    with opened_run(root, run, (GENERATED_IMAGES,)) as folder, listed(folder, str(run)) as entries:
        times.take(os.fstat(folder))
        for entry in entries:
            _take_entry(times, entry)
            name = entry.name.lower()
            if name.startswith(".") and name not in IMAGE_SUFFIXES:
                continue
            if not name.endswith(IMAGE_SUFFIXES):
                unlisted.update(suffix for suffix in UNLISTED_SUFFIXES if name.endswith(suffix))
                continue
            if not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                continue
            path = f"{GENERATED_IMAGES}/{entry.name}"
            status = entry.stat(follow_symlinks=False)
            fault = irregularity(status)
            if fault is None and not os.access(entry.name, os.R_OK, dir_fd=folder):
                fault = PermissionError(errno.EACCES, "")
            if fault is None:
                versions[path] = version_of(status)
            else:
                problems.append(local_error("open file", f"{run}/{path}", fault))
    return versions


def _saved_version(root: Path, run: RunKey, path: str) -> FileVersion:
    *folders, name = path.split("/")
    with (
        opened_run(root, run, folders) as folder,
        opened_file(folder, name, subject=f"{run}/{path}") as (_, status),
    ):
        return version_of(status)


def _joined(suffixes: Iterable[str]) -> str:
    return f"files that Pixaris does not list: {', '.join(sorted(suffixes))}"


def _without_images(run: RunKey, cause: str) -> LocalFileError:
    subject = printable(f"{run}/{GENERATED_IMAGES}")
    return LocalFileError("find images in", subject, cause, hint=_IMAGES_HINT)


def _signature(folder: int) -> str:
    parts = [_identity(os.fstat(folder))]
    for images in (GENERATED_IMAGES, FIRST_IMAGES):
        with suppress(OSError):
            parts.append(_identity(os.lstat(images, dir_fd=folder)))
            break
    return " ".join(parts)


def _identity(status: os.stat_result) -> str:
    return f"{inode_of(status)}:{status.st_mtime_ns}"


def _newest_ns(folder: int, subject: str) -> int:
    newest = changed_ns_of(os.fstat(folder))
    with listed(folder, subject) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                newest = max(newest, changed_ns_of(entry.stat(follow_symlinks=False)))
    return newest
