"""What every `RowSink` does with datasets, tables and columns; `row_sinks` says which there are."""

import pytest

from pixaris_sync.errors import ConfigurationError, Failure, NameRefusedError, SyncError, TableNotFoundError
from pixaris_sync.model import Column, ColumnType
from tests.contract.row_sinks import GOOD, NOTE, RUN, SCORE, STEPS, Capability, SinkUnderTest, row

pytestmark = [
    pytest.mark.anyio,
    # Google's client says so in `to_dataframe`, which Pixaris reads with and so do we.
    pytest.mark.filterwarnings("ignore:Retrieving DataFrames:PendingDeprecationWarning"),
]


class TestDataset:
    async def test_check_is_content_with_a_dataset_that_is_there(self, under: SinkUnderTest) -> None:
        """Goal: a good configuration passes. Method: check returns."""
        await under.sink.check()

    async def test_a_missing_dataset_is_a_matter_of_configuration(self, under: SinkUnderTest) -> None:
        """Goal: a wrong dataset is told before any work. Method: check, columns and reads name it."""
        for ask in (
            under.dataless.check(),
            under.dataless.describe("table"),
            under.dataless.count_rows("table", ["run"]),
            under.dataless.read_rows("table", ["run"]),
            under.dataless.read_table("table"),
            under.dataless.is_filtered("table"),
        ):
            with pytest.raises(ConfigurationError) as caught:
                await ask
            assert "dataset" in caught.value.cause
            assert caught.value.hint

    async def test_closing_twice_is_allowed(self, under: SinkUnderTest) -> None:
        """Goal: close is safe to repeat. Method: close a used sink twice."""
        await under.sink.check()
        await under.sink.close()
        await under.sink.close()


class TestTables:
    async def test_a_missing_table_has_no_columns_and_no_rows(self, under: SinkUnderTest) -> None:
        """Goal: absence is an answer, not an error. Method: ask a dataset for a table it lacks."""
        table = under.new_table_id()
        assert await under.sink.describe(table) is None
        assert await under.sink.count_rows(table, ["run"]) == {}
        assert await under.sink.read_rows(table, ["run"]) == []

    async def test_a_missing_table_has_no_frame(self, under: SinkUnderTest) -> None:
        """Goal: absent is not empty. Method: read a whole table that a dataset lacks."""
        assert await under.sink.read_table(under.new_table_id()) is None
        assert not await under.sink.is_filtered(under.new_table_id())

    async def test_a_table_has_the_columns_it_was_created_with(self, under: SinkUnderTest) -> None:
        """Goal: names, types and order are kept. Method: create with each type, look up."""
        table = await under.table(RUN, SCORE, STEPS, GOOD)
        assert await under.columns(table) == (RUN, SCORE, STEPS, GOOD)

    async def test_a_table_was_made_at_one_time(self, under: SinkUnderTest) -> None:
        """Goal: a table of the same name that was made anew is known. Method: ask twice."""
        table = await under.table(RUN)
        described = await under.sink.describe(table)
        assert described is not None
        assert described.made_at > 0
        assert await under.sink.describe(table) == described

    async def test_a_created_table_is_clustered_by_run(self, under: SinkUnderTest) -> None:
        """Goal: to ask for some runs of a large table costs little. Method: what the service says of it."""
        table = await under.table(SCORE, RUN)
        assert under.clustering(table) in (None, ["experiment_run_name"])
        assert await under.columns(table) == (SCORE, RUN)

    async def test_creating_a_table_again_changes_nothing(self, under: SinkUnderTest) -> None:
        """Goal: create can be repeated. Method: again with other columns; the first ones and rows stay."""
        table = await under.table(RUN, SCORE)
        await under.sink.load(table, [row("a", score=1.5)], job_id=f"{table}-a")
        await under.sink.create_table(table, [RUN, STEPS])
        assert await under.columns(table) == (RUN, SCORE)
        assert await under.rows(table, "run") == [{"experiment_run_name": "run", "score": 1.5}]

    async def test_columns_of_other_types_are_told_as_other(self, under: SinkUnderTest) -> None:
        """Goal: tables made by others can be planned for. Method: fields of foreign types and modes."""
        table = under.new_table_id()
        under.make_table(
            table,
            [
                ("experiment_run_name", "STRING", "NULLABLE"),
                ("seen_at", "TIMESTAMP", "NULLABLE"),
                ("many", "STRING", "REPEATED"),
                ("nested", "RECORD", "NULLABLE"),
                ("legacy", "FLOAT", "NULLABLE"),
                ("standard", "INT64", "NULLABLE"),
            ],
        )
        columns = await under.columns(table)
        assert columns is not None
        assert [column.type for column in columns] == [
            ColumnType.STRING,
            ColumnType.OTHER,
            ColumnType.OTHER,
            ColumnType.OTHER,
            ColumnType.FLOAT,
            ColumnType.INTEGER,
        ]

    async def test_a_column_without_a_type_of_ours_cannot_be_created(self, under: SinkUnderTest) -> None:
        """Goal: OTHER is for reading only. Method: create and add one; both are refused, no table appears."""
        odd = Column("odd", ColumnType.OTHER)
        with pytest.raises(NameRefusedError):
            await under.table(RUN, odd)
        assert await under.columns(under.tables[-1]) is None
        table = await under.table(RUN)
        with pytest.raises(NameRefusedError):
            await under.sink.add_columns(table, [odd])

    @pytest.mark.parametrize("table", ["", "a/b", "a?b", "a`b", "a.b", "a#b", "x" * 1025])
    async def test_an_id_that_is_none_is_refused(self, under: SinkUnderTest, table: str) -> None:
        """Goal: no id changes the request it stands in. Method: ids with path marks, empty, too long."""
        for ask in (
            under.columns(table),
            under.sink.stream(table, [row("a")]),
            under.sink.load(table, [row("a")], job_id="refused"),
            under.sink.create_table(table, [RUN]),
        ):
            with pytest.raises(NameRefusedError):
                await ask

    async def test_ids_with_spaces_dashes_and_accents_work(self, under: SinkUnderTest) -> None:
        """Goal: every id that BigQuery allows works everywhere. Method: the whole life of one such table."""
        table = f"{under.new_table_id()} über-sät_ß"
        under.tables.append(table)
        await under.sink.create_table(table, [RUN])
        await under.sink.add_columns(table, [STEPS])
        await under.sink.widen_columns(table, ["steps"])
        await under.sink.load(table, [row("a", steps=1)], job_id=f"{under.tables[0]}-a")
        assert await under.rows(table, "run") == [{"experiment_run_name": "run", "steps": 1.0}]


