"""The fake's own delays and faults: what the contract suite cannot ask of every sink."""

import anyio
import pytest

from pixaris_sync.errors import Failure, JobFailedError, SyncError, TableNotFoundError
from pixaris_sync.model import Column, ColumnType, OutgoingRow
from tests.fakes.clock import ManualClock
from tests.fakes.row_sink import Call, FakeRowSink

pytestmark = pytest.mark.anyio

RUN = Column("experiment_run_name", ColumnType.STRING)
NOTE = Column("note", ColumnType.STRING)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sink(clock: ManualClock) -> FakeRowSink:
    return FakeRowSink(clock)


def row(row_id: str, **cells: object) -> OutgoingRow:
    return OutgoingRow(row_id, {"experiment_run_name": "run", **cells})


class TestDelays:
    async def test_a_new_table_is_missing_then_loses_rows_then_works(self, clock: ManualClock) -> None:
        """Goal: streaming's first minutes. Method: a row in each of the three spans; load works at once."""
        sink = FakeRowSink(clock, new_table_missing_seconds=10, new_table_swallows_seconds=60)
        await sink.create_table("t", [RUN])
        with pytest.raises(TableNotFoundError):
            await sink.stream("t", [row("a")])
        await sink.load("t", [row("b")], job_id="job")
        clock.advance(10)
        assert await sink.stream("t", [row("c")]) == ()
        clock.advance(50)
        assert await sink.stream("t", [row("d")]) == ()
        assert [stored.row_id for stored in sink.stored("t")] == ["b", "d"]
        assert sink.swallowed == ["c"]

    async def test_an_added_column_is_unknown_to_streaming_for_a_while(self, clock: ManualClock) -> None:
        """Goal: "no such field" right after ALTER TABLE. Method: stream before and after the delay."""
        sink = FakeRowSink(clock, new_column_unknown_seconds=30)
        await sink.create_table("t", [RUN])
        await sink.add_columns("t", [NOTE])
        described = await sink.describe("t")
        assert described is not None
        assert described.columns == (RUN, NOTE)
        (refusal,) = await sink.stream("t", [row("a", note="x")])
        assert refusal.unknown_column
        await sink.load("t", [row("b", note="x")], job_id="job")
        clock.advance(30)
        assert await sink.stream("t", [row("a", note="x")]) == ()

    async def test_an_insert_id_is_forgotten_after_its_window(self, clock: ManualClock) -> None:
        """Goal: insertId is no promise. Method: the same row within and after the window; and without one."""
        sink = FakeRowSink(clock, dedup_seconds=60)
        await sink.create_table("t", [RUN])
        for seconds in (0, 59, 1):
            clock.advance(seconds)
            await sink.stream("t", [row("a")])
        assert len(sink.stored("t")) == 2
        sink.dedup_seconds = 0
        await sink.stream("t", [row("a")])
        assert len(sink.stored("t")) == 3

    async def test_streamed_rows_show_after_a_delay_and_loaded_ones_at_once(self, clock: ManualClock) -> None:
        """Goal: accepted is not visible. Method: read before and after the delay."""
        sink = FakeRowSink(clock, visible_after_seconds=5)
        await sink.create_table("t", [RUN])
        await sink.stream("t", [row("a")])
        await sink.load("t", [row("b")], job_id="job")
        assert len(await sink.read_rows("t", ["run"])) == 1
        clock.advance(5)
        assert len(await sink.read_rows("t", ["run"])) == 2


class TestUpdates:
    async def test_a_table_is_updated_five_times_in_ten_seconds(
        self, clock: ManualClock, sink: FakeRowSink
    ) -> None:
        """Goal: the service's limit. Method: create, add, widen, load; streams and job ids again are free."""
        await sink.create_table("t", [RUN, Column("steps", ColumnType.INTEGER)])
        await sink.add_columns("t", [NOTE])
        await sink.widen_columns("t", ["steps"])
        for _ in range(3):
            await sink.load("t", [row("a")], job_id="job-1")
        await sink.load("t", [row("b")], job_id="job-2")
        clock.advance(9.9)
        for update in (
            sink.create_table("t", [RUN]),
            sink.add_columns("t", [NOTE]),
            sink.widen_columns("t", ["steps"]),
            sink.load("t", [row("c")], job_id="job-3"),
        ):
            with pytest.raises(SyncError) as caught:
                await update
            assert caught.value.failure is Failure.QUOTA
        assert await sink.stream("t", [row("c")]) == ()
        await sink.create_table("another", [RUN])
        clock.advance(0.1)
        await sink.load("t", [row("d")], job_id="job-4")
        assert [stored.row_id for stored in sink.stored("t")] == ["a", "b", "c", "d"]
        assert sink.refused_updates == {"t": 4}
        with pytest.raises(JobFailedError):
            await sink.load("t", [row("c")], job_id="job-3")


