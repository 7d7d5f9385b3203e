"""Which ledger is that of a folder and a destination: moved, mounted, replaced, restored, spelled anew."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.ledger import datasets, finder, intake
from pixaris_sync.ledger.database import Ledger, get_fact, set_fact
from pixaris_sync.ledger.finder import HOME, FoundLedger, Home, home_in, remember_home
from pixaris_sync.ledger.rescue import work_with
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.sources import load_settings
from tests.support.ledgers import NOW, RUN, SHOES, found_run, record, tail

DESTINATION = {
    "gcp_project_id": "project",
    "gcp_bq_experiment_dataset": "project.dataset",
    "gcp_pixaris_bucket_name": "bucket",
}
OTHER_RUN = "20250101-000001_y"


class Place:
    """A state folder, and results folders beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self._now = NOW

    def folder(self, name: str = "results", run: str | None = RUN) -> Path:
        """A results folder that holds a run."""
        folder = self.root / name
        folder.mkdir()
        if run is not None:
            (folder / SHOES.project / SHOES.dataset / run / "generated_images").mkdir(parents=True)
        return folder

    def settings(self, folder: Path | str, **changed: str) -> Settings:
        folders = {"local_results_folder": str(folder), "state_dir": str(self.state)}
        return load_settings({**DESTINATION, **changed, **folders}, environ={})

    def found(self, folder: Path | str, **changed: str) -> FoundLedger:
        return found_ledger(self.settings(folder, **changed))

    def path(self, folder: Path | str, **changed: str) -> Path:
        return self.found(folder, **changed).path

    def work(self, folder: Path, *runs: str, **changed: str) -> FoundLedger:
        """Own the folder for a moment, and take in runs of it; what was found."""
        found = self.found(folder, **changed)
        self._now += 1

        def work(ledger: Ledger) -> None:
            ledger.write(partial(remember_home, home=found.home, now=self._now))
            for run in runs:
                ledger.write(partial(_take, run=run))

        work_with(found.path, work)
        return found


