"""What keeps the ledger small: finished runs are packed, and unused space is given back."""

import logging

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.packs import (
    GIVEN_BACK_PAGES_LIMIT,
    give_pages_back,
    pack_finished,
    pages_to_give_back,
)
from pixaris_sync.pipeline.context import Context

log = logging.getLogger(__name__)


async def pack_finished_runs(context: Context) -> None:
    """Pack the runs that are finished by now."""
    while await context.apply(pack_finished) and not context.draining:
        await context.throttle()


async def tidy_ledger(context: Context) -> None:
    """Pack finished runs and give unused space back. What fails is left for another time."""
    try:
        await pack_finished_runs(context)
        pages = await context.apply(pages_to_give_back)
        for _ in range(0, pages, GIVEN_BACK_PAGES_LIMIT):
            if context.draining:
                break
            await context.throttle()
            await context.apply(give_pages_back)
    except LedgerError as error:
        log.warning("the ledger could not be made smaller: %s", error)
