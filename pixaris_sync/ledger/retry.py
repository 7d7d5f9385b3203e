"""Takes up again, at somebody's word: quarantined runs, and what was removed from the cloud."""

from collections.abc import Mapping, Sequence
from sqlite3 import Connection

from pixaris_sync.ledger.datasets import counting_files
from pixaris_sync.ledger.packs import restore
from pixaris_sync.ledger.runs import WAITING, update_run_states
from pixaris_sync.model import FileState, RowState, RunKey, RunState

_UP_AGAIN = """
UPDATE {table} SET state = {waiting}, since = ?, attempts = 0, next_attempt_at = 0, cause = NULL,
    hint = NULL
WHERE run_id = ? AND state = ?
"""
#: The state in which a row that is taken up again waits: nobody sends it before the table was asked for it.
_ROW_WAITING = f"""
iif(accepted_at IS NOT NULL, '{RowState.ACCEPTED}', '{RowState.UNASKED}')
"""
TO_BE_READ = "it was taken up again, and its line of the tracking file is still to be read"
TO_BE_READ_HINT = (
    "nothing to do; where this stays, its line is not in the tracking file any more: put it back, or give "
    "the run up by deleting its folder too"
)
#: Rows that the table held, or that a delivery which ended well long ago brought there.
_HELD = f"(state = '{RowState.SYNCED}' OR state = '{RowState.ACCEPTED}' AND accepted_at < :accepted_before)"
_NONE_UNDER_WAY = f"""
SELECT 1 WHERE NOT EXISTS (
    SELECT 1 FROM records WHERE run_id = :run AND state <> '{RowState.QUARANTINED}' AND NOT {_HELD}
)
"""
#: It counts as sent before: its run is none that others have synced, of which nothing is sent.
_JUDGE_ANEW = f"""
UPDATE records SET state = '{RowState.QUARANTINED}', since = :now, judge_anew = 1, attempts = 0, taken = 0,
    accepted_at = NULL, sends = sends + 1, cause = :cause, hint = :hint
"""
_TO_BE_JUDGED = "SELECT 1 FROM records WHERE run_id = :run AND digest = :digest AND judge_anew"
#: What was wrong with its folder may be that the record was taken for another run's.
_READ_AGAIN_IF_MISPLACED = (
    "UPDATE datasets SET tail = NULL"
    " WHERE id = (SELECT dataset_id FROM runs WHERE id = ? AND folder_cause IS NOT NULL)"
)
#: The tracking file of the run of that id is read from its start.
READ_AGAIN = "UPDATE datasets SET tail = NULL WHERE id = (SELECT dataset_id FROM runs WHERE id = ?)"


def retry_runs(db: Connection, now: float, run_ids: Sequence[int] | None) -> int:
    """Take quarantined runs up again: all of them, or those given.

    What stopped them is looked at anew: files are sent again, folders inspected, damaged lines read again,
    and so are records that were refused when they were taken in.

    Returns:
        How many quarantined runs and damaged lines were taken up.
    """
    taken_up = 0
    if run_ids is None:
        rows = db.execute("SELECT id FROM open_runs WHERE state = ?", (RunState.QUARANTINED,)).fetchall()
        run_ids = [row["id"] for row in rows]
        damaged = db.execute("SELECT dataset_id FROM records WHERE run_id IS NULL").fetchall()
        taken_up = len(damaged)
        db.executemany("UPDATE datasets SET tail = NULL WHERE id = ?", {tuple(row) for row in damaged})
    for run_id in run_ids:
        state = db.execute("SELECT state FROM runs WHERE id = ?", (run_id,)).fetchone()[0]
        taken_up += state == RunState.QUARANTINED
        _take_files_up(db, now, run_id)
        _take_records_up(db, now, run_id)
        db.execute(_READ_AGAIN_IF_MISPLACED, (run_id,))
        db.execute(
            "UPDATE runs SET signature = NULL, folder_cause = NULL, folder_hint = NULL WHERE id = ?",
            (run_id,),
        )
    update_run_states(db, now, run_ids)
    return taken_up


def _take_files_up(db: Connection, now: float, run_id: int) -> None:
    # Whoever says "again" may have removed a bad image: what is not found any more is left out, or as it was.
    db.execute(
        "UPDATE files SET forget_unless_found = 1 WHERE run_id = ? AND state = ? AND content IS NULL",
        (run_id, FileState.QUARANTINED),
    )
    db.execute(_UP_AGAIN.format(table="files", waiting=WAITING), (now, run_id, FileState.QUARANTINED))
    # What was in the way of a file may have gone: expect no object that is not our own.
    db.execute(
        "UPDATE files SET generation = 0, crc32c = NULL"
        " WHERE id IN (SELECT id FROM open_files WHERE run_id = ? AND state <> ?) AND NOT ours",
        (run_id, FileState.UPLOADING),
    )


