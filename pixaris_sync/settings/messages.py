"""What is wrong with settings, each with its remedy, and all of it as one error."""

from collections.abc import Mapping, Sequence

from pixaris_sync.errors import ConfigurationError, SettingsError
from pixaris_sync.settings.bounds import bounds
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from pixaris_sync.settings.names import SETTINGS_PAGE, flag
from pixaris_sync.text import MASK

#: A value that is longer is cut where a message shows it.
_SHOWN_LENGTH_MAX = 80


def missing(key: str, *, file: str, asks: str, remark: str = "") -> ConfigurationError:
    """A required setting that nothing sets.

    Args:
        key: the setting.
        file: the path of the config file that may hold it.
        asks: the command that asks for it.
        remark: what may explain it; may be empty.
    """
    return ConfigurationError(
        "find setting",
        key,
        f"it is set nowhere{f' ({remark})' if remark else ''}",
        hint=f"set {environment_variable(key)}, or give {flag(key)}, or write {key} into {file}: "
        f"`{asks}` asks for it",
    )


def refused(
    causes: Mapping[str, str], given: Mapping[str, object], origins: Mapping[str, object]
) -> list[ConfigurationError]:
    """An error for each value that was refused.

    Args:
        causes: as `fields.read_given` says them.
        given: the values as they were given; a default was not.
        origins: where each came from.
    """
    found = []
    for key, cause in causes.items():
        value, origin = given.get(key, SETTINGS[key].default), origins.get(key, "the defaults")
        found.append(
            ConfigurationError(
                "use setting",
                key,
                f"{cause or f'it must be {bounds(key)}'} (got {shown(key, value)} from {origin})",
                hint=f"{SETTINGS_PAGE} lists keys, units and bounds",
            )
        )
    return found


def together(faults: Sequence[ConfigurationError]) -> ConfigurationError:
    """One error of one or more."""
    return faults[0] if len(faults) == 1 else SettingsError(faults)


def shown(key: str, value: object) -> str:
    """A value of a setting as messages show it; a secret is not shown."""
    if SETTINGS[key].is_secret:
        return MASK
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[:_SHOWN_LENGTH_MAX]}..."
