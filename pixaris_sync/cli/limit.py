"""``limit``, ``pause`` and ``resume``: asks the process that works on a folder, and says what it holds to."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.process.live_limits import InForce, LimitFiles, Wish
from pixaris_sync.process.ownership import STORE_RESULTS, Owner, running_owner
from pixaris_sync.process.signals import CHANGE_SIGNAL
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.fields import read_given
from pixaris_sync.settings.messages import refused, together
from pixaris_sync.settings.model import Settings

T = TypeVar("T")

#: How long the process may take to answer, or to listen after its start: it is last in line for everything.
ANSWER_SECONDS = 15.0
_LOOK_SECONDS = 0.02
#: Of a pause; so long at most.
_SPAN = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?", re.IGNORECASE | re.ASCII
)
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
PAUSE_SECONDS_MAX = 30 * 86400


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
    given: dict[str, Any] = {key: value for key, value in wishes.items() if value is not None}
    limits, wrong = read_given(given)
    if wrong:
        raise together(refused(wrong, given, dict.fromkeys(given, "command line")))
    at_work = _AtWork("change the limits for", settings)
    in_force = at_work.ask(Wish(**limits)) if limits else at_work.in_force()
    print(report.as_json(report.limits_document(in_force)) if as_json else in_force)
    return Exit.OK


def pause(span: str | None, flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Let nothing new begin, for a `span` such as 2h or until ``resume``; say how much is still under way.

    Raises:
        CommandLineError: the span is none.
        ConfigurationError, SyncError: as `change_limits`.
    """
    seconds = None if span is None else _seconds(span)
    at_work = _AtWork("pause work on", settings_for(flags, config))
    in_force = at_work.ask(Wish(paused=True, pause_seconds=seconds))
    in_force = at_work.settled(in_force)
    document = {**report.pause_document(in_force), "owner": str(at_work.owner)}
    print(report.as_json(document) if as_json else report.pause_text(document))
    return Exit.OK


def resume(flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """End a pause.

    Raises:
        ConfigurationError, SyncError: as `change_limits`.
    """
    at_work = _AtWork("resume work on", settings_for(flags, config))
    was_paused = at_work.in_force().paused_since is not None
    in_force = at_work.ask(Wish(paused=False))
    document = {**report.pause_document(in_force), "owner": str(at_work.owner)}
    said = "goes on" if was_paused else "was not paused, and goes on"
    print(report.as_json(document) if as_json else f"{at_work.owner} {said}")
    return Exit.OK


def _seconds(span: str) -> int:
    found = _SPAN.fullmatch(span.strip())
    seconds = sum(int(count) * _UNITS[unit] for unit, count in found.groupdict("0").items()) if found else 0
    if not 0 < seconds <= PAUSE_SECONDS_MAX:
        raise CommandLineError(
            "pause",
            f"for {span}",
            "that is no length of time between a second and 30 days",
            hint="give it as 30m, 2h, 1h30m or 1d",
        )
    return seconds


class _AtWork:
    """The process that works on a folder.

    Args:
        operation: what is to be done, for messages.
        settings: which folder, and which destination.

    Attributes:
        owner: the process, as it was seen last.
    """

    def __init__(self, operation: str, settings: Settings) -> None:
        self._folder = settings.local_results_folder
        self._operation = operation
        self._ledger = found_ledger(settings).path
        self._files = LimitFiles(self._ledger)
        self.owner: Owner | None = None

    def ask(self, wish: Wish) -> InForce:
        """Tell it a wish, and wait until it holds to it.

        Raises:
            ConfigurationError: there is none, or it may not be asked.
            SyncError: it does not answer.
        """
        pid = self.in_force().pid
        self._files.ask(wish)
        try:
            os.kill(pid, CHANGE_SIGNAL)
        except OSError as error:
            raise ConfigurationError(
                self._operation,
                str(self._folder),
                f"process {pid} cannot be told ({error.strerror})",
                hint="do it as the user that it runs as",
            ) from None
        self._wait(lambda: not self._files.is_asked())
        return self.in_force()

    def in_force(self) -> InForce:
        """What it holds to, as soon as it listens.

        Raises:
            ConfigurationError: there is none.
            SyncError: it does not begin to listen.
        """
        return self._wait(self._look)

    def settled(self, in_force: InForce) -> InForce:
        """What it holds to once nothing is under way any more, or after a while."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while in_force.paused_since is not None and in_force.under_way and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            in_force = self._look() or in_force
        return in_force

    def _look(self) -> InForce | None:
        self.owner = owner = running_owner(self._folder, self._ledger.with_suffix(".owner"))
        if owner is None:
            raise ConfigurationError(
                self._operation,
                str(self._folder),
                "no process of this machine carries it to this destination now",
                hint="a service is asked as its user, with its settings and --state-dir; limits for the next "
                "process are settings: `pixaris-sync watch --bandwidth-limit 5MiB`",
            )
        if owner.command == STORE_RESULTS:
            raise ConfigurationError(
                self._operation,
                str(self._folder),
                f"{owner} carries it for a moment, and takes no wishes",
                hint="its limits are settings in the environment of the training process; "
                "`pixaris-sync watch` takes wishes",
            )
        in_force = self._files.in_force()
        return in_force if in_force is not None and in_force.pid == owner.pid else None

    def _wait(self, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (found := look()):
            if time.monotonic() > deadline:
                raise SyncError(
                    self._operation,
                    str(self._folder),
                    f"the process that works on it has not answered for {ANSWER_SECONDS:g} s",
                    hint="try again; if it is stuck, stop it: nothing is lost or doubled",
                    failure=Failure.TRANSIENT,
                )
            time.sleep(_LOOK_SECONDS)
        return found


def in_force_of(owner: Owner | None, ledger: Path) -> InForce | None:
    """What the owner of a folder holds to; None: there is none, or it does not listen."""
    found = LimitFiles(ledger).in_force() if owner is not None else None
    return found if found is not None and owner is not None and found.pid == owner.pid else None
