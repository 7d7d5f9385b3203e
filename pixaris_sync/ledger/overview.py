"""What the ledger tells of everything: the numbers and problems of ``status``, and what is left to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection

from pixaris_sync.ledger.intake import JUDGED_ANEW, LEFT_OUT_UNLESS_FOUND
from pixaris_sync.ledger.runs import update_run_states
from pixaris_sync.ledger.selection import SELECTED, SELECTED_DATASETS, Selection, selected
from pixaris_sync.model import DatasetKey, FileState, RowState, RunState

LAST_SYNCED = "last_synced_at"


@dataclass(frozen=True, slots=True)
class ProblemRun:
    """A run, line, file or folder that something went wrong with, or a notice about one.

    `run` is ``project/dataset/run``, or ``project/dataset/<tracking file>:<line>`` for a damaged line, or
    a path. `state` is a `RunState`, or ``notice``. `since` is in seconds since the epoch.
    """

    run: str
    state: str
    since: float
    cause: str
    hint: str


@dataclass(frozen=True, slots=True)
class WaitingRuns:
    """Pending runs that wait for the same: how many, since when the first of them waits, and for what."""

    runs: int
    since: float
    cause: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Where everything stands; `waiting` and `problems` together explain every run that is not synced.

    Attributes:
        runs, files, rows: how many are in each state; every state is there.
        pending_bytes: size of the files that are not in the bucket.
        oldest_pending_at: since when the run that waits longest has been waiting; None: none waits.
        last_synced_at: when a row was last read back; None: never.
        torn_lines: tracking files whose last line is unfinished.
        waiting: what pending runs wait for; each of them is counted once.
        problems: failing, quarantined and incomplete runs, damaged lines, and what is left out or worth to
            know.
    """

    runs: dict[str, int]
    files: dict[str, int]
    rows: dict[str, int]
    pending_bytes: int
    oldest_pending_at: float | None
    last_synced_at: float | None
    torn_lines: int
    waiting: tuple[WaitingRuns, ...]
    problems: tuple[ProblemRun, ...]


def _count(db: Connection, sql: str, states: Sequence[str]) -> dict[str, int]:
    found = {row[0]: row[1] for row in db.execute(sql)}
    return {str(state): found.get(state, 0) for state in states}


def overview(db: Connection, tracking_file: str) -> Overview:
    """Read where everything stands; `tracking_file` is the name for messages about damaged lines."""
    runs = _count(db, "SELECT state, count(*) FROM runs GROUP BY state", list(RunState))
    damaged = db.execute("SELECT count(*) FROM records WHERE run_id IS NULL").fetchone()[0]
    # A damaged line is a run that nobody can name.
    runs[RunState.QUARANTINED] += damaged
    files = _count(db, "SELECT state, count(*) FROM files GROUP BY state", list(FileState))
    # Those of finished runs are packed.
    files[FileState.UPLOADED] += db.execute("SELECT coalesce(sum(packed_files), 0) FROM runs").fetchone()[0]
    last = get_fact(db, LAST_SYNCED)
    return Overview(
        runs=runs,
        files=files,
        rows=_count(db, "SELECT state, count(*) FROM records GROUP BY state", list(RowState)),
        pending_bytes=db.execute(
            "SELECT coalesce(sum(size), 0) FROM files WHERE state <> 'uploaded'"
        ).fetchone()[0],
        oldest_pending_at=db.execute(
            "SELECT min(coalesce((SELECT min(c.found_at) FROM records c WHERE c.run_id = r.id"
            " AND c.state <> 'synced'), r.since))"
            " FROM runs r WHERE r.state IN ('pending', 'failing') AND r.state <> 'synced' AND r.committed"
        ).fetchone()[0],
        last_synced_at=float(last) if last else None,
        torn_lines=db.execute("SELECT count(*) FROM datasets WHERE torn_bytes > 0").fetchone()[0],
        waiting=tuple(_waiting(db)),
        problems=tuple(_problems(db, tracking_file)),
    )


