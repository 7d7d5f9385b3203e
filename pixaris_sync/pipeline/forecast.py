"""What a preview comes to: runs and tables as they would be, and the same in words."""

from collections.abc import Mapping

from msgspec import Struct, field

from pixaris_sync.ledger.foreseen import ForeseenRun
from pixaris_sync.model import Column, ColumnType, JsonValue
from pixaris_sync.rules.schema import BatchPlan


class Forecast(Struct, frozen=True):
    """What a pass would do.

    Attributes:
        document: it in numbers and words, as ``backfill --dry-run --json`` prints it.
        runs: those that it would carry; empty where they were not asked for.
        tables: by their ids, those that rows would go to.
        checks_destination: it would ask first whether bucket and dataset are there.
    """

    document: dict[str, JsonValue]
    runs: tuple[ForeseenRun, ...]
    tables: Mapping[str, "TablePlan"]
    checks_destination: bool


class TablePlan(Struct):
    """What one table would gain.

    Attributes:
        columns: how it would look so far; None where it does not exist.
        created: it does not exist and would be created.
        added: columns it would gain, by name, as they would be in the end.
        widened: INTEGER columns of today that would become FLOAT.
        renamed: keys that go into a column of another name, and that column.
        before: how it looks today.
        loads: of how many rows each load job would be, in their order.
        is_shared: rows of several datasets go there, or several of one run.
    """

    columns: tuple[Column, ...] | None
    created: bool
    added: dict[str, Column] = field(default_factory=dict)
    widened: dict[str, None] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    before: tuple[Column, ...] | None = None
    loads: list[int] = field(default_factory=list)
    is_shared: bool = False

    def take(self, plan: BatchPlan) -> None:
        """Let the table be as it is once this batch was sent."""
        self.added.update((column.name, column) for column in plan.add)
        wide = {name: Column(name, ColumnType.FLOAT) for name in plan.widen}
        self.added.update((name, column) for name, column in wide.items() if name in self.added)
        self.widened.update((name, None) for name in wide if name not in self.added)
        self.renamed.update(plan.renamed)
        known = (*(self.columns or ()), *plan.add)
        self.columns = tuple(wide.get(column.name, column) for column in known)


def tables_document(plans: Mapping[str, TablePlan]) -> dict[str, JsonValue]:
    """Plans by table id as a preview tells them."""
    existing = {table: plan for table, plan in plans.items() if not plan.created}
    return {
        "tables_to_create": [
            {"table": table, "columns": [_column(column) for column in plan.added.values()]}
            for table, plan in plans.items()
            if plan.created
        ],
        "columns_to_add": [
            {"table": table, **_column(column)}
            for table, plan in existing.items()
            for column in plan.added.values()
        ],
        "columns_to_widen": [
            {"table": table, **_column(Column(name, ColumnType.FLOAT))}
            for table, plan in existing.items()
            for name in plan.widened
        ],
        "names_rewritten": [
            {"table": table, "key": key, "column": column}
            for table, plan in plans.items()
            for key, column in plan.renamed.items()
        ],
    }


def _column(column: Column) -> dict[str, JsonValue]:
    return {"name": column.name, "type": str(column.type)}
