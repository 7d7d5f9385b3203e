"""What a command says on stderr: the log, for people or for machines, and a bar below it on a terminal.

Both go through one console, which takes the bar away, writes a line and puts it back. Elsewhere than on a
terminal nothing is drawn: a pipe, a file, a journal and a terminal that cannot move its cursor get lines.
"""

import logging
import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from pixaris_sync.errors import SettingsError, SyncError
from pixaris_sync.settings.kinds import LogFormat
from pixaris_sync.text import printable, printable_line

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

_STYLES = {"DEBUG": "dim", "INFO": "blue", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
#: What journald takes from the beginning of a line (sd-daemon(3)).
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class LineFormatter(logging.Formatter):
    """Writes each message on one line: names of files must neither forge lines nor steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class calls it so
        """See `logging.Formatter`."""
        record.message = printable_line(record.message.rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - as the base class
        """See `logging.Formatter`; no line of it begins as those of the log do."""
        return "\n".join(f"  {printable_line(line)}" for line in super().formatException(ei).split("\n"))


def set_up_logging(level: str, log_format: LogFormat = "text") -> None:
    """Messages go to stderr, those of libraries from WARNING on, and what Python warns of.

    Under systemd each line tells its priority, and lines for people leave the time to the journal.
    """
    handler: logging.Handler
    if log_format == "json":
        handler = _JsonHandler()
        handler.setFormatter(_json_formatter())
        sys.excepthook = _log_exception
    elif _draws():
        handler = _ConsoleHandler()
        handler.setFormatter(LineFormatter("%(message)s"))
    else:
        handler = _StreamHandler()
        when = "" if _in_journal() else "%(asctime)s "
        handler.setFormatter(LineFormatter(f"{when}%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # Google's libraries keep what they log to themselves where nobody has set a level before.
    google = logging.getLogger("google")
    google.setLevel(logging.WARNING)
    google.propagate = True
    logging.getLogger("pixaris_sync").setLevel(level.upper())


def _draws() -> bool:
    """Whether stderr is a terminal on which something can be drawn."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def console() -> "Console | None":
    """The console of the log, for whoever draws below it; it obeys NO_COLOR. None: nothing can be drawn."""
    consoles = [one.console for one in logging.getLogger().handlers if isinstance(one, _ConsoleHandler)]
    return consoles[0] if consoles else None


def share(console: "Console") -> None:
    """Let the log be written above what another console draws, such as one of stdout, from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _ConsoleHandler):
            handler.console = console


def logs_json() -> bool:
    """Whether the log was set up for machines."""
    return any(isinstance(handler, _JsonHandler) for handler in logging.getLogger().handlers)


def print_error(error: SyncError) -> None:
    """Say why a command ends: a line and a hint, or, where the log is for machines, one more object.

    Several faults of settings are told one after another, each with its own hint.
    """
    if isinstance(error, SettingsError):
        for fault in error.faults:
            print_error(fault)
        return
    if logs_json():
        log.error("%s", error, extra={"cause": error.cause, "hint": error.hint})
        return
    print(printable_line(f"error: {error}"), file=sys.stderr)
    if error.hint:
        print(printable_line(f"hint: {error.hint}"), file=sys.stderr)


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("ended by an exception", exc_info=(kind, error, trace))


class _ConsoleHandler(logging.Handler):
    """Writes lines above whatever its console shows; the terminal breaks those that are too long."""

    def __init__(self) -> None:
        from rich.console import Console

        super().__init__()
        self.console = Console(stderr=True)

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        try:
            line = Text.assemble(
                (time.strftime("%H:%M:%S ", time.localtime(record.created)), "dim"),
                (f"{record.levelname} ", _STYLES.get(record.levelname, "")),
                self.format(record),
            )
            self.console.print(line, soft_wrap=True)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


class _StreamHandler(logging.StreamHandler[TextIO]):
    """Writes lines as they are; to the journal with the priority of each."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._to_journal = _in_journal()

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._to_journal:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelname, 6)}>"
        return "\n".join(f"{prefix}{line}" for line in text.split("\n"))


class _JsonHandler(_StreamHandler):
    """The same for machines."""


def _in_journal() -> bool:
    """Whether stderr is connected to the journal, as systemd.exec(5) says how to find out."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _json_formatter() -> logging.Formatter:
    """One object a line: time in UTC, level, logger, message, an exception as one text, and further fields.

    Everything but ASCII is escaped, and what is no Unicode stands as in lines for people.
    """
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            return {
                key: printable(value) if isinstance(value, str) else value for key, value in log_data.items()
            }

    names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
    formatter = Formatter(["asctime", "levelname", "name", "message"], rename_fields=names)
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    return formatter
