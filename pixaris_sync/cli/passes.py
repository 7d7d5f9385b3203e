"""``watch``, ``sync`` and ``backfill``: one engine, three stop conditions."""

import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from msgspec.structs import replace

from pixaris_sync import __version__
from pixaris_sync.cli import report
from pixaris_sync.cli.exits import CommandLineError, Exit, exit_of, exit_of_pass, ungrouped
from pixaris_sync.cli.monitoring import beat_once, monitored
from pixaris_sync.cli.progress import show_progress
from pixaris_sync.cli.selecting import check_patterns
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.clock import SystemClock
from pixaris_sync.doctor.examination import examine_first
from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, WorkLeft, overview, work_left
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.pipeline.context import Mode, Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.process.open_files import within_open_files
from pixaris_sync.process.quiet import Throttle, lower_footprint
from pixaris_sync.process.service import Beside, in_event_loop, run_engine
from pixaris_sync.process.signals import ExitCode, Interruption
from pixaris_sync.process.wiring import found_ledger, ports, work_as_owner
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted

if TYPE_CHECKING:
    from pixaris_sync.plans.plan import Plan
    from pixaris_sync.process.repair import Repair

log = logging.getLogger(__name__)
#: Makes sure that a plan can be done as it is, and says how.
Apply = Callable[[Settings, Ledger, ObjectStore, RowSink], Awaitable[Mode]]


def run_watch(selection: Selection, flags: Mapping[str, Any], config: Path | None) -> Exit:
    """Follow what is selected of the results folder until a signal ends it."""
    settings = within_open_files(settings_for(flags, config, tells_file=True))
    check_patterns(settings, selection, found_ledger(settings).path, may_come=True)
    lower_footprint(settings)
    log.info(
        "pixaris-sync %s watches %s for bucket %s and dataset %s",
        __version__,
        settings.local_results_folder.resolve(),
        settings.gcp_pixaris_bucket_name,
        settings.gcp_bq_experiment_dataset,
    )
    if selection.flags:
        log.info("it carries what these flags select, and nothing else: %s", selection.flags)

    mode = Mode(follow=True, selection=selection)

    exit_of_watch = partial(_exit_of_watch, at_stop=settings.sync_at_stop)

    def work(ledger: Ledger) -> tuple[WorkLeft | None, Interruption, WorkLeft]:
        watch = partial(_run, settings, mode, ledger, forced_code=exit_of_watch)
        left, interruption, _ = in_event_loop(watch)
        return left, interruption, left or ledger.read(partial(work_left, selection=selection))

    examine_first(settings)
    left, interruption, by_ledger = work_as_owner(settings, "watch", work, selection=selection)
    log.info("stopped: %s", _left_text(left, by_ledger))
    return exit_of_watch(interruption, left)


def _left_text(left: WorkLeft | None, by_ledger: WorkLeft) -> str:
    """What is left; where it was abandoned, what the ledger tells of that."""
    text = ", ".join(
        f"{counted(count, one)} {verb if count > 1 else f'{verb}s'}{rest}"
        for count, one, verb, rest in (
            (by_ledger.waiting, "run", "wait", ""),
            (by_ledger.unfinished, "run", "seem", " to be still written"),
            (by_ledger.quarantined, "run", "need", " attention"),
        )
        if count
    )
    rest = "" if left else "; the next start looks up what was in flight"
    return f"{text or 'nothing waits'}{rest}"


def _exit_of_watch(interruption: Interruption, left: WorkLeft | None = None, *, at_stop: bool) -> Exit:
    """`at_stop`: it is asked whether everything is synced."""
    if interruption.forced and interruption.number == signal.SIGINT:
        return Exit.INTERRUPTED
    if not at_stop:
        return Exit.OK
    return Exit.WORK_LEFT if left is None else _exit_of_left(left)


def _exit_of_left(left: WorkLeft) -> Exit:
    return exit_of_pass(
        waiting=left.waiting + left.unfinished, quarantined=left.quarantined, denied=left.denied
    )


def _exit_of_interrupted(_: Interruption) -> Exit:
    return Exit.INTERRUPTED


