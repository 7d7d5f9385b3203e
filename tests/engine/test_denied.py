"""What denies everything alike, for a while: it rests as a whole, is told once, and comes back by itself."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.model import RemoteObject, RunState
from pixaris_sync.pipeline.engine import Engine
from tests.engine.cloud_faults import BUCKET, SHARED_TROUBLES, TABLES
from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine

TABLE = "p_d_experiment_results"
HOUR_SECONDS = 3600.0
RUNS = 500


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def settled(machine: Machine) -> None:
    """A table of old, to which rows are streamed, and a ledger that knows its destination."""
    machine.local.store(name="old")
    machine.run_pass()
    machine.let_tables_settle()


def an_hour_of(
    machine: Machine, begin: Callable[[], None], end: Callable[[], None], **values: object
) -> tuple[int, str]:
    """Let trouble begin, store many runs, and let it end after an hour.

    Returns:
        How many calls there were in that hour, and what the engine said of itself then.
    """
    calls, said = 0, ""

    async def script(engine: Engine) -> None:
        nonlocal calls, said
        await machine.clock.sleep(60)
        begin()
        for number in range(RUNS):
            run = machine.local.store(name=f"run{number}", values=dict(values))
            if number % 50 == 49:
                engine.scan_soon(run.key.dataset_key)
                await machine.clock.sleep(5)
        await machine.clock.sleep(60)
        before = machine.port_calls
        await machine.clock.sleep(HOUR_SECONDS)
        calls, said = machine.port_calls - before, await engine.describe()
        found = machine.check()
        assert found.runs[RunState.QUARANTINED] == 0
        assert found.problems or found.runs[RunState.SYNCED] == RUNS + 1, "nothing says why"
        end()
        await machine.clock.sleep(2 * machine.settings.retry_delay_seconds_max + 300)

    machine.follow(script)
    return calls, said


@pytest.mark.parametrize("half", [BUCKET, TABLES])
@pytest.mark.parametrize("kind", SHARED_TROUBLES)
def test_500_runs_in_a_shared_trouble_are_one_line_and_arrive_by_themselves(
    machine: Machine, caplog: pytest.LogCaptureFixture, kind: str, half: str
) -> None:
    """Goal: what passes condemns no run, floods neither service nor log, and needs nobody.

    Method: an hour of each kind, for bucket and tables, with 500 runs coming; calls and lines are counted.
    Tables without billing take load jobs: there it is no trouble at all.
    """
    settled(machine)
    caplog.set_level("INFO")

    calls, said = an_hour_of(
        machine,
        lambda: machine.cloud_faults.shared.update({half: (kind, float("inf"))}),
        machine.cloud_faults.shared.clear,
    )

    machine.check_everything_arrived()
    assert machine.check().runs[RunState.SYNCED] == RUNS + 1
    [told] = warnings(caplog)
    assert SHARED_TROUBLES[kind] in told
    if (kind, half) == ("billing_off", TABLES):
        return
    assert calls < 100
    name = "the bucket" if half == BUCKET else TABLE
    assert f"{name} rests: " in said
    works = [line for line in caplog.messages if " works again after 1 h " in line]
    told = name if half == BUCKET else f"table {name}"
    assert [line.split(" works again after ")[0] for line in works] == [told]


DATASETS = [f"d{number}" for number in range(10)]


@pytest.mark.parametrize("denied", [10, 2], ids=["all tables", "two of ten"])
def test_a_dataset_that_denies_rests_as_a_whole_and_tables_that_do_alone(
    machine: Machine, caplog: pytest.LogCaptureFixture, denied: int
) -> None:
    """Goal: a role that is missing on the dataset is one trouble, not one a table.

    Method: an hour in which ten tables are denied: one line, few calls, and all arrive at once when it is
    over. Where two are denied, the others go on, now and then.
    """
    for dataset in DATASETS:
        machine.local.store(dataset=dataset, name="old")
    machine.run_pass()
    machine.let_tables_settle()
    caplog.set_level("INFO")
    tables = [f"p_{dataset}_experiment_results" for dataset in DATASETS]
    calls = 0

    async def script(engine: Engine) -> None:
        nonlocal calls
        await machine.clock.sleep(60)
        machine.cloud_faults.denied = set(tables[:denied])
        for number in range(5):
            runs = [machine.local.store(dataset=dataset, name=f"run{number}") for dataset in DATASETS]
            for run in runs:
                engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(60)
        before = machine.port_calls
        await machine.clock.sleep(HOUR_SECONDS)
        calls = machine.port_calls - before
        assert machine.check().runs[RunState.SYNCED] == 10 + 5 * (10 - denied)
        machine.cloud_faults.denied = set()
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)
        machine.check_everything_arrived()

    machine.follow(script)
    assert len(warnings(caplog)) == (1 if denied == 10 else 2)
    assert calls < 40 * denied
    works = {line.split(" works again after ")[0] for line in caplog.messages if "works again" in line}
    assert works == {*(["the dataset"] if denied == 10 else [f"table {name}" for name in tables[:2]])}


@pytest.mark.large
@pytest.mark.parametrize("failure", [Failure.PERMISSION, Failure.TRANSIENT])
def test_500_rows_that_need_a_change_of_a_table_are_one_line(
    machine: Machine, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    """Goal: a table that may not be altered is told once. Method: the same; each row needs a new column."""
    settled(machine)
    caplog.set_level("INFO")
    refused = SyncError("add columns to table", TABLE, "refused", failure=failure)

    calls, said = an_hour_of(
        machine,
        lambda: machine.sink.fail_next("add_columns", refused, times=10**6),
        machine.sink._faults.clear,
        more="x",
    )

    machine.check_everything_arrived()
    [told] = warnings(caplog)
    assert "refused" in told
    assert calls < 100
    assert f"changing table {TABLE} rests: " in said


@pytest.mark.large
def test_500_rows_that_a_table_refuses_for_good_are_few_lines(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: nor does a refusal for good flood the log. Method: the column is refused with 400."""
    settled(machine)
    refused = SyncError("add columns to table", TABLE, "too many columns", failure=Failure.PERMANENT)
    machine.sink.fail_next("add_columns", refused, times=10**6)
    for number in range(RUNS):
        machine.local.store(name=f"run{number}", values={"more": "x"})
    caplog.set_level("WARNING")

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, RUNS)
    first, *more = (line for line in warnings(caplog) if "quarantined" in line)
    assert "too many columns" in first
    assert len(more) <= 2
    assert sum(int(line.split()[1]) for line in more) == RUNS - 1