class TestFaults:
    async def test_a_programmed_failure_strikes_once_and_does_nothing(self, sink: FakeRowSink) -> None:
        """Goal: faults are counted. Method: fail one stream; the next works; the log has both."""
        await sink.create_table("t", [RUN])
        sink.fail_next("stream", SyncError("insert", "t", "down", failure=Failure.TRANSIENT))
        with pytest.raises(SyncError, match="down"):
            await sink.stream("t", [row("a")])
        assert sink.stored("t") == []
        assert await sink.stream("t", [row("a")]) == ()
        assert sink.faults_fired == {"stream": 1}
        assert sink.faults_left == 0
        assert sink.calls[1:] == [Call("stream", "t", 1)] * 2
        assert sink.counts == {"create_table": 1, "stream": 2}

    @pytest.mark.parametrize("method", ["stream", "load"])
    async def test_a_lost_answer_comes_after_the_deed(self, sink: FakeRowSink, method: str) -> None:
        """Goal: IN_DOUBT with the rows in. Method: lose one answer; look; the repetition adds nothing."""
        await sink.create_table("t", [RUN])
        sink.lose_answer("stream" if method == "stream" else "load")

        async def send() -> None:
            if method == "stream":
                await sink.stream("t", [row("a")])
            else:
                await sink.load("t", [row("a")], job_id="job")

        with pytest.raises(SyncError) as caught:
            await send()
        assert caught.value.failure is Failure.IN_DOUBT
        assert len(sink.stored("t")) == 1
        await send()
        assert len(sink.stored("t")) == 1

    async def test_a_failed_job_uses_its_id_up(self, sink: FakeRowSink) -> None:
        """Goal: a transient job failure needs a new id. Method: fail a job; the same id, then another."""
        await sink.create_table("t", [RUN])
        sink.fail_next_job(SyncError("load", "t", "backendError", failure=Failure.TRANSIENT))
        for _ in range(2):
            with pytest.raises(SyncError, match="backendError"):
                await sink.load("t", [row("a")], job_id="job")
        await sink.load("t", [row("a")], job_id="job-2")
        assert len(sink.stored("t")) == 1

    @pytest.mark.parametrize("name", ["_TABLE_x", "1a", "a-b", "", "x" * 301, "EXPERIMENT_run_name"])
    async def test_names_that_the_service_refuses_are_refused(self, sink: FakeRowSink, name: str) -> None:
        """Goal: stricter than the emulators. Method: reserved, malformed and doubled names in a new table."""
        with pytest.raises(SyncError):
            await sink.create_table("t", [RUN, Column(name, ColumnType.STRING)])
        assert sink.tables == []


class TestClock:
    async def test_sleepers_wake_in_order_when_time_has_passed(self, clock: ManualClock) -> None:
        """Goal: time is the test's. Method: three sleepers; advance a part, then to each next one."""
        woken: list[int] = []

        async def sleep(seconds: int) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        begin = clock.now()
        async with anyio.create_task_group() as tasks:
            for seconds in (3, 1, 2):
                tasks.start_soon(sleep, seconds)
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
            await anyio.wait_all_tasks_blocked()
            assert (woken, clock.sleeping, clock.seconds_to_next) == ([1], 2, 1)
            while clock.advance_to_next():
                await anyio.wait_all_tasks_blocked()
        assert woken == [1, 2, 3]
        assert clock.now() - begin == 3
        assert clock.seconds_to_next is None

    async def test_a_jump_of_the_wall_clock_wakes_nobody(self, clock: ManualClock) -> None:
        """Goal: now() may jump, waits do not. Method: jump past a sleeper; then cancel it."""
        begin = clock.now()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 10)
            await anyio.wait_all_tasks_blocked()
            clock.jump(100)
            await anyio.wait_all_tasks_blocked()
            assert clock.sleeping == 1
            tasks.cancel_scope.cancel()
        assert clock.sleeping == 0
        assert clock.now() - begin == 100
