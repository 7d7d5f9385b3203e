"""The proof is proven: engines that are broken on purpose are caught by the same scenarios.

Each variant breaks one rule of the design. That it is caught shows that the scenarios reach the place, and
that `Invariants` looks there.
"""

import gc
import warnings
from collections.abc import Callable, Mapping
from sqlite3 import Connection
from typing import Any, Final

import pytest
from msgspec.structs import replace

from pixaris_sync.history import prune
from pixaris_sync.ledger import adoption as ledger_adoption
from pixaris_sync.ledger import datasets, intake, pending_rows, rows, uploads
from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.uploads import Receipt
from pixaris_sync.limits.bandwidth import UpdateRate
from pixaris_sync.local import removal
from pixaris_sync.model import RemoteObject, RowState, Tail
from pixaris_sync.pipeline import adoption, arrival, deliveries, discovery, engine, lane, lookups
from pixaris_sync.rules import readback
from pixaris_sync.rules.contract import table_id
from pixaris_sync.rules.planner import AskFirst
from tests.engine.simulate import run_scenario
from tests.engine.test_pruned_histories import run_history
from tests.support.proof_summary import Tell

#: Within so many scenarios a broken engine must be caught. What shows in one of a hundred alone may take
#: three hundred, once the engine draws otherwise than when `SHOWS_AT` was written: such a one is large.
SCENARIOS = 600
SECONDS_MAX = 300
Break = Callable[[pytest.MonkeyPatch], None]


def no_read_back(patch: pytest.MonkeyPatch) -> None:
    """A row counts as synced when the service has accepted it."""

    def accept(db: Connection, now: float, batch: list[PendingRow], **_: object) -> None:
        rows.confirm_rows(db, now, batch)

    patch.setattr(deliveries, "accept_rows", accept)


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
    sendable = pending_rows._sendable

    def too_soon(selection: Selection) -> str:
        assert "c.ready = 1" in sendable(selection)
        return sendable(selection).replace("c.ready = 1", "c.ready IN (0, 1)")

    patch.setattr(pending_rows, "_sendable", too_soon)
    patch.setattr(pending_rows, "_table_backlogs", pending_rows._table_backlogs.__wrapped__)


def blind_retry(patch: pytest.MonkeyPatch) -> None:
    """What may have been taken is sent again without a look."""
    patch.setattr(deliveries, "mark_in_doubt", rows.reschedule_rows)


def position_moves_early(patch: pytest.MonkeyPatch) -> None:
    """The position in a tracking file is kept before its records are."""
    take_in = intake.take_in

    async def read_on(self: discovery.Discovery, known: datasets.KnownDataset, inspected: set[str]) -> Any:
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
            datasets.open_dataset, self._context.now(), known.key, table_id(known.key)
        )

    patch.setattr(discovery.Discovery, "_read_on", read_on)


def lost_ledger_means_nothing_was_sent(patch: pytest.MonkeyPatch) -> None:
    """What is found in the bucket is no sign that its row is in the table."""
    confirm = uploads.confirm_uploads

    def trusting(db: Connection, now: float, receipts: list[Receipt]) -> None:
        confirm(db, now, [receipt._replace(was_there=False) for receipt in receipts])

    patch.setattr(lane, "confirm_uploads", trusting)


def a_lost_job_is_replaced(patch: pytest.MonkeyPatch) -> None:
    """A question about a load job that fails counts as the end of that job."""
    patch.setattr(deliveries, "_ends_a_job", lambda _: True)


def updates_without_pace(patch: pytest.MonkeyPatch) -> None:
    """A table is changed and loaded into as often as there is something to send."""
    patch.setattr(UpdateRate, "delay_seconds", lambda *_: 0.0)


def nobody_is_asked_first(patch: pytest.MonkeyPatch) -> None:
    """What this process does not know of was never sent."""

    async def permit(self: lookups.Lookups, step: AskFirst) -> None:
        context = self._context
        asked = await context.apply(
            pending_rows.rows_to_ask_for, context.mode.selection, step.table_id, step.count
        )
        doubt_until = context.now() + context.settings.doubt_settle_seconds
        await context.apply(rows.permit_rows, context.now(), asked, doubt_until=doubt_until)

    patch.setattr(lookups.Lookups, "ask_first", permit)


def running_loads_are_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """What a table does not hold now, it will not hold later."""

    async def none(_self: lookups.Lookups, _table: str) -> frozenset[str]:
        return frozenset()

    patch.setattr(lookups.Lookups, "_running_loads", none)


def what_ended_well_is_repeated(patch: pytest.MonkeyPatch) -> None:
    """A row that was taken and does not show in time is sent again, whatever table it is."""
    patch.setattr(lookups, "_made_anew", lambda *_: True)


def patience_counts_from_the_error(patch: pytest.MonkeyPatch) -> None:
    """A row is in doubt for a time, whether or not its table could be asked meanwhile."""
    decide = lookups.Lookups._still_in_doubt

    async def impatient(self: lookups.Lookups, missing: list[PendingRow]) -> None:
        await decide(self, [row._replace(looked_at=row.since) for row in missing])

    patch.setattr(lookups.Lookups, "_still_in_doubt", impatient)


