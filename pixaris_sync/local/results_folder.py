"""The results folder as it stands on disk: datasets, run folders, files of a run. Nothing is ever written.

Folders are walked as `safe_open` says: from handle to handle, never through a symbolic link. What is hidden
(begins with a dot) and what Pixaris keeps beside runs is left out without a word; what somebody would miss is
a problem, with its cause: a link in the place of a project, dataset, run or image, a name that is no UTF-8, a
folder that cannot be read.

All methods block: call them in a thread. One `LocalResults` may serve several threads, but one dataset's
`tail` only one at a time.
"""

import errno
import os
import stat
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pixaris_sync.errors import ConfigurationError, Failure, LocalFileError
from pixaris_sync.local import run_folder
from pixaris_sync.local.placement import misplaced
from pixaris_sync.local.run_folder import RunInspection
from pixaris_sync.local.run_names import RunFolder, unnamed
from pixaris_sync.local.safe_open import (
    MissingFileError,
    changed_ns_of,
    listed,
    local_error,
    opened_folder,
    spelling,
)
from pixaris_sync.local.tracking_file import Tailer
from pixaris_sync.local.tracking_lines import LINE_BYTES_MAX
from pixaris_sync.model import DatasetKey, FileVersion, RunKey, Tail, TailPosition
from pixaris_sync.rules.contract import FEEDBACK_FOLDER, FIRST_IMAGES, GENERATED_IMAGES, STAMPED, same_name
from pixaris_sync.text import is_utf8, printable

_ROOT_HINT: Final = "set local_results_folder to the folder that LocalExperimentHandler writes to"
_ACCESS_HINT: Final = "let the user who runs pixaris-sync read and enter it"
_LINK_HINT: Final = (
    "put the folder itself there, or sync the folder that holds what the link leads to by itself"
)
_SLASH: Final = "the name of its project or of its dataset has a slash, which no table's name can have"
_SLASH_HINT: Final = (
    "copy it to <project>/<dataset> in another results folder, with names without a slash, then sync that"
)
_DATASET_DEPTH: Final = 2
#: Folders that Pixaris makes beside runs and in them.
_NO_DATASETS: Final = (FEEDBACK_FOLDER, GENERATED_IMAGES, FIRST_IMAGES)
#: Names of projects and datasets with slashes are looked for so deep, and in so many folders of a dataset.
_DEPTH_MAX: Final = 8
_STRAYS_MAX: Final = 1000
#: A folder that is listed this soon after it changed may change once more without another time.
_TICK_NS: Final = 2_000_000_000
_NAME_HINT: Final = "give it a name in UTF-8 in a copy of the results folder, then sync that copy"


class Datasets(NamedTuple):
    """What stands in a results folder: dataset folders in sorted order, and what could not be looked into."""

    keys: tuple[DatasetKey, ...]
    problems: tuple[LocalFileError, ...]


class DatasetStatus(NamedTuple):
    """What differs once an entry of a dataset's folder was added or removed, or its tracking file written.

    `changed_ns` is when either happened last; both are compared by inode, size and times.
    """

    changed_ns: int
    compared: tuple[tuple[int, int, int, int], ...]


