"""What the cloud has of runs: which there are, their objects, their rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pixaris_sync.errors import SyncError
from pixaris_sync.model import DatasetKey, JsonValue, RemoteObject, RunKey
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.rules.contract import (
    FEEDBACK_FOLDER,
    RESULTS_PREFIX,
    RUN_NAME_KEY,
    check_dataset_names,
    object_name,
    table_id,
)
from pixaris_sync.rules.readback import home
from pixaris_sync.text import printable

_UNKNOWN_HINT: Final = "name it as project, project/dataset or project/dataset/run, as the bucket has it"


@dataclass(frozen=True, slots=True)
class Rows:
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

    async def named(self, name: str) -> dict[DatasetKey, set[str]]:
        """The runs in the cloud that a name stands for.

        Raises:
            SyncError: there is none, or the cloud cannot be asked.
        """
        project, _, rest = name.partition("/")
        dataset, _, run = rest.partition("/")
        if run:
            key = RunKey(project, dataset, run)
            check_dataset_names(key.dataset_key)
            if await self._runs_in_table(key.dataset_key, run) or await self.objects(key):
                return {key.dataset_key: {run}}
        else:
            keys = [DatasetKey(project, one) for one in ([dataset] if dataset else await self._in(project))]
            found = {key: await self._runs_in_table(key) for key in keys}
            if any(found.values()):
                return {key: runs for key, runs in found.items() if runs}
        cause = "neither the bucket nor a table has a run of this name"
        raise SyncError("pull", printable(name), cause, hint=_UNKNOWN_HINT)

    async def _in(self, project: str) -> list[str]:
        """The datasets of a project in the bucket."""
        pages = self.store.folders(f"{RESULTS_PREFIX}{project}/")
        return [name async for page in pages for name in page if name != FEEDBACK_FOLDER]

    async def _runs_in_table(self, key: DatasetKey, run: str = "") -> set[str]:
        """The runs that a dataset's table has rows of; or the one, if it has."""
        check_dataset_names(key)
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
