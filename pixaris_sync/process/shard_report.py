"""What each shard of a backfill leaves beside its ledger, for whoever asks how far they all are.

A ledger is a database that one machine has open, and no other may open it over a network file system:
SQLite's WAL needs shared memory (https://sqlite.org/wal.html). So a shard leaves its numbers in a small file,
which is replaced as a whole: when it begins, every few seconds, and a last time when it ends, with its exit
code.
"""

import errno
import json
import logging
import os
import socket
import stat
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Annotated, Any, Final, Literal, cast

import anyio
import msgspec
from anyio import to_thread
from msgspec import Meta, Struct, field, to_builtins
from msgspec.structs import replace

from pixaris_sync.errors import LedgerError, SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import destination_of
from pixaris_sync.ledger.notices import NOTICE
from pixaris_sync.ledger.overview import files_standing, problems
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.totals import totals
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import printable, without_run

log = logging.getLogger(__name__)

SUFFIX: Final = ".shard.json"
#: How often a shard writes its report: all of them together not more often than ten times a second, so that
#: a file server has other work; each at least once a minute.
INTERVAL_SECONDS: Final = 10.0
INTERVAL_SECONDS_MAX: Final = 60.0
REPORTS_A_SECOND: Final = 10
#: A shard that has not written for so long is no longer heard of.
SILENT_SECONDS: Final = 3 * INTERVAL_SECONDS_MAX
#: Of the time between two reports, counting takes this part at most.
_COUNTING_SHARE: Final = 0.02
#: The first causes, and how long each text may be.
CAUSES_TOLD: Final = 5
_TEXT_LIMIT: Final = 1000
_FILE_BYTES_LIMIT: Final = 1024 * 1024
_LAST_TIME: Final = 253_402_300_799.0  # The end of the year 9999: `datetime` knows no later one.


_Time = Annotated[float, Meta(ge=0, le=_LAST_TIME)]
_Count = Annotated[int, Meta(ge=0, le=2**62)]
#: States of runs; and of the shard itself, where an error ended it.
CauseState = Literal["failing", "quarantined", "incomplete", "failed"]
_Text = Annotated[str, Meta(max_length=_TEXT_LIMIT)]


class Cause(Struct, frozen=True):
    """What went wrong with some runs, lines or files of a shard; `run` is the first of them."""

    count: Annotated[int, Meta(ge=1, le=2**62)]
    state: CauseState
    run: _Text
    cause: _Text
    hint: _Text


class ShardReport(Struct, frozen=True, kw_only=True):
    """What a shard tells of itself. Times are in seconds since the epoch, by the clock of its machine.

    Attributes:
        version: of this form.
        shard: which one, of how many.
        selection: the flags that select runs beside it, as on the command line.
        folder, destination: as those of `ledger.finder.Home`.
        host, pid: the process that carries it.
        begun_at: when that began.
        told_at: when this was written.
        ended_at, exit_code: when it ended, and how; None: it has not ended, or could not say so.
        runs_found, runs_done, runs_waiting, runs_to_act_on, files_there, files_waiting, bytes_waiting: as
            `ledger.overview.FilesStanding` says.
        files_sent, bytes_sent, files_found: what all processes with this ledger sent to the bucket, and what
            they had to send and found there.
        causes: the error that ended it, and what went wrong most often.
        causes_left: how many runs, lines and files have other causes than these.
    """

    version: Literal[1] = 1
    shard: Shard
    selection: str
    folder: str
    destination: tuple[str, str, str, str, str]
    host: Annotated[str, Meta(max_length=255)]
    pid: Annotated[int, Meta(gt=0, lt=2**31)]
    begun_at: _Time
    told_at: _Time
    ended_at: _Time | None = None
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    runs_found: _Count = 0
    runs_done: _Count = 0
    runs_waiting: _Count = 0
    runs_to_act_on: _Count = 0
    files_there: _Count = 0
    files_waiting: _Count = 0
    bytes_waiting: _Count = 0
    files_sent: _Count = 0
    bytes_sent: _Count = 0
    files_found: _Count = 0
    causes: tuple[Cause, ...] = ()
    causes_left: _Count = 0

    def as_json(self) -> bytes:
        """What stands in its file."""
        return msgspec.json.encode({**msgspec.structs.asdict(self), "shard": str(self.shard)})


def place_of(settings: Settings) -> tuple[str, tuple[str, ...]]:
    """Folder and destination of the settings, as reports name them."""
    folder = printable(str(settings.local_results_folder.resolve()))
    return folder, tuple(map(printable, destination_of(settings)))


