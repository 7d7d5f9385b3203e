"""Takes up again what the cloud has lost: compares as ``verify`` does, and tells the ledger.

What was taken up is carried by the next pass, like anything else that waits, whatever ends this process. What
is there is left alone, objects with another content and rows with other values too.
"""

from collections.abc import Callable, Sequence
from sqlite3 import Connection

from anyio import to_thread
from msgspec import Struct, field

from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.retry import send_again, upload_again
from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.ports import Clock, ObjectStore, RowSink
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.process.signals import Interruption, interruptible
from pixaris_sync.process.systemd import Notifier
from pixaris_sync.settings.model import Settings
from pixaris_sync.verify import Finding, Kind, Sign, verify

#: Findings that are taken up in one transaction.
TAKEN_UP_LIMIT = 500


class Repair(Struct):
    """What a comparison has led to.

    Attributes:
        objects, rows: how many are taken up again.
        left: what is missing and cannot be restored, is not the same, or could not be compared.
    """

    objects: int = 0
    rows: int = 0
    left: list[Finding] = field(default_factory=list)

    @property
    def unrestored(self) -> int:
        """How many of these are not just different: somebody must act before they can be restored."""
        return sum(finding.sign is not Sign.DIFFERS for finding in self.left)


async def take_up_missing(
    settings: Settings,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    *,
    clock: Clock,
    hold: Hold | None = None,
    selection: Selection = EVERYTHING,
) -> Repair:
    """Compare what is selected, and take up again what was removed from the cloud and is still here.

    Where somebody asks for a pause, it waits for its end between two findings.

    Raises:
        ConfigurationError: folder, bucket, BigQuery dataset or credentials are missing or unusable.
        LedgerError: the ledger cannot be read or written.
        SyncError: the cloud could not be asked at all, or nobody can be authenticated.
    """
    repair = Repair()
    missing: list[Finding] = []
    async for finding in verify(settings, ledger, store, sink, selection):
        if hold is not None:
            await hold.released()
        if finding.kind is Kind.LEDGER or finding.sign in (Sign.SAME, Sign.EXTRA):
            continue
        if finding.source:
            missing.append(finding)
        else:
            repair.left.append(finding)
        if len(missing) == TAKEN_UP_LIMIT:
            await _take_up(settings, ledger, missing, repair, clock.now())
            missing = []
    await _take_up(settings, ledger, missing, repair, clock.now())
    return repair


async def _take_up(
    settings: Settings, ledger: Ledger, missing: Sequence[Finding], repair: Repair, now: float
) -> None:
    async def apply(transition: Callable[..., int], kind: Kind) -> int:
        lost = [(one.run, one.source) for one in missing if one.kind is kind]
        accepted_before = now - settings.visibility_timeout_seconds

        def operation(db: Connection) -> int:
            return transition(db, now, lost, accepted_before=accepted_before)

        count: int = await to_thread.run_sync(ledger.write, operation)
        return count

    repair.objects += await apply(upload_again, Kind.OBJECT)
    repair.rows += await apply(send_again, Kind.ROW)


async def take_up_until_signal(
    settings: Settings,
    ledger: Ledger,
    store: ObjectStore,
    sink: RowSink,
    *,
    clock: Clock,
    throttle: Throttle,
    selection: Selection = EVERYTHING,
) -> tuple[Repair | None, Interruption]:
    """`take_up_missing`, until a signal ends it; it listens for other limits and for pauses meanwhile.

    Returns:
        What it came to (None where it was interrupted), and whether it was.
    """
    repair: Repair | None = None
    async with interruptible(
        drain_timeout_seconds=settings.drain_timeout_seconds, clock=clock, notifier=Notifier()
    ) as (tasks, interruption):
        await tasks.start(throttle.listen)
        repair = await take_up_missing(
            settings, ledger, store, sink, clock=clock, hold=throttle.hold, selection=selection
        )
    return repair, interruption
