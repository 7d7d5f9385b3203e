"""Failures that pass by themselves: single ones, outages of days, and credentials that expire."""

from typing import get_args

import pytest

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.pipeline.engine import Engine
from tests.engine.weather import BUCKET
from tests.engine.world import World
from tests.fakes.row_sink import Method

DAY_SECONDS = 24 * 3600.0
STORE_METHODS = ["check", "upload", "upload_resumable", "stat", "list"]
SINK_METHODS = [method for method in get_args(Method) if method != "read_table"]


def failing(method: str, failure: Failure = Failure.TRANSIENT, seconds: float | None = None) -> SyncError:
    return SyncError(method, "the service", failure.value, failure=failure, retry_after_seconds=seconds)


def run_that_needs_everything(world: World) -> None:
    """Make the next pass call every method: new and changed tables, a large file, a lost ledger."""
    world.local.store(name="old", dataset="known", values={"score": 1})
    world.run_pass()
    world.clock.let_pass(world.settings.table_settle_seconds)
    world.local.store(name="plain", dataset="known", values={"score": 2})
    world.run_pass()
    world.lose_ledger()
    world.clock.let_pass(1)
    for dataset in ("known", "fresh"):
        world.local.store(name="new", dataset=dataset, values={"score": 1.5, "more": "x"})
    world.local.store(
        name="large", dataset="fresh", images=1, image_bytes=world.settings.resumable_threshold_bytes
    )
    world.local.store(name="later", dataset="settled")


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", STORE_METHODS)
def test_a_failing_bucket_method_only_delays(world: World, method: str, times: int, failure: Failure) -> None:
    """Goal: one bad moment loses nothing.

    Method: each method fails first, in a pass that needs all of them.
    """
    run_that_needs_everything(world)
    world.store.lose_answer_next("upload")
    world.store.fail_next(method, failing(method, failure), times=times)

    left = world.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    world.check_everything_arrived()
    assert world.store.faults_pending == 0


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("method", SINK_METHODS)
def test_a_failing_table_method_only_delays(
    world: World, method: Method, times: int, failure: Failure
) -> None:
    """Goal: the same for tables. Method: the same; streaming needs a table that is settled."""
    run_that_needs_everything(world)
    if method == "stream":
        world.run_pass()
        world.clock.let_pass(world.settings.table_settle_seconds)
        world.local.store(name="streamed", dataset="fresh")
    world.sink.fail_next(method, failing(method, failure), times=times)

    left = world.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    world.check_everything_arrived()
    assert world.sink.faults_left == 0


@pytest.mark.parametrize("where", [BUCKET, "p_d_experiment_results"])
def test_a_pass_leaves_work_when_attempts_run_out(world: World, where: str) -> None:
    """Goal: a pass ends although the cloud is away, says so, and a later one finishes it.

    Method: an outage for a whole pass; the number of calls is bounded.
    """
    for number in range(40):
        world.local.store(name=f"run{number}")
    world.weather.outages = {where}

    left = world.run_pass(attempts_limit=3)

    assert (left.waiting, left.quarantined) == (40, 0)
    assert world.weather.fired["outage"] < 60
    world.check()
    world.weather.outages = set()
    assert world.run_pass().waiting == 0
    world.check_everything_arrived()


def test_retry_after_is_obeyed(world: World) -> None:
    """Goal: nothing is sent before the service allows it.

    Method: a 429 that asks for a quarter of an hour.
    """
    world.local.store(images=1)
    world.store.fail_next("upload", failing("upload", Failure.QUOTA, 900.0))

    world.run_pass()

    world.check_everything_arrived()
    assert world.clock.elapsed_seconds >= 900.0


