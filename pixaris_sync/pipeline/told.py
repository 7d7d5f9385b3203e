"""What the log tells of runs: what was synced when, on what somebody must act, how it is each hour.

It stays readable however much happens. A run that comes alone has a line; of many there is a line a minute.
Of many runs in one trouble the first is told at once, and the others are counted. Each hour in which
something happened, or waits, has a summary. ERROR is what somebody must act on, WARNING what somebody should
know.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from msgspec import Struct, field

from pixaris_sync.ledger.endings import Ending, Stand, anything_waits, note_endings, stand, take_endings
from pixaris_sync.model import RunState
from pixaris_sync.pipeline.context import FOLDER, Context
from pixaris_sync.text import bytes_text, counted, seconds_text, span_text, without_run
from pixaris_sync.waiting import wait_until

log = logging.getLogger(__name__)

#: The ledger is asked this often at most.
LOOK_SECONDS: Final = 1.0
#: What comes after the first lines is gathered for this long.
GATHER_SECONDS: Final = 60.0
#: How often there is a summary; a cause is told anew after this time.
SUMMARY_SECONDS: Final = 3600.0
#: Where things wait and nothing is synced, summaries become ever rarer, up to this.
SUMMARY_SECONDS_MAX: Final = 24 * SUMMARY_SECONDS
#: So many lines of one kind at once; later one for each `GATHER_SECONDS`.
LINES_AT_ONCE: Final = 10
#: How many runs, datasets or destinations a line names.
NAMES_SHOWN: Final = 3


class Pace:
    """So many lines at once, and one more for each `GATHER_SECONDS`."""

    def __init__(self) -> None:
        self._lines = float(LINES_AT_ONCE)
        self._at = 0.0

    def allows(self, now: float, lines: int = 1) -> bool:
        """Whether there may be so many lines; if so, they count."""
        self._lines = min(self._lines + (now - self._at) / GATHER_SECONDS, LINES_AT_ONCE)
        self._at = now
        if self._lines < lines:
            return False
        self._lines -= lines
        return True


class Sum(Struct):
    """Runs that were synced, together."""

    runs: int = 0
    files: int = 0
    bytes: int = 0
    #: Those of which the table had the row already.
    stood: int = 0
    datasets: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)

    def add(self, ending: Ending) -> None:
        """Count one more."""
        self.runs += 1
        self.files += ending.files
        self.bytes += ending.bytes
        self.stood += not ending.sent
        self.datasets[ending.dataset] += 1
        if len(self.names) < NAMES_SHOWN:
            self.names.append(ending.subject)

    @property
    def text(self) -> str:
        """How much it is."""
        stood = f", {self.stood} of which stood there" if self.stood else ""
        return f"{counted(self.runs, 'run')}{stood}, {counted(self.files, 'file')}, {bytes_text(self.bytes)}"

    @property
    def fields(self) -> dict[str, object]:
        """The same for machines."""
        return {"runs": self.runs, "files": self.files, "bytes": self.bytes}


class _Cause(Struct):
    """What was told of a cause: when to tell of it again, and what has come since."""

    due_at: float
    more: int = 0
    last: str = ""


class Told:
    """Tells, and remembers what was told. Use once.

    Args:
        context: what the engine's parts share.
        is_looking: whether more may be found, so that nobody knows that nothing waits.
        stirs: an event that is set when something happens.
    """

    def __init__(
        self, context: Context, is_looking: Callable[[], bool], stirs: Callable[[], anyio.Event]
    ) -> None:
        self._context = context
        self._is_looking = is_looking
        self._stirs = stirs
        #: A pass has a bar, and ends with numbers of its own.
        self._follows = context.mode.follow
        self._outages = context.outages
        self._outages_known = 0
        now = context.now()
        self._synced_pace, self._cause_pace = Pace(), Pace()
        self._gathered, self._gathered_until = Sum(), now
        self._hour, self._hour_began_at, self._hour_seconds = Sum(), now, SUMMARY_SECONDS
        #: Nothing happened in the last hour, and nothing waits: the next hour begins when something does.
        self._quiet = False
        self._causes: dict[tuple[RunState, str], _Cause] = {}
        self._others, self._others_until = 0, now
        #: Folders without a tracking line are told of after a while.
        self._rest = False
        #: Something waits longer than it takes to carry it; when nothing waits any more, that is told.
        self._behind = self._follows

    async def keep(self) -> None:
        """Tell until cancelled."""
        await self._context.apply(note_endings, synced=self._follows)
        while True:
            stirred = self._stirs()
            await self._look(looking=self._is_looking())
            await wait_until(stirred, self._context.clock, self._due_at())
            if self._quiet:
                self._quiet, self._hour_began_at = False, self._context.now()
            await self._context.clock.sleep(LOOK_SECONDS)

    async def end(self) -> None:
        """Tell what there is to tell; nothing more comes."""
        await self._look(looking=True)
        self._tell_gathered(self._context.now(), at_once=True)

    async def _look(self, *, looking: bool) -> None:
        context, now = self._context, self._context.now()
        name = context.settings.dataset_tracking_file_name
        endings, self._rest = await context.apply(take_endings, now, name)
        await self._tell_of_outages(endings)
        self._synced([one for one in endings if one.state is RunState.SYNCED], now)
        for ending in endings:
            if ending.state is not RunState.SYNCED:
                self._to_act_on(ending, now)
        self._tell_gathered(now)
        if self._behind and not looking and not context.gate(FOLDER).failures:
            await self._tell_that_nothing_waits()
        if self._follows and now >= self._hour_began_at + self._hour_seconds:
            await self._sum_up(now)

    # -- what ended ----------------------------------------------------------------------------------------

    def _synced(self, endings: Sequence[Ending], now: float) -> None:
        """Tell of each, or gather all where there are many."""
        if not endings:
            return
        if not self._hour.runs:
            # One that was made longer ends an hour from now.
            self._hour_seconds = min(self._hour_seconds, now - self._hour_began_at + SUMMARY_SECONDS)
        alone = not self._gathered.runs and self._synced_pace.allows(now, len(endings))
        if not alone and not self._gathered.runs:
            self._gathered_until = now + GATHER_SECONDS
        for ending in endings:
            self._hour.add(ending)
            if not alone:
                self._gathered.add(ending)
            _tell_synced(ending, logging.INFO if alone else logging.DEBUG)
        waited = max(ending.seconds or 0.0 for ending in endings)
        self._behind |= waited > GATHER_SECONDS

    def _to_act_on(self, ending: Ending, now: float) -> None:
        key = ending.state, without_run(ending.cause, ending.subject)
        cause = self._causes.get(key)
        if cause is not None:
            cause.more += 1
            cause.last = ending.subject
        elif not self._cause_pace.allows(now):
            if not self._others:
                self._others_until = now + GATHER_SECONDS
            self._others += 1
        else:
            self._causes[key] = _Cause(now + GATHER_SECONDS)
            log.log(
                _level(ending.state),
                "%s is %s: %s%s",
                ending.subject,
                ending.state,
                ending.cause,
                f" ({ending.hint})" if ending.hint else "",
                extra={"run": ending.subject, "state": str(ending.state), "cause": ending.cause},
            )

    def _tell_gathered(self, now: float, *, at_once: bool = False) -> None:
        """Tell what was gathered for long enough, or `at_once`."""
        if at_once or now >= self._gathered_until:
            self._tell_gathered_runs()
        for key, cause in list(self._causes.items()):
            if cause.more and (at_once or now >= cause.due_at):
                state, text = key
                log.log(
                    _level(state),
                    "and %s %s, the last %s: %s",
                    counted(cause.more, "more is", "more are"),
                    state,
                    cause.last,
                    text,
                    extra={"runs": cause.more, "state": str(state), "cause": text},
                )
                cause.more, cause.due_at = 0, now + SUMMARY_SECONDS
            elif now >= cause.due_at + SUMMARY_SECONDS:
                del self._causes[key]
        if self._others and (at_once or now >= self._others_until):
            log.error(
                "and %d more, of other causes: `pixaris-sync status` lists them",
                self._others,
                extra={"runs": self._others},
            )
            self._others = 0

    def _tell_gathered_runs(self) -> None:
        gathered, self._gathered = self._gathered, Sum()
        if not gathered.runs:
            return
        self._synced_pace.allows(self._context.now())
        if gathered.runs <= NAMES_SHOWN:
            what = ", ".join(gathered.names)
        else:
            what = _some([f"{runs} of {name}" for name, runs in gathered.datasets.most_common()], "dataset")
        log.info("synced %s: %s", gathered.text, what, extra=gathered.fields)

    # -- now and then --------------------------------------------------------------------------------------

    async def _tell_of_outages(self, endings: Sequence[Ending]) -> None:
        self._behind |= self._follows and self._outages.begun > self._outages_known
        self._outages_known = self._outages.begun
        over = self._outages.over()
        if not over:
            return
        waiting = (await self._context.apply(stand)).waiting
        for outage in over:
            seconds = outage.worked_at - outage.since
            waited = waiting + sum(
                one.state is RunState.SYNCED and one.at >= outage.worked_at for one in endings
            )
            names = _some(outage.work, "destination")
            log.info(
                "%s %s again after %s; %s waited",
                names,
                "works" if len(outage.work) == 1 else "work",
                span_text(seconds),
                counted(waited, "run"),
                extra={"destination": names, "seconds": round(seconds, 3), "runs": waited},
            )

    async def _tell_that_nothing_waits(self) -> None:
        if await self._context.apply(anything_waits):
            return
        self._behind = False
        self._tell_gathered_runs()
        found = await self._context.apply(stand)
        log.info("caught up: nothing waits%s", _attention(found), extra={"to_act_on": found.to_act_on})

    async def _sum_up(self, now: float) -> None:
        hour, self._hour = self._hour, Sum()
        seconds, self._hour_began_at = now - self._hour_began_at, now
        found = await self._context.apply(stand)
        self._quiet = not (hour.runs or found.waiting)
        longer = min(2 * self._hour_seconds, SUMMARY_SECONDS_MAX)
        self._hour_seconds = longer if found.waiting and not hour.runs else SUMMARY_SECONDS
        if self._quiet:
            return
        log.info(
            "in the last %s: %s synced; %s%s",
            "hour" if seconds < 1.5 * SUMMARY_SECONDS else span_text(seconds),
            hour.text if hour.runs else "nothing",
            _waiting_text(found, now),
            _attention(found),
            extra={**hour.fields, "waiting": found.waiting, "to_act_on": found.to_act_on},
        )

    def _due_at(self) -> float | None:
        """When to look again although nothing happens."""
        now = self._context.now()
        due = [cause.due_at for cause in self._causes.values() if cause.more]
        due += [self._gathered_until] if self._gathered.runs else []
        due += [self._others_until] if self._others else []
        due += [self._hour_began_at + self._hour_seconds] if self._follows and not self._quiet else []
        due += [now + GATHER_SECONDS] if self._rest else []
        outage_ends_at = self._outages.next_end_at()
        due += [] if outage_ends_at is None else [outage_ends_at]
        return min(due, default=None)


def _tell_synced(ending: Ending, level: int) -> None:
    seconds = ending.seconds
    log.log(
        level,
        "synced %s: %s, %s%s%s",
        ending.subject,
        counted(ending.files, "file"),
        bytes_text(ending.bytes),
        "" if seconds is None else f" in {seconds_text(seconds)}",
        "" if ending.sent else "; its row stood there",
        extra={
            "run": ending.subject,
            "files": ending.files,
            "bytes": ending.bytes,
            **({} if seconds is None else {"seconds": round(seconds, 3)}),
        },
    )


def _level(state: RunState) -> int:
    return logging.ERROR if state is RunState.QUARANTINED else logging.WARNING


def _some(names: Sequence[str], noun: str) -> str:
    """The first of these names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {counted(more, f'more {noun}')}" if more > 0 else shown


def _waiting_text(found: Stand, now: float) -> str:
    if not found.waiting:
        return "nothing waits"
    text = counted(found.waiting, "run waits", "runs wait")
    if found.oldest_at is not None:
        text += f", the oldest for {span_text(now - found.oldest_at)}"
    if found.failing and found.failing_since is not None:
        text += f", {found.failing} of them failing for {span_text(now - found.failing_since)}: {found.cause}"
    return text


def _attention(found: Stand) -> str:
    if not found.to_act_on:
        return ""
    needy = counted(found.to_act_on, "needs attention", "need attention")
    return f"; {needy}: see `pixaris-sync status`"
