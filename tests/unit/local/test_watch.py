"""Watching: which events mean which dataset, and that real events arrive."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from watchfiles._rust_notify import RustNotify

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.local import watch
from pixaris_sync.local.watch import Affected, Changed, affected, changes
from pixaris_sync.model import DatasetKey, RunKey

pytestmark = pytest.mark.anyio

ROOT = Path("/results")
SHOES = DatasetKey("shop", "shoes")
EVERYTHING = Changed(everything=True)
#: A word that should come within milliseconds and has not come by then never will.
PATIENCE_SECONDS = 20.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "local_results" / "shop" / "shoes").mkdir(parents=True)
    return tmp_path / "local_results"


class Words:
    """What a watch says, one word at a time."""

    def __init__(self, source: AsyncIterator[Changed]) -> None:
        self._source = source

    async def next(self) -> Changed:
        with anyio.fail_after(PATIENCE_SECONDS):
            return await anext(self._source)

    async def until(self, wanted: Changed) -> None:
        """Wait for a word; others before it (the kernel may tell of one thing twice) are fine."""
        while await self.next() != wanted:
            pass


@asynccontextmanager
async def watching(root: Path, **options: Any) -> AsyncIterator[Words]:
    async with aclosing(cast("Any", changes(root, anyio.Event(), **options))) as source:
        words = Words(source)
        assert await words.next() == EVERYTHING
        yield words


@pytest.mark.parametrize(
    ("path", "datasets", "folders", "runs"),
    [
        ("", [], [""], []),
        ("shop", [], ["shop"], []),
        ("shop/shoes", [SHOES], ["shop/shoes"], []),
        ("shop/shoes/experiment_tracking.jsonl", [SHOES], [], ["experiment_tracking.jsonl"]),
        ("shop/shoes/20240101-000001_x", [SHOES], [], ["20240101-000001_x"]),
        ("shop/shoes/20240101-000001_x/generated_images/a.png", [SHOES], [], ["20240101-000001_x"]),
        ("shop/feedback_iterations", [], [], []),
        ("shop/feedback_iterations/x/feedback.jsonl", [], [], []),
        (".cache/x", [], [], []),
        ("shop/.tmp", [], [], []),
        ("shop/shoes/.nfs0001", [], [], []),
        ("../elsewhere", [], [], []),
    ],
)
def test_a_path_means_the_dataset_that_it_lies_in(
    path: str, datasets: list[DatasetKey], folders: list[str], runs: list[str]
) -> None:
    """Goal: the right dataset, no noise. Method: one path of each sort."""
    event = os.path.normpath(ROOT / path)
    assert affected(ROOT, [event]) == Affected(
        frozenset(datasets),
        frozenset(ROOT / folder for folder in folders),
        frozenset(RunKey(SHOES.project, SHOES.dataset, run) for run in runs),
    )


def test_many_paths_are_one_answer() -> None:
    """Goal: events are told of together. Method: paths of two datasets."""
    paths = ["/results/shop/shoes/a", "/results/shop/shoes/b", "/results/shop/hats/c"]
    assert affected(ROOT, paths).datasets == {SHOES, DatasetKey("shop", "hats")}


@pytest.mark.parametrize("polling", [False, True])
async def test_every_appended_line_is_told_of(root: Path, *, polling: bool) -> None:
    """Goal: the commit mark is seen. Method: real appends, several within one second, in both ways."""
    tracking = root / "shop" / "shoes" / "runs.jsonl"
    async with watching(root, polling=polling, poll_delay_ms=5, tracking_file="runs.jsonl") as words:
        for _ in range(3):
            with tracking.open("a") as file:
                file.write("a line\n")
            await words.until(Changed(frozenset({SHOES})))


@pytest.mark.parametrize("polling", [False, True])
async def test_a_new_run_folder_is_told_of(root: Path, *, polling: bool) -> None:
    """Goal: runs without a tracking line are found too. Method: a new run folder, in both ways."""
    async with watching(root, polling=polling, poll_delay_ms=5) as words:
        run = RunKey(SHOES.project, SHOES.dataset, "20240101-000001_x")
        (root / str(run)).mkdir()
        await words.until(Changed(frozenset({SHOES}), runs=frozenset() if polling else frozenset({run})))


async def test_a_dataset_that_appears_while_its_project_is_not_yet_watched_is_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no gap between listing and watching. Method: make the folder just then, append to it later."""
    late = root / "shop" / "late"

    def make_a_folder_first(*arguments: Any) -> RustNotify:
        late.mkdir(exist_ok=True)
        return RustNotify(*arguments)

    monkeypatch.setattr(watch, "RustNotify", make_a_folder_first)
    async with watching(root) as words:
        (late / "experiment_tracking.jsonl").write_text("a line\n")
        await words.until(Changed(frozenset({DatasetKey("shop", "late")})))


