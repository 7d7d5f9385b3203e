"""What GCPExperimentHandler cannot store arrives through us, and it reads every value back.

Each test declares the calls of one dataset in waves: everything of a wave is stored and synced before the
next. The waves of all tests share their syncs, because a sync takes most of the time that a test has.
"""

import hashlib
import json
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pixaris_sync.rules.schema import column_name, hashed_column_name
from pixaris_sync.sandbox.emulators import Sandbox
from tests.integration.cloud import new_cloud
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, StoredRun, picture, store_run

#: They share two syncs, which take most of their time.
pytestmark = pytest.mark.large

_PROJECT = "beyond"

Wave = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Dataset:
    """A dataset: for each wave, the metrics of its runs. They are named in the order in which they stand."""

    name: str
    waves: tuple[Wave, ...]


_datasets: list[_Dataset] = []


def _dataset(name: str, *waves: Wave) -> _Dataset:
    _datasets.append(dataset := _Dataset(name, waves))
    return dataset


@dataclass(frozen=True)
class _Journey:
    """What was stored, and the destination after the last sync."""

    reader: Reader
    stored: Mapping[str, list[StoredRun]]
    documents: list[dict[str, Any]]

    def frame(self, dataset: _Dataset) -> pd.DataFrame:
        """A dataset's rows in the order in which its runs were stored."""
        frame = self.reader.frame(_PROJECT, dataset.name).set_index("experiment_run_name")
        names = [run.name for run in self.stored[dataset.name]]
        assert sorted(frame.index) == sorted(names), "a row for each run, and no other"
        return frame.loc[names].reset_index()


@pytest.fixture(scope="module")
def journey(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Journey]:
    """Store and sync all waves of all datasets."""
    folder = tmp_path_factory.mktemp("beyond")
    results = folder / "local_results"
    results.mkdir()
    stored: dict[str, list[StoredRun]] = {dataset.name: [] for dataset in _datasets}
    with pytest.MonkeyPatch.context() as monkeypatch:
        cloud = new_cloud(sandbox, monkeypatch)
        reader = Reader(cloud.handler())
        command_line = CommandLine(results, folder / "state", cloud.environment)
        documents = []
        for wave in range(max(len(dataset.waves) for dataset in _datasets)):
            for dataset in _datasets:
                for metrics in dataset.waves[wave] if wave < len(dataset.waves) else ():
                    runs = stored[dataset.name]
                    name = f"run-{len(runs):02d}"
                    runs.append(
                        store_run(results, name, project=_PROJECT, dataset=dataset.name, metrics=metrics)
                    )
            # Without a settling time later waves go by stream, where they may.
            documents.append(command_line.having(table_settle_seconds=0).sync())
        yield _Journey(reader, stored, documents)


def _cells(frame: pd.DataFrame, at: int) -> dict[str, Any]:
    """The cells of a row that hold something."""
    row: dict[Hashable, Any] = frame.loc[at].to_dict()
    return {str(column): cell for column, cell in row.items() if not pd.isna(cell)}


def test_every_wave_is_synced(journey: _Journey) -> None:
    """Goal: one odd value holds up nobody. Method: the counts of each sync; none waits, none is stuck."""
    total = sum(len(wave) for dataset in _datasets for wave in dataset.waves)

    assert sum(document["rows_synced"] for document in journey.documents) == total
    assert journey.documents[-1]["runs"]["synced"] == total
    assert journey.documents[-1]["problems"] == []


_new_keys = _dataset(
    "new_keys", [{"first": 1}], [{"first": 2, "second": "late"}, {"third": True}], [{"fourth": 0.5}]
)


def test_new_keys_in_later_runs_become_columns(journey: _Journey) -> None:
    """Goal: keys may come and go. Method: three waves, each with a key that is new."""
    frame = journey.frame(_new_keys)

    assert frame["first"].tolist() == [1, 2, pd.NA, pd.NA]
    assert [_cells(frame, at).get("second") for at in range(4)] == [None, "late", None, None]
    assert [_cells(frame, at).get("third") for at in range(4)] == [None, None, True, None]
    assert [_cells(frame, at).get("fourth") for at in range(4)] == [None, None, None, 0.5]
    assert frame["first"].dtype == "Int64"
    assert frame["third"].dtype == "boolean"


_int_then_float = _dataset("int_then_float", [{"score": 1}], [{"score": 0.25}], [{"score": 3}])


def test_an_int_column_takes_floats_later(journey: _Journey) -> None:
    """Goal: drift to float widens the column. Method: int, then float, then int again."""
    frame = journey.frame(_int_then_float)

    assert frame["score"].tolist() == [1.0, 0.25, 3.0]
    assert frame["score"].dtype == "float64"


_float_then_int = _dataset("float_then_int", [{"score": 0.25}], [{"score": 2}, {"score": -(2**53)}])


