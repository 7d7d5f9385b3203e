"""Damaged tracking lines: what is read of them, and which run they are given to."""

import json
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.damaged_lines import Salvage, pieces_of_whole_records, recover, split_damaged
from pixaris_sync.local.tracking_lines import RawLine, Suspect, load_json
from pixaris_sync.model import JsonValue


def record(name: str, **values: JsonValue) -> dict[str, JsonValue]:
    """A record as LocalExperimentHandler writes it: the run's name last."""
    stamp = name.partition("_")[0]
    return {"timestamp": stamp, "generator": "flux", "steps": 20, **values, "experiment_run_name": name}


def text(values: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(values).encode()


ONE = record("20260101-120000_run", prompt="a cat", score=0.25)
OTHER = record("20260101-120007_run", prompt="a cat", score=0.5)
THIRD = record("20260101-120007_run_2", prompt="a dog", score=0.5)
RUNS = {str(values["experiment_run_name"]): text(values) for values in (ONE, OTHER, THIRD)}
ONE_NAME, OTHER_NAME, THIRD_NAME = RUNS

records = st.builds(
    lambda second, values: record(f"20260101-1200{second:02}_run", **values),
    st.integers(0, 59),
    st.dictionaries(
        st.text(max_size=5).filter(lambda key: key not in ("name", "timestamp", "generator", "steps")),
        st.integers() | st.text() | st.dictionaries(st.sampled_from(["timestamp", "x"]), st.integers()),
        max_size=4,
    ),
)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": [NaN, -Infinity]}', None),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'"\\ud800"', "\ud800"),
        (b" 1.0\n", 1.0),
    ],
)
def test_json_of_pixaris_is_read(content: bytes, value: JsonValue) -> None:
    """Goal: what Python writes is read. Method: bare NaN, a byte order mark, a lone surrogate, blanks."""
    read = load_json(content, "file")
    assert value is None or read == value


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "no JSON"),
        (b'{"a": 1', "no JSON"),
        (b"\0\0\0\0", "no JSON"),
        (b'"\xff"', "byte 1 is no UTF-8"),
        (b"1" * 5000, "too many digits"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_json_that_cannot_be_read_says_why(content: bytes, cause: str) -> None:
    """Goal: one kind of error with a clear cause. Method: one damage each."""
    with pytest.raises(LocalFileError, match=cause) as caught:
        load_json(content, "a file")
    assert caught.value.subject == "a file"


@pytest.mark.parametrize(
    ("line", "fragments", "found"),
    [
        (text(ONE) + b"\n", (), (ONE,)),
        (b"", (), ()),
        (b" \t\r\n", (), ()),
        (b"\0\0\0", (b"\0\0\0",), ()),
        (b"\0\0 \0\n", (b"\0\0 \0",), ()),
        (b"\0\0" + text(ONE) + b"\0\n", (), (ONE,)),
        (text(ONE) + text(OTHER), (), (ONE, OTHER)),
        (text(ONE)[:50] + text(OTHER), (text(ONE)[:50],), (OTHER,)),
        (text(ONE)[:50] + b"\0\0\0" + text(OTHER), (text(ONE)[:50],), (OTHER,)),
        (text(ONE) + text(OTHER)[:50], (text(OTHER)[:50],), (ONE,)),
        (text(ONE)[:50] + text(OTHER) + text(ONE)[50:], (text(ONE)[:50], text(ONE)[50:]), (OTHER,)),
        (text(ONE)[:50] + text(OTHER)[:60], (text(ONE)[:50], text(OTHER)[:60]), ()),
        (text(ONE)[:1] + text(OTHER), (b"{",), (OTHER,)),
        (b'{"experiment_run_name": "x"}!', (b"!",), ({"experiment_run_name": "x"},)),
        (b'{"timestamp": "x"}', (b'{"timestamp": "x"}',), ()),
        (b'{"experiment_run_name": 3}', (b'{"experiment_run_name": 3}',), ()),
        (b"[1, 2]", (b"[1, 2]",), ()),
        (b"\xef\xbb\xbf" + text(ONE), (), (ONE,)),
    ],
)
def test_whole_records_are_taken_out(
    line: bytes, fragments: tuple[bytes, ...], found: tuple[JsonValue, ...]
) -> None:
    """Goal: neighbours of damage go on. Method: each way Pixaris' writes can meet, by hand."""
    assert split_damaged(line) == Salvage(fragments, found)


def test_a_dict_inside_a_torn_record_is_no_record() -> None:
    """Goal: no row is made up. Method: a metric that looks like a record, in a line cut behind it."""
    inner = {"timestamp": "x", "experiment_run_name": "inner"}
    line = text(record(ONE_NAME, metric=inner, more=1))[:-5]
    assert split_damaged(line) == Salvage((line,), ())


def test_a_record_with_a_byte_that_is_no_text_is_damaged() -> None:
    """Goal: damaged text is no record. Method: one byte of a string replaced, so that it still parses."""
    line = text(ONE).replace(b"cat", b"c\xfft")
    assert split_damaged(line) == Salvage((line,), ())
    assert recover(line, RUNS) == ONE_NAME


@given(st.lists(st.tuples(records, st.integers(0, 40)), max_size=5))
def test_records_fused_with_torn_ones_are_all_found(pieces: list[tuple[dict[str, JsonValue], int]]) -> None:
    """Goal: a whole record is never lost to its neighbours. Method: random ones, each behind a torn start.

    Torn starts end before a record of their own could be whole.
    """
    line = b"".join(text(values)[:cut] + text(values) for values, cut in pieces)
    assert list(split_damaged(line).records) == [values for values, _ in pieces]


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b'{"timestamp": ', b"{", b'"', b"}", b"\0", b"1"])).map(b"".join)
)
def test_any_bytes_are_split_and_kept(line: bytes) -> None:
    """Goal: nothing raises, nothing but blanks vanishes. Method: random bytes and random scraps of JSON."""
    fragments, found = split_damaged(line)
    if not found:
        blank = line.strip(b" \t\r\n\0")
        assert (b"".join(fragments) == blank.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n\0")) or not blank


@pytest.mark.parametrize(
    "line",
    [
        b'{"timestamp":' * 100_000,
        b'{"timestamp": [' * 100_000,
        b'{"timestamp": "' * 100_000,
        b'{"timestamp": 1}' * 100_000,
        b'{ "timestamp"' + b"{ " * 500_000,
        b'{"timestamp": {"timestamp": 1}, "x": [' * 30_000,
        b'{"timestamp": ' * 300 + b"[" + b"1, " * 2_000_000 + b"1]" + b"}" * 300,
        b"\0" * 1_000_000,
    ],
)
def test_pathological_lines_cost_little(line: bytes) -> None:
    """Goal: work grows with length only. Method: a megabyte of the worst for each step, on the CPU's clock.

    Work that grows with the square of the length takes several times the bound, which leaves room for a slow
    machine.
    """
    begun = time.process_time()
    assert split_damaged(line).fragments
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("fragment", "run"),
    [
        (text(ONE), ONE_NAME),
        (text(ONE)[:-1], ONE_NAME),
        (text(ONE)[:40], ONE_NAME),
        (b"\0\0" + text(OTHER)[20:] + b"\n", OTHER_NAME),
        (text(ONE)[:60] + b"\0" * 8 + text(ONE)[68:], ONE_NAME),
        (text(OTHER).replace(b"cat", b"c\xfft"), OTHER_NAME),
        (b'xx", "experiment_run_name": "' + OTHER_NAME.encode() + b'"', OTHER_NAME),
        (b'xx "runs/p/d/' + THIRD_NAME.encode() + b'/mask.png", ', THIRD_NAME),
        (b'xx "runs\\\\p\\\\' + THIRD_NAME.encode() + b'\\\\mask.png", ', THIRD_NAME),
    ],
)
def test_a_damaged_line_is_given_to_its_run(fragment: bytes, run: str) -> None:
    """Goal: recovery from args.json. Method: each damage of a line whose run is known."""
    assert recover(fragment, RUNS) == run


