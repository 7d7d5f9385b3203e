"""The three classes have the parameters that Pixaris documents."""

import inspect

import pytest

from tests.conformance.implementations import (
    CLASSES,
    IMPLEMENTATIONS,
    OURS,
    PIXARIS,
    documented_parameters,
    handler_class,
)

METHODS = (
    "__init__",
    "store_results",
    "load_projects_and_datasets",
    "load_experiment_results_for_dataset",
    "load_images_for_experiment",
    "_validate_experiment_run_name",
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_those_of_pixaris(name: str, method: str) -> None:
    """Goal: acceptance of calls as they stand. Method: names, order, kinds and defaults, by `inspect`."""
    if (name, method) == ("ExperimentHandler", "__init__"):
        return  # Neither has one.
    assert documented_parameters(OURS, name, method) == documented_parameters(PIXARIS, name, method)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_is_public_in_pixaris_is_offered(implementation: str, name: str) -> None:
    """Goal: no method is missing. Method: the public names of Pixaris' class, and the one that it calls."""
    offered = set(dir(handler_class(implementation, name)))
    documented = {one for one in vars(handler_class(PIXARIS, name)) if not one.startswith("_")}
    assert documented | {"_validate_experiment_run_name"} <= offered


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CLASSES[1:])
def test_handlers_are_of_their_base(implementation: str, name: str) -> None:
    """Goal: `isinstance` by the base works. Method: within each implementation."""
    base = handler_class(implementation, "ExperimentHandler")
    assert issubclass(handler_class(implementation, name), base)
    assert not inspect.isabstract(handler_class(implementation, name))
