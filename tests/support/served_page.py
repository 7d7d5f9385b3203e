"""The page of views that a test makes up, served as ``watch --listen`` serves it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio

from pixaris_sync.monitoring.server import listening, serve
from pixaris_sync.pipeline.hold import Hold

if TYPE_CHECKING:
    from pixaris_sync.errors import SyncError
    from pixaris_sync.monitoring.view import Reader, View
    from pixaris_sync.pipeline.engine import Engine


class Answered(NamedTuple):
    """An answer: its status, headers and body."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> Answered:
    """Ask a server on this machine; ``_`` in a header's name stands for ``-``."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        return Answered(response.status, response.headers, response.read())
    finally:
        connection.close()


class ServedPage:
    """A server of a page, and what it shows; both stands in for an engine and its reader.

    Attributes:
        view: what is shown next.
        port: where.
        readings: how often the ledger was read.
        paused, trouble: as of the engine's context and journal.
        resting: destinations that rest, and why.
        confirmed: bucket and dataset were seen.
        stuck: the ledger does not answer.
    """

    def __init__(self, view: "View", root: Path) -> None:
        self.view = view
        self.port = 0
        self.readings = 0
        self.paused: SyncError | None = None
        self.trouble: SyncError | None = None
        self.resting: dict[str, SyncError] = {}
        self.confirmed = True
        self.stuck = False
        self.begun = anyio.Event()
        self._root = root

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answered:
        return get(self.port, path, method, **headers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    # -- as an engine and its context --------------------------------------------------------------------

    async def started(self) -> None:
        await self.begun.wait()

    async def describe(self) -> str:
        if self.stuck:
            await anyio.sleep_forever()
        return "everything is synced"

    @property
    def context(self) -> Any:
        return SimpleNamespace(
            settings=SimpleNamespace(local_results_folder=self._root),
            journal=SimpleNamespace(trouble=self.trouble),
            paused=self.paused,
            gate=lambda _: SimpleNamespace(last_error=None),
            troubles=self.resting,
            hold=Hold(),
            apply=self._apply,
        )

    async def _apply(self, *_: object) -> str | None:
        return "1.0" if self.confirmed else None

    # -- as a reader -------------------------------------------------------------------------------------

    def read(self) -> "View":
        self.readings += 1
        return self.view

    def close(self) -> None:
        self.readings = -1


@contextmanager
def served_page(
    view: "View",
    root: Path,
    *,
    started: bool = True,
    host: str = "127.0.0.1",
    metrics: Callable[[], bytes] | None = None,
) -> Iterator[ServedPage]:
    """Serve a page from a thread, until the end of the context.

    Args:
        view: what is shown first.
        root: the results folder with the images.
        started: the engine has looked through the folder.
        host: where to listen.
        metrics: as of `serve`.
    """
    served = ServedPage(view, root)
    running = threading.Event()
    ends: list[Callable[[], object]] = []

    async def run(listener: Any) -> None:
        loop = asyncio.get_running_loop()
        served.begun = anyio.Event()
        if started:
            served.begun.set()
        async with anyio.create_task_group() as tasks:
            ends.append(partial(loop.call_soon_threadsafe, tasks.cancel_scope.cancel))
            running.set()
            await serve(
                cast("Engine", served),
                listener=listener,
                named=host,
                reader=cast("Reader", served),
                metrics=metrics,
            )

    with listening((host, 0)) as listener:
        served.port = listener.getsockname()[1]
        thread = threading.Thread(target=anyio.run, args=(run, listener))
        thread.start()
        assert running.wait(10)
        try:
            yield served
        finally:
            ends[0]()
            thread.join(10)
            assert not thread.is_alive()
