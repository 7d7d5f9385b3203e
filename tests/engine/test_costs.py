"""What syncing costs, counted: queries and their bytes, streamed rows, operations on objects.

``deploy/costs.md`` holds the figures; prices are those of Google's pages for a multi-region in the USA.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pixaris_sync.model import Column, ColumnType
from pixaris_sync.pipeline.engine import Engine
from tests.engine.machine import Machine
from tests.fakes.row_sink import OtherRows
from tests.support.documents import DEPLOY, rows_below

TABLE = "p_d_experiment_results"
MEBIBYTE, GIBIBYTE, TEBIBYTE = 2**20, 2**30, 2**40
DOLLARS_PER_TEBIBYTE_QUERIED = 6.25
DOLLARS_PER_GIBIBYTE_STREAMED = 0.05
STREAMED_ROW_BYTES_MIN = 1024
DOLLARS_PER_OPERATION = 0.005 / 1000
#: Of the runs that the page is about: how many objects one has, how large a row of the table is.
OBJECTS_A_RUN = 10
ROW_BYTES = 1024
RUN_NAME_BYTES = len("20260102-030405_some-name")
TABLE_BYTES = (100 * MEBIBYTE, GIBIBYTE)
RUNS = 1000
#: A watch behaves the same for each run; so many stand for all.
WATCHED_RUNS = (100, pytest.param(RUNS, marks=pytest.mark.large))


class Costs(NamedTuple):
    """What so many runs have cost, in what is billed."""

    queries: int
    deliveries: int
    query_bytes: Callable[[int], int]
    streamed_bytes: int
    operations: int

    def dollars(self, runs: int, table_bytes: int) -> tuple[float, ...]:
        """For 1,000 such runs into a table of this size: queries, streamed rows, operations, all of them."""
        parts = (
            self.query_bytes(table_bytes) / TEBIBYTE * DOLLARS_PER_TEBIBYTE_QUERIED,
            self.streamed_bytes / GIBIBYTE * DOLLARS_PER_GIBIBYTE_STREAMED,
            self.operations * DOLLARS_PER_OPERATION,
        )
        of_all = tuple(part * RUNS / runs for part in parts)
        return (*of_all, sum(of_all))


def settle(machine: Machine) -> None:
    """A table that was there for long; nothing is counted so far."""
    machine.local.store(name="first", images=1, values={"score": 0.5})
    machine.run_pass()
    machine.let_tables_settle()
    for counted in (machine.sink.counts, machine.sink.queries, machine.store.calls, machine.store.uploads):
        counted.clear()


def add_columns(machine: Machine, count: int) -> None:
    """Others add columns, and fill them in every row that comes."""
    table = machine.sink.table(TABLE)
    names = [f"theirs{number}" for number in range(count)]
    table.add([Column(name, ColumnType.STRING) for name in names], -float("inf"))
    for name in names:
        table.defaults[name] = "x" * 100
        table.rows[0].cells[name] = "x" * 100


def watch(machine: Machine, runs: int) -> Costs:
    """Follow while a run is stored every 30 seconds."""

    async def train(engine: Engine) -> None:
        await machine.clock.sleep(30.0)
        for number in range(runs):
            run = machine.local.store(name=f"run{number:04}", images=1, values={"score": number / 7})
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(30.0)
        await machine.clock.sleep(300.0)

    machine.follow(train)
    return costs(machine, runs)


def costs(machine: Machine, runs: int) -> Costs:
    sink, store = machine.sink, machine.store
    machine.check_everything_arrived()
    assert len(store.uploads) == runs
    streamed = [row for row in sink.stored(TABLE) if row.way == "stream"]
    queries = list(sink.queries)

    def query_bytes(table_bytes: int) -> int:
        others = OtherRows(table_bytes // ROW_BYTES, RUN_NAME_BYTES, table_bytes)
        return sum(query.billed_bytes(others) for query in queries)

    return Costs(
        queries=len(queries),
        deliveries=sink.counts["stream"] + sink.counts["load"],
        query_bytes=query_bytes,
        streamed_bytes=len(streamed) * STREAMED_ROW_BYTES_MIN,
        operations=runs * OBJECTS_A_RUN + store.counts["list"],
    )


def figures(of: Costs, runs: int, table_bytes: int) -> list[str]:
    return [f"${dollars:.2f}" for dollars in of.dollars(runs, table_bytes)]


def assert_on_the_page(command: str, of: Costs, runs: int) -> None:
    """The page says what was counted."""
    page = {(row[0], row[1]): row[2:] for row in rows_below(DEPLOY / "costs.md", "What 1,000 runs cost")}
    for table_bytes in TABLE_BYTES:
        size = "1 GiB" if table_bytes == GIBIBYTE else "100 MiB"
        queries = f"{of.queries * RUNS / runs:,.0f}"
        assert page[f"`{command}`", size] == [queries, *figures(of, runs, table_bytes)]


@pytest.mark.parametrize("runs", WATCHED_RUNS)
def test_watching_costs_one_query_a_delivery(machine: Machine, runs: int) -> None:
    """Goal: what is usual is cheap. Method: runs come one by one; queries and bytes are the page's."""
    settle(machine)
    machine.sink.visible_after_seconds = 0.5

    found = watch(machine, runs)

    assert (found.deliveries, found.queries) == (runs, runs)
    assert_on_the_page("watch", found, runs)


def test_a_backfill_costs_a_few_queries(machine: Machine) -> None:
    """Goal: many runs are asked for at once. Method: 1,000 old runs; queries and bytes are the page's."""
    settle(machine)
    for number in range(RUNS):
        machine.local.store(name=f"run{number:04}", images=1, values={"score": number / 7})

    machine.run_pass(bulk=True)

    found = costs(machine, RUNS)
    assert found.queries <= RUNS // 100
    assert_on_the_page("backfill", found, RUNS)


@pytest.mark.parametrize(
    ("lost", "visible_after_seconds"), [(True, 0.5), (True, 20.0), (False, 10.0), (False, 100.0)]
)
def test_on_a_bad_day_it_costs_three_queries_a_delivery(
    machine: Machine, visible_after_seconds: float, *, lost: bool
) -> None:
    """Goal: the worst is bounded. Method: each answer is lost, or rows show late, in streams of one row."""
    settle(machine)
    machine.sink.visible_after_seconds = visible_after_seconds
    runs = 20
    if lost:
        machine.sink.lose_answer("stream", times=10 * runs)

    found = watch(machine, runs)

    assert machine.sink.faults_fired["stream"] == (runs if lost else 0)
    assert found.deliveries == runs
    assert found.queries <= 3 * found.deliveries


def test_bytes_do_not_depend_on_the_width_of_a_table(folder: Path) -> None:
    """Goal: columns of others cost nothing. Method: the same watch beside 5 and 500 filled columns."""
    billed = []
    for count in (5, 500):
        place = folder / str(count)
        place.mkdir()
        machine = Machine(place)
        settle(machine)
        add_columns(machine, count)
        found = watch(machine, 10)
        billed.append((found.queries, found.query_bytes(100 * GIBIBYTE)))
        assert machine.sink.table(TABLE).column_bytes(None) > count * 1000

    assert billed[0] == billed[1]
