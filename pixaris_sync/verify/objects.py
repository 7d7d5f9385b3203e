"""Objects of the bucket against files: by crc32c, from listings or, where these tell none, one by one."""

from collections.abc import AsyncIterator, Sequence

import anyio

from pixaris_sync.errors import LocalFileError, SyncError
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.local.contents import RunFiles
from pixaris_sync.model import DatasetKey, RemoteObject, RunKey
from pixaris_sync.ports import ObjectStore
from pixaris_sync.rules.contract import object_prefix, run_and_path
from pixaris_sync.text import counted, printable
from pixaris_sync.verify.expected import Expected, ExpectedObject
from pixaris_sync.verify.findings import BACKUP_HINT, Finding, Kind, Sign, failed

#: Files that are read, and objects that are looked up, at the same time.
READS_LIMIT = 8

#: A file's crc32c, or why it has none.
_Checksum = int | LocalFileError
#: An object that was looked up: None where it has gone, or why nothing is known of it.
_LookedUp = RemoteObject | SyncError | None


async def compare_objects(
    store: ObjectStore,
    files: RunFiles,
    expected: Expected,
    *,
    chunk_bytes: int,
    selection: Selection = EVERYTHING,
) -> AsyncIterator[Finding]:
    """Compare the objects of a dataset's selected runs with what is expected, and note how each run came out.

    A file is read, and an object looked up, only where its size was found.

    Args:
        store: the bucket.
        files: the local files.
        expected: what should be there.
        chunk_bytes: how much of each file is held at once.
        selection: which runs; an object of no run is compared where the whole dataset is.

    Raises:
        SyncError: the bucket cannot be listed; what was not found until then is not known to be missing. Or
            nobody can be authenticated.
    """
    waiting = dict(expected.objects)
    async for listed in store.list(object_prefix(expected.key)):
        page = [one for one in listed if one.name in waiting or _may_be_of(selection, expected.key, one.name)]
        found = [(remote, waiting.pop(remote.name, None)) for remote in page]
        looked_up = await _look_up(store, found)
        checksums = await _checksums(files, found, chunk_bytes)
        for remote, wanted in found:
            there = looked_up.get(remote.name, remote)
            if wanted is None:
                yield _finding(Sign.EXTRA, remote.name, "only in the bucket")
            elif there is None:
                waiting[remote.name] = wanted
            else:
                yield _compare(expected, remote.name, there, wanted, checksums.get(remote.name))
    for name, wanted in waiting.items():
        expected.missing[wanted.run.run] += 1
        yield _missing(expected, name, wanted)


def _may_be_of(selection: Selection, key: DatasetKey, name: str) -> bool:
    """Whether an object that nobody here knows may be one of a selected run."""
    if not selection.is_limited:
        return True
    found = run_and_path(key, name)
    return found is not None and selection.takes(RunKey(key.project, key.dataset, found[0]))


def _finding(sign: Sign, name: str, detail: str) -> Finding:
    return Finding(sign, Kind.OBJECT, printable(name), detail)


async def _look_up(
    store: ObjectStore, found: Sequence[tuple[RemoteObject, ExpectedObject | None]]
) -> dict[str, _LookedUp]:
    """What a listing tells no checksum of, looked up, by name; not what nobody expects or its size tells."""
    looked_up: dict[str, _LookedUp] = {}
    limiter = anyio.Semaphore(READS_LIMIT)

    async def look(name: str) -> None:
        async with limiter:
            try:
                there = await store.stat(name)
            except SyncError as error:
                looked_up[name] = error
                return
        if there is not None and there.crc32c is None:
            cause = "its content cannot be checked: the bucket does not tell its checksum"
            looked_up[name] = SyncError("compare object", name, cause)
        else:
            looked_up[name] = there

    async with anyio.create_task_group() as tasks:
        for remote, wanted in found:
            if remote.crc32c is None and wanted is not None and _same_size(remote, wanted):
                tasks.start_soon(look, remote.name)
    return looked_up


def _same_size(remote: RemoteObject, wanted: ExpectedObject) -> bool:
    """Whether a size says nothing against an object."""
    return wanted.version is None or wanted.version.size == remote.size


def _missing(expected: Expected, name: str, wanted: ExpectedObject) -> Finding:
    subject, run = printable(name), wanted.run
    if wanted.by_ledger:
        detail = "not in the bucket; the local file is gone too"
        return Finding(Sign.MISSING, Kind.OBJECT, subject, detail, BACKUP_HINT, run)
    hint = expected.hint_of(run.run, was_there=wanted.uploaded is not None)
    return Finding(Sign.MISSING, Kind.OBJECT, subject, "not in the bucket", hint, run, wanted.path)


async def _checksums(
    files: RunFiles, found: Sequence[tuple[RemoteObject, ExpectedObject | None]], chunk_bytes: int
) -> dict[str, _Checksum]:
    """The crc32c of every local file whose size says nothing, by the object's name."""
    checksums: dict[str, _Checksum] = {}
    limiter = anyio.Semaphore(READS_LIMIT)

    async def read(name: str, wanted: ExpectedObject) -> None:
        assert wanted.version is not None  # noqa: S101 - asked below
        async with limiter:
            try:
                checksums[name] = await files.checksum(
                    wanted.run, wanted.path, wanted.version, chunk_bytes=chunk_bytes
                )
            except LocalFileError as error:
                checksums[name] = error

    async with anyio.create_task_group() as tasks:
        for remote, wanted in found:
            if wanted is not None and wanted.version is not None and _same_size(remote, wanted):
                tasks.start_soon(read, remote.name, wanted)
    return checksums


def _compare(
    expected: Expected,
    name: str,
    there: RemoteObject | SyncError,
    wanted: ExpectedObject,
    checksum: _Checksum | None,
) -> Finding:
    if isinstance(there, SyncError):
        return _unclear(expected, name, wanted, there)
    if isinstance(checksum, LocalFileError):
        return _unclear(expected, name, wanted, checksum)
    here = wanted.crc32c if checksum is None else checksum
    if here is not None and here == there.crc32c:
        note = ", as the ledger knows it: the local file cannot be read any more" if wanted.by_ledger else ""
        return _finding(Sign.SAME, name, f"crc32c {here:08x}{note}")
    expected.differing[wanted.run.run] += 1
    return _finding(Sign.DIFFERS, name, _difference(there, wanted, here))


def _unclear(expected: Expected, name: str, wanted: ExpectedObject, error: SyncError) -> Finding:
    if error.stops_everything:
        raise error
    expected.unclear.add(wanted.run.run)
    return failed(Kind.OBJECT, name, error)


def _difference(remote: RemoteObject, wanted: ExpectedObject, here: int | None) -> str:
    if here is None and wanted.version is not None:
        text = f"{counted(wanted.version.size, 'byte')} here, {remote.size} in the bucket"
    else:
        side = "by the ledger" if wanted.by_ledger else "here"
        text = f"crc32c {here:08x} {side}, {remote.crc32c:08x} in the bucket"
    if not wanted.by_ledger and wanted.uploaded is not None and wanted.uploaded == remote.crc32c:
        text += ": the local file changed after it was uploaded"
    return text
