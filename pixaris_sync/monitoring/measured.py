"""Counts what is asked of the bucket and of the tables, how each request ended, and how long it took.

A request is one call of a method of the ports, and of a listing each page: a load job with all the looks at
its state is one, as is a file that goes through a resumable session. What is cancelled is not counted.
"""

import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ports import ObjectStore, RowSink

P = ParamSpec("P")
T = TypeVar("T")

OK: Final = "ok"
#: How a request may end; what fails does so in one of the ways of `errors.Failure`.
OUTCOMES: Final = (OK, *map(str, Failure))
_BUCKET: Final = "bucket"
_TABLES: Final = "tables"
#: From a small object nearby to a load job that waits in its queue.
_REQUEST_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class RequestKind(NamedTuple):
    """What is asked: a method of the port of a service."""

    service: str
    method: str


class Histogram:
    """How values are distributed: how many of them are at most each of some bounds.

    Args:
        bounds: in ascending order.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound, the last being infinite, and how many values are at most that."""
        total, found = 0, []
        for bound, count in zip((*self._bounds, float("inf")), tuple(self._counts), strict=True):
            total += count
            found.append((bound, total))
        return found


class Requests:
    """What was asked so far by this process.

    Attributes:
        counts: by kind and outcome; of a kind that was asked once, every outcome is there.
        seconds: how long they took, by kind.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[RequestKind, str], int] = {}
        self.seconds: dict[RequestKind, Histogram] = {}

    def counted(
        self, service: str, method: str, ask: Callable[P, Awaitable[T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """The method of a port, with its calls counted."""
        kind = RequestKind(service, method)

        async def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            begun = time.monotonic()
            try:
                answer = await ask(*args, **kwargs)
            except SyncError as error:
                self._note(kind, error.failure, time.monotonic() - begun)
                raise
            self._note(kind, OK, time.monotonic() - begun)
            return answer

        return counted

    def counted_pages(
        self, service: str, method: str, ask: Callable[P, AsyncGenerator[T, None]]
    ) -> Callable[P, AsyncGenerator[T, None]]:
        """The method of a port that lists, with its pages counted."""

        async def pages(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
            async with aclosing(ask(*args, **kwargs)) as listing:
                next_page = self.counted(service, method, listing.__anext__)
                while True:
                    try:
                        page = await next_page()
                    except StopAsyncIteration:
                        return
                    yield page

        return pages

    def _note(self, kind: RequestKind, outcome: str, seconds: float) -> None:
        if kind not in self.seconds:
            # From nothing to one is no increase to whoever looks at a counter that was not there.
            self.counts.update(dict.fromkeys(((kind, one) for one in OUTCOMES), 0))
            self.seconds[kind] = Histogram(_REQUEST_SECONDS)
        self.counts[kind, outcome] += 1
        self.seconds[kind].observe(seconds)


class MeasuredStore:
    """A bucket, see `ports.ObjectStore`, whose requests are counted."""

    def __init__(self, store: ObjectStore, requests: Requests) -> None:
        self.check = requests.counted(_BUCKET, "check", store.check)
        self.upload = requests.counted(_BUCKET, "upload", store.upload)
        self.upload_resumable = requests.counted(_BUCKET, "upload_resumable", store.upload_resumable)
        self.stat = requests.counted(_BUCKET, "stat", store.stat)
        self.list = requests.counted_pages(_BUCKET, "list", store.list)
        self.folders = requests.counted_pages(_BUCKET, "folders", store.folders)
        self.download = requests.counted(_BUCKET, "download", store.download)
        self.close = store.close


class MeasuredSink:
    """A BigQuery dataset, see `ports.RowSink`, whose requests are counted."""

    def __init__(self, sink: RowSink, requests: Requests) -> None:
        self.check = requests.counted(_TABLES, "check", sink.check)
        self.describe = requests.counted(_TABLES, "describe", sink.describe)
        self.create_table = requests.counted(_TABLES, "create_table", sink.create_table)
        self.add_columns = requests.counted(_TABLES, "add_columns", sink.add_columns)
        self.widen_columns = requests.counted(_TABLES, "widen_columns", sink.widen_columns)
        self.stream = requests.counted(_TABLES, "stream", sink.stream)
        self.load = requests.counted(_TABLES, "load", sink.load)
        self.count_rows = requests.counted(_TABLES, "count_rows", sink.count_rows)
        self.running_loads = requests.counted(_TABLES, "running_loads", sink.running_loads)
        self.read_rows = requests.counted(_TABLES, "read_rows", sink.read_rows)
        self.read_table = requests.counted(_TABLES, "read_table", sink.read_table)
        self.is_filtered = requests.counted(_TABLES, "is_filtered", sink.is_filtered)
        self.close = sink.close
