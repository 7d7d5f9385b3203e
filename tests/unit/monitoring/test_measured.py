"""Requests are counted by what was asked and how it ended, and nothing else changes."""

import inspect
from collections.abc import AsyncGenerator

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.monitoring.measured import OUTCOMES, Histogram, MeasuredSink, MeasuredStore, Requests
from pixaris_sync.ports import ObjectStore, RowSink
from tests.fakes.object_store import FakeObjectStore
from tests.fakes.row_sink import FakeRowSink
from tests.fakes.virtual_clock import VirtualClock

PROBLEM = SyncError("list objects", "b", "try later", failure=Failure.TRANSIENT)


def test_every_method_of_the_ports_is_there() -> None:
    """Goal: a new method of a port is not forgotten. Method: public names of both protocols."""
    clock = VirtualClock()
    store = MeasuredStore(FakeObjectStore(), Requests())
    sink = MeasuredSink(FakeRowSink(clock), Requests())
    for port, wrapped in ((ObjectStore, store), (RowSink, sink)):
        methods = {name for name, _ in inspect.getmembers(port, inspect.isfunction) if name[0] != "_"}
        assert methods == {*vars(wrapped)}


@pytest.mark.anyio
async def test_answers_and_failures_are_counted_apart() -> None:
    """Goal: outcomes by kind. Method: two answers, one failure, which comes out as it was."""
    bucket, requests = FakeObjectStore(), Requests()
    store = MeasuredStore(bucket, requests)
    assert await store.stat("a") is None
    bucket.fail_next("stat", PROBLEM)
    with pytest.raises(SyncError) as raised:
        await store.stat("a")
    assert raised.value is PROBLEM
    assert await store.stat("a") is None
    counted = {outcome: count for (_, outcome), count in requests.counts.items()}
    assert counted == {**dict.fromkeys(OUTCOMES, 0), "ok": 2, "transient": 1}
    assert {tuple(kind) for kind, _ in requests.counts} == {("bucket", "stat")}
    [histogram] = requests.seconds.values()
    assert histogram.cumulative()[-1] == (float("inf"), 3)


@pytest.mark.anyio
async def test_each_page_of_a_listing_is_a_request() -> None:
    """Goal: a long listing is many requests. Method: two pages, then a failure."""

    async def pages(prefix: str) -> AsyncGenerator[str, None]:
        yield f"{prefix}1"
        yield f"{prefix}2"
        raise PROBLEM

    requests = Requests()
    listing = requests.counted_pages("bucket", "list", pages)("x")
    assert [await anext(listing), await anext(listing)] == ["x1", "x2"]
    with pytest.raises(SyncError, match="try later"):
        await anext(listing)
    assert {outcome: count for (_, outcome), count in requests.counts.items() if count} == {
        "ok": 2,
        "transient": 1,
    }


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    """Goal: Prometheus' `le`. Method: values below, at, between and above the bounds."""
    histogram = Histogram([1, 5])
    for value in (0.5, 1.0, 3.0, 7.0):
        histogram.observe(value)
    assert histogram.cumulative() == [(1, 2), (5, 3), (float("inf"), 4)]
    assert histogram.sum == 11.5
