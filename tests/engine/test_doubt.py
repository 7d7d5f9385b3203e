"""Lost answers: what may have been done is looked up before it is tried again, and happens once."""

import pytest

from pixaris_sync.errors import Failure, SyncError
from tests.engine.cloud_faults import LOST
from tests.engine.machine import Machine
from tests.fakes.row_sink import Method


def settle(machine: Machine, table_runs: int = 1) -> None:
    """Let a first run make the table, and streaming become its way."""
    for number in range(table_runs):
        machine.local.store(name=f"first{number}")
    machine.run_pass()
    machine.let_tables_settle()


@pytest.mark.parametrize("times", [1, 3])
def test_an_upload_whose_answer_is_lost_is_found(machine: Machine, times: int) -> None:
    """Goal: no object is written twice.

    Method: answers of uploads are lost; the uploads of each are counted.
    """
    for number in range(5):
        machine.local.store(name=f"run{number}")
    machine.store.lose_answer_next("upload", times=times)

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.store.faults_fired == times
    assert set(machine.store.upload_counts.values()) == {1}


def test_a_resumable_upload_whose_answer_is_lost_is_found(machine: Machine) -> None:
    """Goal: the same for large files. Method: a file above the threshold; the answer of its end is lost."""
    size = machine.settings.resumable_threshold_bytes
    machine.local.store(images=1, image_bytes=size)
    machine.store.lose_answer_next("upload_resumable")

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.store.faults_fired == 1
    assert set(machine.store.upload_counts.values()) == {1}


def test_a_cut_resumable_upload_goes_on_where_it_was(machine: Machine) -> None:
    """Goal: nothing is sent again that has arrived. Method: cut the session half way; count the bytes."""
    size = machine.settings.resumable_threshold_bytes
    run = machine.local.store(images=1, image_bytes=size)
    machine.store.cut_session_after(size // 2)

    machine.run_pass()

    machine.check_everything_arrived()
    [content] = run.versions["generated_images/image0.png"]
    assert machine.store.bytes_received == len(content)


@pytest.mark.parametrize("dedup_seconds", [0.0, 60.0])
def test_a_stream_whose_answer_is_lost_is_looked_for(machine: Machine, dedup_seconds: float) -> None:
    """Goal: rows taken without an answer are not sent again, even where BigQuery remembers no insertId.

    Method: lose the answer of a streaming insert; read the rows.
    """
    settle(machine)
    machine.sink.dedup_seconds = dedup_seconds
    machine.sink.visible_after_seconds = 3.0
    for number in range(3):
        machine.local.store(name=f"run{number}")
    machine.sink.lose_answer("stream")

    machine.run_pass()

    machine.check_everything_arrived()
    assert (machine.sink.faults_fired["stream"], machine.sink.counts["stream"]) == (1, 1)


def test_a_stream_that_was_not_taken_goes_by_load_after_the_settling_time(machine: Machine) -> None:
    """Goal: in doubt and not there is sent again, but not too early.

    Method: an IN_DOUBT failure before any work.
    """
    settle(machine)
    machine.local.store(name="run")
    machine.sink.fail_next("stream", SyncError("stream", "t", "no answer", failure=Failure.IN_DOUBT))
    begun = machine.clock.now()

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.clock.now() - begun >= machine.settings.doubt_settle_seconds
    assert machine.sink.counts["load"] == 2


@pytest.mark.parametrize("bulk", [False, True])
def test_a_load_job_whose_answer_is_lost_is_found_by_its_id(machine: Machine, *, bulk: bool) -> None:
    """Goal: a job runs once. Method: lose the answer of a load; the jobs and their ids are counted."""
    for number in range(3):
        machine.local.store(name=f"run{number}")
    machine.sink.lose_answer("load")

    machine.run_pass(bulk=bulk)

    machine.check_everything_arrived()
    assert machine.sink.faults_fired["load"] == 1
    assert len(machine.sink.jobs) == 1


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT, Failure.PERMISSION])
def test_a_lost_load_job_is_not_replaced_while_it_cannot_be_asked_for(
    machine: Machine, failure: Failure
) -> None:
    """Goal: a failed question about a job that may have run does not start another one.

    Method: lose the answer of a load, then let the next question for it fail; the rows are counted.
    """
    machine.local.store()
    machine.cloud_faults.plan("load", LOST, SyncError("load", "t", "not now", failure=failure))

    machine.run_pass()

    assert machine.cloud_faults.plans_left == 0
    assert len(machine.sink.jobs) == 1
    machine.run_pass()
    machine.check_everything_arrived()


def test_credentials_that_expire_while_a_load_job_is_in_doubt_do_not_double_it(machine: Machine) -> None:
    """Goal: nor does a pass that ends there. Method: lost answer, then a 401; a second pass finds the job."""
    machine.local.store()
    machine.cloud_faults.plan("load", LOST, SyncError("load", "t", "401", failure=Failure.CREDENTIALS))

    with pytest.raises(SyncError, match="401"):
        machine.run_pass()
    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.jobs) == 1


@pytest.mark.parametrize("method", ["describe", "create_table", "count_rows", "check"])
def test_a_question_whose_answer_is_lost_is_asked_again(machine: Machine, method: Method) -> None:
    """Goal: what can be repeated without harm is, and at once. Method: lose each method's answer."""
    machine.local.store()
    machine.sink.lose_answer(method)
    begun = machine.clock.now()

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.faults_fired[method] == 1
    assert machine.clock.now() - begun < machine.settings.doubt_settle_seconds


@pytest.mark.parametrize("method", ["add_columns", "widen_columns"])
def test_a_change_of_the_table_whose_answer_is_lost_is_made_again(machine: Machine, method: Method) -> None:
    """Goal: the same for changes. Method: a run that needs a new and a wider column; lose the answer once."""
    machine.local.store(values={"score": 1})
    machine.run_pass()
    machine.local.store(name="later", values={"score": 1.5, "new": "x"})
    machine.sink.lose_answer(method)

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.faults_fired[method] == 1
