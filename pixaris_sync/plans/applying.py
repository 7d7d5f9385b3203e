"""Lets a plan be done exactly, or refuses it with what has changed since."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from sqlite3 import Connection
from typing import Final

from anyio import to_thread
from msgspec.structs import replace

from pixaris_sync.errors import SyncError
from pixaris_sync.ledger.database import Ledger, get_fact, set_fact
from pixaris_sync.ledger.overview import standing
from pixaris_sync.ledger.selection import plan_runs
from pixaris_sync.model import RunKey, RunState
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.plans.file import StoredPlan
from pixaris_sync.plans.making import make_plan
from pixaris_sync.plans.plan import differences
from pixaris_sync.ports import ObjectStore, RowSink
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted

#: The fact which plan was begun last, by its checksum.
BEGUN: Final = "plan_begun"


class PlanChangedError(SyncError):
    """Folder or cloud are not as a plan says; `differences` tells each, in a line."""

    def __init__(self, plan: str, differences: Sequence[str]) -> None:
        super().__init__(
            "apply plan",
            plan,
            f"{counted(len(differences), 'thing has', 'things have')} changed since it was made",
            hint="`pixaris-sync backfill --plan FILE` makes another one, where FILE is a new name",
        )
        self.differences = tuple(differences)


def check_destination(settings: Settings, stored: StoredPlan, name: str) -> None:
    """Make sure that a plan is of these settings' folder and destination.

    Raises:
        SyncError: it is of others.
    """
    to, plan = settings.destination, stored.plan
    for what, planned, here in (
        ("results folder", plan.folder, str(settings.local_results_folder.resolve())),
        ("bucket", plan.bucket, to.bucket),
        ("dataset", plan.dataset, f"{to.bq_project}.{to.bq_dataset_id}"),
    ):
        if planned != here:
            cause = f"it is for the {what} {planned}, and the settings name {here}"
            hint = f"name the {what} of the plan in the settings, or make another plan"
            raise SyncError("apply plan", name, cause, hint=hint)


async def begin_plan(
    settings: Settings,
    stored: StoredPlan,
    name: str,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    *,
    now: float,
) -> Mode:
    """Make sure that everything is as a plan says, and note that it is begun.

    A plan that was begun before goes on: what it has done meanwhile is no difference.

    Args:
        settings: of the folder and the destination.
        stored: the plan.
        name: what messages call it.
        ledger: the one that will be worked with; the runs of the plan are told to it.
        store: the bucket, which is only listed and asked.
        sink: the BigQuery dataset, which is only read.
        now: seconds since the epoch.

    Returns:
        How the engine does the plan, and nothing else.

    Raises:
        PlanChangedError: something has changed.
        SyncError: the cloud could not be asked.
    """
    plan = stored.plan
    limited = replace(plan.selection, attempts_limit=settings.sync_attempts_limit)
    mode = Mode(bulk=True, full=plan.full, selection=limited)
    copy = await to_thread.run_sync(lambda: Ledger.in_memory(copy_of=ledger.path))
    with closing(copy):
        found = await make_plan(settings, mode, copy, store, sink, now=now)
    resumed = await to_thread.run_sync(ledger.read, partial(get_fact, name=BEGUN)) == stored.checksum

    def compare(db: Connection) -> list[str]:
        synced = partial(_is_synced, db)
        return list(differences(plan, found, synced=synced, resumed=resumed))

    changed: list[str] = await to_thread.run_sync(ledger.read, compare)
    if changed:
        raise PlanChangedError(name, changed)

    def begin(db: Connection) -> None:
        set_fact(db, BEGUN, stored.checksum)
        plan_runs(db, [one.run for one in plan.runs])

    await to_thread.run_sync(ledger.write, begin)
    return replace(mode, selection=replace(limited, planned=True))


def _is_synced(db: Connection, run: RunKey) -> bool:
    found = standing(db, run)
    return found is not None and found.state == RunState.SYNCED
