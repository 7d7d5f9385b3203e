"""The proof is proven: engines that are broken on purpose are caught by the same scenarios.

Each variant breaks one rule of the design. That it is caught shows that the scenarios reach the place, and
that `Invariants` looks there.
"""

from collections.abc import Callable
from dataclasses import replace
from sqlite3 import Connection
from typing import Any

import pytest

from pixaris_sync.ledger import intake, rows, uploads
from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.ledger.uploads import Receipt
from pixaris_sync.limits.bandwidth import UpdateRate
from pixaris_sync.model import Tail
from pixaris_sync.pipeline import deliveries, discovery, lane
from pixaris_sync.rules.contract import table_id
from tests.engine.simulate import run_scenario
from tests.support.proof_summary import Tell

#: Within so many scenarios a broken engine must be caught.
SCENARIOS = 300
Break = Callable[[pytest.MonkeyPatch], None]


def no_read_back(patch: pytest.MonkeyPatch) -> None:
    """A row counts as synced when the service has accepted it."""
    patch.setattr(deliveries, "accept_rows", rows.confirm_rows)


def no_intent(patch: pytest.MonkeyPatch) -> None:
    """Rows are sent without a word in the ledger before."""
    start = rows.start_delivery

    def forgetful(db: Connection, now: float, table: str, batch: list[PendingRow], *rest: Any) -> int:
        delivery = start(db, now, table, batch, *rest)
        db.executemany("UPDATE records SET state = 'pending' WHERE id = ?", [(row.id,) for row in batch])
        return delivery

    patch.setattr(deliveries, "start_delivery", forgetful)


def rows_before_files(patch: pytest.MonkeyPatch) -> None:
    """A row may go while files of its run are still on their way."""
    for name in ("_SENDABLE", "_TABLE_BACKLOGS"):
        statement = getattr(rows, name)
        assert "c.ready = 1" in statement
        patch.setattr(rows, name, statement.replace("c.ready = 1", "c.ready IN (0, 1)"))


def blind_retry(patch: pytest.MonkeyPatch) -> None:
    """What may have been taken is sent again without a look."""
    patch.setattr(deliveries, "mark_in_doubt", rows.reschedule_rows)


def position_moves_early(patch: pytest.MonkeyPatch) -> None:
    """The position in a tracking file is kept before its records are."""
    take_in = intake.take_in

    async def read_on(self: discovery.Discovery, known: intake.KnownDataset, inspected: set[str]) -> Any:
        tail = self._context.results.tail(known.key, known.position, bytes_limit=discovery.TAIL_BYTES_LIMIT)
        if tail is None:
            return known
        piece = self.arrivals.piece(known.position, tail, followed=self.arrivals.follows(known))
        runs = await self._find_runs(known, tail.records, piece)
        early = Tail(tail.position, tail.from_start, (), (), tail.torn_bytes, tail.more)
        await self._context.apply(take_in, self._context.now(), known.id, early, [])
        await self._context.apply(take_in, self._context.now(), known.id, tail, runs)
        inspected.update(run.name for run in runs)
        return await self._context.apply(
            intake.open_dataset, self._context.now(), known.key, table_id(known.key)
        )

    patch.setattr(discovery.Discovery, "_read_on", read_on)


def lost_ledger_means_nothing_was_sent(patch: pytest.MonkeyPatch) -> None:
    """What is found in the bucket is no sign that its row is in the table."""
    confirm = uploads.confirm_uploads

    def trusting(db: Connection, now: float, receipts: list[Receipt]) -> None:
        confirm(db, now, [replace(receipt, was_there=False) for receipt in receipts])

    patch.setattr(lane, "confirm_uploads", trusting)


def a_lost_job_is_replaced(patch: pytest.MonkeyPatch) -> None:
    """A question about a load job that fails counts as the end of that job."""
    patch.setattr(deliveries, "_ends_a_job", lambda _: True)


def updates_without_pace(patch: pytest.MonkeyPatch) -> None:
    """A table is changed and loaded into as often as there is something to send."""
    patch.setattr(UpdateRate, "delay_seconds", lambda *_: 0.0)


@pytest.mark.parametrize(
    "break_it",
    [
        no_read_back,
        no_intent,
        rows_before_files,
        blind_retry,
        position_moves_early,
        lost_ledger_means_nothing_was_sent,
        a_lost_job_is_replaced,
        updates_without_pace,
    ],
    ids=lambda break_it: break_it.__name__,
)
def test_a_broken_engine_is_caught(
    break_it: Break, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tell: Tell
) -> None:
    """Goal: scenarios that pass prove something.

    Method: break one rule, and let scenarios happen until one fails.
    """
    caplog.set_level("CRITICAL")
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        run_until_something_is_wrong()
    tell("engines broken on purpose", {"caught": 1})


def run_until_something_is_wrong() -> None:
    for seed in range(SCENARIOS):
        run_scenario(seed)
