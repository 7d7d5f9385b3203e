"""The Pixaris contract: names, own files, and the mapping from a record to a row."""

import json
import math
import sys
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.errors import LocalFileError, NameRefusedError
from pixaris_sync.model import (
    Cell,
    ColumnType,
    DatasetKey,
    Destination,
    JsonValue,
    RecordFiles,
    RunKey,
    TrackingRecord,
)
from pixaris_sync.rules.contract import (
    ARGS_FILE,
    cells_of,
    check_dataset_names,
    check_object_name,
    check_run_name,
    content_type,
    files_of,
    in_folder,
    listing_hazard,
    object_link,
    object_name,
    object_prefix,
    own_file,
    parse_record,
    record_digest,
    run_and_path,
    table_collisions,
    table_id,
)

DATASET = DatasetKey("proj", "data")
NAME = "20260101-120000_run"
RUN = RunKey("proj", "data", NAME)
DESTINATION = Destination("gcp", "bucket", "gcp.results")
LINK = "https://console.cloud.google.com/storage/browser/_details/bucket/results/proj/data/"

components = st.text(min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and not any(mark in name for mark in "/\\\0")
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_records = st.dictionaries(st.text(), json_values, max_size=6)


class Mapped(NamedTuple):
    cells: tuple[Cell, ...]
    files: RecordFiles


def mapped(**values: JsonValue) -> Mapped:
    return map_values({"timestamp": "20260101-120000", **values, "experiment_run_name": NAME})


def map_values(values: dict[str, JsonValue]) -> Mapped:
    record = TrackingRecord(RUN, values, "digest", 1)
    return Mapped(cells_of(record, DESTINATION), files_of(record))


def cell(record: Mapped, key: str) -> Cell:
    return next(cell for cell in record.cells if cell.key == key)


def nested(depth: int) -> list[JsonValue]:
    value: list[JsonValue] = []
    for _ in range(depth):
        value = [value]
    return value


def test_names_are_those_that_pixaris_reads() -> None:
    """Goal: objects, tables and links where GCPExperimentHandler looks. Method: written down by hand."""
    assert object_prefix(DATASET) == "results/proj/data/"
    name = object_name(RUN, "generated_images/a b#.png")
    assert name == f"results/proj/data/{NAME}/generated_images/a b#.png"
    assert object_link(DESTINATION, name) == f"{LINK}{NAME}/generated_images/a b#.png?project=gcp"
    assert table_id(DATASET) == "proj_data_experiment_results"


@pytest.mark.parametrize(
    ("written", "project", "dataset"),
    [
        ("results", "gcp", "results"),
        ("other.results", "other", "results"),
        ("example.com:other.results", "example.com:other", "results"),
    ],
)
def test_the_bigquery_dataset_may_name_its_project(written: str, project: str, dataset: str) -> None:
    """Goal: both ways users write it. Method: with and without project, and a domain-scoped one."""
    destination = Destination("gcp", "bucket", written)
    assert (destination.bq_project, destination.bq_dataset_id) == (project, dataset)


def test_datasets_that_share_a_table_are_told() -> None:
    """Goal: collisions are said. Method: two that meet, one that does not, one given twice."""
    one, other = DatasetKey("a_b", "c"), DatasetKey("a", "b_c")
    shared = table_collisions([one, DATASET, other, DATASET])
    assert shared == {"a_b_c_experiment_results": (other, one)}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("generated_images/a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.b.jpeg", "image/jpeg"),
        ("a.json", "application/json"),
        ("png", "application/octet-stream"),
        (".tiff", "application/octet-stream"),
    ],
)
def test_content_types_go_by_suffix(path: str, expected: str) -> None:
    """Goal: browsers show images. Method: each suffix, and unknown ones."""
    assert content_type(path) == expected


