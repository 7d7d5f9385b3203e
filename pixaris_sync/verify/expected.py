"""What the cloud should hold of a dataset: the folder read anew, and the ledger for what is gone from it.

Blocking.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct, field

from pixaris_sync.errors import LocalFileError, NameRefusedError, SyncError
from pixaris_sync.ledger.inventory import Inventory
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.local.contents import extend_crc32c
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.local.tracking_file import SETTLED_SECONDS
from pixaris_sync.model import (
    Cell,
    DamagedLine,
    DatasetKey,
    Destination,
    FileVersion,
    RunKey,
    RunState,
    TailPosition,
    TrackingRecord,
)
from pixaris_sync.rules.contract import cells_of, check_dataset_names, files_of, object_name
from pixaris_sync.verify.findings import CARRY_HINT, RESTORE_HINT

#: How much of a tracking file is read at once.
TAIL_BYTES_LIMIT = 8 * 1024 * 1024


class ExpectedObject(Struct, frozen=True):
    """An object that should be in the bucket.

    Attributes:
        run, path: which file of which run it is.
        version: the local file; None where there is none.
        crc32c: of its content where that needs no reading: it stood in the record, or the ledger knows it.
        uploaded: the checksum of what was uploaded, by the ledger.
        by_ledger: nothing of it is left here, and only the ledger knows it.
    """

    run: RunKey
    path: str
    version: FileVersion | None
    crc32c: int | None
    uploaded: int | None
    by_ledger: bool


class ExpectedRow(Struct, frozen=True):
    """A row that should be in the table: a tracking record and its cells, or why it has none."""

    run: RunKey
    digest: str
    cells: tuple[Cell, ...]
    fault: str = ""


class Expected(Struct):
    """What should be in the cloud of one dataset, and how the comparison went so far.

    Attributes:
        key: the dataset.
        known: what the ledger says of it.
        objects: by name.
        rows: for every tracking record; lines that are equal are one.
        forgotten: how many rows of a run the ledger calls synced that no tracking line tells of any more.
        damaged: lines that no record can be read from.
        position: up to where the tracking file was read; None: there is none.
        is_torn: its last line is unfinished.
        refused: why nothing of the dataset can be carried; empty where it can.
        missing, differing: how many objects and rows of a run are not there, or not the same.
        unclear: runs of which a file could not be compared.
        unknown: the bucket's listing or the table could not be read.
    """

    key: DatasetKey
    known: Inventory
    objects: dict[str, ExpectedObject] = field(default_factory=dict)
    rows: list[ExpectedRow] = field(default_factory=list)
    forgotten: Counter[str] = field(default_factory=Counter)
    damaged: list[DamagedLine] = field(default_factory=list)
    position: TailPosition | None = None
    is_torn: bool = False
    refused: str = ""
    missing: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    unclear: set[str] = field(default_factory=set)
    unknown: bool = False

    def hint_of(self, run: str, *, was_there: bool) -> str:
        """What to do about an object or a row of a run that is missing; `was_there`: the ledger saw it."""
        known = self.known.runs.get(run)
        return RESTORE_HINT if was_there or (known and known.state is RunState.SYNCED) else CARRY_HINT


def expect(
    results: LocalResults,
    destination: Destination,
    key: DatasetKey,
    known: Inventory,
    *,
    accept_without_images: bool,
    selection: Selection = EVERYTHING,
) -> Expected:
    """Read a dataset's tracking file and look at its selected runs' folders.

    Rows are expected of all runs, which only together tell whose each row of a table is.

    Raises:
        LocalFileError: the tracking file cannot be read.
    """
    expected = Expected(key, known)
    try:
        check_dataset_names(key)
    except NameRefusedError as error:
        expected.refused = str(error)
    gone = known.synced.copy()
    seen: set[str] = set()
    read: set[str] = set()
    for records in _pieces(results, expected):
        by_run: defaultdict[RunKey, set[str]] = defaultdict(set)
        for record in records:
            if record.digest in seen:
                continue
            seen.add(record.digest)
            by_run[record.run] |= _expect_record(expected, record, destination)
            gone[record.run.run, record.digest] -= 1
        read |= {run.run for run in by_run}
        for run in filter(selection.takes, by_run):
            inspection = results.inspect(
                run, sorted(by_run[run]), accept_without_images=accept_without_images
            )
            for file in inspection.files:
                _expect_object(expected, run, file.path, version=file.version)
    _expect_without_line(expected, results, read)
    for (name, path), crc32c in known.uploaded.items():
        run = RunKey(key.project, key.dataset, name)
        if object_name(run, path) not in expected.objects:
            _expect_object(expected, run, path, crc32c=crc32c, by_ledger=True)
    expected.objects = {name: one for name, one in expected.objects.items() if selection.takes(one.run)}
    for (name, _), count in gone.items():
        expected.forgotten[name] += max(count, 0)
    return expected


def _expect_without_line(expected: Expected, results: LocalResults, read: Collection[str]) -> None:
    """Take in files of runs that were uploaded and that no tracking line names any more."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for name, path in expected.known.uploaded:
        if name not in read:
            paths[name].append(path)
    for name, uploaded in paths.items():
        run = RunKey(expected.key.project, expected.key.dataset, name)
        saved = [path for path in uploaded if "/" not in path]
        for file in results.inspect(run, saved, accept_without_images=True).files:
            _expect_object(expected, run, file.path, version=file.version)


def _pieces(results: LocalResults, expected: Expected) -> Iterator[Iterable[TrackingRecord]]:
    """The records of a tracking file from its start, whatever was read of it before."""
    key, position = expected.key, None
    settled_ns = int((time.time() - SETTLED_SECONDS) * 1e9)
    while tail := results.tail(key, position, bytes_limit=TAIL_BYTES_LIMIT, settled_before_ns=settled_ns):
        if position is not None and tail.from_start:
            raise LocalFileError(
                "compare dataset", str(key), "its tracking file was rewritten meanwhile", hint="try again"
            )
        expected.damaged += tail.damaged
        expected.position, expected.is_torn = tail.position, tail.torn_bytes > 0
        yield tail.records
        if not tail.more:
            return
        position = tail.position


def _expect_record(expected: Expected, record: TrackingRecord, destination: Destination) -> set[str]:
    """Take in one record; the names of its saved files."""
    try:
        cells, files = cells_of(record, destination), files_of(record)
    except SyncError as error:
        expected.rows.append(ExpectedRow(record.run, record.digest, (), str(error)))
        return set()
    expected.rows.append(ExpectedRow(record.run, record.digest, cells))
    for path, content in files.inline.items():
        # Where records of one run differ in a file, the first is what was uploaded.
        if object_name(record.run, path) not in expected.objects:
            _expect_object(expected, record.run, path, crc32c=extend_crc32c(0, content))
    return set(files.saved)


def _expect_object(
    expected: Expected,
    run: RunKey,
    path: str,
    *,
    version: FileVersion | None = None,
    crc32c: int | None = None,
    by_ledger: bool = False,
) -> None:
    uploaded = expected.known.uploaded.get((run.run, path))
    expected.objects[object_name(run, path)] = ExpectedObject(run, path, version, crc32c, uploaded, by_ledger)
