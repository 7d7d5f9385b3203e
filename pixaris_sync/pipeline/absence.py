"""What happens while the results folder is away, or a project's or dataset's: work in it rests, told once.

While the whole folder is away, nothing is claimed and nothing scanned. It is looked for with growing waits,
and by `follower` every two seconds; a pass looks as often as it tries anything. Once it is back, everything
is scanned. Where only a dataset is away, its files wait, and a scan of it finds it back: `follower` has it
scanned every two seconds.
"""

import logging
from collections.abc import Collection

from anyio import to_thread

from pixaris_sync.ledger.known import datasets_with_runs
from pixaris_sync.ledger.notices import Notice, take_in_notices
from pixaris_sync.local.presence import AbsentError, PartlyAbsentError
from pixaris_sync.model import DatasetKey
from pixaris_sync.pipeline.context import FOLDER, Context, problem_of
from pixaris_sync.text import span_text

log = logging.getLogger(__name__)


class Absence:
    """Looks for what is away, and says so in the log, once, and in the ledger, for ``status``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gate = context.gate(FOLDER)
        self._is_told = False
        self._is_told_of_parts = False
        #: Datasets in which work rests, and the folder that is away: their own, or that of their project.
        self._datasets: dict[DatasetKey, str] = {}
        #: Since when such a folder is.
        self._away_since: dict[str, float] = {}
        #: Datasets that were there when they were last listed, and those that were deleted since.
        self._listed: frozenset[DatasetKey] = frozenset()
        self._deleted: frozenset[DatasetKey] = frozenset()

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
            self._tell_back(FOLDER, self._gate.failing_since)
            self._gate.succeeded()
            self._is_told = False
            await context.apply(take_in_notices, context.now(), FOLDER, [])
        return error is None

    async def listed(self, keys: Collection[DatasetKey]) -> None:
        """Tell of datasets that are not there any more, and of those that are there again."""
        there, deleted = frozenset(keys), set[DatasetKey]()
        missing, again = self._listed - there, self._deleted & there
        # Before anything is waited for: lists may come while one is looked through.
        self._listed, self._deleted = there, self._deleted - there
        for key in missing:
            error = await to_thread.run_sync(self._context.presence.absence, key)
            if error is not None:
                await self.rest(key, error)
            else:
                deleted.add(key)
        if deleted:
            self._deleted |= deleted
            log.info("gone from the results folder: %s; what the cloud has stays", _names(deleted))
        if again:
            log.info("there again: %s", _names(again))

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
            folder = self._datasets.setdefault(key, error.subject)
            is_told = folder in self._away_since
            self._away_since.setdefault(folder, self._context.now())
        if not is_told:
            _tell(error)
        return _notice(error)

    def is_back(self, key: DatasetKey) -> None:
        """A dataset was looked into."""
        folder = self._datasets.pop(key, None)
        if folder is not None and folder not in self._datasets.values():
            self._tell_back(f"folder {folder}", self._away_since.pop(folder))

    def _tell_back(self, folder: str, since: float) -> None:
        away = span_text(self._context.now() - since)
        log.info("%s is back after %s: work in it goes on", folder, away, extra={"folder": folder})


def _tell(error: AbsentError) -> None:
    told = "%s; work in it rests until it is back (%s)"
    log.warning(told, error, error.hint, extra={"folder": error.subject, "cause": error.cause})


def _names(keys: Collection[DatasetKey]) -> str:
    return ", ".join(sorted(map(str, keys)))


def _notice(error: AbsentError) -> Notice:
    return Notice(error.subject, problem_of(error), quarantined=False, waiting=True)
