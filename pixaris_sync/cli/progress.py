"""Progress of a pass on stderr: a bar with rate and time left on a terminal, a line at times elsewhere."""

import sys
import time

import anyio

from pixaris_sync.ledger.overview import Backlog, backlog
from pixaris_sync.pipeline.context import Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.text import bytes_text, counted, span_text

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
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    begun = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(command, total=None, detail="")
        while True:
            left, tally = await _backlog(engine), engine.context.tally
            bar.update(
                task,
                completed=tally.bytes + tally.bytes_found,
                total=(tally.bytes + tally.bytes_found + left.bytes) or None,
                detail=f"{_sent(tally, begun)}, {counted(tally.rows, 'row')}; "
                f"{counted(left.files, 'file')} and {counted(left.rows, 'row')} left",
            )
            await anyio.sleep(BAR_INTERVAL_SECONDS)


async def _show_lines(engine: Engine, command: str) -> None:
    begun = time.monotonic()
    while True:
        await anyio.sleep(LINE_INTERVAL_SECONDS)
        left, tally = await _backlog(engine), engine.context.tally
        done = (tally.bytes + tally.bytes_found) / (time.monotonic() - begun)
        remaining = f", about {span_text(left.bytes / done)} left" if done and left.bytes else ""
        print(
            f"{command}: {counted(tally.files + tally.files_found, 'file')} and "
            f"{counted(tally.rows, 'row')} done, {_sent(tally, begun)}; {counted(left.files, 'file')}, "
            f"{bytes_text(left.bytes)}, {counted(left.rows, 'row')} to do{remaining}",
            file=sys.stderr,
            flush=True,
        )


def _sent(tally: Tally, begun: float) -> str:
    """What was sent since `begun`, and how fast; and what needed not be, as the bucket had it."""
    rate = tally.bytes / max(time.monotonic() - begun, 1.0)
    sent = f"{bytes_text(tally.bytes)} sent"
    if tally.bytes:
        sent += f" ({bytes_text(rate)}/s)"
    return f"{sent}, {bytes_text(tally.bytes_found)} found there" if tally.bytes_found else sent
