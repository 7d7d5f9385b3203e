"""Which folder a record's run has: the time, the disk and args.json say so."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.local.run_names import placed
from pixaris_sync.local.safe_open import MissingFileError, opened_file, opened_folder, opened_run
from pixaris_sync.model import DamagedLine, DatasetKey, RunKey, TrackingRecord
from pixaris_sync.rules.contract import parse_record

DATASET = DatasetKey("shop", "shoes")
FIRST, SECOND = "20250101-100000", "20250101-100001"
TRACKING = "experiment_tracking.jsonl"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / DATASET.project / DATASET.dataset
    folder.mkdir(parents=True)
    return folder


def root(dataset: Path) -> Path:
    return dataset.parents[1]


def record(name: str, **values: Any) -> TrackingRecord:
    return parse_record(DATASET, {"timestamp": FIRST, "experiment_run_name": name, **values}, 1)


def place(dataset: Path, found: TrackingRecord) -> str | None:
    """The name that a record's run gets; None where nothing tells it."""
    told = placed(root(dataset), found, args_bytes_max=1000)
    if isinstance(told, DamagedLine):
        assert told.digest != found.digest
        return None
    assert told.digest == found.digest
    assert told.values["experiment_run_name"] == told.run.run
    return told.run.run


@pytest.mark.parametrize(
    ("folders", "name", "values", "expected"),
    [
        ([f"{FIRST}_r0"], f"{FIRST}_r0", {}, f"{FIRST}_r0"),
        ([f"{FIRST}_r0"], "r0", {}, f"{FIRST}_r0"),
        ([f"{FIRST}_r0", f"{SECOND}_r0", "r0"], "r0", {}, f"{FIRST}_r0"),
        ([f"{FIRST}_a/b"], "a/b", {}, f"{FIRST}_a/b"),
        ([f"{FIRST}_{SECOND}_r0"], f"{SECOND}_r0", {}, f"{FIRST}_{SECOND}_r0"),
        ([f"{SECOND}_r0"], f"{SECOND}_r0", {}, f"{SECOND}_r0"),
        (["r0"], "r0", {}, "r0"),
        ([], "r0", {}, f"{FIRST}_r0"),
        ([f"{SECOND}_r0"], "r0", {}, f"{FIRST}_r0"),
        ([], f"{SECOND}_r0", {}, f"{SECOND}_r0"),
        ([], "r0", {"timestamp": "noon"}, "r0"),
        ([f"{SECOND}_r1"], "r0", {"timestamp": 5}, "r0"),
        ([f"{SECOND}_r0"], "r0", {"timestamp": "noon"}, None),
    ],
)
def test_the_time_and_the_disk_tell_the_folder(
    dataset: Path, folders: list[str], name: str, values: dict[str, Any], expected: str | None
) -> None:
    """Goal: the folder with the record's own time comes first, and is waited for. Method: cases by name."""
    for folder in folders:
        (dataset / folder).mkdir(parents=True)
    assert place(dataset, record(name, **values)) == expected


def test_args_json_tells_the_folder_where_the_time_does_not(dataset: Path) -> None:
    """Goal: nothing is guessed. Method: folders with it, with another one, with none; then two."""
    found = record("r0", timestamp="noon", score=1)
    for stamp, values in ((FIRST, {**found.values, "score": 2}), (SECOND, dict(found.values))):
        (dataset / f"{stamp}_r0").mkdir()
        (dataset / f"{stamp}_r0" / "args.json").write_text(json.dumps(values))
    (dataset / "20250101-100002_r0").mkdir()
    assert place(dataset, found) == f"{SECOND}_r0"
    (dataset / f"{FIRST}_r0" / "args.json").write_text(json.dumps(found.values))
    told = placed(root(dataset), found, args_bytes_max=1000)
    assert isinstance(told, DamagedLine)
    assert f"{FIRST}_r0, {SECOND}_r0, 20250101-100002_r0" in told.cause


def test_a_damaged_line_of_the_first_versions_is_recovered(dataset: Path) -> None:
    """Goal: recovery knows these runs too, once. Method: cut one of three lines, whose args.json is whole."""
    lines = []
    for number in range(3):
        values = {"timestamp": f"20250101-10000{number}", "experiment_run_name": "r0", "score": number}
        lines.append(json.dumps(values))
        folder = dataset / f"20250101-10000{number}_r0"
        folder.mkdir()
        (folder / "args.json").write_text(lines[-1])
    (dataset / TRACKING).write_text("\n".join([lines[0], lines[1][:60], lines[2], ""]))

    tail = LocalResults(root(dataset), TRACKING).tail(DATASET, None, bytes_limit=1 << 20)

    assert tail is not None
    assert tail.damaged == ()
    assert [found.run.run for found in tail.records] == [f"20250101-10000{number}_r0" for number in range(3)]
    assert tail.records[1].digest == parse_record(DATASET, json.loads(lines[1]), 2).digest