@pytest.mark.parametrize(
    "fragment",
    [
        b"",
        b"\0\0\0",
        text(ONE)[:20],
        text(OTHER)[:50],
        text(ONE)[-12:],
        b'"score": 0.5',
        text(record("20260202-120000_run"))[:60],
        text(ONE)[:100] + text(OTHER)[100:],
        text(ONE)[:40] + b"x" * 200,
        b'"20260101-120000_ru"',
        ONE_NAME.encode() + b"_more",
        b'"' + ONE_NAME.encode() + b'" "' + OTHER_NAME.encode() + b'"',
    ],
)
def test_what_points_at_no_run_or_at_two_is_left(fragment: bytes) -> None:
    """Goal: no guess makes a row. Method: too little, too common, foreign, and contradicting pieces."""
    assert recover(fragment, RUNS) is None


def test_a_torn_line_whose_record_stands_whole_elsewhere_is_explained() -> None:
    """Goal: appending args.json mends a torn line. Method: behind it, in its line, and other lines."""
    whole, other = text(ONE), text(OTHER)
    torn = whole[:50]
    for content, explained in [
        ([torn, whole], {torn}),
        ([torn + whole], {torn}),
        ([torn, other], set()),
        ([torn, torn], set()),
        ([torn, b"x" + whole], set()),
    ]:
        lines = [RawLine(number, "digest", line) for number, line in enumerate(content, start=1)]
        suspects = [Suspect(line, "torn") for line in lines if line.content != whole]
        assert pieces_of_whole_records(suspects, lines, []) == explained, content
    lines = [RawLine(1, "digest", torn), RawLine(2, "digest", whole)]
    neighbour = text({**ONE, "experiment_run_name": "20260101-120000_neighbour"})
    suspects = [Suspect(lines[0], "torn")]
    assert pieces_of_whole_records(suspects, lines, ["20260101-120000_unnamed"]) == set()
    assert pieces_of_whole_records(suspects, [*lines, RawLine(3, "digest", neighbour)], []) == set()


def test_a_fragment_is_not_given_to_the_only_run_left() -> None:
    """Goal: few candidates are no evidence. Method: a beginning common to all records, and one candidate."""
    assert recover(text(ONE)[:25], {OTHER_NAME: RUNS[OTHER_NAME]}) is None
    assert recover(text(ONE)[:60], {OTHER_NAME: RUNS[OTHER_NAME]}) is None


@given(st.lists(records, min_size=1, max_size=5, unique_by=lambda values: values["timestamp"]), st.data())
def test_a_torn_line_finds_its_run_among_many(runs: list[dict[str, JsonValue]], data: st.DataObject) -> None:
    """Goal: the commonest damage. Method: random records, one cut anywhere behind its timestamp."""
    candidates = {str(values["experiment_run_name"]): text(values) for values in runs}
    name = data.draw(st.sampled_from(sorted(candidates)))
    whole = candidates[name]
    cut = data.draw(st.integers(len('{"timestamp": "20260101-120000"'), len(whole)))
    assert recover(whole[:cut], candidates) == name
