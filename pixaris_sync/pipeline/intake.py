"""Takes readings and inspections into the ledger; what the ledger cannot take is found run by run."""

from collections.abc import Sequence

from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger.datasets import KnownDataset
from pixaris_sync.ledger.intake import FoundRun, rehearse, take_in, take_in_runs
from pixaris_sync.model import DamagedLine, Problem, Tail
from pixaris_sync.pipeline.context import Context, problem_of


class Intake:
    """Takes in what a scan found."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def take_in(self, known: KnownDataset, tail: Tail, runs: Sequence[FoundRun]) -> int:
        """Take a reading in; of what the ledger cannot take, runs are quarantined and records are damaged."""
        context = self._context
        try:
            new: int | None = await context.apply(take_in, context.now(), known.id, tail, runs)
        except LedgerError:
            raise
        except Exception:  # noqa: BLE001 - which run it is about is found out below
            new = None
        if new is not None:
            return new
        kept, odd = await self._rehearsed(known, runs)
        # Its own digest is the record's, should it be taken in one day.
        lines = [
            DamagedLine(f"odd {found.record.digest}", found.record.line, problem.cause)
            for run, problem in odd
            for found in run.records
        ]
        tail = tail._replace(damaged=(*tail.damaged, *lines))
        return await context.apply(take_in, context.now(), known.id, tail, kept)

    async def take_in_runs(self, known: KnownDataset, runs: Sequence[FoundRun]) -> None:
        """Take in known runs whose folders were looked at again; those that the ledger cannot take stay."""
        context = self._context
        try:
            await context.apply(take_in_runs, context.now(), known.id, runs)
        except LedgerError:
            raise
        except Exception:  # noqa: BLE001 - which run it is about is found out below
            taken = False
        else:
            taken = True
        if not taken:
            kept, _ = await self._rehearsed(known, runs)
            await context.apply(take_in_runs, context.now(), known.id, kept)

    async def _rehearsed(
        self, known: KnownDataset, runs: Sequence[FoundRun]
    ) -> tuple[list[FoundRun], list[tuple[FoundRun, Problem]]]:
        """The runs that the ledger can take, some of them as quarantined, and those that it cannot at all."""
        kept: list[FoundRun] = []
        odd: list[tuple[FoundRun, Problem]] = []
        for run in runs:
            problem = await self._fault_of(known, run)
            if problem is None:
                kept.append(run)
                continue
            bare = FoundRun(run.name, "", records=run.records, problem=problem)
            if await self._fault_of(known, bare) is None:
                kept.append(bare)
            else:
                odd.append((run, problem))
        return kept, odd

    async def _fault_of(self, known: KnownDataset, run: FoundRun) -> Problem | None:
        """Why the ledger cannot take a run in; None: it can."""
        context = self._context
        try:
            await context.apply(rehearse, context.now(), known.id, run)
        except LedgerError:
            raise
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is about this run
            return problem_of(context.reports.as_error("take in run", f"{known.key}/{run.name}", caught))
        return None