def test_a_denied_pass_ends_and_leaves_the_work(machine: Machine) -> None:
    """Goal: `sync` says that somebody must act, and a later one goes on. Method: each half denies a pass."""
    settled(machine)
    for half in (BUCKET, TABLES):
        for number in range(20):
            machine.local.store(name=f"{half}{number}")
        machine.cloud_faults.shared[half] = ("permission_lost", float("inf"))
        before = machine.port_calls

        left = machine.run_pass(attempts_limit=3)

        assert (left.waiting, left.quarantined, left.denied) == (20, 0, True)
        assert machine.port_calls - before < 60
        assert any(SHARED_TROUBLES["permission_lost"] in one.cause for one in machine.check().problems)
        machine.cloud_faults.shared.clear()
        left = machine.run_pass()
        assert (left.waiting, left.quarantined, left.denied) == (0, 0, False)
        machine.check_everything_arrived()
        assert machine.check().problems == ()


def test_one_object_that_is_denied_waits_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: it holds nobody up. Method: it is denied for a day, while a run comes each hour."""
    settled(machine)
    bad = machine.local.store(name="bad", images=1)
    upload = machine.store.upload
    denied = set(map(bad.object_name, bad.versions))
    calls = 0

    async def upload_or_not(name: str, content: bytes, **how: Any) -> RemoteObject:
        nonlocal calls
        if name in denied:
            calls += 1
            raise SyncError("upload", name, "denied", failure=Failure.PERMISSION)
        return await upload(name, content, **how)

    monkeypatch.setattr(machine.store, "upload", upload_or_not)

    async def a_day(engine: Engine) -> None:
        await machine.clock.sleep(60)
        for number in range(24):
            run = machine.local.store(name=f"run{number}", images=1)
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(10)
            assert machine.state_of(run)[0] == "synced"
            await machine.clock.sleep(HOUR_SECONDS - 10)
        assert machine.state_of(bad)[0] == "failing"
        denied.clear()
        await machine.clock.sleep(2 * machine.settings.retry_delay_seconds_max)

    machine.follow(a_day)

    machine.check_everything_arrived()
    assert calls < 24 * HOUR_SECONDS / (machine.settings.retry_delay_seconds_max / 2) + 100
    assert len(warnings(caplog)) <= 2


def test_a_denied_table_rests_alone(machine: Machine) -> None:
    """Goal: others go on. Method: one of two tables is denied for a day, and then is not."""
    machine.sink.deny("p_bad_experiment_results", "describe")

    async def a_day(engine: Engine) -> None:
        await machine.store_beside_a_bad_table(engine)
        machine.sink.deny("p_bad_experiment_results", None)
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)

    machine.follow(a_day)

    machine.check_everything_arrived()


def test_where_streaming_is_denied_rows_go_by_load_jobs(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: projects without billing work, and are told so once; with billing rows are streamed again.

    Method: streaming is denied for two tables over two processes, then allowed; methods are counted.
    """
    for dataset in ("d", "e"):
        machine.local.store(name="old", dataset=dataset)
    machine.run_pass()
    machine.let_tables_settle()
    machine.cloud_faults.shared[TABLES] = ("billing_off", float("inf"))

    async def script(engine: Engine) -> None:
        for number in range(4):
            name = f"run{machine.processes}{number}"
            runs = [machine.local.store(name=name, dataset=dataset) for dataset in ("d", "e")]
            for run in runs:
                engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(120)
            assert [machine.state_of(run) for run in runs] == [("synced", "")] * 2

    for _ in range(2):
        caplog.clear()
        machine.follow(script)
        [told] = warnings(caplog)
        assert "load jobs" in told
        assert SHARED_TROUBLES["billing_off"] in told
    assert machine.cloud_faults.fired["billing_off_of_tables"] <= 4

    machine.cloud_faults.shared.clear()
    jobs = len(machine.sink.jobs)
    machine.follow(script)
    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == jobs


