"""What is wrong with settings, each with its remedy, and all of it as one error."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from pixaris_sync.errors import ConfigurationError, SettingsError
from pixaris_sync.settings.bounds import bounds
from pixaris_sync.settings.model import Settings, environment_variable
from pixaris_sync.settings.names import SECRETS, SETTINGS_PAGE, flag
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
    error: ValidationError, given: Mapping[str, object], origins: Mapping[str, object]
) -> list[ConfigurationError]:
    """An error for each value that was refused; missing ones are left out.

    Args:
        error: what the model says.
        given: the values as they were given.
        origins: where each came from.
    """
    found: dict[str, ConfigurationError] = {}
    for one in error.errors():
        key = str(one["loc"][0]) if one["loc"] else ""
        # A value that may be of several kinds is told about once, by the first of them.
        if one["type"] == "missing" or key in found:
            continue
        if one["type"] == "value_error":
            cause = str(one["ctx"]["error"])
        elif key in Settings.model_fields:
            cause = f"it must be {bounds(key)}"
        else:
            cause = one["msg"]
        origin = origins.get(key, "the defaults")
        found[key] = ConfigurationError(
            "use setting",
            key,
            f"{cause} (got {shown(key, given.get(key, one['input']))} from {origin})",
            hint=f"{SETTINGS_PAGE} lists keys, units and bounds",
        )
    return list(found.values())


def explain(error: ValidationError, origins: Mapping[str, object]) -> ConfigurationError:
    """All values that were refused; `origins` says where each came from."""
    return together(refused(error, {}, origins))


def together(faults: Sequence[ConfigurationError]) -> ConfigurationError:
    """One error of one or more."""
    return faults[0] if len(faults) == 1 else SettingsError(faults)


def shown(key: str, value: object) -> str:
    """A value of a setting as messages show it; a secret is not shown."""
    if key in SECRETS:
        return MASK
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[:_SHOWN_LENGTH_MAX]}..."
