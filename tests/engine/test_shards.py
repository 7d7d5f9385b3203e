"""Shards of one folder, and the pass that sends their rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from pixaris_sync.ledger.overview import WorkLeft
from pixaris_sync.local.contents import Content, PlannedFile, RunFiles
from pixaris_sync.rules.shards import Shard
from tests.engine.crash_points import CrashError
from tests.engine.machine import Machine

COUNT = 3
SHARDS = [Shard(number, COUNT) for number in range(1, COUNT + 1)]


@contextmanager
def ledger_of(machine: Machine, shard: Shard) -> Iterator[None]:
    """The ledger of a shard instead of that of the whole folder."""
    whole = machine.ledger_path
    machine.ledger_path = whole.parent / f"shard{shard.number}" / "ledger.sqlite3"
    machine.ledger_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        machine.ledger_path = whole


def run_shard(machine: Machine, shard: Shard, *, forget: bool = False) -> WorkLeft:
    with ledger_of(machine, shard):
        try:
            return machine.run_pass(bulk=True, shard=shard)
        finally:
            if forget:
                machine.ledger_path.unlink()


@contextmanager
def reads_counted() -> Iterator[list[str]]:
    """The paths of files that are read meanwhile."""
    read: list[str] = []
    original = RunFiles._read_batch

    def counted(files: RunFiles, batch: Sequence[PlannedFile]) -> list[Content | Exception]:
        read.extend(one.path for one in batch)
        return original(files, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFiles, "_read_batch", counted)
        yield read


def store_runs(machine: Machine) -> int:
    """Runs of three datasets, most of them in one; how many files they have."""
    for number in range(40):
        dataset = "large" if number % 4 else f"small{number % 8}"
        machine.local.store(
            dataset=dataset, name=f"run{number}", saved=["pose.png"], values={"curve": {"a": number}}
        )
    return 40 * 4


def test_shards_carry_all_files_once_and_a_last_pass_all_rows(machine: Machine) -> None:
    """Goal: the work of one pass, divided. Method: each shard with its own ledger, then a pass without."""
    files = store_runs(machine)
    carried = []
    for shard in SHARDS:
        left = run_shard(machine, shard)
        assert (left.waiting, left.quarantined) == (0, 0)
        carried.append(len(machine.store.objects))

    assert carried[-1] == files
    assert all(after - before > files / COUNT / 2 for before, after in pairwise([0, *carried]))
    assert machine.sink.tables == []

    left = machine.run_pass(bulk=True)

    assert (left.waiting, left.quarantined) == (0, 0)
    machine.check_everything_arrived()
    assert set(machine.store.upload_counts.values()) == {1}
    assert machine.sink.counts["load"] == len(machine.sink.tables) == 3
    assert machine.sink.counts["stream"] == 0


@pytest.mark.parametrize("forget", [False, True], ids=["with its ledger", "with its ledger lost"])
@pytest.mark.parametrize("seed", range(8))
def test_a_shard_that_was_killed_repeats_nothing_that_is_there(
    folder: Path, seed: int, *, forget: bool
) -> None:
    """Goal: a task that is requeued goes on. Method: end each at random instants, then let it end."""
    machine = Machine(folder, seed=seed)
    machine.cloud_faults.latency_seconds = 0.5
    chance = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
    files = store_runs(machine)
    for shard in SHARDS:
        for _ in range(3):
            machine.crash_points.arm("step", chance.randrange(20, 250))
            with suppress(CrashError):
                run_shard(machine, shard, forget=forget)
        machine.crash_points.arm("", 0)
        assert run_shard(machine, shard).waiting == 0
    assert machine.crashes >= COUNT
    assert len(machine.store.objects) == files

    machine.run_pass(bulk=True)

    machine.check_everything_arrived()
    assert set(machine.store.upload_counts.values()) == {1}


def test_the_last_pass_tells_of_what_shards_leave_to_it(machine: Machine) -> None:
    """Goal: one bad run stops no shard, and nothing is silent. Method: a damaged line, a bad image."""
    store_runs(machine)
    bad = machine.local.store(name="bad", commit=False)
    machine.local.put_damaged_image(bad, "generated_images/cut.png")
    machine.local.commit(bad)
    machine.clock.let_pass(3600.0)
    machine.local.append(bad, b"{not json}\n")

    left = [run_shard(machine, shard) for shard in SHARDS]

    assert sum(one.waiting for one in left) == 0
    assert sorted(one.quarantined for one in left) == [0, 0, 1]
    assert machine.run_pass(bulk=True).quarantined == 2


def test_a_run_that_others_removed_from_the_bucket_is_not_sent_again_by_a_shard(machine: Machine) -> None:
    """Goal: what others delete stays deleted. Method: sync, delete a run's objects, then shards."""
    store_runs(machine)
    machine.run_pass()
    machine.lose_ledger()
    gone = machine.local.runs[3]
    for path in list(gone.versions):
        del machine.store.objects[gone.object_name(path)]
    uploads = len(machine.store.uploads)

    assert [run_shard(machine, shard).waiting for shard in SHARDS] == [0] * COUNT

    assert len(machine.store.uploads) == uploads


