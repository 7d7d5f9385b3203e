"""What there is to say of what is no run: things that are left out, and run folders that no record names."""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from pixaris_sync.model import Problem, RunState


@dataclass(frozen=True, slots=True)
class Notice:
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
        return RunState.QUARANTINED if self.quarantined else "notice"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A run folder that no tracking record names. `young`: it may still be written."""

    name: str
    young: bool
    problem: Problem


def take_in_orphans(db: Connection, now: float, dataset_id: int, orphans: Sequence[Orphan]) -> None:
    """Take in all run folders of a dataset that no record names; those that are gone are forgotten."""
    kept = set()
    for orphan in orphans:
        state = RunState.PENDING if orphan.young else RunState.INCOMPLETE
        db.execute(
            "INSERT INTO runs (dataset_id, name, state, since, cause, hint) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET cause = excluded.cause, hint = excluded.hint,"
            " since = iif(state = excluded.state, since, excluded.since), state = excluded.state"
            " WHERE NOT committed",
            (dataset_id, orphan.name, state, now, orphan.problem.cause, orphan.problem.hint),
        )
        kept.add(orphan.name)
    known = db.execute("SELECT id, name FROM runs WHERE dataset_id = ? AND NOT committed", (dataset_id,))
    gone = [(row["id"],) for row in known.fetchall() if row["name"] not in kept]
    db.executemany("DELETE FROM runs WHERE id = ?", gone)


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
