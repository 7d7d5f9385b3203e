"""Tailing tracking files on disk: what is new since a position, and what may have been rewritten before it.

A tracking file grows by whole lines, but nothing keeps anybody from truncating, rotating or editing it. So
before new lines are read, the bytes consumed so far are read again and their SHA-256 compared with the
position's. That decides, not inode or device: a copy with the same beginning goes on where it stood, a file
rewritten in place is read from its start. Where the file's status did not change, nothing is read at all.

A last line without its newline may still be written. Where it is a whole record, and the file has not changed
for a while, it counts as one; but it is not consumed: whatever is appended to it is read together with it.

Limits: one block of the file, one line of up to `LINE_BYTES_MAX` and, only where a line is damaged, up to
`CANDIDATE_BYTES_LIMIT` of ``args.json`` files are held in memory.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.damaged_lines import Recovery, candidate, named_runs, pieces_of_whole_records
from pixaris_sync.local.run_names import blocks, placed, read_args
from pixaris_sync.local.safe_open import (
    MissingFileError,
    changed_ns_of,
    inode_of,
    local_error,
    opened_file,
    opened_folder,
)
from pixaris_sync.local.tracking_lines import LINE_BYTES_MAX, LineReader, RawLine, Suspect, read_line
from pixaris_sync.model import DamagedLine, DatasetKey, RunKey, Tail, TailPosition, TrackingRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

#: A last line without its newline that has not changed for so long is not being written any more.
SETTLED_SECONDS: Final = 60.0
#: How much of ``args.json`` files may be held to recover damaged lines; runs beyond it stay unrecovered.
CANDIDATE_BYTES_LIMIT: Final = 64 * 1024 * 1024


#: Device, inode, size and mtime of a file.
_Status = tuple[int, int, int, int]


class _Consumed(NamedTuple):
    """What is known of a tracking file's beginning: saves reading it again while the file stays the same."""

    position: TailPosition
    status: _Status
    hasher: "_Hash"