class ShardReporter:
    """Writes the report of one shard. Use while the process owns the shard's ledger.

    Args:
        settings: which folder, and where to.
        ledger: the shard's ledger, which exists.
        shard: which shard it is.
        selection: which runs it carries.
    """

    def __init__(self, settings: Settings, ledger: Path, shard: Shard, selection: Selection) -> None:
        self._ledger = ledger
        self._path = ledger.with_suffix(SUFFIX)
        self._selection = selection
        self._tracking_file = settings.dataset_tracking_file_name
        folder, destination = place_of(settings)
        self._known: dict[str, Any] = {
            "shard": shard,
            "selection": printable(replace(selection, shard=None).flags),
            "folder": folder,
            "destination": destination,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "begun_at": time.time(),
        }
        self._causes: tuple[Cause, ...] = ()
        self._fails = False
        shared = shard.count / REPORTS_A_SECOND
        self.interval_seconds = min(max(shared, INTERVAL_SECONDS), INTERVAL_SECONDS_MAX)

    async def keep(self, _: object = None) -> None:
        """Write it now and again until cancelled."""
        while True:
            begun = time.monotonic()
            await to_thread.run_sync(self.tell)
            seconds = time.monotonic() - begun
            await anyio.sleep(max(self.interval_seconds, seconds / _COUNTING_SHARE))

    def tell(self, *, exit_code: int | None = None, error: SyncError | None = None) -> None:
        """Write it; `exit_code`: the shard ends with that, by that error. Where it fails, work goes on."""
        self._look()
        now = time.time()
        causes = self._causes
        if error is not None:
            causes = (_cause("failed", f"shard {self._known['shard']}", str(error), error.hint), *causes)
        report = ShardReport(
            **self._known,
            told_at=now,
            ended_at=None if exit_code is None else now,
            exit_code=exit_code,
            causes=causes,
        )
        try:
            _replace(self._path, report)
        except OSError as failure:
            if not self._fails:
                log.warning(
                    "how far the shard is cannot be written to %s: %s; work goes on, and it is tried again",
                    self._path,
                    failure.strerror,
                )
            self._fails = True
        else:
            if self._fails:
                log.info("how far the shard is stands in %s again", self._path)
            self._fails = False

    def _look(self) -> None:
        """Count anew; where the ledger cannot be read, which is told elsewhere, the last numbers stay."""
        try:
            with closing(Ledger.open(self._ledger, read_only=True)) as ledger:
                numbers, self._causes = ledger.read(partial(_standing, self._selection, self._tracking_file))
            self._known |= numbers
        except LedgerError as error:
            log.debug("the shard's numbers stay as they are: %s", error)


def _standing(
    selection: Selection, tracking_file: str, db: Connection
) -> tuple[dict[str, int], tuple[Cause, ...]]:
    """The numbers of a report by their names, and what went wrong most often."""
    done = totals(db)
    groups: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for problem in problems(db, selection, tracking_file):
        if problem.state != NOTICE:
            cause, hint = (without_run(text, problem.run) for text in (problem.cause, problem.hint))
            groups[problem.state, cause, hint].append(problem.run)
    most = sorted(groups.items(), key=lambda group: len(group[1]), reverse=True)
    numbers = {
        **to_builtins(files_standing(db, selection)),
        "files_sent": done.files_sent,
        "bytes_sent": done.bytes_sent,
        "files_found": done.files_found,
        "causes_left": sum(len(runs) for _, runs in most[CAUSES_TOLD:]),
    }
    return numbers, tuple(
        _cause(state, runs[0], cause, hint, count=len(runs))
        for (state, cause, hint), runs in most[:CAUSES_TOLD]
    )


def _cause(state: str, run: str, cause: str, hint: str, *, count: int = 1) -> Cause:
    texts = {"run": run, "cause": cause, "hint": hint}
    short = {name: printable(text)[:_TEXT_LIMIT] for name, text in texts.items()}
    return Cause(count=count, state=cast("CauseState", state), **short)


def _replace(path: Path, report: ShardReport) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(report.as_json())
    fresh.replace(path)


class FoundReports(Struct, frozen=True):
    """The reports of a state folder.

    Attributes:
        reports: those that can be read, by the names of their files.
        unreadable: the names of the others, and why they cannot.
    """

    reports: Mapping[str, ShardReport] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def shard_reports(state_folder: Path) -> FoundReports:
    """What the shards left there; nothing is written, and no ledger is opened.

    Raises:
        OSError: the folder cannot be listed; one that is not there holds none.
    """
    try:
        names = sorted(path.name for path in state_folder.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        return FoundReports()
    reports: dict[str, ShardReport] = {}
    unreadable: dict[str, str] = {}
    for name in names:
        try:
            found = _content(state_folder / name)
            if found is not None:
                reports[name] = msgspec.convert(_checked(found), ShardReport)
        except OSError as error:
            unreadable[name] = error.strerror or str(error)
        except msgspec.ValidationError:
            unreadable[name] = _DAMAGED
        except _UnknownError as error:
            unreadable[name] = str(error)
    return FoundReports(reports, unreadable)


class _UnknownError(Exception):
    """It is no report that this version knows."""


_DAMAGED: Final = "it is no whole report of a shard"


def _checked(content: bytes) -> dict[str, Any]:
    """A report's document, if it may be one of this version."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise _UnknownError(_DAMAGED) from None
    if not isinstance(told, dict):
        raise _UnknownError(_DAMAGED)
    version = told.get("version")
    if isinstance(version, int) and version > 1:
        raise _UnknownError("a newer version of pixaris-sync wrote it")
    try:
        told["shard"] = Shard.parse(told["shard"])
    except (KeyError, AttributeError, ValueError):
        raise _UnknownError(_DAMAGED) from None
    return told


def _content(path: Path) -> bytes | None:
    """A file's content; None: it has gone meanwhile.

    Over NFS, a file that is replaced while it is read is stale (open(2), ESTALE): then its successor is read.
    """
    for is_last in (False, True):
        try:
            # Nobody waits for the other end of a pipe.
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise _UnknownError(_DAMAGED)
                content = file.read(_FILE_BYTES_LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ESTALE or is_last:
                raise
        else:
            if len(content) > _FILE_BYTES_LIMIT:
                raise _UnknownError(_DAMAGED)
            return content
    return None
