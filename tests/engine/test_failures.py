"""Failures that pass by themselves: single ones, outages of days, and credentials that expire."""

from typing import get_args

import pytest

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.pipeline.engine import Engine
from tests.engine.cloud_faults import BUCKET
from tests.engine.machine import Machine
from tests.fakes.row_sink import Method

DAY_SECONDS = 24 * 3600.0
STORE_METHODS = ["check", "upload", "upload_resumable", "stat", "list"]
SINK_METHODS = [method for method in get_args(Method) if method not in ("read_table", "is_filtered")]


def failing(method: str, failure: Failure = Failure.TRANSIENT, seconds: float | None = None) -> SyncError:
    return SyncError(method, "the service", failure.value, failure=failure, retry_after_seconds=seconds)


def run_that_needs_everything(machine: Machine) -> None:
    """Make the next pass call every method: new and changed tables, a large file, a lost ledger.

    One of two records of a run is in its table, so that cells decide which.
    """
    old = machine.local.store(name="old", dataset="known", values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()
    machine.local.store(name="plain", dataset="known", values={"score": 2})
    machine.run_pass()
    machine.local.commit(old, {"score": 3})
    machine.lose_ledger()
    machine.clock.let_pass(1)
    for dataset in ("known", "fresh"):
        machine.local.store(name="new", dataset=dataset, values={"score": 1.5, "more": "x"})
    machine.local.store(
        name="large", dataset="fresh", images=1, image_bytes=machine.settings.resumable_threshold_bytes
    )
    machine.local.store(name="later", dataset="settled")


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", STORE_METHODS)
def test_a_failing_bucket_method_only_delays(
    machine: Machine, method: str, times: int, failure: Failure
) -> None:
    """Goal: one bad moment loses nothing.

    Method: each method fails first, in a pass that needs all of them.
    """
    run_that_needs_everything(machine)
    machine.store.lose_answer_next("upload")
    machine.store.fail_next(method, failing(method, failure), times=times)

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    machine.check_everything_arrived()
    assert machine.store.faults_pending == 0


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", SINK_METHODS)
def test_a_failing_table_method_only_delays(
    machine: Machine, method: Method, times: int, failure: Failure
) -> None:
    """Goal: the same for tables. Method: the same; streaming needs a table that is settled."""
    run_that_needs_everything(machine)
    if method == "stream":
        machine.run_pass()
        machine.let_tables_settle()
        machine.local.store(name="streamed", dataset="fresh")
    machine.sink.fail_next(method, failing(method, failure), times=times)

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    machine.check_everything_arrived()
    assert machine.sink.faults_left == 0


@pytest.mark.parametrize("where", [BUCKET, "p_d_experiment_results"])
def test_a_pass_leaves_work_when_attempts_run_out(machine: Machine, where: str) -> None:
    """Goal: a pass ends although the cloud is away, says so, and a later one finishes it.

    Method: an outage for a whole pass; the number of calls is bounded.
    """
    for number in range(40):
        machine.local.store(name=f"run{number}")
    machine.cloud_faults.outages = {where}

    left = machine.run_pass(attempts_limit=3)

    assert (left.waiting, left.quarantined) == (40, 0)
    assert machine.cloud_faults.fired["outage"] < 60
    machine.check()
    machine.cloud_faults.outages = set()
    assert machine.run_pass().waiting == 0
    machine.check_everything_arrived()


def test_retry_after_is_obeyed(machine: Machine) -> None:
    """Goal: nothing is sent before the service allows it.

    Method: a 429 that asks for a quarter of an hour.
    """
    machine.local.store(images=1)
    machine.store.fail_next("upload", failing("upload", Failure.QUOTA, 900.0))

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.clock.elapsed_seconds >= 900.0


def test_an_outage_of_days_costs_few_attempts_and_no_time_afterwards(machine: Machine) -> None:
    """Goal: offline is a normal state.

    Method: two days without the bucket, with 200 runs waiting; attempts are counted, and so is the time from
    its return until everything has arrived.
    """
    for number in range(200):
        machine.local.store(name=f"run{number}", images=1)
    machine.cloud_faults.outages = {BUCKET}

    async def two_days(_: Engine) -> None:
        await machine.clock.sleep(2 * DAY_SECONDS)
        machine.cloud_faults.outages = set()
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)

    machine.follow(two_days)

    machine.check_everything_arrived()
    most = 2 * DAY_SECONDS / (machine.settings.retry_delay_seconds_max / 2) + 100
    assert 100 < machine.cloud_faults.fired["outage"] < most


