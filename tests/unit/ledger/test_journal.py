"""Group commit: many writers, few transactions, no change lost or shown too early."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.journal import Journal
from tests.fakes.clock import ManualClock

pytestmark = pytest.mark.anyio


class CountedLedger(Ledger):
    """Counts transactions, holds them back while `gate` is closed, and fails when told to."""

    transactions: list[int]
    gate: threading.Event
    failure: LedgerError | None = None
    commits_seen: int = 0

    def apply(self, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        self.transactions.append(len(operations))
        assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        outcomes = super().apply(operations)
        assert not self._connection.in_transaction
        self.commits_seen += 1
        return outcomes


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[CountedLedger]:
    ledger = CountedLedger.open(tmp_path / "ledger.sqlite3")
    ledger.transactions, ledger.gate = [], threading.Event()
    ledger.gate.set()
    yield ledger
    ledger.close()


@asynccontextmanager
async def running(ledger: Ledger, *, threaded: bool = True) -> AsyncIterator[Journal]:
    journal = Journal(ledger, threaded=threaded)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        try:
            yield journal
        finally:
            journal.close()


def put(name: str) -> Callable[[sqlite3.Connection], str]:
    def operation(db: sqlite3.Connection) -> str:
        db.execute("INSERT INTO facts (name, value) VALUES (?, '')", (name,))
        return name

    return operation


def count(ledger: Ledger) -> int:
    found: int = ledger.read(lambda db: db.execute("SELECT count(*) FROM facts").fetchone()[0])
    return found


async def settle() -> None:
    """Let every task run as far as it can without the ledger."""
    await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("threaded", [True, False])
async def test_every_writer_gets_its_own_answer(ledger: CountedLedger, *, threaded: bool) -> None:
    """Goal: no answer goes astray. Method: many writers at once, each with its name."""
    answers: dict[str, str] = {}

    async def writer(name: str) -> None:
        answers[name] = await journal.write(put(name))

    async with running(ledger, threaded=threaded) as journal, anyio.create_task_group() as writers:
        for number in range(100):
            writers.start_soon(writer, f"n{number}")
    assert answers == {f"n{number}": f"n{number}" for number in range(100)}
    assert count(ledger) == 100


async def test_what_arrives_during_a_commit_is_one_transaction(ledger: CountedLedger) -> None:
    """Goal: a commit costs the same for one as for many. Method: hold the first, let others gather."""
    ledger.gate.clear()
    async with running(ledger) as journal, anyio.create_task_group() as writers:
        writers.start_soon(journal.write, put("first"))
        await settle()
        for number in range(50):
            writers.start_soon(journal.write, put(f"n{number}"))
        await settle()
        ledger.gate.set()
    assert ledger.transactions == [1, 50]


async def test_a_write_returns_only_when_it_is_durable(ledger: CountedLedger) -> None:
    """Goal: intent first. Method: while the commit is held back, nobody has returned."""
    ledger.gate.clear()
    returned: list[int] = []

    async def writer() -> None:
        await journal.write(put("a"))
        returned.append(ledger.commits_seen)

    async with running(ledger) as journal, anyio.create_task_group() as writers:
        writers.start_soon(writer)
        await settle()
        assert returned == []
        ledger.gate.set()
    assert returned == [1]


async def test_an_error_reaches_only_its_caller(ledger: CountedLedger) -> None:
    """Goal: one bad operation never stops another. Method: one of three in a transaction raises."""
    ledger.gate.clear()
    caught: list[str] = []

    def fail(_: sqlite3.Connection) -> None:
        raise KeyError("reason")

    async def failing() -> None:
        with pytest.raises(KeyError):
            await journal.write(fail)
        caught.append("failing")

    async with running(ledger) as journal, anyio.create_task_group() as writers:
        writers.start_soon(journal.write, put("holds the first commit"))
        await settle()
        writers.start_soon(journal.write, put("a"))
        writers.start_soon(failing)
        writers.start_soon(journal.write, put("b"))
        await settle()
        ledger.gate.set()
    assert ledger.transactions == [1, 3]
    assert caught == ["failing"]
    assert count(ledger) == 3


async def test_a_failed_commit_reaches_all_its_callers_and_the_next_works(ledger: CountedLedger) -> None:
    """Goal: nobody believes in a change that was undone. Method: fail one commit of two operations."""
    ledger.gate.clear()
    failed: list[str] = []

    async def writer(name: str) -> None:
        with pytest.raises(LedgerError, match="disk"):
            await journal.write(put(name))
        failed.append(name)

    async with running(ledger) as journal:
        async with anyio.create_task_group() as writers:
            ledger.failure = LedgerError("write ledger", "x", "disk full")
            for name in ("a", "b"):
                writers.start_soon(writer, name)
            await settle()
            ledger.gate.set()
        ledger.failure = None
        assert await journal.write(put("c")) == "c"
    assert sorted(failed) == ["a", "b"]
    assert count(ledger) == 1


async def test_close_commits_what_has_arrived_and_ends(ledger: CountedLedger) -> None:
    """Goal: nothing is lost at the end. Method: close while writers wait behind a held commit."""
    ledger.gate.clear()
    async with running(ledger) as journal, anyio.create_task_group() as writers:
        for number in range(10):
            writers.start_soon(journal.write, put(f"n{number}"))
            await settle()
        journal.close()
        ledger.gate.set()
    assert count(ledger) == 10


async def test_closing_an_idle_journal_ends_it(ledger: CountedLedger) -> None:
    """Goal: `run` returns. Method: close without a write; the context would wait for ever otherwise."""
    with anyio.fail_after(20):
        async with running(ledger):
            await settle()
    assert ledger.transactions == []


async def test_a_cancelled_writer_neither_stops_nor_loses_others(ledger: CountedLedger) -> None:
    """Goal: cancellation is one caller's own affair. Method: cancel one of two behind a held commit."""
    ledger.gate.clear()
    async with running(ledger) as journal, anyio.create_task_group() as writers:
        writers.start_soon(journal.write, put("first"))
        await settle()
        with anyio.CancelScope() as scope:
            writers.start_soon(journal.write, put("other"))
            scope.cancel()
            await journal.write(put("cancelled"))
        assert scope.cancelled_caught
        ledger.gate.set()
    assert count(ledger) == 3


