"""The command line as a whole: what holds it together, and how every command ends."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, NoReturn

import typer

from pixaris_sync import __version__
from pixaris_sync.cli import commands, tools
from pixaris_sync.cli.exits import CommandLineError, Exit, tell, tell_machines, ungrouped
from pixaris_sync.cli.help import PlainCommand, PlainGroup
from pixaris_sync.cli.streams import prepare_streams
from pixaris_sync.errors import SyncError

_NAME: Final = "pixaris-sync"
_COMMANDS: Final = (*commands.COMMANDS, *tools.COMMANDS)

#: What is wrong with a command line; typer exports no more than one kind of it.
_UsageError: Any = typer.BadParameter.__base__


def main() -> NoReturn:
    """Run the command line; every error ends here, as one line, a hint and an exit code."""
    prepare_streams()
    # Asked for before anything of the command line was understood: that may be what is wrong.
    as_json = "--json" in sys.argv[1:]
    try:
        with ungrouped():
            code = _needed(sys.argv[1:])(standalone_mode=False)
    except SyncError as error:
        code = tell(error, as_json=as_json)
    except _UsageError as error:
        error.show()
        code = error.exit_code
        if as_json:
            tell_machines(_misunderstood(error), code)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    # Click makes this of an interruption, too. A pass that was interrupted has said what it did.
    if as_json and code == Exit.INTERRUPTED:
        tell_machines(SyncError("finish", "the command", "it was interrupted"), code)
    sys.exit(code or Exit.OK)


def _misunderstood(error: Any) -> CommandLineError:  # noqa: ANN401 - see `_UsageError`
    command = error.ctx.command_path if error.ctx else _NAME
    hint = f"`{command} --help` tells what it takes"
    return CommandLineError("understand", "the command line", error.format_message(), hint=hint)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"pixaris-sync {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def _of(these: Iterable[Callable[..., None]]) -> typer.Typer:
    """A command line of these commands."""
    made = typer.Typer(
        name=_NAME,
        help="Carries Pixaris runs from local_results/ to Google Cloud Storage and BigQuery, exactly once.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain: see `cli.help`.
        rich_markup_mode=None,
    )
    made.callback(cls=PlainGroup)(_root)
    for command in these:
        made.command(cls=PlainCommand)(command)
    return made


#: The whole.
app = _of(_COMMANDS)
app.add_typer(tools.config_commands)


def _needed(arguments: Sequence[str]) -> typer.Typer:
    """What these arguments need: the command that the first one names, or else the whole.

    Typer builds the flags of all commands that it is given, which takes 20 ms.
    """
    named = [command for command in _COMMANDS if arguments and command.__name__ == arguments[0]]
    return _of(named) if named else app
