"""What every command begins with: settings, logging, and the ledger of earlier work."""

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pixaris_sync.errors import ConfigurationError, LedgerEmptyError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.settings import Settings, load_settings
from pixaris_sync.text import printable_line

log = logging.getLogger(__name__)


def settings_for(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """Settings from all sources, and logging as they say.

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """
    settings = load_settings(flags, config=config)
    set_up_logging(settings.log_level)
    return settings


class LineFormatter(logging.Formatter):
    """Writes each message on one line: names of files must neither forge lines nor steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class calls it so
        """See `logging.Formatter`."""
        record.message = printable_line(record.message)
        return super().formatMessage(record)


def set_up_logging(level: str) -> None:
    """Messages go to stderr; a terminal gets colours and keeps its progress bar."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
        handler.setFormatter(LineFormatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pixaris_sync").setLevel(level.upper())


def open_known_ledger(path: Path, *, read_only: bool = False) -> Ledger:
    """The ledger of work that was begun before.

    Raises:
        ConfigurationError: there is none yet.
        LedgerError: it cannot be opened.
    """
    try:
        if may_exist(path):
            return Ledger.open(path, read_only=read_only)
    except LedgerEmptyError:
        pass  # A process was ended while it made one: there is none.
    raise ConfigurationError(
        "read ledger",
        str(path),
        "nothing was ever synced from this folder to this destination",
        hint="run `pixaris-sync sync` first, or check the folder, the destination and --state-dir",
    )


def read_overview(settings: Settings, path: Path, *, at_work: bool) -> Overview:
    """Where everything stands by the ledger at `path`; `at_work`: while another process works.

    Raises:
        ConfigurationError: there is no ledger yet.
        LedgerError: it cannot be read.
    """
    ledger = open_known_ledger(path, read_only=True)
    try:
        tracking_file = settings.dataset_tracking_file_name
        found: Overview = ledger.read(partial(overview, tracking_file=tracking_file, at_work=at_work))
        return found
    finally:
        ledger.close()
