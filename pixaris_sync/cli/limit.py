"""``limit``: asks the process that works on a folder to hold to other limits, and says what it holds to."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.process.live_limits import InForce, LimitFiles, LiveLimits
from pixaris_sync.process.ownership import running_owner
from pixaris_sync.process.signals import CHANGE_SIGNAL
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import explain

T = TypeVar("T")

#: How long the process may take to answer, or to listen after its start: it is last in line for everything.
ANSWER_SECONDS = 15.0
_LOOK_SECONDS = 0.02


def change_limits(
    wishes: Mapping[str, str | None], flags: Mapping[str, Any], config: Path | None, *, as_json: bool
) -> Exit:
    """Change what is wished for, if anything, and print what is in force.

    Args:
        wishes: keys of `LiveLimits`, and values as text; None: leave it as it is.
        flags: values of settings given on the command line.
        config: Pixaris' ``config.yaml`` or a file like it.
        as_json: print JSON.

    Raises:
        ConfigurationError: no process works on the folder, it may not be asked, or a wish is refused.
        SyncError: it does not answer.
    """
    settings = settings_for(flags, config)
    given = {key: value for key, value in wishes.items() if value is not None}
    wanted = _limits(given)
    ledger = found_ledger(settings).path
    files = LimitFiles(ledger)
    in_force = _listening(settings, ledger, files)
    if given:
        files.ask(wanted)
        _send_signal(in_force.pid, settings)
        _wait(lambda: not files.is_asked(), settings)
        in_force = _listening(settings, ledger, files)
    limits = in_force.limits
    print(report.as_json(limits.model_dump()) if as_json else limits)
    return Exit.OK


def _limits(values: Mapping[str, Any]) -> LiveLimits:
    try:
        return LiveLimits(**values)
    except ValidationError as error:
        raise explain(error, dict.fromkeys(values, "command line")) from None


def _listening(settings: Settings, ledger: Path, files: LimitFiles) -> InForce:
    """What the owner of the folder holds to, as soon as it listens.

    Raises:
        ConfigurationError: the folder has no owner.
        SyncError: it does not begin to listen.
    """

    def look() -> InForce | None:
        owner = running_owner(settings.local_results_folder, ledger.with_suffix(".owner"))
        if owner is None:
            raise ConfigurationError(
                "change the limits for",
                str(settings.local_results_folder),
                "no process of this machine carries it to this destination now",
                hint="limits for the next one are settings: `pixaris-sync watch --bandwidth-limit 5MiB`; "
                "a service is asked as its user, with its settings and --state-dir",
            )
        in_force = files.in_force()
        return in_force if in_force is not None and in_force.pid == owner.pid else None

    return _wait(look, settings)


def _send_signal(pid: int, settings: Settings) -> None:
    try:
        os.kill(pid, CHANGE_SIGNAL)
    except OSError as error:
        raise ConfigurationError(
            "change the limits for",
            str(settings.local_results_folder),
            f"process {pid} cannot be told ({error.strerror})",
            hint="do it as the user that it runs as",
        ) from None


def _wait(look: Callable[[], T | None], settings: Settings) -> T:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SyncError(
                "change the limits for",
                str(settings.local_results_folder),
                f"the process that works on it has not answered for {ANSWER_SECONDS:g} s",
                hint="try again; if it is stuck, stop it: nothing is lost or doubled",
                failure=Failure.TRANSIENT,
            )
        time.sleep(_LOOK_SECONDS)
    return found
