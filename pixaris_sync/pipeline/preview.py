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
from sqlite3 import Connection

import anyio
import anyio.lowlevel
from anyio import to_thread
from msgspec import Struct, to_builtins

from pixaris_sync.errors import Failure, LocalFileError, SyncError
from pixaris_sync.ledger import foreseen
from pixaris_sync.ledger.database import Ledger, get_fact
from pixaris_sync.ledger.foreseen import Fate
from pixaris_sync.ledger.inventory import count_synced
from pixaris_sync.ledger.journal import Journal
from pixaris_sync.ledger.overview import problems
from pixaris_sync.ledger.pending_rows import (
    PendingRow,
    delivered_by,
    ready_rows,
    rows_to_ask_for,
    rows_to_read_back,
    table_backlogs,
)
from pixaris_sync.ledger.rows import (
    accept_rows,
    confirm_rows,
    mark_in_doubt,
    quarantine_rows,
    recover_deliveries,
)
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
    Problem,
    RemoteObject,
    RunState,
    TrackingRecord,
)
from pixaris_sync.pipeline.adoption import CHECKED, adopt
from pixaris_sync.pipeline.context import ASK_ROWS_LIMIT, Context, Mode, problem_of
from pixaris_sync.pipeline.deliveries import LOAD_BYTES_LIMIT, Deliveries
from pixaris_sync.pipeline.discovery import Discovery, ScanDepth
from pixaris_sync.pipeline.forecast import Forecast, TablePlan, tables_document
from pixaris_sync.pipeline.outgoing_rows import fitting
from pixaris_sync.pipeline.table_changes import survey_waiting
from pixaris_sync.pipeline.uploads import occupant_of
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import cells_of, check_object_name, object_name
from pixaris_sync.rules.planner import AskFirst, ReadBack, TableBacklog
from pixaris_sync.rules.schema import plan_batch
from pixaris_sync.settings.model import Settings

#: Files looked at between two notes in the ledger, and how many of them are read at the same time.
FILES_LIMIT = 1000
READS_LIMIT = 8

#: States of problems that a pass would leave as they are.
_NOT_CARRIED = (RunState.QUARANTINED, RunState.INCOMPLETE)
_CUT_OFF = Problem("a load job was begun and its end is not known", "nothing to do: it is looked for")


async def preview(
    settings: Settings, mode: Mode, ledger: Ledger, store: ObjectStore, sink: RowSink, *, now: float
) -> dict[str, JsonValue]:
    """What a pass would do: runs, files, bytes, rows, tables, columns, names, and what it would leave.

    Arguments and errors are those of `foresee`.
    """
    return (await foresee(settings, mode, ledger, store, sink, now=now, with_runs=False)).document


