r"""Damaged tracking lines: what can be read of them, and which run they tell of.

LocalExperimentHandler writes a record's JSON text twice, first as the run's ``args.json``, then as one line
of the tracking file, without fsync or lock. So a line can be

- **torn**: a crash cut it, and the next line, written whole, stands right behind it (*fused*);
- **zero-filled**: after a loss of power a file system may hand out NUL bytes where data was;
- **interleaved**: a line longer than a write buffer is written in pieces, with another writer's between them.

`Recovery` takes a file's damaged lines in their order and brings back what can be read of them, or is still
told by the runs' ``args.json``. `split_damaged` takes whole records out of a line and leaves fragments,
`recover` names the run whose ``args.json`` holds the text that a fragment is a part of. Both are careful: a
record that is not found is reported, a record guessed wrongly would be a row too many.
"""

import codecs
import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from pixaris_sync.errors import SyncError
from pixaris_sync.local.tracking_lines import RawLine, Suspect, load_json, read_line
from pixaris_sync.model import DamagedLine, DatasetKey, JsonValue, TrackingRecord
from pixaris_sync.rules.contract import RUN_NAME_KEY, in_folder, parse_record, stamped_name

_UNRECOVERED: Final = "and no args.json of a run without a tracking line matches it"
_RUN_NAME_TEXT: Final = f'"{RUN_NAME_KEY}": '.encode()
#: How every record of Pixaris begins: ``timestamp`` is always its first key.
_RECORD_START: Final = re.compile(r'\{\s*"timestamp"')
#: The same with the whole value: enough to tell a second torn record inside a fragment from a dict in it.
_STAMPED_START: Final = re.compile(rb'\{"timestamp": "\d{8}-\d{6}"')
#: A fragment that agrees with a record over these bytes agrees on its timestamp.
_STAMPED_BYTES: Final = len(b'{"timestamp": "YYYYmmdd-HHMMSS"')
_STAMP_TEXT: Final = "YYYYmmdd-HHMMSS"
#: Where the timestamp stands in such a fragment; runs' names begin with it too.
_STAMP_PLACE: Final = slice(_STAMPED_BYTES - 1 - len(_STAMP_TEXT), _STAMPED_BYTES - 1)
#: What follows a value inside a larger one. A whole record is followed by something else.
_INSIDE: Final = tuple(",]}")
#: What a byte that is no UTF-8 is decoded to.
_ODD_BYTE: Final = re.compile("[\udc80-\udcff]")
_BLANK: Final = " \t\r\n\0"
_BLANK_BYTES: Final = _BLANK.encode()
#: The decoder may look at this many characters for each character of a line before it gives up.
_EFFORT_PER_CHARACTER: Final = 8
#: So often decoding may fail: making a JSONDecodeError costs a look at all the text before it.
_FAILURES_MAX: Final = 256


class Salvage(NamedTuple):
    """What a damaged line is made of.

    Attributes:
        fragments: the damaged pieces in their order.
        records: whole records in their order, parsed.
    """

    fragments: tuple[bytes, ...]
    records: tuple[dict[str, JsonValue], ...]


class Recovery:
    """Recovers the suspects of one tracking file, in file order.

    The pieces of one record can lie in several damaged lines (two writers, a long line), so each run is
    brought back at most once; a later piece of the same record counts as explained.

    Args:
        dataset: whose tracking file it is.
        candidates: name of a run to the bytes of its whole ``args.json``; only runs that no whole record
            of the file names.
        explained: fragments that are known to be pieces of whole records (`pieces_of_whole_records`).
    """

    def __init__(
        self, dataset: DatasetKey, candidates: Mapping[str, bytes], explained: Collection[bytes] = ()
    ) -> None:
        self._dataset = dataset
        self._candidates = candidates
        self._explained = explained
        self._recovered: set[str] = set()

    def take(self, suspect: Suspect) -> tuple[tuple[TrackingRecord, ...], DamagedLine | None]:
        """Read what can be read of a suspect.

        Returns:
            The records on the line, whole ones first, then those recovered from ``args.json``; and the line
            as damaged where a part of it stays unexplained.
        """
        line = suspect.line
        content = line.content or b""
        records, causes = _whole_records(self._dataset, content, line.number)
        fragments = split_damaged(content).fragments
        if not fragments and not records and not causes:
            causes = [suspect.cause]
        for fragment in fragments:
            run = recover(fragment, self._candidates)
            if run is None and fragment not in self._explained:
                causes = [*causes, f"{suspect.cause}, {_UNRECOVERED}"]
            elif run is not None and run not in self._recovered:
                record = candidate(self._dataset, run, self._candidates[run])
                if record is None:
                    causes = [*causes, f"{suspect.cause}, {_UNRECOVERED}"]
                    continue
                self._recovered.add(run)
                records.append(TrackingRecord(record.run, record.values, record.digest, line.number))
        damaged = DamagedLine(line.digest, line.number, causes[0]) if causes else None
        return tuple(records), damaged


