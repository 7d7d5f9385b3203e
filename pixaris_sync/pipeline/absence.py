"""What happens while the results folder is away, or a project's or dataset's: work in it rests, told once.

While the whole folder is away, nothing is claimed and nothing scanned. It is looked for with growing waits,
and by `follower` every two seconds; a pass looks as often as it tries anything. Once it is back, everything
is scanned. Where only a dataset is away, its files wait, and a scan of it finds it back: `follower` has it
scanned every two seconds.
"""

import logging

from anyio import to_thread

from pixaris_sync.ledger.known import datasets_with_runs
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.local.presence import AbsentError, PartlyAbsentError
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.context import FOLDER, Context, problem_of

log = logging.getLogger(__name__)


class Absence:
    """Looks for what is away, and says so in the log, once, and in the ledger, for ``status``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gate = context.gate(FOLDER)
        self._is_told = False
        self._is_told_of_parts = False
        self._datasets: set[DatasetKey] = set()

    async def begin(self) -> None:
        """Learn what the ledger knows; what an earlier process said is over."""
        context = self._context
        context.presence.know(await context.apply(datasets_with_runs))
        await context.apply(take_in_notices, context.now(), FOLDER, [])

    @property
    def datasets_away(self) -> frozenset[DatasetKey]:
        """Those that are away by themselves, as far as was told."""
        return frozenset(self._datasets)

    @property
    def next_look_at(self) -> float | None:
        """When to look for the results folder again; None: it is there, or a pass has looked often enough."""
        limit = self._context.mode.selection.attempts_limit
        return self._gate.opens_at if 0 < self._gate.failures < limit else None

    async def look(self) -> bool:
        """Whether the results folder is there."""
        context = self._context
        error = await to_thread.run_sync(context.presence.away)
        if error is not None:
            await self.rest(None, error)
        elif self._gate.failures:
            self._gate.succeeded()
            self._is_told = False
            log.info("%s is back: work in it goes on", FOLDER)
            await context.apply(take_in_notices, context.now(), FOLDER, [])
        return error is None

    async def rest(self, key: DatasetKey | None, error: AbsentError) -> None:
        """Let work rest in the results folder, or in a dataset."""
        context = self._context
        if key is not None and not error.whole:
            await context.apply(take_in_notices, context.now(), str(key), [self.notice_of(key, error)])
            return
        if not self._is_told:
            self._is_told = True
            _tell(error)
        self._gate.failed(context.now(), error)
        await context.apply(take_in_notices, context.now(), FOLDER, [_notice(error)])

    def notice_of(self, key: DatasetKey, error: AbsentError) -> Notice:
        """What is to be said of a dataset in which work rests; the log tells it once."""
        if isinstance(error, PartlyAbsentError):
            is_told, self._is_told_of_parts = self._is_told_of_parts, True
        else:
            is_told = key in self._datasets
            self._datasets.add(key)
        if not is_told:
            _tell(error)
        return _notice(error)

    def is_back(self, key: DatasetKey) -> None:
        """A dataset was looked into."""
        if key in self._datasets:
            self._datasets.discard(key)
            log.info("dataset %s is back: work in it goes on", key)


def _tell(error: AbsentError) -> None:
    log.warning("%s; work in it rests until it is back (%s)", error, error.hint)


def _notice(error: AbsentError) -> Notice:
    return Notice(error.subject, problem_of(error), quarantined=False, waiting=True)