@pytest.mark.parametrize(
    ("project", "dataset"),
    [("proj", "data"), ("Größe 2", "a-b_c"), ("データ", "x"), ("a" * 500, "b" * 500), ("a\u0301", "٣")],
)
def test_usable_dataset_names_pass(project: str, dataset: str) -> None:
    """Goal: no name is refused without need. Method: letters, marks, numbers, connectors, dashes, spaces."""
    check_dataset_names(DatasetKey(project, dataset))


@pytest.mark.parametrize(
    ("project", "dataset", "rule"),
    [
        ("", "d", "no name of a file"),
        ("..", "d", "no name of a file"),
        ("p", "a/b", "path component"),
        ("p", "a\\b", "table id"),
        ("p\0", "d", "path component"),
        ("v1.0", "d", "BigQuery takes letters"),
        ("p", "d🎉", "BigQuery takes letters"),
        ("p", "d\n", "line feed"),
        ("p", "\udc80", "UTF-8"),
        ("p" * 600, "d" * 600, "1024"),
        ("p" * 500, "d" * 510, "BigQuery takes 1024"),
        ("pickled_results", "d", "sets this project name aside"),
        ("p", "feedback_iterations", "feedback"),
    ],
)
def test_dataset_names_are_refused_with_the_rule(project: str, dataset: str, rule: str) -> None:
    """Goal: quarantine says which rule is broken. Method: one name per rule."""
    with pytest.raises(NameRefusedError) as caught:
        check_dataset_names(DatasetKey(project, dataset))
    assert rule in caught.value.cause
    assert caught.value.hint
    str(caught.value).encode()


@pytest.mark.parametrize(
    "name",
    ["", ".", "a//b", "/a", "a/", "a/../b", "a/.", "a\rb", "\ud800", "x" * 1024, "a\0", "a/generated_images"],
)
def test_run_names_are_refused(name: str) -> None:
    """Goal: a run is a folder below its dataset's, whose files can be objects. Method: a name per rule."""
    with pytest.raises(NameRefusedError) as caught:
        check_run_name(RunKey("p", "d", name))
    str(caught.value).encode()


@pytest.mark.parametrize("name", [f"{NAME}_org/model", "a/b/c", "back\\slash", "a b", "..x", "é/e\u0301"])
def test_run_names_may_have_slashes(name: str) -> None:
    """Goal: whatever GCPExperimentHandler stores goes. Method: names; their objects lead back to them."""
    run = RunKey("p", "d", name)
    check_run_name(run)
    for path in ("flow.json", "generated_images/a.png"):
        assert run_and_path(run.dataset_key, object_name(run, path)) == (name, path)
        assert own_file(run, "flow", f"/x/p/d/{name}/flow.json") == "flow.json"
    assert own_file(run, "flow", "/x/p/d/flow.json") is None
    assert run_and_path(run.dataset_key, "results/p/d/stray.png") is None


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("r0", "20250101-100000_r0", "20250101-100000_r0"),
        ("a/b", "20250101-100000_a/b", "20250101-100000_a/b"),
        ("20250101-100000_r0", "20250101-100000_r0", "20250101-100000_r0"),
        ("é", "20250101-100000_e\u0301", "20250101-100000_é"),
        ("20250101-100000_é", "20250101-100000_e\u0301", "20250101-100000_é"),
        ("r0", "20250101-100000_r1", None),
        ("r0", "r1", None),
        ("r0", "2025_r0", None),
    ],
)
def test_a_record_gets_the_name_of_its_folder(name: str, folder: str, expected: str | None) -> None:
    """Goal: row and objects have one name, the identity stays. Method: names with and without the time."""
    record = parse_record(DatasetKey("p", "d"), {"timestamp": "noon", "experiment_run_name": name}, 7)
    named = in_folder(record, folder)
    assert (named.run.run if named else None) == expected
    if named:
        assert named.values == {"timestamp": "noon", "experiment_run_name": expected}
        assert (named.digest, named.line) == (record.digest, 7)