def test_load_jobs_that_could_not_be_listed_for_a_moment_are_waited_for(machine: Machine) -> None:
    """Goal: a denial that passes doubles no row.

    Method: a job is queued when the ledger is lost; at the next start it cannot be listed once, while the
    table already answers.
    """
    machine.sink.load_queued_seconds = 200.0
    machine.local.store()
    machine.crash_points.arm("queued", 1)
    with pytest.raises(CrashError):
        machine.run_pass()
    machine.crash_points.arm("", 0)
    machine.lose_ledger()
    denied = SyncError("list load jobs of table", TABLE, "denied", failure=Failure.PERMISSION)
    machine.sink.fail_next("running_loads", denied)

    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 1


@pytest.mark.parametrize("missing", [BUCKET, TABLES])
def test_a_bucket_or_dataset_that_is_away_is_told_once(
    machine: Machine, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """Goal: what works beside it does not end the pause. Method: it is away for half an hour, with work."""
    settled(machine)

    def set_missing(*, away: bool) -> None:
        machine.store.missing = away and missing == BUCKET
        machine.sink.dataset_exists = not away or missing == BUCKET

    async def script(engine: Engine) -> None:
        machine.sink.visible_after_seconds = 300.0
        for number in range(40):
            if number == 5:
                set_missing(away=True)
            run = machine.local.store(name=f"run{number}", dataset=f"d{number % 3}")
            engine.scan_soon(run.key.dataset_key)
            await machine.clock.sleep(60)
        assert (await engine.describe()).startswith("paused: ")
        assert machine.check().runs[RunState.QUARANTINED] == 0
        set_missing(away=False)
        await machine.clock.sleep(2 * machine.settings.retry_delay_seconds_max + 600)
        assert await engine.describe() == "everything is synced"

    machine.follow(script)

    machine.check_everything_arrived()
    assert len([line for line in warnings(caplog) if "everything is paused" in line]) == 1
    assert len(warnings(caplog)) == 1, warnings(caplog)
