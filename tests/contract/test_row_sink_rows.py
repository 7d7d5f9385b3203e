"""What every `RowSink` does with rows: load, stream, read; `row_sinks` says which there are."""

import math
from functools import partial

import anyio
import pandas as pd
import pytest

from pixaris_sync.errors import Failure, SyncError, TableNotFoundError, UnknownColumnError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.rules.names import JOB_ID_PREFIX
from tests.contract.row_sinks import GOOD, NOTE, RUN, SCORE, STEPS, Capability, SinkUnderTest, row

pytestmark = [
    pytest.mark.anyio,
    # Google's client says so in `to_dataframe`, which Pixaris reads with and so do we.
    pytest.mark.filterwarnings("ignore:Retrieving DataFrames:PendingDeprecationWarning"),
]


class TestLoading:
    async def test_values_come_back_as_they_were_sent(self, under: SinkUnderTest) -> None:
        """Goal: no value is bent. Method: extremes of each type, NULLs left out, odd text."""
        table = await under.table(RUN, SCORE, STEPS, GOOD, NOTE)
        sent = [
            row("a", score=1e300, steps=2**63 - 1, good=True, note="\n\"'\\`\u2028 ü 🖼"),
            row("b", score=-0.1, steps=-(2**63), good=False, note=""),
            row("c", steps=2**53 + 1),
        ]
        await under.sink.load(table, sent, job_id=f"{table}-a")
        found = sorted(await under.rows(table, "run"), key=lambda one: one.get("steps", 0))
        assert found == [dict(sent[1].cells), dict(sent[2].cells), dict(sent[0].cells)]
        assert all(type(one["steps"]) is int for one in found)

    async def test_floats_that_are_no_numbers_arrive(self, under: SinkUnderTest) -> None:
        """Goal: NaN and infinities survive both ways in. Method: load and stream them as BigQuery's words."""
        table = await under.streaming_table(RUN, SCORE)
        words = ("NaN", "Infinity", "-Infinity")
        await under.sink.load(table, [row(word, word, score=word) for word in words], job_id=f"{table}-a")
        assert not await under.sink.stream(table, [row(word, word, score=word) for word in words])
        for word, value in zip(words, (math.nan, math.inf, -math.inf), strict=True):
            scores = [one["score"] for one in await under.rows(table, word, at_least=2)]
            assert len(scores) == 2
            assert all(score == value or (math.isnan(score) and math.isnan(value)) for score in scores)

    @pytest.mark.needs(Capability.SEVERAL_TYPES_AT_ONCE)
    async def test_columns_of_other_peoples_names_take_values(self, under: SinkUnderTest) -> None:
        """Goal: flexible column names go the whole way. Method: load, stream, widen, read rows and table.

        Blanks, dashes, umlauts, leading digits and other scripts, in a table that somebody else has made.
        """
        table = under.new_table_id()
        names = ("learning rate", "top-k", "größe", "1st", "ключ")
        fields = [(name, "INTEGER", "NULLABLE") for name in names]
        under.make_table(table, [("experiment_run_name", "STRING", "NULLABLE"), *fields])
        whole = dict.fromkeys(names, 7)
        await under.sink.load(table, [row("a", "loaded", **whole)], job_id=f"{table}-a")
        await under.sink.widen_columns(table, names)
        assert await under.columns(table) == (RUN, *(Column(name, ColumnType.FLOAT) for name in names))
        parts = dict.fromkeys(names, 0.5)
        await under.sink.load(table, [row("b", "widened", **parts)], job_id=f"{table}-b")

        async def streamed() -> bool:
            refusals = await under.sink.stream(table, [row("c", "streamed", **parts)])
            assert all(refusal.unknown_column for refusal in refusals)
            return not refusals

        assert await under.eventually(streamed)
        found = await under.rows(table, "loaded", "widened", "streamed", at_least=3)
        cells = {one["experiment_run_name"]: {name: one[name] for name in names} for one in found}
        assert cells == {"loaded": dict.fromkeys(names, 7.0), "widened": parts, "streamed": parts}
        frame = await under.sink.read_table(table)
        assert frame is not None
        assert list(frame.columns) == ["experiment_run_name", *names]

    async def test_a_job_id_runs_once(self, under: SinkUnderTest) -> None:
        """Goal: a load can be repeated after a lost answer. Method: the same job twice; rows once."""
        table = await under.table(RUN, STEPS)
        for _ in range(2):
            await under.sink.load(table, [row("a", steps=1), row("b", steps=2)], job_id=f"{table}-a")
        assert len(await under.rows(table, "run")) == 2

    async def test_a_failed_job_loads_nothing_and_stays_failed(self, under: SinkUnderTest) -> None:
        """Goal: all rows or none, an id is used up. Method: one bad row; then good rows by the same id."""
        table = await under.table(RUN, STEPS)
        for steps in ("many", 2):
            with pytest.raises(SyncError) as caught:
                await under.sink.load(table, [row("a", steps=1), row("b", steps=steps)], job_id=f"{table}-a")
            assert caught.value.failure is Failure.PERMANENT
            assert "steps" in caught.value.cause
            assert await under.rows(table, "run") == []
        await under.sink.load(table, [row("a", steps=1)], job_id=f"{table}-b")
        assert len(await under.rows(table, "run")) == 1

    async def test_a_column_that_is_not_there_is_named(self, under: SinkUnderTest) -> None:
        """Goal: the caller learns that columns must be added. Method: load a row with a new key."""
        table = await under.table(RUN)
        with pytest.raises(UnknownColumnError) as caught:
            await under.sink.load(table, [row("a"), row("b", surprise=1)], job_id=f"{table}-a")
        assert "surprise" in caught.value.cause
        assert await under.rows(table, "run") == []

    async def test_a_table_that_is_not_there_is_told(self, under: SinkUnderTest) -> None:
        """Goal: no load job creates a table. Method: load into and stream to a missing one."""
        table = under.new_table_id()
        with pytest.raises(TableNotFoundError):
            await under.sink.load(table, [row("a")], job_id=f"{table}-a")
        with pytest.raises(TableNotFoundError) as caught:
            await under.sink.stream(table, [row("a")])
        assert caught.value.failure is Failure.TRANSIENT
        assert await under.columns(table) is None

    async def test_no_rows_need_no_job(self, under: SinkUnderTest) -> None:
        """Goal: an empty batch is nothing. Method: send none to a missing table, twice over."""
        table = under.new_table_id()
        await under.sink.load(table, [], job_id=f"{table}-a")
        assert await under.sink.stream(table, []) == ()