@pytest.mark.parametrize(
    "name", ["", "x" * 1025, "é" * 513, "a\nb", "\ud800", ".well-known/acme-challenge/x"]
)
def test_object_names_are_refused(name: str) -> None:
    """Goal: GCS' rules, in bytes. Method: one name per rule, at its limit."""
    with pytest.raises(NameRefusedError):
        check_object_name(name)


@pytest.mark.parametrize("name", ["x", "x" * 1024, "é" * 512, "a b#?[*]", "\x7f"])
def test_object_names_within_the_rules_pass(name: str) -> None:
    """Goal: discouraged is not refused. Method: names at the limits."""
    check_object_name(name)


@pytest.mark.parametrize(
    ("project", "dataset", "hazard"),
    [("p", "d", False), ("my_results", "d", True), ("p", "eval_results", True), ("results_p", "d", False)],
)
def test_names_that_pixaris_lists_wrongly_are_told(project: str, dataset: str, hazard: bool) -> None:  # noqa: FBT001 - a table's column
    """Goal: a user learns why a project is not shown. Method: names with ``results`` at the end and not."""
    assert bool(listing_hazard(DatasetKey(project, dataset))) is hazard


def test_a_record_is_parsed() -> None:
    """Goal: a tracking line becomes a record. Method: the smallest one."""
    values = {"timestamp": "20260101-120000", "experiment_run_name": NAME}
    assert parse_record(DATASET, values, 7) == TrackingRecord(RUN, values, record_digest(values), 7)


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ([], "type list"),
        (None, "type NoneType"),
        ("x", "type str"),
        ({}, "missing"),
        ({"experiment_run_name": 3}, "type int"),
        ({"experiment_run_name": None}, "type NoneType"),
    ],
)
def test_a_line_that_is_no_record_says_what_is_wrong(values: JsonValue, cause: str) -> None:
    """Goal: a clear cause for quarantine. Method: one fault each."""
    with pytest.raises(LocalFileError, match=cause) as caught:
        parse_record(DATASET, values, 7)
    assert caught.value.subject == "proj/data, line 7"
    assert caught.value.hint


def test_a_record_with_an_unusable_run_name_is_refused() -> None:
    """Goal: no path from a record is followed. Method: a name that leaves the dataset."""
    with pytest.raises(NameRefusedError):
        parse_record(DATASET, {"experiment_run_name": "../x"}, 1)


@given(json_records)
def test_the_digest_depends_on_values_alone(values: dict[str, JsonValue]) -> None:
    """Goal: a stable identity. Method: random records in reverse order and through JSON, spaced otherwise."""
    digest = record_digest(values)
    assert len(digest) == 64
    assert record_digest(dict(reversed(values.items()))) == digest
    assert record_digest(json.loads(json.dumps(values, indent=1))) == digest


def test_the_digest_stays_as_it_is() -> None:
    """Goal: ledgers stay valid. Method: a digest computed with sha256sum from the text by hand."""
    text = '{"a":[1,1.0,true,null,NaN],"b":"\\u00e9\\ud800"}'
    expected = "3485ef1d01b9f4316bbc9dd1e1dbfa261cf4c77f42630f883d43512681927085"
    assert record_digest(json.loads(text)) == expected


def test_values_of_different_types_have_different_digests() -> None:
    """Goal: drift is no duplicate. Method: values that Python calls equal."""
    digests = {record_digest({"a": value}) for value in (1, 1.0, True, "1", None, -0.0, 0.0, 0, False)}
    assert len(digests) == 9


def test_absurd_nesting_is_a_clear_error() -> None:
    """Goal: no RecursionError leaves the module. Method: lists and dicts deeper than the stack."""
    deep = nested(sys.getrecursionlimit() * 50)
    for values in ({"experiment_run_name": NAME, "a": deep}, {"experiment_run_name": NAME, "a": {"b": deep}}):
        with pytest.raises(LocalFileError, match="nested too deeply"):
            parse_record(DATASET, values, 1)
        with pytest.raises(LocalFileError, match="nested too deeply"):
            map_values(values)


