"""The commands that are about a results folder and its destination."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pixaris_sync.cli.exits import CommandLineError
from pixaris_sync.cli.options import ConfigOption, JsonOption, with_settings
from pixaris_sync.footprint import importing

if TYPE_CHECKING:
    from pixaris_sync.ledger.selection import Selection

FullOption = Annotated[
    bool, typer.Option("--full", help="Look at every file again, not only at changed folders.")
]


@with_settings(tuning=True, service=True, selection=True)
def watch(*, config: ConfigOption = None, selection: "Selection", flags: dict[str, Any]) -> None:
    """Catch up with everything, then follow the folder.

    A run shows in the cloud within a moment of being stored. SIGTERM or Ctrl+C finishes what is in flight
    within --drain-timeout-seconds and exits 0; a second signal ends it at once. With --sync-at-stop it first
    carries all that is stored by then, and exits as sync does.
    """
    with importing():
        from pixaris_sync.cli.passes import run_watch

    sys.exit(run_watch(selection, flags, config))


@with_settings(tuning=True, selection=True)
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
    selection: "Selection",
    flags: dict[str, Any],
) -> None:
    """Carry everything that is committed so far, then exit."""
    with importing():
        from pixaris_sync.cli.passes import run_pass
        from pixaris_sync.pipeline.context import Mode

    sys.exit(
        run_pass("sync", Mode(full=full, selection=selection), flags, config, as_json=json, repair=repair)
    )


@with_settings(tuning=True, selection=True)
def backfill(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="The same, and write it to FILE, file by file, with what it costs."
        ),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            "--apply", metavar="FILE", help="Do what the plan in FILE says and nothing else, or refuse."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Only the files of one of N parts of the runs, and no rows. Without it, as an array "
            "of Slurm, an indexed Job of Kubernetes or a Job of Cloud Run says, if one runs this; none: all.",
            metavar="I/N",
        ),
    ] = None,
    full: FullOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    selection: "Selection",
    flags: dict[str, Any],
) -> None:
    """Carry old runs in bulk: rows by load jobs, with progress.

    As a shard, several tasks carry files beside each other; a backfill without shard then sends the rows.
    """
    with importing():
        from pixaris_sync.cli.passes import run_apply, run_dry, run_pass
        from pixaris_sync.cli.sharding import with_shard
        from pixaris_sync.pipeline.context import Mode

    ways = {"--dry-run": dry_run, "--plan": plan is not None, "--apply": apply is not None}
    chosen = [flag for flag, is_given in ways.items() if is_given]
    if len(chosen) > 1:
        cause = "--dry-run, --plan and --apply are three ways to go on"
        raise CommandLineError("understand", "backfill", cause, hint="give one of them")
    selection = with_shard(selection, shard, of_all=chosen)
    mode = Mode(bulk=True, full=full, selection=selection)
    if apply is not None:
        sys.exit(run_apply(apply, mode, flags, config, as_json=json))
    if dry_run or plan is not None:
        sys.exit(run_dry(mode, flags, config, as_json=json, plan=plan))
    sys.exit(run_pass("backfill", mode, flags, config, as_json=json))


@with_settings(tuning=False, selection=True)
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
    ledgers: Annotated[
        bool,
        typer.Option("--ledgers", help="List all ledgers of the state folder; no destination need be set."),
    ] = False,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards", help="Sum up how far the shards of a backfill are that share the state folder."
        ),
    ] = False,
    forget: Annotated[
        str | None,
        typer.Option(help="Forget a ledger, by its name in that list; its folder stays.", metavar="LEDGER"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Forget it without asking.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    selection: "Selection",
    flags: dict[str, Any],
) -> None:
    """Show the state of runs, files and rows, by the ledger.

    It asks no service and disturbs no process that runs. With RUN it tells all that is known of that one.
    """
    questions = {
        "RUN": bool(runs),
        "--watch": watch,
        "--ledgers": ledgers,
        "--shards": shards,
        "--forget": forget is not None,
    }
    asked = [name for name, is_asked in questions.items() if is_asked]
    if len(asked) > 1:
        cause = f"{', '.join(questions)} are questions of their own"
        raise CommandLineError("show", " and ".join(asked), cause, hint="ask one of them at a time")
    if yes and forget is None:
        raise CommandLineError("agree", "to nothing", "--yes belongs to --forget", hint="leave --yes out")
    if selection.is_limited and asked not in ([], ["--watch"]):
        cause = "flags that select runs belong to `status` and `status --watch`"
        hint = f"leave {selection.flags} or {asked[0]} out"
        raise CommandLineError("show", f"{asked[0]} with {selection.flags}", cause, hint=hint)
    if runs:
        with importing():
            from pixaris_sync.cli.story import show_runs
        sys.exit(show_runs(runs, flags, config, as_json=json))
    if shards:
        with importing():
            from pixaris_sync.cli.shards import show_shards
        sys.exit(show_shards(flags, config, as_json=json))
    if ledgers or forget is not None:
        with importing():
            from pixaris_sync.cli.ledgers import forget_ledger, show_ledgers
        if forget is not None:
            sys.exit(forget_ledger(forget, flags, config, is_agreed=yes, as_json=json))
        sys.exit(show_ledgers(flags, config, as_json=json))
    if watch:
        with importing():
            from pixaris_sync.cli.live import watch_status
        sys.exit(watch_status(selection, flags, config, as_json=json))
    with importing():
        from pixaris_sync.cli.inspect import show_status
    sys.exit(show_status(selection, flags, config, as_json=json))


@with_settings(tuning=True)
def doctor(*, json: JsonOption = False, config: ConfigOption = None, flags: dict[str, Any]) -> None:
    """Tell what is set up wrong, and what to do about it.

    It looks at settings, folders, this machine, bucket and dataset, and changes nothing anywhere. The exit
    code is 4 where something must be mended; with warnings alone it is 0.
    """
    with importing():
        from pixaris_sync.cli.doctor import run_doctor

    sys.exit(run_doctor(flags, config, as_json=json))


@with_settings(tuning=False, selection=True)
def verify(
    *,
    both_ways: Annotated[
        bool,
        typer.Option("--both-ways", help="What is only in the cloud is a difference too, and is listed."),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    selection: "Selection",
    flags: dict[str, Any],
) -> None:
    """Compare the local folder, the ledger and the cloud.

    One line a difference: - missing remotely, + only remote, * differs, ! could not be compared.
    """
    with importing():
        from pixaris_sync.cli.inspect import run_verify

    sys.exit(run_verify(selection, flags, config, both_ways=both_ways, as_json=json))


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


@with_settings(tuning=False)
def limit(
    *,
    bandwidth_limit: Annotated[
        str | None,
        typer.Option(
            help="Bytes per second, such as 10MiB or 500KiB, or none, or a timetable such as "
            "08:00,5MB 20:00,none.",
            metavar="VALUE",
        ),
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


@with_settings(tuning=False)
def pause(
    *,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="Go on by itself after this time, such as 30m or 2h.", metavar="TIME"),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Let the process that is at work begin nothing new.

    What is under way ends within a moment, and nothing is lost. The results folder is still looked at. A
    pause lasts until resume, or the end of that process.
    """
    with importing():
        from pixaris_sync.cli.limit import pause

    sys.exit(pause(for_, flags, config, as_json=json))


