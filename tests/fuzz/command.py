"""The real command line on fakes in the place of bucket and tables, which each process has anew.

``python -m tests.fuzz.command sync`` is as ``pixaris-sync sync``.
"""

from typing import Any

from pixaris_sync.cli import main, wiring
from pixaris_sync.clock import SteadyClock, SystemClock
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink


def _store(*_: Any, **__: Any) -> FakeObjectStore:
    return FakeObjectStore()


def _sink(*_: Any, **__: Any) -> FakeRowSink:
    return FakeRowSink(SteadyClock(SystemClock()))


if __name__ == "__main__":
    vars(wiring).update(GcsObjectStore=_store, BigQueryRowSink=_sink)
    main()
