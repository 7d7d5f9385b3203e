"""Progress of a pass on stderr: a bar with rate and time left on a terminal, a line at times elsewhere."""

import sys
import time

import anyio

from pixaris_sync.cli import report
from pixaris_sync.ledger.overview import Backlog, backlog
from pixaris_sync.pipeline.engine import Engine

#: Elsewhere than on a terminal, a line this often.
LINE_INTERVAL_SECONDS = 10.0
BAR_INTERVAL_SECONDS = 0.5


async def show_progress(engine: Engine, command: str) -> None:
    """Show how far a pass is until cancelled."""
    if sys.stderr.isatty():
        await _show_bar(engine, command)
    else:
        await _show_lines(engine, command)


async def _backlog(engine: Engine) -> Backlog:
    found: Backlog = await engine.context.apply(backlog, engine.context.mode.selection)
    return found


async def _show_bar(engine: Engine, command: str) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(command, total=None, detail="")
        while True:
            left, tally = await _backlog(engine), engine.context.tally
            bar.update(
                task,
                completed=tally.bytes,
                total=(tally.bytes + left.bytes) or None,
                detail=f"{tally.rows} rows, {left.files} files and {left.rows} rows left",
            )
            await anyio.sleep(BAR_INTERVAL_SECONDS)


async def _show_lines(engine: Engine, command: str) -> None:
    begun = time.monotonic()
    while True:
        await anyio.sleep(LINE_INTERVAL_SECONDS)
        left, tally = await _backlog(engine), engine.context.tally
        rate = tally.bytes / (time.monotonic() - begun)
        remaining = f", about {report.span_text(left.bytes / rate)} left" if rate and left.bytes else ""
        print(
            f"{command}: {tally.files + tally.files_found} files, {report.bytes_text(tally.bytes)} "
            f"({report.bytes_text(rate)}/s), {tally.rows} rows done; {left.files} files, "
            f"{report.bytes_text(left.bytes)}, {left.rows} rows to do{remaining}",
            file=sys.stderr,
            flush=True,
        )