def test_entries_are_found_by_either_form_of_their_letters(dataset: Path) -> None:
    """Goal: the exact name wins, else the only one that equals it. Method: each form, both, and none."""
    composed, apart = (unicodedata.normalize(form, "größe ộ") for form in ("NFC", "NFD"))
    mixed = "größe " + unicodedata.normalize("NFD", "ộ")
    for there, asked in ((apart, composed), (composed, apart), (mixed, composed), (mixed, apart)):
        (dataset / there).mkdir()
        (dataset / there / f"{there}.json").write_text(there)
        with (
            opened_run(root(dataset), RunKey("shop", "shoes", asked)) as folder,
            opened_file(folder, f"{asked}.json", subject="x") as (_, status),
        ):
            assert status.st_ino == (dataset / there / f"{there}.json").stat().st_ino
        (dataset / there / f"{there}.json").unlink()
        (dataset / there).rmdir()
    for name in (composed, apart):
        (dataset / name).mkdir()
        with opened_folder(root(dataset), ("shop", "shoes", name)) as folder:
            assert (dataset / name).samefile(f"/proc/self/fd/{folder}")
    with pytest.raises(MissingFileError), opened_folder(root(dataset), ("shop", "shoes", mixed)):
        pass


def test_each_part_of_a_name_is_opened_without_following_links(dataset: Path, tmp_path: Path) -> None:
    """Goal: names with slashes lead nowhere else. Method: links as each part, odd parts, one taken apart."""
    (dataset / "a" / "b").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    (dataset / "link").symlink_to(outside)
    (dataset / "a" / "link").symlink_to(outside)
    (dataset / unicodedata.normalize("NFD", "é")).symlink_to(outside)
    with opened_run(root(dataset), RunKey("shop", "shoes", "a\\b")) as folder:
        assert (dataset / "a" / "b").samefile(f"/proc/self/fd/{folder}")
    for name in (
        "link/b",
        "a/link",
        "a/link/b",
        "é",
        "é/b",
        "a/../a",
        "a//b",
        "/a",
        "a/.",
        "..\\..\\outside",
    ):
        with (
            pytest.raises(LocalFileError) as refused,
            opened_run(root(dataset), RunKey("shop", "shoes", name)),
        ):
            pass
        assert "it does not exist" not in refused.value.cause, name


def test_folders_that_no_record_names_are_found_behind_slashes_too(dataset: Path) -> None:
    """Goal: unfinished runs show by their names, known ones do not. Method: nested ones, both spellings."""
    apart = unicodedata.normalize("NFD", f"{FIRST}_é")
    every = [f"{FIRST}_org/model", f"{FIRST}_org/other", f"{FIRST}_plain", apart, f"{SECOND}_a/b/c"]
    for name in (*every, "stray"):
        (dataset / name / "generated_images").mkdir(parents=True)
    results = LocalResults(root(dataset), TRACKING)

    def unnamed(*named: str) -> list[str]:
        return [folder.name for folder in results.unnamed_folders(DATASET, set(named))]

    assert sorted(unnamed()) == sorted(every)
    assert sorted(unnamed(f"{FIRST}_org/model", f"{SECOND}_a\\b/c")) == sorted(
        [f"{FIRST}_org/other", f"{FIRST}_plain", apart]
    )
    composed = unicodedata.normalize("NFC", apart)
    assert apart not in unnamed(composed)
    (dataset / composed).mkdir()
    assert apart in unnamed(composed)


def test_datasets_too_deep_are_problems_also_those_that_come_later(dataset: Path) -> None:
    """Goal: nothing is passed over. Method: tracking files at all depths, before and after a first look."""
    results = LocalResults(root(dataset), TRACKING)
    below = dataset / "cats" / "small"
    below.mkdir(parents=True)
    hidden = [dataset / ".git" / "x", dataset / "feedback_iterations" / "x", dataset / f"{FIRST}_run" / "x"]
    for folder in hidden:
        folder.mkdir(parents=True)
        (folder / TRACKING).touch()
    assert results.datasets().problems == ()
    for folder in (dataset, dataset / "cats", below):
        (folder / TRACKING).touch()
    found = results.datasets()
    assert found.keys == (DATASET,)
    assert [problem.subject for problem in found.problems] == ["shop/shoes/cats", "shop/shoes/cats/small"]
    assert all("slash" in problem.cause and problem.hint for problem in found.problems)
