"""How runs come: written here, with their line last, or copied in, in any order.

The line of a run that Pixaris writes says that all of it is there: nothing in its folder is newer, and its
name tells when that was. What is copied brings its line before, among or after its files. Its row waits until
its folder has been still for a while; what is missing may still come until the whole copy has paused for
longer.

Changes are told by the times that the file system sets by itself, which no copying can take along. They are
compared with the clock at the first look only, because clocks of file servers differ and ours may be set: a
change that is seen later counts from when it is seen. What this process knows of all that is kept in memory.
"""

import re
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pixaris_sync.errors import NameRefusedError
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.local.run_folder import TIMES_SET_NS, FolderTimes, RunInspection
from pixaris_sync.model import DatasetKey, RunKey, Tail, TailPosition
from pixaris_sync.pipeline.context import Context

#: A run written here is no older when it is first seen, and its first file no younger than its name says.
FRESH_SECONDS: Final = 60.0
#: A pass that has nothing else to do waits no longer for a dataset that goes on arriving.
PASS_WAITS_SECONDS: Final = 60.0
#: So long after its last change files of a run that was copied in are looked out for, and of how many runs.
LATER_SECONDS: Final = 3600.0
LATER_RUNS_LIMIT: Final = 200
#: How many runs that were copied in are remembered.
_RUNS_LIMIT: Final = 10_000
_TIMESTAMP: Final = re.compile(r"\d{8}-\d{6}", re.ASCII)


class Piece(NamedTuple):
    """A piece of a tracking file: when the file last changed, and how it came.

    Attributes:
        changed_ns: when, in ns since the epoch.
        grown: lines were written to the end of the file, as far as it shows; the file was not put in place.
        followed: this process had read it to its end before.
    """

    changed_ns: int
    grown: bool
    followed: bool


class Arrival(NamedTuple):
    """How a run came: see `ledger.intake.FoundRun`."""

    just_written: bool = False
    quiet_at: float | None = None


class _Move(NamedTuple):
    """What a run's folder looked like when it was inspected last, and since when it has been like that."""

    look: int
    signature: str
    since: float