def test_a_float_column_takes_ints_later(journey: _Journey) -> None:
    """Goal: an int that a double holds is no drift. Method: float, then ints up to the last exact one."""
    frame = journey.frame(_float_then_int)

    assert frame["score"].tolist() == [0.25, 2.0, -(2.0**53)]


_not_finite = _dataset(
    "not_finite",
    [{"score": math.nan}, {"score": math.inf}, {"score": -math.inf}, {"score": 1.5}],
    [{"score": -math.inf}, {"score": math.nan}],
)


def test_nan_and_infinities_arrive_as_floats(journey: _Journey) -> None:
    """Goal: json.dump's bare NaN and Infinity. Method: by load job and by stream, read as floats."""
    frame = journey.frame(_not_finite)

    assert frame["score"].dtype == "float64"
    assert [str(cell) for cell in frame["score"]] == ["nan", "inf", "-inf", "1.5", "-inf", "nan"]


_not_finite_in_int = _dataset("not_finite_in_int", [{"steps": 7}], [{"steps": math.nan}, {"steps": math.inf}])


def test_nan_in_an_int_column_widens_it(journey: _Journey) -> None:
    """Goal: NaN is a float, whatever stood there before. Method: an int, then NaN and infinity."""
    frame = journey.frame(_not_finite_in_int)

    assert [str(cell) for cell in frame["steps"]] == ["7.0", "nan", "inf"]


_beyond_64_bits = _dataset(
    "beyond_64_bits",
    [{"seed": 2**63}, {"seed": 2**64 - 1}],
    [{"seed": 5}, {"seed": -(10**40)}],
)


def test_ints_beyond_64_bits_arrive_as_text(journey: _Journey) -> None:
    """Goal: no digit is lost. Method: new column by such an int; smaller ones follow as text."""
    frame = journey.frame(_beyond_64_bits)

    assert frame["seed"].tolist() == [str(2**63), str(2**64 - 1), "5", str(-(10**40))]


_beyond_in_int = _dataset("beyond_in_int", [{"seed": 5}], [{"seed": 2**70}])


def test_an_int_beyond_64_bits_in_an_int_column_gets_a_companion(journey: _Journey) -> None:
    """Goal: the int column stays one. Method: a small int first, then one that no INT64 takes."""
    frame = journey.frame(_beyond_in_int)

    assert frame["seed"].tolist() == [5, pd.NA]
    assert _cells(frame, 1)["seed__string"] == str(2**70)


_beyond_double = _dataset("beyond_double", [{"seed": 0.5}], [{"seed": 2**53 + 1}, {"seed": 2**63 - 1}])


def test_ints_that_no_double_holds_keep_their_digits_beside_a_float_column(journey: _Journey) -> None:
    """Goal: no silent rounding. Method: a float first, then ints beyond 2^53; read the companion."""
    frame = journey.frame(_beyond_double)

    assert _cells(frame, 0)["seed"] == 0.5
    assert [_cells(frame, at)["seed__integer"] for at in (1, 2)] == [2**53 + 1, 2**63 - 1]
    assert [("seed" in _cells(frame, at)) for at in (1, 2)] == [False, False]


_odd_keys = {
    "with space": "space",
    "with-dash": "dash",
    "1leading": "digit",
    "_TABLE_reserved": "reserved",
    "_partition_reserved": "reserved in lower case",
    "x" * 301: "long",
    "x" * 300 + "y": "as long, alike for 300 characters",
    "": "empty",
    "schön": "umlaut",
    "夜": "ideograph",
    "a.b": "dot",
    "a/b": "slash",
    "with_space": "a plain key that looks like the rewritten one",
    "$": "sign",
    "line\nfeed": "line feed",
}
_names = _dataset("names", [{**_odd_keys, "plain": 1}], [{"with space": "again", "": "again", "plain": 2}])
_NAME_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}", re.ASCII)


def test_keys_that_are_no_column_names_get_one_that_stays_the_same(journey: _Journey) -> None:
    """Goal: BigQuery's naming rules cost no value. Method: odd keys; each value in the documented column."""
    frame = journey.frame(_names)

    assert all(_NAME_RULE.fullmatch(column) for column in frame.columns)
    first = _cells(frame, 0)
    for key, text in _odd_keys.items():
        assert first[column_name(key)] == text, key
    assert len({column_name(key) for key in _odd_keys}) == len(_odd_keys)
    second = _cells(frame, 1)
    assert (second[column_name("with space")], second[column_name("")]) == ("again", "again")
    assert frame["plain"].tolist() == [1, 2]
    # The rule itself, so that it cannot change unnoticed: the columns of years would fall apart.
    for key, legible in {"with space": "with_space", "1leading": "_1leading", "": "_"}.items():
        assert column_name(key) == f"{legible}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


_cases = _dataset("cases", [{"Steps": 1, "steps": 2}], [{"STEPS": 3}, {"steps": 4, "Steps": 5}])


