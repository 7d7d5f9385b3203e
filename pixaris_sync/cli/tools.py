"""The commands that need no Google account, or only look: Pixaris' UI, the sandbox, the demo."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pixaris_sync.cli.options import ConfigOption, with_settings
from pixaris_sync.footprint import importing

PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", metavar="PORT")
]
HostOption = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.", metavar="ADDRESS")
]


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
        Path | None, typer.Option(help="Keep the data in this folder.", metavar="PATH")
    ] = None,
    host: HostOption = "127.0.0.1",
    storage_port: PortOption = 0,
    bigquery_port: PortOption = 0,
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
