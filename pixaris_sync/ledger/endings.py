"""How work on runs ended: which were synced, and on which somebody must act, for whoever tells of it.

Many transitions end so. Whichever it is, what it made of a run is noted in its own transaction, by triggers
that only this connection has. Nothing of it is written to the ledger.
"""

from sqlite3 import Connection, Row
from typing import Final, NamedTuple

from pixaris_sync.ledger.numbers import WAITS, oldest_waiting_at
from pixaris_sync.model import RowState, RunState


class Ending(NamedTuple):
    """What became of a run, line, file or folder.

    Attributes:
        subject: as in `overview.ProblemRun`.
        dataset: ``project/dataset``; empty for what is in none.
        state: synced, or quarantined or incomplete: somebody must act.
        at: when, in seconds since the epoch.
        files, bytes: of a synced run.
        found_at: when the last line of a synced run was taken in; None where no row of it was synced now, but
            a file that was added or changed.
        sent: whether a row of a synced run was ever sent from here.
        cause, hint: why somebody must act, and how.
    """

    subject: str
    dataset: str
    state: RunState
    at: float
    files: int
    bytes: int
    found_at: float | None
    sent: bool
    cause: str
    hint: str

    @property
    def seconds(self) -> float | None:
        """How long it took from the line of a synced run to its row."""
        return None if self.found_at is None else max(0.0, self.at - self.found_at)


