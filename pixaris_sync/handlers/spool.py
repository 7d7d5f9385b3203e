"""Where runs wait for the cloud: a results folder of this machine for each destination.

It has the layout of a results folder, so that ``pixaris-sync sync``, ``watch`` and ``status`` work on it as
on any other. What is in the cloud is removed from it, a dataset at a time: first the tracking file, then the
runs' folders, so that no line ever tells of a run whose folder is gone. Who finds folders without a tracking
file, as a kill leaves them, removes them.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from pixaris_sync.errors import NameRefusedError
from pixaris_sync.handlers.record import FILE_NAME_BYTES_MAX, cut, tame
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.datasets import find_dataset
from pixaris_sync.ledger.finder import destination_of
from pixaris_sync.ledger.known import is_all_synced
from pixaris_sync.local.placement import visible_folders
from pixaris_sync.local.storing import PREFIX, locked, make_folder, recover
from pixaris_sync.model import DatasetKey
from pixaris_sync.rules.contract import STAMPED, check_dataset_names
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import load_settings

log = logging.getLogger(__name__)

#: Tells that a folder was made to be a spool: in any other nothing is removed.
MARK: Final = ".pixaris-sync-spool"
#: In a spool: what no table can take, as a results folder of its own.
REFUSED: Final = ".refused"
_NAMING: Final = ".naming"
_ATTEMPTS: Final = 3
_DELAY_SECONDS_MIN, _DELAY_SECONDS_MAX = 0.2, 1.0
#: How long a request may stand still while somebody waits for `store_results`.
_TIMEOUT_SECONDS: Final = 15.0


def spool_settings(project: str, dataset: str, bucket: str, folder: str | None) -> Settings:
    """The settings to carry a spool with: those of the environment, for this destination.

    Args:
        project: the Google Cloud project.
        dataset: the BigQuery dataset.
        bucket: the bucket.
        folder: the spool; None: the destination's, below the user's state folder.

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """
    flags = {
        "gcp_project_id": project,
        "gcp_bq_experiment_dataset": dataset,
        "gcp_pixaris_bucket_name": bucket,
    }
    if folder is None:
        # Whatever the environment names is no spool.
        settings = load_settings({**flags, "local_results_folder": os.devnull})
        identity = "\0".join(destination_of(settings))
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        place = settings.state_folder.absolute() / "spool" / f"{_shown(bucket)}-{digest}"
    else:
        settings = load_settings({**flags, "local_results_folder": folder})
        place = Path(folder)
    return settings.having(
        local_results_folder=place,
        # A run in here is whole, and a training process waits for it.
        still_folder_seconds=0.0,
        accept_runs_without_images=True,
        sync_attempts_limit=_ATTEMPTS,
        retry_delay_seconds_min=_DELAY_SECONDS_MIN,
        retry_delay_seconds_max=_DELAY_SECONDS_MAX,
        request_timeout_seconds=min(settings.request_timeout_seconds, _TIMEOUT_SECONDS),
    )


def _shown(bucket: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in bucket)[:40]


def make_spool(folder: Path) -> None:
    """Make the folder of a spool, for this user alone; one that is there and holds something stays as it is.

    Raises:
        OSError: the disk refused.
    """
    if not folder.exists():
        make_folder(folder, 0o700)
    with suppress(OSError):
        if not any(folder.iterdir()):
            (folder / MARK).touch()


def place_in(folder: Path, key: DatasetKey) -> tuple[Path, NameRefusedError | None]:
    """The folder of a dataset in a spool, and why its runs cannot be carried, if so."""
    try:
        check_dataset_names(key)
    except NameRefusedError as error:
        kept = folder / REFUSED / _folder_name(key.project) / _folder_name(key.dataset)
        return kept, NameRefusedError(
            error.operation,
            error.subject,
            error.cause,
            hint=f"store it again under another name; this run is kept in {kept}",
        )
    return folder / key.project / key.dataset, None


def _folder_name(name: str) -> str:
    name = tame(name)
    return cut(name if name.strip(".") else f"_{name}", FILE_NAME_BYTES_MAX)


@contextmanager
def naming(dataset_folder: Path) -> Iterator[None]:
    """One at a time finds a name in a dataset's folder, in all processes."""
    handle = os.open(dataset_folder / _NAMING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Where there are no locks, one writer is as good as before.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def datasets_in(folder: Path) -> list[DatasetKey]:
    """The datasets of a spool."""
    return [
        DatasetKey(project, dataset)
        for project in visible_folders(folder)
        for dataset in visible_folders(folder / project)
    ]


def recover_all(settings: Settings) -> None:
    """End what writers began that are gone, in all datasets of a spool."""
    for key in datasets_in(settings.local_results_folder):
        recover(_dataset_folder(settings, key))


def empty(settings: Settings, ledger: Ledger) -> None:
    """Remove the runs of datasets of which everything is in the cloud; who owns the spool calls this.

    Writers may add runs meanwhile. A disk that refuses is told of, and tried again next time.
    """
    if not (settings.local_results_folder / MARK).exists():
        return
    for key in datasets_in(settings.local_results_folder):
        try:
            _empty_dataset(settings, ledger, key)
        except OSError as error:
            log.warning("spool %s keeps what is in the cloud: %s", settings.local_results_folder, error)


def _empty_dataset(settings: Settings, ledger: Ledger, key: DatasetKey) -> None:
    folder = _dataset_folder(settings, key)
    tracking = folder / settings.dataset_tracking_file_name
    if not visible_folders(folder) and not tracking.exists():
        return
    with locked(tracking) as handle:
        lines = os.pread(handle, os.fstat(handle).st_size, 0)
        # Who finds what a killed writer left looks for its line in the tracking file.
        if any(folder.glob(f"{PREFIX}*")) or any(STAMPED.match(name) for name in visible_folders(folder)):
            return
        if not ledger.read(lambda db: _is_synced(db, key, lines)):
            return
        tracking.unlink()
        for name in visible_folders(folder):
            shutil.rmtree(folder / name)


def _is_synced(db: Connection, key: DatasetKey, lines: bytes) -> bool:
    """Whether these very lines of a tracking file were read, and everything that was read is synced.

    A new file may have the size, and even the inode, of one that was read and removed.
    """
    known = find_dataset(db, key)
    if known is None:
        return not lines
    read = known.position.digest if known.position else ""
    return (not lines or hashlib.sha256(lines).hexdigest() == read) and is_all_synced(db, known.id)


def _dataset_folder(settings: Settings, key: DatasetKey) -> Path:
    return settings.local_results_folder / key.project / key.dataset
