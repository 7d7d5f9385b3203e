"""The documents: where they are, what stands in them, and the parts that are made from the code.

``make docs`` writes those parts anew, and names the messages that the troubleshooting
page lacks. A part stands between ``<!-- name -->`` and ``<!-- /name -->``.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer.main

from pixaris_sync.cli.app import app
from pixaris_sync.cli.exits import Exit
from pixaris_sync.model import FileState, RowState, RunState
from pixaris_sync.monitoring.measured import OUTCOMES
from pixaris_sync.monitoring.metrics import CAUSES, OF_LEDGER, OF_PROCESS, PREFIX, Described
from pixaris_sync.rules.permissions import PERMISSIONS
from pixaris_sync.settings.bounds import LIMITS, amount, schema_of
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.benchmarks import extrapolation
from tests.support.messages import explained, messages

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
TROUBLESHOOTING = DEPLOY / "troubleshooting.md"
#: Every document that tells people what to do.
DOCUMENTS = [
    path
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "CHANGELOG.md",
        REPOSITORY / "pixaris_sync" / "README.md",
        REPOSITORY / "pixaris_sync" / "handlers" / "README.md",
        *sorted(DEPLOY.glob("*.md")),
        *sorted(DEPLOY.glob("*/*.md")),
        REPOSITORY / "systemd" / "README.md",
        REPOSITORY / "tests" / "README.md",
    )
    if path.exists()
]


def _commands(group: Any, before: str = "") -> dict[str, Any]:
    """The commands of a group, and of the groups in it, by the words that call them."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        words = f"{before}{name}"
        found |= _commands(command, f"{words} ") if hasattr(command, "commands") else {words: command}
    return found


COMMANDS = _commands(typer.main.get_group(app))


def name_of(document: Path) -> str:
    """A document's path below the repository's folder."""
    return str(document.relative_to(REPOSITORY))


def rows_below(document: Path, heading: str) -> list[list[str]]:
    """The first table after a heading, without its head: each row's cells."""
    text = document.read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*\|\n\|[ |:-]+\|\n((?:\|.*\|\n)+)", section, re.MULTILINE)
    assert table, heading
    lines = table[1].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def settings_table() -> str:
    """Each setting: key, variable, flag, default, bounds, meaning."""
    head = ("key and environment variable", "flag", "default", "values", "meaning")
    return _table(head, ([*_setting(key)] for key in SETTINGS))


def _setting(key: str) -> list[str]:
    flags = [
        ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        for parameter in COMMANDS["watch"].params
        if parameter.name == key
    ]
    names = f"`{key}`<br>`{environment_variable(key)}`"
    meaning = SETTINGS[key].description or ""
    return [names, *(flags or ["file and environment only"]), _default(key), _values(key), meaning]


def _default(key: str) -> str:
    field = SETTINGS[key]
    if field.is_required:
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return _amount(key, field.default) if isinstance(field.default, int | float) else f"`{field.default}`"


def _values(key: str) -> str:
    """Which values a setting takes, by its schema."""
    schema = schema_of(key)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return "`true`, `false`"
    if kind not in ("integer", "number"):
        return "path" if schema.get("format") == "path" else "text"
    bounds = [f"{words} {_amount(key, schema[limit])}" for limit, words in LIMITS.items() if limit in schema]
    return f"{'whole number' if kind == 'integer' else 'number'}, {', '.join(bounds)}"


def _amount(key: str, value: float) -> str:
    number, larger = amount(key, value)
    return f"`{number}` ({larger})" if larger else f"`{number}`"


def exit_codes_table() -> str:
    """Number, name and meaning of each exit code; the meaning is the comment above it."""
    source = Path(import_module(Exit.__module__).__file__ or "").read_text(encoding="utf-8")
    meanings = dict(re.findall(r"#: (.+)\n    (?:[A-Z_]+) = (\d+)", source))
    by_code = {code: meaning for meaning, code in meanings.items()}
    return _table(
        ("code", "name", "meaning"),
        ([str(int(code)), f"`{code.name}`", by_code[str(int(code))].rstrip(".")] for code in Exit),
    )


