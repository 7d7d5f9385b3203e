"""The table of feedback: named by settings, made where it is missing, completed where it is short."""

import functools

import anyio
import pytest

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.settings.model import Settings
from pixaris_sync.ui.feedback_table import COLUMNS, FeedbackTable, feedback_table, prepare
from tests.fakes.row_sink import FakeRowSink
from tests.fakes.virtual_clock import VirtualClock

TABLE = FeedbackTable("my-project.pixaris", "feedback_tracking")
DENIED = SyncError("change table", str(TABLE), "denied", hint="grant roles", failure=Failure.PERMISSION)


@pytest.fixture
def sink() -> FakeRowSink:
    """An empty dataset."""
    return FakeRowSink(VirtualClock())


def run(sink: FakeRowSink) -> None:
    anyio.run(functools.partial(prepare, TABLE, sink))


def columns_of(sink: FakeRowSink) -> dict[str, str]:
    found = anyio.run(sink.describe, TABLE.name)
    assert found is not None
    return {column.name: column.type.value for column in found.columns}


@pytest.mark.parametrize(
    ("given", "dataset", "expected"),
    [
        (None, "my-project.pixaris", "my-project.pixaris.feedback_tracking"),
        (None, "pixaris", "my-project.pixaris.feedback_tracking"),
        ("other.votes.all", "pixaris", "other.votes.all"),
        ("votes.all", "pixaris", "my-project.votes.all"),
    ],
)
def test_the_table_is_the_one_that_is_named(given: str | None, dataset: str, expected: str) -> None:
    """Goal: as Pixaris' users write it. Method: each way to name it, and none."""
    settings = Settings(
        gcp_project_id="my-project",
        gcp_bq_experiment_dataset=dataset,
        gcp_pixaris_bucket_name="bucket",
        gcp_bq_feedback_table=given,
    )
    assert str(feedback_table(settings)) == expected


@pytest.mark.parametrize("given", ["votes", ".votes", "my-project.pixaris."])
def test_half_of_a_name_is_refused(given: str) -> None:
    """Goal: no statement without a dataset. Method: names that lack a part."""
    settings = Settings(
        gcp_project_id="my-project",
        gcp_bq_experiment_dataset="pixaris",
        gcp_pixaris_bucket_name="bucket",
        gcp_bq_feedback_table=given,
    )
    with pytest.raises(ConfigurationError, match=r"is not of the form project\.dataset\.table"):
        feedback_table(settings)


def test_a_missing_table_is_made_once(sink: FakeRowSink) -> None:
    """Goal: the UI starts. Method: an empty dataset, twice."""
    run(sink)
    run(sink)

    assert columns_of(sink) == {column.name: column.type.value for column in COLUMNS}
    assert sink.counts["create_table"] == 1


def test_a_table_as_pixaris_makes_it_gets_what_is_missing(sink: FakeRowSink) -> None:
    """Goal: feedback is taken. Method: all columns but one, in capitals, and one of others; it stays."""
    others = Column("REVIEWER", ColumnType.STRING)
    made = [Column(column.name.upper(), column.type) for column in COLUMNS if column.name != "misc"]
    sink.put_table(TABLE.name, [*made, others])

    run(sink)
    run(sink)

    assert columns_of(sink).keys() == {*(column.name for column in (*made, others)), "misc"}
    assert sink.counts["add_columns"] == 1


@pytest.mark.parametrize("short", [False, True], ids=["no table", "no column"])
def test_who_may_not_change_it_is_told_what_another_may_run(sink: FakeRowSink, *, short: bool) -> None:
    """Goal: a remedy that works. Method: deny it; the hint has the statement, the old hint too."""
    if short:
        sink.put_table(TABLE.name, COLUMNS[:-1])
    sink.fail_next("add_columns" if short else "create_table", DENIED)

    with pytest.raises(ConfigurationError, match="denied") as refused:
        run(sink)

    statement = (
        "ALTER TABLE `{}` ADD COLUMN `misc` STRING" if short else "CREATE TABLE `{}` (`project` STRING, "
    )
    hint = "grant roles; or let somebody who may do so run in BigQuery: "
    assert refused.value.hint.startswith(hint + statement.format(TABLE))


def test_what_may_pass_is_told_as_it_is(sink: FakeRowSink) -> None:
    """Goal: nobody runs statements against an outage. Method: a failure that passes."""
    sink.fail_next("create_table", SyncError("create table", "t", "503", failure=Failure.TRANSIENT))

    with pytest.raises(SyncError, match="503") as failed:
        run(sink)

    assert "CREATE" not in failed.value.hint
