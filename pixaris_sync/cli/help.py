"""The text of ``--help``: plain lines, in which every name of a flag and every default stands whole.

Tables as wide as the terminal cut long names off, and take what stands in brackets for markup.
"""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

from pixaris_sync.cli.parameters import taken_as_given

#: Lines are not broken at it, and a terminal shows it as a blank.
_NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


class PlainGroup(TyperGroup):
    """Commands."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own copy of click
        """Its flags."""
        return taken_as_given(super().get_params(ctx))


class PlainCommand(TyperCommand):
    """A command whose help lists its flags under the headings of their panels."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as above
        """Its flags and arguments."""
        return taken_as_given(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own copy of click
        """Write the arguments and flags, each heading once, in the order of the first flag below it."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_option = parameter.param_type_name == "option"
                heading = getattr(parameter, "rich_help_panel", None) or (
                    "Options" if is_option else "Arguments"
                )
                flags, meaning = record
                # An argument's record holds its type, which its meaning tells better.
                name = flags if is_option else flags.split()[0]
                sections.setdefault(heading, []).append((name, _with_whole_default(meaning)))
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def get_help(self, ctx: Any) -> str:  # noqa: ANN401 - typer's own copy of click
        """The whole text; nothing but ordinary blanks in it."""
        return super().get_help(ctx).replace(_NO_BREAK_SPACE, " ")


def _with_whole_default(meaning: str) -> str:
    """The meaning of a flag, such that no line ends within ``[default: ...]``."""
    return re.sub(r"\[[^\]]*\]$", lambda found: found[0].replace(" ", _NO_BREAK_SPACE), meaning)