#: For what a pending run waits: the first step that it has not done. What is under way stands before what
#: waits for its turn. A run that no tracking record names has its own cause.
_WAITS_FOR = """
CASE
WHEN NOT r.committed THEN coalesce(r.cause, 'its tracking record is to be read')
WHEN d.adopted_at IS NULL THEN 'its dataset is to be compared with the bucket before anything is sent'
WHEN EXISTS (SELECT 1 FROM files f WHERE f.run_id = r.id AND f.state = 'uploading' AND f.state <> 'uploaded')
    THEN 'its files are being uploaded'
WHEN EXISTS (SELECT 1 FROM files f WHERE f.run_id = r.id AND f.state <> 'uploaded')
    THEN 'its files wait for their turn to be uploaded'
WHEN r.signature IS NULL THEN 'its folder is to be inspected again'
ELSE CASE (SELECT c.state FROM records c WHERE c.run_id = r.id AND c.state <> 'synced'
           ORDER BY c.state = 'sending' DESC, c.state = 'pending' DESC, c.state = 'in_doubt' DESC LIMIT 1)
    WHEN 'sending' THEN 'its row is being sent'
    WHEN 'pending' THEN 'its row waits for its turn to be sent'
    WHEN 'in_doubt' THEN 'its row may be in the table already: it is looked for before it is sent'
    ELSE 'its row was taken: it is to be read back'
    END
END
"""


def _waiting(db: Connection) -> list[WaitingRuns]:
    rows = db.execute(
        f"SELECT count(*) AS runs, min(r.since) AS since, {_WAITS_FOR} AS cause"
        " FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE r.state = 'pending' AND r.state <> 'synced' GROUP BY 3 ORDER BY 1 DESC, 3"
    )
    return [WaitingRuns(row["runs"], row["since"], row["cause"]) for row in rows]


def _problems(db: Connection, tracking_file: str) -> list[ProblemRun]:
    runs = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || r.name AS run, r.state, r.since, r.cause, r.hint"
        " FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE r.state IN (?, ?, ?) AND r.state <> 'synced'",
        (RunState.QUARANTINED, RunState.INCOMPLETE, RunState.FAILING),
    ).fetchall()
    lines = db.execute(
        "SELECT d.project || '/' || d.dataset || '/' || ? || ':' || c.line AS run, c.state, c.since,"
        " c.cause, c.hint FROM records c JOIN datasets d ON d.id = c.dataset_id WHERE c.run_id IS NULL",
        (tracking_file,),
    ).fetchall()
    notices = db.execute("SELECT subject AS run, state, since, cause, hint FROM notices").fetchall()
    found = [
        ProblemRun(row["run"], row["state"], row["since"], row["cause"] or "", row["hint"] or "")
        for row in [*runs, *lines, *notices]
    ]
    return sorted(found, key=lambda problem: (problem.run, problem.since))


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """What a pass leaves behind: committed runs that wait, and runs that somebody must look at."""

    waiting: int
    quarantined: int


