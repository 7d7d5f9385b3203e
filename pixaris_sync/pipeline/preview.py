"""Says what a pass would do, and does none of it.

It lets the parts of the engine that only look (discovery, the search for rows in doubt) work on a copy of the
ledger, and takes down in that copy, instead of doing it, what uploads and deliveries would have done. So the
plan follows from the same rules as the work.

What it cannot foresee: images are not opened, so a damaged one shows only when it is read for its upload; and
where objects may not be listed, files that are there already count as files to upload.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from sqlite3 import Connection

import anyio
import anyio.lowlevel
from anyio import to_thread

from pixaris_sync.errors import ConfigurationError, LocalFileError, SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.inventory import count_synced, quarantined
from pixaris_sync.ledger.journal import Journal
from pixaris_sync.ledger.rows import (
    PendingRow,
    accept_rows,
    confirm_rows,
    delivered_by,
    mark_in_doubt,
    quarantine_rows,
    ready_rows,
    recover_deliveries,
    table_backlogs,
)
from pixaris_sync.ledger.runs import Problem
from pixaris_sync.ledger.uploads import (
    Receipt,
    UploadTask,
    claim,
    confirm_uploads,
    quarantine_upload,
    recover_uploads,
)
from pixaris_sync.local.contents import extend_crc32c
from pixaris_sync.model import (
    Cell,
    JsonValue,
    RemoteObject,
    TrackingRecord,
)
from pixaris_sync.pipeline.adoption import adopt
from pixaris_sync.pipeline.context import Context, Mode, problem_of, stops_everything
from pixaris_sync.pipeline.deliveries import Deliveries
from pixaris_sync.pipeline.discovery import Discovery
from pixaris_sync.pipeline.table_plans import TablePlan, tables_document
from pixaris_sync.pipeline.uploads import object_conflict
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import check_object_name, map_record, object_name
from pixaris_sync.rules.planner import ReadBack
from pixaris_sync.rules.schema import plan_batch
from pixaris_sync.settings import Settings

#: Files looked at between two notes in the ledger, and how many of them are read at the same time.
FILES_LIMIT = 1000
READS_LIMIT = 8

_CUT_OFF = Problem("a load job was begun and its end is not known", "nothing to do: it is looked for")


async def preview(
    settings: Settings, mode: Mode, ledger: Ledger, store: ObjectStore, sink: RowSink, *, now: float
) -> dict[str, JsonValue]:
    """What a pass would do: runs, files, bytes, rows, tables, columns, names, and what it would leave.

    Args:
        settings: where, and how much at once.
        mode: which runs.
        ledger: a copy that nobody else uses (`Ledger.in_memory`): it is changed.
        store: the bucket, which is only listed and asked.
        sink: the BigQuery dataset, which is only read.
        now: seconds since the epoch.

    Raises:
        ConfigurationError: folder, bucket, dataset or credentials are missing or unusable.
        SyncError: the cloud could not be asked.
    """
    journal = Journal(ledger)
    context = Context(
        settings=settings,
        mode=mode,
        journal=journal,
        store=store,
        sink=sink,
        clock=_PatientClock(now),
        jitter=random.Random(0),  # noqa: S311 - jitter needs no secrecy
    )
    await to_thread.run_sync(context.results.check)
    await store.check()
    await sink.check()
    async with anyio.create_task_group() as writers:
        writers.start_soon(journal.run)
        try:
            document = await _Preview(context).run()
        finally:
            journal.close()
    return document


class _PatientClock:
    """A clock by which waiting takes no time."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def elapsed(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += max(seconds, 0.0)
        await anyio.lowlevel.checkpoint()


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What would become of a file.

    Attributes:
        remote: the object that would hold it.
        sent: it would be uploaded, not found.
        was_there: somebody else had put it there.
        error: why it would not get there.
    """

    task: UploadTask
    remote: RemoteObject
    sent: bool = True
    was_there: bool = False
    error: SyncError | None = None


class _Preview:
    """One preview; the numbers grow while it runs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._synced_before = 0
        self._files = self._bytes = self._files_found = self._bytes_found = self._rows = 0
        self._tables: dict[str, TablePlan] = {}

    async def run(self) -> dict[str, JsonValue]:
        context = self._context
        await context.apply(recover_uploads, context.now())
        await context.apply(recover_deliveries, context.now())
        await self._discover()
        self._synced_before = await context.apply(count_synced, context.mode.selection)
        await self._foresee_uploads()
        await self._look_for_rows()
        await self._foresee_deliveries()
        return await context.apply(self._document)

    async def _discover(self) -> None:
        context = self._context
        discovery = Discovery(context)
        selection = context.mode.selection
        for key in await discovery.list_datasets():
            if selection.project in (None, key.project) and selection.dataset in (None, key.dataset):
                known = await discovery.scan(key)
                if not known.adopted and known.read_whole:
                    await adopt(context, known)

    # -- files -------------------------------------------------------------------------------------------

    async def _foresee_uploads(self) -> None:
        context = self._context
        while tasks := await context.apply(claim, context.now(), context.mode.selection, FILES_LIMIT):
            foreseen = await self._foresee_files(tasks)
            await context.apply(self._note_uploads, foreseen)

    async def _foresee_files(self, tasks: Sequence[UploadTask]) -> list[_Foreseen]:
        foreseen: list[_Foreseen] = []
        limiter = anyio.Semaphore(READS_LIMIT)

        async def look(task: UploadTask) -> None:
            async with limiter:
                foreseen.append(await self._foresee_upload(task))

        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(look, task)
        return foreseen

    async def _foresee_upload(self, task: UploadTask) -> _Foreseen:
        """Decide as `pipeline.uploads` would; a file is read only where an object has its name."""
        name = object_name(task.run, task.path)
        fresh = RemoteObject(name, task.version.size, 0, 1)
        try:
            check_object_name(name)
            there = await self._object_of(task, name)
            if there is None:
                return _Foreseen(task, fresh)
            known = there.generation == task.generation
            if await self._checksum(task) == there.crc32c:
                return _Foreseen(task, there, sent=False, was_there=known and not task.ours)
            if not (known and task.ours):
                raise object_conflict(name)
        except LocalFileError as error:
            # A file that is being written is taken in again before it is sent.
            return _Foreseen(task, fresh, error=None if error.failure.retryable else error)
        except SyncError as error:
            if _ends_the_preview(error):
                raise
            return _Foreseen(task, fresh, error=error)
        return _Foreseen(task, fresh)

    async def _object_of(self, task: UploadTask, name: str) -> RemoteObject | None:
        if not task.looked:
            return await self._context.store.stat(name)
        if not task.generation or task.crc32c is None:
            return None
        return RemoteObject(name, task.version.size, task.crc32c, task.generation)

    async def _checksum(self, task: UploadTask) -> int:
        if task.content is not None:
            return extend_crc32c(0, task.content)
        context = self._context
        return await context.files.checksum(
            task.run, task.path, task.version, chunk_bytes=context.settings.chunk_bytes
        )

    def _note_uploads(self, db: Connection, foreseen: Sequence[_Foreseen]) -> None:
        now = self._context.now()
        for one in foreseen:
            task = one.task
            if one.error is not None:
                quarantine_upload(db, now, task, problem_of(one.error))
                continue
            if one.sent:
                self._files += 1
                self._bytes += task.version.size
            else:
                self._files_found += 1
                self._bytes_found += task.version.size
            confirm_uploads(db, now, [Receipt(task, one.remote, one.was_there)])

    # -- rows --------------------------------------------------------------------------------------------

    async def _look_for_rows(self) -> None:
        """Find out which rows are in their tables; a load job that was cut off counts as rows in doubt."""
        context, settings, deliveries = self._context, self._context.settings, Deliveries(self._context)
        # What is not there now is not waited for.
        await context.clock.sleep(max(settings.doubt_settle_seconds, settings.visibility_timeout_seconds))
        while True:
            backlogs = await context.apply(table_backlogs, context.now(), context.mode.selection)
            cut_off = next((b.unfinished_load for b in backlogs if b.unfinished_load is not None), None)
            if cut_off is not None:
                _, _, rows = await context.apply(delivered_by, cut_off)
                await context.apply(mark_in_doubt, context.now(), rows, _CUT_OFF, next_attempt_at=0.0)
                await context.clock.sleep(settings.doubt_settle_seconds)
                continue
            table = next((backlog.table_id for backlog in backlogs if backlog.to_read_back), None)
            if table is None:
                return
            step = ReadBack(table, settings.stream_rows_limit)
            error = await deliveries.perform(step) or context.gate(table).last_error
            if error is not None:
                raise error

    async def _foresee_deliveries(self) -> None:
        context = self._context
        for backlog in await context.apply(table_backlogs, context.now(), context.mode.selection):
            take = partial(context.apply, ready_rows, context.now(), context.mode.selection, backlog.table_id)
            while rows := await take(context.settings.load_rows_limit):
                try:
                    await self._foresee_delivery(backlog.table_id, rows)
                except SyncError as error:
                    if _ends_the_preview(error):
                        raise
                    await context.apply(quarantine_rows, context.now(), rows, problem_of(error))

    async def _foresee_delivery(self, table: str, rows: Sequence[PendingRow]) -> None:
        context = self._context
        if table not in self._tables:
            columns = await context.sink.columns(table)
            self._tables[table] = TablePlan(columns, created=columns is None)
        plan = self._tables[table]
        batch: list[tuple[str, Sequence[Cell]]] = []
        sent: list[PendingRow] = []
        for row in rows:
            record = TrackingRecord(row.run, json.loads(row.payload), row.digest, row.line)
            try:
                batch.append((str(row.id), map_record(record, context.destination).cells))
                sent.append(row)
            except SyncError as error:
                await context.apply(quarantine_rows, context.now(), [row], problem_of(error))
        plan.take(plan_batch(batch, plan.columns))
        self._rows += len(sent)
        await context.apply(accept_rows, context.now(), sent)
        await context.apply(confirm_rows, context.now(), sent)

    # -- the plan ----------------------------------------------------------------------------------------

    def _document(self, db: Connection) -> dict[str, JsonValue]:
        context = self._context
        tracking_file = context.settings.dataset_tracking_file_name
        left = quarantined(db, context.mode.selection, tracking_file)
        return {
            "runs": count_synced(db, context.mode.selection) - self._synced_before,
            "files": self._files,
            "bytes": self._bytes,
            "rows": self._rows,
            "files_found": self._files_found,
            "bytes_found": self._bytes_found,
            "rows_found": context.tally.rows,
            **tables_document(self._tables),
            "not_carried": [asdict(problem) for problem in left],
        }


def _ends_the_preview(error: SyncError) -> bool:
    return error.failure.retryable or stops_everything(error) or isinstance(error, ConfigurationError)