def test_an_outage_before_the_first_contact_is_waited_out(machine: Machine) -> None:
    """Goal: a machine that starts offline syncs once it is online.

    Method: the same with an empty ledger and many datasets; all calls of both ports are counted.
    """
    for number in range(40):
        machine.local.store(dataset=f"d{number}")
    machine.cloud_faults.outages = {BUCKET}

    async def a_day(_: Engine) -> None:
        await machine.clock.sleep(DAY_SECONDS)
        machine.cloud_faults.outages = set()
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)

    machine.follow(a_day)

    machine.check_everything_arrived()
    assert machine.cloud_faults.fired["outage"] < 10 * DAY_SECONDS / (
        machine.settings.retry_delay_seconds_max / 2
    )


def test_an_outage_of_one_table_does_not_touch_another(machine: Machine) -> None:
    """Goal: a destination in trouble rests alone.

    Method: one table is away for a day; the other's rows come.
    """
    machine.cloud_faults.outages = {"p_bad_experiment_results"}
    calls = 0

    async def a_day(engine: Engine) -> None:
        nonlocal calls
        await machine.store_beside_a_bad_table(engine)
        calls = machine.cloud_faults.fired["outage"]
        machine.cloud_faults.outages = set()
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)

    machine.follow(a_day)

    machine.check_everything_arrived()
    assert calls < DAY_SECONDS / (machine.settings.retry_delay_seconds_max / 2) + 100


def test_a_following_engine_without_work_sleeps(machine: Machine) -> None:
    """Goal: no CPU without work. Method: a day of following; the turns of the event loop are counted."""
    machine.local.store()

    async def a_day(_: Engine) -> None:
        # Until the hours are over of which the log tells, and the first one in which nothing happens.
        await machine.clock.sleep(2 * 3600 + 60)
        steps = machine.clock.steps
        await machine.clock.sleep(DAY_SECONDS)
        assert machine.clock.steps - steps < 10

    machine.follow(a_day)
    machine.check_everything_arrived()


def test_a_pass_without_credentials_fails_and_a_later_one_succeeds(machine: Machine) -> None:
    """Goal: missing credentials are an error, not a wait.

    Method: they are away for a pass, with and without a ledger that has seen the destination.
    """
    for number in range(3):
        machine.local.store(name=f"run{number}")
        machine.cloud_faults.credentials = False
        with pytest.raises(ConfigurationError, match="401"):
            machine.run_pass()
        machine.check()
        machine.cloud_faults.credentials = True
        machine.run_pass()
        machine.check_everything_arrived()
        machine.let_tables_settle()


def test_following_rests_without_credentials_and_recovers_by_itself(machine: Machine) -> None:
    """Goal: a service outlives expired credentials. Method: they are away for a day, then renewed."""
    machine.local.store(name="before")

    async def a_day(engine: Engine) -> None:
        await machine.clock.sleep(60)
        machine.cloud_faults.credentials = False
        run = machine.local.store(name="during")
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(DAY_SECONDS)
        assert (await engine.describe()).startswith("paused: ")
        machine.cloud_faults.credentials = True
        await machine.clock.sleep(machine.settings.retry_delay_seconds_max + 60)
        assert await engine.describe() == "everything is synced"

    machine.follow(a_day)

    machine.check_everything_arrived()
    assert machine.cloud_faults.fired["credentials"] < 2 * DAY_SECONDS / (
        machine.settings.retry_delay_seconds_max / 2
    )


