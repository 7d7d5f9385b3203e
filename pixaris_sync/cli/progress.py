"""Progress of a pass on stderr: a bar below the log on a terminal, a line of the log at times elsewhere."""

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from pixaris_sync.cli.console import console
from pixaris_sync.ledger.overview import Backlog, backlog
from pixaris_sync.pipeline.context import Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.text import bytes_text, counted, span_text

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

#: Elsewhere than on a terminal, a line this often.
LINE_INTERVAL_SECONDS = 10.0
BAR_INTERVAL_SECONDS = 0.5
BAR_COLUMNS = 10
#: The bar is no wider on any terminal, so that one which is made narrower does not break it.
COLUMNS_MAX = 80


async def show_progress(engine: Engine, command: str) -> None:
    """Show how far a pass is until cancelled."""
    shown = console()
    if shown is None:
        await _show_lines(engine, command)
    else:
        await _show_bar(engine, command, shown)


async def _backlog(engine: Engine) -> Backlog:
    found: Backlog = await engine.context.apply(backlog, engine.context.mode.selection)
    return found


async def _show_bar(engine: Engine, command: str, shown: "Console") -> None:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=BAR_COLUMNS),
        TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True)),
    )
    begun = time.monotonic()
    with Progress(*columns, console=shown, transient=True, auto_refresh=False) as bar:
        task = bar.add_task(command, total=None, detail="")
        while True:
            left, tally = await _backlog(engine), engine.context.tally
            done = tally.bytes + tally.bytes_found
            # The last column stays free: a terminal may break a line that is as long as it is wide.
            width = min(shown.width, COLUMNS_MAX) - len(command) - BAR_COLUMNS - len("  ") - 1
            bar.update(
                task,
                completed=done,
                total=(done + left.bytes) or None,
                detail=fitting([*_pause(engine), *_parts(tally, left, time.monotonic() - begun)], width),
                refresh=True,
            )
            await anyio.sleep(BAR_INTERVAL_SECONDS)


def _pause(engine: Engine) -> list[str]:
    return ["paused, `resume` goes on"] if engine.context.hold.since is not None else []


def fitting(parts: Sequence[str], columns: int) -> str:
    """These parts as a list, each of them that fits; the first are the most important."""
    found = ""
    for part in parts:
        longer = f"{found}, {part}" if found else part
        if part and len(longer) <= columns:
            found = longer
    return found


def _parts(tally: Tally, left: Backlog, seconds: float) -> list[str]:
    """How far it is, the most important first."""
    done = tally.bytes + tally.bytes_found
    if not (done or left.files or left.rows):
        return ["looking through the results folder"]
    return [
        f"{bytes_text(done)} of {bytes_text(done + left.bytes)}",
        _remaining(tally, left, seconds),
        f"{counted(left.files, 'file')} and {counted(left.rows, 'row')} to do",
        _rate(tally, seconds),
    ]


async def _show_lines(engine: Engine, command: str) -> None:
    begun = time.monotonic()
    while True:
        await anyio.sleep(LINE_INTERVAL_SECONDS)
        left, tally = await _backlog(engine), engine.context.tally
        seconds = time.monotonic() - begun
        files = tally.files + tally.files_found
        remaining = _remaining(tally, left, seconds)
        log.info(
            "%s: %s%s and %s done, %s; %s, %s, %s to do%s",
            command,
            "".join(f"{part}; " for part in _pause(engine)),
            counted(files, "file"),
            counted(tally.rows, "row"),
            _sent(tally, seconds),
            counted(left.files, "file"),
            bytes_text(left.bytes),
            counted(left.rows, "row"),
            f", about {remaining}" if remaining else "",
            extra={
                "files": files,
                "bytes": tally.bytes + tally.bytes_found,
                "rows": tally.rows,
                "files_left": left.files,
                "bytes_left": left.bytes,
                "rows_left": left.rows,
            },
        )


def _remaining(tally: Tally, left: Backlog, seconds: float) -> str:
    """How long it takes at the rate of before; empty where nobody can know."""
    done = (tally.bytes + tally.bytes_found) / max(seconds, 1e-3)
    return f"{span_text(left.bytes / done)} left" if done and left.bytes else ""


def _rate(tally: Tally, seconds: float) -> str:
    return f"{bytes_text(tally.bytes / max(seconds, 1.0))}/s" if tally.bytes else ""


def _sent(tally: Tally, seconds: float) -> str:
    """What was sent, and how fast; and what needed not be, as the bucket had it."""
    sent = f"{bytes_text(tally.bytes)} sent"
    if tally.bytes:
        sent += f" ({_rate(tally, seconds)})"
    return f"{sent}, {bytes_text(tally.bytes_found)} found there" if tally.bytes_found else sent
