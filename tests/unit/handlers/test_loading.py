"""What the cloud is asked for, and what becomes of the files, against a bucket in memory."""

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from pixaris_sync.clock import SystemClock
from pixaris_sync.errors import (
    Failure,
    LocalFileError,
    ResultsUnreadableError,
    SyncError,
    TableNotFoundError,
)
from pixaris_sync.handlers import downloads
from pixaris_sync.handlers.downloads import IMAGES_LIMIT, PREFIX, load_images
from pixaris_sync.handlers.loading import LISTINGS_LIMIT, list_projects, read_results, results_of_dataset
from pixaris_sync.handlers.patience import Patience
from pixaris_sync.handlers.portal import run as run_anywhere
from pixaris_sync.limits.backoff import Backoff
from pixaris_sync.local.storing import make_hidden
from pixaris_sync.model import DatasetKey, RemoteObject, RunKey
from pixaris_sync.settings.sources import load_settings
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink

pytestmark = pytest.mark.anyio

RUN = RunKey("p", "d", "run")
IMAGES = "results/p/d/run/generated_images/"
PATIENCE = Patience(Backoff(0.001, 0.001), attempts_limit=3, wait_seconds_max=1.0)
UNAVAILABLE = SyncError("ask", "the bucket", "503", failure=Failure.TRANSIENT)


def bucket_with(count: int, size: int = 10) -> FakeObjectStore:
    store = FakeObjectStore(chunk_bytes=4)
    for number in range(count):
        store.put(f"{IMAGES}image_{number:03}.png", bytes([number]) * size)
    return store


