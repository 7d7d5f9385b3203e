"""Carries one file of a run into the bucket, and knows what to do when that fails.

A file is sent once: the request carries the generation that it may replace (none, for a new file) and its
crc32c. Where an upload may have happened already (a crash, a lost answer) the object is looked up before
anything is sent. An object that somebody else put there is taken as it is when it has the same crc32c, and
never overwritten when it has not. Of a run that was synced before this ledger knew it, nothing is sent: what
its objects lack was removed by somebody.
"""

from typing import NamedTuple

from anyio import to_thread

from pixaris_sync.errors import DamagedImageError, Failure, LocalFileError, ObjectConflictError, SyncError
from pixaris_sync.ledger.runs import had_all_files
from pixaris_sync.ledger.uploads import (
    UploadTask,
    keep_session,
    note_sent,
    quarantine_upload,
    reschedule_upload,
    unclaim,
)
from pixaris_sync.local.contents import Content, extend_crc32c
from pixaris_sync.local.presence import AbsentError, PartlyAbsentError
from pixaris_sync.local.safe_open import MissingFileError
from pixaris_sync.model import Problem, RemoteObject
from pixaris_sync.pipeline.context import BUCKET, FOLDER, Context, problem_of
from pixaris_sync.rules.contract import IMAGE_SUFFIXES, content_type, object_name
from pixaris_sync.rules.shards import mark_of


class _Body(NamedTuple):
    """What is to be sent: `content` whole, or None where it is streamed from disk."""

    crc32c: int
    content: bytes | None


def is_large(context: Context, task: UploadTask) -> bool:
    """Whether a file goes through a resumable session, in pieces."""
    return task.content is None and task.version.size > context.settings.resumable_threshold_bytes


def is_image(task: UploadTask) -> bool:
    """Whether a file must be a whole image."""
    return task.path.lower().endswith(IMAGE_SUFFIXES)


class Carried(NamedTuple):
    """What became of a file: see `ledger.uploads.Receipt`."""

    remote: RemoteObject | None
    was_there: bool
    sent: bool


async def carry(context: Context, task: UploadTask, read: Content | Exception | None) -> Carried:
    """Bring a claimed file's object into being.

    Args:
        context: what the engine's parts share.
        task: the file.
        read: its content, or why it cannot be read, where that is known already.

    Returns:
        The object, whether somebody else had put it there before, and whether it was sent now. None in its
        place: somebody removed or replaced it, and that is left as it is.

    Raises:
        LocalFileError: the file cannot be read, or is not whole.
        SyncError: it cannot be sent.
    """
    name = object_name(task.run, task.path)
    try:
        body = (
            _Body(read.crc32c, read.data) if isinstance(read, Content) else await _body(context, task, read)
        )
    except LocalFileError as error:
        if error.failure.retryable or not (task.stood or await _is_history(context, task, error)):
            raise
        return Carried(None, was_there=False, sent=False)
    there = await occupant_of(context, task, name)
    if task.stood and there.crc32c != body.crc32c:
        return Carried(await _left_as_it_is(context, name, body), was_there=True, sent=False)
    if there.generation and there.holds(body.crc32c, name):
        remote = RemoteObject(name, task.version.size, body.crc32c, there.generation)
        return Carried(remote, there.was_there, sent=False)
    try:
        return Carried(await _send(context, task, name, body, there.generation), was_there=False, sent=True)
    except ObjectConflictError:
        found = await context.store.stat(name)
        if found is None:
            # Somebody removed the one that was to be replaced.
            return Carried(await _send(context, task, name, body, 0), was_there=False, sent=True)
        if found.crc32c != body.crc32c:
            raise _conflict(name, found.crc32c) from None
        return Carried(found, was_there=True, sent=False)


async def _is_history(context: Context, task: UploadTask, error: LocalFileError) -> bool:
    """Whether a file is gone of which the bucket has a version, and whose run had all its files once.

    Nothing more can come of it, unless it comes back.
    """
    if not task.generation or not isinstance(error, MissingFileError):
        return False
    return await context.apply(had_all_files, task.run_id)


async def _left_as_it_is(context: Context, name: str, body: _Body) -> RemoteObject | None:
    """The object of a file of which the ledger does not know that it holds its content; None: it does not.

    No listing may have told of it: then it is looked up.
    """
    found = await context.store.stat(name)
    return found if found is not None and found.crc32c == body.crc32c else None


class Occupant(NamedTuple):
    """What stands in the bucket under a file's name.

    Attributes:
        generation: its generation; 0: nothing stands there.
        crc32c: its checksum; None: it is not known.
        ours: it came from this file, so a newer version of the file may replace it.
        was_there: somebody else had put it there before.
    """

    generation: int
    crc32c: int | None
    ours: bool
    was_there: bool

    def holds(self, crc32c: int, name: str) -> bool:
        """Whether it holds this content already, or may be replaced by it.

        Raises:
            ObjectConflictError: neither.
        """
        if self.crc32c == crc32c:
            return True
        if not self.ours:
            raise _conflict(name, self.crc32c)
        return False


async def occupant_of(context: Context, task: UploadTask, name: str) -> Occupant:
    """What stands under a file's name, as the ledger knows it; for a file in doubt, as the bucket does.

    Raises:
        SyncError: the bucket cannot be asked.
    """
    if not task.in_doubt:
        return Occupant(task.generation, task.crc32c, task.ours, was_there=not task.ours)
    found = await context.store.stat(name)
    if found is None:
        return Occupant(0, None, ours=False, was_there=False)
    # The object that this file had before, or what the upload in doubt made: no sign that anybody else
    # delivered this run.
    known = found.generation == task.generation
    sent = found.crc32c is not None and found.crc32c == task.sent_crc32c
    ours = sent or (task.ours and known)
    return Occupant(found.generation, found.crc32c, ours, was_there=known and not ours)


