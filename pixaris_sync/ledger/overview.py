"""What the ledger tells of everything: the numbers and problems of ``status``, and what is left to do."""

from sqlite3 import Connection
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from pixaris_sync.ledger.notices import HELD, NOTHING_TO_DO, NOTICE
from pixaris_sync.ledger.numbers import Numbers, numbers
from pixaris_sync.ledger.part import numbers_of, waiting_outside
from pixaris_sync.ledger.pruned import count_pruned
from pixaris_sync.ledger.selection import ANYBODY, EVERYTHING, Selection, Work
from pixaris_sync.ledger.waiting import WaitingRuns, left_out, waiting_runs, with_left_out
from pixaris_sync.model import FileState, RowState, RunKey, RunState
from pixaris_sync.text import counted


class ProblemRun(Struct, frozen=True):
    """A run, line, file or folder that something went wrong with, or a notice about one.

    `run` is ``project/dataset/run``, or ``project/dataset/<tracking file>:<line>`` for a damaged line, or
    a path. `state` is a `RunState`, or ``notice``. `since` is in seconds since the epoch.
    """

    run: str
    state: str
    since: float
    cause: str
    hint: str


class Overview(Numbers, frozen=True):
    """Where everything stands; `waiting` and `problems` together explain every run that is not synced.

    Attributes:
        torn_files: ``project/dataset/<tracking file>`` whose last line is unfinished.
        repeated_lines: lines of tracking files that repeat a record which stands before them.
        waiting: what pending runs wait for; each of them is counted once.
        problems: failing, quarantined and incomplete runs, damaged lines, and what is left out or worth to
            know.
        pruned: synced runs whose files are gone from here.
        waiting_outside: how many runs wait that are not selected; None: all are.
    """

    torn_files: tuple[str, ...]
    repeated_lines: int
    waiting: tuple[WaitingRuns, ...]
    problems: tuple[ProblemRun, ...]
    pruned: int = 0
    waiting_outside: int | None = None

    @property
    def torn_lines(self) -> int:
        """How many last lines are unfinished."""
        return len(self.torn_files)


REPEATED_HINT = "nothing to do; whoever wants to may remove the lines that are there twice"


def overview(
    db: Connection,
    tracking_file: str,
    *,
    at_work: Work | None = ANYBODY,
    selection: Selection = EVERYTHING,
) -> Overview:
    """Read where everything that is selected stands.

    Args:
        db: a transaction.
        tracking_file: its name, for messages about its lines.
        at_work: what a process does with this ledger now, so that what it leaves out is told. None: no
            process works with it, so that what was under way is in doubt.
        selection: which runs it is about.
    """
    limited, left = selection.is_limited, left_out(db, at_work)
    if limited:
        in_numbers = numbers_of(db, selection, at_work=at_work is not None)
    else:
        in_numbers = numbers(db, at_work=at_work is not None)
    of_lines = f"FROM datasets d WHERE {selection.of_lines}"
    torn = f"SELECT project, dataset {of_lines} AND torn_bytes > 0 ORDER BY project, dataset"
    repeated = f"SELECT coalesce(sum(repeated_lines), 0) {of_lines}"
    return Overview(
        runs=in_numbers.runs,
        files=in_numbers.files,
        rows=in_numbers.rows,
        pending_bytes=in_numbers.pending_bytes,
        oldest_pending_at=in_numbers.oldest_pending_at,
        last_synced_at=in_numbers.last_synced_at,
        torn_files=tuple(
            f"{row['project']}/{row['dataset']}/{tracking_file}"
            for row in db.execute(torn, selection.parameters)
        ),
        repeated_lines=db.execute(repeated, selection.parameters).fetchone()[0],
        waiting=tuple(waiting_runs(db, at_work, selection)),
        problems=tuple(
            replace(one, hint=with_left_out(one.hint, left.get(one.run)))
            for one in problems(db, selection, tracking_file)
            # A pause ends with its process, however that ends.
            if at_work is not None or (one.state, one.run) != (NOTICE, HELD)
        ),
        pruned=count_pruned(db, selection),
        waiting_outside=waiting_outside(db, selection) if limited else None,
    )


