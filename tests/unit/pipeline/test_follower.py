"""Rounds: which datasets are to be scanned, by what is seen of them and by what the ledger says."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.follower import Rounds
from pixaris_sync.pipeline.orphans import CLOCK_TICK_SECONDS

pytestmark = pytest.mark.anyio

TRACKING_FILE = "experiment_tracking.jsonl"
HATS, SHOES = DatasetKey("shop", "hats"), DatasetKey("shop", "shoes")
NOW = 1_700_000_000.0


class StubEngine:
    """Takes down what it is asked for. `unfinished` is what its ledger would say."""

    def __init__(self, root: Path) -> None:
        self.unfinished: set[DatasetKey] = set()
        self.asked: list[tuple[DatasetKey | None, ScanDepth]] = []
        self.away = False
        self.context = SimpleNamespace(
            results=LocalResults(root, TRACKING_FILE),
            age_seconds=lambda changed_ns: NOW - changed_ns / 1e9,
            apply=self._apply,
        )

    async def _apply(self, _: Callable[..., Any]) -> set[DatasetKey]:
        return self.unfinished

    async def folder_is_there(self) -> bool:
        return not self.away

    def scan_soon(self, key: DatasetKey, depth: ScanDepth) -> None:
        self.asked.append((key, depth))

    async def scan_all_soon(self, depth: ScanDepth) -> None:
        self.asked.append((None, depth))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("hats", "shoes"):
        folder = tmp_path / "shop" / name
        folder.mkdir(parents=True)
        (folder / TRACKING_FILE).write_text("a line\n")
        stamp(folder)
    return tmp_path


@pytest.fixture
def engine(root: Path) -> StubEngine:
    return StubEngine(root)


@pytest.fixture
async def rounds(engine: StubEngine) -> Rounds:
    """After the first round, which has everything scanned."""
    rounds = Rounds(cast("Any", engine))
    await rounds.make()
    assert engine.asked == [(None, ScanDepth.FOLDERS)]
    engine.asked.clear()
    return rounds


def stamp(folder: Path, age_seconds: float = 10 * CLOCK_TICK_SECONDS) -> None:
    for path in (folder / TRACKING_FILE, folder):
        if path.exists():
            os.utime(path, (NOW, NOW - age_seconds))


async def test_a_round_without_news_asks_for_nothing(engine: StubEngine, rounds: Rounds) -> None:
    """Goal: what is finished costs nothing. Method: two rounds more."""
    await rounds.make()
    await rounds.make()
    assert engine.asked == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / "20240101-000001_x").mkdir(), id="a run folder"),
        pytest.param(lambda folder: (folder / TRACKING_FILE).write_text("a line\nanother\n"), id="a line"),
        pytest.param(lambda folder: (folder / TRACKING_FILE).write_text("a lime\n"), id="same size"),
        pytest.param(lambda folder: (folder / TRACKING_FILE).unlink(), id="no tracking file"),
        pytest.param(lambda folder: (folder / TRACKING_FILE).chmod(0o644), id="permissions"),
    ],
)
async def test_a_dataset_that_changed_is_scanned(
    engine: StubEngine, rounds: Rounds, root: Path, change: Callable[[Path], object]
) -> None:
    """Goal: a lost event costs a round at most. Method: each sort of change, with the times as they were.

    The time at which the kernel changed the status of a file cannot be set.
    """
    change(root / "shop" / "shoes")
    stamp(root / "shop" / "shoes")
    await rounds.make()
    assert engine.asked == [(SHOES, ScanDepth.FOLDERS)]
    await rounds.make()
    assert len(engine.asked) == 1


async def test_what_the_ledger_calls_unfinished_is_scanned_each_time(
    engine: StubEngine, rounds: Rounds
) -> None:
    """Goal: what is mended in place is found. Method: a dataset of the ledger, and one that is gone."""
    engine.unfinished = {HATS, DatasetKey("shop", "gone")}
    await rounds.make()
    await rounds.make()
    assert engine.asked == [(HATS, ScanDepth.FOLDERS)] * 2


async def test_what_has_just_changed_is_scanned_once_more(engine: StubEngine, root: Path) -> None:
    """Goal: a second change within one tick of the clock is not lost. Method: a folder stamped just now."""
    stamp(root / "shop" / "hats", age_seconds=CLOCK_TICK_SECONDS / 2)
    rounds = Rounds(cast("Any", engine))
    await rounds.make()
    await rounds.make()
    assert engine.asked == [(None, ScanDepth.FOLDERS), (HATS, ScanDepth.FOLDERS)]


async def test_a_dataset_or_problem_that_comes_or_goes_has_everything_listed_anew(
    engine: StubEngine, rounds: Rounds, root: Path
) -> None:
    """Goal: notes about the folder are kept up. Method: a new dataset, then a link in the place of one."""
    (root / "shop" / "new").mkdir()
    await rounds.make()
    assert engine.asked == [(None, ScanDepth.FOLDERS)]
    (root / "shop" / "link").symlink_to(root)
    await rounds.make()
    assert engine.asked == [(None, ScanDepth.FOLDERS)] * 2


async def test_a_round_that_fails_is_made_up_for(engine: StubEngine, rounds: Rounds, root: Path) -> None:
    """Goal: an outage hides nothing. Method: a new dataset, while the folder is away at first."""
    (root / "shop" / "new").mkdir()
    engine.away = True
    await rounds.make()
    assert engine.asked == []
    engine.away = False
    await rounds.make()
    assert engine.asked == [(None, ScanDepth.FOLDERS)]


async def test_a_dataset_that_cannot_be_looked_into_is_scanned_each_time(
    engine: StubEngine, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: its trouble is told, and its end noticed. Method: its status cannot be read, then it can."""
    status = LocalResults.status

    def refuse(results: LocalResults, key: DatasetKey) -> object:
        if key == SHOES:
            raise LocalFileError("open folder", str(key), "permission denied")
        return status(results, key)

    with monkeypatch.context() as patched:
        patched.setattr(LocalResults, "status", refuse)
        await rounds.make()
        await rounds.make()
    await rounds.make()
    await rounds.make()
    assert engine.asked == [(SHOES, ScanDepth.FOLDERS)] * 3