def another_cell_is_another_row(patch: pytest.MonkeyPatch) -> None:
    """A row is known by all that it holds."""
    standing = readback.standing

    def exact(wanted: Any, shown: Any, *rest: Any, **options: Any) -> set[Any]:
        same = [row for row in shown if any(readback.represents(one.cells, row) for one in wanted.values())]
        return standing(wanted, same, *rest, **options)

    patch.setattr(lookups, "cells_decide", lambda _wanted, count, *_, **__: count > 0)
    patch.setattr(lookups, "standing", exact)


def a_row_that_stood_tells_nothing_of_its_run(patch: pytest.MonkeyPatch) -> None:
    """A run whose row was there before is carried like any other."""

    def forgetful(db: Connection, now: float, found: list[PendingRow], **_: Any) -> None:
        rows.confirm_rows(db, now, [row._replace(state=RowState.ACCEPTED) for row in found])

    patch.setattr(lookups, "confirm_rows", forgetful)


def copies_are_not_awaited(patch: pytest.MonkeyPatch) -> None:
    """All of a run is there when its line is."""
    patch.setattr(arrival.Arrivals, "judge", lambda *_, **__: arrival.Arrival())


def an_untold_checksum_is_another(patch: pytest.MonkeyPatch) -> None:
    """What a listing tells no checksum of holds another content."""

    def believing(db: Connection, now: float, dataset: int, objects: dict[Any, RemoteObject]) -> int:
        told = {key: replace(remote, crc32c=remote.crc32c or 0) for key, remote in objects.items()}
        return ledger_adoption.adopt_objects(db, now, dataset, told)

    patch.setattr(adoption, "adopt_objects", believing)


def an_older_ledger_is_believed(patch: pytest.MonkeyPatch) -> None:
    """What waits to be sent by the ledger was not sent."""
    recover = rows.recover_deliveries

    def trusting(db: Connection, now: float) -> int:
        waiting = db.execute("SELECT id FROM records WHERE state = 'pending'").fetchall()
        recovered = recover(db, now)
        db.executemany("UPDATE records SET state = 'pending' WHERE id = ?", [tuple(row) for row in waiting])
        db.execute("UPDATE runs SET held = 0")
        return recovered

    patch.setattr(engine, "recover_deliveries", trusting)


def objects_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """What was synced once is in the bucket, and may be pruned."""

    async def nothing(*_: object) -> str:
        return ""

    patch.setattr(prune.Pruner, "_object_problem", nothing)


def files_are_not_looked_at_again(patch: pytest.MonkeyPatch) -> None:
    """A file that was read is the one that is removed."""
    patch.setattr(removal, "_check_same", lambda *_: None)


@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize(
    "break_it",
    [objects_are_not_looked_at, pytest.param(files_are_not_looked_at_again, marks=pytest.mark.large)],
    ids=lambda break_it: break_it.__name__,
)
def test_a_broken_prune_is_caught(
    break_it: Break, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tell: Tell
) -> None:
    """Goal: pruned histories that pass prove something. Method: break one rule, until a history fails."""
    caplog.set_level("CRITICAL")
    break_it(monkeypatch)

    with pytest.raises(AssertionError, match="local_results/"):
        run_until_something_is_wrong(run_history, SHOWS_AT.get(break_it, 0))
    tell("engines broken on purpose", {"caught": 1})


@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.parametrize(
    "break_it",
    [
        no_read_back,
        no_intent,
        rows_before_files,
        blind_retry,
        pytest.param(position_moves_early, marks=pytest.mark.large),
        pytest.param(lost_ledger_means_nothing_was_sent, marks=pytest.mark.large),
        a_lost_job_is_replaced,
        pytest.param(updates_without_pace, marks=pytest.mark.large),
        nobody_is_asked_first,
        pytest.param(running_loads_are_not_waited_for, marks=pytest.mark.large),
        what_ended_well_is_repeated,
        pytest.param(patience_counts_from_the_error, marks=pytest.mark.large),
        another_cell_is_another_row,
        pytest.param(a_row_that_stood_tells_nothing_of_its_run, marks=pytest.mark.large),
        pytest.param(copies_are_not_awaited, marks=pytest.mark.large),
        pytest.param(an_untold_checksum_is_another, marks=pytest.mark.large),
        pytest.param(an_older_ledger_is_believed, marks=pytest.mark.large),
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
        run_until_something_is_wrong(run_scenario, SHOWS_AT.get(break_it, 0))
    with warnings.catch_warnings():
        # What is wrong may show before the event loop has begun its work.
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
    tell("engines broken on purpose", {"caught": 1})


#: The scenario or history to begin with, where it would take seconds or minutes from the first one on.
SHOWS_AT: Final[Mapping[Break, int]] = {
    a_lost_job_is_replaced: 3,
    a_row_that_stood_tells_nothing_of_its_run: 140,
    an_older_ledger_is_believed: 78,
    an_untold_checksum_is_another: 9,
    blind_retry: 3,
    copies_are_not_awaited: 141,
    files_are_not_looked_at_again: 47,
    lost_ledger_means_nothing_was_sent: 305,
    nobody_is_asked_first: 9,
    patience_counts_from_the_error: 200,
    position_moves_early: 57,
    running_loads_are_not_waited_for: 334,
    updates_without_pace: 13,
}


def run_until_something_is_wrong(run: Callable[[int], object], first: int) -> None:
    for seed in range(first, first + SCENARIOS):
        run(seed)
