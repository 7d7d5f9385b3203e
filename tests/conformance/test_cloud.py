"""GCPExperimentHandler, Pixaris' and ours: equal objects, frames, dicts and paths for equal calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conformance.calls import Call, cloud_calls
from tests.conformance.conftest import Destination
from tests.conformance.folders import content_of
from tests.conformance.implementations import IMPLEMENTATIONS, OURS, PIXARIS, handler_class
from tests.support.command_line import CommandLine

SEEDS = ["1", *(pytest.param(f"{seed}", marks=pytest.mark.large) for seed in range(2, 8))]
#: Who writes: the two handlers of the cloud, and what `pixaris-sync sync` makes of the two local ones' runs.
SYNCED = {"pixaris, synced": PIXARIS, "ours, synced": OURS}
WRITERS = (*IMPLEMENTATIONS, *SYNCED)


@dataclass(frozen=True, slots=True)
class Stored:
    """The same calls, by each writer to a destination of its own."""

    calls: list[Call]
    by: Mapping[str, Destination]


def store(writer: str, calls: list[Call], destination: Destination) -> None:
    if writer not in SYNCED:
        handler = destination.handler(writer)
        for call in calls:
            call.make(handler)
        return
    results = destination.folder / "results"
    handler = handler_class(SYNCED[writer], "LocalExperimentHandler")(str(results))
    for call in calls:
        (call.as_local_takes_it() if SYNCED[writer] == PIXARIS else call).make(handler)
    document = CommandLine(results, destination.folder / "state", destination.cloud.environment).sync()
    assert document["rows_synced"] == len(calls)


@pytest.fixture(scope="module", params=SEEDS)
def stored(request: pytest.FixtureRequest, new_destination: Callable[[], Destination]) -> Stored:
    """Calls of a seed, stored by everybody."""
    calls = list(cloud_calls(request.param))
    by = {writer: new_destination() for writer in WRITERS}
    for writer, destination in by.items():
        store(writer, calls, destination)
    return Stored(calls, by)


def _neutral_name(name: str) -> str:
    """An object's name with its run's name as the caller gave it: all put the time in front."""
    results, project, dataset, run, *rest = name.split("/")
    return "/".join([results, project, dataset, run[run.index("run ") :], *rest])


def _neutral(frame: pd.DataFrame, destination: Destination) -> pd.DataFrame:
    """A frame without what must differ: when, the names of runs, and links to objects."""
    neutral = frame.astype(object)
    for at, run in enumerate(frame["experiment_run_name"]):
        for column in frame.columns:
            if isinstance(cell := frame.loc[at, column], str):
                neutral.loc[at, column] = destination.bare(cell).replace(run, run[run.index("run ") :])
    assert frame["timestamp"].str.fullmatch(r"\d{8}-\d{6}").all()
    return neutral.drop(columns="timestamp").sort_values("experiment_run_name", ignore_index=True)


@pytest.mark.parametrize("writer", WRITERS[1:])
def test_rows_are_those_of_pixaris(stored: Stored, writer: str) -> None:
    """Goal: acceptance 1 and 2: equal cells and columns. Method: the real reader reads both."""
    for project, dataset in sorted({(call.project, call.dataset) for call in stored.calls}):
        theirs, ours = (stored.by[who].frame(PIXARIS, project, dataset) for who in (PIXARIS, writer))
        assert list(ours.dtypes) == list(theirs.dtypes)
        pd.testing.assert_frame_equal(
            _neutral(ours, stored.by[writer]), _neutral(theirs, stored.by[PIXARIS]), check_exact=True
        )


@pytest.mark.parametrize("writer", WRITERS[1:])
def test_objects_are_those_of_pixaris(stored: Stored, writer: str, tmp_path: Path) -> None:
    """Goal: acceptance 1 and 2: equal objects. Method: names, pixels and texts, other bytes."""

    def contents(who: str) -> dict[str, Any]:
        found = {}
        for name, content in stored.by[who].objects.items():
            path = tmp_path / "object"
            path = path.with_suffix(Path(name).suffix)
            path.write_bytes(content)
            found[_neutral_name(name)] = content_of(path)
        return found

    assert contents(writer) == contents(PIXARIS)


@pytest.mark.parametrize("writer", WRITERS)
def test_either_reads_what_was_written(stored: Stored, writer: str, tmp_path: Path) -> None:
    """Goal: acceptance 1 and 2: equal dicts, frames and paths. Method: both read each."""
    destination = stored.by[writer]
    listed = destination.handler(OURS).load_projects_and_datasets()
    assert listed == destination.handler(PIXARIS).load_projects_and_datasets()
    assert {(project, dataset) for project, names in listed.items() for dataset in names} == {
        (call.project, call.dataset) for call in stored.calls
    }
    for project, names in listed.items():
        for dataset in names:
            frame = destination.frame(PIXARIS, project, dataset)
            pd.testing.assert_frame_equal(destination.frame(OURS, project, dataset), frame, check_exact=True)
            for run in frame["experiment_run_name"]:
                paths = {}
                for reader in IMPLEMENTATIONS:
                    place = tmp_path / reader
                    found = destination.handler(reader).load_images_for_experiment(
                        project, dataset, run, str(place)
                    )
                    assert found == sorted(found)
                    paths[reader] = {
                        str(Path(path).relative_to(place)): Path(path).read_bytes() for path in found
                    }
                assert paths[OURS] == paths[PIXARIS]
                assert paths[OURS]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nothing_stored_yet_is_the_same(implementation: str, destination: Destination) -> None:
    """Goal: equal answers where there is nothing. Method: each reading method on an empty destination."""
    handler = destination.handler(implementation)
    assert handler.load_projects_and_datasets() == {}
    assert handler.load_images_for_experiment("p", "d", "run", str(destination.folder / "images")) == []
    with pytest.raises(RuntimeError):
        handler.load_experiment_results_for_dataset("p", "d")
