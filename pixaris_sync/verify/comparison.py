"""Goes through all datasets: objects, rows, and what the ledger says of each run."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from functools import partial

from anyio import to_thread
from msgspec.structs import replace

from pixaris_sync.errors import LocalFileError, SyncError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.inventory import KnownRun, inventory
from pixaris_sync.ledger.known import known_datasets
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.local.contents import RunFiles
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey, RunKey, RunState
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import table_id
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted, printable
from pixaris_sync.verify.expected import Expected, expect
from pixaris_sync.verify.findings import Finding, Kind, Sign, failed
from pixaris_sync.verify.objects import compare_objects
from pixaris_sync.verify.rows import compare_rows, row_subject


async def verify(
    settings: Settings,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    selection: Selection = EVERYTHING,
) -> AsyncIterator[Finding]:
    """Compare every selected run that the folder or the ledger knows; each finding as soon as it is known.

    Where one listing, table or file cannot be read, that is a finding, and the others go on. Whole projects
    and datasets that only the cloud knows are not looked for: others may use the same bucket.

    Raises:
        ConfigurationError: folder, bucket, BigQuery dataset or credentials are missing or unusable.
        LedgerError: the ledger cannot be read.
        SyncError: the cloud could not be asked at all, or nobody can be authenticated.
    """
    results = LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name)
    await to_thread.run_sync(results.check)
    await store.check()
    await sink.check()
    found = await to_thread.run_sync(results.datasets)
    for problem in found.problems:
        yield failed(Kind.LEDGER, problem.subject, problem)
    keys = {*found.keys, *await to_thread.run_sync(ledger.read, known_datasets)}
    comparison = _Comparison(settings, results, ledger, store, sink, selection)
    for table, sharing in by_table(keys).items():
        if not any(map(selection.takes_dataset, sharing)):
            continue
        async for finding in comparison.compare(table, sharing):
            yield finding


def by_table(keys: Collection[DatasetKey]) -> dict[str, list[DatasetKey]]:
    """Datasets by the table that they share, mostly one alone; rows tell only together whose they are."""
    tables: defaultdict[str, list[DatasetKey]] = defaultdict(list)
    for key in sorted(keys):
        tables[table_id(key)].append(key)
    return tables


class _Comparison:
    """One table and its datasets at a time."""

    def __init__(
        self,
        settings: Settings,
        results: LocalResults,
        ledger: Ledger,
        store: ObjectStore,
        sink: RowSink,
        selection: Selection,
    ) -> None:
        self._settings = settings
        self._results = results
        self._ledger = ledger
        self._store = store
        self._sink = sink
        self._selection = selection
        self._files = RunFiles(settings.local_results_folder)

    async def compare(self, table: str, keys: Sequence[DatasetKey]) -> AsyncIterator[Finding]:
        datasets: list[Expected] = []
        for key in keys:
            try:
                datasets.append(await to_thread.run_sync(self._expect, key))
            except LocalFileError as error:
                # Without its records every row would seem to be too many.
                yield failed(Kind.ROW, str(key), error)
                return
        for expected in datasets:
            if self._selection.takes_dataset(expected.key):
                async for finding in self._compare_objects(expected):
                    yield finding
        async for finding in self._compare_rows(table, datasets):
            yield finding
        for expected in datasets:
            if self._selection.takes_dataset(expected.key):
                for finding in _compare_ledger(
                    expected, self._settings.dataset_tracking_file_name, self._selection
                ):
                    yield finding

    def _expect(self, key: DatasetKey) -> Expected:
        return expect(
            self._results,
            self._settings.destination,
            key,
            self._ledger.read(partial(inventory, key=key)),
            accept_without_images=self._settings.accept_runs_without_images,
            selection=self._selection,
        )

    async def _compare_objects(self, expected: Expected) -> AsyncIterator[Finding]:
        if expected.refused:
            return
        try:
            async for finding in compare_objects(
                self._store,
                self._files,
                expected,
                chunk_bytes=self._settings.chunk_bytes,
                selection=self._selection,
            ):
                yield finding
        except SyncError as error:
            if error.stops_everything:
                raise
            expected.unknown = True
            yield failed(Kind.OBJECT, str(expected.key), error)

    async def _compare_rows(self, table: str, datasets: Sequence[Expected]) -> AsyncIterator[Finding]:
        carried = [expected for expected in datasets if not expected.refused]
        if not carried:
            return
        try:
            frame = await self._sink.read_table(table)
            compared = await to_thread.run_sync(compare_rows, table, carried, frame)
            findings = [one for one in compared if self._is_about_selected(carried, one)]
            if any(finding.sign is Sign.MISSING for finding in findings):
                findings = await self._doubt(table, findings)
        except SyncError as error:
            if error.stops_everything:
                raise
            for expected in carried:
                expected.unknown = True
            yield failed(Kind.ROW, table, error)
            return
        for finding in findings:
            _note(carried, finding)
            yield finding

    def _is_about_selected(self, datasets: Sequence[Expected], finding: Finding) -> bool:
        """Whether a row is, or may be, one of a selected run."""
        if not self._selection.is_limited:
            return True
        if finding.run is not None:
            return self._selection.takes(finding.run)
        _, _, name = finding.subject.partition(":")
        return any(self._selection.takes(RunKey(one.key.project, one.key.dataset, name)) for one in datasets)

    async def _doubt(self, table: str, findings: list[Finding]) -> list[Finding]:
        """Call no row missing that may be there all the same: without its run's name, or hidden."""
        if any(finding.subject == row_subject(table, "") for finding in findings):
            detail = "it does not show; the table has rows without experiment_run_name, which may be it"
            hint = "give those rows their experiment_run_name again, or delete them"
        elif await self._sink.is_filtered(table):
            detail = "it does not show; a row access policy or a data mask hides rows from this account"
            hint = "look with an account that sees all rows; what is hidden from it is never sent again"
        else:
            return findings
        return [
            replace(finding, sign=Sign.ERROR, detail=detail, hint=hint, source="")
            if finding.sign is Sign.MISSING
            else finding
            for finding in findings
        ]


