"""Which values a setting takes, in words; all of it is read out of its kind."""

from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec

from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.kinds import KIBIBYTE, MEBIBYTE

_DAY_SECONDS = 24 * 3600
#: The bounds that a number may have, in the words that stand before them.
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "multipleOf": "a multiple of",
}


@cache
def schema_of(key: str) -> dict[str, Any]:
    """The JSON schema of a setting's value, of several kinds the first, where it has one."""
    kind = SETTINGS[key].kind
    schema = msgspec.json.schema(kind, schema_hook=_schema_of_ours)
    kinds = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if "enum" in schema:
        # In their own order.
        schema["enum"] = list(get_args(kind.__origin__))
    return {**schema, **kinds[0]} if kinds else schema


def _schema_of_ours(kind: type) -> dict[str, Any]:
    return {"type": "string", "format": "path"} if kind is Path else {"type": "string"}


def bounds(key: str) -> str:
    """What a value of a setting must be: ``a whole number of bytes, at least 1048576 (1 MiB)``."""
    schema = schema_of(key)
    if "enum" in schema:
        *most, last = schema["enum"]
        return f"{', '.join(most)} or {last}" if most else str(last)
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false"
    if kind not in ("integer", "number"):
        what = "a path" if schema.get("format") == "path" else "text"
        return f"{what}, and not empty" if schema.get("minLength") else what
    number = " ".join(
        part for part in ("a whole number" if kind == "integer" else "a number", _unit(key)) if part
    )
    limits = [
        f"{words} {amount_text(key, schema[limit])}" for limit, words in LIMITS.items() if limit in schema
    ]
    return f"{number}, {' and '.join(limits)}" if limits else number


def amount(key: str, value: float) -> tuple[str, str]:
    """A number of a setting, and the same in a larger unit; that is empty where it would not be whole."""
    number = f"{value:.0f}" if value == int(value) else f"{value:g}"
    if not value:
        return number, ""
    if "bytes" in key:
        for size, unit in ((MEBIBYTE, "MiB"), (KIBIBYTE, "KiB")):
            if not value % size:
                return number, f"{value / size:g} {unit}"
    if "_seconds" in key and not value % _DAY_SECONDS:
        return number, f"{value / _DAY_SECONDS:g} days"
    return number, ""


def amount_text(key: str, value: float) -> str:
    """The same as one text: ``1048576 (1 MiB)``."""
    number, larger = amount(key, value)
    return f"{number} ({larger})" if larger else number


def _unit(key: str) -> str:
    if "bytes_per_second" in key:
        return "of bytes per second"
    if "bytes" in key:
        return "of bytes"
    if "_seconds" in key:
        return "of seconds"
    return "of percent" if key.endswith("_percent") else ""