def problems(db: Connection, selection: Selection, tracking_file: str) -> list[ProblemRun]:
    """Failing, quarantined and incomplete runs of a selection, damaged lines, and notices.

    Lines have no run's name: `Selection.since` and `Selection.until` do not apply to them.
    """
    names = {**selection.parameters, "tracking_file": tracking_file}
    runs = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || r.name AS run, r.state, r.since, r.cause, r.hint"
        " FROM open_runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.state IN ('quarantined', 'incomplete', 'failing') AND {selection.of_runs()}",
        names,
    ).fetchall()
    lines = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || :tracking_file || ':' || c.line AS run, c.state,"
        " c.since, c.cause, c.hint FROM records c JOIN datasets d ON d.id = c.dataset_id"
        f" WHERE c.run_id IS NULL AND {selection.of_lines}",
        names,
    ).fetchall()
    notices = db.execute(
        f"SELECT subject AS run, state, since, cause, hint FROM notices WHERE {_of_notices(selection)}",
        selection.parameters,
    ).fetchall()
    repeated = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || :tracking_file AS run, d.since, d.repeated_lines"
        f" FROM datasets d WHERE d.repeated_lines > 0 AND {selection.of_lines}",
        names,
    ).fetchall()
    found = [
        ProblemRun(row["run"], row["state"], row["since"], row["cause"] or "", row["hint"] or "")
        for row in [*runs, *lines, *notices]
    ]
    for row in repeated:
        lines_repeat = counted(row["repeated_lines"], "line repeats", "lines repeat")
        cause = f"{lines_repeat} a record of this file, which is one row"
        found.append(ProblemRun(row["run"], NOTICE, row["since"], cause, REPEATED_HINT))
    downloaded = db.execute(
        "SELECT d.project || '/' || d.dataset AS run, min(r.since) AS since, count(*) AS folders"
        " FROM open_runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.state = '{RunState.DOWNLOADED}' AND {selection.of_runs()} GROUP BY d.id",
        names,
    )
    for row in downloaded:
        copies = counted(row["folders"], "run folder is a copy", "run folders are copies")
        cause = f"{copies} of what is in the cloud, without a tracking line"
        found.append(ProblemRun(row["run"], NOTICE, row["since"], cause, NOTHING_TO_DO))
    return sorted(found, key=lambda problem: (problem.run, problem.since))


def _of_notices(selection: Selection) -> str:
    """A condition over notices: they are about a selected run, a dataset with some, or the whole folder."""
    if not selection.is_limited:
        return "TRUE"
    key = "d.project || '/' || d.dataset"
    return f"""
CASE WHEN scope LIKE 'run %' THEN EXISTS (
    SELECT 1 FROM runs r JOIN datasets d ON d.id = r.dataset_id
    WHERE r.id = CAST(substr(scope, 5) AS INTEGER) AND {selection.of_runs()}
) ELSE NOT EXISTS (SELECT 1 FROM datasets d WHERE {key} = scope AND NOT ({selection.of_datasets}))
END
"""


def standing(db: Connection, run: RunKey) -> ProblemRun | None:
    """Where a run stands, whatever its state; None: nothing is known of it."""
    row = db.execute(
        "SELECT r.state, r.since, r.cause, r.hint FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project = ? AND d.dataset = ? AND r.name = ?",
        (run.project, run.dataset, run.run),
    ).fetchone()
    if row is None:
        return None
    return ProblemRun(str(run), row["state"], row["since"], row["cause"] or "", row["hint"] or "")


def unsynced_runs(db: Connection) -> dict[RunState, int]:
    """How many runs are in each state but synced and downloaded; states without any are left out."""
    rows = db.execute("SELECT state, count(*) AS runs FROM open_runs GROUP BY state").fetchall()
    found = {RunState(row["state"]): row["runs"] for row in rows}
    return {state: runs for state, runs in found.items() if state is not RunState.DOWNLOADED}


class WorkLeft(NamedTuple):
    """What a pass leaves behind.

    Attributes:
        waiting: committed runs that wait, and folders that are away.
        quarantined: what somebody must look at.
        unfinished: what is still being written: run folders that no line names yet, and torn last lines.
        denied: some wait because the account may not do what they need.
    """

    waiting: int
    quarantined: int
    unfinished: int = 0
    denied: bool = False


def work_left(db: Connection, selection: Selection) -> WorkLeft:
    """Count what is not synced among the selected. A run folder still being written is not work yet.

    A shard is about files alone, and about whole lines.
    """
    if selection.shard is not None:
        return _files_left(db, selection)
    count = (
        f"SELECT count(*) FROM open_runs r JOIN datasets d ON d.id = r.dataset_id WHERE {selection.of_runs()}"
    )
    waiting = db.execute(
        f"{count} AND r.state IN ('pending', 'failing') AND r.committed",
        selection.parameters,
    ).fetchone()[0]
    quarantined = db.execute(
        f"{count} AND r.state IN ('quarantined', 'incomplete')",
        selection.parameters,
    ).fetchone()[0]
    damaged = db.execute(
        "SELECT count(*) FROM records c JOIN datasets d ON d.id = c.dataset_id WHERE c.run_id IS NULL"
        f" AND {selection.of_lines}",
        selection.parameters,
    ).fetchone()[0]
    notices = f"SELECT count(*) FROM notices WHERE state = :state AND {_of_notices(selection)}"
    left_out, away = (
        db.execute(notices, {**selection.parameters, "state": state}).fetchone()[0]
        for state in (RunState.QUARANTINED, RunState.FAILING)
    )
    unfinished = db.execute(
        f"{count} AND r.state = 'pending' AND NOT r.committed", selection.parameters
    ).fetchone()[0]
    torn = db.execute(
        f"SELECT count(*) FROM datasets d WHERE d.torn_bytes > 0 AND {selection.of_lines}",
        selection.parameters,
    ).fetchone()[0]
    return WorkLeft(waiting + away, quarantined + damaged + left_out, unfinished + torn)


