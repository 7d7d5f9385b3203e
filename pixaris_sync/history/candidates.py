"""Which runs may be pruned: what is old enough, and synced by the ledger and by the folder."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from pixaris_sync.ledger.pruned import SelectedRun
from pixaris_sync.model import Problem, RunKey, RunState
from pixaris_sync.verify.expected import Expected, ExpectedObject, ExpectedRow

#: How names of runs begin: as LocalExperimentHandler makes them, or with the day alone.
_SECOND: Final = re.compile(r"(\d{8}-\d{6})_", re.ASCII)
_DAY: Final = re.compile(r"(\d{6})[-_]", re.ASCII)
_STATUS_HINT: Final = "`pixaris-sync status` tells what it waits for; prune again once it is synced"
_VERIFY_HINT: Final = (
    "`pixaris-sync verify` tells what differs; `pixaris-sync sync --repair` restores what is missing"
)


class Candidate(Struct, frozen=True):
    """A run that is old enough, and what must be in the cloud before its files may go.

    Attributes:
        id: its row in the ledger.
        key: which.
        objects: what must be in the bucket, by name.
        rows: what must be in the table.
    """

    id: int
    key: RunKey
    objects: Mapping[str, ExpectedObject]
    rows: Sequence[ExpectedRow]

    @property
    def local_paths(self) -> list[str]:
        """The files of it that are here."""
        return [wanted.path for wanted in self.objects.values() if wanted.version is not None]


def stored_at(name: str) -> float | None:
    """When a run was stored by its name, in seconds since the epoch; None: its name does not tell.

    Names have no time zone: it is the later one of this machine's and of UTC, and the end of a day where only
    that is named.
    """
    for pattern, form, span in (
        (_SECOND, "%Y%m%d-%H%M%S", timedelta(0)),
        (_DAY, "%y%m%d", timedelta(days=1)),
    ):
        if found := pattern.match(name):
            try:
                named = datetime.strptime(found[1], form) + span  # noqa: DTZ007 - no zone stands in a name
                return max(named.timestamp(), named.replace(tzinfo=UTC).timestamp())
            except (ValueError, OverflowError, OSError):
                return None
    return None


def standing_problem(run: SelectedRun) -> Problem | None:
    """Why a run is not synced by the ledger; None: it is."""
    if run.state is RunState.SYNCED:
        return None
    why = f": {run.cause}" if run.cause else ""
    return Problem(f"the ledger says {run.state}{why}", _STATUS_HINT)


def candidates(
    runs: Sequence[SelectedRun], expected: Expected, tracking_file: str
) -> tuple[list[Candidate], dict[RunKey, Problem]]:
    """Of synced runs of one dataset, those whose files may go once they are proven; and why others may not.

    Args:
        runs: synced by the ledger.
        expected: their dataset, as its folder is now.
        tracking_file: its name, for messages.
    """
    objects: defaultdict[str, dict[str, ExpectedObject]] = defaultdict(dict)
    rows: defaultdict[str, list[ExpectedRow]] = defaultdict(list)
    for name, wanted in expected.objects.items():
        objects[wanted.run.run][name] = wanted
    for row in expected.rows:
        rows[row.run.run].append(row)
    of_dataset = _dataset_problem(expected, tracking_file)
    found: list[Candidate] = []
    left: dict[RunKey, Problem] = {}
    for run in runs:
        name = run.key.run
        candidate = Candidate(run.id, run.key, objects[name], rows[name])
        problem = of_dataset or _run_problem(expected, candidate)
        if not candidate.local_paths:
            continue
        if problem is not None:
            left[run.key] = problem
        else:
            found.append(candidate)
    return found, left


def _dataset_problem(expected: Expected, tracking_file: str) -> Problem | None:
    """Why no run of a dataset may go: a line may tell of any of them that cannot be read."""
    path = f"{expected.key}/{tracking_file}"
    if expected.refused:
        return Problem(expected.refused, "")
    if expected.is_torn:
        return Problem(
            f"the last line of {path} is unfinished, and may tell of this run",
            "wait until it is whole, or end or remove it, if its writer is gone",
        )
    for damaged in expected.damaged:
        return Problem(
            f"{path}:{damaged.line} is damaged, and may tell of this run: {damaged.cause}",
            "repair or remove that line, let `pixaris-sync sync` read the file again, then prune again",
        )
    return None


def _run_problem(expected: Expected, candidate: Candidate) -> Problem | None:
    name = candidate.key.run
    if not candidate.rows or expected.forgotten[name]:
        return Problem("a line of its tracking file is gone", "put it back from a backup")
    known = expected.known
    for row in candidate.rows:
        if row.fault:
            return Problem(row.fault, _STATUS_HINT)
        if (name, row.digest) not in known.synced:
            return Problem("it has a line that is not synced yet", _STATUS_HINT)
    return None


def unproven(cause: str) -> Problem:
    """Why a run is left of which the cloud does not have all as it is here."""
    return Problem(cause, _VERIFY_HINT)
