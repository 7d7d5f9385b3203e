"""Columns that others have made, under names that we do not make: what they hold after a sync."""

import pytest

from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine
from tests.support.stored_runs import DATASET, PROJECT, Reader, store_run

_TABLE = f"{PROJECT}_{DATASET}_experiment_results"
#: Flexible column names, and one in another case than the key's.
_THEIRS = {
    "learning rate": "FLOAT",
    "top-k": "INTEGER",
    "größe": "STRING",
    "1st": "INTEGER",
    "Score": "FLOAT",
}

_DEFAULTS = {
    *("hyperparameters", "generation_params", "workflow_apiformat_json", "workflow_pillow_image"),
    "max_parallel_jobs",
}


@pytest.mark.large
def test_a_column_under_the_keys_own_name_is_used(
    command_line: CommandLine, warehouse: Warehouse, pixaris: Reader
) -> None:
    """Goal: what BigQuery takes as a name is no obstacle: loaded, streamed, widened, read back, verified.

    Method: a table that somebody else has made; floats for INTEGER columns; then the ledger is lost.
    """
    table = warehouse.create(_TABLE, {"experiment_run_name": "STRING", **_THEIRS})
    settled = command_line.having(table_settle_seconds=0)
    first = {"learning rate": 0.5, "top-k": 3, "größe": "xl", "1st": 1, "score": 2}
    second = {**first, "1st": 0.5}
    third = {**first, "learning rate": 0.25, "1st": 2, "score": 2.5}
    store_run(command_line.folder, "first", metrics=first)
    store_run(command_line.folder, "second", metrics=second)
    assert settled.sync()["rows_synced"] == 2
    columns = warehouse.columns(table)
    store_run(command_line.folder, "third", metrics=third)

    assert settled.sync()["rows_synced"] == 1

    assert columns == warehouse.columns(table)
    assert {name: columns[name] for name in _THEIRS} == {**_THEIRS, "1st": "FLOAT"}
    assert columns.keys() == {"timestamp", "experiment_run_name", *_DEFAULTS, *_THEIRS}
    frame = pixaris.frame()
    stored = [dict(zip(first, frame.loc[at, list(_THEIRS)], strict=True)) for at in range(3)]
    assert stored == [first, second, third]
    command_line.forget_ledger()
    settled.sync()
    assert len(pixaris.frame()) == 3
    assert command_line.run("verify").code == 0