def commands_table() -> str:
    """Each command with the first sentence of its help."""
    return _table(
        ("command", "what it does"),
        (
            [f"`{name}`", (command.help or "").split("\n")[0].rstrip(".")]
            for name, command in COMMANDS.items()
        ),
    )


#: What may stand in the place of a label.
_LABEL_VALUES: dict[str, Iterable[object]] = {
    "service": ("bucket", "tables"),
    "outcome": OUTCOMES,
    "cause": CAUSES,
}
_STATES: dict[str, Iterable[object]] = {"runs": RunState, "files": FileState, "rows": RowState}


def metrics_table() -> str:
    """Each metric: its name, type, labels with their values, and what it means."""
    every: tuple[Described[Any], ...] = (*OF_LEDGER, *OF_PROCESS)
    return _table(
        ("metric", "type", "labels", "meaning"),
        (
            [
                f"`{PREFIX}{one.name}`",
                one.family.__name__.removesuffix("MetricFamily").lower(),
                "; ".join(_label(one, label) for label in one.labels),
                one.meaning.rstrip("."),
            ]
            for one in every
        ),
    )


def _label(metric: "Described[Any]", label: str) -> str:
    values = _STATES[metric.name] if label == "state" else _LABEL_VALUES.get(label, ())
    if metric.name == "heartbeats_total":
        values = ("ok", "failed")
    shown = ", ".join(f"`{value}`" for value in values)
    return f"`{label}`: {shown}" if shown else f"`{label}`"


def _states_table(transitions: str) -> Callable[[], str] | None:
    """The table of one state machine, where the ledger has it as data."""
    if not find_spec("pixaris_sync.ledger.states"):
        return None
    rows: Iterable[Any] = getattr(import_module("pixaris_sync.ledger.states"), transitions)

    def table() -> str:
        return _table(
            ("state", "what happens", "event", "next state"),
            ([_state(row.state), row.when, f"`{row.event}`", _state(row.next_state)] for row in rows),
        )

    return table


def _state(state: str | None) -> str:
    """A state as people read it; none before the ledger knows a file or a row, and after it is forgotten."""
    return "not known" if state is None else state.replace("_", " ")


def permissions_table() -> str:
    """Each permission: where it is granted, what for, what is lost without it, and who has it."""
    return _table(
        ("permission", "on", "what for", "without it", "readers too"),
        (
            [f"`{one.name}`", one.place, one.used_for, one.without, "yes" if one.reads else "no"]
            for one in PERMISSIONS.values()
        ),
    )


def scale_table() -> str:
    """What very many files cost, from what was measured with fewer."""
    head = ("", *(f"{extrapolation.amount(size)} files" for size in extrapolation.SIZES))
    return _table(head, extrapolation.rows(extrapolation.MeasuredShards.last()))


#: The parts that are made from the code, by the name of their marks.
PARTS: dict[str, Callable[[], str] | None] = {
    "settings": settings_table,
    "exit codes": exit_codes_table,
    "commands": commands_table,
    "metrics": metrics_table,
    "permissions": permissions_table,
    "scale": scale_table,
    "states:files": _states_table("FILE_TRANSITIONS"),
    "states:rows": _states_table("ROW_TRANSITIONS"),
}


def with_parts(text: str) -> str:
    """A document with its parts as the code has them."""

    def part(found: "re.Match[str]") -> str:
        make = PARTS[found["name"]]
        middle = f"\n{make()}\n" if make else found["middle"]
        return f"<!-- {found['name']} -->{middle}<!-- /{found['name']} -->"

    names = "|".join(map(re.escape, PARTS))
    return re.sub(
        rf"<!-- (?P<name>{names}) -->(?P<middle>.*?)<!-- /(?P=name) -->", part, text, flags=re.DOTALL
    )


def main() -> int:
    """Write the parts anew; 1 where the troubleshooting page lacks a message."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if (renewed := with_parts(text)) != text:
            document.write_text(renewed, encoding="utf-8")
            sys.stdout.write(f"{name_of(document)}: written anew\n")
    page = TROUBLESHOOTING.read_text(encoding="utf-8")
    missing = [message for message in messages() if not explained(message.text, page)]
    for message in missing:
        sys.stdout.write(f"{name_of(TROUBLESHOOTING)} lacks, of {message.place}: {message.text}\n")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