def test_an_outage_of_days_costs_few_attempts_and_no_time_afterwards(world: World) -> None:
    """Goal: offline is a normal state.

    Method: two days without the bucket, with 200 runs waiting; attempts are counted, and so is the time from
    its return until everything has arrived.
    """
    for number in range(200):
        world.local.store(name=f"run{number}", images=1)
    world.weather.outages = {BUCKET}

    async def two_days(_: Engine) -> None:
        await world.clock.sleep(2 * DAY_SECONDS)
        world.weather.outages = set()
        await world.clock.sleep(world.settings.retry_delay_seconds_max + 60)

    world.follow(two_days)

    world.check_everything_arrived()
    most = 2 * DAY_SECONDS / (world.settings.retry_delay_seconds_max / 2) + 100
    assert 100 < world.weather.fired["outage"] < most


def test_an_outage_before_the_first_contact_is_waited_out(world: World) -> None:
    """Goal: a machine that starts offline syncs once it is online.

    Method: the same with an empty ledger and many datasets; all calls of both ports are counted.
    """
    for number in range(40):
        world.local.store(dataset=f"d{number}")
    world.weather.outages = {BUCKET}

    async def a_day(_: Engine) -> None:
        await world.clock.sleep(DAY_SECONDS)
        world.weather.outages = set()
        await world.clock.sleep(world.settings.retry_delay_seconds_max + 60)

    world.follow(a_day)

    world.check_everything_arrived()
    assert world.weather.fired["outage"] < 10 * DAY_SECONDS / (world.settings.retry_delay_seconds_max / 2)


def test_an_outage_of_one_table_does_not_touch_another(world: World) -> None:
    """Goal: a destination in trouble rests alone.

    Method: one table is away for a day; the other's rows come.
    """
    world.weather.outages = {"p_bad_experiment_results"}
    calls = 0

    async def a_day(engine: Engine) -> None:
        nonlocal calls
        for number in range(24):
            for dataset in ("bad", "good"):
                run = world.local.store(dataset=dataset, name=f"run{number}")
                engine.scan_soon(run.key.dataset_key)
            await world.clock.sleep(60)
            assert len(world.sink.visible_rows("p_good_experiment_results")) == number + 1
            await world.clock.sleep(3540)
        calls = world.weather.fired["outage"]
        world.weather.outages = set()
        await world.clock.sleep(world.settings.retry_delay_seconds_max + 60)

    world.follow(a_day)

    world.check_everything_arrived()
    assert calls < DAY_SECONDS / (world.settings.retry_delay_seconds_max / 2) + 100


def test_a_following_engine_without_work_sleeps(world: World) -> None:
    """Goal: no CPU without work. Method: a day of following; the turns of the event loop are counted."""
    world.local.store()

    async def a_day(_: Engine) -> None:
        await world.clock.sleep(60)
        steps = world.clock.steps
        await world.clock.sleep(DAY_SECONDS)
        assert world.clock.steps - steps < 10

    world.follow(a_day)
    world.check_everything_arrived()


def test_a_pass_without_credentials_fails_and_a_later_one_succeeds(world: World) -> None:
    """Goal: missing credentials are an error, not a wait.

    Method: they are away for a pass, with and without a ledger that has seen the destination.
    """
    for number in range(3):
        world.local.store(name=f"run{number}")
        world.weather.credentials = False
        with pytest.raises(ConfigurationError, match="401"):
            world.run_pass()
        world.check()
        world.weather.credentials = True
        world.run_pass()
        world.check_everything_arrived()
        world.clock.let_pass(world.settings.table_settle_seconds)


def test_following_rests_without_credentials_and_recovers_by_itself(world: World) -> None:
    """Goal: a service outlives expired credentials. Method: they are away for a day, then renewed."""
    world.local.store(name="before")

    async def a_day(engine: Engine) -> None:
        await world.clock.sleep(60)
        world.weather.credentials = False
        run = world.local.store(name="during")
        engine.scan_soon(run.key.dataset_key)
        await world.clock.sleep(DAY_SECONDS)
        assert (await engine.describe()).startswith("paused: ")
        world.weather.credentials = True
        await world.clock.sleep(world.settings.retry_delay_seconds_max + 60)
        assert await engine.describe() == "everything is synced"

    world.follow(a_day)

    world.check_everything_arrived()
    assert world.weather.fired["credentials"] < 2 * DAY_SECONDS / (world.settings.retry_delay_seconds_max / 2)


