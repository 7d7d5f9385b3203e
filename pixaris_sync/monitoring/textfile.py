"""Metrics as a file, for node_exporter's textfile collector or whoever else reads one.

The file is replaced as a whole, so that nobody reads a half of one, and everybody may read it. Its temporary
twin has a name that the collector leaves alone, which reads ``*.prom``.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from pixaris_sync.monitoring.metrics import Metrics
from pixaris_sync.monitoring.view import Figures
from pixaris_sync.pipeline.engine import Engine

log = logging.getLogger(__name__)

#: How often it is looked whether something has changed, and how old the file becomes where nothing has.
LOOK_SECONDS: Final = 15.0
AGE_SECONDS_MAX: Final = 60.0
#: How long the end of the work waits for a disk that does not answer.
LAST_SECONDS_MAX: Final = 5.0


class Textfile:
    """Metrics in a file. Where it cannot be written, one warning says so, and another word when it can.

    Args:
        path: where; its folder is not made.
        metrics: what is told beside the ledger.
        read: reads the ledger; None where it cannot be read.
    """

    def __init__(self, path: Path, metrics: Metrics, read: Callable[[], Awaitable[Figures | None]]) -> None:
        self._path = path
        self._metrics = metrics
        self._read = read
        self._fails = False

    async def keep(self, _: Engine) -> None:
        """Write it when something has changed, and each minute where nothing has, until cancelled."""
        last, written_at = None, float("-inf")
        while True:
            figures = await self._read()
            if figures is not last or time.monotonic() - written_at > AGE_SECONDS_MAX - LOOK_SECONDS:
                last, written_at = figures, time.monotonic()
                await to_thread.run_sync(self.write, figures)
            await anyio.sleep(LOOK_SECONDS)

    async def write_last(self) -> None:
        """Write it once more, when the work is done; also where that was cancelled."""
        with anyio.move_on_after(LAST_SECONDS_MAX, shield=True):
            await to_thread.run_sync(self.write, await self._read(), abandon_on_cancel=True)

    def write(self, figures: Figures | None) -> None:
        """Write it."""
        content = self._metrics.exposition(figures)
        try:
            self._replace(content)
        except OSError as error:
            if not self._fails:
                log.warning(
                    "metrics cannot be written to %s: %s; work goes on, and it is tried again",
                    self._path,
                    error.strerror,
                )
            self._fails = True
        else:
            if self._fails:
                log.info("metrics are written to %s again", self._path)
            self._fails = False

    def _replace(self, content: bytes) -> None:
        fresh = self._path.with_name(f".{self._path.name}.new")
        # What an earlier process left behind, or a link of somebody else's.
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            # Whatever the umask is, the collector runs as another user.
            os.fchmod(file.fileno(), 0o644)
        fresh.replace(self._path)
