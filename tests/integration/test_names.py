"""Names that folder, record and cloud spell differently, through the real command and real Pixaris."""

import json
import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixaris_sync.model import RunKey
from tests.integration.cloud import Cloud
from tests.support.command_line import CommandLine
from tests.support.stored_runs import (
    DATASET,
    PROJECT,
    TRACKING_FILE,
    Reader,
    StoredRun,
    append_line,
    picture,
    store_run,
)

_NOTHING_IS_YOUNG = ("--young-file-seconds", "0", "--incomplete-after-seconds", "0")
_FLOW = {"of": "the first versions"}


def _store_as_first_versions_did(
    results: Path,
    stamp: str,
    name: str,
    *,
    images: str,
    shade: int = 1,
    args: Mapping[str, Any] | None = None,
) -> RunKey:
    """Leave a run as LocalExperimentHandler of pixaris 0.1.0 (``images``) and 0.2.0 do; its key in the cloud.

    The record has the name that was given, the folder the time before it.
    """
    dataset = results / PROJECT / DATASET
    folder = dataset / f"{stamp}_{name}"
    (folder / images).mkdir(parents=True)
    picture(shade).save(folder / images / "image_0.png")
    picture(shade + 1).save(folder / "input.png")
    (folder / "flow.json").write_text(json.dumps(_FLOW))
    record = {
        "timestamp": stamp,
        "experiment_run_name": name,
        "input": str(folder / "input.png"),
        "flow": str(folder / "flow.json"),
        **(args or {}),
        "score": shade,
    }
    (folder / "args.json").write_text(json.dumps(record))
    append_line(dataset / TRACKING_FILE, json.dumps(record) + "\n")
    return RunKey(PROJECT, DATASET, folder.relative_to(dataset).as_posix())


def _check_whole(pixaris: Reader, cloud: Cloud, runs: Mapping[RunKey, int], scratch: Path) -> None:
    """Pixaris finds runs' images, one of that shade each, and saved files by the names of their rows."""
    rows, objects = pixaris.frame().set_index("experiment_run_name"), pixaris.objects()
    for run, shade in runs.items():
        for key, file in {"input": "input.png", "flow": "flow.json"}.items():
            place = f"{cloud.bucket}/results/{run}/{file}?project={cloud.project}"
            assert (
                rows.loc[run.run][key] == f"https://console.cloud.google.com/storage/browser/_details/{place}"
            )
            assert f"results/{run}/{file}" in objects
        [image] = pixaris.images(run, scratch / "downloads").values()
        assert image.tobytes() == picture(shade).tobytes()


