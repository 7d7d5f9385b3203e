"""Looks at this machine: folders, who works there, what the system allows, and the ways out of it.

Nothing is written, locked or made. What depends on a path of the system takes it as an argument.
"""

import os
import platform
import pwd
import resource
import shutil
import sqlite3
import stat
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pixaris_sync import __version__
from pixaris_sync.doctor.checks import Check, failed, failed_by, not_checked, passed, warning
from pixaris_sync.errors import OPEN_FILES_HINT, ConfigurationError, SyncError
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.local.mounts import network_filesystem
from pixaris_sync.local.placement import visible_folders
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.login import certificates
from pixaris_sync.process.open_files import wanted_files
from pixaris_sync.process.ownership import describe_owner
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import bytes_text, counted, printable

#: A ledger has some hundred bytes a run: below this nothing can be trusted to be written, and below that it
#: may soon be so.
STATE_BYTES_FAILED: Final = 16 * 1024 * 1024
STATE_BYTES_WARNING: Final = 256 * 1024 * 1024
#: How many folders are looked at for whether they can be read.
_LOOKS_LIMIT: Final = 2_000

INOTIFY: Final = Path("/proc/sys/fs/inotify")
PROCESSES: Final = Path("/proc")
_INOTIFY_HANDLE: Final = "anon_inode:inotify"
_INOTIFY_HINT: Final = (
    "raise it: `sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024`, and write it "
    "into /etc/sysctl.d to keep it"
)
_PROXY_SCHEMES: Final = ("http", "https")


def look_at_folders(settings: Settings) -> list[Check]:
    """The results folder, the ledger's, and what watching them takes; a disk that is away holds this up."""
    return [
        *look_at_folder(settings),
        look_at_owner(settings),
        *look_at_state_folder(settings),
        look_at_inotify(settings.local_results_folder),
    ]


def look_at_system(settings: Settings) -> list[Check]:
    """What the system allows, the ways out of this machine, and versions."""
    return [look_at_open_files(settings), look_at_proxies(), look_at_certificates(), look_at_versions()]


def look_at_versions() -> Check:
    """What a report of a fault should tell."""
    python, sqlite = platform.python_version(), sqlite3.sqlite_version
    return passed("versions", f"pixaris-sync {__version__}, Python {python}, SQLite {sqlite}")


def look_at_folder(settings: Settings) -> list[Check]:
    """The results folder: there, at the right level, and readable."""
    name, root = "folder", settings.local_results_folder
    results = LocalResults(root, settings.dataset_tracking_file_name)
    try:
        results.check()
        results.check_place()
    except SyncError as error:
        fault = failed_by(name, error)
        return [failed(name, f"{error.subject}: {fault.found}", fault.remedy)]
    datasets = [path for path in _folders(root) if path.parent != root]
    projects = len(visible_folders(root))
    shown = printable(str(root.resolve()))
    checks = [passed(name, f"{shown}: {counted(projects, 'project')}, {counted(len(datasets), 'dataset')}")]
    closed = [path for path in _readable(root, settings) if not os.access(path, _needs(path))]
    if closed:
        found = f"{counted(len(closed), 'path')} cannot be read, such as {printable(str(closed[0]))}"
        remedy = f"let {_user(os.geteuid())} read them: `chmod -R u+rX,g+rX`, or a group that both are in"
        checks.append(failed(name, found, remedy))
    kind = network_filesystem(root, below=True)
    if kind is not None:
        found = f"it is on {kind}, where no event tells of what other machines write"
        remedy = (
            "leave it so: every rescan_interval_seconds all is looked at; or run on the machine that writes"
        )
        checks.append(warning(name, found, remedy))
    return checks


def _folders(root: Path) -> Iterator[Path]:
    """Projects and datasets, some at most."""
    left = _LOOKS_LIMIT
    for project in visible_folders(root):
        yield root / project
        for dataset in visible_folders(root / project):
            left -= 1
            if left < 0:
                return
            yield root / project / dataset


def _readable(root: Path, settings: Settings) -> Iterator[Path]:
    for folder in _folders(root):
        yield folder
        tracking = folder / settings.dataset_tracking_file_name
        if os.path.lexists(tracking):
            yield tracking


def _needs(path: Path) -> int:
    return os.R_OK | os.X_OK if path.is_dir() else os.R_OK


def look_at_owner(settings: Settings) -> Check:
    """Who works on the folder now."""
    name = "at work"
    try:
        note = found_ledger(settings).path.with_suffix(".owner")
        owner = describe_owner(settings.local_results_folder, note)
    except (SyncError, OSError):
        return not_checked(name, "see the folder")
    return passed(name, owner or "no process works on this folder")