class Arrivals:
    """Tells how runs come, and when to look at them again."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._still_seconds = context.settings.still_folder_seconds
        self._at_start: Collection[DatasetKey] | None = None
        self._read_to_end: set[DatasetKey] = set()
        #: Datasets are scanned side by side, in threads.
        self._lock = threading.Lock()
        self._moves: dict[RunKey, _Move] = {}
        #: When a dataset was last seen to be copied into.
        self._moved_at: dict[DatasetKey, float] = {}
        self._looks: dict[DatasetKey, float] = {}
        self._waits_since: dict[DatasetKey, float] = {}

    # -- tracking files ----------------------------------------------------------------------------------

    def listed(self, keys: Collection[DatasetKey]) -> None:
        """Take in a listing of datasets: those that are not in the first one are new."""
        if self._at_start is None:
            self._at_start = frozenset(keys)

    def follows(self, known: KnownDataset) -> bool:
        """Whether what comes now in a tracking file came while this process was looking."""
        is_new = known.position is None and self._at_start is not None and known.key not in self._at_start
        return is_new or known.key in self._read_to_end

    def read_to_end(self, key: DatasetKey) -> None:
        """A tracking file was read to its end, or is not there."""
        self._read_to_end.add(key)

    def piece(self, position: TailPosition | None, tail: Tail, *, followed: bool) -> Piece:
        """What a reading of a tracking file since `position` says of how its lines came."""
        reached = tail.position
        replaced = position is not None and (
            tail.from_start or (reached.device, reached.inode) != (position.device, position.inode)
        )
        copied = tail.changed_ns - reached.mtime_ns > TIMES_SET_NS
        return Piece(tail.changed_ns, grown=not replaced and not copied, followed=followed)

    # -- runs --------------------------------------------------------------------------------------------

    def judge(
        self, run: RunKey, inspection: RunInspection, piece: Piece | None = None, *, waits: bool = False
    ) -> Arrival:
        """Tell how a run came that was just inspected.

        Args:
            run: which.
            inspection: its folder.
            piece: where its records were just read; None: they were read before.
            waits: files of it were arriving when it was inspected before.
        """
        if any(isinstance(problem, NameRefusedError) for problem in inspection.problems):
            # No waiting gives it another name.
            return Arrival()
        now, patience_seconds = self._context.now(), self._still_seconds
        changed_ns = inspection.times.newest_ns if inspection.times else 0
        with self._lock:
            if piece is not None and run not in self._moves and self._is_written_here(run, inspection, piece):
                return Arrival(just_written=piece.followed)
            if inspection.problems:
                # The runs of a copy come one after another: what is missing may be of those to come.
                patience_seconds *= 2
                changed_ns = max(changed_ns, piece.changed_ns if piece else 0)
            since = self._last_move(run, inspection, changed_ns, waits=waits)
            if inspection.problems and (run in self._moves or waits):
                since = max(since, self._moved_at.get(run.dataset_key, since))
        return Arrival(quiet_at=since + patience_seconds if now < since + patience_seconds else None)

    def _is_written_here(self, run: RunKey, inspection: RunInspection, piece: Piece) -> bool:
        """Whether Pixaris wrote a run here, less than a minute ago."""
        times = inspection.times
        return (
            times is not None
            and not inspection.problems
            and piece.grown
            and abs(self._context.age_seconds(times.newest_ns)) <= FRESH_SECONDS
            and written_with_line(run.run, times, piece.changed_ns)
        )

    def _last_move(self, run: RunKey, inspection: RunInspection, changed_ns: int, *, waits: bool) -> float:
        """Since when a run has been as it is; remembered where that is not long ago."""
        now, seen = self._context.now(), self._moves.get(run)
        newest_ns = inspection.times.newest_ns if inspection.times else 0
        # A file that a clock ahead has stamped must not hide that others come.
        look = hash((newest_ns, inspection.signature, inspection.files))
        if seen is not None and look == seen.look:
            since = seen.since
        elif seen is not None or (waits and not changed_ns):
            since = now
        else:
            since = now - max(0.0, self._context.age_seconds(changed_ns))
        if seen is not None or now < since + 2 * self._still_seconds:
            self._moves.pop(run, None)
            self._moves[run] = _Move(look, inspection.signature, since)
            if len(self._moves) > _RUNS_LIMIT:
                del self._moves[next(iter(self._moves))]
            key = run.dataset_key
            self._moved_at[key] = max(since, self._moved_at.get(key, since))
        return since

    @property
    def any_lately(self) -> bool:
        """Whether runs were copied in lately."""
        return bool(self._moves)

    def stirred(self) -> Iterator[RunKey]:
        """Runs that were copied in lately, and whose folders have more since they were inspected. Blocks."""
        now, results = self._context.now(), self._context.results
        with self._lock:
            for run in [run for run, move in self._moves.items() if now - move.since > LATER_SECONDS]:
                del self._moves[run]
            lately = list(self._moves.items())[-LATER_RUNS_LIMIT:]
        for run, move in lately:
            if (results.signature(run) or "") != move.signature:
                yield run

    # -- looking again -----------------------------------------------------------------------------------

    def look_again(self, key: DatasetKey, at: float | None) -> None:
        """Look at a dataset again at that time; None: nothing of it is arriving."""
        if at is None:
            self._looks.pop(key, None)
            self._waits_since.pop(key, None)
        else:
            self._looks[key] = at
            self._waits_since.setdefault(key, self._context.now())

    def due(self) -> list[DatasetKey]:
        """The datasets that are to be looked at now; they are forgotten until `look_again`."""
        now = self._context.now()
        due = [key for key, at in self._looks.items() if at <= now]
        for key in due:
            del self._looks[key]
        return due

    def wait_anew(self) -> None:
        """Let the time that a pass waits for what is arriving begin now."""
        self._waits_since = dict.fromkeys(self._waits_since, self._context.now())

    @property
    def next_look_at(self) -> float | None:
        """When to wake for the next look; None: nothing is arriving, or a pass has waited long enough."""
        now, follow = self._context.now(), self._context.mode.follow
        return min(
            (
                at
                for key, at in self._looks.items()
                if follow or now < self._waits_since[key] + PASS_WAITS_SECONDS
            ),
            default=None,
        )


def written_with_line(name: str, times: FolderTimes, changed_ns: int) -> bool:
    """Whether a run looks as Pixaris leaves it: its line came last, and its name tells when it was written.

    Args:
        name: the run's name; where no time stands in front of it, it tells nothing.
        times: when its folder changed.
        changed_ns: when the tracking file with its line changed, in ns since the epoch.
    """
    if times.times_set or times.newest_ns > changed_ns:
        return False
    return _named_near(name, (times.oldest_ns or times.newest_ns) / 1e9)


def _named_near(name: str, at: float) -> bool:
    """Whether the time in a run's name, local or UTC, is about that of its first file."""
    stamp = _TIMESTAMP.match(name)
    if stamp is None:
        return True
    try:
        named = datetime.strptime(stamp[0], "%Y%m%d-%H%M%S")  # noqa: DTZ007 - no zone stands in a name
    except ValueError:
        return True
    try:
        utc = datetime.fromtimestamp(at, UTC)
        clocks = (utc.replace(tzinfo=None), utc.astimezone().replace(tzinfo=None))
    except (ValueError, OverflowError, OSError):
        # A time that no calendar has.
        return False
    return any(abs(clock - named) <= timedelta(seconds=FRESH_SECONDS) for clock in clocks)
