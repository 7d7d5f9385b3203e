"""What there is to say of what is no run: things that are left out, and run folders that no record names."""

from collections.abc import Collection, Mapping, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from pixaris_sync.ledger.selection import EVERYTHING, Selection
from pixaris_sync.model import DatasetKey, Problem, RunState

_COPY = "its row is in the table, and all of its files are in the bucket"
NOTHING_TO_DO = "nothing to do"
#: The state of what is only worth to know.
NOTICE = "notice"
#: Scope and subject of the notice that somebody has paused the work.
HELD = "all work"


class Notice(NamedTuple):
    """Something about a folder or file that is no run.

    `quarantined`: nothing of it is synced. `waiting`: the same, and that passes by itself.
    """

    subject: str
    problem: Problem
    quarantined: bool
    waiting: bool = False

    @property
    def state(self) -> str:
        """How ``status`` lists it: as a `RunState`, or as a notice."""
        if self.waiting:
            return RunState.FAILING
        return RunState.QUARANTINED if self.quarantined else NOTICE


class Orphan(NamedTuple):
    """A run folder that no tracking record names.

    Attributes:
        name: of the run.
        young: it may still be written.
        problem: why it is not synced.
        signature: of its folder; empty where it cannot be a copy of what is in the cloud.
    """

    name: str
    young: bool
    problem: Problem
    signature: str = ""


def take_in_orphans(
    db: Connection,
    now: float,
    dataset_id: int,
    orphans: Sequence[Orphan],
    *,
    again: bool = False,
    selection: Selection = EVERYTHING,
) -> list[str]:
    """Take in the selected run folders of a dataset that no record names; those that are gone are forgotten.

    What is known as downloaded stays so while its folder looks as it did, unless it is to be asked `again`.

    Returns:
        The names of those that are not known as downloaded.
    """
    kept = set()
    for orphan in orphans:
        state = RunState.PENDING if orphan.young else RunState.INCOMPLETE
        db.execute(
            "INSERT INTO runs (dataset_id, name, state, since, cause, hint) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET cause = excluded.cause, hint = excluded.hint, signature = NULL,"
            " since = iif(state = excluded.state, since, excluded.since), state = excluded.state"
            " WHERE NOT committed AND NOT (state = ? AND signature IS ? AND NOT ?)",
            (
                *(dataset_id, orphan.name, state, now, orphan.problem.cause, orphan.problem.hint),
                *(RunState.DOWNLOADED, orphan.signature, again),
            ),
        )
        kept.add(orphan.name)
    known = db.execute(
        "SELECT r.id, r.name, r.state FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.dataset_id = :dataset_id AND NOT r.committed AND {selection.of_runs()}",
        {**selection.parameters, "dataset_id": dataset_id},
    )
    found = known.fetchall()
    db.executemany(
        "DELETE FROM runs WHERE id = ?", [(row["id"],) for row in found if row["name"] not in kept]
    )
    return [row["name"] for row in found if row["name"] in kept and row["state"] != RunState.DOWNLOADED]


def note_answers(
    db: Connection,
    now: float,
    dataset_id: int,
    copies: Mapping[str, str],
    problems: Mapping[str, Problem],
) -> None:
    """Note what the cloud said of folders without a tracking line.

    Args:
        db: a transaction.
        now: seconds since the epoch.
        dataset_id: their dataset's.
        copies: by name, the signatures of those that are in the cloud, whole.
        problems: what is wrong with others, by name; young ones may still be written, or downloaded.
    """
    of_run = "WHERE dataset_id = ? AND name = ? AND NOT committed"
    db.executemany(
        f"UPDATE runs SET state = ?, since = ?, signature = ?, cause = ?, hint = ? {of_run}",
        [
            (RunState.DOWNLOADED, now, signature, _COPY, NOTHING_TO_DO, dataset_id, name)
            for name, signature in copies.items()
        ],
    )
    db.executemany(
        f"UPDATE runs SET cause = ?, hint = ? {of_run} AND state = ?",
        [
            (problem.cause, problem.hint, dataset_id, name, RunState.INCOMPLETE)
            for name, problem in problems.items()
        ],
    )


def take_in_notices(db: Connection, now: float, scope: str, notices: Sequence[Notice]) -> None:
    """Make these all that there is to say about a dataset, or (scope ``""``) about the results folder."""
    kept = {(notice.subject, notice.problem.cause) for notice in notices}
    known = db.execute("SELECT subject, cause FROM notices WHERE scope = ?", (scope,)).fetchall()
    db.executemany(
        "DELETE FROM notices WHERE scope = ? AND subject = ? AND cause = ?",
        [(scope, *row) for row in known if tuple(row) not in kept],
    )
    db.executemany(
        "INSERT INTO notices (scope, subject, state, since, cause, hint) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [
            (
                scope,
                notice.subject,
                notice.state,
                now,
                notice.problem.cause,
                notice.problem.hint,
            )
            for notice in notices
        ],
    )


def take_in_listing(
    db: Connection, now: float, there: Collection[DatasetKey], notices: Sequence[Notice]
) -> dict[DatasetKey, int]:
    """Make these all that there is to say about the results folder, in which these datasets are.

    Returns:
        Others, with their ids, of which something is said beside their runs, or which have run folders
        without a record.
    """
    take_in_notices(db, now, "", notices)
    rows = db.execute(
        "SELECT d.id, d.project, d.dataset FROM datasets d"
        " WHERE d.id IN (SELECT r.dataset_id FROM open_runs r WHERE NOT r.committed)"
        " OR d.project || '/' || d.dataset IN (SELECT n.scope FROM notices n)"
    )
    told = {DatasetKey(row["project"], row["dataset"]): row["id"] for row in rows}
    present = frozenset(there)
    return {key: dataset_id for key, dataset_id in told.items() if key not in present}


def forget_what_was_told(db: Connection, now: float, key: DatasetKey, dataset_id: int) -> None:
    """Forget what `take_in_listing` finds of a dataset; its runs stay, for they may be put back."""
    take_in_notices(db, now, str(key), [])
    take_in_orphans(db, now, dataset_id, [])
