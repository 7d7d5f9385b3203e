"""Tables that are new, that gain columns, that refuse rows; and rows that were accepted and are not there."""

from pathlib import Path

import pytest

from pixaris_sync.errors import Failure, JobFailedError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.pipeline.engine import Engine
from tests.engine.local_folder import StoredRun
from tests.engine.machine import Machine


def settled(machine: Machine, **values: object) -> None:
    """Let a first run make the table, and streaming become its way."""
    machine.local.store(name="first", values=values)
    machine.run_pass()
    machine.let_tables_settle()
    machine.sink.calls.clear()
    machine.sink.counts.clear()


def several(machine: Machine, count: int, **values: object) -> list[StoredRun]:
    return [machine.local.store(name=f"run{number}", values=values) for number in range(count)]


def test_the_first_rows_of_a_new_table_are_loaded(machine: Machine) -> None:
    """Goal: a new table that answers 404 and then swallows streamed rows loses none.

    Method: runs arrive while it does so, and after; nothing is ever swallowed.
    """
    machine.sink.new_table_missing_seconds = 20.0
    machine.sink.new_table_swallows_seconds = 200.0
    for number in range(5):
        machine.local.store(name=f"run{number}")
        machine.run_pass()
        machine.clock.let_pass(100)
    machine.let_tables_settle()
    machine.local.store(name="later")
    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.swallowed == []
    assert machine.sink.counts["load"] >= 3
    assert machine.sink.counts["stream"] >= 1


def test_rows_that_a_new_table_swallowed_are_delivered_again(machine: Machine) -> None:
    """Goal: accepted is not synced.

    Method: somebody else makes the table anew while it is streamed to; streamed rows are lost, noticed, and
    loaded.
    """
    settled(machine)
    machine.sink.new_table_swallows_seconds = 300.0

    async def make_it_anew(engine: Engine) -> None:
        engine.scan_soon(machine.local.store(name="known").key.dataset_key)
        await machine.clock.sleep(10.0)
        rows = machine.sink.drop("p_d_experiment_results")
        machine.sink.make_plain_table("p_d_experiment_results")
        machine.sink.put_back("p_d_experiment_results", rows)
        for run in several(machine, 3):
            engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(2 * machine.settings.visibility_timeout_seconds)

    machine.follow(make_it_anew)

    machine.check_everything_arrived()
    assert len(machine.sink.swallowed) == 3


def test_a_new_column_is_added_and_its_rows_are_loaded(machine: Machine) -> None:
    """Goal: columns unknown to streaming for minutes hold nothing up.

    Method: new keys come in a settled table; rows that need them are loaded, rows right after them too.
    """
    settled(machine)
    machine.sink.new_column_unknown_seconds = 240.0
    several(machine, 3, extra="x")
    machine.run_pass()
    machine.clock.let_pass(60)
    machine.local.store(name="soon", values={"extra": "y"})
    machine.run_pass()
    assert machine.sink.counts["stream"] == 0
    machine.let_tables_settle()
    machine.local.store(name="late", values={"extra": "z"})
    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.counts["stream"] == 1


def test_a_column_that_somebody_else_just_added_is_waited_out_by_load_job(machine: Machine) -> None:
    """Goal: `no such field` for a column that exists is no refusal.

    Method: the column is added behind the engine's back, streaming does not know it yet; the row and its
    `stopped` neighbours arrive.
    """
    settled(machine)
    machine.sink.new_column_unknown_seconds = 240.0

    async def add() -> None:
        await machine.sink.add_columns("p_d_experiment_results", [Column("extra", ColumnType.STRING)])

    machine.clock.run(add)
    several(machine, 2)
    several(machine, 1, extra="x")

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.cloud_faults.fired["unknown_column"] == 1
    assert machine.cloud_faults.fired["stopped_rows"] == 1


