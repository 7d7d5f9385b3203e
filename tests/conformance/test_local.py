"""LocalExperimentHandler, Pixaris' and ours: equal files, frames, dicts and paths for equal calls."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conformance.calls import Call, local_calls
from tests.conformance.folders import tree
from tests.conformance.implementations import IMPLEMENTATIONS, OURS, PIXARIS, handler_class

SEEDS = ["1", "2", *(pytest.param(f"{seed}", marks=pytest.mark.large) for seed in range(3, 40))]

Store = Callable[[str, list[Call]], Path]


def handler(implementation: str, *folder: str) -> Any:
    return handler_class(implementation, "LocalExperimentHandler")(*folder)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Makes calls to an implementation in a working directory of its own, a second for each call.

    The folder's name is the default: it stands in the records.
    """

    def store(implementation: str, calls: list[Call]) -> Path:
        place = tmp_path / implementation
        place.mkdir()
        monkeypatch.chdir(place)
        stored_by = handler(implementation)
        for second, call in enumerate(calls):
            monkeypatch.setattr(time, "strftime", lambda _, second=second: f"20260102-0304{second:02}")
            call.make(stored_by)
        monkeypatch.undo()
        return place / "local_results"

    return store


@pytest.mark.parametrize("seed", SEEDS)
def test_files_and_lines_are_equal(seed: str, store: Store) -> None:
    """Goal: acceptance 1: the same layout, byte for byte. Method: all files, pixels and texts of images."""
    calls = list(local_calls(seed))
    assert tree(store(OURS, calls)) == tree(store(PIXARIS, calls))


@pytest.mark.parametrize("writer", IMPLEMENTATIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_either_reads_what_the_other_wrote(seed: str, writer: str, store: Store) -> None:
    """Goal: acceptance 2: equal frames, dicts and paths. Method: both read each folder."""
    calls = list(local_calls(seed))
    folder = str(store(writer, calls))
    theirs, ours = handler(PIXARIS, folder), handler(OURS, folder)
    listed = ours.load_projects_and_datasets()
    # Theirs has datasets in the order of the disk.
    assert listed == {key: sorted(value) for key, value in theirs.load_projects_and_datasets().items()}
    assert list(listed) == sorted(listed) == list(theirs.load_projects_and_datasets())
    runs = 0
    for project, datasets in listed.items():
        for dataset in datasets:
            frame = theirs.load_experiment_results_for_dataset(project, dataset)
            found = ours.load_experiment_results_for_dataset(project, dataset)
            if frame is None:
                assert found.empty  # All runs of it have another tracking file.
                continue
            pd.testing.assert_frame_equal(found, frame, check_exact=True)
            for name in frame["experiment_run_name"]:
                if not Path(folder, project, dataset, name, "generated_images").exists():
                    continue
                runs += 1
                paths = theirs.load_images_for_experiment(project, dataset, name, folder)
                assert ours.load_images_for_experiment(project, dataset, name, folder) == paths
                assert paths
    assert runs


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("project", "dataset"), [("", "dataset"), ("project", ""), (None, None)])
def test_what_is_not_chosen_yet_is_an_empty_frame(
    implementation: str, project: Any, dataset: Any, tmp_path: Path
) -> None:
    """Goal: as the UI asks before anything is chosen. Method: nothing for each."""
    frame = handler(implementation, str(tmp_path)).load_experiment_results_for_dataset(project, dataset)
    pd.testing.assert_frame_equal(frame, pd.DataFrame())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nothing_stored_yet_is_an_error_of_the_folder(implementation: str, tmp_path: Path) -> None:
    """Goal: the same error for a folder that is not there. Method: projects, and the images of a run."""
    nothing = handler(implementation, str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        nothing.load_projects_and_datasets()
    with pytest.raises(FileNotFoundError):
        nothing.load_images_for_experiment("p", "d", "run", str(tmp_path))