@with_settings(tuning=False)
def resume(*, json: JsonOption = False, config: ConfigOption = None, flags: dict[str, Any]) -> None:
    """Let the process that is at work go on after pause."""
    with importing():
        from pixaris_sync.cli.limit import resume

    sys.exit(resume(flags, config, as_json=json))


@with_settings(tuning=False, selection=True)
def prune(
    *,
    older_than: Annotated[
        str, typer.Option(help="Only runs that were stored so long ago: 12h, 30d or 2w.", metavar="AGE")
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove the files; without it, only say which would be.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
    selection: "Selection",
    flags: dict[str, Any],
) -> None:
    """Remove files of old runs that the cloud has, to free the disk.

    These are images and saved arguments. Each run is compared with its objects and rows at that moment; one
    that is not the same there stays whole. Tracking lines, args.json and unknown files always stay.
    `pixaris-sync pull` brings the files back.
    """
    with importing():
        from pixaris_sync.cli.history import run_prune

    sys.exit(run_prune(older_than, selection, flags, config, removes=yes, as_json=json))


@with_settings(tuning=False)
def pull(
    names: Annotated[
        list[str],
        typer.Argument(help="project, project/dataset or project/dataset/run.", metavar="NAME"),
    ],
    *,
    json: JsonOption = False,
    config: ConfigOption = None,
    flags: dict[str, Any],
) -> None:
    """Bring runs back from the cloud into the results folder.

    What is here already is compared and never replaced. A run that is interrupted is not there; the next
    pull brings it.
    """
    with importing():
        from pixaris_sync.cli.history import run_pull

    sys.exit(run_pull(names, flags, config, as_json=json))


#: In the order in which help lists them.
COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    doctor,
    watch,
    sync,
    backfill,
    status,
    verify,
    retry,
    limit,
    pause,
    resume,
    prune,
    pull,
)
