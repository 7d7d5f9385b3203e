"""Progress of a pass where stderr is no terminal."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from pixaris_sync.cli import progress
from pixaris_sync.ledger.overview import Backlog
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.pipeline.context import Mode, Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.hold import Hold

INTERVAL_SECONDS = 0.01


def engine_with(tally: Tally, left: Backlog) -> Engine:
    """As much of an engine as progress looks at."""

    async def apply(*_: Any) -> Backlog:
        return left

    context = SimpleNamespace(apply=apply, mode=Mode(selection=Selection()), tally=tally, hold=Hold())
    return cast("Engine", SimpleNamespace(context=context))


class Lines(logging.Handler):
    """Says when two lines were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.two_lines = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if len(self.records) >= 2:
            self.two_lines.set()


@pytest.mark.anyio
async def test_a_line_comes_now_and_then_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: logs show how far it is. Method: a short interval; wait for two lines, read the first."""
    lines, log = Lines(), logging.getLogger(progress.__name__)
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", INTERVAL_SECONDS)
    monkeypatch.setattr(log, "handlers", [lines])
    monkeypatch.setattr(log, "level", logging.INFO)
    engine = engine_with(
        Tally(files=3, files_found=1, bytes=2048, bytes_found=1024, rows=1),
        Backlog(files=5, bytes=1024**4, rows=6),
    )

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.show_progress, engine, "backfill")
            await lines.two_lines.wait()
            tasks.cancel_scope.cancel()

    line = lines.records[0].getMessage()
    assert line.startswith("backfill: 4 files and 1 row done, 2.0 KiB sent (")
    assert "/s), 1.0 KiB found there; 5 files, 1.0 TiB, 6 rows to do, about " in line
    assert line.endswith(" left")
    assert vars(lines.records[0])["bytes_left"] == 1024**4


def test_the_interval_is_what_users_are_told() -> None:
    """Goal: a line every ten seconds, no more. Method: the constant."""
    assert progress.LINE_INTERVAL_SECONDS == 10.0


def test_the_most_important_fits_on_any_terminal() -> None:
    """Goal: nothing is broken over two lines. Method: parts on ever fewer columns."""
    parts = ["1.0 GiB of 2.0 GiB", "", "3 min left", "12 files and 3 rows to do", "5.0 MiB/s"]
    shown = [progress.fitting(parts, columns) for columns in (80, 60, 40, 20, 5)]
    assert shown == [
        "1.0 GiB of 2.0 GiB, 3 min left, 12 files and 3 rows to do, 5.0 MiB/s",
        "1.0 GiB of 2.0 GiB, 3 min left, 12 files and 3 rows to do",
        "1.0 GiB of 2.0 GiB, 3 min left",
        "1.0 GiB of 2.0 GiB",
        "",
    ]