#: A condition over runs r: some of their files may still have to be carried.
_FILES_LEFT = f"""
(r.signature IS NULL OR r.quiet_at IS NOT NULL
    OR EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id)
    OR EXISTS (SELECT 1 FROM open_records c WHERE c.run_id = r.id AND c.state = '{RowState.UNASKED}'))
"""


def _runs_by_files(db: Connection, selection: Selection) -> tuple[int, int, int]:
    """How many of the selected runs are known, wait with files, and are quarantined or incomplete."""
    found, waiting, needy = db.execute(
        f"SELECT count(*), coalesce(sum(r.state IN ('pending', 'failing') AND {_FILES_LEFT}), 0),"
        " coalesce(sum(r.state IN ('quarantined', 'incomplete')), 0)"
        f" FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE {selection.of_runs()}",
        selection.parameters,
    ).fetchone()
    return found, waiting, needy


def _files_left(db: Connection, selection: Selection) -> WorkLeft:
    """Count the selected runs whose files are not all in the bucket, and folders that are away.

    Until its table has said that it does not hold the row, nobody knows whether files are to be sent at all.
    """
    _, waiting, quarantined = _runs_by_files(db, selection)
    away = db.execute(
        f"SELECT count(*) FROM notices WHERE state = '{RunState.FAILING}' AND {_of_notices(selection)}",
        selection.parameters,
    ).fetchone()[0]
    return WorkLeft(waiting + away, quarantined)


class FilesStanding(Struct, frozen=True):
    """How far the files of selected runs are, whatever becomes of their rows.

    Attributes:
        runs_found: runs that are known.
        runs_done: those of them whose files are all in the bucket.
        runs_waiting: those of which a file waits, or may be found yet.
        runs_to_act_on: quarantined and incomplete ones.
        files_there: files that are in the bucket.
        files_waiting, bytes_waiting: files that are not, and are not quarantined.
    """

    runs_found: int
    runs_done: int
    runs_waiting: int
    runs_to_act_on: int
    files_there: int
    files_waiting: int
    bytes_waiting: int


def files_standing(db: Connection, selection: Selection) -> FilesStanding:
    """How far the files of the selected runs are.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    of = numbers_of(db, selection) if selection.is_limited else numbers(db)
    found, waiting, needy = _runs_by_files(db, selection)
    waits = (FileState.PENDING, FileState.UPLOADING, FileState.IN_DOUBT)
    return FilesStanding(
        runs_found=found,
        runs_done=found - waiting - needy,
        runs_waiting=waiting,
        runs_to_act_on=needy,
        files_there=of.files[FileState.UPLOADED],
        files_waiting=sum(of.files[state] for state in waits),
        bytes_waiting=of.pending_bytes,
    )


class Backlog(Struct, frozen=True):
    """What is still to be carried: files, their size, rows."""

    files: int
    bytes: int
    rows: int


def backlog(db: Connection, selection: Selection) -> Backlog:
    """Count what of the selected runs is still to be carried."""
    files, size = db.execute(
        "SELECT count(*), coalesce(sum(f.size), 0) FROM datasets d CROSS JOIN open_files f"
        " WHERE f.dataset_id = d.id AND f.state IN ('pending', 'in_doubt', 'uploading')"
        f" AND {selection.of_runs('f.run_name')}",
        selection.parameters,
    ).fetchone()
    rows = db.execute(
        "SELECT count(*) FROM datasets d CROSS JOIN open_records c CROSS JOIN runs r"
        " WHERE c.dataset_id = d.id AND c.ready IN (0, 1) AND c.state <> 'quarantined'"
        " AND r.id = c.run_id AND r.state <> 'quarantined'"
        f" AND {selection.of_runs('c.run_name')}",
        selection.parameters,
    ).fetchone()[0]
    return Backlog(files=files, bytes=size, rows=rows)
