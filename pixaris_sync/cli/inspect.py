"""``status``, ``verify`` and ``retry``: commands that ask, or change the ledger and nothing else."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import anyio

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.cli.limit import in_force_of
from pixaris_sync.cli.selecting import check_patterns
from pixaris_sync.cli.wiring import open_known_ledger, read_overview, settings_for
from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.retry import find_runs, retry_runs
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.process.ownership import Owner, read_owner
from pixaris_sync.process.wiring import found_ledger, ports
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted, printable_line


def show_status(
    selection: Selection, flags: Mapping[str, Any], config: Path | None, *, as_json: bool
) -> Exit:
    """Print where everything that is selected stands."""
    settings = settings_for(flags, config)
    path = found_ledger(settings).path
    check_patterns(settings, selection, path)
    owner = read_owner(path.with_suffix(".owner"))
    reached = read_overview(settings, path, selection, at_work=owner.work if owner else None)
    document = report.status_document(reached, time.time())
    document |= report.at_work_document(owner, in_force_of(owner, path))
    document["ledger"] = str(path)
    print(report.as_json(document) if as_json else report.status_text(document))
    return Exit.OK


def retry(
    names: Sequence[str], flags: Mapping[str, Any], config: Path | None, *, all_runs: bool, as_json: bool
) -> Exit:
    """Take quarantined runs up again.

    Raises:
        CommandLineError: none is named, or some are and all are to be taken up.
    """
    if bool(names) == all_runs:
        cause = "either they are named, or --all is given"
        raise CommandLineError("take up", "runs", cause, hint="`pixaris-sync status` lists quarantined runs")
    settings = settings_for(flags, config)
    ledger = open_known_ledger(found_ledger(settings).path)
    try:
        released: int = ledger.write(partial(_retry, names=names, now=time.time()))
    finally:
        ledger.close()
    owner = read_owner(ledger.path.with_suffix(".owner"))
    document = {"released": released, "owner": None if owner is None else str(owner)}
    if as_json:
        print(report.as_json(document))
        return Exit.OK
    print(f"{counted(released, 'run')} taken up again")
    if released:
        print(_next(owner))
    return Exit.OK


def _next(owner: Owner | None) -> str:
    """Who carries what was taken up again."""
    if owner is None:
        return "next: run `pixaris-sync sync`"
    if owner.selection.flags:
        return f"next: run `pixaris-sync sync` after {owner}, which may leave it out"
    return f"next: {owner} goes on with that"


def _retry(db: Connection, *, names: Sequence[str], now: float) -> int:
    if not names:
        return retry_runs(db, now, None)
    return retry_runs(db, now, runs_named("take up run", db, names))


def runs_named(operation: str, db: Connection, names: Sequence[str]) -> list[int]:
    """The runs of these names, each once; of a name that several runs have, all.

    Raises:
        SyncError: no run has one of the names; nothing can be done as `operation` says.
    """
    run_ids: list[int] = []
    for name in names:
        found = find_runs(db, name)
        if not found:
            raise SyncError(
                operation,
                name,
                "the ledger knows no run of this name",
                hint="name it as project/dataset/run, as `pixaris-sync status` does",
            )
        run_ids.extend(found)
    return list(dict.fromkeys(run_ids))


def run_verify(
    selection: Selection,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    both_ways: bool,
    as_json: bool,
) -> Exit:
    """Compare what is selected of the local folder, the ledger and the cloud.

    `both_ways`: nothing may be in the cloud alone.
    """
    settings = settings_for(flags, config)
    check_patterns(settings, selection, found_ledger(settings).path)
    return anyio.run(partial(_verify, settings, selection, both_ways=both_ways, as_json=as_json))


async def _verify(settings: Settings, selection: Selection, *, both_ways: bool, as_json: bool) -> Exit:
    from pixaris_sync.verify import Sign, verify

    ledger = open_known_ledger(found_ledger(settings).path, read_only=True)
    counts = dict.fromkeys(Sign, 0)
    differing = only_in_cloud = 0
    hints: dict[str, None] = {}
    try:
        async with ports(settings, frames=True) as (store, sink):
            async for finding in verify(settings, ledger, store, sink, selection):
                counts[finding.sign] += 1
                only_in_cloud += finding.only_in_cloud
                differs = finding.sign is not Sign.SAME and (both_ways or not finding.only_in_cloud)
                differing += differs
                if finding.hint:
                    hints[finding.hint] = None
                if as_json:
                    print(report.as_json(finding.document))
                elif differs:
                    print(printable_line(f"{finding.sign} {finding.subject}: {finding.detail}"))
    finally:
        ledger.close()
    summary = {sign.name.lower(): count for sign, count in counts.items()}
    if as_json:
        print(report.as_json({"summary": summary, "only_in_cloud": only_in_cloud}))
    else:
        print(", ".join(f"{count} {name}" for name, count in summary.items()))
        if only_in_cloud and not both_ways:
            apart = counted(only_in_cloud, "object or row is", "objects and rows are")
            print(f"{apart} only in the cloud: --both-ways lists them")
        for hint in hints:
            print(printable_line(f"hint: {hint}"))
    return Exit.FAILED if differing else Exit.OK
