"""What the cloud has of runs: which there are, their objects, their rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec import Struct

from pixaris_sync.model import DatasetKey, JsonValue, RemoteObject, RunKey
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import (
    FEEDBACK_FOLDER,
    RESULTS_PREFIX,
    RUN_NAME_KEY,
    object_name,
    object_prefix,
    table_id,
)
from pixaris_sync.rules.readback import home


class Rows(Struct, frozen=True):
    """Rows of some runs of a dataset, by run, and the columns of its table."""

    of_runs: Mapping[str, Sequence[Mapping[str, JsonValue]]]
    columns: Sequence[str]


class Cloud:
    """A bucket and its tables, which can be read whole."""

    def __init__(self, store: ObjectStore, sink: RowSink) -> None:
        self.store = store
        self._sink = sink

    async def check(self) -> None:
        """Make sure that both are there; raises as their own checks."""
        await self.store.check()
        await self._sink.check()

    async def datasets(self, project: str) -> list[DatasetKey]:
        """The datasets of a project in the bucket."""
        pages = self.store.folders(f"{RESULTS_PREFIX}{project}/")
        return [DatasetKey(project, name) async for page in pages for name in page if name != FEEDBACK_FOLDER]

    async def runs_in_bucket(self, key: DatasetKey, run: str = "") -> set[str]:
        """The runs of a dataset that the bucket has objects of; or the one, if it has."""
        if run:
            return {run} if await self.objects(RunKey(key.project, key.dataset, run)) else set()
        return {name async for page in self.store.folders(object_prefix(key)) for name in page}

    async def runs_in_table(self, key: DatasetKey, run: str = "") -> set[str]:
        """The runs that a dataset's table has rows of; or the one, if it has."""
        if run:
            return set(await self._sink.count_rows(table_id(key), [run]))
        frame = await self._sink.read_table(table_id(key))
        if frame is None or RUN_NAME_KEY not in frame.columns:
            return set()
        return {str(name) for name in frame[RUN_NAME_KEY].dropna().unique()}

    async def objects(self, run: RunKey) -> dict[str, RemoteObject]:
        """What the bucket has of a run, by path."""
        prefix = object_name(run, "")
        there: dict[str, RemoteObject] = {}
        async for page in self.store.list(prefix):
            there |= {remote.name.removeprefix(prefix): remote for remote in page}
        return there

    async def looked_up(self, remote: RemoteObject) -> RemoteObject:
        """An object with its checksum, which listings of a bucket under a key of its owner's do not tell."""
        if remote.crc32c is not None:
            return remote
        return await self.store.stat(remote.name) or remote

    async def rows(self, key: DatasetKey, runs: Sequence[str]) -> Rows:
        """The rows of these runs, but for those that links tell to be of another dataset's.

        Raises:
            SyncError: the table cannot be asked.
        """
        table = table_id(key)
        described = await self._sink.describe(table)
        found: defaultdict[str, list[Mapping[str, JsonValue]]] = defaultdict(list)
        for row in await self._sink.read_rows(table, runs):
            name = str(row.get(RUN_NAME_KEY))
            if home(row, name, [key]) in (key, None):
                found[name].append(row)
        return Rows(found, [column.name for column in described.columns] if described else [])