def test_a_table_that_vanished_is_made_again(machine: Machine) -> None:
    """Goal: a 404 in the steady state is survived.

    Method: the table is dropped under a following engine's feet; what is stored afterwards arrives.
    """
    settled(machine)
    table = "p_d_experiment_results"

    async def drop_table(engine: Engine) -> None:
        engine.scan_soon(machine.local.store(name="before").key.dataset_key)
        await machine.clock.sleep(60)
        dropped = machine.sink.drop(table)
        engine.scan_soon(machine.local.store(name="after").key.dataset_key)
        await machine.clock.sleep(60)
        machine.sink.put_back(table, dropped)

    machine.follow(drop_table)

    machine.check_everything_arrived()
    assert machine.sink.counts["create_table"] == 1
    assert machine.sink.counts["stream"] == 2


def test_a_refused_row_is_quarantined_alone(machine: Machine) -> None:
    """Goal: one bad row holds up no other.

    Method: the table refuses the type of one value in a streamed batch; its `stopped` neighbours arrive, it
    is told in `status`, and arrives once the table takes it.
    """
    settled(machine, score=1)
    several(machine, 5, score=2)
    bad = machine.local.store(name="bad", values={"score": 3})
    machine.sink.refuse_rows_of = bad.key.run

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 1)
    state, cause = machine.state_of(bad)
    assert state == "quarantined"
    assert "refuses the row" in cause
    assert machine.check().runs["synced"] == 6
    machine.sink.refuse_rows_of = None
    assert machine.release() == 1
    machine.run_pass()
    machine.check_everything_arrived()


@pytest.mark.parametrize("bad_runs", [1, 3])
def test_a_bad_row_of_a_load_job_is_found_by_halving(machine: Machine, bad_runs: int) -> None:
    """Goal: the same where a job says only that it failed.

    Method: 20 rows, some bad; the jobs are counted.
    """
    several(machine, 20)
    bad = [machine.local.store(name=f"bad{number}") for number in range(bad_runs)]
    machine.sink.refuse_rows_of = "bad"

    left = machine.run_pass(bulk=True)

    assert (left.waiting, left.quarantined) == (0, bad_runs)
    assert {machine.state_of(run)[0] for run in bad} == {"quarantined"}
    assert len(machine.sink.jobs) < 12 * bad_runs
    machine.sink.refuse_rows_of = None
    assert machine.release() == bad_runs
    machine.run_pass()
    machine.check_everything_arrived()


def test_a_refused_row_goes_again_under_another_job_id(machine: Machine) -> None:
    """Goal: `retry` after the cause is mended is no look at the old failure.

    Method: one row alone is refused by a load job, twice; then the table takes it.
    """
    run = machine.local.store(name="bad")
    machine.sink.refuse_rows_of = run.key.run
    for _ in range(2):
        assert machine.run_pass().quarantined == 1
        machine.release()
    machine.sink.refuse_rows_of = None

    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 3


def test_jobs_that_the_service_ends_are_begun_anew_in_every_pass(machine: Machine) -> None:
    """Goal: failed jobs of one pass do not use up the ids of the next.

    Method: more jobs fail, for reasons of the service's own, than a pass tries.
    """
    machine.local.store()
    for _ in range(7):
        machine.sink.fail_next_job(JobFailedError("load", "t", "backendError", failure=Failure.TRANSIENT))

    assert machine.run_pass().waiting == 1
    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 8


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_denied_table_stops_only_its_runs(machine: Machine, *, in_doubt: bool) -> None:
    """Goal: a missing permission has an address.

    Method: 403 for one table, when it is changed or when its rows are sent; the other table's runs arrive;
    these do as well once it is granted.
    """
    denied = [machine.local.store(dataset="denied", name=f"run{number}") for number in range(3)]
    machine.local.store(dataset="granted")
    machine.sink.deny("p_denied_experiment_results", "load" if in_doubt else "create_table")

    left = machine.run_pass()

    assert (left.waiting, left.quarantined, left.denied) == (3, 0, True)
    assert {machine.state_of(run)[0] for run in denied} == {"failing"}
    assert machine.check().runs["synced"] == 1
    machine.sink.deny("p_denied_experiment_results", None)
    machine.run_pass()
    machine.check_everything_arrived()


def test_rows_that_may_not_be_read_back_are_not_called_synced(machine: Machine) -> None:
    """Goal: without the permission to read, nothing is claimed.

    Method: 403 for reading; then it is granted.
    """
    run = machine.local.store()
    machine.sink.deny(run.table, "count_rows")

    assert machine.run_pass().waiting == 1
    assert machine.state_of(run)[0] == "failing"
    assert "403" in machine.state_of(run)[1]
    machine.sink.deny(run.table, None)
    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.counts["load"] == 1