def _take_records_up(db: Connection, now: float, run_id: int) -> None:
    """Let records be sent again, or judged anew by the next reading where they were refused when taken in.

    Until then these stay quarantined: without them their run would look as if it were done.
    """
    refused = db.execute(
        "UPDATE records SET judge_anew = 1, cause = ?, hint = ? WHERE run_id = ? AND state = ?"
        " AND attempts = 0 AND sends = 0",
        (TO_BE_READ, TO_BE_READ_HINT, run_id, RowState.QUARANTINED),
    ).rowcount
    if refused:
        db.execute(READ_AGAIN, (run_id,))
    again = _UP_AGAIN.format(table="records", waiting=_ROW_WAITING)
    db.execute(f"{again} AND NOT judge_anew", (now, run_id, RowState.QUARANTINED))


def upload_again(
    db: Connection, now: float, files: Sequence[tuple[RunKey, str]], *, accepted_before: float
) -> int:
    """Take files up again, by run and path, whose objects were removed.

    These are files that the ledger calls uploaded. What stood inline in a record comes again with its line;
    it is left as it is while a row of its run is under way: see `send_again`.

    Returns:
        How many were taken up.
    """
    taken_up: list[int] = []
    for run, path in files:
        run_id = _run_id(db, run)
        if run_id is None:
            continue
        restore(db, run_id)
        of_run = {"run": run_id, "path": path, "now": now, "accepted_before": accepted_before}
        with counting_files(db, [run_id]):
            found = db.execute(
                "UPDATE files SET state = 'pending', since = :now, generation = 0, crc32c = NULL, ours = 0,"
                " stood = 0"
                " WHERE run_id = :run AND path = :path AND state = 'uploaded' AND content_crc32c IS NULL",
                of_run,
            ).rowcount
        if not found and db.execute(_NONE_UNDER_WAY, of_run).fetchone():
            found = db.execute(
                "DELETE FROM files WHERE run_id = :run AND path = :path AND state = 'uploaded'", of_run
            ).rowcount
            if found:
                _judge_anew(db, "run_id = :run", of_run)
        taken_up += [run_id] * found
    update_run_states(db, now, taken_up)
    return len(taken_up)


def send_again(
    db: Connection, now: float, rows: Sequence[tuple[RunKey, str]], *, accepted_before: float
) -> int:
    """Take rows up again, by run and digest of the record, that the table does not hold any more.

    These are rows that the ledger calls synced, and those of deliveries that ended well before
    `accepted_before` and do not show. Their lines are read again.

    Returns:
        How many were taken up: for a record that is given twice, two equal ones.
    """
    taken_up: list[int] = []
    for run, digest in rows:
        run_id = _run_id(db, run)
        of_run = {"run": run_id, "digest": digest, "now": now, "accepted_before": accepted_before}
        one = f"id = (SELECT id FROM records WHERE run_id = :run AND digest = :digest AND {_HELD} LIMIT 1)"
        if run_id is None:
            continue
        # What stood inline in it may have been taken up just before.
        if _judge_anew(db, one, of_run) or db.execute(_TO_BE_JUDGED, of_run).fetchone():
            taken_up.append(run_id)
    update_run_states(db, now, taken_up)
    return len(taken_up)


def _run_id(db: Connection, run: RunKey) -> int | None:
    row = db.execute(
        "SELECT r.id FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project = ? AND d.dataset = ? AND r.name = ?",
        (run.project, run.dataset, run.run),
    ).fetchone()
    return row["id"] if row else None


def _judge_anew(db: Connection, which: str, of_run: Mapping[str, object]) -> int:
    """Let the next reading of their lines take records of a run in anew; how many these are.

    The table is asked for them before they are sent.
    """
    given = {**of_run, "cause": TO_BE_READ, "hint": TO_BE_READ_HINT}
    changed = db.execute(f"{_JUDGE_ANEW} WHERE {which} AND {_HELD}", given).rowcount
    if changed:
        db.execute(READ_AGAIN, (of_run["run"],))
    return changed


def find_runs(db: Connection, name: str) -> list[int]:
    """Runs by ``project/dataset/run``, or by their run name alone where that is unambiguous or not."""
    rows = db.execute(
        "SELECT r.id FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project || '/' || d.dataset || '/' || r.name = ? OR r.name = ?",
        (name, name),
    ).fetchall()
    return [row["id"] for row in rows]