def _note(datasets: Sequence[Expected], finding: Finding) -> None:
    """Note how a run's row came out in what is expected of its dataset."""
    for expected in datasets:
        if finding.run is not None and finding.run.dataset_key == expected.key:
            expected.missing[finding.run.run] += finding.sign is Sign.MISSING
            expected.differing[finding.run.run] += finding.sign is Sign.DIFFERS
            if finding.sign is Sign.ERROR:
                expected.unclear.add(finding.run.run)


def _compare_ledger(expected: Expected, tracking_file: str, selection: Selection) -> Iterator[Finding]:
    """What the ledger says of each selected run, against what was found; and lines that name no run."""
    for damaged in () if selection.runs else expected.damaged:
        subject = f"{expected.key}/{tracking_file}:{damaged.line}"
        yield Finding(Sign.MISSING, Kind.ROW, subject, f"damaged line: {damaged.cause}")
    here = {row.run.run for row in expected.rows}
    for name in sorted(here | expected.known.runs.keys()):
        if not selection.takes(RunKey(expected.key.project, expected.key.dataset, name)):
            continue
        known = expected.known.runs.get(name)
        trouble = _trouble(expected, name)
        unclear = expected.unknown or name in expected.unclear
        sign = Sign.MISSING
        if known is not None and known.state is RunState.DOWNLOADED:
            # Nothing of it is expected from here.
            continue
        if expected.refused:
            detail = expected.refused
        elif known is not None and known.state is RunState.SYNCED:
            if unclear and not trouble:
                continue
            sign = Sign.DIFFERS if trouble else Sign.SAME
            detail = f"the ledger says synced, but {trouble}" if trouble else "synced"
        else:
            detail = _standing(known)
            if name in here and not trouble and not unclear:
                sign, detail = Sign.DIFFERS, f"all of it is in the cloud, but {detail}"
        yield Finding(sign, Kind.LEDGER, printable(f"{expected.key}/{name}"), detail)


def _standing(known: KnownRun | None) -> str:
    if known is None:
        return "the ledger does not know it yet"
    return f"the ledger says {known.state}" + (f": {known.cause}" if known.cause else "")


def _trouble(expected: Expected, run: str) -> str:
    """What of a run is not as it should be, in words; empty where everything is."""
    counts = ((expected.missing[run], "missing"), (expected.differing[run], "not the same"))
    return " and ".join(
        f"{counted(count, 'object or row is', 'objects or rows are')} {what}"
        for count, what in counts
        if count
    )