class TestStreaming:
    async def test_streamed_rows_can_be_read(self, under: SinkUnderTest) -> None:
        """Goal: the steady state works. Method: stream extremes of each type, read them back."""
        table = await under.streaming_table(RUN, SCORE, STEPS, GOOD, NOTE)
        sent = [
            row("a", score=2, steps=2**63 - 1, good=True, note="\n\"'\\`\u2028 ü 🖼"),
            row("b", score=0.1, steps=-(2**63), good=False),
        ]
        assert await under.sink.stream(table, sent) == ()
        found = sorted(await under.rows(table, "run", at_least=2), key=lambda one: -one["steps"])
        assert found == [dict(one.cells) for one in sent]

    async def test_a_bad_row_stops_its_neighbours(self, under: SinkUnderTest) -> None:
        """Goal: 200 is not success. Method: a wrong type, an unknown field amid good rows; none is taken."""
        table = await under.streaming_table(RUN, STEPS)
        sent = [row("a", steps=1), row("b", steps="many"), row("c", surprise="x"), row("d", steps=4)]
        refusals = await under.sink.stream(table, sent)
        told = [(one.index, one.stopped, one.unknown_column) for one in refusals]
        assert told == [(0, True, False), (1, False, False), (2, False, True), (3, True, False)]
        assert "steps" in refusals[1].cause or "many" in refusals[1].cause
        assert "surprise" in refusals[2].cause
        assert await under.sink.stream(table, [sent[0], sent[3]]) == ()
        assert len(await under.rows(table, "run", at_least=2)) == 2

    async def test_the_same_insert_id_is_taken_once(self, under: SinkUnderTest) -> None:
        """Goal: a quick repetition makes no second row. Method: the same row twice at once."""
        table = await under.streaming_table(RUN)
        for _ in range(2):
            assert await under.sink.stream(table, [row("a")]) == ()
        assert len(await under.rows(table, "run", at_least=1)) == 1

    async def test_a_request_can_be_too_large(self, under: SinkUnderTest) -> None:
        """Goal: a request that BigQuery never takes is not sent. Method: one row too many; fails for good."""
        with pytest.raises(SyncError) as caught:
            await under.sink.stream(under.new_table_id(), [row("a")] * 50_001)
        assert caught.value.failure is Failure.PERMANENT

    async def test_requests_at_once_do_not_disturb_each_other(self, under: SinkUnderTest) -> None:
        """Goal: one sink serves many tasks. Method: more streams, loads and reads at once than threads."""
        table = await under.streaming_table(RUN, STEPS)
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(under.sink.stream, table, [row(f"s{number}", steps=number)])
                tasks.start_soon(under.sink.read_rows, table, ["run"])
            # More of them at once the service refuses.
            for number in range(4):
                load = partial(under.sink.load, job_id=f"{table}-{number}")
                tasks.start_soon(load, table, [row(f"l{number}", steps=-number)])
        steps = sorted(one["steps"] for one in await under.rows(table, "run", at_least=10))
        assert steps == [-3, -2, -1, 0, 0, 1, 2, 3, 4, 5]