class TestColumns:
    async def test_added_columns_come_last_and_can_be_loaded_into_at_once(self, under: SinkUnderTest) -> None:
        """Goal: the way of a new column's first rows. Method: add several in one call, load, read."""
        table = await under.table(RUN)
        await under.sink.add_columns(table, [SCORE, STEPS, GOOD, NOTE])
        assert await under.columns(table) == (RUN, SCORE, STEPS, GOOD, NOTE)
        sent = row("a", score=0.5, steps=2, good=False, note="a")
        await under.sink.load(table, [sent], job_id=f"{table}-a")
        assert await under.rows(table, "run") == [sent.cells]

    async def test_adding_columns_again_changes_nothing(self, under: SinkUnderTest) -> None:
        """Goal: add can be repeated after a lost answer. Method: add one old and one new, twice."""
        table = await under.table(RUN, SCORE)
        for _ in range(2):
            await under.sink.add_columns(table, [SCORE, STEPS])
        assert await under.columns(table) == (RUN, SCORE, STEPS)

    async def test_an_added_column_is_known_to_streaming_in_the_end(self, under: SinkUnderTest) -> None:
        """Goal: until streaming knows a column it says so. Method: stream till accepted, judge refusals."""
        table = await under.streaming_table(RUN)
        await under.sink.add_columns(table, [NOTE])

        async def accepted() -> bool:
            refusals = await under.sink.stream(table, [row("a", note="x")])
            assert all(refusal.unknown_column for refusal in refusals)
            return not refusals

        assert await under.eventually(accepted)
        found = await under.rows(table, "run", at_least=1)
        assert found == [{"experiment_run_name": "run", "note": "x"}]

    async def test_columns_cannot_be_changed_in_a_missing_table(self, under: SinkUnderTest) -> None:
        """Goal: a change that did not happen is told. Method: add to and widen a table that is not there."""
        table = under.new_table_id()
        with pytest.raises(TableNotFoundError):
            await under.sink.add_columns(table, [NOTE])
        with pytest.raises(TableNotFoundError):
            await under.sink.widen_columns(table, ["steps"])

    @pytest.mark.parametrize("name", ["a`b", "a` STRING, ADD COLUMN b"])
    async def test_a_name_that_is_no_column_name_is_refused(self, under: SinkUnderTest, name: str) -> None:
        """Goal: no name breaks out of its quotes. Method: hostile names; refused for good, none added."""
        table = await under.table(RUN)
        with pytest.raises(SyncError) as caught:
            await under.sink.add_columns(table, [Column(name, ColumnType.STRING)])
        assert caught.value.failure is Failure.PERMANENT
        assert await under.columns(table) == (RUN,)

    @pytest.mark.needs(Capability.SEVERAL_TYPES_AT_ONCE)
    async def test_widening_keeps_values_and_lets_fractions_in(self, under: SinkUnderTest) -> None:
        """Goal: INTEGER becomes FLOAT, FLOAT stays, twice over. Method: load before and after."""
        table = await under.table(RUN, STEPS, SCORE)
        await under.sink.load(table, [row("a", steps=7, score=1.0)], job_id=f"{table}-a")
        for _ in range(2):
            await under.sink.widen_columns(table, ["steps", "score"])
        assert await under.columns(table) == (RUN, Column("steps", ColumnType.FLOAT), SCORE)
        await under.sink.load(table, [row("b", steps=7.5)], job_id=f"{table}-b")
        assert sorted(one["steps"] for one in await under.rows(table, "run")) == [7.0, 7.5]

    async def test_text_cannot_be_widened(self, under: SinkUnderTest) -> None:
        """Goal: what BigQuery cannot do fails for good. Method: STRING and INTEGER at once; both stay."""
        table = await under.table(RUN, STEPS, NOTE)
        with pytest.raises(SyncError) as caught:
            await under.sink.widen_columns(table, ["steps", "note"])
        assert caught.value.failure is Failure.PERMANENT
        assert await under.columns(table) == (RUN, STEPS, NOTE)

    async def test_changing_no_columns_asks_nothing(self, under: SinkUnderTest) -> None:
        """Goal: an empty list is no statement. Method: both changes on a table that is not there."""
        await under.sink.add_columns(under.new_table_id(), [])
        await under.sink.widen_columns(under.tables[-1], [])