@pytest.mark.large
def test_line_13_runs_of_the_first_versions_are_carried(
    command_line: CommandLine, pixaris: Reader, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: what pixaris 0.1.0 and 0.2.0 stored is read by today's, and each record is one row for ever.

    Method: runs as these versions leave them, three of one name, one with a slash, one whose record has lost
    its time, beside a run of today's; dry run, sync, verify, a lost ledger, sync again, an object removed,
    repair.
    """
    folder = command_line.folder
    first = [
        _store_as_first_versions_did(folder, "20250101-100000", "r0", images="images", shade=1),
        _store_as_first_versions_did(folder, "20250101-100007", "r0", images="images", shade=3),
        _store_as_first_versions_did(folder, "20250201-100000", "r0", images="generated_images", shade=5),
        _store_as_first_versions_did(folder, "20250201-100001", "hs-x/y-0", images="images", shade=7),
        _store_as_first_versions_did(
            folder, "20250201-100002", "r0", images="images", shade=9, args={"timestamp": "noon"}
        ),
    ]
    today = store_run(folder, "r0")
    names = sorted([*(run.run for run in first), today.name])

    plan = command_line.run("backfill", "--dry-run", "--json").document
    document = command_line.sync(*_NOTHING_IS_YOUNG)

    assert (plan["rows"], plan["files"]) == (6, 3 * 5 + 1)
    assert document["problems"] == []
    assert pixaris.runs() == names
    _check_whole(pixaris, cloud, dict(zip(first, range(1, 10, 2), strict=True)), tmp_path)
    before = pixaris.objects()
    command_line.forget_ledger()
    assert command_line.sync()["rows_synced"] == 6
    assert (pixaris.runs(), pixaris.objects()) == (names, before)
    gone = f"results/{first[0]}/generated_images/image_0.png"
    pixaris.delete(gone)
    assert command_line.run("sync", "--repair").code == 0
    assert pixaris.objects()[gone][0] == before[gone][0]
    assert command_line.run("verify").code == 0
    assert pixaris.runs() == names


def test_line_13_a_record_that_may_be_of_several_folders_is_quarantined_with_their_names(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: nothing is guessed, and the hint works.

    Method: a record without its time, and two folders of its name with no args.json; write the right name
    into the line, as the cause says.
    """
    folder = command_line.folder
    runs = [
        _store_as_first_versions_did(folder, f"20250101-10000{second}", "r0", images="images")
        for second in range(2)
    ]
    tracking = folder / PROJECT / DATASET / TRACKING_FILE
    for run in runs:
        (folder / str(run) / "args.json").unlink()
    [record] = [json.loads(line) for line in tracking.read_text().splitlines()][1:]
    del record["timestamp"]
    tracking.write_text(json.dumps(record) + "\n")

    # The folders are young: their lines may be to come.
    [problem] = command_line.sync(expect=5)["problems"]

    assert problem["run"] == f"{PROJECT}/{DATASET}/{TRACKING_FILE}:1"
    assert all(run.run in problem["cause"] for run in runs)
    assert pixaris.runs() == []
    tracking.write_text(json.dumps({**record, "experiment_run_name": runs[1].run}) + "\n")
    assert command_line.sync(*_NOTHING_IS_YOUNG, expect=3)["runs"]["quarantined"] == 0
    assert pixaris.runs() == [runs[1].run]


def test_line_13_a_run_that_was_put_back_is_found_by_a_retry(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: a run that was taken for another one is not lost, as an older program left it. The hint works.

    Method: a record without its time whose folder is away: its run "does not exist". Put it back, retry,
    sync.
    """
    folder = command_line.folder
    run = _store_as_first_versions_did(
        folder, "20250101-100000", "r0", images="images", args={"timestamp": "noon"}
    )
    aside = folder.parent / "aside"
    (folder / str(run)).rename(aside)
    [problem] = command_line.sync(expect=3)["problems"]
    assert problem["run"] == f"{PROJECT}/{DATASET}/r0"
    assert "it does not exist" in problem["cause"]
    aside.rename(folder / str(run))

    assert command_line.run("retry", "--all").code == 0

    document = command_line.sync()
    assert (document["problems"], document["runs"]["synced"]) == ([], 1)
    assert pixaris.runs() == [run.run]


def test_line_16_names_with_slashes_and_backslashes(
    command_line: CommandLine, pixaris: Reader, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: what the cloud can hold is carried and read by Pixaris; what it cannot is named, not passed over.

    Method: the real LocalExperimentHandler stores runs, a dataset and a project with slashes and backslashes.
    Runs arrive, once; each dataset is told with its path, and stays so after a restart; in a copy with other
    names, as the hint says, all is carried. A run folder without a record shows below a slash too.
    """
    folder = command_line.folder
    args = {"input": picture(5), "flow": _FLOW}
    stored = [
        store_run(folder, name, args=args)
        for name in ("stabilityai/sdxl-turbo", "a/b/c", "back\\slash", "plain")
    ]
    below = store_run(folder, "cats", dataset="animals/cats")
    team = store_run(folder, "hat", project="team/shop")
    back = store_run(folder, "back", dataset="a\\b")
    unfinished = folder / PROJECT / DATASET / "20250101-000000_org" / "model"
    (unfinished / "generated_images").mkdir(parents=True)

    document = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)

    problems = {problem["run"]: problem for problem in document["problems"]}
    assert problems.keys() == {
        f"{PROJECT}/animals/cats",
        f"team/shop/{DATASET}",
        str(back.key),
        f"{PROJECT}/{DATASET}/20250101-000000_org/model",
    }
    for name in (f"{PROJECT}/animals/cats", f"team/shop/{DATASET}"):
        assert problems[name]["state"] == "quarantined"
        assert "slash" in problems[name]["cause"]
    assert "contains '\\\\'" in problems[str(back.key)]["cause"]
    assert pixaris.runs() == sorted(run.name for run in stored)
    _check_whole(pixaris, cloud, {run.key: 0 for run in stored}, tmp_path)
    assert {problem["run"] for problem in command_line.status()["problems"]} == problems.keys()
    before = pixaris.objects()
    command_line.forget_ledger()
    again = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)
    assert (again["files_uploaded"], pixaris.objects()) == (0, before)
    assert pixaris.runs() == sorted(run.name for run in stored)
    _carry_in_a_copy(command_line, cloud, tmp_path / "copy", [below, team])
    assert pixaris.runs("copied", "cats") == [below.name]
    assert pixaris.runs("copied", DATASET) == [team.name]