class Tailer:
    """Reads the tracking files of one results folder. Blocking; one call at a time for each dataset.

    Args:
        root: the results folder.
        tracking_file: the name of the tracking file in each dataset's folder.
        unnamed: lists a dataset's run folders that are not those of the runs given.
        line_bytes_max: a longer line is damaged and not held in memory.
    """

    def __init__(
        self,
        root: Path,
        tracking_file: str,
        unnamed: "Callable[[DatasetKey, Collection[str]], Iterable[str]]",
        *,
        line_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        self._root = root
        self._tracking_file = tracking_file
        self._unnamed = unnamed
        self._line_bytes_max = line_bytes_max
        self._consumed: dict[DatasetKey, _Consumed] = {}
        #: For files that had not changed for a while: whether their last lines, without newline, are records.
        self._unfinished: dict[DatasetKey, tuple[_Status, bool]] = {}

    def tail(
        self,
        key: DatasetKey,
        position: TailPosition | None,
        *,
        bytes_limit: int,
        settled_before_ns: int | None = None,
    ) -> Tail | None:
        """Read what is new. See `results_folder.LocalResults.tail`."""
        subject = f"{key}/{self._tracking_file}"
        try:
            with (
                opened_folder(self._root, [key.project, key.dataset]) as folder,
                opened_file(folder, self._tracking_file, subject=subject) as (handle, status),
            ):
                settled = settled_before_ns is not None and changed_ns_of(status) <= settled_before_ns
                if position is not None and self._is_read(key, status, position, settled=settled):
                    is_record = self._unfinished.get(key) == (_status(status), True)
                    torn = 0 if is_record else position.size - position.offset
                    return Tail(
                        position,
                        from_start=False,
                        records=(),
                        damaged=(),
                        torn_bytes=torn,
                        more=False,
                        changed_ns=changed_ns_of(status),
                    )
                try:
                    return self._read_on(key, handle, status, position, bytes_limit, settled=settled)
                except OSError as error:
                    raise local_error("read tracking file", subject, error) from error
        except MissingFileError:
            return None

    def _is_read(
        self, key: DatasetKey, status: os.stat_result, position: TailPosition, *, settled: bool
    ) -> bool:
        """Whether nothing in a file is new since `position`, and its last line needs no look either."""
        if _fingerprint(position) != _status(status):
            return False
        looked_at, _ = self._unfinished.get(key, (None, False))
        return position.size == position.offset or not settled or looked_at == _status(status)

    def _read_on(
        self,
        key: DatasetKey,
        handle: int,
        status: os.stat_result,
        position: TailPosition | None,
        bytes_limit: int,
        *,
        settled: bool,
    ) -> Tail:
        hasher = self._matching_hash(key, handle, status, position)
        if position is None or hasher is None:
            reader = LineReader(line_bytes_max=self._line_bytes_max)
        else:
            reader = LineReader(
                offset=position.offset,
                line=position.line,
                hasher=hasher,
                line_bytes_max=self._line_bytes_max,
            )
        lines, more = _read_lines(reader, handle, status.st_size, bytes_limit)
        records, damaged = self._understand(key, handle, status.st_size, lines)
        torn_bytes = 0 if more else reader.torn_bytes
        if settled and torn_bytes:
            last = reader.unfinished
            found = read_line(key, last) if last is not None else None
            self._unfinished[key] = _status(status), isinstance(found, TrackingRecord)
            if isinstance(found, TrackingRecord):
                records, torn_bytes = (*records, found), 0
        reached = TailPosition(
            device=status.st_dev,
            inode=inode_of(status),
            # While there is more, a size that the file does not have: the next call must not take it as read.
            size=reader.offset if more else status.st_size,
            mtime_ns=status.st_mtime_ns,
            offset=reader.offset,
            line=reader.line,
            digest=reader.hasher.hexdigest(),
        )
        self._consumed[key] = _Consumed(reached, _status(status), reader.hasher)
        return Tail(
            position=reached,
            from_start=hasher is None,
            records=records,
            damaged=damaged,
            torn_bytes=torn_bytes,
            more=more,
            changed_ns=changed_ns_of(status),
        )

    def _matching_hash(
        self, key: DatasetKey, handle: int, status: os.stat_result, position: TailPosition | None
    ) -> "_Hash | None":
        """SHA-256 of the file up to `position`, or None where that is not what was consumed."""
        if position is None or position.offset > status.st_size:
            return None
        known = self._consumed.get(key)
        if known is not None and known.position == position and known.status == _status(status):
            return known.hasher
        hasher = hashlib.sha256()
        for block in blocks(handle, 0, position.offset):
            hasher.update(block)
        return hasher if hasher.hexdigest() == position.digest else None

    def _understand(
        self, key: DatasetKey, handle: int, size: int, lines: list[RawLine]
    ) -> tuple[tuple[TrackingRecord, ...], tuple[DamagedLine, ...]]:
        found = [read_line(key, line) for line in lines]
        recovery: Recovery | None = None
        whole: list[TrackingRecord] = []
        damaged: list[DamagedLine] = []
        for item in found:
            if isinstance(item, TrackingRecord):
                whole.append(item)
            elif isinstance(item, DamagedLine):
                damaged.append(item)
            elif isinstance(item, Suspect):
                recovery = recovery or self._recovery(
                    key,
                    handle,
                    size,
                    [one for one in found if isinstance(one, Suspect)],
                    before=lines[0].number,
                )
                recovered, left = recovery.take(item)
                whole.extend(recovered)
                if left is not None:
                    damaged.append(left)
        records: list[TrackingRecord] = []
        for record in whole:
            place = placed(self._root, record, args_bytes_max=self._line_bytes_max)
            if isinstance(place, TrackingRecord):
                records.append(place)
            else:
                damaged.append(place)
        return tuple(records), tuple(damaged)

    def _recovery(
        self, key: DatasetKey, handle: int, size: int, suspects: Sequence[Suspect], *, before: int
    ) -> Recovery:
        """Prepare recovery by what the whole file says.

        A run is a candidate only where no whole record names it, anywhere in the file; and what suspects
        before line `before` were recovered to is found again, so that no later piece of such a record
        brings it a second time.
        """
        named: set[str] = set()
        for line in self._all_lines(handle, size):
            named |= named_runs(key, line)
        before_them = (
            read_line(key, line)
            for line in takewhile(lambda line: line.number < before, self._all_lines(handle, size))
        )
        earlier = [line for line in before_them if isinstance(line, Suspect)]
        unnamed = list(self._unnamed(key, named))
        lines = self._all_lines(handle, size)
        explained = pieces_of_whole_records([*earlier, *suspects], lines, unnamed)
        recovery = Recovery(key, self._candidates(key, unnamed), explained)
        for suspect in earlier:
            recovery.take(suspect)
        return recovery

    def _all_lines(self, handle: int, size: int) -> Iterator[RawLine]:
        reader = LineReader(line_bytes_max=self._line_bytes_max)
        for block in blocks(handle, 0, size):
            yield from reader.feed(block)

    def _candidates(self, key: DatasetKey, runs: Iterable[str]) -> dict[str, bytes]:
        candidates: dict[str, bytes] = {}
        left = CANDIDATE_BYTES_LIMIT
        for run in runs:
            args = self._read_args(key, run, left)
            if args is not None and candidate(key, run, args) is not None:
                candidates[run] = args
                left -= len(args)
        return candidates

    def _read_args(self, key: DatasetKey, run: str, bytes_limit: int) -> bytes | None:
        try:
            run_key = RunKey(key.project, key.dataset, run)
            return read_args(self._root, run_key, bytes_limit=bytes_limit)
        except LocalFileError:
            return None  # No candidate, then. `status` lists the run as incomplete, with the reason.


def _read_lines(reader: LineReader, handle: int, size: int, bytes_limit: int) -> tuple[list[RawLine], bool]:
    """Read whole lines of `bytes_limit` bytes together, or one longer line; tell whether there is more."""
    start = reader.offset
    limit = min(size, start + bytes_limit)
    lines: list[RawLine] = []
    for block in blocks(handle, start, limit):
        lines += reader.feed(block)
    for block in blocks(handle, limit, size) if not lines else ():
        end = block.find(b"\n") + 1
        lines += reader.feed(block[:end] if end else block)
        if lines:
            break
    return lines, reader.offset + reader.torn_bytes < size and bool(lines)


def _fingerprint(position: TailPosition) -> tuple[int, int, int, int]:
    return position.device, position.inode, position.size, position.mtime_ns


def _status(status: os.stat_result) -> _Status:
    return status.st_dev, inode_of(status), status.st_size, status.st_mtime_ns
