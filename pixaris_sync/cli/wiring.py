"""What every command begins with: settings, logging, and the ledger of earlier work."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pixaris_sync.cli.console import set_up_logging
from pixaris_sync.errors import ConfigurationError, LedgerEmptyError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.ledger.selection import Work
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import load_settings


def settings_for(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """Settings from all sources, and logging as they say.

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """
    settings = load_settings(flags, config=config)
    set_up_logging(settings.log_level, settings.log_format)
    return settings


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


def read_overview(settings: Settings, path: Path, *, at_work: Work | None) -> Overview:
    """Where everything stands by the ledger at `path`; `at_work`: what another process does with it now.

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