async def foresee(
    settings: Settings,
    mode: Mode,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    *,
    now: float,
    with_runs: bool,
) -> Forecast:
    """What a pass would do, run by run.

    Args:
        settings: where, and how much at once.
        mode: which runs.
        ledger: a copy that nobody else uses (`Ledger.in_memory`): it is changed.
        store: the bucket, which is only listed and asked.
        sink: the BigQuery dataset, which is only read.
        now: seconds since the epoch.
        with_runs: name each run, with its files and rows.

    Raises:
        ConfigurationError: folder, bucket, dataset or credentials are missing or unusable.
        SyncError: the cloud could not be asked.
    """
    journal = Journal(ledger)
    context = Context(
        # What is there now is all that it is about.
        settings=settings.having(still_folder_seconds=0.0),
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
            forecast = await _Preview(context).run(with_runs=with_runs)
        finally:
            journal.close()
    return forecast


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


class _Foreseen(Struct, frozen=True):
    """What would become of a file.

    Attributes:
        remote: the object that would hold it; None: it is missing, and left so.
        sent: it would be uploaded, not found.
        was_there: somebody else had put it there.
        error: why it would not get there.
    """

    task: UploadTask
    remote: RemoteObject | None
    sent: bool = True
    was_there: bool = False
    error: SyncError | None = None


class _Preview:
    """One preview; the numbers grow while it runs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._deliveries = Deliveries(context)
        self._synced_before = 0
        self._files = self._bytes = self._files_found = self._bytes_found = self._rows = 0
        self._tables: dict[str, TablePlan] = {}

    async def run(self, *, with_runs: bool) -> Forecast:
        context = self._context
        checks = await context.apply(get_fact, CHECKED) is None
        await context.apply(recover_uploads, context.now())
        await context.apply(recover_deliveries, context.now())
        await self._discover()
        await context.apply(foreseen.begin, context.mode.selection)
        self._synced_before = await context.apply(count_synced, context.mode.selection)
        # Which rows are there decides what of their runs is sent, and that which rows are in doubt.
        await self._look_for_rows()
        await self._foresee_uploads()
        await self._look_for_rows()
        await self._foresee_deliveries()
        document = await context.apply(self._document)
        runs = await context.apply(lambda db: tuple(foreseen.foreseen_runs(db))) if with_runs else ()
        return Forecast(document, runs, self._tables, checks)

    async def _discover(self) -> None:
        context = self._context
        discovery = Discovery(context)
        for key in await discovery.list_datasets():
            if context.mode.selection.takes_dataset(key):
                known = await discovery.scan(key)
                if not known.adopted and known.read_whole:
                    await adopt(context, known)
                await discovery.orphans.ask(known)
        while (look_at := discovery.arrivals.next_look_at) is not None:
            await context.clock.sleep(look_at - context.now())
            for key in discovery.arrivals.due():
                await discovery.scan(key, ScanDepth.NEW_LINES)

    # -- files -------------------------------------------------------------------------------------------

    async def _foresee_uploads(self) -> None:
        context = self._context
        while tasks := await context.apply(claim, context.now(), context.mode.selection, FILES_LIMIT):
            await context.apply(self._note_uploads, await self._foresee_files(tasks))

    async def _foresee_files(self, tasks: Sequence[UploadTask]) -> list[_Foreseen]:
        files: list[_Foreseen] = []
        limiter = anyio.Semaphore(READS_LIMIT)

        async def look(task: UploadTask) -> None:
            async with limiter:
                files.append(await self._foresee_upload(task))

        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(look, task)
        return files

    async def _foresee_upload(self, task: UploadTask) -> _Foreseen:
        """Decide as `pipeline.uploads` would; a file is read only where an object has its name."""
        name = object_name(task.run, task.path)
        fresh = RemoteObject(name, task.version.size, 0, 1)
        try:
            check_object_name(name)
            there = await occupant_of(self._context, task, name)
            if task.stood and (not there.generation or there.crc32c != await self._checksum(task)):
                return _Foreseen(task, None, sent=False)
            if there.generation and there.holds(await self._checksum(task), name):
                found = RemoteObject(name, task.version.size, there.crc32c or 0, there.generation)
                return _Foreseen(task, found, sent=False, was_there=there.was_there)
        except LocalFileError as error:
            # A file that is being written is taken in again before it is sent.
            if task.stood and not error.failure.retryable:
                return _Foreseen(task, None, sent=False)
            return _Foreseen(task, fresh, error=None if error.failure.retryable else error)
        except SyncError as error:
            if _ends_the_preview(error):
                raise
            return _Foreseen(task, fresh, error=error)
        return _Foreseen(task, fresh)

    async def _checksum(self, task: UploadTask) -> int:
        if task.content is not None:
            return extend_crc32c(0, task.content)
        context = self._context
        return await context.files.checksum(
            task.run, task.path, task.version, chunk_bytes=context.settings.chunk_bytes
        )

    def _note_uploads(self, db: Connection, files: Sequence[_Foreseen]) -> None:
        now = self._context.now()
        for one in files:
            task = one.task
            if one.error is not None:
                quarantine_upload(db, now, task, problem_of(one.error))
                continue
            recovered = task.in_doubt and not one.was_there
            fate = Fate.SENT if one.sent else Fate.DONE if recovered else Fate.FOUND
            foreseen.note(db, "file", [task.id], fate)
            if one.sent:
                self._files += 1
                self._bytes += task.version.size
            elif one.remote is not None:
                self._files_found += 1
                self._bytes_found += task.version.size
            confirm_uploads(db, now, [Receipt(task, one.remote, one.was_there)])

    # -- rows --------------------------------------------------------------------------------------------

    async def _look_for_rows(self) -> None:
        """Find out which rows are in their tables; a load job that was cut off counts as rows in doubt."""
        context, settings = self._context, self._context.settings
        await self._look_at_all_tables()
        # What is not there now is not waited for.
        await context.clock.sleep(max(settings.doubt_settle_seconds, settings.visibility_timeout_seconds))
        await self._look_at_all_tables()

    async def _look_at_all_tables(self) -> None:
        context = self._context
        while True:
            backlogs = await context.apply(table_backlogs, context.now(), context.mode.selection)
            cut_off = next((b.unfinished_load for b in backlogs if b.unfinished_load is not None), None)
            if cut_off is not None:
                _, _, rows = await context.apply(delivered_by, cut_off)
                await context.apply(mark_in_doubt, context.now(), rows, _CUT_OFF, next_attempt_at=0.0)
                continue
            step = next(map(_question, filter(_is_open, backlogs)), None)
            if step is None:
                return
            error = await self._deliveries.perform(step) or context.gate(step.table_id).last_error
            if error is None:
                continue
            if _ends_the_preview(error):
                raise error
            selection, count = context.mode.selection, ASK_ROWS_LIMIT
            denied = await context.apply(rows_to_ask_for, selection, step.table_id, count)
            denied += await context.apply(rows_to_read_back, context.now(), selection, step.table_id, count)
            await context.apply(quarantine_rows, context.now(), denied, problem_of(error))
            context.succeeded(step.table_id)

    async def _foresee_deliveries(self) -> None:
        context = self._context
        for backlog in await context.apply(table_backlogs, context.now(), context.mode.selection):
            table, count = backlog.table_id, context.settings.load_rows_limit
            while rows := await context.apply(
                ready_rows, context.now(), context.mode.selection, table, count
            ):
                try:
                    await self._foresee_delivery(table, rows)
                except SyncError as error:
                    if _ends_the_preview(error):
                        raise
                    await context.apply(quarantine_rows, context.now(), rows, problem_of(error))

    async def _foresee_delivery(self, table: str, rows: Sequence[PendingRow]) -> None:
        context = self._context
        if table not in self._tables:
            found = await context.sink.describe(table)
            self._tables[table] = TablePlan(
                found and found.columns,
                created=found is None,
                before=found and found.columns,
                is_shared=table in context.shared_tables,
            )
        plan = self._tables[table]
        batch: list[tuple[str, Sequence[Cell]]] = []
        sent: list[PendingRow] = []
        for row in rows:
            record = TrackingRecord(row.run, json.loads(row.payload), row.digest, row.line)
            try:
                batch.append((str(row.id), cells_of(record, context.destination)))
                sent.append(row)
            except SyncError as error:
                await context.apply(quarantine_rows, context.now(), [row], problem_of(error))
        planned = plan_batch(batch, plan.columns)
        if plan.columns is None or planned.add:
            planned = plan_batch(batch, plan.columns, await survey_waiting(context, table))
        # As many rows as one load job takes; the others are the next one's.
        count = max(1, fitting(planned.rows, LOAD_BYTES_LIMIT)) if sent else 0
        if count < len(sent):
            sent = sent[:count]
            planned = plan_batch(batch[:count], plan.columns, await survey_waiting(context, table))
        plan.take(planned)
        plan.loads.append(len(sent))
        plan.is_shared |= len({row.run for row in sent}) < len(sent)
        await context.apply(foreseen.note, "row", [row.id for row in sent], Fate.SENT)
        self._rows += len(sent)
        await context.apply(accept_rows, context.now(), sent)
        await context.apply(confirm_rows, context.now(), sent)

    # -- the plan ----------------------------------------------------------------------------------------

    def _document(self, db: Connection) -> dict[str, JsonValue]:
        context = self._context
        tracking_file = context.settings.dataset_tracking_file_name
        found = problems(db, context.mode.selection, tracking_file)
        return {
            "runs": count_synced(db, context.mode.selection) - self._synced_before,
            "files": self._files,
            "bytes": self._bytes,
            "rows": self._rows,
            "files_found": self._files_found,
            "bytes_found": self._bytes_found,
            "rows_found": context.tally.rows,
            **tables_document(self._tables),
            "not_carried": [to_builtins(problem) for problem in found if problem.state in _NOT_CARRIED],
        }


def _is_open(backlog: TableBacklog) -> bool:
    return bool(backlog.to_read_back or backlog.to_ask)


def _question(backlog: TableBacklog) -> ReadBack | AskFirst:
    """What to ask a table next."""
    question = ReadBack if backlog.to_read_back else AskFirst
    return question(backlog.table_id, ASK_ROWS_LIMIT)


def _ends_the_preview(error: SyncError) -> bool:
    passes = error.failure.retryable and error.failure is not Failure.PERMISSION
    return passes or error.stops_everything