@given(components, components, components, components, st.lists(components, max_size=3), st.data())
def test_own_files_are_recognised_on_every_system(
    project: str, dataset: str, name: str, key: str, folders: list[str], data: st.DataObject
) -> None:
    """Goal: the path as any training process saw it. Method: random parts joined with either slash, mixed."""
    run = RunKey(project, dataset, name)
    suffix = data.draw(st.sampled_from([".png", ".json"]))
    parts = [*folders, project, dataset, name, f"{key}{suffix}"]
    slashes = data.draw(st.lists(st.sampled_from("/\\"), min_size=len(parts), max_size=len(parts)))
    path = data.draw(st.sampled_from(["", "/", "C:\\"]))
    path += "".join(part + slash for part, slash in zip(parts, slashes, strict=True))[:-1]
    expected = None if f"{key}{suffix}" == ARGS_FILE else f"{key}{suffix}"
    assert own_file(run, key, path) == expected
    assert own_file(run, f"{key}x", path) is None
    assert own_file(RunKey(f"{project}x", f"{dataset}x", name), key, path) == expected
    assert own_file(RunKey(project, dataset, f"{name}x"), key, path) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("k", f"proj/data/x{NAME}/k.png"),
        ("k", f"proj/data/{NAME}/k.jpg"),
        ("k", f"proj/data/{NAME}/k"),
        ("k", f"proj/{NAME}/data/k.png"),
        ("k", f"proj/data/{NAME}/sub/k.png"),
        ("k", "k.png"),
        ("k", "test/assets/flow.json"),
        ("k", 3),
        ("k", None),
        ("k", ["proj"]),
        ("args", f"proj/data/{NAME}/args.json"),
        ("k\0", f"proj/data/{NAME}/k\0.png"),
        ("a/k", f"proj/data/{NAME}/a/k.png"),
        (f"proj/data/{NAME}/k", f"proj/data/{NAME}/k.png"),
    ],
)
def test_anything_else_is_no_own_file(key: str, value: object) -> None:
    """Goal: no path from a record is opened. Method: near misses."""
    assert own_file(RUN, key, value) is None


@pytest.mark.parametrize("folders", ["", "proj/", "old/name/of/all/", "C:\\runs\\", "/elsewhere/other/../"])
def test_only_the_runs_own_folder_counts(folders: str) -> None:
    """Goal: renamed and copied folders keep their files. Method: whatever stands before the run's folder."""
    assert own_file(RUN, "k", f"{folders}{NAME}/k.png") == "k.png"


def test_an_image_argument_called_args_is_an_own_file() -> None:
    """Goal: only the file that the record overwrites is left out. Method: the same key, an image."""
    assert own_file(RUN, "args", f"proj/data/{NAME}/args.png") == "args.png"