async def test_a_commit_under_way_is_finished_although_the_journal_is_cancelled(
    ledger: CountedLedger,
) -> None:
    """Goal: a thread is never left alone with the ledger. Method: cancel `run` in the middle of a commit."""
    ledger.gate.clear()
    journal = Journal(ledger)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.run)
            tasks.start_soon(journal.write, put("a"))
            await settle()
            scope.cancel()
            ledger.gate.set()
    assert ledger.commits_seen == 1
    assert count(ledger) == 1


@pytest.mark.parametrize("threaded", [True, False])
async def test_changes_by_another_process_are_noticed(
    ledger: CountedLedger, tmp_path: Path, *, threaded: bool
) -> None:
    """Goal: `retry` wakes the daemon, its own writes do not. Method: write here, then from elsewhere."""
    async with running(ledger, threaded=threaded) as journal:
        before = await journal.changes_of_others()
        await journal.write(put("a"))
        assert await journal.changes_of_others() == before
        other = Ledger.open(tmp_path / "ledger.sqlite3")
        other.write(put("b"))
        other.close()
        assert await journal.changes_of_others() != before


async def test_a_full_disk_holds_everybody_up_until_there_is_space(
    ledger: CountedLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: no work goes on blindly, none is lost. Method: fail commits as time passes, then mend."""
    clock = ManualClock()
    ledger.failure = LedgerError("write ledger", "ledger", "database or disk is full", hint="make space")
    journal = Journal(ledger, threaded=False, clock=clock)
    written: list[str] = []

    async def write(name: str) -> None:
        written.append(await journal.write(put(name)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        for name in ("one", "two"):
            tasks.start_soon(write, name)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            assert journal.trouble is ledger.failure
            assert written == []
            assert clock.advance_to_next()
        ledger.failure = None
        await anyio.wait_all_tasks_blocked()
        assert sorted(written) == ["one", "two"]
        assert journal.trouble is None
        journal.close()
    assert caplog.text.count("disk is full") == 1


async def test_a_closing_journal_does_not_wait_for_space(ledger: CountedLedger) -> None:
    """Goal: a stop is a stop. Method: close while commits fail; the writer gets the error."""
    clock = ManualClock()
    ledger.failure = LedgerError("write ledger", "ledger", "database or disk is full")
    journal = Journal(ledger, threaded=False, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)

        async def write() -> None:
            with pytest.raises(LedgerError, match="disk is full"):
                await journal.write(put("one"))

        tasks.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        journal.close()
        assert clock.advance_to_next()


async def test_writing_after_the_end_is_refused(ledger: CountedLedger) -> None:
    """Goal: nobody waits for ever. Method: write once `run` has returned."""
    async with running(ledger) as journal:
        pass
    with pytest.raises(RuntimeError, match="ended"):
        await journal.write(put("late"))
