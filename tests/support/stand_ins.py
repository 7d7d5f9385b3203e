"""Other adapters in the place of those that the command line and the handlers put together."""

from collections.abc import Callable
from typing import Any

from pixaris_sync.process import wiring


def use_instead(store: Callable[..., Any], sink: Callable[..., Any]) -> None:
    """Make these, in this process, wherever a bucket and tables would be made.

    Raises:
        AssertionError: they are made elsewhere now, so that nothing would be replaced.
    """
    for name, stand_in in (("GcsObjectStore", store), ("BigQueryRowSink", sink)):
        assert hasattr(wiring, name), f"{name} is not made in {wiring.__name__} any more"
        setattr(wiring, name, stand_in)
