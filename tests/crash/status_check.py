"""What the ledger says of itself at any moment, and whether that leaves a question open."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from pixaris_sync.errors import LedgerEmptyError
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import REPEATED_HINT, Overview, ProblemRun, overview
from pixaris_sync.model import RunKey
from tests.support.stored_runs import TRACKING_FILE

#: No fault of this test justifies that anybody is asked to act.
_GIVEN_UP = ("quarantined", "incomplete")


@dataclass(frozen=True, slots=True)
class StatusCheck:
    """A ledger at one moment.

    Attributes:
        overview: what ``status`` is made of while a process works.
        idle: the same while none does.
        synced: by run, how many of its records are said to be synced.
        unexplained: what nobody could make sense of; empty is good.
    """

    overview: Overview
    idle: Overview
    synced: Counter[RunKey]
    unexplained: list[str] = field(default_factory=list)


def check_status(path: Path) -> StatusCheck | None:
    """Read a ledger as ``status`` does; None where there is none, or one that is only half made."""
    if not path.exists():
        return None
    try:
        ledger = Ledger.open(path, read_only=True)
    except LedgerEmptyError:
        return None
    try:
        checked: StatusCheck = ledger.read(partial(_check, name=path.name))
        return checked
    finally:
        ledger.close()


def _check(db: Connection, name: str) -> StatusCheck:
    found = overview(db, TRACKING_FILE)
    rows = db.execute(
        "SELECT d.project, d.dataset, r.name, count(*) FROM records c JOIN runs r ON r.id = c.run_id"
        " JOIN datasets d ON d.id = c.dataset_id WHERE c.state = 'synced' GROUP BY r.id"
    )
    synced = Counter({RunKey(*row[:3]): row[3] for row in rows})
    wrong = [*_wrong_sums(db, found), *_wrong_runs(db), *_unexplained(db, found)]
    unexplained = [f"{name}: {what}" for what in wrong]
    idle = overview(db, TRACKING_FILE, at_work=None)
    return StatusCheck(found, idle, synced, unexplained)


def _wrong_sums(db: Connection, found: Overview) -> list[str]:
    """Every run, file and row is in exactly one state, and none of them is given up."""
    wrong = []
    for table, counts in (("runs", found.runs), ("files", found.files), ("records", found.rows)):
        total = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - literals above
        if sum(counts.values()) != total:
            wrong.append(f"{total} {table} by count, {counts} by state")
        wrong += [f"{counts[state]} {table} {state}" for state in _GIVEN_UP if counts.get(state)]
    told = [problem for problem in found.problems if problem.hint != REPEATED_HINT]
    wrong += [f"problem: {problem}" for problem in told if _is_demand(problem)]
    waits = found.oldest_pending_at is not None
    waiting = db.execute("SELECT count(*) FROM runs WHERE committed AND state <> 'synced'").fetchone()[0]
    if bool(waiting) != waits:
        wrong.append(f"{waiting} runs wait, since {found.oldest_pending_at}")
    return wrong


def _is_demand(problem: ProblemRun) -> bool:
    """Whether somebody must act; a destination that rests while a network fails has no hint."""
    passes = problem.state == "failing" or (problem.state == "notice" and not problem.hint)
    return not passes


def _unexplained(db: Connection, found: Overview) -> list[str]:
    """Every run that is not synced is in ``status`` with a reason: by name, or among those that wait."""
    failing = {
        "/".join(row)
        for row in db.execute(
            "SELECT d.project, d.dataset, r.name FROM runs r JOIN datasets d ON d.id = r.dataset_id"
            " WHERE r.state = 'failing'"
        )
    }
    named = {problem.run for problem in found.problems if problem.state == "failing"}
    wrong = [f"{run} fails, status does not say so" for run in failing - named]
    wrong += [f"{run} does not fail, status says so" for run in named - failing]
    wrong += [f"without a cause: {problem}" for problem in found.problems if not problem.cause]
    wrong += [f"without a cause: {waiting}" for waiting in found.waiting if not waiting.cause]
    waiting = sum(waiting.runs for waiting in found.waiting)
    if waiting != found.runs["pending"]:
        wrong.append(
            f"{found.runs['pending']} runs are pending, status says why of {waiting}: {found.waiting}"
        )
    return wrong


_RUNS = """
SELECT r.name, r.state, r.cause, r.committed, r.quiet_at IS NOT NULL AS arriving,
       (SELECT count(*) FROM files f WHERE f.run_id = r.id AND f.state <> 'uploaded') AS files,
       (SELECT count(*) FROM records c WHERE c.run_id = r.id AND c.state <> 'synced') AS rows,
       (SELECT count(*) FROM records c WHERE c.run_id = r.id) AS all_rows,
       (SELECT count(*) FROM files f WHERE f.run_id = r.id AND f.cause IS NOT NULL)
       + (SELECT count(*) FROM records c WHERE c.run_id = r.id AND c.cause IS NOT NULL)
       + (d.trouble IS NOT NULL AND r.state <> 'synced') AS causes
FROM runs r JOIN datasets d ON d.id = r.dataset_id
"""


def _wrong_runs(db: Connection) -> list[str]:
    """A run's state says no less and no more than what its files and records say."""
    wrong = []
    for run in db.execute(_RUNS).fetchall():
        left = run["files"] + run["rows"] + run["arriving"]
        explained = {
            "synced": not left and run["all_rows"] > 0 and not run["causes"],
            "pending": bool(left and not run["causes"]) if run["committed"] else bool(run["cause"]),
            "failing": bool(left and run["cause"] and run["causes"]),
        }
        if not explained.get(run["state"], False):
            wrong.append(f"run {dict(run)}")
    return wrong