@pytest.mark.parametrize("missing", ["bucket", "dataset"])
def test_a_missing_destination_fails_at_once(machine: Machine, missing: str) -> None:
    """Goal: a wrong setting is told at the start, also by watch. Method: bucket or dataset does not exist."""
    machine.local.store()
    machine.store.missing = missing == "bucket"
    machine.sink.dataset_exists = missing != "dataset"

    async def never(_: Engine) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(ConfigurationError):
        machine.run_pass()
    with pytest.raises(ConfigurationError):
        machine.follow(never)
    assert machine.store.objects == {}


@pytest.mark.parametrize("seconds", [-6 * 3600.0, 6 * 3600.0, -400 * DAY_SECONDS])
def test_a_clock_that_jumps_is_survived(machine: Machine, seconds: float) -> None:
    """Goal: a wall clock set anew neither stops nor hurries the work.

    Method: it jumps while the bucket is away, rows are on their way and rows are in doubt; all arrives once,
    soon, and without a busy loop.
    """
    machine.sink.visible_after_seconds = 4.0
    machine.local.store(name="first")

    async def jump(engine: Engine) -> None:
        await machine.clock.sleep(400)
        machine.cloud_faults.outages = {BUCKET}
        run = machine.local.store(name="second")
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(3600)
        machine.clock.jump(seconds)
        machine.cloud_faults.outages = set()
        await machine.clock.sleep(3 * machine.settings.retry_delay_seconds_max)
        run = machine.local.store(name="third")
        engine.scan_soon(run.key.dataset_key)
        await machine.clock.sleep(1)
        steps = machine.clock.steps
        machine.clock.jump(seconds)
        await machine.clock.sleep(2 * machine.settings.visibility_timeout_seconds)
        assert machine.clock.steps - steps < 2000

    machine.follow(jump)
    machine.check_everything_arrived()


def test_runs_of_a_dataset_that_cannot_be_listed_say_why_they_wait(machine: Machine) -> None:
    """Goal: no run waits without a cause.

    Method: listing fails from the first day on; runs that come meanwhile say so too; then it works.
    """
    early = machine.local.store(name="early")
    machine.cloud_faults.plan("list", *[failing("list")] * 10_000)

    async def wait(engine: Engine) -> None:
        await machine.clock.sleep(3600)
        late = machine.local.store(name="late")
        engine.scan_soon(late.key.dataset_key)
        await machine.clock.sleep(60)

    machine.follow(wait)

    for run in machine.local.runs:
        state, cause = machine.state_of(run)
        assert state == "failing"
        assert "list" in cause
    machine.cloud_faults.plan("list")
    assert machine.run_pass().waiting == 0
    assert machine.state_of(early)[0] == "synced"
    machine.check_everything_arrived()


def test_status_says_why_everything_rests(machine: Machine) -> None:
    """Goal: runs that wait for credentials do not look as if they waited for their turn.

    Method: credentials expire while `watch` has work, and are renewed; status is asked in between and after.
    """
    told: list[list[str]] = []

    async def expire(engine: Engine) -> None:
        machine.local.store(name="first")
        engine.scan_soon(machine.local.runs[0].key.dataset_key)
        await machine.clock.sleep(60)
        machine.cloud_faults.credentials = False
        engine.scan_soon(machine.local.store(name="second").key.dataset_key)
        await machine.clock.sleep(60)
        told.append([problem.cause for problem in machine.check().problems if problem.state == "notice"])
        machine.cloud_faults.credentials = True
        await machine.clock.sleep(2 * machine.settings.retry_delay_seconds_max)
        told.append([problem.cause for problem in machine.check().problems if problem.state == "notice"])

    machine.follow(expire)

    [[cause], after] = told
    assert "401" in cause
    assert after == []
    machine.check_everything_arrived()
