"""The real command line on fakes in the place of bucket and tables, which each process has anew.

``python -m tests.fuzz.command sync`` is as ``pixaris-sync sync``.
"""

from typing import Any

from pixaris_sync.cli import main
from pixaris_sync.clock import SteadyClock, SystemClock
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink
from tests.support.stand_ins import use_instead


def _store(*_: Any, **__: Any) -> FakeObjectStore:
    return FakeObjectStore()


def _sink(*_: Any, **__: Any) -> FakeRowSink:
    return FakeRowSink(SteadyClock(SystemClock()))


if __name__ == "__main__":
    use_instead(_store, _sink)
    main()
