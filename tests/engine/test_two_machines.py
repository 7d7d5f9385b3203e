"""Two machines whose runs go into one table."""

from pathlib import Path
from random import Random

import anyio

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.engine import Engine
from tests.engine.faulty_cloud import Unobserved
from tests.engine.local_folder import LocalFolder
from tests.engine.machine import Machine


def test_two_machines_that_add_columns_at_the_same_time_both_get_through(folder: Path) -> None:
    """Goal: whoever comes second to change a table loses nothing.

    Method: two engines with a folder and a ledger each follow; again and again both store runs at the same
    instant that need a column each, and the same one, which both have to widen, while requests take their
    time and a new column is unknown to streaming for minutes.
    """
    machine = Machine(folder)
    machine.cloud_faults.latency_seconds = 2.0
    machine.sink.new_column_unknown_seconds = 240.0
    # What the other machine does is no business of the invariants.
    machine.sink.observer = machine.store.observer = Unobserved()
    other_root = folder / "other"
    other_root.mkdir()
    other = LocalFolder(other_root / "local_results", machine.clock)
    stored: dict[str, dict[str, float]] = {}

    async def follow_both(engine: Engine) -> None:
        with_other = machine.settings.having(local_results_folder=other.root)
        ledger = Ledger.open(other_root / "ledger.sqlite3")
        try:
            second = Engine(
                settings=with_other,
                mode=Mode(follow=True),
                ledger=ledger,
                store=machine.store,
                sink=machine.sink,
                clock=machine.clock,
                jitter=Random(1),  # noqa: S311 - a test's chance needs no secrecy
                threaded_ledger=False,
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(second.run)
                await second.started()
                for turn in range(6):
                    both = {"both": turn if turn < 3 else turn + 0.5}
                    for name, local, at in (("a", machine.local, engine), ("b", other, second)):
                        values = {f"of_{name}_{turn}": turn, **both}
                        run = local.store(name=f"{name}{turn}", images=1, values=values)
                        stored[run.key.run] = values
                        at.scan_soon(run.key.dataset_key)
                    await machine.clock.sleep(100.0)
                await machine.clock.sleep(600.0)
                second.drain()
        finally:
            ledger.close()

    machine.follow(follow_both)

    counts = machine.sink.counts
    assert counts["create_table"] == counts["widen_columns"] == 2
    assert counts["add_columns"] >= 10
    rows = {row["experiment_run_name"]: row for row in machine.sink.visible_rows("p_d_experiment_results")}
    assert len(machine.sink.visible_rows("p_d_experiment_results")) == len(stored) == 12
    for run_name, values in stored.items():
        assert {name: rows[run_name][name] for name in values} == values