#: So long a folder without a tracking line rests before it is told of, as the cloud may know it; and a run
#: that is taken up again is not told of anew where it ends the same.
SETTLES_SECONDS: Final = 60.0
_ACT: Final = f"state IN ('{RunState.QUARANTINED}', '{RunState.INCOMPLETE}')"
_SUBJECT: Final = "project || '/' || dataset AS dataset"
_TABLES: Final = (
    """
CREATE TEMP TABLE IF NOT EXISTS endings (
    id INTEGER PRIMARY KEY, dataset_id INTEGER, line INTEGER, name TEXT, state TEXT, at REAL,
    files INTEGER DEFAULT 0, bytes INTEGER DEFAULT 0, found_at REAL, sends INTEGER, cause TEXT, hint TEXT
)
""",
    # Runs on which somebody must act or had to: a scan may take one up and put it back.
    "CREATE TEMP TABLE IF NOT EXISTS turned (run_id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS told (run_id INTEGER PRIMARY KEY, state TEXT, cause TEXT)",
    f"INSERT OR REPLACE INTO told SELECT id, state, cause FROM open_runs WHERE {_ACT}",
)
_SYNCED: Final = f"""
CREATE TEMP TRIGGER IF NOT EXISTS run_synced AFTER UPDATE OF state ON runs
WHEN new.state = '{RunState.SYNCED}' AND old.state <> new.state
BEGIN
    INSERT INTO endings (dataset_id, name, state, at, files, bytes, found_at, sends)
    SELECT new.dataset_id, new.name, new.state, new.since,
        (SELECT count(*) FROM files WHERE run_id = new.id),
        (SELECT coalesce(sum(size), 0) FROM files WHERE run_id = new.id),
        (SELECT max(found_at) FROM records WHERE run_id = new.id AND since = new.since),
        (SELECT max(sends) FROM records WHERE run_id = new.id);
END
"""
#: In a trigger the statement that fires it decides what becomes of conflicts, so that IGNORE would not hold.
_NOTE_TURNED: Final = (
    "INSERT INTO turned SELECT new.id WHERE NOT EXISTS (SELECT 1 FROM turned t WHERE t.run_id = new.id);"
)
_TO_ACT_ON: Final = (
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS run_turned AFTER UPDATE OF state, cause ON runs
WHEN old.{_ACT} OR new.{_ACT}
BEGIN {_NOTE_TURNED} END
""",
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS run_appeared AFTER INSERT ON runs WHEN new.{_ACT}
BEGIN {_NOTE_TURNED} END
""",
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS line_appeared AFTER INSERT ON records
WHEN new.run_id IS NULL AND new.state = '{RowState.QUARANTINED}'
BEGIN
    INSERT INTO endings (dataset_id, line, state, at, cause, hint)
    VALUES (new.dataset_id, new.line, new.state, new.since, new.cause, new.hint);
END
""",
    f"""
CREATE TEMP TRIGGER IF NOT EXISTS notice_appeared AFTER INSERT ON notices
WHEN new.state = '{RunState.QUARANTINED}'
BEGIN
    INSERT INTO endings (name, state, at, cause, hint)
    VALUES (new.subject, new.state, new.since, new.cause, new.hint);
END
""",
)
#: Runs that turned and are not as they were told of, but for what the cloud may know.
_TURNED: Final = f"""
SELECT r.* FROM turned t CROSS JOIN runs r ON r.id = t.run_id LEFT JOIN told o ON o.run_id = t.run_id
WHERE r.{_ACT} AND (o.state IS NOT r.state OR o.cause IS NOT r.cause)
    AND (r.state <> '{RunState.INCOMPLETE}' OR r.since <= :settled_at)
"""


def note_endings(db: Connection, *, synced: bool) -> None:
    """From now on note for `take_endings` what ends; `synced`: also what ends well."""
    for statement in (*_TABLES, *([_SYNCED] if synced else []), *_TO_ACT_ON):
        db.execute(statement)


def take_endings(db: Connection, now: float, tracking_file: str) -> tuple[list[Ending], bool]:
    """What has ended since the last time; `tracking_file`: the name for damaged lines.

    Returns:
        These, and whether there are others, which have to settle.
    """
    rest = bool(db.execute("SELECT EXISTS (SELECT 1 FROM turned)").fetchone()[0])
    if rest:
        rest = _take_turned(db, now - SETTLES_SECONDS)
    found = db.execute(
        f"SELECT e.*, {_SUBJECT} FROM endings e LEFT JOIN datasets d ON d.id = e.dataset_id ORDER BY e.id"
    ).fetchall()
    if found:
        db.execute("DELETE FROM endings")
    return [_ending(row, tracking_file) for row in found], rest


def _take_turned(db: Connection, settled_at: float) -> bool:
    """Note which of the runs that turned are to be told of; whether some rest."""
    when = {"settled_at": settled_at}
    db.execute(
        "INSERT INTO endings (dataset_id, name, state, at, cause, hint)"
        f" SELECT dataset_id, name, state, since, cause, hint FROM ({_TURNED}) ORDER BY id",
        when,
    )
    db.execute(f"INSERT OR REPLACE INTO told SELECT id, state, cause FROM ({_TURNED})", when)
    unsettled = "SELECT 1 FROM runs r WHERE r.id = run_id AND r.since > :settled_at"
    db.execute(
        "DELETE FROM told WHERE run_id IN (SELECT run_id FROM turned) AND NOT EXISTS"
        f" (SELECT 1 FROM runs r WHERE r.id = run_id AND r.{_ACT}) AND NOT EXISTS ({unsettled})",
        when,
    )
    db.execute(
        f"DELETE FROM turned WHERE NOT EXISTS ({unsettled} AND r.state <> '{RunState.QUARANTINED}')", when
    )
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM turned)").fetchone()[0])


def _ending(row: Row, tracking_file: str) -> Ending:
    name = f"{tracking_file}:{row['line']}" if row["name"] is None else row["name"]
    return Ending(
        subject=name if row["dataset"] is None else f"{row['dataset']}/{name}",
        dataset=row["dataset"] or "",
        state=RunState(row["state"]),
        at=row["at"],
        files=row["files"],
        bytes=row["bytes"],
        found_at=row["found_at"],
        sent=bool(row["sends"]),
        cause=row["cause"] or "",
        hint=row["hint"] or "",
    )


class Stand(NamedTuple):
    """What is not synced, in a few numbers.

    Attributes:
        waiting: runs that wait or fail.
        oldest_at: since when the first of them waits; None: none does.
        failing: those of them whose last attempt failed, since when, and why the first of these did.
        to_act_on: runs, lines, files and folders on which somebody must act.
    """

    waiting: int
    oldest_at: float | None
    failing: int
    failing_since: float | None
    cause: str
    to_act_on: int


def anything_waits(db: Connection) -> bool:
    """Whether a run waits or fails."""
    return bool(db.execute(f"SELECT EXISTS (SELECT 1 FROM open_runs r WHERE {WAITS})").fetchone()[0])


def stand(db: Connection) -> Stand:
    """What is not synced."""
    waiting = db.execute(f"SELECT count(*) FROM open_runs r WHERE {WAITS}").fetchone()[0]
    # SQLite gives the cause of the row that has the least.
    fails = db.execute(
        "SELECT count(*) AS runs, min(since) AS since, cause FROM open_runs WHERE state = ?",
        (RunState.FAILING,),
    ).fetchone()
    act = db.execute(
        f"SELECT (SELECT count(*) FROM open_runs WHERE {_ACT})"
        " + (SELECT count(*) FROM records WHERE run_id IS NULL)"
        " + (SELECT count(*) FROM notices WHERE state = ?)",
        (RunState.QUARANTINED,),
    ).fetchone()
    return Stand(waiting, oldest_waiting_at(db), fails["runs"], fails["since"], fails["cause"] or "", act[0])