def split_damaged(line: bytes) -> Salvage:
    """Take the whole records out of a damaged tracking line.

    A whole record is a JSON object with a string ``experiment_run_name`` that starts the line, follows
    another record, or starts as Pixaris starts one, and that does not stand inside a larger value. NUL bytes
    and white space around pieces are dropped; a line of nothing else but NULs is one fragment, a blank line
    none. The work grows with the line's length only, whatever it holds.

    Args:
        line: without or with its newline. A whole line comes back as its one record.
    """
    text = line.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    effort, failures = _EFFORT_PER_CHARACTER * len(text), 0
    records: list[dict[str, JsonValue]] = []
    pieces: list[str] = []
    piece_start = 0
    at = _skip_blank(text, 0)
    while at < len(text) and effort > 0 and failures < _FAILURES_MAX:
        record, end, looked_at = _decode_record(text, at)
        effort -= looked_at
        if record is None:
            failures += 1
            found = _RECORD_START.search(text, at + 1)
            at = found.start() if found else len(text)
        else:
            records.append(record)
            pieces.append(text[piece_start:at])
            piece_start = end
            at = _skip_blank(text, end)
            if not text.startswith("{", at):
                found = _RECORD_START.search(text, at)
                at = found.start() if found else len(text)
    pieces.append(text[piece_start:])
    torn = (piece.encode(errors="surrogateescape").strip(_BLANK_BYTES) for piece in pieces)
    fragments = [part for piece in torn if piece for part in _split_torn(piece)]
    if not fragments and not records and b"\0" in line:
        fragments.append(line.rstrip(b"\r\n"))
    return Salvage(tuple(fragments), tuple(records))


def recover(fragment: bytes, candidates: Mapping[str, bytes]) -> str | None:
    """Name the run whose record a damaged tracking line held.

    The stronger evidence decides, and only where it points at one run alone:

    1. The fragment is how one run's text begins, at least to the end of its timestamp; or how it ends, with
       the run's name in it.
    2. It begins like a run's text and agrees with its beginning and end over the timestamp and at least half
       of its own length; or it holds ``experiment_run_name`` with a run's name. Both must not disagree.
    3. A run's name stands in it as a whole path component or string.

    Args:
        fragment: what `split_damaged` left.
        candidates: name of a run to the bytes of its ``args.json``. Leave out runs whose ``args.json`` is not
            whole, and runs whose record is known already.

    Returns:
        The run's name; None where nothing points at a run, or more than one.
    """
    piece = fragment.strip(_BLANK_BYTES)
    texts = {run: text.strip(_BLANK_BYTES) for run, text in candidates.items()}

    def whole(run: str) -> bool:
        begins = len(piece) >= _STAMPED_BYTES and texts[run].startswith(piece)
        return begins or (texts[run].endswith(piece) and _mentions(piece, run))

    exact = [run for run in texts if whole(run)]
    if exact:
        return exact[0] if len(exact) == 1 else None
    alike = _most(texts, lambda run: _likeness(piece, texts[run]))
    named = [run for run in texts if _RUN_NAME_TEXT + json.dumps(run).encode() in piece]
    told = {*alike, *named}
    if not told:
        told = {run for run in texts if _mentions(piece, run)}
    return told.pop() if len(told) == 1 else None


