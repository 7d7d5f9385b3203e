"""Tracking files as bytes: blocks to lines, lines to records, damaged lines to what can be recovered."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.local.damaged_lines import Recovery, candidate, named_runs
from pixaris_sync.local.tracking_lines import LineReader, RawLine, Suspect, read_line
from pixaris_sync.model import DamagedLine, DatasetKey, TrackingRecord

DATASET = DatasetKey("shop", "shoes")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def record_line(number: int, **values: Any) -> bytes:
    """A line as LocalExperimentHandler writes it."""
    stamp = f"20240101-{number:06d}"
    record = {"timestamp": stamp, **values, "experiment_run_name": f"{stamp}_run"}
    return json.dumps(record).encode()


def run_name(number: int) -> str:
    return f"20240101-{number:06d}_run"


def raw(content: bytes, number: int = 1) -> RawLine:
    return RawLine(number, hashlib.sha256(content).hexdigest(), content)


@st.composite
def files_in_blocks(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Lines of a file, and the file cut into blocks anywhere; the last line may be torn."""
    lines = draw(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" ")), max_size=12))
    data = b"".join(line + b"\n" for line in lines) + draw(st.just(b"") | st.just(b'{"torn'))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    bounds = zip([0, *cuts], [*cuts, len(data)], strict=True)
    return lines, [data[start:end] for start, end in bounds]


@given(files_in_blocks())
def test_lines_come_once_and_in_order_however_the_file_is_cut_into_blocks(
    case: tuple[list[bytes], list[bytes]],
) -> None:
    """Goal: cutting is invisible. Method: arbitrary blocks; lines, offset, hash and torn bytes must agree."""
    lines, blocks = case
    reader = LineReader()
    found = [line for block in blocks for line in reader.feed(block)]
    data = b"".join(blocks)
    whole = b"".join(line + b"\n" for line in lines)
    assert [line.content for line in found] == lines
    assert [line.number for line in found] == list(range(1, len(lines) + 1))
    assert [line.digest for line in found] == [hashlib.sha256(line).hexdigest() for line in lines]
    assert (reader.offset, reader.line, reader.torn_bytes) == (len(whole), len(lines), len(data) - len(whole))
    assert reader.hasher.hexdigest() == hashlib.sha256(whole).hexdigest()


@given(files_in_blocks(), st.integers(0, 12))
def test_a_line_over_the_limit_is_counted_and_hashed_but_not_held(
    case: tuple[list[bytes], list[bytes]], limit: int
) -> None:
    """Goal: one huge line costs no memory and moves nobody else. Method: a small limit, arbitrary blocks."""
    lines, blocks = case
    reader = LineReader(line_bytes_max=limit)
    found: list[RawLine] = []
    for block in blocks:
        found += reader.feed(block)
        assert sum(map(len, reader._held)) <= limit
    assert [line.content for line in found] == [line if len(line) <= limit else None for line in lines]
    assert [line.digest for line in found] == [hashlib.sha256(line).hexdigest() for line in lines]
    assert reader.hasher.hexdigest() == hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
    assert reader.torn_bytes == len(b"".join(blocks)) - reader.offset


def test_a_reader_goes_on_in_the_middle_without_changing_the_hash_it_was_given() -> None:
    """Goal: resumption. Method: read one line, hand offset, line and hash to a second reader."""
    first = LineReader()
    first.feed(b"one\n")
    handed = first.hasher
    second = LineReader(offset=first.offset, line=first.line, hasher=handed)
    assert second.feed(b"two\n") == [raw(b"two", 2)]
    assert second.offset == 8
    assert second.hasher.hexdigest() == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert handed.hexdigest() == hashlib.sha256(b"one\n").hexdigest()


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_what_json_writes_is_read_back_as_one_record(values: dict[str, Any]) -> None:
    """Goal: any record arrives unchanged. Method: a line from arbitrary JSON values, read again."""
    content = record_line(1, **values)
    found = read_line(DATASET, raw(content, 7))
    assert isinstance(found, TrackingRecord)
    assert (found.run.run, found.line) == (run_name(1), 7)
    assert found.values == json.loads(content)


