"""Files on their way into the bucket: read ahead, sent, written down.

    claimed ──read──▶ ready ──send──▶ receipts ──commit──▶ settled

Small files are read several at once, in one thread, before there is a request free for them; what is in
memory is bounded by ``inflight_bytes_limit``. How many requests are under way is up to
`limits.concurrency`. Receipts are written down by the transaction that claims the next files, all that have
come by then, while other files are sent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from anyio.abc import TaskGroup

from pixaris_sync.errors import Failure, LocalFileError, SyncError
from pixaris_sync.ledger.uploads import Receipt, UploadTask, confirm_uploads, unclaim
from pixaris_sync.limits.concurrency import Outcome
from pixaris_sync.local.contents import Content, PlannedFile
from pixaris_sync.pipeline.context import BUCKET, Context
from pixaris_sync.pipeline.uploads import carry, fail, is_image, is_large

#: So many files at most are claimed beyond those that are sent: read ahead, or waiting to be written down.
AHEAD_FILES = 192
#: Fewer are not worth a claim.
CLAIM_FILES_MIN = 48
#: Files that are read at once: so many, and together so large (or one alone).
READ_FILES_LIMIT = 48
READ_BYTES_LIMIT = 4 * 1024 * 1024


class _Ready(NamedTuple):
    """A file to send; `read`: what reading it ahead has brought; `held_bytes` of the budget are its."""

    task: UploadTask
    read: Content | Exception | None
    held_bytes: int


class UploadLane:
    """Carries claimed files.

    Args:
        context: what the engine's parts share.
        on_files_settled: called when the next state of files is in the ledger, or waits among the receipts
            to be written.
        on_fatal: called with an error that stops everything (credentials, bucket), when its file waits again.
    """

    def __init__(
        self,
        context: Context,
        *,
        on_files_settled: Callable[[], None],
        on_fatal: Callable[[SyncError], None],
    ) -> None:
        self._context = context
        self._on_files_settled = on_files_settled
        self._on_fatal = on_fatal
        self._gate = context.gate(BUCKET)
        self._concurrency = context.concurrency
        self._in_flight = 0
        self._senders = 0
        #: Senders that wait for work: to wake one costs a third of what a new task does.
        self._idle: list[asyncio.Future[_Ready]] = []
        self._ready: deque[_Ready] = deque()
        self._receipts: list[Receipt] = []

    @property
    def in_flight(self) -> int:
        """How many files were taken and are not settled."""
        return self._in_flight

    def room(self, in_flight: int) -> int:
        """How many more files are worth claiming while so many are in flight; 0 rather than a few."""
        room = self._concurrency.limit + AHEAD_FILES - in_flight
        return room if room >= CLAIM_FILES_MIN else 0

    def take(self, tasks: TaskGroup, claimed: Sequence[UploadTask]) -> None:
        """Begin to carry claimed files, in their order."""
        self._in_flight += len(claimed)
        tasks.start_soon(self._read, tasks, claimed)

    def hand_over_receipts(self) -> list[Receipt]:
        """What has arrived in the bucket since the last time: `write_down` and `written_down` must follow."""
        receipts, self._receipts = self._receipts, []
        return receipts

    def write_down(self, db: Connection, receipts: Sequence[Receipt]) -> None:
        """Record receipts in the ledger; part of a transaction, in its thread."""
        if receipts:
            confirm_uploads(db, self._context.now(), receipts)

    def written_down(self, receipts: Sequence[Receipt]) -> None:
        """That transaction is durable."""
        tally = self._context.tally
        arrived = [receipt for receipt in receipts if receipt.remote is not None]
        for receipt in arrived:
            if receipt.sent:
                tally.files += 1
                tally.bytes += receipt.task.version.size
            else:
                tally.files_found += 1
                tally.bytes_found += receipt.task.version.size
        self._in_flight -= len(receipts)

    async def _read(self, tasks: TaskGroup, claimed: Sequence[UploadTask]) -> None:
        context = self._context
        for batch in self._batches(claimed):
            await context.throttle()
            if self._is_read_ahead(batch[0]):
                await context.budget.acquire(sum(task.version.size for task in batch))
                contents = await context.files.read_batch(
                    [PlannedFile(task.run, task.path, task.version, is_image(task)) for task in batch]
                )
                for task, content in zip(batch, contents, strict=True):
                    self._ready.append(_Ready(task, content, task.version.size))
            else:
                [task] = batch
                size = context.settings.chunk_bytes if is_large(context, task) else task.version.size
                self._ready.append(_Ready(task, None, await context.budget.acquire(size)))
            self._start_senders(tasks)

    def _is_read_ahead(self, task: UploadTask) -> bool:
        return task.content is None and not is_large(self._context, task)

    def _batches(self, claimed: Sequence[UploadTask]) -> Iterator[Sequence[UploadTask]]:
        """Files to be read at once: few, small ones, together far below what may be in memory."""
        bytes_limit = min(READ_BYTES_LIMIT, self._context.settings.inflight_bytes_limit // 4)
        batch: list[UploadTask] = []
        size = 0
        for task in claimed:
            alone = not self._is_read_ahead(task)
            if batch and (alone or len(batch) == READ_FILES_LIMIT or size + task.version.size > bytes_limit):
                yield batch
                batch, size = [], 0
            if alone:
                yield [task]
                continue
            batch.append(task)
            size += task.version.size
        if batch:
            yield batch

    def _start_senders(self, tasks: TaskGroup) -> None:
        while self._ready and self._senders < self._concurrency.limit:
            self._senders += 1
            ready = self._ready.popleft()
            # One that was cancelled takes nothing any more.
            if self._idle and not (idle := self._idle.pop()).done():
                idle.set_result(ready)
            else:
                tasks.start_soon(self._send, tasks, ready)

    async def _send(self, tasks: TaskGroup, ready: _Ready) -> None:
        """Send a file, then others, for ever: waits while there is none, or while others are enough."""
        while True:
            await self._send_one(ready)
            if self._ready and self._senders <= self._concurrency.limit:
                ready = self._ready.popleft()
                self._start_senders(tasks)
            else:
                self._senders -= 1
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                ready = await idle

    async def _send_one(self, ready: _Ready) -> None:
        context, concurrency, task = self._context, self._concurrency, ready.task
        await context.throttle()
        if context.halted or not self._gate.is_open(context.now()):
            # While it waited, the bucket was paused, or the end or a pause was asked for.
            context.budget.release(ready.held_bytes)
            await context.apply(unclaim, context.now(), task, in_doubt=False)
            self._settle_one()
            return
        outcome, begun = Outcome.FAILED, context.clock.elapsed()
        concurrency.started()
        try:
            with context.hold.interruptible() as work:
                carried = await carry(context, task, ready.read)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this file
            error = context.reports.as_error("upload", f"{task.run}/{task.path}", caught)
            pushed_back = error.failure.retryable and error.failure is not Failure.PERMISSION
            if pushed_back and not isinstance(error, LocalFileError):
                outcome = Outcome.PUSHED_BACK
            if fatal := await fail(context, task, error):
                self._on_fatal(fatal)
            self._settle_one()
        else:
            if work.interrupted:
                # A pause was asked for. A session goes on where it was; of other requests nobody knows.
                await context.apply(unclaim, context.now(), task, in_doubt=True)
                self._settle_one()
            else:
                outcome = Outcome.OK
                context.succeeded(BUCKET)
                self._receipts.append(Receipt(task, *carried))
                if len(self._receipts) == 1:
                    self._on_files_settled()
        finally:
            context.budget.release(ready.held_bytes)
            now = context.clock.elapsed()
            concurrency.ended(now, now - begun, task.version.size, outcome)

    def _settle_one(self) -> None:
        self._in_flight -= 1
        self._on_files_settled()