def _take(db: Any, run: str) -> None:
    known = datasets.open_dataset(db, NOW, SHOES, "table")
    intake.take_in(db, NOW, known.id, tail([record(run)]), [found_run(record(run), name=run)])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def change_home(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Let a ledger say something else of its home; nothing at all for None."""
    ledger = Ledger.open(path)
    changed = change(json.loads(ledger.read(partial(get_fact, name=HOME)) or "{}"))
    if changed is None:
        ledger.write(lambda db: db.execute("DELETE FROM facts WHERE name = ?", (HOME,)).rowcount)
    else:
        ledger.write(partial(set_fact, name=HOME, value=json.dumps(changed)))
    ledger.close()


def test_every_folder_and_destination_has_its_own_ledger(place: Place) -> None:
    """Goal: nothing is mixed up. Method: each part of the identity is another one; before and after work."""
    folder, other = place.folder(), place.folder("other")
    variations: list[tuple[Path, dict[str, str]]] = [
        (folder, {}),
        (other, {}),
        (folder, {"gcp_bq_experiment_dataset": "project.other"}),
        (folder, {"gcp_bq_experiment_dataset": "other.dataset"}),
        (folder, {"gcp_pixaris_bucket_name": "other"}),
        (folder, {"storage_emulator_host": "http://x"}),
        (folder, {"bigquery_emulator_host": "http://x"}),
    ]
    before = [place.path(folder, **changed) for folder, changed in variations]
    assert not place.state.exists()
    for folder, changed in variations:
        place.work(folder, RUN, **changed)

    assert len(set(before)) == len(variations)
    assert [place.path(folder, **changed) for folder, changed in variations] == before
    assert sorted(place.state.glob("*.sqlite3")) == sorted(before)


def test_a_folder_has_one_ledger_however_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a relative path or a link is the same folder. Method: three spellings of one."""
    monkeypatch.chdir(place.root)
    folder = place.folder("local results é")
    (place.root / "link").symlink_to(folder)

    [path] = {place.path(spelling) for spelling in ("local results é", str(folder), "link")}

    assert path.name.startswith("local-results--")
    assert path.suffix == ".sqlite3"


@pytest.mark.parametrize("worked", [False, True])
def test_a_destination_has_one_ledger_however_it_is_written(place: Place, *, worked: bool) -> None:
    """Goal: neither who pays nor a spelling makes another one. Method: spellings, before and after work."""
    folder, emulator = place.folder(), "http://127.0.0.1:1234"
    if worked:
        place.work(folder, RUN)
        place.work(folder, RUN, storage_emulator_host=emulator)
    path, emulated = place.path(folder), place.path(folder, storage_emulator_host=emulator)

    assert place.path(folder, gcp_bq_experiment_dataset="dataset") == path
    assert place.path(folder, gcp_project_id="corrected") == path
    assert place.path(folder, gcp_project_id="corrected", gcp_bq_experiment_dataset="dataset") != path
    assert place.path(folder, storage_emulator_host="127.0.0.1:1234/") == emulated != path


def test_a_folder_that_was_moved_finds_its_ledger_and_another_in_its_place_gets_its_own(place: Place) -> None:
    """Goal: a ledger goes with its folder. Method: move it, put another there, move both; told once."""
    folder = place.folder()
    first = place.work(folder, RUN)
    moved = folder.rename(place.root / "moved")
    # Where nothing is now, its ledger can be asked, as that of a disk that is not mounted.
    assert place.path(folder) == first.path
    another = place.folder(run=OTHER_RUN)

    second = place.work(another, OTHER_RUN)
    assert (second.left, second.moved_from) == (first.path, None)
    found = place.work(moved, RUN)
    assert (found.path, found.moved_from, found.left) == (first.path, str(folder), None)
    for asked, path in ((moved, first.path), (another, second.path)):
        again = place.work(asked)
        assert (again.path, again.moved_from, again.left) == (path, None, None)

    another.rename(place.root / "another")
    moved.rename(folder)
    assert place.work(folder).path == first.path
    assert place.work(place.root / "another").path == second.path
    assert len(list(place.state.glob("*.sqlite3"))) == 2


def test_folders_that_change_places_keep_their_ledgers(place: Place) -> None:
    """Goal: the path alone decides nothing. Method: swap the names of two."""
    one, other = place.folder("one"), place.folder("other", OTHER_RUN)
    ledgers = [place.work(one, RUN).path, place.work(other, OTHER_RUN).path]
    one.rename(place.root / "aside")
    other.rename(one)
    (place.root / "aside").rename(other)

    assert [place.path(other), place.path(one)] == ledgers
    assert [place.work(other).path, place.work(one).path] == ledgers


@pytest.mark.parametrize("runs", [(), (RUN,)], ids=["no run is known yet", "its run is there"])
def test_a_disk_that_is_numbered_anew_or_restored_keeps_its_ledger(
    place: Place, runs: tuple[str, ...]
) -> None:
    """Goal: neither number lasts. Method: another device in the ledger; the folder as a copy of itself."""
    folder = place.folder()
    path = place.work(folder, *runs).path
    change_home(path, lambda home: {**home, "device": home["device"] + 1})
    assert place.path(folder) == path

    place.work(folder)
    shutil.copytree(folder, place.root / "backup")
    folder.rename(place.root / "lost")
    shutil.copytree(place.root / "backup", folder)
    found = place.work(folder)
    assert (found.path, found.moved_from, found.left) == (path, None, None)


def test_a_disk_finds_its_ledger_though_its_mount_point_was_worked_with(place: Place) -> None:
    """Goal: a start before the disk is mounted costs nothing. Method: work with the empty folder below it."""
    disk = place.folder()
    first = place.work(disk, RUN)
    unmounted = disk.rename(place.root / "unmounted")
    point = place.folder(run=None)
    found = place.work(point)
    assert (found.path, found.left, found.home.inode) == (first.path, None, first.home.inode)
    # It is mounted, and has another number now.
    point.rename(place.root / "below")
    unmounted.rename(disk)
    change_home(first.path, lambda home: {**home, "device": home["device"] + 1})

    found = place.work(disk)
    assert (found.path, found.left) == (first.path, None)


def test_a_copy_of_a_folder_gets_its_own(place: Place) -> None:
    """Goal: two folders that are worked with have two ledgers. Method: ask for a copy of one."""
    folder = place.folder()
    path = place.work(folder, RUN).path
    shutil.copytree(folder, place.root / "copy")
    assert place.path(place.root / "copy") != path
    assert place.path(folder) == path


def test_numbers_that_are_used_again_are_no_folder_that_was_moved(place: Place) -> None:
    """Goal: inodes and devices come back. Method: their ledger knows no run of the folder, or none at all."""
    folder, other = place.folder(), place.folder("other", OTHER_RUN)
    status = other.stat()
    for runs in ((), (RUN,)):
        path = place.work(folder, *runs).path
        change_home(path, lambda home: {**home, "device": status.st_dev, "inode": status.st_ino})
        found = place.found(other)
        assert found.path != path
        assert found.moved_from is None


def test_of_two_ledgers_that_a_moved_folder_may_have_it_takes_none(place: Place) -> None:
    """Goal: no guess. Method: both say that they are of this folder; then it goes on with its new one."""
    folders = [place.folder(name) for name in ("one", "two")]
    ledgers = [place.work(folder, RUN).path for folder in folders]
    status = folders[0].stat()
    change_home(ledgers[1], lambda home: {**home, "device": status.st_dev, "inode": status.st_ino})
    moved = folders[0].rename(place.root / "moved")

    found = place.work(moved, RUN)

    assert found.path not in ledgers
    assert place.path(moved) == found.path


def test_of_copies_of_a_ledger_the_one_that_was_worked_with_last_goes_on(place: Place) -> None:
    """Goal: a backup in the state folder does not take over. Method: a copy that sorts first."""
    folder = place.folder()
    path = place.work(folder, RUN).path
    moved = folder.rename(place.root / "moved")
    place.work(moved)
    shutil.copy(path, place.state / "a backup.sqlite3")
    change_home(path, lambda home: {**home, "owned_at": home["owned_at"] + 1})

    assert place.work(moved).path == path
    assert place.path(moved) == path


@pytest.mark.parametrize(("dataset", "project"), [("project.dataset", "another"), ("dataset", "payer")])
def test_a_ledger_of_an_older_version_is_found_by_its_name(place: Place, dataset: str, project: str) -> None:
    """Goal: an upgrade forgets nothing. Method: the name as it was given then, and no word of a home."""
    folder = place.folder()
    spelled = {"gcp_project_id": "payer", "gcp_bq_experiment_dataset": dataset}
    identity = "\0".join([str(folder), "payer", dataset, "bucket", "", ""])
    old = place.state / f"results-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.sqlite3"
    place.work(folder, RUN, **spelled).path.rename(old)
    change_home(old, lambda _: None)

    assert place.work(folder, **spelled).path == old
    # From then on it is found by what it says.
    found = place.found(folder.rename(place.root / "moved"), **{**spelled, "gcp_project_id": project})
    assert (found.path, found.moved_from) == (old, str(folder))


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, b'{"destination": 7}'])
def test_a_ledger_that_cannot_be_asked_is_found_by_its_name(place: Place, content: bytes) -> None:
    """Goal: damage is told of and mended at its place. Method: rubbish in its place, or as its home."""
    folder = place.folder()
    path = place.work(folder, RUN).path
    if content.startswith(b"{"):
        change_home(path, lambda _: json.loads(content))
    else:
        path.write_bytes(content)

    assert place.path(folder) == path