def files_under(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too, by their paths; hidden folders as files without content."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() or path.name.startswith("."):
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else b""
    return found


def modes_under(folder: Path) -> set[int]:
    return {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}


async def load(store: FakeObjectStore, folder: Path, run: RunKey = RUN) -> list[str]:
    paths = await load_images(store, PATIENCE, run, str(folder))
    assert store.faults_pending == 0
    return [path.removeprefix(f"{folder}/") for path in paths]


class TestProjects:
    async def test_requests_are_one_and_one_a_project(self) -> None:
        """Goal: a bucket's history costs nothing.

        Method: 50 datasets in 10 projects with many objects each; what was called, and the answer.
        """
        store = FakeObjectStore()
        for number in range(2_000):
            project, dataset = f"p{number % 10}", f"d{number % 50 // 10}"
            store.put(f"results/{project}/{dataset}/run_{number}/generated_images/a.png", b"")
        assert await list_projects(store, PATIENCE) == {
            f"p{project}": [f"d{dataset}" for dataset in range(5)] for project in range(10)
        }
        assert store.counts == {"folders": 11}

    async def test_what_pixaris_sets_aside_is_left_out(self) -> None:
        """Goal: the dict of Pixaris, in its order, and whole where Pixaris cuts names.

        Method: reserved names, feedback alone, files beside folders, names that begin others or end in
        ``results``, objects elsewhere.
        """
        store = FakeObjectStore()
        for name in (
            "results/a-b/d/r/args.json",
            "results/a/d/r/args.json",
            "results/a/d-1/r/args.json",
            "results/a/feedback_iterations/f/image.png",
            "results/a/notes.txt",
            "results/empty/",
            "results/feedback/feedback_iterations/f/image.png",
            "results/myresults/otherresults/r/args.json",
            "results/notes.txt",
            "results/pickled_results/d/r/args.json",
            "others/p/d/r/args.json",
        ):
            store.put(name, b"")
        found = await list_projects(store, PATIENCE)
        assert list(found.items()) == [
            ("a-b", ["d"]),
            ("a", ["d-1", "d"]),
            ("empty", []),
            ("feedback", []),
            ("myresults", ["otherresults"]),
        ]
        assert await list_projects(FakeObjectStore(), PATIENCE) == {}

    async def test_listings_are_side_by_side_and_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Goal: as quick as the slowest, and no flood. Method: count those under way, among 50 projects."""
        store = FakeObjectStore()
        for number in range(50):
            store.put(f"results/p{number:02}/d/r/args.json", b"")
        under_way = Gauge(store.folders)

        async def folders(prefix: str) -> Any:
            with under_way:
                await anyio.sleep(0.002)
            async for page in type(store).folders(store, prefix):
                yield page

        monkeypatch.setattr(store, "folders", folders)
        assert list(await list_projects(store, PATIENCE)) == [f"p{number:02}" for number in range(50)]
        assert under_way.most == LISTINGS_LIMIT

    async def test_a_failure_is_tried_again_and_told_in_the_end(self) -> None:
        """Goal: a hiccup costs nothing but time. Method: failures that pass, too many, and one that stays."""
        store = FakeObjectStore()
        store.put("results/p/d/r/args.json", b"")
        store.fail_next("folders", UNAVAILABLE, times=2)
        assert await list_projects(store, PATIENCE) == {"p": ["d"]}
        store.fail_next("folders", UNAVAILABLE, times=3)
        with pytest.raises(SyncError, match="503"):
            await list_projects(store, PATIENCE)
        for error in (
            SyncError("ask", "the bucket", "403", failure=Failure.PERMISSION),
            SyncError("ask", "the bucket", "429", failure=Failure.QUOTA, retry_after_seconds=600),
        ):
            asked = store.counts["folders"]
            store.fail_next("folders", error)
            with pytest.raises(SyncError, match=error.cause):
                await list_projects(store, PATIENCE)
            assert store.counts["folders"] == asked + 1
        assert store.faults_pending == 0


class Gauge:
    """How many are inside at the same time, at most."""

    def __init__(self, *_: object) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


class TestImages:
    async def test_images_are_where_pixaris_puts_them(self, tmp_path: Path) -> None:
        """Goal: the paths of Pixaris, sorted, and nothing beside them.

        Method: names with slashes, a folder's mark, files of the run, a run whose name begins alike.
        """
        store = FakeObjectStore(chunk_bytes=4)
        for name in ("b.png", "a b/ü%2F.png", "a-1.png", ".hidden.png", "empty.png"):
            store.put(IMAGES + name, b"" if name == "empty.png" else name.encode())
        for name in (
            IMAGES,
            f"{IMAGES}a b/",
            "results/p/d/run/args.json",
            IMAGES.replace("run", "run-2") + "x",
        ):
            store.put(name, b"other")

        paths = await load_images(store, PATIENCE, RUN, str(tmp_path))

        root = f"{tmp_path}/p/d/run/generated_images"
        names = (".hidden.png", "a b/ü%2F.png", "a-1.png", "b.png", "empty.png")
        assert paths == [f"{root}/{name}" for name in names]
        assert files_under(tmp_path) == {
            f"p/d/run/generated_images/{name}": b"" if name == "empty.png" else name.encode()
            for name in names
        }
        (tmp_path / "other").touch()
        assert len(modes_under(tmp_path)) == 1

    async def test_a_run_without_images_has_none(self, tmp_path: Path) -> None:
        """Goal: an empty list, and no folder. Method: a bucket with another run, and one with none."""
        for store in (FakeObjectStore(), bucket_with(1)):
            assert await load(store, tmp_path, RunKey("p", "d", "other")) == []
        assert not (tmp_path / "p").exists()

    async def test_only_what_is_missing_or_differs_is_loaded(self, tmp_path: Path) -> None:
        """Goal: half a file is not taken for whole, and a whole one is not loaded twice.

        Method: a second load after: nothing; a file cut, one of the same size changed, one deleted, one that
        is a broken link, one replaced in the bucket, one deleted there.
        """
        store = bucket_with(8)
        paths = await load(store, tmp_path)
        assert len(paths) == 8
        store.calls.clear()
        assert await load(store, tmp_path) == paths
        assert store.counts == {"list": 1}

        whole = files_under(tmp_path)
        files = [tmp_path / path for path in paths]
        files[0].write_bytes(whole[paths[0]][:5])
        files[1].write_bytes(b"x" * 10)
        files[2].unlink()
        files[3].unlink()
        files[3].symlink_to(tmp_path / "nowhere")
        store.put(f"results/{paths[4]}", b"new")
        del store.objects[f"results/{paths[5]}"]
        untouched = {path: (tmp_path / path).stat().st_ino for path in paths[6:]}
        store.calls.clear()

        assert await load(store, tmp_path) == paths[:5] + paths[6:]
        assert {call.name for call in store.calls if call.method == "download"} == {
            f"results/{path}" for path in paths[:5]
        }
        assert files_under(tmp_path) == whole | {paths[4]: b"new"}
        assert {path: (tmp_path / path).stat().st_ino for path in paths[6:]} == untouched

    async def test_names_that_lead_out_of_the_folder_are_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Goal: a bucket writes nowhere but into the folder. Method: such names, of images and of runs."""
        store = bucket_with(1)
        bad = [
            "../../../../../out.png",
            "a/../../out.png",
            "/etc/out.png",
            "a//b.png",
            "./b.png",
            "nul\0.png",
            "ü" * 128,
        ]
        for name in bad:
            store.put(IMAGES + name, b"bad")
        folder = tmp_path / "a" / "b"
        assert await load(store, folder) == ["p/d/run/generated_images/image_000.png"]
        assert len(files_under(tmp_path)) == 1
        assert len(caplog.records) == len(bad)
        assert "\0" not in caplog.text
        for run in (RunKey("..", "d", "run"), RunKey("", "d", "run"), RunKey("p", "d", "../../../run")):
            store.put(f"results/{run.project}/{run.dataset}/{run.run}/generated_images/a.png", b"bad")
            assert await load(store, folder, run) == []
        assert len(files_under(tmp_path)) == 1

    async def test_downloads_are_side_by_side_and_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: quick where each takes long, and no flood. Method: count those under way, among 100."""
        store, under_way, all_begun = bucket_with(100), Gauge(), anyio.Event()

        async def download(found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
            with under_way:
                # Until all that may be are under way, and a while longer, in which no other may begin.
                if under_way.most == IMAGES_LIMIT:
                    all_begun.set()
                with anyio.move_on_after(10):
                    await all_begun.wait()
                await anyio.sleep(0.005)
                await type(store).download(store, found, write)

        monkeypatch.setattr(store, "download", download)
        assert len(await load(store, tmp_path)) == 100
        assert under_way.most == IMAGES_LIMIT

    async def test_a_failure_is_tried_again(self, tmp_path: Path) -> None:
        """Goal: a hiccup costs time alone. Method: a listing fails, and downloads do, some half-way."""
        store = bucket_with(5)
        store.fail_next("list", UNAVAILABLE)
        store.fail_next("download", UNAVAILABLE, times=2)
        store.cut_download_next(times=2)
        assert len(await load(store, tmp_path)) == 5
        assert files_under(tmp_path) == {
            name.removeprefix("results/"): stored.content for name, stored in store.objects.items()
        }

    async def test_what_fails_in_the_end_leaves_whole_files_alone(self, tmp_path: Path) -> None:
        """Goal: no half file, no hidden one. Method: a download that is always cut; one denied."""
        store = bucket_with(5)
        image = tmp_path / "p/d/run/generated_images/image_003.png"
        image.parent.mkdir(parents=True)
        image.write_bytes(b"old")
        store.cut_download_next(times=100)
        with pytest.raises(SyncError, match="broke"):
            await load_images(store, PATIENCE, RUN, str(tmp_path))
        assert files_under(tmp_path) == {"p/d/run/generated_images/image_003.png": b"old"}

        denied = bucket_with(1)
        denied.fail_next("download", SyncError("download", "it", "403", failure=Failure.PERMISSION))
        with pytest.raises(SyncError, match="403"):
            await load_images(denied, PATIENCE, RUN, str(tmp_path))
        assert denied.counts["download"] == 1
        assert files_under(tmp_path) == {"p/d/run/generated_images/image_003.png": b"old"}

    async def test_what_changes_meanwhile_is_as_it_is_in_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: the result is the run at its end. Method: before its download, delete one and replace one."""
        store = bucket_with(3)
        deleted, replaced, last = sorted(store.objects)

        async def download(found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
            if found.name == deleted:
                store.objects.pop(deleted, None)
            if found.name == replaced and store.objects[replaced].content != b"new":
                store.put(replaced, b"new")
            await type(store).download(store, found, write)

        monkeypatch.setattr(store, "download", download)
        assert await load(store, tmp_path) == [name.removeprefix("results/") for name in (replaced, last)]
        assert files_under(tmp_path)[replaced.removeprefix("results/")] == b"new"
        assert len(files_under(tmp_path)) == 2

    async def test_a_bucket_that_tells_no_checksums_is_asked_for_them(self, tmp_path: Path) -> None:
        """Goal: files are compared under any key. Method: no checksums in listings, twice; then nowhere."""
        store = bucket_with(3)
        store.listings_without_checksums = True
        paths = await load(store, tmp_path)
        assert len(paths) == 3
        store.calls.clear()
        assert await load(store, tmp_path) == paths
        assert store.counts == {"list": 1, "stat": 3}
        store.stats_without_checksums = True
        assert await load(store, tmp_path) == paths
        assert store.counts["download"] == 3

    async def test_what_a_killed_loader_left_is_removed(self, tmp_path: Path) -> None:
        """Goal: kills leave nothing for ever, and loaders at work keep theirs.

        Method: a hidden folder that is held, one that is not, both with half a file.
        """
        run_folder = tmp_path / "p/d/run"
        run_folder.mkdir(parents=True)
        held, handle = make_hidden(run_folder, PREFIX)
        left, gone = make_hidden(run_folder, PREFIX)
        os.close(gone)
        for hidden in (held, left):
            (hidden / "0").write_bytes(b"half")
        assert len(await load(bucket_with(1), tmp_path)) == 1
        assert (held.exists(), left.exists()) == (True, False)
        os.close(handle)
        assert len(await load(bucket_with(1), tmp_path)) == 1
        assert [path.name for path in run_folder.glob("*")] == ["generated_images"]

    async def test_a_disk_that_refuses_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Goal: no retry, and no talk of the network. Method: a folder in the way; a full disk."""
        (tmp_path / "p/d/run/generated_images/image_000.png").mkdir(parents=True)
        with pytest.raises(LocalFileError, match=r"image_000\.png: Is a directory") as caught:
            await load_images(bucket_with(1), PATIENCE, RUN, str(tmp_path))
        assert caught.value.hint
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(LocalFileError, match="Not a directory"):
            await load_images(bucket_with(1), PATIENCE, RUN, str(tmp_path / "file"))

        async def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(anyio.AsyncFile, "write", full)
        store = bucket_with(1)
        with pytest.raises(LocalFileError, match="No space left on device"):
            await load_images(store, PATIENCE, RUN, str(tmp_path / "full"))
        assert store.counts["download"] == 1
        assert files_under(tmp_path / "full") == {}

    async def test_two_that_load_the_same_run_do_not_meet(self, tmp_path: Path) -> None:
        """Goal: a UI may ask twice. Method: two loads at the same time."""
        store, found = bucket_with(40), []

        async def one() -> None:
            found.append(await load_images(store, PATIENCE, RUN, str(tmp_path)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)
        assert len(found[0]) == 40
        assert found[0] == found[1]
        assert len(files_under(tmp_path)) == 40

    async def test_an_interrupted_load_leaves_nothing_hidden(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: Ctrl+C in a notebook is harmless. Method: cancel while downloads stand still."""
        store, begun = bucket_with(5), anyio.Event()

        async def download(_: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
            await write(b"half")
            begun.set()
            await anyio.sleep_forever()

        monkeypatch.setattr(store, "download", download)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load_images, store, PATIENCE, RUN, str(tmp_path))
            await begun.wait()
            tasks.cancel_scope.cancel()
        assert files_under(tmp_path) == {}


class Terminal:
    """A terminal, in the place of standard error."""

    encoding = "utf-8"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text = ""
        self.bar_seen = anyio.Event()
        self._loop = asyncio.get_running_loop()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", self)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        if "3 images" in self.text:
            self._loop.call_soon_threadsafe(self.bar_seen.set)
        return len(text)

    def flush(self) -> None: ...


class TestProgress:
    async def test_a_terminal_is_told_of_what_takes_long(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: a bar where somebody waits. Method: a load that ends when something was written."""
        monkeypatch.setattr(downloads, "QUIET_SECONDS", 0.0)
        store, terminal = bucket_with(3), Terminal(monkeypatch)

        async def download(found: RemoteObject, write: Callable[[bytes], Awaitable[object]]) -> None:
            await terminal.bar_seen.wait()
            await type(store).download(store, found, write)

        monkeypatch.setattr(store, "download", download)
        assert len(await load(store, tmp_path)) == 3

    async def test_a_quick_load_says_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Goal: silence. Method: a quick load on a terminal, whose time has not come."""
        monkeypatch.setattr(downloads, "QUIET_SECONDS", 60.0)
        terminal = Terminal(monkeypatch)
        assert len(await load(bucket_with(3), tmp_path)) == 3
        assert terminal.text == ""

    async def test_without_a_terminal_nothing_is_printed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Goal: logs stay clean. Method: a load whose time has come."""
        monkeypatch.setattr(downloads, "QUIET_SECONDS", 0.0)
        assert len(await load(bucket_with(3), tmp_path)) == 3
        assert capfd.readouterr() == ("", "")


class TestResults:
    async def test_a_missing_table_is_told_with_a_hint(self) -> None:
        """Goal: who mistypes a name learns it. Method: an empty dataset."""
        with pytest.raises(TableNotFoundError, match="p_d_experiment_results") as caught:
            await read_results(FakeRowSink(SystemClock()), PATIENCE, DatasetKey("p", "d"))
        assert caught.value.hint

    def test_a_failure_is_a_sync_error_and_a_runtime_error(self) -> None:
        """Goal: code for Pixaris and code for this package both catch it. Method: nobody answers."""
        settings = load_settings(
            {"sync_attempts_limit": 1},
            environ={
                "PIXARIS_SYNC_GCP_PROJECT_ID": "p",
                "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET": "p.d",
                "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": "b",
                "BIGQUERY_EMULATOR_HOST": "127.0.0.1:9",
            },
        )
        with pytest.raises(RuntimeError) as caught:
            results_of_dataset(settings, DatasetKey("p", "d"))
        assert isinstance(caught.value, ResultsUnreadableError)
        assert isinstance(caught.value, SyncError)
        assert caught.value.failure is Failure.TRANSIENT
        assert str(caught.value).startswith("cannot ")


def test_a_caller_that_has_a_loop_gets_its_answer(tmp_path: Path) -> None:
    """Goal: notebooks and web servers call it. Method: within a running loop, and in threads at once."""
    store = bucket_with(3)

    def blocking() -> list[str]:
        return run_anywhere(lambda: load_images(store, PATIENCE, RUN, str(tmp_path)))

    async def within() -> list[str]:
        return blocking()

    expected = asyncio.run(within())
    assert len(expected) == 3
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(blocking())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
