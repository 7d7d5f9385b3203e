"""Progress of a pass where stderr is no terminal."""

import io
import sys
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from pixaris_sync.cli import progress
from pixaris_sync.ledger.overview import Backlog
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.pipeline.context import Mode, Tally
from pixaris_sync.pipeline.engine import Engine

INTERVAL_SECONDS = 0.01


def engine_with(tally: Tally, left: Backlog) -> Engine:
    """As much of an engine as progress looks at."""

    async def apply(*_: Any) -> Backlog:
        return left

    context = SimpleNamespace(apply=apply, mode=Mode(selection=Selection()), tally=tally)
    return cast("Engine", SimpleNamespace(context=context))


class Lines(io.StringIO):
    """Text that says when it has two lines."""

    def __init__(self) -> None:
        super().__init__()
        self.two_lines = anyio.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= 2:
            self.two_lines.set()
        return written


@pytest.mark.anyio
async def test_a_line_comes_now_and_then_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: logs show how far it is. Method: a short interval; wait for two lines, read the first."""
    printed = Lines()
    monkeypatch.setattr(sys, "stderr", printed)
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", INTERVAL_SECONDS)
    engine = engine_with(
        Tally(files=3, files_found=1, bytes=2048, bytes_found=1024, rows=1),
        Backlog(files=5, bytes=1024**4, rows=6),
    )

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.show_progress, engine, "backfill")
            await printed.two_lines.wait()
            tasks.cancel_scope.cancel()

    line = printed.getvalue().splitlines()[0]
    assert line.startswith("backfill: 4 files and 1 row done, 2.0 KiB sent (")
    assert "/s), 1.0 KiB found there; 5 files, 1024.0 GiB, 6 rows to do, about " in line
    assert line.endswith(" left")


def test_the_interval_is_what_users_are_told() -> None:
    """Goal: a line every ten seconds, no more. Method: the constant."""
    assert progress.LINE_INTERVAL_SECONDS == 10.0