def test_cells_come_in_pixaris_order_with_its_defaults() -> None:
    """Goal: a new table looks as upstream's. Method: a record whose name comes last, as Pixaris writes it."""
    record = mapped(b=1, a=2, hyperparameters="h")
    assert [cell.key for cell in record.cells] == [
        "timestamp",
        "experiment_run_name",
        "b",
        "a",
        "hyperparameters",
        "generation_params",
        "workflow_apiformat_json",
        "workflow_pillow_image",
        "max_parallel_jobs",
    ]
    assert cell(record, "hyperparameters").value == "h"
    assert cell(record, "generation_params") == Cell("generation_params", ColumnType.STRING, "")
    assert cell(record, "max_parallel_jobs") == Cell("max_parallel_jobs", ColumnType.FLOAT, 0.0)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("text", ColumnType.STRING, "text"),
        ("nul\0", ColumnType.STRING, "nul\0"),
        ("C:\\x", ColumnType.STRING, "C:\\x"),
        ("C:\\x\ud800é", ColumnType.STRING, "C:\\\\x\\ud800é"),
        (True, ColumnType.BOOLEAN, True),
        (1, ColumnType.INTEGER, 1),
        (2**63 - 1, ColumnType.INTEGER, 2**63 - 1),
        (2**63, ColumnType.STRING, "9223372036854775808"),
        (-(2**63) - 1, ColumnType.STRING, "-9223372036854775809"),
        (1.0, ColumnType.FLOAT, 1.0),
        (math.inf, ColumnType.FLOAT, math.inf),
        (None, ColumnType.STRING, None),
        ([1, None, "a"], ColumnType.STRING, "[1, None, 'a']"),
    ],
)
def test_plain_values_become_cells(value: JsonValue, kind: ColumnType, expected: JsonValue) -> None:
    """Goal: the record-to-row table. Method: one value per line of it, types compared too."""
    result = cell(mapped(key=value), "key")
    assert result == Cell("key", kind, expected)
    assert type(result.value) is type(expected)


def test_a_saved_file_becomes_its_link() -> None:
    """Goal: args that are images or dicts. Method: paths of another machine, one of each kind."""
    record = mapped(image=f"C:\\runs\\proj\\data\\{NAME}\\image.png", flow=f"/x/proj/data/{NAME}/flow.json")
    assert cell(record, "image").value == f"{LINK}{NAME}/image.png?project=gcp"
    assert cell(record, "flow").value == f"{LINK}{NAME}/flow.json?project=gcp"
    assert record.files.saved == ("image.png", "flow.json")
    assert not record.files.inline


def test_a_dict_metric_becomes_a_file_and_its_link() -> None:
    """Goal: dict metrics as upstream stores them. Method: the bytes json.dump writes, NaN included."""
    record = mapped(metric={"a": [1.5, math.nan], "é": "\ud800"})
    assert cell(record, "metric") == Cell(
        "metric", ColumnType.STRING, f"{LINK}{NAME}/metric.json?project=gcp"
    )
    assert record.files.inline == {"metric.json": b'{"a": [1.5, NaN], "\\u00e9": "\\ud800"}'}
    assert record.files.saved == ()


@pytest.mark.parametrize("key", ["", "a/b", "a\\b", "a\nb", "\ud800", "x" * 1024])
def test_a_dict_whose_key_makes_no_file_stands_in_its_cell(key: str) -> None:
    """Goal: no value is lost to an odd key. Method: keys that make no object name."""
    record = map_values({"experiment_run_name": NAME, key: {"a": 1.5}})
    assert cell(record, key) == Cell(key, ColumnType.STRING, '{"a": 1.5}')
    assert not record.files.inline


@given(json_records)
def test_any_json_maps_to_sendable_cells_without_loss(values: dict[str, JsonValue]) -> None:
    """Goal: nothing JSON can hold is lost or crashes. Method: random records, each value found again."""
    values = {key: value for key, value in values.items() if key != "experiment_run_name"}
    record = map_values({**values, "experiment_run_name": NAME})
    cells = {cell.key: cell for cell in record.cells}
    assert len(cells) == len(record.cells)
    for key, value in values.items():
        found = cells[key].value
        if isinstance(found, str):
            found.encode()
        if isinstance(value, dict) and f"{key}.json" in record.files.inline:
            found = record.files.inline[f"{key}.json"].decode()
        if isinstance(value, dict):
            assert isinstance(found, str)
            assert record_digest(json.loads(found)) == record_digest(value)
        elif isinstance(value, str) and "\\u" not in repr(value):
            assert found == value
        elif type(value) in (bool, float, int) and type(found) is type(value):
            assert repr(found) == repr(value)
        elif value is None:
            assert found is None
        elif not isinstance(value, str):
            assert found == str(value)
