"""Looks at settings: each that was given, with its origin, and all that is wrong with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pixaris_sync.doctor.checks import Check, failed, passed, warning
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import find_settings
from pixaris_sync.text import MASK

NAME: Final = "setting"
#: Stands in for what is not known; whoever needs that is told so by `Configured.unset`.
_STAND_IN: Final = "-"


class Configured(NamedTuple):
    """Settings as far as they can be known.

    Attributes:
        settings: with defaults in the place of what is wrong, and a stand-in for what is missing.
        unset: required settings that are missing or wrong.
        checks: what was found.
    """

    settings: Settings
    unset: frozenset[str]
    checks: list[Check]


def look_at_settings(flags: Mapping[str, Any], config: Path | None) -> Configured:
    """What is set, from where, and what is wrong with it; one fault hides no other."""
    found = find_settings(flags, config=config)
    checks = [passed("config file", str(found.file.path))] if found.file else []
    for key, value in found.values.items():
        origin = found.origins[key]
        if origin.kind != "defaults":
            shown = MASK if SETTINGS[key].is_secret else value
            checks.append(passed(NAME, f"{key} = {shown} ({origin})"))
    for fault in found.faults:
        what = fault.subject if fault.subject in SETTINGS else f"{fault.operation} {fault.subject}"
        checks.append(failed(NAME, f"{what}: {fault.cause}", fault.hint))
    checks += [
        warning(NAME, text, "correct its name, or take it away; `pixaris-sync watch --help` lists settings")
        for text in found.warnings
    ]
    unset = frozenset(
        key for key, setting in SETTINGS.items() if setting.is_required and key not in found.values
    )
    # Of values that do not go together each is right for those who need it alone.
    settings = found.settings or Settings(**{**dict.fromkeys(unset, _STAND_IN), **found.values})
    return Configured(settings, unset, checks)