@pytest.mark.parametrize("content", [b"", b"\r", b"   ", b"\t\r"])
def test_a_blank_line_is_nothing(content: bytes) -> None:
    """Goal: blank lines make no noise. Method: each kind of blank."""
    assert read_line(DATASET, raw(content)) is None


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"\r"), (b"\xef\xbb\xbf", b""), (b"  ", b"  ")], ids=["crlf", "bom", "spaces"]
)
def test_what_editors_add_around_a_line_is_ignored(before: bytes, after: bytes) -> None:
    """Goal: a file saved by an editor reads the same. Method: same digest with and without the addition."""
    plain = read_line(DATASET, raw(record_line(1, a=1)))
    edited = read_line(DATASET, raw(before + record_line(1, a=1) + after))
    assert isinstance(plain, TrackingRecord)
    assert edited == plain


def test_bare_nan_and_infinities_are_read() -> None:
    """Goal: what json.dump writes for odd floats is a record. Method: one line with all three."""
    found = read_line(DATASET, raw(record_line(1, a=float("nan"), b=float("inf"), c=float("-inf"))))
    assert isinstance(found, TrackingRecord)
    assert [str(found.values[key]) for key in "abc"] == ["nan", "inf", "-inf"]


def test_a_lone_surrogate_escape_is_read() -> None:
    """Goal: half a surrogate pair stops nothing. Method: a line with the escape that json.dumps writes."""
    found = read_line(DATASET, raw(record_line(1, prompt="a\ud800b")))
    assert isinstance(found, TrackingRecord)
    assert found.values["prompt"] == "a\ud800b"


@pytest.mark.parametrize(
    "content",
    [
        b'{"timestamp": "20240101-000001", "pro',
        b"\0" * 40,
        b'{"prompt": "\xff\xfe", "experiment_run_name": "20240101-000001_run"}',
        b'{"n": ' + b"9" * 5000 + b', "experiment_run_name": "20240101-000001_run"}',
        b"[" * 100_000,
        b"[1, 2]",
        b"17",
        "not json at all \N{SNOWMAN}".encode("utf-16"),
    ],
    ids=["cut", "nul", "no utf-8", "huge int", "deep", "array", "number", "utf-16"],
)
def test_what_is_no_whole_record_is_a_suspect_and_then_damaged(content: bytes) -> None:
    """Goal: no bytes crash the reader. Method: nasty lines without candidates end as damaged."""
    suspect = read_line(DATASET, raw(content, 3))
    assert isinstance(suspect, Suspect)
    records, damaged = Recovery(DATASET, {}).take(suspect)
    assert records == ()
    assert isinstance(damaged, DamagedLine)
    assert (damaged.line, damaged.digest) == (3, hashlib.sha256(content).hexdigest())
    assert damaged.cause


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"timestamp": "x"}, "experiment_run_name"),
        ({"experiment_run_name": 3}, "experiment_run_name"),
        ({"experiment_run_name": "../../etc"}, "no name of a file"),
        ({"experiment_run_name": "a\nb"}, "line feed"),
        ({"experiment_run_name": "x" * 1100}, "1024"),
    ],
)
def test_an_object_that_cannot_be_carried_is_damaged_with_the_rule_it_breaks(
    values: dict[str, Any], word: str
) -> None:
    """Goal: the cause says what to mend. Method: records without a usable run name."""
    found = read_line(DATASET, raw(json.dumps(values).encode(), 5))
    assert isinstance(found, DamagedLine)
    assert found.line == 5
    assert word in found.cause


def test_a_line_too_long_to_hold_is_damaged() -> None:
    """Goal: an oversize line is reported. Method: a line without content."""
    found = read_line(DATASET, RawLine(2, "d" * 64, None))
    assert isinstance(found, DamagedLine)
    assert (found.line, found.digest) == (2, "d" * 64)


