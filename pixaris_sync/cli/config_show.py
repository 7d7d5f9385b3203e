"""``config show``: each setting with its value and where that comes from, and what is wrong."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.options import WHERE
from pixaris_sync.model import JsonValue
from pixaris_sync.settings.bounds import amount_text
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.kinds import Secret
from pixaris_sync.settings.names import Origin
from pixaris_sync.settings.sources import Found, find_settings
from pixaris_sync.text import MASK, counted, printable_line

COLUMNS: Final = 80
GROUPS: Final = ("Where", "Tuning")


def show_config(flags: Mapping[str, Any], config: Path | None, *, everything: bool, as_json: bool) -> Exit:
    """Print what the sources of settings say; `everything`: also what has its default."""
    document = config_document(find_settings(flags, config=config), everything=everything)
    print(report.as_json(document) if as_json else config_text(document))
    return Exit.CONFIGURATION if document["faults"] else Exit.OK


def config_document(found: Found, *, everything: bool) -> dict[str, JsonValue]:
    """What ``config show --json`` prints."""
    settings = [_setting(key, found) for key in SETTINGS]
    left_out = [one for one in settings if one["state"] == "default" and not everything]
    file = found.file
    return {
        "exit_code": int(Exit.CONFIGURATION if found.faults else Exit.OK),
        "file": None if file is None else {"path": str(file.path.absolute()), "how": file.how},
        "passed_over": [str(path) for path in found.passed_over],
        "settings": [one for one in settings if one not in left_out],
        "left_out": len(left_out),
        "faults": [
            {"subject": fault.subject, "cause": fault.cause, "hint": fault.hint} for fault in found.faults
        ],
        "warnings": list(found.warnings),
    }


def _setting(key: str, found: Found) -> dict[str, JsonValue]:
    origin = found.origins.get(key)
    if key in found.values:
        state = "default" if origin is None or origin.kind == "defaults" else "set"
    else:
        state = "missing" if origin is None else "refused"
    return {
        "key": key,
        "group": GROUPS[0] if key in WHERE else GROUPS[1],
        "state": state,
        "value": _plain(found.values.get(key)),
        "origin": None if origin is None else origin._asdict(),
    }


def _plain(value: object) -> JsonValue:
    if isinstance(value, Secret):
        return MASK
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def config_text(document: Mapping[str, Any]) -> str:
    """What ``config show`` prints, of `config_document`."""
    file = document["file"]
    lines = [*_wrapped(f"file: {file['path']} ({file['how']})" if file else "file: none")]
    for path in document["passed_over"]:
        lines += _wrapped(f"passed over: {path} holds nothing of Pixaris' and nothing of pixaris-sync's")
    for group in GROUPS:
        settings = [one for one in document["settings"] if one["group"] == group]
        lines += ["", group] if settings else []
        lines += [line for one in settings for line in _setting_lines(one)]
    if document["left_out"]:
        has = "has its default" if document["left_out"] == 1 else "have their defaults"
        lines += ["", f"{counted(document['left_out'], 'more setting')} {has}: --all shows them"]
    lines += ["", "Wrong"] if document["faults"] else []
    for fault in document["faults"]:
        lines += _wrapped(f"{fault['subject']}: {fault['cause']}", indent="  ")
        lines += _wrapped(f"hint: {fault['hint']}", indent="    ")
    lines += ["", "Ignored"] if document["warnings"] else []
    for warning in document["warnings"]:
        lines += _wrapped(warning, indent="  ")
    return "\n".join(lines)


def _setting_lines(setting: Mapping[str, Any]) -> Iterator[str]:
    """One line where it fits; else the origin stands below."""
    key, state = setting["key"], setting["state"]
    if state == "missing":
        yield f"! {key} is set nowhere"
        return
    origin = "by default" if state == "default" else f"from {Origin(**setting['origin'])}"
    begin = f"! {key} is refused" if state == "refused" else f"  {key} = {_value_text(key, setting['value'])}"
    line = printable_line(f"{begin}, {origin}")
    if len(line) <= COLUMNS:
        yield line
        return
    yield printable_line(begin)
    yield printable_line(f"      {origin}")


def _value_text(key: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return amount_text(key, value) if isinstance(value, int | float) else str(value)


def _wrapped(text: str, *, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable_line(text),
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
