"""Whole passes without faults: what arrives, in which order, and that nothing is done twice."""

from pathlib import Path

import pytest

from pixaris_sync.limits.cpu import CpuGovernor
from pixaris_sync.pipeline.discovery import ScanDepth
from pixaris_sync.pipeline.engine import Engine
from tests.engine.machine import Machine


def test_a_run_arrives_whole(machine: Machine) -> None:
    """Goal: images, saved args, dict metrics and the row arrive.

    Method: one run with all of them, one pass.
    """
    values = {"score": 0.5, "steps": 7, "good": True, "note": "text", "curve": {"a": [1, 2]}}
    run = machine.local.store(images=3, saved=["pose.png", "config.json"], values=values)

    left = machine.run_pass()

    assert (left.waiting, left.quarantined) == (0, 0)
    machine.check_everything_arrived()
    [row] = machine.sink.visible_rows(run.table)
    assert row["curve"].endswith(f"/{run.object_name('curve.json')}?project=gcp")
    assert len(machine.store.objects) == 6


@pytest.mark.parametrize("bulk", [False, True])
def test_many_runs_of_several_datasets_arrive(machine: Machine, *, bulk: bool) -> None:
    """Goal: many datasets are carried at once.

    Method: 60 runs in six datasets, latency, a pass of each kind.
    """
    machine.cloud_faults.latency_seconds = 0.5
    for number in range(60):
        machine.local.store(f"p{number % 2}", f"d{number % 3}", f"run{number}", values={"loss": number / 7})

    machine.run_pass(bulk=bulk)

    machine.check_everything_arrived()
    assert len(machine.sink.tables) == 6


def test_two_datasets_that_share_a_table_both_go_on(machine: Machine) -> None:
    """Goal: a_b/c and a/b_c meet in one table and lose no row.

    Method: runs in both; the notice is looked for.
    """
    for number in range(4):
        machine.local.store("a_b", "c", f"one{number}")
        machine.local.store("a", "b_c", f"other{number}")

    machine.run_pass()

    machine.check_everything_arrived()
    assert machine.sink.tables == ["a_b_c_experiment_results"]
    assert [problem.state for problem in machine.check().problems] == ["notice"]


@pytest.mark.parametrize("streamed", [False, True])
def test_equal_records_of_two_datasets_that_share_a_table_are_two_rows(
    machine: Machine, *, streamed: bool
) -> None:
    """Goal: even records that are equal to the last character count each for itself.

    Method: the same record in a_b/c and a/b_c, both ways of delivery; the rows are counted.
    """
    if streamed:
        machine.local.store("a", "b_c", "first")
        machine.run_pass()
        machine.let_tables_settle()
    run = machine.local.store("a_b", "c", "same", images=1)
    other = machine.local.store("a", "b_c", "same", images=1, commit=False)
    machine.local.repeat_line(machine.local.records[-1], other)

    machine.run_pass()

    machine.check_everything_arrived()
    assert (
        len([row for row in machine.sink.visible_rows(run.table) if "_same" in row["experiment_run_name"]])
        == 2
    )


def test_two_runs_that_share_a_folder_are_two_rows(machine: Machine) -> None:
    """Goal: two records with one set of files are two rows, and equal lines are one.

    Method: two records in one folder, one of them in two lines.
    """
    run = machine.local.store(values={"score": 1})
    again = machine.local.commit(run, {"score": 2})
    machine.local.repeat_line(again)

    machine.run_pass()

    machine.check_everything_arrived()
    assert len(machine.sink.visible_rows(run.table)) == 2
    assert set(machine.store.upload_counts.values()) == {1}


def test_the_newest_runs_go_first_and_small_files_before_large_ones(folder: Path) -> None:
    """Goal: what somebody waits for comes first.

    Method: one upload at a time; the order of arrivals is read.
    """
    machine = Machine(folder, upload_concurrency_limit=1)
    runs = []
    for number in range(3):
        run = machine.local.store(name=f"run{number}", images=0)
        for image, size in enumerate([3000, 100, 9000]):
            machine.local.put_image(run, f"generated_images/image{image}.png", size=size)
        runs.append(run)
        machine.clock.let_pass(1)

    machine.run_pass()

    order = [remote.name for remote in machine.store.uploads]
    assert order == [
        run.object_name(f"generated_images/image{image}.png") for run in reversed(runs) for image in (1, 0, 2)
    ]
    machine.check_everything_arrived()


@pytest.mark.parametrize("bulk", [False, True])
def test_a_second_pass_asks_the_cloud_nothing(machine: Machine, *, bulk: bool) -> None:
    """Goal: what is synced costs nothing. Method: the calls of both ports are counted in a second pass."""
    for number in range(10):
        machine.local.store(dataset=f"d{number % 3}", name=f"run{number}")
    machine.run_pass(bulk=bulk)
    calls = machine.port_calls

    left = machine.run_pass(bulk=bulk)

    assert (left.waiting, left.quarantined) == (0, 0)
    assert machine.port_calls == calls


def test_a_full_pass_over_unchanged_files_asks_the_cloud_nothing(machine: Machine) -> None:
    """Goal: looking at every file again sends none. Method: the calls are counted in a full pass."""
    machine.local.store(saved=["config.json"])
    machine.run_pass()
    calls = machine.port_calls

    machine.run_pass(full=True)

    assert machine.port_calls == calls


def test_an_empty_folder_is_a_finished_pass(machine: Machine) -> None:
    """Goal: no work is no hang.

    Method: passes over an empty folder; the first looks whether bucket and dataset are there, and no other.
    """
    for _ in range(2):
        left = machine.run_pass()

        assert (left.waiting, left.quarantined, machine.port_calls) == (0, 0, 2)


def test_a_selected_dataset_goes_alone(machine: Machine) -> None:
    """Goal: a selection bounds the pass. Method: select one of two datasets, then the rest."""
    one = machine.local.store(dataset="one")
    machine.local.store(dataset="other")

    machine.run_pass(datasets=("one",))
    assert machine.sink.tables == [one.table]
    machine.run_pass()

    machine.check_everything_arrived()


def test_rows_of_the_steady_state_are_streamed(machine: Machine) -> None:
    """Goal: load jobs are for new tables only. Method: a later run of a settled table goes by stream."""
    machine.local.store(name="first")
    machine.run_pass()
    machine.let_tables_settle()
    machine.local.store(name="second")

    machine.run_pass()

    machine.check_everything_arrived()
    assert (machine.sink.counts["load"], machine.sink.counts["stream"]) == (1, 1)


def test_a_pass_holds_to_its_share_of_the_processor(machine: Machine) -> None:
    """Goal: the limit holds, and what waits for it does not use it up.

    Method: 600 files; each upload uses 2 ms, and each task that is woken some, too; a tenth of a core.
    """
    governor, asked = CpuGovernor(10), 0

    def used_seconds() -> float:
        return 0.002 * len(machine.store.objects) + 0.000_05 * asked

    def throttle_seconds() -> float:
        nonlocal asked
        asked += 1
        return governor.throttle_seconds(machine.clock.elapsed(), used_seconds())

    async def work(engine: Engine) -> None:
        engine.context.throttle_seconds = throttle_seconds
        for number in range(6):
            machine.local.store(f"run{number}", images=100)
        began = machine.clock.elapsed()
        await engine.scan_all_soon(ScanDepth.EVERYTHING)
        while len(machine.store.objects) < 600:
            await machine.clock.sleep(0.1)
        assert machine.clock.elapsed() - began == pytest.approx(used_seconds() / 0.1, rel=0.1)

    machine.follow(work)

    machine.check_everything_arrived()
    assert asked < 10 * 600
