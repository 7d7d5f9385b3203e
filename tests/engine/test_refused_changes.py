"""Tables that may not be altered, or that others alter: only rows that are concerned wait, or go beside."""

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.model import Column, ColumnType, RunState
from pixaris_sync.pipeline.engine import Engine
from tests.engine.machine import Machine
from tests.fakes.row_sink import Method

TABLE = "p_d_experiment_results"


def settled(machine: Machine) -> None:
    """A table with an INTEGER column that has been there for long."""
    machine.local.store(name="first", values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()


@pytest.mark.parametrize("failure", [Failure.PERMISSION, Failure.TRANSIENT, Failure.PERMANENT])
@pytest.mark.parametrize(
    ("method", "values"), [("add_columns", {"new": "x"}), ("widen_columns", {"score": 0.5})]
)
def test_only_rows_that_need_a_refused_change_wait(
    machine: Machine, failure: Failure, method: Method, values: dict[str, object]
) -> None:
    """Goal: a change that is refused is a matter of the rows that need it.

    Method: one of eight rows needs a column, or a wider one; each kind of refusal; then it is granted.
    """
    settled(machine)
    others = [machine.local.store(name=f"run{number}", values={"score": number}) for number in range(7)]
    needy = machine.local.store(name="run3b", values=values)
    refused = method == "add_columns" or failure is not Failure.PERMANENT
    machine.sink.fail_next(method, SyncError("alter", TABLE, "refused", failure=failure), times=99)

    machine.run_pass()
    machine.run_pass()

    assert [machine.state_of(run)[0] for run in others] == ["synced"] * 7
    assert (machine.state_of(needy)[0] != "synced") is refused
    if refused:
        assert "refused" in machine.state_of(needy)[1]
    machine.sink._faults.clear()
    machine.release()
    machine.run_pass()
    machine.check_everything_arrived()


def test_a_widening_that_is_refused_for_good_ends_beside(machine: Machine) -> None:
    """Goal: no value is lost for a column that stays as it is. Method: refuse it; two floats, one integer."""
    settled(machine)
    refused = SyncError("alter", TABLE, "not allowed for this column", failure=Failure.PERMANENT)
    machine.sink.fail_next("widen_columns", refused)
    for number, score in enumerate([0.5, 2, 1.5]):
        machine.local.store(name=f"run{number}", values={"score": score})
        machine.run_pass()

    assert machine.check().runs[RunState.SYNCED] == 4
    stored = [(row.cells.get("score"), row.cells.get("score__float")) for row in machine.sink.stored(TABLE)]
    # Another process tries again, and is let.
    assert stored == [(1, None), (None, 0.5), (2, None), (1.5, None)]


@pytest.mark.parametrize("kind", [ColumnType.BOOLEAN, ColumnType.STRING, ColumnType.OTHER])
def test_a_table_that_others_made_anew_is_looked_at_again(machine: Machine, kind: ColumnType) -> None:
    """Goal: a service of months knows a table as it is. Method: another type, while a process follows."""
    settled(machine)

    async def script(engine: Engine) -> None:
        for number in range(2):
            run = machine.local.store(name=f"run{number}", values={"score": number + 2})
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(60)
        table = machine.sink.table(TABLE)
        columns = [
            Column(column.name, kind) if column.name == "score" else column
            for column in table.columns.values()
        ]
        table.rows.clear()
        machine.sink.recreate(TABLE, columns, [])
        for number in range(2, 4):
            run = machine.local.store(name=f"run{number}", values={"score": number + 2})
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(600)
            assert machine.state_of(run) == ("synced", "")

    machine.follow(script)
    assert len(machine.sink.stored(TABLE)) == 2