class LocalResults:
    """A ``local_results`` folder.

    Args:
        root: the folder.
        tracking_file: the name of the tracking file in each dataset's folder.
        line_bytes_max: a longer line of a tracking file is damaged and not held in memory.
    """

    def __init__(self, root: Path, tracking_file: str, *, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self.root = root.absolute()
        #: Folders that are no run's, by the folder that holds them, with the time of its last change.
        self._strays: dict[tuple[str, ...], tuple[int, list[str]]] = {}
        self._tracking_file = tracking_file
        self._tailer = Tailer(self.root, tracking_file, self._unnamed, line_bytes_max=line_bytes_max)

    def check(self) -> None:
        """Make sure that the folder can be listed and entered.

        Raises:
            ConfigurationError: it is missing, no folder, or may not be read or entered.
            LocalFileError: (transient) its disk is in trouble, or no more files may be open.
        """
        try:
            with os.scandir(self.root):
                if not os.access(self.root, os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            hint = _ACCESS_HINT if isinstance(error, PermissionError) else _ROOT_HINT
            subject = printable(str(self.root))
            found = local_error("read", subject, error)
            if found.failure is Failure.TRANSIENT:
                raise found from error
            cause = found.cause
            raise ConfigurationError("read results folder", subject, cause, hint=hint) from error

    def check_place(self) -> None:
        """Make sure that it is not another folder, one or two levels off; a missing one is none.

        Raises:
            ConfigurationError: it is; the hint names the right one.
        """
        found = misplaced(self.root, self._tracking_file)
        if found is not None:
            hint = f"set local_results_folder to {printable(str(found.right))}"
            raise ConfigurationError("use results folder", printable(str(self.root)), found.cause, hint=hint)

    def datasets(self) -> Datasets:
        """List the folders two levels deep, those without a tracking file included.

        A tracking file that lies deeper is a problem: of names with slashes LocalExperimentHandler makes
        folders in folders.

        Raises:
            LocalFileError: the results folder itself cannot be read (transient).
        """
        keys: list[DatasetKey] = []
        problems: list[LocalFileError] = []
        for project in self._folders((), problems):
            datasets = self._folders((project,), problems)
            keys += [DatasetKey(project, dataset) for dataset in datasets if dataset != FEEDBACK_FOLDER]
        for key in keys:
            problems += [
                LocalFileError("carry dataset", printable(path), _SLASH, hint=_SLASH_HINT)
                for path in self._too_deep(key)
            ]
        return Datasets(tuple(keys), tuple(problems))

    def has(self, key: DatasetKey) -> bool:
        """Whether something is in the place of a dataset's folder, be it unreadable."""
        try:
            with opened_folder(self.root, [key.project, key.dataset]):
                return True
        except MissingFileError:
            return False
        except LocalFileError:
            return True

    def tail(
        self,
        key: DatasetKey,
        position: TailPosition | None,
        *,
        bytes_limit: int,
        settled_before_ns: int | None = None,
    ) -> Tail | None:
        """Read what is new in a dataset's tracking file since `position`.

        Where the file's status is as in `position`, it is not read. Else the bytes before `position` are
        read again, and where their hash is another, the file is read from its start.

        Args:
            key: the dataset.
            position: what an earlier call returned, or None for everything.
            bytes_limit: whole lines of so many bytes together are read, or one line that is longer.
            settled_before_ns: where the file has not changed since this time, in ns since the epoch, a last
                line without its newline is a record if it is a whole one. It is told once, and again when
                the line goes on.

        Returns:
            What is new; None where there is no tracking file.

        Raises:
            LocalFileError: it is a link, no regular file, or cannot be read.
        """
        return self._tailer.tail(key, position, bytes_limit=bytes_limit, settled_before_ns=settled_before_ns)

    def run_folders(self, key: DatasetKey) -> list[RunFolder]:
        """List a dataset's run folders, sorted by name; other folders are stray and left out.

        When they changed is when an entry was last added to them or removed.

        Raises:
            LocalFileError: the dataset's folder is missing or cannot be read.
        """
        found: list[RunFolder] = []
        parts = [key.project, key.dataset]
        with opened_folder(self.root, parts) as folder, listed(folder, str(key)) as entries:
            for entry in entries:
                if not STAMPED.match(entry.name) or not is_utf8(entry.name):
                    continue
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        found.append(RunFolder(entry.name, entry.stat(follow_symlinks=False).st_mtime_ns))
        return sorted(found, key=lambda run: run.name)

    def without_folder(self, key: DatasetKey, runs: Sequence[str]) -> list[str]:
        """Which of these runs have no folder, in a dataset whose tracking file is there; else none of them.

        Raises:
            LocalFileError: the dataset's folder is missing or cannot be read.
        """
        with opened_folder(self.root, [key.project, key.dataset]) as folder:
            # Both are looked for in one folder: another one may be mounted in its place at any time.
            if _is_gone(folder, self._tracking_file):
                return []
            return [run for run in runs if all(_is_gone(folder, name) for name in (run, same_name(run)))]

    def unnamed_folders(self, key: DatasetKey, named: Collection[str]) -> list[RunFolder]:
        """List a dataset's run folders that are not those of the runs `named`.

        A folder that only leads to folders, as of a name with slashes, stands for the runs in it. When they
        changed is as `changed_ns` tells, where it can.

        Raises:
            LocalFileError: the dataset's folder is missing or cannot be read.
        """
        found: list[RunFolder] = []
        for folder in unnamed(self.root, key, self.run_folders(key), named):
            changed_ns = folder.changed_ns
            with suppress(LocalFileError):
                changed_ns = self.changed_ns(RunKey(key.project, key.dataset, folder.name))
            found.append(RunFolder(folder.name, changed_ns))
        return found

    def listing_changed_ns(self, key: DatasetKey) -> int:
        """When an entry was last added to a dataset's folder or removed, in ns since the epoch.

        Raises:
            LocalFileError: the dataset's folder is missing or cannot be read.
        """
        with opened_folder(self.root, [key.project, key.dataset]) as folder:
            return os.fstat(folder).st_mtime_ns

    def status(self, key: DatasetKey) -> DatasetStatus:
        """What a dataset's folder and tracking file look like from outside; the disk is asked twice.

        Raises:
            LocalFileError: the dataset's folder is missing or cannot be read.
        """
        with opened_folder(self.root, [key.project, key.dataset]) as folder:
            found = [os.fstat(folder)]
            with suppress(FileNotFoundError):
                found.append(os.lstat(self._tracking_file, dir_fd=folder))
        return DatasetStatus(
            max(one.st_mtime_ns for one in found),
            tuple((one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found),
        )

    def inspect(
        self, run: RunKey, saved_files: Sequence[str], *, accept_without_images: bool = False
    ) -> RunInspection:
        """Look at everything of a run that belongs in the bucket.

        That is each regular file directly in ``generated_images`` with the suffix of an image, in any case
        of letters, and the `saved_files`. A link in the place of one is a problem and is never opened.

        Args:
            run: which.
            saved_files: names in the run's folder of args that were saved as files.
            accept_without_images: whether missing or empty ``generated_images`` is no problem.
        """
        return run_folder.inspect(self.root, run, saved_files, accept_without_images=accept_without_images)

    def signature(self, run: RunKey) -> str | None:
        """What changes when an entry of the run's folder or of its images is added, renamed or removed.

        The disk is asked twice, whatever the run's size. A file that is overwritten in place does not
        change it.

        Returns:
            None where the run's folder cannot be opened.
        """
        return run_folder.signature(self.root, run)

    def changed_ns(self, run: RunKey) -> int:
        """When something in a run's folder or among its images last changed, in ns since the epoch.

        Raises:
            LocalFileError: the run's folder is missing or cannot be read.
        """
        return run_folder.changed_ns(self.root, run)

    def contents(self, run: RunKey) -> dict[str, FileVersion | None]:
        """All that lies in a run's folder and among its images, by path; no args.json, and nothing hidden.

        None stands for what is no file: another folder, or a link.

        Raises:
            LocalFileError: it cannot be read.
        """
        return run_folder.contents(self.root, run)

    def incomplete_reason(self, run: RunKey) -> str:
        """What can be said about a run folder that no tracking line names, in one sentence."""
        return run_folder.incomplete_reason(self.root, run)

    def _too_deep(self, key: DatasetKey) -> list[str]:
        """The folders with a tracking file below a dataset's folder."""
        found: list[str] = []
        waiting: list[tuple[str, ...]] = [(key.project, key.dataset)]
        looked = 0
        while waiting and looked < _STRAYS_MAX:
            parts = waiting.pop()
            looked += 1
            try:
                with opened_folder(self.root, parts) as folder:
                    strays = self._stray_folders(parts, folder)
                    if len(parts) > _DATASET_DEPTH and _holds_file(folder, self._tracking_file):
                        found.append("/".join(parts))
            except LocalFileError:
                continue
            if len(parts) < _DEPTH_MAX:
                waiting += [(*parts, name) for name in reversed(strays)]
        return found

    def _stray_folders(self, parts: tuple[str, ...], folder: int) -> list[str]:
        """Names of the folders in an open folder that are neither hidden nor begin like a run's."""
        changed_ns = changed_ns_of(os.fstat(folder))
        known_ns, names = self._strays.get(parts, (None, []))
        if known_ns == changed_ns:
            return names
        with listed(folder, "/".join(parts)) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not STAMPED.match(entry.name)
                and not entry.name.startswith(".")
                and entry.name not in _NO_DATASETS
                and is_utf8(entry.name)
                and entry.is_dir(follow_symlinks=False)
            )
        if time.time_ns() - changed_ns > _TICK_NS:
            self._strays[parts] = changed_ns, names
        return names

    def _unnamed(self, key: DatasetKey, named: Collection[str]) -> list[str]:
        return [run.name for run in unnamed(self.root, key, self.run_folders(key), named)]

    def _folders(self, parts: tuple[str, ...], problems: list[LocalFileError]) -> list[str]:
        """Names of the folders in a folder; links in their place and unreadable ones become problems."""
        names: list[str] = []
        try:
            with (
                opened_folder(self.root, parts) as folder,
                listed(folder, "/".join(parts) or str(self.root)) as entries,
            ):
                for entry in entries:
                    if entry.name.startswith(".") or not _leads_to_folder(entry):
                        continue
                    subject = "/".join((*parts, entry.name))
                    if not is_utf8(entry.name):
                        problems.append(_problem(subject, "its name is no UTF-8", _NAME_HINT))
                    elif entry.is_symlink():
                        cause = "it is a symbolic link, which is never followed"
                        problems.append(_problem(subject, cause, _LINK_HINT))
                    else:
                        names.append(entry.name)
        except MissingFileError:
            return []  # Removed meanwhile.
        except LocalFileError as error:
            if not parts:
                raise
            problems.append(error)
        return sorted(names)


def _holds_file(folder: int, name: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return entry.is_symlink()  # A link in a circle, or to where we may not go: worth a word.


def _is_gone(folder: int, name: str) -> bool:
    """Whether nothing is called so, in whatever spelling; a name with slashes stands in folders."""
    first, _, _ = name.partition("/")
    if spelling(folder, first) != first:
        return False
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _problem(subject: str, cause: str, hint: str) -> LocalFileError:
    return LocalFileError("look into", printable(subject), cause, hint=hint)
