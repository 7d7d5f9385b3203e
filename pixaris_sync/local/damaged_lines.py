r"""Damaged tracking lines: what can be read of them, and which run they tell of.

LocalExperimentHandler writes a record's JSON text twice, first as the run's ``args.json``, then as one line
of the tracking file, without fsync or lock. So a line can be

- **torn**: a crash cut it, and the next line, written whole, stands right behind it (*fused*);
- **zero-filled**: after a loss of power a file system may hand out NUL bytes where data was;
- **interleaved**: a line longer than a write buffer is written in pieces, with another writer's between them.

`split_damaged` takes whole records out of a line and leaves fragments, `recover` names the run whose
``args.json`` holds the text that a fragment is a part of. Both are careful: a record that is not found is
reported and lost to nobody, a record guessed wrongly would be a row too many. Fragments of *one* record can
stand in two lines (interleaved), so whoever recovers must take each run's record at most once.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from pixaris_sync.errors import LocalFileError
from pixaris_sync.model import JsonValue

_JSON_HINT: Final = "Pixaris writes ASCII JSON; correct the file by hand or remove what is damaged"
_RUN_NAME_KEY: Final = "experiment_run_name"
_RUN_NAME_TEXT: Final = f'"{_RUN_NAME_KEY}": '.encode()
#: How every record of Pixaris begins: ``timestamp`` is always its first key.
_RECORD_START: Final = re.compile(r'\{\s*"timestamp"')
#: The same with the whole value: enough to tell a second torn record inside a fragment from a dict in it.
_STAMPED_START: Final = re.compile(rb'\{"timestamp": "\d{8}-\d{6}"')
#: A fragment that agrees with a record over these bytes agrees on its timestamp.
_STAMPED_BYTES: Final = len(b'{"timestamp": "YYYYmmdd-HHMMSS"')
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


def load_json(text: bytes, subject: str) -> JsonValue:
    """Parse the JSON text of a tracking line or a file of a run; a byte order mark may come first.

    Args:
        text: UTF-8; Pixaris writes ASCII. ``NaN``, ``Infinity`` and ``-Infinity`` are read.
        subject: which file or line it is, for the error.

    Raises:
        LocalFileError: it is no UTF-8 or no JSON, is nested too deeply, or holds an integer of more digits
            than Python converts.
    """
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        cause = f"byte {error.start} is no UTF-8"
    except json.JSONDecodeError as error:
        cause = f"it is no JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        cause = "it is nested too deeply"
    except ValueError:
        cause = "it holds an integer of too many digits"
    raise LocalFileError("read JSON from", subject, cause, hint=_JSON_HINT)


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


def _decode_record(text: str, at: int) -> tuple[dict[str, JsonValue] | None, int, int]:
    """Decode a record at `at`: the record, where it ends, and how many characters were looked at."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, at)
    except json.JSONDecodeError as error:
        return None, at, max(error.pos - at, 1)
    except (RecursionError, ValueError):
        return None, at, len(text) - at
    inside = text.startswith(_INSIDE, _skip_blank(text, end))
    named = isinstance(value, dict) and isinstance(value.get(_RUN_NAME_KEY), str)
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
