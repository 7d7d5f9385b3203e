"""Plans: what an apply does is what its plan says, or it is refused with what has changed.

Operations are counted by the cloud's own counters.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.foreseen import Fate
from pixaris_sync.model import Column, ColumnType, RunKey
from pixaris_sync.plans import applying
from pixaris_sync.plans.applying import PlanChangedError, check_destination
from pixaris_sync.plans.file import StoredPlan, check_place, read_plan, write_plan
from pixaris_sync.plans.plan import Plan
from pixaris_sync.rules.prices import Operations
from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine
from tests.support.schemas import misfit

TABLE = "p_d_experiment_results"


def stored(machine: Machine, **selection: Any) -> StoredPlan:
    """A plan that was written to a file and read back."""
    plan = machine.plan(**selection)
    path = machine.ledger_path.parent / "plan.json"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    write_plan(path, plan)
    found = read_plan(path)
    assert found.plan == plan
    assert misfit("plan", json.loads(path.read_text())) == ""
    return found


def counted(machine: Machine) -> Operations:
    """What the cloud was asked since its counters were cleared."""
    store, sink = machine.store, machine.sink
    return Operations(
        uploads=store.counts["upload"] + store.counts["upload_resumable"],
        listings=store.counts["list"],
        lookups=store.counts["stat"] + store.counts["check"],
        load_jobs=sink.counts["load"],
        queries=len(sink.queries),
        query_bytes=sum(max(10_000_000, query.read_bytes) for query in sink.queries),
        streamed_rows=sink.counts["stream"],
    )


def clear_counters(machine: Machine) -> None:
    sink, store = machine.sink, machine.store
    for one in (sink.counts, sink.queries, sink.calls, store.calls, store.uploads):
        one.clear()


def refusal(machine: Machine, plan: StoredPlan) -> tuple[str, ...]:
    """In what an apply says that things differ; it has done nothing."""
    before = dict(machine.store.objects), machine.sink.counts["load"], machine.sink.counts["stream"]
    with pytest.raises(PlanChangedError) as caught:
        machine.apply(plan)
    assert (dict(machine.store.objects), machine.sink.counts["load"], machine.sink.counts["stream"]) == before
    return caught.value.differences


# -- the estimate ---------------------------------------------------------------------------------------


def small(machine: Machine) -> None:
    machine.local.store(name="one", images=2, values={"score": 0.5})


def many_runs(machine: Machine) -> None:
    for number in range(600):
        machine.local.store(name=f"run{number:03}", images=1, values={"score": number})


def many_datasets(machine: Machine) -> None:
    for number in range(12):
        machine.local.store(dataset=f"d{number}", images=3, values={"number": number})


def large_files(machine: Machine) -> None:
    run = machine.local.store(name="large", images=1)
    machine.local.put_image(run, "generated_images/large.png", size=900_000)


def there_already(machine: Machine) -> None:
    for number in range(30):
        machine.local.store(name=f"run{number:03}", images=2, values={"score": number})
    machine.run_pass()
    machine.lose_ledger()
    machine.local.store(name="new", images=2, values={"score": 3})


def new_columns(machine: Machine) -> None:
    machine.local.store(name="first", images=1, values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()
    for number in range(20):
        machine.local.store(name=f"run{number}", images=1, values={"score": 0.5, f"key{number}": "x"})


FOLDERS = [small, many_runs, many_datasets, large_files, there_already, new_columns]


@pytest.mark.parametrize("prepare", FOLDERS, ids=lambda one: one.__name__)
def test_the_estimate_is_what_is_then_counted(machine: Machine, prepare: Callable[[Machine], None]) -> None:
    """Goal: acceptance 3, within 5 %. Method: folders of each kind; the cloud counts what the apply asks."""
    prepare(machine)
    plan = stored(machine)
    clear_counters(machine)

    machine.apply(plan)

    machine.check_everything_arrived()
    estimate, done = plan.plan.operations, counted(machine)
    assert done.uploads
    assert estimate.uploads == done.uploads
    for kind in ("count", "query_bytes", "dollars"):
        foreseen, found = getattr(estimate, kind), getattr(done, kind)
        assert abs(foreseen - found) <= 0.05 * found, (kind, estimate, done)


def test_a_plan_tells_each_file_row_and_column(machine: Machine) -> None:
    """Goal: it can be reviewed. Method: a run that is there, a new one with a new column, a damaged line."""
    there = machine.local.store(name="there", images=1, values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()
    machine.lose_ledger()
    new = machine.local.store(name="new", images=2, values={"score": 0.5, "cfg": 7})
    with (machine.local.root / "p" / "d" / "experiment_tracking.jsonl").open("a") as tracking:
        tracking.write("{damaged\n")

    plan = stored(machine).plan

    runs = {one.run: one for one in plan.runs}
    assert runs.keys() == {new.key, there.key}
    assert {file.fate for file in runs[new.key].files} == {Fate.SENT}
    assert [row.fate for row in runs[new.key].rows] == [Fate.SENT]
    assert {file.fate for file in runs[there.key].files} == {Fate.FOUND}
    assert [row.fate for row in runs[there.key].rows] == [Fate.FOUND]
    [table] = plan.tables
    assert (table.table, table.add, table.widen) == (TABLE, ("cfg INTEGER",), ("score",))
    assert [one["state"] for one in plan.left_out] == ["quarantined"]
    assert plan.summary["runs"] == 2
    assert plan.operations.uploads == 2
    assert 0 < plan.operations.dollars < 0.01


# -- what has changed ---------------------------------------------------------------------------------------


def test_a_plan_is_refused_once_the_folder_has_changed(machine: Machine) -> None:
    """Goal: acceptance 3. Method: a file added, changed, removed; a run added, removed; a line added."""
    runs = {name: machine.local.store(name=name, images=2) for name in ("a", "b", "c", "gone", "line")}
    plan = stored(machine)
    folders = {name: machine.local.root / str(run.key) for name, run in runs.items()}
    images = {name: sorted((folder / "generated_images").iterdir()) for name, folder in folders.items()}

    (folders["a"] / "generated_images" / "more.png").write_bytes(images["a"][0].read_bytes())
    os.utime(images["b"][0], ns=(0, 1))
    images["c"][0].unlink()
    shutil.rmtree(folders["gone"])
    tracking = machine.local.root / "p" / "d" / "experiment_tracking.jsonl"
    lines = tracking.read_text().splitlines()
    tracking.write_text("\n".join(line for line in lines if str(runs["gone"].key.run) not in line) + "\n")
    with tracking.open("a") as file:
        again = json.loads(next(line for line in lines if runs["line"].key.run in line))
        file.write(json.dumps({**again, "more": 1}) + "\n")
    new = machine.local.store(name="new", images=1)

    found = refusal(machine, plan)

    expected = {
        f"{runs['a'].key}/generated_images/more.png: the file is new",
        f"{runs['b'].key}/generated_images/{images['b'][0].name}: the file was changed",
        f"{runs['c'].key}/generated_images/{images['c'][0].name}: the file was removed",
        f"{runs['gone'].key}: the run was removed",
        f"{new.key}: the run is new",
    }
    assert expected <= set(found)
    assert any(one.startswith(f"{runs['line'].key}, line ") and "is new" in one for one in found)


def put_object(machine: Machine, run: RunKey, plan: Plan) -> None:
    """Somebody puts the run's first image there, as it is here."""
    path = next(file.path for one in plan.runs if one.run == run for file in one.files)
    content = (machine.local.root / str(run) / path).read_bytes()
    machine.store.put(f"results/{run}/{path}", content)