@given(st.lists(st.integers(1, 50), unique=True, min_size=2, max_size=6), st.data())
def test_damage_to_one_line_never_touches_its_neighbours(numbers: list[int], data: st.DataObject) -> None:
    """Goal: invariant 5. Method: overwrite random bytes of one line; all other records stay as they were."""
    lines = [record_line(number, prompt="a red shoe") for number in numbers]
    victim = data.draw(st.integers(0, len(lines) - 1))
    start = data.draw(st.integers(0, len(lines[victim]) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=20)).replace(b"\n", b"?")
    damaged = [*lines]
    damaged[victim] = lines[victim][:start] + noise + lines[victim][start + len(noise) :]
    found = [read_line(DATASET, line) for line in LineReader().feed(b"\n".join(damaged) + b"\n")]
    expected = [read_line(DATASET, line) for line in LineReader().feed(b"\n".join(lines) + b"\n")]
    others = [index for index in range(len(lines)) if index != victim]
    assert [found[index] for index in others] == [expected[index] for index in others]


def test_a_cut_line_is_recovered_with_the_digest_that_the_true_line_has() -> None:
    """Goal: recovery makes no second identity. Method: cut a line, give its args.json as a candidate."""
    line = record_line(1, prompt="a red shoe", steps=30)
    true = read_line(DATASET, raw(line))
    suspect = read_line(DATASET, raw(line[:60], 4))
    assert isinstance(suspect, Suspect)
    assert isinstance(true, TrackingRecord)
    records, damaged = Recovery(DATASET, {run_name(1): line, run_name(2): record_line(2)}).take(suspect)
    assert damaged is None
    assert [(record.digest, record.line) for record in records] == [(true.digest, 4)]


def test_two_fused_lines_give_the_whole_record_and_the_recovered_one() -> None:
    """Goal: a crash between two runs loses neither. Method: a torn line with the next one right behind it."""
    one, two = record_line(1, prompt="first"), record_line(2, prompt="second")
    suspect = read_line(DATASET, raw(one[:50] + two))
    assert isinstance(suspect, Suspect)
    assert named_runs(DATASET, suspect.line) == {run_name(2)}
    records, damaged = Recovery(DATASET, {run_name(1): one}).take(suspect)
    assert damaged is None
    assert {record.run.run for record in records} == {run_name(1), run_name(2)}
    records, damaged = Recovery(DATASET, {}).take(suspect)
    assert [record.run.run for record in records] == [run_name(2)]
    assert damaged is not None


def test_a_record_behind_zeros_is_read() -> None:
    """Goal: zero-filled blocks after a power cut do not hide what follows. Method: NULs before a record."""
    suspect = read_line(DATASET, raw(b"\0" * 100 + record_line(1)))
    assert isinstance(suspect, Suspect)
    records, damaged = Recovery(DATASET, {}).take(suspect)
    assert [record.run.run for record in records] == [run_name(1)]
    assert damaged is None


def test_a_record_in_pieces_over_two_lines_is_recovered_once() -> None:
    """Goal: one record, one row. Method: another writer's line in the middle of a long one."""
    long, other = record_line(1, prompt="x" * 200), record_line(2)
    recovery = Recovery(DATASET, {run_name(1): long})
    taken = []
    for number, content in enumerate([long[:120] + other, long[120:]], start=1):
        suspect = read_line(DATASET, raw(content, number))
        assert isinstance(suspect, Suspect)
        taken.append(recovery.take(suspect))
    records = [record.run.run for records, _ in taken for record in records]
    assert sorted(records) == [run_name(1), run_name(2)]
    assert [damaged for _, damaged in taken] == [None, None]


def test_args_of_another_run_or_cut_ones_are_no_candidate() -> None:
    """Goal: only a run's own whole args.json speaks for it. Method: right, foreign and cut ones."""
    args = record_line(1)
    found = candidate(DATASET, run_name(1), args)
    assert found is not None
    assert found.run.run == run_name(1)
    assert candidate(DATASET, run_name(2), args) is None
    assert candidate(DATASET, run_name(1), args[:-5]) is None


def test_a_blank_or_damaged_line_names_no_run() -> None:
    """Goal: only whole records name runs. Method: a blank, a cut, a whole and an oversize line."""
    assert named_runs(DATASET, raw(b"")) == frozenset()
    assert named_runs(DATASET, raw(record_line(1)[:-3])) == frozenset()
    assert named_runs(DATASET, RawLine(1, "", None)) == frozenset()
    assert named_runs(DATASET, raw(record_line(1))) == {run_name(1)}
