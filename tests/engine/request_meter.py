"""Measures what the engine asks of a cloud, for the limits of BigQuery, GCS and the settings.

The figures are the services' own, from their pages on quotas; those of the settings come from the settings.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pixaris_sync.errors import SyncError
from pixaris_sync.model import OutgoingRow, RemoteObject
from tests.engine.machine import Machine

STREAM_REQUEST_BYTES_MAX = 10_000_000
LOADS_PER_TABLE_AND_DAY_MAX = 1500
UPDATES_MAX, UPDATES_SECONDS = 5, 10.0
OBJECT_WRITE_SECONDS = 1.0
DAY_SECONDS = 24 * 3600.0

_METADATA = ("create_table", "add_columns", "widen_columns")


class RequestMeter:
    """What has been asked of a machine's cloud since it was first measured.

    Attributes:
        uploads_max: most uploads at the same time.
        bytes_max: most bytes of files held for uploads at the same time.
        steps_max: most requests about one table at the same time.
        stream_rows_max, stream_bytes_max: largest streaming insert.
        load_rows_max: largest load job.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._uploads = 0
        self._bytes = 0
        self._at_tables: Counter[str] = Counter()
        self._writes: defaultdict[str, list[float]] = defaultdict(list)
        #: By table and process: nobody knows when one that was killed has sent its last.
        self._updates: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self._loads: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.uploads_max = 0
        self.bytes_max = 0
        self.steps_max = 0
        self.stream_rows_max = 0
        self.stream_bytes_max = 0
        self.load_rows_max = 0

    @contextmanager
    def measuring(self) -> Iterator["RequestMeter"]:
        """Measure meanwhile."""
        store, sink = self._machine.store, self._machine.sink
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "upload", self._upload(store.upload))
            patch.setattr(store, "upload_resumable", self._upload_resumable(store.upload_resumable))
            patch.setattr(sink, "stream", self._stream(sink.stream))
            patch.setattr(sink, "load", self._load(sink.load))
            for name in _METADATA:
                patch.setattr(sink, name, self._change(getattr(sink, name)))
            yield self

    def assert_within_limits(self) -> None:
        """No limit of the services or of the settings was broken."""
        settings = self._machine.settings
        assert self.uploads_max <= settings.upload_concurrency_limit
        assert self.bytes_max <= settings.inflight_bytes_limit
        assert self.steps_max <= 1
        assert self.stream_rows_max <= settings.stream_rows_limit
        assert self.stream_bytes_max <= STREAM_REQUEST_BYTES_MAX
        assert self.load_rows_max <= settings.load_rows_limit
        for table, loads in self._loads.items():
            assert _most_within(loads.values(), DAY_SECONDS) <= LOADS_PER_TABLE_AND_DAY_MAX, table
        for (table, _), updates in self._updates.items():
            assert _most_within(updates, UPDATES_SECONDS) <= UPDATES_MAX, table
        for name, writes in self._writes.items():
            assert _most_within(writes, OBJECT_WRITE_SECONDS) == 1, name

    # -- what stands in the place of the port's methods ---------------------------------------------------

    def _upload(self, upload: Callable[..., Awaitable[RemoteObject]]) -> Callable[..., Any]:
        async def measured(name: str, content: bytes, **options: Any) -> RemoteObject:
            with self._uploading(len(content)):
                remote = await upload(name, content, **options)
                self._writes[name].append(self._now)
                return remote

        return measured

    def _upload_resumable(self, upload: Callable[..., Awaitable[RemoteObject]]) -> Callable[..., Any]:
        async def measured(name: str, source: Any, **options: Any) -> RemoteObject:
            with self._uploading(self._machine.settings.chunk_bytes):
                remote = await upload(name, source, **options)
                self._writes[name].append(self._now)
                return remote

        return measured

    @contextmanager
    def _uploading(self, count: int) -> Iterator[None]:
        self._uploads += 1
        self._bytes += count
        self.uploads_max = max(self.uploads_max, self._uploads)
        self.bytes_max = max(self.bytes_max, self._bytes)
        try:
            yield
        finally:
            self._uploads -= 1
            self._bytes -= count

    def _stream(self, stream: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def measured(table: str, rows: Sequence[OutgoingRow]) -> Any:
            self.stream_rows_max = max(self.stream_rows_max, len(rows))
            size = sum(len(json.dumps(row.cells)) + len(row.row_id) for row in rows)
            self.stream_bytes_max = max(self.stream_bytes_max, size)
            with self._at_table(table):
                return await stream(table, rows)

        return measured

    def _load(self, load: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        async def measured(table: str, rows: Sequence[OutgoingRow], *, job_id: str) -> None:
            self.load_rows_max = max(self.load_rows_max, len(rows))
            if job_id not in self._machine.sink.jobs:
                self._note_update(table)
            with self._at_table(table):
                try:
                    await load(table, rows, job_id=job_id)
                except SyncError:
                    if job_id in {*self._machine.sink.jobs, *self._machine.sink.queued}:
                        self._loads[table].setdefault(job_id, self._now)
                    raise
                self._loads[table].setdefault(job_id, self._now)

        return measured

    def _change(self, change: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        async def measured(table: str, columns: Sequence[Any]) -> None:
            with self._at_table(table):
                self._note_update(table)
                await change(table, columns)

        return measured

    @contextmanager
    def _at_table(self, table: str) -> Iterator[None]:
        self._at_tables[table] += 1
        self.steps_max = max(self.steps_max, self._at_tables[table])
        try:
            yield
        finally:
            self._at_tables[table] -= 1

    def _note_update(self, table: str) -> None:
        self._updates[table, self._machine.processes].append(self._now)

    @property
    def _now(self) -> float:
        return self._machine.clock.elapsed()


def _most_within(times: Any, seconds: float) -> int:
    """The most of these times that lie within so many seconds."""
    ordered = sorted(times)
    most = begin = 0
    for end, time in enumerate(ordered):
        while time - ordered[begin] >= seconds:
            begin += 1
        most = max(most, end - begin + 1)
    return most
