"""What pending runs wait for, and what the process that is at work leaves out."""

from functools import cache
from sqlite3 import Connection
from typing import Final

from msgspec import Struct

from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work
from pixaris_sync.model import RunState


class WaitingRuns(Struct, frozen=True):
    """Pending runs that wait for the same: how many, since when the first of them waits, and what for."""

    runs: int
    since: float
    cause: str


#: Its name begins with a time, which `Selection.since` and `Selection.until` are about.
_DATED: Final = "r.name GLOB '[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]*'"


@cache
def _left_out(carried: Selection) -> str:
    """Why the process that is at work, on these runs, does not carry one; NULL: it does."""
    return f"""
CASE WHEN {carried.of_runs()} THEN NULL
WHEN {carried.of_runs_whenever()} AND NOT {_DATED} THEN :undated ELSE :left_out END
"""


#: The same of a run that has failed.
_GIVEN_UP: Final = """
CASE
    WHEN EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id AND f.attempts >= :attempts_limit)
        OR EXISTS (SELECT 1 FROM open_records c WHERE c.run_id = r.id AND c.attempts >= :attempts_limit)
    THEN :given_up END
"""
#: What a run waits for that is carried: the first step that it has not done. What is under way stands before
#: what waits for its turn.
_STEPS: Final = """
WHEN d.adopted_at IS NULL
    THEN 'waiting until the dataset has been compared with the bucket'
WHEN r.held AND r.signature IS NOT NULL
    THEN 'waiting until the table has been asked whether it holds the row already'
WHEN :at_work AND r.id IN (SELECT f.run_id FROM open_files f WHERE f.state = 'uploading')
    THEN 'being uploaded'
WHEN EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id AND f.state = 'pending')
    THEN 'waiting to be uploaded'
WHEN EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id)
    THEN 'being looked up in the bucket, which may hold files already'
WHEN r.quiet_at IS NOT NULL
    THEN 'waiting until the folder has been still for some seconds: files were still arriving'
WHEN r.signature IS NULL THEN 'waiting to be inspected again'
ELSE CASE (SELECT iif(c.state = 'sending' AND NOT :at_work, 'in_doubt', c.state)
           FROM open_records c WHERE c.run_id = r.id
           ORDER BY c.state = 'sending' DESC, c.state = 'pending' DESC, c.state = 'in_doubt' DESC LIMIT 1)
    WHEN 'sending' THEN 'being sent to the table'
    WHEN 'pending' THEN 'waiting to be sent to the table'
    WHEN 'in_doubt' THEN 'being looked for in the table, which may hold the row already'
    ELSE 'accepted by the table, waiting to be read back'
    END
"""


@cache
def _waits_for(carried: Selection) -> str:
    """What a pending run waits for. One that no tracking record names has its own cause."""
    return f"""
CASE
WHEN NOT r.committed THEN coalesce(r.cause, 'waiting for the tracking file to be read on')
WHEN {_left_out(carried)} IS NOT NULL THEN {_left_out(carried)}
{_STEPS}
END
"""


def _carried(at_work: Work | None) -> Selection:
    return at_work.selection if at_work else EVERYTHING


def _parameters(at_work: Work | None) -> dict[str, str | int | None]:
    left_out = f"left out by `{at_work}`, which is at work: run `pixaris-sync sync` afterwards"
    return {
        **_carried(at_work).parameters,
        "at_work": at_work is not None,
        "left_out": left_out,
        "undated": f"without a time in the name, and so {left_out}",
        "given_up": "tried often enough by the process that is at work: the next one tries again",
    }


def left_out(db: Connection, at_work: Work | None) -> dict[str, str]:
    """Failing runs, as ``project/dataset/run``, that the process at work does not try again, and why."""
    if at_work is None or at_work.selection == EVERYTHING:
        return {}
    rows = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || r.name AS run,"
        f" coalesce({_left_out(at_work.selection)}, {_GIVEN_UP}) AS why"
        f" FROM open_runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.state = '{RunState.FAILING}'",
        _parameters(at_work),
    )
    return {row["run"]: row["why"] for row in rows if row["why"]}


def with_left_out(hint: str, why: str | None) -> str:
    """The hint of a failing run, and why the process at work does not try it again, if so."""
    return "; ".join(filter(None, (hint, why)))


def waits_for(db: Connection, run_id: int, at_work: Work | None) -> str:
    """What a pending run waits for; empty: it does not."""
    row = db.execute(
        f"SELECT {_waits_for(_carried(at_work))} AS cause"
        " FROM open_runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE r.id = :run AND r.state = 'pending'",
        {**_parameters(at_work), "run": run_id},
    ).fetchone()
    return row["cause"] if row else ""


def waiting_runs(
    db: Connection, at_work: Work | None, selection: Selection = EVERYTHING
) -> list[WaitingRuns]:
    """What the selected pending runs wait for, most of them first."""
    seen, values = selection.beside()
    limited = f" AND {seen}" if selection.is_limited else ""
    rows = db.execute(
        f"SELECT count(*) AS runs, min(r.since) AS since, {_waits_for(_carried(at_work))} AS cause"
        " FROM open_runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.state = 'pending'{limited} GROUP BY 3 ORDER BY 1 DESC, 3",
        {**_parameters(at_work), **values},
    )
    return [WaitingRuns(row["runs"], row["since"], row["cause"]) for row in rows]
