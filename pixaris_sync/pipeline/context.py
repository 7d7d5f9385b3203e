"""What the parts of the engine share."""

import logging
import math
import random
from collections.abc import Callable, Collection, Mapping
from sqlite3 import Connection
from typing import Concatenate, ParamSpec, TypeVar

import anyio
from msgspec import Struct, field

from pixaris_sync.clock import SteadyClock
from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ledger.journal import Journal
from pixaris_sync.ledger.rows import make_rows_due
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.uploads import make_uploads_due
from pixaris_sync.limits.backoff import Backoff
from pixaris_sync.limits.concurrency import AdaptiveConcurrency
from pixaris_sync.limits.gates import ByteBudget, Gate, SharedDenial
from pixaris_sync.local.contents import RunFiles
from pixaris_sync.local.presence import Presence
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey, Problem
from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.pipeline.outages import Outages
from pixaris_sync.pipeline.unexpected import Reports
from pixaris_sync.ports import Clock, ObjectStore, RowSink
from pixaris_sync.rules.planner import RowLimits
from pixaris_sync.settings.model import Settings

T = TypeVar("T")
P = ParamSpec("P")
BUCKET = "the bucket"
FOLDER = "the results folder"
DATASET = "the dataset"
#: What is before a table's name where only its changes are meant.
CHANGING = "changing table "
#: After so many failures in a row a destination counts as away, which is told once; and where it denies.
FAILURES_TOLD = 3
DENIALS_TOLD = 2
#: How long rows go by load job after streaming inserts were denied and a load job was not.
STREAMING_RESTS_SECONDS = 3600.0
#: The longest wait after failures where an end is near.
HASTY_DELAY_SECONDS_MAX = 10.0
#: Rows that a table is asked for in one query: it reads all names in the table, however many it is asked for.
ASK_ROWS_LIMIT = 500

log = logging.getLogger(__name__)


class Mode(Struct, frozen=True):
    """How the engine works.

    Attributes:
        follow: go on until told to stop, instead of ending when nothing is left to do.
        bulk: rows by load jobs, in large batches.
        full: look at every file again, not only at changed folders.
        selection: which runs it is about.
    """

    follow: bool = False
    bulk: bool = False
    full: bool = False
    selection: Selection = field(default_factory=Selection)


def _nobody_counts(_: float) -> None:
    """See `Tally.on_row`."""


class Tally(Struct):
    """What this process has done so far, for progress and messages.

    Attributes:
        files, bytes: what it sent to the bucket.
        files_found, bytes_found: what it had to send and found there.
        rows: what it read back from the tables.
        records: what it took in.
        retries: attempts that failed and are repeated.
        on_row: called for each row that was on its way and is synced now, with the seconds since its line was
            taken in.
    """

    files: int = 0
    files_found: int = 0
    bytes: int = 0
    bytes_found: int = 0
    rows: int = 0
    records: int = 0
    retries: int = 0
    on_row: Callable[[float], object] = _nobody_counts


def no_throttle() -> float:
    """Begin all work at once."""
    return 0.0


def _nobody_scans(key: DatasetKey) -> None:
    raise RuntimeError(f"no engine is running that could scan {key}")


