"""Where a run stands: the one rule, applied at the end of every transition."""

from collections.abc import Iterable
from sqlite3 import Connection, Row

from pixaris_sync.model import FileState, RowState, RunState

#: GCS takes about one write a second for one object name.
OBJECT_WRITE_SECONDS = 1.0
#: The state in which a file waits. The bucket may have it, as ``taken`` says, or not.
WAITING = f"iif(taken, '{FileState.IN_DOUBT}', '{FileState.PENDING}')"
#: For a file that is left as it is: somebody removed or replaced its object, or the file is gone. Should it
#: come back, its time of change says that it is another version, and the object is looked up; not so where
#: its run stood in the table before.
LEFT_AS_IT_IS = f"""
state = '{FileState.UPLOADED}', since = ?, mtime_ns = iif(stood, mtime_ns, -1),
    crc32c = iif(ours AND NOT taken, crc32c, NULL), taken = 0, session_uri = NULL, content = NULL,
    attempts = 0, next_attempt_at = 0, cause = NULL, hint = NULL, forget_unless_found = 0
"""


_RUN_FACTS = """
SELECT r.id, r.state, r.cause, r.hint, r.signature, r.folder_cause, r.folder_hint, r.committed, r.quiet_at,
       r.held,
       d.cause AS dataset_cause, d.hint AS dataset_hint, d.trouble, d.trouble_hint,
       EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id) AS open_files,
       EXISTS (SELECT 1 FROM open_records c WHERE c.run_id = r.id) AS open_records,
       EXISTS (
           SELECT 1 FROM open_records c WHERE c.run_id = r.id AND c.state = 'unasked' AND c.cause IS NULL
       ) AS to_ask
FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = ?
"""
#: What stops a run before what only delays it; of these what failed last.
_WORST = """
SELECT state = 'quarantined' AS quarantined, since, cause, hint FROM (
    SELECT state, since, cause, hint FROM open_files WHERE run_id = :run AND cause IS NOT NULL
    UNION ALL
    SELECT state, since, cause, hint FROM open_records WHERE run_id = :run AND cause IS NOT NULL
) ORDER BY quarantined DESC, since DESC LIMIT 1
"""


def update_run_states(db: Connection, now: float, run_ids: Iterable[int]) -> None:
    """Make each run's state what its folder, files and records say, its records ready or not, its files held.

    Every transition ends here, so that no run can be in two states, nor in none.
    """
    for run_id in dict.fromkeys(run_ids):
        run = db.execute(_RUN_FACTS, (run_id,)).fetchone()
        if not run["committed"]:
            continue
        # Without a signature its folder is still to be inspected: it may hold more than is known.
        inspected = run["signature"] is not None and run["quiet_at"] is None
        ready = inspected and not run["open_files"] and run["folder_cause"] is None
        if run["held"] != run["to_ask"]:
            # A table that cannot be asked now does not keep files waiting: what they replace is looked up.
            db.execute("UPDATE runs SET held = ? WHERE id = ?", (run["to_ask"], run_id))
        if run["open_records"]:
            db.execute(
                "UPDATE records SET ready = ? WHERE run_id = ? AND state <> 'synced' AND ready <> ?",
                (ready, run_id, ready),
            )
        state, cause, hint = _state_of(db, run)
        if (run["state"], run["cause"], run["hint"]) == (state, cause, hint):
            continue
        since = "since" if run["state"] == state else ":now"
        db.execute(
            f"UPDATE runs SET state = :state, cause = :cause, hint = :hint, since = {since} WHERE id = :id",
            {"state": state, "cause": cause, "hint": hint, "now": now, "id": run_id},
        )


def had_all_files(db: Connection, run_id: int) -> bool:
    """Whether all files of a run were uploaded once: all of its rows are synced, or were sent once."""
    records, complete = db.execute(
        "SELECT count(*), coalesce(sum(state = ? OR sends > 0), 0) FROM records WHERE run_id = ?",
        (RowState.SYNCED, run_id),
    ).fetchone()
    return bool(records and records == complete)


def _state_of(db: Connection, run: Row) -> tuple[RunState, str | None, str | None]:
    """The state of a run by these facts of it, and why it is there, if that has a cause."""
    is_open = run["open_files"] or run["open_records"] or run["quiet_at"] is not None
    worst = db.execute(_WORST, {"run": run["id"]}).fetchone() if is_open else None
    if is_open and run["dataset_cause"]:
        return RunState.QUARANTINED, run["dataset_cause"], run["dataset_hint"]
    # Until the table has said that it does not hold the row, nothing need be in the folder.
    if run["folder_cause"] and not run["to_ask"]:
        return RunState.QUARANTINED, run["folder_cause"], run["folder_hint"]
    if worst is not None:
        return (
            RunState.QUARANTINED if worst["quarantined"] else RunState.FAILING,
            worst["cause"],
            worst["hint"],
        )
    if is_open and run["trouble"]:
        return RunState.FAILING, run["trouble"], run["trouble_hint"]
    return RunState.PENDING if is_open else RunState.SYNCED, None, None


def forget_misnamed(db: Connection, run_id: int) -> None:
    """Forget a run that no record names any more, as they are now known to name another.

    It stays where something of it was uploaded.
    """
    of_use = (
        "SELECT 1 FROM records WHERE run_id = :run UNION ALL SELECT 1 FROM packs WHERE run_id = :run"
        " UNION ALL SELECT 1 FROM files WHERE run_id = :run AND state IN ('uploading', 'uploaded')"
    )
    if not db.execute(of_use, {"run": run_id}).fetchone():
        db.execute("DELETE FROM files WHERE run_id = ?", (run_id,))
        db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