def _conflict(name: str, crc32c: int | None) -> ObjectConflictError:
    """An object of this checksum stands in the way of a file: another content, which did not come from it."""
    cause = "the bucket holds another content under this name, which did not come from this file"
    if crc32c is None:
        # Encrypted with a key that only its owner has: the service tells the checksum of no other object.
        cause = "what the bucket holds under this name cannot be checked: it does not tell its checksum"
    return ObjectConflictError(
        "upload object",
        name,
        cause,
        hint="compare both; remove the one that is wrong, then run `pixaris-sync retry`",
    )


async def _body(context: Context, task: UploadTask, read: Content | Exception | None) -> _Body:
    if isinstance(read, Content):
        return _Body(read.crc32c, read.data)
    if read is not None:
        raise read
    if task.content is not None:
        return _Body(extend_crc32c(0, task.content), task.content)
    if is_image(task):
        await context.files.verify_large_image(task.run, task.path, task.version)
    crc32c = await context.files.checksum(
        task.run, task.path, task.version, chunk_bytes=context.settings.chunk_bytes
    )
    return _Body(crc32c, None)


async def _send(context: Context, task: UploadTask, name: str, body: _Body, generation: int) -> RemoteObject:
    metadata = mark_of(task.version) if context.mode.selection.shard else None
    if body.content is not None:
        try:
            return await context.store.upload(
                name,
                body.content,
                content_type=content_type(task.path),
                crc32c=body.crc32c,
                if_generation=generation,
                metadata=metadata,
            )
        except SyncError as error:
            if error.failure is Failure.IN_DOUBT:
                await context.apply(note_sent, task, body.crc32c)
            raise

    async def keep(session_uri: str) -> None:
        await context.apply(keep_session, task, session_uri, body.crc32c)

    return await context.store.upload_resumable(
        name,
        context.files.source(task.run, task.path, task.version),
        content_type=content_type(task.path),
        crc32c=body.crc32c,
        if_generation=generation,
        session_uri=task.session_uri,
        on_session=keep,
        metadata=metadata,
    )


async def fail(context: Context, task: UploadTask, error: SyncError) -> SyncError | None:
    """Write down why a file could not be carried, and what becomes of it.

    Returns:
        An error that stops everything (credentials, bucket); the file is given back then.
    """
    if isinstance(error, LocalFileError):
        await _local_failure(context, task, error)
        return None
    return await _remote_failure(context, task, error)


async def _local_failure(context: Context, task: UploadTask, error: LocalFileError) -> None:
    now = context.now()
    age_seconds = context.age_seconds(task.version.mtime_ns)
    young_seconds = context.settings.young_file_seconds
    absent = await to_thread.run_sync(_absence_of, context, task, error)
    if absent is not None and absent.whole:
        # Nothing more is claimed until the folder is back.
        context.gate(FOLDER).failed(now, absent)
        await context.apply(unclaim, now, task, in_doubt=False)
    elif error.failure.retryable or absent is not None:
        error = absent or error
        # The file changed under us: what it is now must be taken in before it is sent.
        await context.apply(
            reschedule_upload,
            now,
            task,
            problem_of(error),
            next_attempt_at=context.next_attempt_at(task.attempts, error),
            in_doubt=False,
        )
        context.scan_soon(task.run.dataset_key)
    elif isinstance(error, DamagedImageError | MissingFileError) and 0 <= age_seconds < young_seconds:
        waiting = Problem(f"{error}; it is young and may still be written", "nothing to do but to wait")
        await context.apply(
            reschedule_upload,
            now,
            task,
            waiting,
            next_attempt_at=now + young_seconds - age_seconds,
            in_doubt=False,
            # A pass does not wait for whoever still writes: the next one looks again.
            attempts=1 if context.mode.follow else context.mode.selection.attempts_limit,
        )
    else:
        gone = isinstance(error, MissingFileError)
        await context.apply(quarantine_upload, now, task, problem_of(error), gone=gone)


def _absence_of(context: Context, task: UploadTask, error: LocalFileError) -> AbsentError | None:
    """Why a file's failure says nothing of the file; one that passes by itself says what it says. Blocks."""
    key = task.run.dataset_key
    absent = context.presence.absence(key)
    if absent is not None or error.failure.retryable:
        return absent
    # Its disk may have been away for just that moment.
    if isinstance(error, MissingFileError) and not context.files.is_missing(task.run, task.path):
        return PartlyAbsentError(error.subject, "it was missing a moment ago")
    return context.presence.excuse(key, error)


async def _remote_failure(context: Context, task: UploadTask, error: SyncError) -> SyncError | None:
    now = context.now()
    if error.stops_everything:
        await context.apply(unclaim, now, task, in_doubt=False)
        return error
    if error.failure.retryable:
        opens_at = context.failed(BUCKET, error, item=task.id, again=task.attempts > 0)
        own_at = context.next_attempt_at(task.attempts, error)
        if error.failure is Failure.PERMISSION:
            # When the gate opens it is another's turn: it may be this one alone that is denied.
            own_at += max(0.0, opens_at - now)
        await context.apply(
            reschedule_upload,
            now,
            task,
            problem_of(error),
            next_attempt_at=max(opens_at, own_at),
            in_doubt=error.failure is Failure.IN_DOUBT,
        )
    else:
        await context.apply(quarantine_upload, now, task, problem_of(error))
    return None
