"""What can be changed while a process works, limits and pauses: how it is asked to, and how it tells.

Beside the ledger lie two small files. ``.limits.json`` is the owner's: which process listens, and what it
holds to. It is there only while somebody listens. ``.limits.wanted.json`` is a wish of another process, which
then sends `signals.CHANGE_SIGNAL`. The owner takes it aside, writes its own file anew, and then removes it:
so no wish is lost that comes meanwhile, and who waits for the removal sees what has become of it.

A limit that was changed so, and a pause, last as long as the process; what one before has left there is
removed.
"""

import logging
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.limits.timetable import DAYS, InForceNow
from pixaris_sync.settings.fields import read_given
from pixaris_sync.settings.kinds import BandwidthLimit, CpuLimit, timetable
from pixaris_sync.text import bytes_text

log = logging.getLogger(__name__)


class LiveLimits(Struct, frozen=True):
    """What can be changed while a process works; the keys are those of `settings.model.Settings`."""

    bandwidth_limit_bytes_per_second: BandwidthLimit = None
    max_cpu_percent: CpuLimit = None

    def rate_at(self, now: float) -> InForceNow:
        """Which bandwidth limit holds at a moment, in seconds since the epoch, and until when."""
        limit = self.bandwidth_limit_bytes_per_second
        return timetable(limit).at(now) if isinstance(limit, str) else InForceNow(limit, None, limit)


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """What another process wants; only what is set in it counts, and leaves its file.

    Attributes:
        bandwidth_limit_bytes_per_second, max_cpu_percent: as those of `LiveLimits`.
        paused: whether there is to be a pause.
        pause_seconds: when it is to end by itself; None: only when it is ended.
    """

    bandwidth_limit_bytes_per_second: int | str | UnsetType | None = UNSET
    max_cpu_percent: float | UnsetType | None = UNSET
    paused: bool | UnsetType = UNSET
    pause_seconds: float | None = None

    @property
    def limits(self) -> dict[str, int | float | str | None]:
        """The limits that are wanted, by their keys."""
        wanted = {key: getattr(self, key) for key in LiveLimits.__struct_fields__}
        return {key: value for key, value in wanted.items() if value is not UNSET}


class InForce(Struct, frozen=True):
    """What a process holds to that listens for wishes. Times are in seconds since the epoch.

    Attributes:
        pid: of the process.
        limits: what it was told.
        rate: which bandwidth limit holds of a timetable, or the one that there is.
        rate_until, next_rate: when another one begins, and which; None: never.
        paused_since, paused_until: the pause that somebody asked for.
        under_way: how many transfers are not done yet.
    """

    pid: int
    limits: LiveLimits
    rate: int | None = None
    rate_until: float | None = None
    next_rate: int | None = None
    paused_since: float | None = None
    paused_until: float | None = None
    under_way: int = 0

    def __str__(self) -> str:
        percent = self.limits.max_cpu_percent
        bandwidth = _rate_text(self.rate)
        if self.rate_until is not None:
            bandwidth += f" until {local_time(self.rate_until)}, then {_rate_text(self.next_rate)}"
        processor = "none" if percent is None else f"{percent:g} % of one core"
        return f"bandwidth limit: {bandwidth}; processor limit: {processor}"


def _rate_text(rate: int | None) -> str:
    return "none" if rate is None else f"{bytes_text(rate)}/s"


def local_time(at: float) -> str:
    """A moment as the clock on the wall shows it, with its day of the week."""
    shown = datetime.fromtimestamp(at)  # noqa: DTZ006 - of this machine
    return f"{DAYS[shown.weekday()]} {shown:%H:%M}"


class LimitFiles:
    """The files of a ledger.

    Args:
        ledger: the ledger's path.
    """

    def __init__(self, ledger: Path) -> None:
        self._in_force = ledger.with_suffix(".limits.json")
        self._wanted = ledger.with_suffix(".limits.wanted.json")
        self._aside = ledger.with_suffix(".limits.aside.json")

    def publish(self, in_force: InForce) -> None:
        """Say what is in force, as the owner of the folder; where that fails, limits cannot be changed."""
        try:
            _write(self._in_force, in_force)
        except OSError as error:
            log.warning("limits cannot be changed while it runs: %s: %s", self._in_force, error.strerror)

    def in_force(self) -> InForce | None:
        """What the owner of the folder holds to; None while no process listens."""
        try:
            return msgspec.json.decode(self._in_force.read_bytes(), type=InForce)
        except (OSError, msgspec.DecodeError):
            return None

    def ask(self, wanted: Wish) -> None:
        """Say what is wanted, of what is set there; the signal is the caller's to send.

        Raises:
            ConfigurationError: it cannot be written.
        """
        try:
            _write(self._wanted, wanted)
        except OSError as error:
            raise ConfigurationError(
                "ask for limits in",
                str(self._wanted),
                error.strerror or type(error).__name__,
                hint="do it as the user that the service runs as",
            ) from None

    def is_asked(self) -> bool:
        """Whether there is a wish that was not answered yet."""
        # In the order in which it is moved.
        return self._wanted.exists() or self._aside.exists()

    def wanted(self) -> Wish | None:
        """What is wanted; None, and a word in the log, where that is nothing that could be in force."""
        try:
            self._wanted.replace(self._aside)
            wish = msgspec.json.decode(self._aside.read_bytes(), type=Wish)
        except OSError as error:
            log.warning("limits stay as they are: %s: %s", self._wanted, error.strerror)
            return None
        except msgspec.DecodeError as error:
            log.warning("limits stay as they are: %s: %s", self._wanted, error)
            return None
        limits, refused = read_given(wish.limits)
        for key, cause in refused.items():
            log.warning("limits stay as they are: %s: %s: %s", self._wanted, key, cause or "out of bounds")
        return None if refused else structs.replace(wish, **limits)

    def answered(self) -> None:
        """The wish that was read last has been answered."""
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all of them."""
        for path in (self._in_force, self._wanted, self._aside):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _write(path: Path, content: Struct) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(content))
    fresh.replace(path)
