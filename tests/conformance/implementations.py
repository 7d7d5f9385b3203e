"""Pixaris' real handlers and ours, under one name each: whoever asks for them imports them then."""

import importlib
import inspect
from typing import Any, Final

#: Whose handlers there are.
PIXARIS, OURS = "pixaris", "ours"
IMPLEMENTATIONS: Final = (PIXARIS, OURS)

_MODULES: Final = {PIXARIS: "pixaris.experiment_handlers", OURS: "pixaris_sync.handlers"}
_CLASSES: Final = {
    "ExperimentHandler": "base",
    "LocalExperimentHandler": "local",
    "GCPExperimentHandler": "gcp",
}
CLASSES: Final = tuple(_CLASSES)


def handler_class(implementation: str, name: str) -> Any:
    """One of `CLASSES`, as this implementation has it."""
    return getattr(importlib.import_module(f"{_MODULES[implementation]}.{_CLASSES[name]}"), name)


def documented_parameters(implementation: str, name: str, method: str) -> list[inspect.Parameter]:
    """The parameters of a method, without what this package adds: those that can only be named."""
    signature = inspect.signature(getattr(handler_class(implementation, name), method))
    found = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return [one for one in found if implementation == PIXARIS or one.kind is not one.KEYWORD_ONLY]