async def test_polling_tells_of_a_new_dataset(root: Path) -> None:
    """Goal: polling sees what is new. Method: a new project with a dataset."""
    async with watching(root, polling=True, poll_delay_ms=5) as words:
        (root / "zoo" / "cats").mkdir(parents=True)
        await words.until(Changed(frozenset({DatasetKey("zoo", "cats")})))


async def test_a_new_project_and_what_is_written_in_it_is_told_of(root: Path) -> None:
    """Goal: a first run is not missed. Method: a new project; once told, an append deep inside it."""
    async with watching(root) as words:
        new = root / "zoo" / "cats"
        new.mkdir(parents=True)
        await words.until(EVERYTHING)
        (new / "experiment_tracking.jsonl").write_text("x\n")
        await words.until(Changed(frozenset({DatasetKey("zoo", "cats")})))


async def test_a_dataset_that_is_moved_away_and_made_again_is_watched_again(root: Path) -> None:
    """Goal: a folder replaced by another of its name is not lost. Method: rename, make anew, append."""
    shoes = root / "shop" / "shoes"
    async with watching(root) as words:
        shoes.rename(root / "shop" / "old")
        shoes.mkdir()
        await words.until(EVERYTHING)
        (shoes / "experiment_tracking.jsonl").write_text("x\n")
        await words.until(Changed(frozenset({SHOES})))


async def test_stray_and_hidden_files_wake_nobody(root: Path) -> None:
    """Goal: quiet. Method: write strays, then a line; the first word is about the line."""
    (root / "shop" / "feedback_iterations").mkdir()
    (root / "shop" / "shoes" / "20240101-000001_x").mkdir()
    async with watching(root, debounce_ms=1, step_ms=1) as words:
        for stray in (
            "notes.txt",
            "shop/feedback_tracking.jsonl",
            "shop/feedback_iterations/x",
            "shop/shoes/.tmp",
            "shop/shoes/20240101-000001_x/image.png",
        ):
            (root / stray).write_text("x")
        (root / "shop" / "shoes" / "experiment_tracking.jsonl").write_text("x\n")
        assert await words.next() == Changed(frozenset({SHOES}))


async def test_links_are_not_watched(root: Path, tmp_path: Path) -> None:
    """Goal: a link to a large tree costs nothing. Method: links in the place of a project and a dataset."""
    (tmp_path / "elsewhere" / "x").mkdir(parents=True)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "shop" / "linked").symlink_to(tmp_path / "elsewhere")
    assert watch._watchable(root) == {root, root / "shop", root / "shop" / "shoes"}