class TestReading:
    async def test_rows_are_counted_by_their_runs(self, under: SinkUnderTest) -> None:
        """Goal: names alone tell what is there. Method: two rows of a run, one of another, none."""
        table = await under.table(RUN)
        sent = [row("a", "run"), row("b", "run"), row("c", "it's")]
        await under.sink.load(table, sent, job_id=f"{table}-a")
        assert await under.sink.count_rows(table, ["run", "it's", "none"]) == {"run": 2, "it's": 1}
        assert await under.sink.count_rows(table, []) == {}

    async def test_a_table_without_run_names_holds_no_run(self, under: SinkUnderTest) -> None:
        """Goal: a table that somebody else made is no trouble. Method: one without the column."""
        assert await under.sink.count_rows(await under.table(SCORE), ["run"]) == {}

    async def test_load_jobs_that_have_ended_are_not_under_way(self, under: SinkUnderTest) -> None:
        """Goal: nobody waits for what is over. Method: a load job of ours; then ask for those that run."""
        table = await under.table(RUN)
        await under.sink.load(table, [row("a")], job_id=f"{JOB_ID_PREFIX}{table}")
        assert await under.sink.running_loads(table) == frozenset()

    async def test_only_the_runs_asked_for_are_read(self, under: SinkUnderTest) -> None:
        """Goal: names are values, not SQL. Method: runs with quotes and backslashes beside plain ones."""
        names = ["plain", "it's", 'a "b"', "back\\slash", "tick`", "') OR TRUE --", "%"]
        table = await under.table(RUN)
        await under.sink.load(table, [row(name, name) for name in names], job_id=f"{table}-a")
        for name in names:
            assert await under.rows(table, name) == [{"experiment_run_name": name}]
        assert len(await under.rows(table, *names, "unknown")) == len(names)
        assert await under.sink.read_rows(table, []) == []

    async def test_the_whole_table_is_a_frame_as_pixaris_reads_it(self, under: SinkUnderTest) -> None:
        """Goal: verify compares what Pixaris would see. Method: a frame's columns, types and cells."""
        table = await under.table(RUN, SCORE, STEPS, GOOD)
        sent = [row("a", "a", score=1.5, steps=2**53 + 1, good=True), row("b", "b")]
        await under.sink.load(table, sent, job_id=f"{table}-a")
        frame = await under.sink.read_table(table)
        assert not await under.sink.is_filtered(table)
        assert frame is not None
        assert list(frame.columns) == ["experiment_run_name", "score", "steps", "good"]
        assert [str(kind) for kind in frame.dtypes[1:]] == ["float64", "Int64", "boolean"]
        cells = {run: cells for run, *cells in frame.itertuples(index=False)}
        assert cells["a"] == [1.5, 2**53 + 1, True]
        assert all(pd.isna(cell) for cell in cells["b"])

    async def test_an_empty_table_is_an_empty_frame(self, under: SinkUnderTest) -> None:
        """Goal: empty is not absent. Method: read a new table."""
        frame = await under.sink.read_table(await under.table(RUN, SCORE))
        assert frame is not None
        assert frame.empty
        assert list(frame.columns) == ["experiment_run_name", "score"]
