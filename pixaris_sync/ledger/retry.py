"""Takes quarantined runs up again, at somebody's word."""

from collections.abc import Sequence
from sqlite3 import Connection

from pixaris_sync.ledger.runs import WAITING, update_run_states
from pixaris_sync.model import FileState, RowState, RunState

_UP_AGAIN = """
UPDATE {table} SET state = {waiting}, since = ?, attempts = 0, next_attempt_at = 0, cause = NULL,
    hint = NULL
WHERE run_id = ? AND state = ?
"""
#: The state in which a row that is taken up again waits: nobody sends it before the table was asked for it.
_ROW_WAITING = f"""
iif(accepted_at IS NOT NULL, '{RowState.ACCEPTED}', '{RowState.UNASKED}')
"""


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
        db.execute(
            "UPDATE runs SET signature = NULL, folder_cause = NULL, folder_hint = NULL WHERE id = ?",
            (run_id,),
        )
    update_run_states(db, now, run_ids)
    return taken_up


def _take_files_up(db: Connection, now: float, run_id: int) -> None:
    # Whoever says "again" may have removed a bad image: what is not found any more is left out.
    db.execute(
        "UPDATE files SET forget_unless_found = 1 WHERE run_id = ? AND state = ? AND NOT ours"
        " AND content IS NULL",
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
        (
            "it was taken up again, and its line of the tracking file is still to be read",
            "nothing to do; where this stays, the line is not in the tracking file any more",
            run_id,
            RowState.QUARANTINED,
        ),
    ).rowcount
    if refused:
        db.execute(
            "UPDATE datasets SET tail = NULL WHERE id = (SELECT dataset_id FROM runs WHERE id = ?)", (run_id,)
        )
    again = _UP_AGAIN.format(table="records", waiting=_ROW_WAITING)
    db.execute(f"{again} AND NOT judge_anew", (now, run_id, RowState.QUARANTINED))


def find_runs(db: Connection, name: str) -> list[int]:
    """Runs by ``project/dataset/run``, or by their run name alone where that is unambiguous or not."""
    rows = db.execute(
        "SELECT r.id FROM runs r JOIN datasets d ON d.id = r.dataset_id"
        " WHERE d.project || '/' || d.dataset || '/' || r.name = ? OR r.name = ?",
        (name, name),
    ).fetchall()
    return [row["id"] for row in rows]