@pytest.mark.parametrize("following", [False, True])
def test_more_load_jobs_than_a_day_allows_wait(folder: Path, *, following: bool) -> None:
    """Goal: the daily quota of load jobs is never passed.

    Method: one row in each job, and a limit of three. A pass leaves the rest for the next day's, watch goes
    on then.
    """
    machine = Machine(folder, loads_per_day_limit=3, load_rows_limit=1, table_settle_seconds=7 * 24 * 3600.0)
    several(machine, 5)
    day_seconds = 24 * 3600.0

    async def a_day(_: Engine) -> None:
        await machine.clock.sleep(day_seconds - 60)
        assert len(machine.sink.jobs) == 3
        await machine.clock.sleep(2 * 3600)

    if following:
        machine.follow(a_day)
    else:
        assert machine.run_pass(bulk=True).waiting == 2
        assert machine.clock.elapsed_seconds < day_seconds
        machine.clock.let_pass(day_seconds)
        machine.run_pass(bulk=True)

    machine.check_everything_arrived()


def test_batches_stay_within_their_limits(folder: Path) -> None:
    """Goal: requests are bounded in rows. Method: limits of 4 and 10 rows; the calls' sizes are read."""
    machine = Machine(folder, stream_rows_limit=4, load_rows_limit=10)
    several(machine, 25)
    machine.run_pass()
    machine.let_tables_settle()
    several(machine, 25)
    machine.run_pass()

    machine.check_everything_arrived()
    sizes = {
        method: {call.rows for call in machine.sink.calls if call.method == method}
        for method in ("load", "stream")
    }
    assert max(sizes["load"]) == 10
    assert max(sizes["stream"]) == 4


def test_an_unreadable_answer_does_not_look_like_success(machine: Machine) -> None:
    """Goal: 200 with errors is no success, not even for `stopped` rows.

    Method: every row of a batch is refused.
    """
    settled(machine)
    runs = several(machine, 3)
    machine.sink.refuse_rows_of = "run"

    assert machine.run_pass().quarantined == 3

    assert all(machine.state_of(run)[0] == "quarantined" for run in runs)


def test_a_record_that_a_change_of_the_table_fails_for_is_quarantined_alone(machine: Machine) -> None:
    """Goal: one odd record holds up no other, not even before anything is sent.

    Method: the service refuses to add the column that one record needs, and any batch it is in.
    """
    settled(machine)
    several(machine, 6)
    bad = machine.local.store(name="odd", values={"odd": "x"})
    machine.sink.refuse_column = "odd"

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 1)
    assert machine.state_of(bad)[0] == "quarantined"
    machine.sink.refuse_column = None
    machine.release()
    machine.run_pass()
    machine.check_everything_arrived()


def test_a_table_that_refuses_every_row_is_not_asked_for_each_of_them(machine: Machine) -> None:
    """Goal: the day's load jobs are not spent on one fault.

    Method: a table refuses all of 300 rows; the jobs are counted; then it takes them.
    """
    several(machine, 300)
    machine.sink.refuse_rows_of = "run"

    left = machine.run_pass(bulk=True)

    assert (left.waiting, left.quarantined) == (0, 300)
    assert len(machine.sink.jobs) < 60
    machine.sink.refuse_rows_of = None
    machine.release()
    machine.run_pass(bulk=True)
    machine.check_everything_arrived()


def test_a_new_column_does_not_pass_the_quota_of_load_jobs(folder: Path) -> None:
    """Goal: rows that were to be streamed and must be loaded after all wait for the next day's jobs.

    Method: a limit of one job; a settled table gains a column.
    """
    machine = Machine(folder, loads_per_day_limit=1)
    settled(machine)
    machine.local.store(name="today", values={"other": "x"})
    machine.run_pass()
    several(machine, 2, extra="x")

    assert machine.run_pass().waiting == 2
    assert len(machine.sink.jobs) == 2
    machine.clock.let_pass(24 * 3600.0)
    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 3