def run_pass(
    command: str,
    mode: Mode,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    as_json: bool,
    repair: bool = False,
    apply: Apply | None = None,
) -> Exit:
    """Carry everything selected, then say what was done and what is left.

    `repair`: then compare everything, and carry what was removed from the cloud. `apply`: do that plan alone.
    """
    settings = within_open_files(settings_for(flags, config, tells_file=True))
    lower_footprint(settings)
    shard = mode.selection.shard
    if shard is not None:
        log.info("this is shard %s: it carries the files of its runs, and no rows", shard)
    check_patterns(settings, mode.selection, found_ledger(settings, shard).path)
    limited = replace(mode.selection, attempts_limit=settings.sync_attempts_limit)
    mode = replace(mode, selection=limited)
    begun = time.monotonic()
    tallies: list[Tally] = []

    async def watch_progress(engine: Engine) -> None:
        tallies.append(engine.context.tally)
        await show_progress(engine, command)

    def carry(
        ledger: Ledger, beside: Sequence[Beside]
    ) -> tuple[WorkLeft | None, Interruption, "Repair | None"]:
        return in_event_loop(partial(_run, settings, mode, ledger, beside=beside, repair=repair, apply=apply))

    def work(ledger: Ledger) -> tuple[WorkLeft | None, Interruption, "Repair | None", Overview]:
        if shard is None:
            ended = carry(ledger, [watch_progress])
        else:
            from pixaris_sync.process.shard_report import ShardReporter

            reporter = ShardReporter(settings, ledger.path, shard, limited)
            try:
                with ungrouped():
                    ended = carry(ledger, [watch_progress, reporter.keep])
            except SyncError as error:
                reporter.tell(exit_code=exit_of(error), error=error)
                raise
            reporter.tell(exit_code=_ending(limited, *ended))
        read = partial(
            overview,
            tracking_file=settings.dataset_tracking_file_name,
            at_work=None,
            selection=limited,
        )
        return *ended, ledger.read(read)

    examine_first(settings)
    left, interruption, repaired, reached = work_as_owner(settings, command, work, selection=limited)
    ending = _ending(limited, left, interruption, repaired)
    document = {
        "exit_code": int(ending),
        "seconds": round(time.monotonic() - begun, 3),
        "files_uploaded": sum(tally.files for tally in tallies),
        "files_found": sum(tally.files_found for tally in tallies),
        "bytes": sum(tally.bytes for tally in tallies),
        "bytes_found": sum(tally.bytes_found for tally in tallies),
        "rows_synced": sum(tally.rows for tally in tallies),
        **({} if repaired is None else {"repair": report.repair_document(repaired)}),
        **({} if shard is None else {"shard": report.shard_document(shard, left)}),
        **report.status_document(reached, time.time()),
    }
    print(report.as_json(document) if as_json else report.pass_text(document))
    if ending is Exit.OK and shard is None:
        beat_once(settings)
    return ending


def _ending(
    selection: Selection, left: WorkLeft | None, interruption: Interruption, repaired: "Repair | None"
) -> Exit:
    """How a pass ended that no error ended."""
    if interruption.number is not None or left is None:
        return Exit.INTERRUPTED
    quarantined = left.quarantined + (repaired.unrestored if repaired else 0)
    # The pass that sends the rows tells of it, and must be begun for the rows of others.
    return _exit_of_left(left._replace(quarantined=0 if selection.shard else quarantined))


async def _run(
    settings: Settings,
    mode: Mode,
    ledger: Ledger,
    *,
    beside: Sequence[Beside] = (),
    repair: bool = False,
    apply: Apply | None = None,
    forced_code: ExitCode = _exit_of_interrupted,
) -> tuple[WorkLeft | None, Interruption, "Repair | None"]:
    """Run the engine; `repair`: then compare, and run it once more where something was removed."""
    clock = SystemClock()
    throttle = Throttle(settings, ledger.path, clock)
    async with (
        ports(settings, frames=repair, pace=throttle.pace) as (store, sink),
        monitored(settings, mode, ledger.path, throttle, store=store, sink=sink) as work,
    ):
        carry = partial(
            run_engine,
            settings,
            ledger=ledger,
            store=work.store,
            sink=work.sink,
            clock=clock,
            throttle=throttle,
            beside=[*beside, *work.beside],
            forced_code=forced_code,
        )
        if apply is not None:
            mode = await apply(settings, ledger, store, sink)
        left, interruption = await carry(mode)
        if not repair or left is None or interruption.number is not None:
            return left, interruption, None
        from pixaris_sync.process.repair import take_up_until_signal

        repaired, interruption = await take_up_until_signal(
            settings,
            ledger,
            work.store,
            work.sink,
            clock=clock,
            throttle=throttle,
            selection=mode.selection,
        )
        if repaired is not None and (repaired.objects or repaired.rows):
            left, interruption = await carry(replace(mode, full=False))
        return left, interruption, repaired


