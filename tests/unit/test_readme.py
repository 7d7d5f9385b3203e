"""The README says what the code does: settings, exit codes, commands, names of columns."""

import re
from pathlib import Path

import pytest
import typer.main

from pixaris_sync.cli.app import app
from pixaris_sync.cli.exits import Exit
from pixaris_sync.model import Cell, Column, ColumnType
from pixaris_sync.rules.schema import plan_batch
from pixaris_sync.settings import MEBIBYTE, Settings, environment_variable

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_group(app).commands


def rows_below(heading: str) -> list[list[str]]:
    """The first table after a heading, without its head: each row's cells."""
    section = re.split(rf"^#+ {re.escape(heading)}$", README, flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*\|\n\|[ |:-]+\|\n((?:\|.*\|\n)+)", section, re.MULTILINE)
    assert table, heading
    lines = table[1].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def shown_default(key: str) -> str:
    """A setting's default as the table shows it."""
    field = Settings.model_fields[key]
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if key.endswith("_bytes") or "_bytes_" in key:
        return f"`{field.default}` ({field.default // MEBIBYTE} MiB)"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    """Goal: nobody sets a key that is not there. Method: key, variable, default, meaning of each."""
    meant = [
        [f"`{key}`", f"`{environment_variable(key)}`", shown_default(key), field.description]
        for key, field in Settings.model_fields.items()
    ]
    assert rows_below("Settings") == meant


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    """Goal: scripts can rely on it. Method: number and name of each code, in order."""
    shown = [(int(code), name.strip("`")) for code, name, _ in rows_below("Exit codes")]
    assert shown == [(int(code), code.name) for code in Exit]


def test_the_table_of_commands_names_every_command() -> None:
    """Goal: no hidden command. Method: names of the table against those of the command line."""
    shown = [name.strip("`") for name, _ in rows_below("Commands")]
    assert sorted(shown) == sorted(COMMANDS)


def test_every_command_that_is_shown_is_one_with_such_flags() -> None:
    """Goal: what is copied from the README is understood. Method: each command's words against its flags."""
    shown = set(re.findall(r"^(?:\S+/)?pixaris-sync ([a-z]+.*)$", README, re.MULTILINE))
    shown |= set(re.findall(r"`pixaris-sync ([a-z]+[^`]*)`", README))
    assert len(shown) > 5
    for line in shown:
        name, *words = line.split("#")[0].split()
        options = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        assert flags <= options, line


@pytest.mark.parametrize(
    ("key", "value", "columns"),
    [
        ("cfg scale", 1.5, []),
        ("1st", "a", []),
        ("seed", "random", [Column("seed", ColumnType.INTEGER)]),
        ("Seed", 1, [Column("seed", ColumnType.INTEGER)]),
    ],
)
def test_the_examples_of_columns_are_what_the_rules_make(
    key: str, value: str | float, columns: list[Column]
) -> None:
    """Goal: people find their values. Method: each example of the README, by the code that makes columns."""
    plan = plan_batch([("id", [Cell(key, ColumnType.OTHER, value)])], columns)
    [name] = plan.rows[0].cells
    shown = {example.split(":")[0]: column for example, _, column in rows_below("Names of columns")}
    assert shown[f"`{key}`"] == f"`{name}`"