def test_a_plan_is_refused_once_an_object_is_there(machine: Machine) -> None:
    """Goal: acceptance 3. Method: somebody uploads one of its files meanwhile."""
    run = machine.local.store(name="a", images=1)
    plan = stored(machine)
    put_object(machine, run.key, plan.plan)

    [found] = refusal(machine, plan)

    assert found.startswith(f"{run.key}/generated_images/")
    assert found.endswith(" is in the cloud already, which is to be sent by the plan")


def test_a_plan_is_refused_once_a_table_or_its_rows_have_changed(machine: Machine) -> None:
    """Goal: acceptance 3. Method: its table is made; a column is added; another machine sends its row."""
    machine.local.store(name="a", images=1, values={"score": 1})
    plan = stored(machine)
    machine.clock.run(lambda: machine.sink.create_table(TABLE, [Column("x", ColumnType.STRING)]))
    assert f"table {TABLE}: it was created" in refusal(machine, plan)

    plan = stored(machine)
    machine.sink.table(TABLE).add([Column("theirs", ColumnType.STRING)], -float("inf"))
    assert refusal(machine, plan) == (f"table {TABLE}: 1 column has changed: theirs STRING",)

    plan = stored(machine)
    machine.run_pass()
    machine.lose_ledger()
    found = refusal(machine, plan)
    assert any("its row is in the cloud already, which is to be sent by the plan" in one for one in found)


def test_a_plan_is_refused_once_its_runs_are_synced(machine: Machine) -> None:
    """Goal: nothing is done twice. Method: `sync` goes first."""
    run = machine.local.store(name="a", images=1)
    plan = stored(machine)
    machine.run_pass()
    assert refusal(machine, plan) == (f"{run.key}: the run is synced by now",)