def look_at_state_folder(settings: Settings) -> list[Check]:
    """Where the ledger is, or will be: space, kind of file system, owner, permissions."""
    name = "state folder"
    try:
        state = settings.state_folder
        exists = state.is_dir()
        nearest = next(path for path in (state, *state.absolute().parents) if path.exists())
        free = shutil.disk_usage(nearest).free
        status = nearest.stat()
    except SyncError as error:
        return [failed_by(name, error)]
    except (OSError, StopIteration) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be looked at"
        return [failed(name, f"{settings.state_folder}: {cause}", _OTHER_STATE)]
    shown = printable(str(state))
    user = _user(os.geteuid())
    if not nearest.is_dir() or not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        found = f"{shown}: {user} cannot {'write there' if exists else 'make it'}"
        found += f": {printable(str(nearest))} is no folder" if not nearest.is_dir() else ""
        return [failed(name, found, f"give it to {user}, or {_OTHER_STATE}")]
    checks = []
    if free < STATE_BYTES_WARNING:
        grave = failed if free < STATE_BYTES_FAILED else warning
        found = f"{shown}: {bytes_text(free)} are free"
        checks.append(grave(name, found, f"make room on its disk, or {_OTHER_STATE}"))
    kind = network_filesystem(nearest)
    if kind is not None:
        found = f"{shown} is on {kind}, where SQLite's locks cannot be trusted"
        checks.append(warning(name, found, "choose a local folder with --state-dir"))
    if exists and status.st_uid != os.geteuid():
        found = f"{shown} belongs to {_user(status.st_uid)}, and this is {user}"
        remedy = f"run it as {_user(status.st_uid)}, as the service does, or {_OTHER_STATE}"
        checks.append(warning(name, found, remedy))
    if exists and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        found = f"{shown} can be written by everybody"
        checks.append(warning(name, found, f"`chmod o-w {shown}`"))
    return checks or [passed(name, f"{shown}: {bytes_text(free)} free{_ledger_text(settings)}")]


_OTHER_STATE: Final = "choose another folder with --state-dir"


def _ledger_text(settings: Settings) -> str:
    with suppress(SyncError, OSError):
        found = found_ledger(settings)
        return f", ledger {found.path.name}" if may_exist(found.path) else ", no ledger yet"
    return ""


def look_at_inotify(root: Path, limits: Path = INOTIFY, processes: Path = PROCESSES) -> Check:
    """Whether `watch` can watch every dataset, beside what this user's processes watch already.

    Args:
        root: the results folder.
        limits: the folder of the kernel's limits (inotify(7)).
        processes: the folder of processes (proc(5), ``fdinfo``).
    """
    name = "inotify"
    wanted = 1 + sum(1 for _ in _folders(root))
    try:
        watches = int((limits / "max_user_watches").read_text())
        instances = int((limits / "max_user_instances").read_text())
    except (OSError, ValueError):
        return not_checked(name, "this system does not tell its limits")
    used, in_use = _watches_in_use(processes)
    found = f"{counted(wanted, 'folder')} to watch, {watches} may be watched, {used} are"
    if wanted + used > watches:
        return warning(name, f"{found}: new runs show after rescan_interval_seconds", _INOTIFY_HINT)
    if in_use >= instances:
        found = (
            f"all {counted(instances, 'instance')} are in use: new runs show after rescan_interval_seconds"
        )
        return warning(name, found, _INOTIFY_HINT)
    return passed(name, found)


def _watches_in_use(processes: Path) -> tuple[int, int]:
    """How many watches and instances the processes have that can be looked at, which are this user's."""
    watches = instances = 0
    for fdinfo in processes.glob("[0-9]*/fdinfo"):
        with suppress(OSError):
            for handle in fdinfo.iterdir():
                with suppress(OSError):
                    if str((fdinfo.parent / "fd" / handle.name).readlink()) == _INOTIFY_HANDLE:
                        instances += 1
                        watches += handle.read_text().count("inotify wd:")
    return watches, instances


def look_at_open_files(settings: Settings, most: int | None = None) -> Check:
    """Whether as many files may be open as all uploads at once need; `most`: the system's limit."""
    name = "open files"
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if most is None else most
    wanted = wanted_files(settings)
    if most in (resource.RLIM_INFINITY, -1) or most >= wanted:
        return passed(name, f"{wanted} are enough, and may be open")
    found = f"{most} may be open, {wanted} are wanted: fewer uploads are made at the same time"
    return warning(name, found, OPEN_FILES_HINT)


def look_at_proxies() -> Check:
    """Which proxies are set, without their passwords."""
    name, shown = "proxies", []
    for scheme, address in sorted(urllib.request.getproxies_environment().items()):
        if scheme == "no":
            shown.append(f"not for {address}")
            continue
        if (way := _proxy(address)) is None:
            found = f"the proxy for {scheme} is no address of the kind http://HOST:PORT"
            remedy = f"correct the environment variable {scheme}_proxy, in small or capital letters"
            return failed(name, found, remedy)
        shown.append(f"{scheme} by {way}")
    return passed(name, printable(", ".join(shown) or "none is set"))


def _proxy(address: str) -> str | None:
    """Host and port of a proxy, without its password; None where the address is none."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    good = parts.scheme in _PROXY_SCHEMES and parts.hostname and parts.port != 0
    return f"{parts.hostname}{port}" if good else None


def look_at_certificates() -> Check:
    """Whom connections to Google trust, as the login decides it."""
    name = "certificates"
    try:
        certificates.new_context()
    except ConfigurationError as error:
        return failed(name, f"{error.subject}: {error.cause}", error.hint)
    variable, path = certificates.chosen() or ("", "")
    return passed(name, printable(f"{path} ({variable})" if path else "those of the system, and of requests"))


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