def _carry_in_a_copy(command_line: CommandLine, cloud: Cloud, copy: Path, runs: list[StoredRun]) -> None:
    """Copy datasets to names without a slash, and sync that."""
    for run in runs:
        place = run.tracking.parent
        shutil.copytree(place, copy / "copied" / place.name)
    assert CommandLine(copy, command_line.state_dir, cloud.environment).sync()["problems"] == []


def test_line_18_folders_from_a_mac_are_found(
    command_line: CommandLine, pixaris: Reader, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: one name, however its letters are put together, and Pixaris finds the run by its row's name.

    Method: runs and args of composed letters, whose folders and files are then taken apart; one run has both
    spellings side by side. Also a project taken apart: it keeps its folder's name, and is told of.
    """
    folder = command_line.folder
    args = {"input": picture(5), "flow": _FLOW, "größe": {"à": 1}, "maß": picture(6)}
    runs = [store_run(folder, name, args=args) for name in ("café", "Zoë/日本が")]
    both = store_run(folder, "naïve", args=args)
    _rename_all(folder / PROJECT / DATASET, but=both.folder)
    spelled = unicodedata.normalize("NFD", both.name)
    _save(picture(40), folder / PROJECT / DATASET / spelled / "generated_images" / "image_0.png")
    project = unicodedata.normalize("NFD", "çà")
    elsewhere = store_run(folder, "run", project=project)

    document = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)

    stray, *notices = sorted(document["problems"], key=lambda problem: problem["state"])
    assert (stray["run"], stray["state"]) == (f"{PROJECT}/{DATASET}/{spelled}", "incomplete")
    assert [notice["run"] for notice in notices] == [f"{project}/{DATASET}"]
    names = sorted([both.name, *(run.name for run in runs)])
    assert pixaris.runs() == names
    _check_whole(pixaris, cloud, {run.key: 0 for run in (*runs, both)}, tmp_path)
    for run in (*runs, both):
        objects = pixaris.objects(f"results/{run.key}/")
        assert {f"results/{run.key}/größe.json", f"results/{run.key}/maß.png"} <= objects.keys()
    assert pixaris.handler.load_projects_and_datasets() == {PROJECT: [DATASET], project: [DATASET]}
    assert pixaris.runs(project) == [elsewhere.name]
    shutil.rmtree(folder / PROJECT / DATASET / spelled)
    command_line.forget_ledger()
    assert command_line.sync()["files_uploaded"] == 0
    assert pixaris.runs() == names
    assert command_line.run("verify").code == 0


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True)
    image.save(path)


def _rename_all(top: Path, *, but: Path) -> None:
    """Take the letters of all files' and folders' names apart, as HFS+ does, the deepest first."""
    for path in sorted(top.rglob("*"), key=lambda path: -len(path.parts)):
        name = unicodedata.normalize("NFD", path.name)
        if name != path.name and path != but:
            path.rename(path.with_name(name))