def test_nothing_but_the_plan_is_carried(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: exactly. Method: a run is stored between the check and the work; a later pass carries it."""
    planned = machine.local.store(name="a", images=1)
    plan = stored(machine)
    late: list[Any] = []
    begin = applying.begin_plan

    async def begin_and_store(*arguments: Any, **options: Any) -> Any:
        mode = await begin(*arguments, **options)
        late.append(machine.local.store(name="late", images=1))
        return mode

    monkeypatch.setattr(applying, "begin_plan", begin_and_store)
    left = machine.apply(plan)

    assert late
    assert left.waiting == 0
    assert machine.state_of(planned)[0] == "synced"
    assert machine.state_of(late[0])[0] == "pending"
    assert not [name for name in machine.store.objects if "late" in name]
    machine.run_pass()
    machine.check_everything_arrived()


def test_other_runs_than_selected_are_no_difference(machine: Machine) -> None:
    """Goal: a plan of a part. Method: the other part changes; it is neither judged nor carried."""
    machine.local.store(dataset="d", name="a", images=1)
    plan = stored(machine, datasets=("d",))
    machine.local.store(dataset="other", name="b", images=1)
    machine.apply(plan)
    assert {name.split("/")[2] for name in machine.store.objects} == {"d"}


# -- interrupted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "at"),
    [("upload", 1), ("upload", 4), ("answer", 3), ("load", 1), ("commit", 12), ("commit", 20), ("step", 40)],
)
def test_an_interrupted_apply_goes_on_with_the_same_plan(machine: Machine, kind: str, at: int) -> None:
    """Goal: acceptance 3. Method: kill it at instants of each kind; what it did itself is no difference."""
    machine.local.store(dataset="new", name="a", images=3, values={"score": 1})
    machine.local.store(name="b", images=3, values={"score": 1})
    machine.run_pass()
    machine.let_tables_settle()
    for number in range(3):
        machine.local.store(name=f"c{number}", images=2, values={"score": 0.5, "more": number})
        machine.local.store(dataset="third", name=f"c{number}", images=2)
    plan = stored(machine)
    machine.crash_points.arm(kind, at)
    with pytest.raises(CrashError):
        machine.apply(plan)
    machine.crash_points.arm("", 0)

    machine.apply(plan)

    machine.check_everything_arrived()


# -- the file ------------------------------------------------------------------------------------------------


def test_a_plan_that_was_touched_is_refused(machine: Machine, tmp_path: Path) -> None:
    """Goal: what was reviewed is what is done. Method: cut it, change it, another version, no plan at all."""
    machine.local.store(name="a", images=1)
    path = tmp_path / "plan.json"
    write_plan(path, machine.plan())
    whole = path.read_text()
    for text, cause in (
        (whole[:-20], "it is no plan, or it is damaged"),
        (whole.replace('"full": false', '"full": true'), "it was changed after it was written"),
        (whole.replace('"version": 1', '"version": 2'), "it is of version 2"),
        ("[1]", "it is no plan"),
        ("{}", "it is no plan"),
        ("", "it is no plan"),
    ):
        path.write_text(text)
        with pytest.raises(SyncError, match=cause):
            read_plan(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SyncError, match="no plan"):
        read_plan(path)
    with pytest.raises(SyncError, match="No such file"):
        read_plan(tmp_path / "nothing")


def test_a_plan_is_written_once_and_not_among_results(machine: Machine, tmp_path: Path) -> None:
    """Goal: nothing is lost, no stray file shows in Pixaris. Method: the places that are refused."""
    machine.local.store(name="a", images=1)
    plan, path = machine.plan(), tmp_path / "plan.json"
    check_place(path, machine.local.root)
    write_plan(path, plan)
    with pytest.raises(SyncError, match="there is a file already"):
        check_place(path, machine.local.root)
    with pytest.raises(SyncError, match="File exists"):
        write_plan(path, plan)
    with pytest.raises(SyncError, match="in the results folder"):
        check_place(machine.local.root / "p" / "plan.json", machine.local.root)
    with pytest.raises(SyncError, match="its folder is not there"):
        check_place(tmp_path / "no" / "plan.json", machine.local.root)
    assert [one.name for one in tmp_path.glob("*plan*")] == ["plan.json"]


@pytest.mark.parametrize("what", ["folder", "bucket", "dataset"])
def test_a_plan_for_another_destination_is_refused(machine: Machine, what: str) -> None:
    """Goal: no plan goes elsewhere. Method: another folder, bucket, dataset than the settings name."""
    machine.local.store(name="a", images=1)
    plan = stored(machine)
    check_destination(machine.settings, plan, "plan.json")
    changed: dict[str, Any] = {what: "other"}
    other = StoredPlan(replace(plan.plan, **changed), plan.checksum)
    with pytest.raises(SyncError, match=f"{what} other, and the settings name"):
        check_destination(machine.settings, other, "plan.json")
