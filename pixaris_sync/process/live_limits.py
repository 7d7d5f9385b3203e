"""Limits that can be changed while a process works: how it is asked to, and how it tells what is in force.

Beside the ledger lie two small files. ``.limits.json`` is the owner's: which process listens, and what it
holds to. It is there only while somebody listens. ``.limits.wanted.json`` is a wish of another process, which
then sends `signals.CHANGE_SIGNAL`. The owner takes it aside, writes its own file anew, and then removes it:
so no wish is lost that comes meanwhile, and who waits for the removal sees what has become of it.

A limit that was changed so lasts as long as the process; what one before has left there is removed.
"""

import logging
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.model import BandwidthLimit, CpuLimit
from pixaris_sync.text import bytes_text

log = logging.getLogger(__name__)


class LiveLimits(BaseModel):
    """What can be changed while a process works; the keys are those of `settings.model.Settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandwidth_limit_bytes_per_second: BandwidthLimit = None
    max_cpu_percent: CpuLimit = None

    def __str__(self) -> str:
        rate, percent = self.bandwidth_limit_bytes_per_second, self.max_cpu_percent
        bandwidth = "none" if rate is None else f"{bytes_text(rate)}/s"
        processor = "none" if percent is None else f"{percent:g} % of one core"
        return f"bandwidth limit: {bandwidth}; processor limit: {processor}"


class InForce(BaseModel):
    """What a process holds to that listens for other wishes."""

    model_config = ConfigDict(frozen=True)

    pid: int
    limits: LiveLimits


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
            return InForce.model_validate_json(self._in_force.read_bytes())
        except (OSError, ValidationError):
            return None

    def ask(self, wanted: LiveLimits) -> None:
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

    def wanted(self) -> LiveLimits | None:
        """What is wanted; None, and a word in the log, where that is nothing that could be in force."""
        try:
            self._wanted.replace(self._aside)
            return LiveLimits.model_validate_json(self._aside.read_bytes())
        except OSError as error:
            log.warning("limits stay as they are: %s: %s", self._wanted, error.strerror)
        except ValidationError as error:
            log.warning("limits stay as they are: %s: %s", self._wanted, error.errors()[0]["msg"])
        return None

    def answered(self) -> None:
        """The wish that was read last has been answered."""
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all of them."""
        for path in (self._in_force, self._wanted, self._aside):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _write(path: Path, content: BaseModel) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(content.model_dump_json(exclude_unset=True), encoding="utf-8")
    fresh.replace(path)