class Context:
    """Settings, ports, journal, clock and gates, in one place.

    Attributes:
        draining: no new work is to begin any more.
        hold: the pause that somebody asked for, if there is one.
        paused: why everything is paused (credentials, settings), until an attempt succeeds again.
        denied_tables: which tables are denied alone, and which because all are.
        troubles: destinations that are away or deny, by name, and why.
        outages: what the log tells of them.
        concurrency: how many uploads there may be at once.
        shared_tables: tables that more than one dataset of the folder goes to, and those datasets.
        scan_soon: asks the engine to scan a dataset again.
        throttle_seconds: how long to wait before more work, then to ask again; 0: begin.
        jitter: where chance comes from.
        reports: what becomes of exceptions that nobody thought of.
    """

    def __init__(  # noqa: PLR0913 - all that the engine works with, by name
        self,
        *,
        settings: Settings,
        mode: Mode,
        journal: Journal,
        store: ObjectStore,
        sink: RowSink,
        clock: Clock,
        jitter: random.Random,
        scan_soon: Callable[[DatasetKey], None] = _nobody_scans,
        throttle_seconds: Callable[[], float] = no_throttle,
        reports: Reports | None = None,
        hold: Hold | None = None,
    ) -> None:
        self.settings = settings
        self.mode = mode
        self.journal = journal
        self.store = store
        self.sink = sink
        self.clock = SteadyClock(clock)
        self._wall_clock = clock
        self.destination = settings.destination
        self.results = LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name)
        self.presence = Presence(self.results.root)
        self.files = RunFiles(settings.local_results_folder)
        self.budget = ByteBudget(settings.inflight_bytes_limit)
        self.concurrency = AdaptiveConcurrency(settings.upload_concurrency_limit)
        self.tally = Tally()
        self.shared_tables: Mapping[str, Collection[DatasetKey]] = {}
        self.paused: SyncError | None = None
        self.troubles: dict[str, SyncError] = {}
        # What is due may still keep its distance from earlier deliveries to its table.
        distance = max(settings.load_spacing_seconds, settings.bulk_spacing_seconds)
        distances = settings.fleet.spacing_seconds(distance), settings.fleet.turn_seconds
        self.outages = Outages(self.now, max(settings.retry_delay_seconds_max, *distances))
        self.draining = False
        self.hold = hold or Hold()
        self.scan_soon = scan_soon
        self.throttle_seconds = throttle_seconds
        self.reports = reports or Reports(None)
        self._throttling = anyio.Lock()
        self.jitter = jitter
        self._backoff = Backoff(settings.retry_delay_seconds_min, settings.retry_delay_seconds_max)
        self._gates: dict[str, Gate] = {}
        self._paused_by = ""
        self._denied_alone: set[str] = set()
        self.denied_tables = SharedDenial()
        self._streaming_denied: SyncError | None = None
        self._streams_again_at = 0.0

    @property
    def halted(self) -> bool:
        """Whether nothing new is to begin now: the process is to end, or somebody asked for a pause."""
        return self.draining or self.hold.since is not None

    def now(self) -> float:
        """Seconds since the epoch, as far as known when this process began: it never jumps."""
        return self.clock.now()

    def age_seconds(self, changed_ns: int) -> float:
        """How long ago a file was changed, by the clock that stamps files; below 0 for a stamp to come."""
        return self._wall_clock.now() - changed_ns / 1e9

    def stamp_ns(self, seconds_ago: float) -> int:
        """What the clock that stamps files showed so long ago, in ns since the epoch."""
        return int((self._wall_clock.now() - seconds_ago) * 1e9)

    def gate(self, destination: str) -> Gate:
        """The gate of `BUCKET`, of `FOLDER`, of a table or its changes, or of all tables (`DATASET`)."""
        if destination not in self._gates:
            self._gates[destination] = Gate(self._backoff, self.jitter)
        return self._gates[destination]

    def next_attempt_at(self, attempts: int, error: SyncError) -> float:
        """When an item that has failed `attempts` times before may be tried again."""
        return self.now() + self._backoff.delay_seconds(attempts + 1, self.jitter, error)

    def failed(
        self, destination: str, error: SyncError, *, item: int | None = None, again: bool = False
    ) -> float:
        """Note that an attempt at a destination failed; `item` and `again` as of `Gate.failed`.

        Returns:
            When the attempt may be repeated.
        """
        gate = self.gate(destination)
        now = self.now()
        # What is denied to one table may be one more denial of all of them.
        self.tally.retries += error.failure.retryable and destination != DATASET
        opens_at = gate.failed(now, error, item=item, again=again)
        denied = error.failure is Failure.PERMISSION and not error.stops_everything
        if denied and _is_table(destination) and self.denied_tables.denied(destination):
            return max(opens_at, self.failed(DATASET, error))
        if opens_at == now:
            if destination not in self._denied_alone:
                self._denied_alone.add(destination)
                log.warning("%s; it waits, others go on", error)
        elif error.stops_everything:
            pass  # `pause` tells it, or the pass ends with it.
        elif gate.failures >= (DENIALS_TOLD if error.failure is Failure.PERMISSION else FAILURES_TOLD):
            told = self.troubles.get(destination)
            if told is None or told.failure is not error.failure:
                self.troubles[destination] = error
            self.outages.rests(_named(destination), error, since=gate.failing_since, until=opens_at)
        return opens_at

    async def try_all_soon(self) -> None:
        """Let what failed be tried at once, whatever it is, and from now on often: time is short."""
        longest = min(self._backoff.delay_seconds_max, HASTY_DELAY_SECONDS_MAX)
        self._backoff = Backoff(min(self._backoff.delay_seconds_min, longest), longest)
        for gate in self._gates.values():
            gate.try_soon(self._backoff)
        await self.apply(make_uploads_due)
        await self.apply(make_rows_due)

    @property
    def denied(self) -> bool:
        """Whether something was denied: what waits may do so for that."""
        errors = [gate.last_error for gate in self._gates.values() if gate.last_error is not None]
        return bool(self._denied_alone) or any(error.failure is Failure.PERMISSION for error in errors)

    def succeeded(self, destination: str) -> None:
        """Note that a destination works, and credentials and settings with it."""
        self.troubles.pop(destination, None)
        self.outages.works(_named(destination))
        self.gate(destination).succeeded()
        if _is_table(destination):
            for table in self.denied_tables.taken(destination):
                self.gate(table).opens_at = 0.0
            if self.gate(DATASET).failures:
                self.succeeded(DATASET)
        if self.paused is not None:
            # Credentials are good or bad for all; a bucket is not there again because a table is.
            of_bucket = (destination == BUCKET) == (self._paused_by == BUCKET)
            if of_bucket or self.paused.failure is Failure.CREDENTIALS:
                self.paused = None
                self.outages.resumes(_named(destination))

    def pause(self, destination: str, error: SyncError) -> None:
        """Note that an error of a destination stops everything; it is told once."""
        if self.paused is None:
            self.outages.pauses(_named(destination), error, since=self.gate(destination).failing_since)
        self.paused, self._paused_by = error, destination

    @property
    def streams(self) -> bool:
        """Whether rows may be streamed, as far as is known: projects without billing may not."""
        return self.now() >= self._streams_again_at

    def streaming_denied(self, error: SyncError) -> None:
        """Note that a load job was taken right after a streaming insert of the same rows was denied.

        A role that comes into force just then looks the same: so it is tried again, now and then.
        """
        if self._streaming_denied is None:
            log.warning("%s; rows go by load jobs, which are taken", error)
        self._streaming_denied = error
        self._streams_again_at = self.now() + STREAMING_RESTS_SECONDS

    def streamed(self) -> None:
        """Note that a streaming insert was taken."""
        if self._streaming_denied is not None:
            log.info("streaming inserts work again")
        self._streaming_denied = None

    async def throttle(self) -> None:
        """Wait until the process may take more of the processor, or is told to end; mostly not at all."""
        if not self.throttle_seconds():
            return
        # One waits for all: were each woken by itself, that alone would use up what is allowed.
        async with self._throttling:
            while not self.draining and (seconds := self.throttle_seconds()):
                await self.clock.sleep(seconds)

    async def apply(
        self, transition: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a transition of the ledger durably: ``transition(db, *args, **kwargs)``."""

        def operation(db: Connection) -> T:
            return transition(db, *args, **kwargs)

        return await self.journal.write(operation)


def _is_table(destination: str) -> bool:
    return destination not in (BUCKET, FOLDER, DATASET) and not destination.startswith(CHANGING)


def _named(destination: str) -> str:
    return f"table {destination}" if _is_table(destination) else destination


def problem_of(error: SyncError) -> Problem:
    """What the ledger keeps of an error."""
    return Problem(cause=str(error), hint=error.hint)


def row_limits(settings: Settings, mode: Mode, now: float) -> RowLimits:
    """The bounds on deliveries in a mode: bulk gathers rows from `now` on, following sends them at once."""
    spacing = settings.bulk_spacing_seconds if mode.bulk else settings.load_spacing_seconds
    fleet = settings.fleet
    return RowLimits(
        stream_rows_limit=settings.stream_rows_limit,
        load_rows_limit=settings.load_rows_limit,
        ask_rows_limit=ASK_ROWS_LIMIT,
        loads_per_day_limit=fleet.loads_per_day(settings.loads_per_day_limit),
        table_settle_seconds=settings.table_settle_seconds,
        stream_spacing_seconds=0.0 if mode.follow else spacing,
        load_spacing_seconds=fleet.spacing_seconds(spacing),
        bulk=mode.bulk,
        delivers=mode.selection.shard is None,
        waits_for_quota=mode.follow,
        gathers_from=now if mode.bulk else -math.inf,
    )