async def test_a_file_name_that_is_no_utf8_does_not_end_the_watch(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: one odd name stops nothing. Method: make one, which watchfiles cannot tell of; then a line."""
    monkeypatch.setattr(watch, "_BROKEN_PAUSE_SECONDS", 0.01)
    odd = root / "shop" / "shoes" / "\udcff"
    async with watching(root) as words:
        odd.write_text("x")
        await words.until(EVERYTHING)
        (root / "shop" / "shoes" / "experiment_tracking.jsonl").write_text("x\n")
        await words.until(Changed(frozenset({SHOES})))


async def test_stop_ends_the_watch(root: Path) -> None:
    """Goal: a drain does not wait. Method: set the event while the watch waits."""
    stop = anyio.Event()
    words: list[Changed] = []
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                async for word in changes(root, stop):
                    words.append(word)
                    stop.set()

            tasks.start_soon(listen)
    assert words == [EVERYTHING]
    assert [word async for word in changes(root, stop)] == []


async def test_cancelling_ends_the_watch_and_leaves_the_stop_event_alone(root: Path) -> None:
    """Goal: a caller's timeout works. Method: cancel in the middle of a wait for events."""
    stop = anyio.Event()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            async for word in changes(root, stop):
                assert word == EVERYTHING
                tasks.cancel_scope.cancel()
    assert not stop.is_set()


@pytest.mark.parametrize(
    "refusal",
    [OSError("OS file watch limit reached"), RuntimeError("Error creating recommended watcher")],
    ids=["limit of watches", "limit of instances"],
)
async def test_a_limit_of_inotify_is_an_error_that_names_the_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    """Goal: the caller can fall back to polling. Method: the watcher cannot be made; polling then can."""

    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(watch, "RustNotify", refuse)
    with pytest.raises(SyncError) as raised:
        async with watching(root):
            pass
    assert raised.value.failure is Failure.TRANSIENT
    assert "fs.inotify.max_user_watches" in raised.value.hint
    async with watching(root, polling=True):
        pass


@pytest.mark.parametrize("polling", [False, True])
async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, *, polling: bool) -> None:
    """Goal: no endless loop without a folder. Method: watch a missing one."""
    with pytest.raises(SyncError) as raised:
        async with watching(tmp_path / "gone", polling=polling):
            pass
    assert raised.value.failure is Failure.TRANSIENT


async def test_a_folder_that_keeps_vanishing_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: finite retries. Method: each listing names a folder that is gone when it is to be watched."""
    monkeypatch.setattr(watch, "_watchable", lambda root: frozenset({root, root / "gone"}))
    with pytest.raises(SyncError):
        async with watching(root):
            pass


async def test_the_watching_thread_wakes_less_often_when_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: waiting costs next to nothing. Method: the steps that are asked for: nothing, a line, nothing."""
    happens = iter([frozenset(), frozenset({(1, str(tmp_path / "notes.txt"))}), frozenset(), frozenset()])
    steps: list[tuple[int, bool]] = []

    def wait(_watcher: object, _debounce_ms: int, step_ms: int, wait_ms: int, stop: watch._Stop) -> object:
        steps.append((step_ms, wait_ms == 0))
        events = next(happens)
        if len(steps) == 4:
            stop.ended.set()
        return events

    monkeypatch.setattr(watch, "_wait", wait)
    async for _ in watch.changes(tmp_path, anyio.Event(), step_ms=7, quiet_step_ms=70):
        pass
    assert steps == [(7, False), (70, True), (7, False), (70, True)]


async def test_a_quiet_watch_tells_of_every_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: quiet loses nothing. Method: quiet after each word; lines are appended, a dataset is made."""
    monkeypatch.setattr(watch, "_QUIET_AFTER_MS", 1)
    async with watching(root) as words:
        for dataset in ("shoes", "shoes", "hats"):
            folder = root / "shop" / dataset
            if not folder.exists():
                folder.mkdir()
                await words.until(EVERYTHING)
            with (folder / "experiment_tracking.jsonl").open("a") as file:
                file.write("a line\n")
            await words.until(Changed(frozenset({DatasetKey("shop", dataset)})))


async def test_stop_ends_a_quiet_watch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a drain does not wait for an event. Method: set the event while nothing happens."""
    monkeypatch.setattr(watch, "_QUIET_AFTER_MS", 1)
    stop = anyio.Event()
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                assert [word async for word in changes(root, stop)] == [EVERYTHING]

            tasks.start_soon(listen)
            await anyio.sleep(0.1)
            stop.set()