def test_a_second_ledger_for_a_path_is_found_by_its_name_too(place: Place) -> None:
    """Goal: as above. Method: the first name is taken by the folder that was moved; the second is damaged."""
    place.work(place.folder(), RUN)
    place.work((place.root / "results").rename(place.root / "moved"))
    folder = place.folder(run=OTHER_RUN)
    path = place.work(folder, OTHER_RUN).path
    path.write_bytes(b"no database" * 1000)

    assert place.path(folder) == path


def test_a_ledger_whose_runs_are_damaged_is_found_where_it_belongs(place: Place) -> None:
    """Goal: as above. Method: its home can be read, its runs cannot; the folder is another one meanwhile."""
    folder = place.folder()
    path = place.work(folder, RUN).path
    ledger = Ledger.open(path)
    ledger._connection.execute("PRAGMA foreign_keys = OFF")
    ledger.write(lambda db: db.execute("DROP TABLE datasets").rowcount)
    ledger.close()
    folder.rename(place.root / "moved")

    assert place.path(place.folder()) == path


def test_asking_leaves_no_trace_and_sees_what_a_running_process_has_written(place: Place) -> None:
    """Goal: any command may ask at any time. Method: list the folder around it; while one has it open."""
    folder = place.folder()
    first = place.work(folder, RUN)
    moved = folder.rename(place.root / "moved")
    before = {file: file.stat().st_mtime_ns for file in (place.state, *place.state.iterdir())}
    found = place.found(moved)
    assert {file: file.stat().st_mtime_ns for file in (place.state, *place.state.iterdir())} == before

    ledger = Ledger.open(first.path)
    ledger.write(partial(remember_home, home=found.home, now=NOW))
    assert place.found(moved).moved_from is None
    ledger.close()


def test_a_shard_finds_its_own_ledger_and_opens_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a shard reads nothing that others write. Method: ledgers of all kinds, and who is opened."""
    folder = place.folder()
    settings = place.settings(folder)
    shards = [None, Shard(1, 2), Shard(2, 2), Shard(1, 12)]
    paths = [found_ledger(settings, shard).path for shard in shards]
    assert len(set(paths)) == len(shards)
    for shard in shards:
        found = found_ledger(settings, shard)
        ledger = Ledger.open(found.path)
        ledger.write(partial(remember_home, home=found.home, now=NOW))
        ledger.close()
    opened: list[Path] = []

    def noting(path: Path) -> Home | None:
        opened.append(path)
        return home_in(path)

    monkeypatch.setattr(finder, "home_in", noting)
    for shard, path in zip(shards, paths, strict=True):
        opened.clear()
        assert found_ledger(settings, shard).path == path
        assert opened == [path]
