"""The table of Pixaris' feedback: one for all projects, in BigQuery.

Pixaris' UI does not start without it. Pixaris makes it when the first iteration is made, but then without
`misc`, which every insert has (`GCPFeedbackHandler`, 0.11.4): so every feedback would be refused.
"""

import logging
from collections.abc import Awaitable
from typing import Final

from msgspec import Struct

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.model import Column, ColumnType
from pixaris_sync.ports import RowSink
from pixaris_sync.settings.model import Settings

log = logging.getLogger(__name__)

#: As Pixaris' example of a config.yaml names it.
DEFAULT_NAME: Final = "feedback_tracking"
#: What Pixaris inserts; it reads most of it.
COLUMNS: Final = (
    *(
        Column(name, ColumnType.STRING)
        for name in ("project", "feedback_iteration", "dataset", "image_name", "experiment_name", "date")
    ),
    Column("likes", ColumnType.INTEGER),
    Column("dislikes", ColumnType.INTEGER),
    Column("comment", ColumnType.STRING),
    Column("misc", ColumnType.STRING),
)


class FeedbackTable(Struct, frozen=True):
    """Where the table is.

    Attributes:
        dataset: ``<project>.<dataset>``.
        name: its bare id in there.
    """

    dataset: str
    name: str

    def __str__(self) -> str:
        return f"{self.dataset}.{self.name}"


def feedback_table(settings: Settings) -> FeedbackTable:
    """The table that the settings name.

    Raises:
        ConfigurationError: it is no table's name.
    """
    given = settings.gcp_bq_feedback_table
    dataset, _, name = (given or f"{settings.gcp_bq_experiment_dataset}.{DEFAULT_NAME}").rpartition(".")
    if not dataset or not name:
        raise ConfigurationError(
            "use setting",
            "gcp_bq_feedback_table",
            f"{given!r} is not of the form project.dataset.table",
            hint="correct it",
        )
    return FeedbackTable(dataset if "." in dataset else f"{settings.gcp_project_id}.{dataset}", name)


async def prepare(table: FeedbackTable, sink: RowSink) -> None:
    """Make the table or the columns that are missing.

    Args:
        table: which.
        sink: its dataset.

    Raises:
        ConfigurationError: the dataset is not there, or the account may not change it; the hint says what
            another may run.
        SyncError: it could not be asked.
    """
    found = await sink.describe(table.name)
    if found is None:
        columns = ", ".join(f"`{column.name}` {column.type}" for column in COLUMNS)
        await _change(sink.create_table(table.name, COLUMNS), f"CREATE TABLE `{table}` ({columns})")
        log.info("made the feedback table %s; BigQuery may take some minutes to take feedback", table)
        return
    known = {column.name.casefold() for column in found.columns}
    missing = [column for column in COLUMNS if column.name not in known]
    if missing:
        added = ", ".join(f"ADD COLUMN `{column.name}` {column.type}" for column in missing)
        await _change(sink.add_columns(table.name, missing), f"ALTER TABLE `{table}` {added}")
        names = ", ".join(column.name for column in missing)
        log.info("added to the feedback table %s what Pixaris needs: %s", table, names)


async def _change(change: Awaitable[None], statement: str) -> None:
    """Change the table; `statement` does the same."""
    try:
        await change
    except SyncError as error:
        if error.failure is not Failure.PERMISSION:
            raise
        hint = f"{error.hint}; or let somebody who may do so run in BigQuery: {statement}"
        raise ConfigurationError(
            error.operation, error.subject, error.cause, hint=hint, failure=error.failure
        ) from error
