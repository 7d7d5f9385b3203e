"""Which folder is no results folder, and which one is."""

from pathlib import Path

import pytest

from pixaris_sync.local.placement import LOOKS_LIMIT, misplaced

TRACKING = "experiment_tracking.jsonl"
RUN = "20250131-120000_run"


def dataset(folder: Path) -> None:
    """A dataset with a run, as LocalExperimentHandler leaves it."""
    (folder / RUN / "generated_images").mkdir(parents=True)
    (folder / RUN / "args.json").touch()
    (folder / TRACKING).touch()


@pytest.mark.parametrize(
    ("chosen", "cause"),
    [
        (".", "the results folder lies in it"),
        ("home", "the results folder lies in it"),
        ("home/local_results/shop", "it is the folder of one project"),
        ("home/local_results/shop/hats", "it is the folder of one dataset"),
        (f"home/local_results/shop/hats/{RUN}", "it is the folder of one run"),
    ],
)
@pytest.mark.parametrize("name", ["local_results", "runs"])
def test_a_folder_some_levels_off_is_known_and_the_right_one_named(
    tmp_path: Path, chosen: str, cause: str, name: str
) -> None:
    """Goal: who sets another folder learns which one is right. Method: each level around it; two names."""
    right = tmp_path / "home" / name
    dataset(right / "shop" / "hats")
    (tmp_path / "home" / "train.py").touch()

    found = misplaced(tmp_path / chosen.replace("local_results", name), TRACKING)

    assert found is not None
    assert (found.cause, found.right) == (cause, right)


@pytest.mark.parametrize(
    "places",
    [
        [],
        ["shop/hats"],
        ["shop/hats", "shop/animals/cats", "a/b/c/d"],
        ["team/shop/hats"],
        ["team/shop/animals/cats"],
        ["shop/hats", "shop"],
        ["local_results/hats"],
    ],
    ids=str,
)
def test_a_right_folder_is_never_refused(tmp_path: Path, places: list[str]) -> None:
    """Goal: what looks odd in it stays without a word. Method: datasets at these places, and stray files."""
    root = tmp_path / "local_results"
    root.mkdir()
    (root / ".hidden").mkdir()
    for place in places:
        dataset(root / place)
    if "shop/hats" in places:
        (root / "notes.txt").touch()
        (root / "shop" / "stray").mkdir()

    assert misplaced(root, TRACKING) is None


def test_a_project_that_only_holds_feedback_is_right(tmp_path: Path) -> None:
    """Goal: feedback stands in a project. Method: its folder, and nothing else but stray things."""
    (tmp_path / "shop" / "feedback_iterations" / "one" / "local_results" / "a" / "b").mkdir(parents=True)
    assert misplaced(tmp_path, TRACKING) is None


def test_a_huge_folder_is_not_searched_for_ever(tmp_path: Path) -> None:
    """Goal: somebody's whole disk costs a moment. Method: more folders than it looks at, then a dataset."""
    for number in range(LOOKS_LIMIT):
        (tmp_path / f"{number:05}").mkdir()
    dataset(tmp_path / "zzz" / "local_results" / "shop" / "hats")
    assert misplaced(tmp_path, TRACKING) is None


def test_what_cannot_be_looked_at_is_left_to_others(tmp_path: Path) -> None:
    """Goal: a missing folder has its own message. Method: ask for one."""
    assert misplaced(tmp_path / "missing", TRACKING) is None
