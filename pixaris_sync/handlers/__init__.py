"""The documented Python API of Pixaris' experiment handlers, offered by this package itself.

`LocalExperimentHandler`, `GCPExperimentHandler` and their base `ExperimentHandler` take the place of Pixaris'
own: names, parameters, their order and defaults, and what is returned are the same, and neither Pixaris nor
gradio is needed. ``README.md`` in this folder says where they do better.

* `base` is the interface and what both handlers share, `local` and `gcp` are these.
* `record` reads what a call was given, `pictures` makes files of images, `staging` puts a run on the disk,
  whole or not at all, `behind` does that behind the caller's back.
* `spool` is where runs wait for the cloud, `carrier` carries them there, `naming` finds their names,
  `claims` lets the engine know which of them are its own.
* `loading` reads the cloud, with `patience`; `downloads` loads images. `frames` reads tracking files.
* `portal` lets all of that be called where an event loop is running.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixaris_sync.handlers.base import ExperimentHandler

if TYPE_CHECKING:
    from pixaris_sync.handlers.gcp import GCPExperimentHandler
    from pixaris_sync.handlers.local import LocalExperimentHandler
    from pixaris_sync.handlers.pictures import read_exactly

__all__ = ["ExperimentHandler", "GCPExperimentHandler", "LocalExperimentHandler", "read_exactly"]

#: A training process may need one of them alone.
_ON_DEMAND = {"GCPExperimentHandler": "gcp", "LocalExperimentHandler": "local", "read_exactly": "pictures"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Import what is asked for, and no more."""
    if name in _ON_DEMAND:
        return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