def run_apply(
    path: Path, mode: Mode, flags: Mapping[str, Any], config: Path | None, *, as_json: bool
) -> Exit:
    """Do what a plan says, or say what has changed.

    Raises:
        CommandLineError: flags ask for other runs than the plan is about.
        ConfigurationError: there is no such file.
        PlanChangedError: something has changed since the plan was made.
        SyncError: the plan is damaged, or of another version or destination.
    """
    from pixaris_sync.plans.applying import PlanChangedError, begin_plan, check_destination
    from pixaris_sync.plans.file import read_plan

    settings, stored, name = settings_for(flags, config), read_plan(path), str(path)
    plan = stored.plan
    check_destination(settings, stored, name)
    asked = replace(mode.selection, attempts_limit=plan.selection.attempts_limit)
    if (asked.is_limited and asked != plan.selection) or (mode.full and not plan.full):
        about = f"`{plan.selection.flags}`" if plan.selection.flags else "all runs"
        cause = f"the plan is about {about}{' and --full' if plan.full else ''}, and the flags are not"
        raise CommandLineError("apply", name, cause, hint="give --apply without flags that select runs")

    async def begin(settings: Settings, ledger: Ledger, store: ObjectStore, sink: RowSink) -> Mode:
        return await begin_plan(settings, stored, name, ledger, store, sink, now=time.time())

    planned = replace(mode, full=plan.full, selection=plan.selection)
    try:
        return run_pass("backfill", planned, flags, config, as_json=as_json, apply=begin)
    except PlanChangedError as error:
        print(report.differences_text(error.differences, as_json=as_json))
        raise


def run_dry(
    mode: Mode, flags: Mapping[str, Any], config: Path | None, *, as_json: bool, plan: Path | None = None
) -> Exit:
    """Say what a backfill would do, and write it to the file `plan`, if that is given."""
    settings = settings_for(flags, config, tells_file=True)
    check_patterns(settings, mode.selection, found_ledger(settings).path)
    made: Plan | None = None
    if plan is None:
        document = anyio.run(partial(_preview, settings, mode))
    else:
        from pixaris_sync.plans.file import check_place, write_plan

        check_place(plan, settings.local_results_folder)
        made = anyio.run(partial(_plan, settings, mode))
        write_plan(plan, made)
        document = {**made.summary, "not_carried": [dict(one) for one in made.left_out]}
        document |= {"operations": made.operations.document, "plan": str(plan)}
    left = document["not_carried"]
    document["not_carried"] = [{**problem, "since": report.when(problem["since"])} for problem in left]
    print(report.as_json(document) if as_json else report.preview_text(document))
    return Exit.OK


async def _preview(settings: Settings, mode: Mode) -> dict[str, Any]:
    """What a backfill would do; arguments and errors are those of `_looking`."""
    from pixaris_sync.pipeline.preview import preview

    async with _looking(settings) as (ledger, store, sink):
        return await preview(settings, mode, ledger, store, sink, now=time.time())


async def _plan(settings: Settings, mode: Mode) -> "Plan":
    """The same, file by file."""
    from pixaris_sync.plans.making import make_plan

    async with _looking(settings) as (ledger, store, sink):
        return await make_plan(settings, mode, ledger, store, sink, now=time.time())


@asynccontextmanager
async def _looking(settings: Settings) -> AsyncIterator[tuple[Ledger, ObjectStore, RowSink]]:
    """The cloud, and a copy of the ledger in memory; the folder need not be owned.

    Raises:
        ConfigurationError: folder, bucket, dataset or credentials are missing or unusable.
        LedgerError: there is a ledger that cannot be read.
        SyncError: the cloud could not be asked.
    """
    path = found_ledger(settings).path
    ledger = await to_thread.run_sync(lambda: Ledger.in_memory(copy_of=path))
    try:
        async with ports(settings) as (store, sink):
            yield ledger, store, sink
    finally:
        ledger.close()