def test_the_last_pass_does_not_read_what_shards_have_read(machine: Machine) -> None:
    """Goal: one machine need not read everything. Method: count its reads, with one file that has changed."""
    files = store_runs(machine)
    for shard in SHARDS:
        run_shard(machine, shard)
    changed = machine.local.runs[5]
    machine.clock.let_pass(10.0)
    machine.local.put_image(changed, "generated_images/image0.png")
    # A dict that stood inline in the record is looked up in the bucket's list, not on the disk.
    with reads_counted() as read:
        machine.run_pass(bulk=True)

    assert read == ["generated_images/image0.png"]
    assert len(machine.store.objects) == files
    assert machine.state_of(changed)[0] == "quarantined"


@pytest.mark.parametrize("runs_before", [0, 12])
def test_a_backfill_that_knows_the_folder_finds_what_shards_have_carried_since(
    machine: Machine, runs_before: int
) -> None:
    """Goal: nothing is sent twice where shards and passes take turns. Method: both, and runs in between."""
    for number in range(runs_before):
        machine.local.store(dataset="large", name=f"before{number}")
        machine.clock.let_pass(1.0)
    machine.run_pass(bulk=True)
    machine.let_tables_settle()
    store_runs(machine)
    for shard in SHARDS:
        run_shard(machine, shard)
    received = machine.store.bytes_received

    machine.run_pass(bulk=True)

    assert machine.store.bytes_received == received
    assert set(machine.store.upload_counts.values()) == {1}
    machine.check_everything_arrived()


@pytest.mark.parametrize(("images", "by_run"), [(1, False), (40, True)])
def test_a_shard_lists_what_takes_fewer_requests(machine: Machine, images: int, *, by_run: bool) -> None:
    """Goal: a shard of many that is requeued lists its own. Method: small and large runs, 300 shards."""
    machine.store._page_objects = 10
    shard = Shard(1, 300)
    while sum(map(shard.takes, (run.key for run in machine.local.runs))) < 2:
        machine.local.store(name=f"run{len(machine.local.runs)}", images=images)
    for run in machine.local.runs:
        for path, versions in run.versions.items():
            machine.store.put(run.object_name(path), versions[-1])
    machine.store.calls.clear()

    assert run_shard(machine, shard).waiting == 0

    assert machine.store.upload_counts.total() == 0
    listings = [call.name for call in machine.store.calls if call.method == "list"]
    of_runs = {f"results/{run.key}/" for run in machine.local.runs if shard.takes(run.key)}
    assert {name for name in listings if name.count("/") > 3} == (of_runs if by_run else set())
    assert len(listings) < 12
