"""Records made of rows: what goes to the table comes back as a record that stands for the same row."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.history.lines import record_of
from pixaris_sync.model import Column, ColumnType, DatasetKey, Destination, RunKey
from pixaris_sync.rules.contract import cells_of, files_of, parse_record
from pixaris_sync.rules.schema import plan_batch
from pixaris_sync.verify.rows import represents

RUN = RunKey("shop", "shoes", "20260126-161904_run")
TO = Destination("gcp", "bucket", "gcp.pixaris")


def row_of(values: dict[str, Any], columns: list[Column] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The row that a record becomes, as it is read back, and the columns of its table."""
    record = parse_record(RUN.dataset_key, {**values, "experiment_run_name": RUN.run}, 1)
    plan = plan_batch([("id", cells_of(record, TO))], columns)
    words = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    types = {column.name: column.type for column in (*(columns or []), *plan.add)}
    cells = {
        name: words.get(value, value) if types[name] == "FLOAT" and isinstance(value, str) else value
        for name, value in plan.rows[0].cells.items()
        if value is not None
    }
    return cells, list(types)


def back(values: dict[str, Any], columns: list[Column] | None = None) -> dict[str, Any]:
    cells, names = row_of(values, columns)
    return record_of(cells, RUN, "local_results", names)


def test_a_record_comes_back_as_it_was() -> None:
    """Goal: types, order, paths, names of keys. Method: a record with one of each."""
    folder = f"local_results/{RUN}"
    values = {
        "timestamp": "20260126-161904",
        "mask": f"{folder}/mask.png",
        "flow": f"{folder}/flow.json",
        "odd key": "x",
        "1st": 1,
        "a.b-c": True,
        "score": 0.5,
        "steps": 7,
        "experiment_run_name": RUN.run,
    }
    assert json.dumps(back(values)) == json.dumps(values)


def test_defaults_that_nobody_set_are_left_out() -> None:
    """Goal: no columns of others in the record. Method: a record that has two of them itself."""
    found = back({"hyperparameters": "mine", "max_parallel_jobs": 2.0})
    assert found == {"hyperparameters": "mine", "max_parallel_jobs": 2.0, "experiment_run_name": RUN.run}


def test_a_companion_column_goes_back_to_its_key() -> None:
    """Goal: one key. Method: text for a column of numbers; and a key that is called like a companion."""
    columns = [Column("seed", ColumnType.INTEGER), Column("experiment_run_name", ColumnType.STRING)]
    assert back({"seed": "random"}, columns)["seed"] == "random"
    assert back({"seed": 1, "seed__string": "x"}, columns)["seed__string"] == "x"


def test_a_dict_of_a_metric_becomes_an_argument() -> None:
    """Goal: its content comes back, as the file of an argument. Method: a dict in the record."""
    found = back({"curve": {"a": 1}})
    assert found["curve"] == f"local_results/{RUN}/curve.json"
    record = parse_record(DatasetKey("shop", "shoes"), found, 1)
    assert files_of(record).saved == ("curve.json",)


@pytest.mark.parametrize(
    "name", [f"results/{RUN}/../../x.png", "results/other/run/mask.png", f"results/{RUN}/a/mask.png"]
)
def test_a_link_elsewhere_stays_a_text(name: str) -> None:
    """Goal: no path that leads elsewhere. Method: links to objects of others, and to odd ones."""
    link = f"https://console.cloud.google.com/storage/browser/_details/bucket/{name}?project=gcp"
    assert record_of({"mask": link}, RUN, "local_results", ["mask"])["mask"] == link


keys = st.text(string.ascii_letters + string.digits + "_ -.ä", min_size=1, max_size=8)
values_ = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(keys, st.integers(), max_size=2)
)


@given(st.dictionaries(keys, values_, max_size=6))
def test_whatever_comes_back_stands_for_the_same_row(values: dict[str, Any]) -> None:
    """Goal: `verify` finds no difference, and nobody sends a second row. Method: any record."""
    cells, names = row_of(values)
    made = parse_record(RUN.dataset_key, record_of(cells, RUN, "local_results", names), 1)
    assert represents(cells_of(made, TO), cells)
