"""A results folder, a ledger and a cloud of fakes: what the engine, `verify` and `preview` work on."""

import json
import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from PIL import Image

from pixaris_sync.clock import SteadyClock, SystemClock
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.model import DatasetKey, JsonValue, RunKey
from pixaris_sync.pipeline.context import Mode, Tally
from pixaris_sync.pipeline.engine import Engine
from pixaris_sync.pipeline.preview import preview
from pixaris_sync.process.repair import Repair, take_up_missing
from pixaris_sync.rules.contract import DEFAULT_TRACKING_FILE
from pixaris_sync.settings.model import Settings
from pixaris_sync.verify import Finding, verify
from tests.fakes.clock import HurriedClock
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink

DATASET = DatasetKey("project", "dataset")
TABLE = "project_dataset_experiment_results"


def run_name(second: int) -> str:
    """A run's name; the second it was stored at tells it from others."""
    return f"20250131-1200{second:02}_run"


@dataclass
class FakeCloud:
    """A results folder and where it is carried to.

    Attributes:
        folder: the results folder.
        settings: those that lead there; nothing in them takes long.
    """

    folder: Path
    store: FakeObjectStore = field(default_factory=FakeObjectStore)
    clock: HurriedClock = field(default_factory=HurriedClock)
    sink: FakeRowSink = field(init=False)
    ledger: Ledger = field(default_factory=Ledger.in_memory)
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.sink = FakeRowSink(SteadyClock(self.clock))
        self.settings = Settings(
            gcp_project_id="gcp-project",
            gcp_bq_experiment_dataset="gcp-project.pixaris",
            gcp_pixaris_bucket_name="bucket",
            local_results_folder=self.folder,
            state_dir=self.folder.parent / "state",
            doubt_settle_seconds=0.0,
            young_file_seconds=0.0,
            still_folder_seconds=0.0,
            incomplete_after_seconds=0.0,
            retry_delay_seconds_min=0.001,
            retry_delay_seconds_max=0.001,
        )

    def change(self, **settings: Any) -> None:
        """Work with other settings from here on."""
        self.settings = self.settings.having(**settings)

    def store_run(
        self, second: int, *, dataset: DatasetKey = DATASET, images: int = 1, **values: Any
    ) -> RunKey:
        """Store a run as LocalExperimentHandler does."""
        run = RunKey(dataset.project, dataset.dataset, run_name(second))
        path = self.path(run)
        (path / "generated_images").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            shade = (second * 7 + number) % 256
            Image.new("RGB", (4, 4), (shade, number, 0)).save(path / "generated_images" / f"{number}.png")
        record = {"timestamp": "2025-01-31 12:00:00", "experiment_run_name": run.run, **values}
        line = json.dumps(record)
        (path / "args.json").write_text(line)
        self.append(line + "\n", dataset)
        return run

    def append(self, text: str, dataset: DatasetKey = DATASET) -> None:
        """Append to a dataset's tracking file."""
        with self.tracking(dataset).open("a") as file:
            file.write(text)

    def path(self, run: RunKey) -> Path:
        """A run's folder."""
        return self.folder / run.project / run.dataset / run.run

    def tracking(self, dataset: DatasetKey = DATASET) -> Path:
        """A dataset's tracking file."""
        return self.folder / dataset.project / dataset.dataset / DEFAULT_TRACKING_FILE

    async def sync(self, mode: Mode | None = None) -> Tally:
        """Let the engine sync everything; what it did."""
        engine = Engine(
            settings=self.settings,
            mode=mode or Mode(),
            ledger=self.ledger,
            store=self.store,
            sink=self.sink,
            clock=self.clock,
            jitter=random.Random(1),  # noqa: S311 - jitter needs no secrecy
        )
        await engine.run()
        return replace(engine.context.tally)

    def forget_ledger(self) -> None:
        """Lose the ledger."""
        self.ledger.close()
        self.ledger = Ledger.in_memory()

    def overview(self) -> Overview:
        """What ``status`` is made of."""
        found: Overview = self.ledger.read(partial(overview, tracking_file=DEFAULT_TRACKING_FILE))
        return found

    async def verify(self) -> list[Finding]:
        """All findings."""
        return [finding async for finding in verify(self.settings, self.ledger, self.store, self.sink)]

    async def repair(self) -> Repair:
        """What ``sync --repair`` does after its first pass: compare, and carry what was taken up."""
        found = await take_up_missing(self.settings, self.ledger, self.store, self.sink, clock=self.clock)
        await self.sync()
        return found

    async def differences(self) -> list[tuple[str, str, str]]:
        """What is not the same: sign, kind and subject, in order."""
        found = await self.verify()
        return [(str(f.sign), str(f.kind), f.subject) for f in found if f.sign != "="]

    async def preview(self, mode: Mode | None = None) -> dict[str, JsonValue]:
        """What a pass would do, by a copy of the ledger."""
        with closing(Ledger.in_memory()) as copy:
            self.ledger._connection.backup(copy._connection)
            return await preview(
                self.settings, mode or Mode(bulk=True), copy, self.store, self.sink, now=SystemClock().now()
            )

    def rows(self, table: str = TABLE) -> list[Mapping[str, JsonValue]]:
        """The cells of a table's rows."""
        return [row.cells for row in self.sink.stored(table)]


def object_of(run: RunKey, path: str = "generated_images/0.png") -> str:
    """The name of a run's object."""
    return f"results/{run}/{path}"
