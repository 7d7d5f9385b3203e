"""Results that were renamed or copied before they were synced: their records name the old places."""

import shutil
from pathlib import Path

from pixaris_sync.model import RunKey
from pixaris_sync.rules.contract import RESERVED_PROJECT
from tests.integration.cloud import Cloud
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, picture, store_run

_SAVED = {"flow": "flow.json", "input": "input.png"}


def _store(folder: Path, project: str, dataset: str) -> str:
    args = {"flow": {"of": f"{project}/{dataset}"}, "input": picture(7), "steps": 20}
    return store_run(folder, project=project, dataset=dataset, args=args).name


def _check(pixaris: Reader, cloud: Cloud, run: RunKey) -> None:
    """All of a run is there under its new name: images, saved args, and links in the cells of those."""
    prefix = f"results/{run}"
    names = ("generated_images/image_0.png", *_SAVED.values())
    assert set(pixaris.objects(f"{prefix}/")) == {f"{prefix}/{name}" for name in names}
    row = pixaris.frame(run.project, run.dataset).set_index("experiment_run_name").loc[run.run]
    for key, name in _SAVED.items():
        link = f"https://console.cloud.google.com/storage/browser/_details/{cloud.bucket}/{prefix}/{name}"
        assert row[key] == f"{link}?project={cloud.project}"


def test_saved_args_go_with_the_folder_that_holds_them(
    command_line: CommandLine, pixaris: Reader, cloud: Cloud
) -> None:
    """Goal: nothing is left behind in silence, whatever was renamed.

    Method: rename a dataset, rename a project, copy a dataset; one pass. Files are there under the new names,
    the cells are links to them, and `verify` agrees.
    """
    folder = command_line.folder
    named = _store(folder, "shop", "old")
    moved = _store(folder, "old_shop", "hats")
    copied = _store(folder, "shop", "kept")
    (folder / "shop" / "old").rename(folder / "shop" / "new")
    (folder / "old_shop").rename(folder / "new_shop")
    shutil.copytree(folder / "shop" / "kept", folder / "shop" / "copy")

    document = command_line.sync()

    assert document["runs"]["synced"] == 4
    for project, dataset, run in [
        ("shop", "new", named),
        ("new_shop", "hats", moved),
        ("shop", "kept", copied),
        ("shop", "copy", copied),
    ]:
        _check(pixaris, cloud, RunKey(project, dataset, run))
    assert command_line.run("verify").code == 0


def test_a_refused_name_is_changed_in_a_copy_as_the_hint_says(
    command_line: CommandLine, pixaris: Reader, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: our own advice loses nothing.

    Method: a project whose name is refused; the hint is followed to the letter: another name in a copy, and a
    pass through the copy.
    """
    run = _store(command_line.folder, RESERVED_PROJECT, "dataset")
    [problem] = command_line.sync(expect=3)["problems"]
    assert problem["hint"] == "give it another name in a copy of the results folder, then sync that copy"

    copy = tmp_path / "copy"
    shutil.copytree(command_line.folder, copy)
    (copy / RESERVED_PROJECT).rename(copy / "taken")
    of_copy = CommandLine(copy, command_line.state_dir, cloud.environment)

    assert of_copy.sync()["runs"]["synced"] == 1
    _check(pixaris, cloud, RunKey("taken", "dataset", run))
    assert of_copy.run("verify").code == 0