@pytest.mark.parametrize("missing", ["bucket", "dataset"])
def test_a_missing_destination_fails_at_once(world: World, missing: str) -> None:
    """Goal: a wrong setting is told at the start, also by watch. Method: bucket or dataset does not exist."""
    world.local.store()
    world.store.missing = missing == "bucket"
    world.sink.dataset_exists = missing != "dataset"

    async def never(_: Engine) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(ConfigurationError):
        world.run_pass()
    with pytest.raises(ConfigurationError):
        world.follow(never)
    assert world.store.objects == {}


@pytest.mark.parametrize("seconds", [-6 * 3600.0, 6 * 3600.0, -400 * DAY_SECONDS])
def test_a_clock_that_jumps_is_survived(world: World, seconds: float) -> None:
    """Goal: a wall clock set anew neither stops nor hurries the work.

    Method: it jumps while the bucket is away, rows are on their way and rows are in doubt; all arrives once,
    soon, and without a busy loop.
    """
    world.sink.visible_after_seconds = 4.0
    world.local.store(name="first")

    async def jump(engine: Engine) -> None:
        await world.clock.sleep(400)
        world.weather.outages = {BUCKET}
        run = world.local.store(name="second")
        engine.scan_soon(run.key.dataset_key)
        await world.clock.sleep(3600)
        world.clock.jump(seconds)
        world.weather.outages = set()
        await world.clock.sleep(3 * world.settings.retry_delay_seconds_max)
        run = world.local.store(name="third")
        engine.scan_soon(run.key.dataset_key)
        await world.clock.sleep(1)
        steps = world.clock.steps
        world.clock.jump(seconds)
        await world.clock.sleep(2 * world.settings.visibility_timeout_seconds)
        assert world.clock.steps - steps < 2000

    world.follow(jump)
    world.check_everything_arrived()


def test_runs_of_a_dataset_that_cannot_be_listed_say_why_they_wait(world: World) -> None:
    """Goal: no run waits without a cause.

    Method: listing fails from the first day on; runs that come meanwhile say so too; then it works.
    """
    early = world.local.store(name="early")
    world.weather.plan("list", *[failing("list")] * 10_000)

    async def wait(engine: Engine) -> None:
        await world.clock.sleep(3600)
        late = world.local.store(name="late")
        engine.scan_soon(late.key.dataset_key)
        await world.clock.sleep(60)

    world.follow(wait)

    for run in world.local.runs:
        state, cause = world.state_of(run)
        assert state == "failing"
        assert "list" in cause
    world.weather.plan("list")
    assert world.run_pass().waiting == 0
    assert world.state_of(early)[0] == "synced"
    world.check_everything_arrived()


def test_status_says_why_everything_rests(world: World) -> None:
    """Goal: runs that wait for credentials do not look as if they waited for their turn.

    Method: credentials expire while `watch` has work, and are renewed; status is asked in between and after.
    """
    told: list[list[str]] = []

    async def expire(engine: Engine) -> None:
        world.local.store(name="first")
        engine.scan_soon(world.local.runs[0].key.dataset_key)
        await world.clock.sleep(60)
        world.weather.credentials = False
        engine.scan_soon(world.local.store(name="second").key.dataset_key)
        await world.clock.sleep(60)
        told.append([problem.cause for problem in world.check().problems if problem.state == "notice"])
        world.weather.credentials = True
        await world.clock.sleep(2 * world.settings.retry_delay_seconds_max)
        told.append([problem.cause for problem in world.check().problems if problem.state == "notice"])

    world.follow(expire)

    [[cause], after] = told
    assert "401" in cause
    assert after == []
    world.check_everything_arrived()
