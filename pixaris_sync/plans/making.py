"""Makes a plan of what a preview foresees."""

from collections.abc import Mapping

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.model import JsonValue
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.preview import foresee
from pixaris_sync.plans.estimate import Asked, operations_of
from pixaris_sync.plans.plan import Plan, PlannedTable
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.settings.model import Settings

#: What the document of a preview holds that a plan holds in another form.
_APART = ("not_carried",)


async def make_plan(
    settings: Settings, mode: Mode, ledger: Ledger, store: ObjectStore, sink: RowSink, *, now: float
) -> Plan:
    """What a backfill would do now, file by file; arguments and errors are those of `preview.foresee`."""
    asked = Asked()
    forecast = await foresee(
        settings, mode, ledger, asked.store(store), asked.sink(sink), now=now, with_runs=True
    )
    left_out = forecast.document["not_carried"]
    assert isinstance(left_out, list)  # noqa: S101 - see `Forecast.document`
    to = settings.destination
    return Plan(
        made_at=now,
        folder=str(settings.local_results_folder.resolve()),
        bucket=to.bucket,
        dataset=f"{to.bq_project}.{to.bq_dataset_id}",
        selection=mode.selection,
        full=mode.full,
        runs=forecast.runs,
        tables=tuple(
            PlannedTable(
                name,
                None if table.before is None else tuple(f"{one.name} {one.type}" for one in table.before),
                tuple(f"{one.name} {one.type}" for one in table.added.values()),
                tuple(table.widened),
            )
            for name, table in sorted(forecast.tables.items())
        ),
        left_out=tuple(one for one in left_out if isinstance(one, Mapping)),
        summary=_summary(forecast.document),
        operations=operations_of(forecast, asked),
    )


def _summary(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in document.items() if name not in _APART}