def pieces_of_whole_records(
    suspects: Iterable[Suspect], lines: Iterable[RawLine], unnamed: Iterable[str]
) -> set[bytes]:
    """The fragments of suspects that are how a whole record of the same file begins, of one run alone.

    So they look once a run's ``args.json`` was appended because its line was torn.

    Args:
        suspects: damaged lines of a tracking file.
        lines: all its lines.
        unnamed: runs that no whole record names: a fragment with the time of one may be its.
    """
    by_stamp: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for suspect in suspects:
        for fragment in split_damaged(suspect.line.content or b"").fragments:
            if _STAMPED_START.match(fragment):
                by_stamp[fragment[:_STAMPED_BYTES]].add(fragment)
    runs: defaultdict[bytes, set[str]] = defaultdict(set)
    for line in lines:
        content = line.content or b""
        begun = {piece for piece in by_stamp.get(content[:_STAMPED_BYTES], ()) if content.startswith(piece)}
        if not begun:
            continue
        # In its own line, what it is a piece of may stand right behind it.
        own = split_damaged(content)
        for piece in begun:
            if content.count(piece) > own.fragments.count(piece):
                runs[piece] |= {record[RUN_NAME_KEY] for record in own.records}
    taken = {name[: len(_STAMP_TEXT)].encode() for name in unnamed}
    return {piece for piece, found in runs.items() if len(found) == 1 and piece[_STAMP_PLACE] not in taken}


def candidate(dataset: DatasetKey, run: str, args: bytes) -> TrackingRecord | None:
    """The record in a run's ``args.json``, its line being 0; None where it is not whole or another run's."""
    try:
        record = parse_record(dataset, load_json(args, f"{dataset}/{run}"), 0)
    except SyncError:
        return None
    return in_folder(record, run)


def named_runs(dataset: DatasetKey, line: RawLine) -> frozenset[str]:
    """The runs that whole records on a line name, those that stand inside a damaged line included."""
    found = read_line(dataset, line)
    records = [found] if isinstance(found, TrackingRecord) else []
    if isinstance(found, Suspect) and line.content is not None:
        records, _ = _whole_records(dataset, line.content, line.number)
    names = ((record.run.run, stamped_name(record.values, record.run.run)) for record in records)
    return frozenset(name for both in names for name in both if name is not None)


def _decode_record(text: str, at: int) -> tuple[dict[str, JsonValue] | None, int, int]:
    """Decode a record at `at`: the record, where it ends, and how many characters were looked at."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        return None, at, max(error.pos - at, 1)
    except (RecursionError, ValueError):
        return None, at, len(text) - at
    inside = text.startswith(_INSIDE, _skip_blank(text, end))
    named = isinstance(value, dict) and isinstance(value.get(RUN_NAME_KEY), str)
    # With a byte that is no UTF-8 in a string, a record is damaged although it parses.
    whole = named and not inside and not _ODD_BYTE.search(text, at, end)
    return (value, end, end - at) if whole else (None, at, end - at)


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _split_torn(piece: bytes) -> list[bytes]:
    """Cut a piece where another torn record begins in it."""
    starts = [found.start() for found in _STAMPED_START.finditer(piece) if found.start()]
    parts = (piece[start:end] for start, end in zip([0, *starts], [*starts, len(piece)], strict=True))
    return [part.strip(_BLANK_BYTES) for part in parts]


def _likeness(piece: bytes, text: bytes) -> int:
    """How many bytes at both ends a piece shares with a record's text; 0 where that proves nothing."""
    head = _shared_length(piece, text)
    if head < _STAMPED_BYTES:
        return 0
    tail = _shared_length(piece[: head - 1 : -1], text[: head - 1 : -1])
    return head + tail if 2 * (head + tail) >= len(piece) else 0


def _shared_length(one: bytes, other: bytes) -> int:
    """Length of the longest common beginning, by halving."""
    shared, limit = 0, min(len(one), len(other))
    while shared < limit:
        middle = (shared + limit + 1) // 2
        if one[shared:middle] == other[shared:middle]:
            shared = middle
        else:
            limit = middle - 1
    return shared


def _most(runs: Iterable[str], score: Callable[[str], int]) -> list[str]:
    """The runs with the highest score above 0."""
    scores = {run: points for run in runs if (points := score(run))}
    best = max(scores.values(), default=0)
    return [run for run, points in scores.items() if points == best]


def _mentions(piece: bytes, run: str) -> bool:
    r"""Whether a run's name stands in a piece between quotes or path separators, as JSON text."""
    name = re.escape(json.dumps(run)[1:-1].encode())
    return re.search(rb'["/\\]' + name + rb'["/\\]', piece) is not None


def _whole_records(
    dataset: DatasetKey, content: bytes, number: int
) -> tuple[list[TrackingRecord], list[str]]:
    """The whole records inside a damaged line, and why others among them cannot be carried."""
    records: list[TrackingRecord] = []
    causes: list[str] = []
    for values in split_damaged(content).records:
        try:
            records.append(parse_record(dataset, values, number))
        except SyncError as error:
            causes.append(error.cause)
    return records, causes
