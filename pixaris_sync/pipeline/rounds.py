"""Rounds through the results folder: what events may have missed is found, at the price of what has changed.

A round compares the status of each dataset's folder and tracking file with what the round before it saw. It
has those datasets scanned in which there is a difference, and those of which the ledger says that they are
not finished: runs that wait, are damaged or are being stored can change below what is compared. A round over
years of finished runs costs two looks at the disk for each dataset.
"""

from dataclasses import dataclass
from functools import partial

from anyio import to_thread

from pixaris_sync.errors import LocalFileError
from pixaris_sync.ledger.known import unfinished_datasets
from pixaris_sync.local.results_folder import DatasetStatus, LocalResults
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.discovery import CLOCK_TICK_SECONDS, ScanDepth
from pixaris_sync.pipeline.engine import Engine


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a round saw: datasets (None: it could not be looked into, or not be relied on), and problems."""

    datasets: dict[DatasetKey, DatasetStatus | None]
    problems: tuple[str, ...] = ()


class Rounds:
    """Makes rounds for an engine that follows.

    What is seen is seen before it is scanned, so that what changes in between is found by the next round.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen = _Sight({})

    async def make(self) -> None:
        """Have scanned soon what has changed since the last round, or is not finished.

        Raises:
            LocalFileError: the results folder itself cannot be read.
        """
        engine, before = self._engine, self._seen
        seen = await to_thread.run_sync(partial(_look_around, engine.context.results))
        if seen.datasets.keys() != before.datasets.keys() or seen.problems != before.problems:
            # It also notes what is wrong with the results folder itself.
            await engine.scan_all_soon(ScanDepth.FOLDERS)
        else:
            unfinished = await engine.context.apply(unfinished_datasets)
            for key, status in seen.datasets.items():
                if key in unfinished or status is None or status != before.datasets[key]:
                    engine.scan_soon(key, ScanDepth.FOLDERS)
        reliable = {key: self._reliable(status) for key, status in seen.datasets.items()}
        self._seen = _Sight(reliable, seen.problems)

    def _reliable(self, status: DatasetStatus | None) -> DatasetStatus | None:
        """What changes right after a change may leave the same times."""
        if status is None or abs(self._engine.context.age_seconds(status.changed_ns)) < CLOCK_TICK_SECONDS:
            return None
        return status


def _look_around(results: LocalResults) -> _Sight:
    found = results.datasets()
    statuses: dict[DatasetKey, DatasetStatus | None] = {}
    for key in found.keys:
        try:
            statuses[key] = results.status(key)
        except LocalFileError:
            statuses[key] = None  # The scan tells why.
    return _Sight(statuses, tuple(str(problem) for problem in found.problems))
