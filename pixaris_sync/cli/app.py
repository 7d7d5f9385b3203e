"""The commands."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pixaris_sync import __version__
from pixaris_sync.cli.exits import CommandLineError, Exit, tell, tell_machines
from pixaris_sync.cli.help import PlainCommand
from pixaris_sync.cli.options import ConfigOption, JsonOption, with_settings
from pixaris_sync.cli.streams import prepare_streams
from pixaris_sync.errors import SyncError
from pixaris_sync.footprint import importing

app = typer.Typer(
    name="pixaris-sync",
    help="Carries Pixaris runs from local_results/ to Google Cloud Storage and BigQuery, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain: see `cli.help`.
    rich_markup_mode=None,
)

ProjectOption = Annotated[str | None, typer.Option(help="Only this Pixaris project.", metavar="NAME")]
DatasetOption = Annotated[str | None, typer.Option(help="Only this Pixaris dataset.", metavar="NAME")]
DATE_FORMATS = ["%Y-%m-%d"]
SinceOption = Annotated[
    datetime | None,
    typer.Option(formats=DATE_FORMATS, help="Only runs stored on or after this date.", metavar="YYYY-MM-DD"),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option(formats=DATE_FORMATS, help="Only runs stored before this date.", metavar="YYYY-MM-DD"),
]
PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", metavar="PORT")
]
HostOption = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.", metavar="ADDRESS")
]
FullOption = Annotated[
    bool, typer.Option("--full", help="Look at every file again, not only at changed folders.")
]


#: What is wrong with a command line; typer exports no more than one kind of it.
_UsageError: Any = typer.BadParameter.__base__


def main() -> NoReturn:
    """Run the command line; every error ends here, as one line, a hint and an exit code."""
    prepare_streams()
    # Asked for before anything of the command line was understood: that may be what is wrong.
    as_json = "--json" in sys.argv[1:]
    try:
        with _ungrouped():
            code = app(standalone_mode=False)
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
    command = error.ctx.command_path if error.ctx else app.info.name
    hint = f"`{command} --help` tells what it takes"
    return CommandLineError("understand", "the command line", error.format_message(), hint=hint)


@contextmanager
def _ungrouped() -> Iterator[None]:
    """Raise what an exception group is about: the first error that no cancellation caused."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"pixaris-sync {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command(cls=PlainCommand)
@with_settings(tuning=True, service=True)
def watch(*, config: ConfigOption = None, flags: dict[str, Any]) -> None:
    """Catch up with everything, then follow the folder.

    A run shows in the cloud within a moment of being stored. SIGTERM or Ctrl+C finishes what is in flight
    within --drain-timeout-seconds and exits 0; a second signal ends it at once.
    """
    with importing():
        from pixaris_sync.cli.passes import run_watch

    sys.exit(run_watch(flags, config))


@app.command(cls=PlainCommand)
@with_settings(tuning=True)
def sync(
    *,
    full: FullOption = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Then compare everything, as verify does, and restore what was removed from the cloud: "
            "missing objects and rows, and nothing else.",
        ),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Carry everything that is committed so far, then exit."""
    with importing():
        from pixaris_sync.cli.passes import run_pass
        from pixaris_sync.pipeline.context import Mode

    sys.exit(run_pass("sync", Mode(full=full), flags, config, as_json=json, repair=repair))


@app.command(cls=PlainCommand)
@with_settings(tuning=True)
def backfill(
    *,
    project: ProjectOption = None,
    dataset: DatasetOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    full: FullOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Carry old runs in bulk: rows by load jobs, with progress."""
    with importing():
        from pixaris_sync.cli.passes import run_dry, run_pass, selection_of
        from pixaris_sync.pipeline.context import Mode

    mode = Mode(bulk=True, full=full, selection=selection_of(project, dataset, since, until))
    if dry_run:
        sys.exit(run_dry(mode, flags, config, as_json=json))
    sys.exit(run_pass("backfill", mode, flags, config, as_json=json))


@app.command(cls=PlainCommand)
@with_settings(tuning=False)
def status(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs whose story to tell, as project/dataset/run or as their run name.", metavar="RUN"
        ),
    ] = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing it as it changes, until Ctrl+C.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Show the state of runs, files and rows, by the ledger.

    It asks no service and disturbs no process that runs. With RUN it tells all that is known of that one.
    """
    if runs and watch:
        cause = "`status --watch` shows everything, and no single run"
        raise CommandLineError("watch", " ".join(runs), cause, hint="leave RUN or --watch out")
    if runs:
        with importing():
            from pixaris_sync.cli.story import show_runs
        sys.exit(show_runs(runs, flags, config, as_json=json))
    if watch:
        with importing():
            from pixaris_sync.cli.live import watch_status
        sys.exit(watch_status(flags, config, as_json=json))
    with importing():
        from pixaris_sync.cli.inspect import show_status
    sys.exit(show_status(flags, config, as_json=json))


@app.command(cls=PlainCommand)
@with_settings(tuning=False)
def verify(
    *,
    both_ways: Annotated[
        bool,
        typer.Option("--both-ways", help="What is only in the cloud is a difference too, and is listed."),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Compare the local folder, the ledger and the cloud.

    One line a difference: - missing remotely, + only remote, * differs, ! could not be compared.
    """
    with importing():
        from pixaris_sync.cli.inspect import run_verify

    sys.exit(run_verify(flags, config, both_ways=both_ways, as_json=json))


@app.command(cls=PlainCommand)
@with_settings(tuning=False)
def retry(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, as project/dataset/run or as their run name.", metavar="RUN"),
    ] = None,
    *,
    all_runs: Annotated[bool, typer.Option("--all", help="All quarantined runs.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Take quarantined runs up again: named ones, or all."""
    with importing():
        from pixaris_sync.cli.inspect import retry

    sys.exit(retry(runs or [], flags, config, all_runs=all_runs, as_json=json))


@app.command(cls=PlainCommand)
@with_settings(tuning=False)
def limit(
    *,
    bandwidth_limit: Annotated[
        str | None, typer.Option(help="Bytes per second, such as 10MiB or 500KiB, or none.", metavar="VALUE")
    ] = None,
    max_cpu_percent: Annotated[
        str | None, typer.Option(help="Percent of one core, or none.", metavar="VALUE")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Change or show the limits of the process that is at work.

    Without flags it shows what that process holds to. A limit set here lasts as long as that process; one
    that is not given stays as it is.
    """
    with importing():
        from pixaris_sync.cli.limit import change_limits

    wishes = {"bandwidth_limit_bytes_per_second": bandwidth_limit, "max_cpu_percent": max_cpu_percent}
    sys.exit(change_limits(wishes, flags, config, as_json=json))


@app.command(cls=PlainCommand)
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


@app.command(cls=PlainCommand)
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


@app.command(cls=PlainCommand)
def demo(
    *,
    runs: Annotated[int, typer.Option(min=1, max=100, help="How many runs to store.", metavar="COUNT")] = 5,
) -> None:
    """Show the whole journey on a fresh sandbox.

    Our handlers store runs here, and Pixaris' own reads them back there.
    """
    from pixaris_sync.cli.sandbox import run_demo_command

    sys.exit(run_demo_command(runs))
