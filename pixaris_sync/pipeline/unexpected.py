"""What nobody thought of: it is told as an error of what it struck, and a report for the developers is kept.

A run, a line or a table is never so odd that others suffer for it. So where work is done for one of them, any
exception ends there: what it struck is quarantined or rests, with the name of a report that can be sent.
"""

import hashlib
import logging
import platform
import sqlite3
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pixaris_sync import __version__
from pixaris_sync.errors import Failure, SyncError, UnexpectedError, open_files_hint
from pixaris_sync.text import printable, printable_line, scrub

log = logging.getLogger(__name__)

#: So many reports are kept; what is behind them is rarely more than one or two faults.
REPORTS_LIMIT: Final = 20
#: So much of an exception's text stands in a cause; the report has all of it.
TEXT_LENGTH_MAX: Final = 200


class Reports:
    """Makes errors of exceptions that nobody thought of, and writes a report of each kind.

    Args:
        folder: where reports are kept, made when it is needed; None: they only go to the log.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def as_error(
        self, operation: str, subject: str, error: Exception, *, failure: Failure = Failure.PERMANENT
    ) -> SyncError:
        """An exception as an error like any other: itself where it is one. Else it blocks for a moment."""
        if isinstance(error, SyncError):
            return error
        if hint := open_files_hint(error):
            cause = "no more files may be open"
            return SyncError(operation, printable(subject), cause, hint=hint, failure=Failure.TRANSIENT)
        text = printable_line(scrub(" ".join(str(error).split())))[:TEXT_LENGTH_MAX]
        cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
        report = self._report(operation, subject, error)
        hint = (
            f"it is a fault of pixaris-sync: send the developers {report}; "
            "`pixaris-sync retry` tries it again"
        )
        return UnexpectedError(operation, printable(subject), cause, hint=hint, failure=failure)

    def _report(self, operation: str, subject: str, error: Exception) -> str:
        """Keep a report, unless one of the same place in the code is kept already; how to name it."""
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        kind = hashlib.sha256(repr((type(error).__name__, places[-1:])).encode()).hexdigest()[:12]
        if kind not in self._known:
            story = scrub(printable("".join(traceback.format_exception(error))))
            log.error("cannot %s %s, which nobody thought of:\n%s", operation, printable_line(subject), story)
            self._known[kind] = self._keep(kind, f"cannot {operation} {printable_line(subject)}\n\n{story}")
        return self._known[kind]

    def _keep(self, kind: str, story: str) -> str:
        if self._folder is None:
            return "what the log says"
        path = self._folder / f"report-{kind}.txt"
        head = (
            f"pixaris-sync {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.platform()}\n\n"
        )
        try:
            self._folder.mkdir(exist_ok=True)
            if not path.exists() and len(list(self._folder.glob("report-*.txt"))) >= REPORTS_LIMIT:
                return "what the log says"
            path.write_text(head + story, encoding="utf-8")
        except OSError:
            return "what the log says"
        return str(path)
