"""What is known of each setting, and how what is given becomes its value."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

import msgspec
from msgspec import NODEFAULT, Meta

from pixaris_sync.settings.kinds import Secret, converted
from pixaris_sync.settings.model import NO_FLAG, Settings

#: What one upload holds at once: more than all may hold together would be held all the same.
_HELD_AT_ONCE: Final = ("resumable_threshold_bytes", "chunk_bytes")


class Setting(NamedTuple):
    """What is known of a setting.

    Attributes:
        kind: see `kinds`.
        default: what holds where it is given nowhere; None where it `is_required`, too.
        is_required: it must be given.
        description: in words, for help and documents.
        has_flag: it can be given on the command line.
        is_secret: no message shows it.
    """

    kind: Any
    default: Any
    is_required: bool
    description: str
    has_flag: bool
    is_secret: bool


def _setting(field: msgspec.structs.FieldInfo) -> Setting:
    marks = field.type.__metadata__
    is_required = field.default is NODEFAULT
    return Setting(
        kind=field.type,
        default=None if is_required else field.default,
        is_required=is_required,
        description=next(mark.description for mark in marks if isinstance(mark, Meta) and mark.description),
        has_flag=NO_FLAG not in marks,
        is_secret=Secret in get_args(field.type.__origin__),
    )


#: All settings by their keys.
SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {field.name: _setting(field) for field in msgspec.structs.fields(Settings)}
)


def read_given(given: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """What is given, as values of settings, and what is wrong with the others.

    Args:
        given: by keys of `SETTINGS`, as it was written somewhere.

    Returns:
        Values by their keys; and for each that is refused what is wrong with it, which is empty where that is
        its type or bounds.
    """
    values: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for key, value in given.items():
        try:
            values[key] = converted(SETTINGS[key].kind, value)
        except msgspec.ValidationError:
            # It is a ValueError, too, in words that are not ours.
            refused[key] = ""
        except ValueError as error:
            refused[key] = str(error)
    return values, refused


def read_values(given: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of all settings, defaults included: as `read_given`, without those that are missing."""
    values, refused = read_given(given)
    values = {
        key: values.get(key, setting.default)
        for key, setting in SETTINGS.items()
        if key in values or not (key in refused or setting.is_required)
    }
    most = values.get("inflight_bytes_limit")
    for key in _HELD_AT_ONCE:
        if most is not None and values.get(key, 0) > most:
            del values[key]
            refused[key] = f"must not be more than inflight_bytes_limit ({most})"
    return values, {key: refused[key] for key in SETTINGS if key in refused}
