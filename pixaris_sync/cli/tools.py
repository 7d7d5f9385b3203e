"""The commands that need no Google account, or only look: settings, Pixaris' UI, the sandbox, the demo."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pixaris_sync.cli.help import PlainCommand, PlainGroup
from pixaris_sync.cli.options import ConfigOption, JsonOption, with_settings
from pixaris_sync.footprint import importing

PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", metavar="PORT")
]
EmulatorPortOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen on; 0 takes a free one. Not given: the one of before in --data-dir, or a free "
        "one.",
        metavar="PORT",
    ),
]
HostOption = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.", metavar="ADDRESS")
]

#: The commands about settings themselves.
config_commands = typer.Typer(
    cls=PlainGroup,
    name="config",
    help="Show where settings come from, or ask for missing ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@config_commands.command("show", cls=PlainCommand)
@with_settings(tuning=True, service=True)
def config_show(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that have their defaults.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Show each setting, where it comes from, and what is wrong with it.

    Ends with 4 where something is wrong. It asks no service.
    """
    with importing():
        from pixaris_sync.cli.config_show import show_config

    sys.exit(show_config(flags, config, everything=everything, as_json=json))


@config_commands.command("init", cls=PlainCommand)
@with_settings(tuning=True, service=True)
def config_init(*, config: ConfigOption = None, flags: dict[str, Any]) -> None:
    """Ask for what is missing, and write it into the config file.

    What stands there stays as it is. Settings that are given as flags are written without asking. The file is
    that of --config, else that of PIXARIS_SYNC_CONFIG, else the one that is found, else config.yaml.
    """
    with importing():
        from pixaris_sync.cli.config_init import init_config

    sys.exit(init_config(flags, config))


@with_settings(tuning=False, folder=False)
def ui(
    *,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Over a fresh sandbox with some runs, not over the bucket.")
    ] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Show what was synced in Pixaris' own UI.

    Prints its address once it answers. Ctrl+C ends it.
    """
    if sandbox and (config or any(value for key, value in flags.items() if key != "log_level")):
        raise typer.BadParameter("a sandbox is a destination of its own: name no other one beside it")
    with importing():
        from pixaris_sync.cli.ui import run_ui

    sys.exit(run_ui(flags, config, sandbox=sandbox, host=host, port=port, open_browser=open_browser))


def sandbox(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep the data in this folder, and the ports that it is found at.", metavar="PATH"),
    ] = None,
    host: HostOption = "127.0.0.1",
    storage_port: EmulatorPortOption = None,
    bigquery_port: EmulatorPortOption = None,
) -> None:
    """Start local emulators of GCS and BigQuery.

    Prints how to point Pixaris and pixaris-sync at them.
    """
    from pixaris_sync.cli.sandbox import run_sandbox

    sys.exit(run_sandbox(data_dir, host=host, storage_port=storage_port, bigquery_port=bigquery_port))


def demo(
    *,
    runs: Annotated[int, typer.Option(min=1, max=100, help="How many runs to store.", metavar="COUNT")] = 5,
) -> None:
    """Show the whole journey on a fresh sandbox.

    Our handlers store runs here, and Pixaris' own reads them back there.
    """
    from pixaris_sync.cli.sandbox import run_demo_command

    sys.exit(run_demo_command(runs))


#: In the order in which help lists them.
COMMANDS: Final[tuple[Callable[..., None], ...]] = (ui, sandbox, demo)