def work_left(db: Connection, selection: Selection) -> WorkLeft:
    """Count what is not synced among the selected. A run folder still being written is not work yet."""
    count = f"SELECT count(*) FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE {SELECTED}"
    waiting = db.execute(
        f"{count} AND r.state IN ('pending', 'failing') AND r.state <> 'synced' AND r.committed",
        selection.parameters,
    ).fetchone()[0]
    quarantined = db.execute(
        f"{count} AND r.state IN ('quarantined', 'incomplete') AND r.state <> 'synced'",
        selection.parameters,
    ).fetchone()[0]
    damaged = db.execute(
        "SELECT count(*) FROM records c JOIN datasets d ON d.id = c.dataset_id WHERE c.run_id IS NULL"
        f" AND {SELECTED_DATASETS}",
        selection.parameters,
    ).fetchone()[0]
    left_out = db.execute("SELECT count(*) FROM notices WHERE state = 'quarantined'").fetchone()[0]
    return WorkLeft(waiting=waiting, quarantined=quarantined + damaged + left_out)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still to be carried: files, their size, rows."""

    files: int
    bytes: int
    rows: int


def backlog(db: Connection, selection: Selection) -> Backlog:
    """Count what of the selected runs is still to be carried."""
    files, size = db.execute(
        "SELECT count(*), coalesce(sum(f.size), 0) FROM datasets d CROSS JOIN files f"
        " WHERE f.dataset_id = d.id AND f.state IN ('pending', 'uploading') AND f.state <> 'uploaded'"
        f" AND {selected('f.rank')}",
        selection.parameters,
    ).fetchone()
    rows = db.execute(
        "SELECT count(*) FROM datasets d CROSS JOIN records c"
        " WHERE c.dataset_id = d.id AND c.ready IN (0, 1) AND c.state <> 'quarantined'"
        f" AND c.state <> 'synced' AND {selected('c.rank')}",
        selection.parameters,
    ).fetchone()[0]
    return Backlog(files=files, bytes=size, rows=rows)


def retry_runs(db: Connection, now: float, run_ids: Sequence[int] | None) -> int:
    """Take quarantined runs up again: all of them, or those given.

    What stopped them is looked at anew: files are sent again, folders inspected, damaged lines read again,
    and so are records that were refused when they were taken in.

    Returns:
        How many quarantined runs and damaged lines were taken up.
    """
    released = 0
    if run_ids is None:
        rows = db.execute("SELECT id FROM runs WHERE state = 'quarantined'").fetchall()
        run_ids = [row["id"] for row in rows]
        damaged = db.execute("SELECT DISTINCT dataset_id FROM records WHERE run_id IS NULL").fetchall()
        lines = db.execute("SELECT count(*) FROM records WHERE run_id IS NULL").fetchone()[0]
        db.executemany("UPDATE datasets SET tail = NULL WHERE id = ?", [tuple(row) for row in damaged])
    else:
        lines = 0
    for run_id in run_ids:
        released += db.execute("SELECT state = 'quarantined' FROM runs WHERE id = ?", (run_id,)).fetchone()[0]
        # Whoever says "again" may have removed a bad image: what is not found any more is left out.
        db.execute(
            "UPDATE files SET mtime_ns = ? WHERE run_id = ? AND state = 'quarantined' AND NOT ours"
            " AND content IS NULL",
            (LEFT_OUT_UNLESS_FOUND, run_id),
        )
        _read_refused_again(db, run_id)
        for table, waiting, which in (
            ("files", FileState.QUARANTINED, ""),
            ("records", RowState.QUARANTINED, f" AND reading <> {JUDGED_ANEW}"),
        ):
            db.execute(
                f"UPDATE {table} SET state = 'pending', since = ?, attempts = 0, next_attempt_at = 0,"
                f" cause = NULL, hint = NULL WHERE run_id = ? AND state = ?{which}",
                (now, run_id, waiting),
            )
        db.execute(
            "UPDATE records SET state = ? WHERE run_id = ? AND state = ? AND taken",
            (RowState.IN_DOUBT, run_id, RowState.PENDING),
        )
        # Whatever was in the way of a file may have gone: expect no object that is not our own.
        db.execute(
            "UPDATE files SET generation = 0, crc32c = NULL"
            " WHERE run_id = ? AND state = 'pending' AND NOT ours",
            (run_id,),
        )
        db.execute(
            "UPDATE runs SET signature = NULL, folder_cause = NULL, folder_hint = NULL WHERE id = ?",
            (run_id,),
        )
    update_run_states(db, now, run_ids)
    return released + int(lines)


def _read_refused_again(db: Connection, run_id: int) -> None:
    """Let records that were refused when they were taken in be judged anew by the next reading.

    Until then they stay quarantined: without them their run would look as if it were done.
    """
    marked = db.execute(
        "UPDATE records SET reading = ?, cause = ?, hint = ? WHERE run_id = ? AND state = ? AND attempts = 0"
        " AND sends = 0",
        (
            JUDGED_ANEW,
            "it was taken up again, and its line of the tracking file is still to be read",
            "nothing to do; where this stays, the line is not in the tracking file any more",
            run_id,
            RowState.QUARANTINED,
        ),
    ).rowcount
    if marked:
        db.execute(
            "UPDATE datasets SET tail = NULL WHERE id = (SELECT dataset_id FROM runs WHERE id = ?)", (run_id,)
        )


def find_runs(db: Connection, name: str) -> list[int]:
    """Runs by ``project/dataset/run``, or by their run name alone where that is unambiguous or not."""
    rows = db.execute(
        "SELECT r.id FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project || '/' || d.dataset || '/' || r.name = ? OR r.name = ?",
        (name, name),
    ).fetchall()
    return [row["id"] for row in rows]


def known_datasets(db: Connection) -> list[DatasetKey]:
    """Every dataset that was ever seen."""
    rows = db.execute("SELECT project, dataset FROM datasets ORDER BY project, dataset")
    return [DatasetKey(row["project"], row["dataset"]) for row in rows]


def get_fact(db: Connection, name: str) -> str | None:
    """What was written down under a name."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


def set_fact(db: Connection, name: str, value: str) -> None:
    """Write something down under a name."""
    db.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (name, value),
    )