def test_keys_equal_but_for_case_do_not_share_a_cell(journey: _Journey) -> None:
    """Goal: BigQuery does not tell case apart, Pixaris does.

    Method: such keys in one run, then again; between, a spelling alone that has no column of its own.
    """
    frame = journey.frame(_cases)

    other = hashed_column_name("steps")
    columns = [column for column in frame.columns if column.casefold().startswith("steps")]
    assert columns == ["Steps", other]
    rows = [{key: cell for key, cell in _cells(frame, at).items() if key in columns} for at in range(3)]
    assert rows == [{"Steps": 1, other: 2}, {"Steps": 3}, {"Steps": 5, other: 4}]


_text_for_number = _dataset(
    "text_for_number",
    [{"score": 1, "ratio": 0.5, "done": True}],
    [{"score": "n/a", "ratio": "unknown", "done": "yes"}],
)


def test_text_where_a_number_was_stands_in_a_companion(journey: _Journey) -> None:
    """Goal: a word among numbers is kept and spoils nothing. Method: text for int, float and bool."""
    frame = journey.frame(_text_for_number)

    assert frame["score"].tolist() == [1, pd.NA]
    assert _cells(frame, 0)["ratio"] == 0.5
    assert _cells(frame, 0)["done"]
    second = _cells(frame, 1)
    assert [second[f"{key}__string"] for key in ("score", "ratio", "done")] == ["n/a", "unknown", "yes"]
    assert not {"score", "ratio", "done"} & second.keys()


_number_for_text = _dataset(
    "number_for_text",
    [{"note": "text"}],
    [{"note": 3}, {"note": 0.1}, {"note": False}, {"note": [1, "a"]}, {"note": math.nan}],
)


def test_anything_goes_into_a_text_column(journey: _Journey) -> None:
    """Goal: STRING takes all by str. Method: each other type after a text."""
    frame = journey.frame(_number_for_text)

    assert frame["note"].tolist() == ["text", "3", "0.1", "False", "[1, 'a']", "nan"]


_mixes = _dataset(
    "mixes",
    [{"flag": True, "count": 1, "nothing": None, "items": [1, None, {"a": [True]}]}],
    [
        {"flag": None, "count": None, "nothing": 5, "items": None},
        {"flag": 1, "count": True, "nothing": None, "items": []},
        {"flag": [False], "count": [1], "nothing": True, "items": "text"},
    ],
)


def test_bools_nones_and_lists_may_follow_each_other(journey: _Journey) -> None:
    """Goal: True is not 1, None is NULL beside numbers and text beside text. Method: rows of all mixes."""
    frame = journey.frame(_mixes)
    rows = [_cells(frame, at) for at in range(4)]

    assert (rows[0]["flag"], rows[0]["count"]) == (True, 1)
    assert (rows[0]["nothing"], rows[0]["items"]) == ("None", "[1, None, {'a': [True]}]")
    assert not {"flag", "count"} & rows[1].keys()
    assert (rows[1]["nothing"], rows[1]["items"]) == ("5", "None")
    assert (rows[2]["flag__integer"], rows[2]["count__boolean"]) == (1, True)
    assert (rows[2]["nothing"], rows[2]["items"]) == ("None", "[]")
    assert (rows[3]["flag__string"], rows[3]["count__string"]) == ("[False]", "[1]")
    assert (rows[3]["nothing"], rows[3]["items"]) == ("True", "text")


_metrics = {"colour": 3, "notes": ["é", None], "nan": math.nan}
_dicts = _dataset("dicts", [{"rating": _metrics}], [{"rating": {"colour": 4}}, {"rating": 5}])


def test_a_dict_metric_is_an_object_and_its_link(journey: _Journey) -> None:
    """Goal: dicts stand inline in the record. Method: follow the link; then another dict, then a number."""
    frame = journey.frame(_dicts)

    for at, expected in ((0, _metrics), (1, {"colour": 4})):
        run = journey.stored["dicts"][at]
        link = frame["rating"][at]
        assert link.endswith(f"/results/{run.key}/rating.json?project=pixaris-sandbox")
        found = json.loads(journey.reader.content(f"results/{run.key}/rating.json"))
        assert str(found) == str(expected)
    assert frame["rating"][2] == "5"


def test_images_and_dicts_among_args_are_in_the_bucket(
    pixaris: Reader, command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: saved files of args. Method: links in the cells, objects behind them, bytes as on disk."""
    args = {"workflow_pillow_image": picture(5), "hyperparameters": {"cfg": 3.5}, "prompt": "a"}
    run = store_run(command_line.folder, args=args)

    command_line.sync()

    frame = pixaris.frame()
    for key, suffix in (("workflow_pillow_image", "png"), ("hyperparameters", "json")):
        name = f"results/{run.key}/{key}.{suffix}"
        assert f"/{name}?project=" in frame[key][0]
        assert pixaris.content(name) == (run.folder / f"{key}.{suffix}").read_bytes()
    assert sorted(pixaris.images(run.key, tmp_path / "images")) == ["image_0.png"]
