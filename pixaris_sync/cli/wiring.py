"""What every command begins with: settings, logging, and the ledger of earlier work."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pixaris_sync.cli.console import set_up_logging
from pixaris_sync.errors import ConfigurationError, LedgerEmptyError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.ledger.selection import Selection, Work
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import find_settings

log = logging.getLogger(__name__)


def settings_for(
    flags: Mapping[str, Any], config: Path | None, *, search: bool = True, tells_file: bool = False
) -> Settings:
    """Settings from all sources, and logging as they say; a word in the log on what may be meant otherwise.

    Args:
        flags: values of settings given on the command line.
        config: the config file that the command line names.
        search: where it names none, take the one that the environment names, or one in the working folder.
        tells_file: say at info which one was taken.

    Raises:
        ConfigurationError: a setting is missing or unusable.
    """
    found = find_settings(flags, config=config, search=search)
    # What is wrong with the settings is told by the log as they want it, where they are right about that.
    defaults = {key: SETTINGS[key].default for key in ("log_level", "log_format")}
    level, log_format = ({**defaults, **found.values}[key] for key in defaults)
    set_up_logging(level, log_format)
    for warning in found.warnings:
        log.warning("%s", warning)
    settings = found.demand()
    if found.file is not None:
        log.log(
            logging.INFO if tells_file else logging.DEBUG,
            "settings are taken from %s (%s)",
            found.file.path.absolute(),
            found.file.how,
        )
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


def read_overview(settings: Settings, path: Path, selection: Selection, *, at_work: Work | None) -> Overview:
    """Where everything that is selected stands by the ledger at `path`.

    `at_work`: what another process does with it now.

    Raises:
        ConfigurationError: there is no ledger yet.
        LedgerError: it cannot be read.
    """
    ledger = open_known_ledger(path, read_only=True)
    try:
        tracking_file = settings.dataset_tracking_file_name
        found: Overview = ledger.read(
            partial(overview, tracking_file=tracking_file, at_work=at_work, selection=selection)
        )
        return found
    finally:
        ledger.close()
