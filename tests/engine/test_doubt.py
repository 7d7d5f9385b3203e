"""Lost answers: what may have been done is looked up before it is tried again, and happens once."""

import pytest

from pixaris_sync.errors import Failure, SyncError
from tests.engine.weather import LOST
from tests.engine.world import World
from tests.fakes.row_sink import Method


def settle(world: World, table_runs: int = 1) -> None:
    """Let a first run make the table, and streaming become its way."""
    for number in range(table_runs):
        world.local.store(name=f"first{number}")
    world.run_pass()
    world.clock.let_pass(world.settings.table_settle_seconds)


@pytest.mark.parametrize("times", [1, 3])
def test_an_upload_whose_answer_is_lost_is_found(world: World, times: int) -> None:
    """Goal: no object is written twice.

    Method: answers of uploads are lost; the uploads of each are counted.
    """
    for number in range(5):
        world.local.store(name=f"run{number}")
    world.store.lose_answer_next("upload", times=times)

    world.run_pass()

    world.check_everything_arrived()
    assert world.store.faults_fired == times
    assert set(world.store.upload_counts.values()) == {1}


def test_a_resumable_upload_whose_answer_is_lost_is_found(world: World) -> None:
    """Goal: the same for large files. Method: a file above the threshold; the answer of its end is lost."""
    size = world.settings.resumable_threshold_bytes
    world.local.store(images=1, image_bytes=size)
    world.store.lose_answer_next("upload_resumable")

    world.run_pass()

    world.check_everything_arrived()
    assert world.store.faults_fired == 1
    assert set(world.store.upload_counts.values()) == {1}


def test_a_cut_resumable_upload_goes_on_where_it_was(world: World) -> None:
    """Goal: nothing is sent again that has arrived. Method: cut the session half way; count the bytes."""
    size = world.settings.resumable_threshold_bytes
    run = world.local.store(images=1, image_bytes=size)
    world.store.cut_session_after(size // 2)

    world.run_pass()

    world.check_everything_arrived()
    [content] = run.versions["generated_images/image0.png"]
    assert world.store.bytes_received == len(content)


@pytest.mark.parametrize("dedup_seconds", [0.0, 60.0])
def test_a_stream_whose_answer_is_lost_is_looked_for(world: World, dedup_seconds: float) -> None:
    """Goal: rows taken without an answer are not sent again, even where BigQuery remembers no insertId.

    Method: lose the answer of a streaming insert; read the rows.
    """
    settle(world)
    world.sink.dedup_seconds = dedup_seconds
    world.sink.visible_after_seconds = 3.0
    for number in range(3):
        world.local.store(name=f"run{number}")
    world.sink.lose_answer("stream")

    world.run_pass()

    world.check_everything_arrived()
    assert (world.sink.faults_fired["stream"], world.sink.counts["stream"]) == (1, 1)


def test_a_stream_that_was_not_taken_goes_by_load_after_the_settling_time(world: World) -> None:
    """Goal: in doubt and not there is sent again, but not too early.

    Method: an IN_DOUBT failure before any work.
    """
    settle(world)
    world.local.store(name="run")
    world.sink.fail_next("stream", SyncError("stream", "t", "no answer", failure=Failure.IN_DOUBT))
    begun = world.clock.now()

    world.run_pass()

    world.check_everything_arrived()
    assert world.clock.now() - begun >= world.settings.doubt_settle_seconds
    assert world.sink.counts["load"] == 2


@pytest.mark.parametrize("bulk", [False, True])
def test_a_load_job_whose_answer_is_lost_is_found_by_its_id(world: World, *, bulk: bool) -> None:
    """Goal: a job runs once. Method: lose the answer of a load; the jobs and their ids are counted."""
    for number in range(3):
        world.local.store(name=f"run{number}")
    world.sink.lose_answer("load")

    world.run_pass(bulk=bulk)

    world.check_everything_arrived()
    assert world.sink.faults_fired["load"] == 1
    assert len(world.sink.jobs) == 1


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT, Failure.PERMISSION])
def test_a_lost_load_job_is_not_replaced_while_it_cannot_be_asked_for(world: World, failure: Failure) -> None:
    """Goal: a failed question about a job that may have run does not start another one.

    Method: lose the answer of a load, then let the next question for it fail; the rows are counted.
    """
    world.local.store()
    world.weather.plan("load", LOST, SyncError("load", "t", "not now", failure=failure))

    world.run_pass()

    assert world.weather.plans_left == 0
    assert len(world.sink.jobs) == 1
    world.run_pass()
    world.check_everything_arrived()


def test_credentials_that_expire_while_a_load_job_is_in_doubt_do_not_double_it(world: World) -> None:
    """Goal: nor does a pass that ends there. Method: lost answer, then a 401; a second pass finds the job."""
    world.local.store()
    world.weather.plan("load", LOST, SyncError("load", "t", "401", failure=Failure.CREDENTIALS))

    with pytest.raises(SyncError, match="401"):
        world.run_pass()
    world.run_pass()

    world.check_everything_arrived()
    assert len(world.sink.jobs) == 1


@pytest.mark.parametrize("method", ["columns", "create_table", "read_rows", "check"])
def test_a_question_whose_answer_is_lost_is_asked_again(world: World, method: Method) -> None:
    """Goal: what can be repeated without harm is, and at once. Method: lose each method's answer."""
    world.local.store()
    world.sink.lose_answer(method)
    begun = world.clock.now()

    world.run_pass()

    world.check_everything_arrived()
    assert world.sink.faults_fired[method] == 1
    assert world.clock.now() - begun < world.settings.doubt_settle_seconds


@pytest.mark.parametrize("method", ["add_columns", "widen_columns"])
def test_a_change_of_the_table_whose_answer_is_lost_is_made_again(world: World, method: Method) -> None:
    """Goal: the same for changes. Method: a run that needs a new and a wider column; lose the answer once."""
    world.local.store(values={"score": 1})
    world.run_pass()
    world.local.store(name="later", values={"score": 1.5, "new": "x"})
    world.sink.lose_answer(method)

    world.run_pass()

    world.check_everything_arrived()
    assert world.sink.faults_fired[method] == 1
