"""A reader of tables, bucket and ledgers that reads as Pixaris does, all the time, whatever goes wrong."""

import threading
from collections import Counter
from collections.abc import Sequence

from pixaris_sync.model import DatasetKey, RunKey
from tests.crash.killed_machine import KilledMachine
from tests.support.stored_runs import Reader

_PAUSE_SECONDS = 0.25


class ConcurrentReader:
    """Reads everything again and again until it is told to stop.

    Each reading asks in an order that makes what it must find certain: first what the ledgers claim, then the
    rows, then the objects, then the local folder.

    Attributes:
        readings: how often everything was read.
        rows_seen: how many rows the last reading saw.
        violations: what must never be.
        failure: what ended it before its time.
    """

    def __init__(self, machines: Sequence[KilledMachine], reader: Reader) -> None:
        self._machines = machines
        self._reader = reader
        self._ended = threading.Event()
        self.readings = 0
        self.rows_seen = 0
        self.violations: list[str] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        """Read until `stop`."""
        try:
            while not self._ended.wait(_PAUSE_SECONDS):
                self.read_everything()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failure = error

    def stop(self) -> None:
        """Read no more."""
        self._ended.set()

    def read_everything(self) -> None:
        """Read everything once, and note what must never be."""
        claimed: Counter[RunKey] = Counter()
        for machine in self._machines:
            check = machine.check_status()
            if check is not None:
                claimed += check.synced
                self.violations += check.unexplained
        datasets = {run.dataset_key for machine in self._machines for run in machine.expected.lines()}
        visible = Counter(run for key in sorted(datasets) for run in self._rows(key))
        there = self._reader.objects().keys()
        lines: Counter[RunKey] = Counter()
        for machine in self._machines:
            lines += machine.expected.lines()
            for run, names in machine.expected.objects_by_run().items():
                if run in visible and not names <= there:
                    self.violations.append(f"the row of {run} is visible, {sorted(names - there)} is not")
        self.violations += [
            f"{run} is said to be synced {count} times and has {visible[run]} rows"
            for run, count in claimed.items()
            if visible[run] < count
        ]
        self.violations += [
            f"{run} has {count} rows and {lines[run]} records"
            for run, count in visible.items()
            if count > lines[run]
        ]
        self.readings += 1
        self.rows_seen = visible.total()

    def _rows(self, key: DatasetKey) -> list[RunKey]:
        names = self._reader.runs(key.project, key.dataset)
        return [RunKey(key.project, key.dataset, name) for name in names]
