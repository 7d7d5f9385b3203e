"""Transitions of rows: asked for, sent, accepted, in doubt, rescheduled, synced, quarantined."""

from collections.abc import Sequence
from sqlite3 import Connection

from pixaris_sync.ledger.database import set_fact
from pixaris_sync.ledger.pending_rows import DAY_SECONDS, UNASKED, PendingRow
from pixaris_sync.ledger.runs import update_run_states
from pixaris_sync.model import DeliveryMethod, Problem, RowState

#: The fact when a row was last read back.
LAST_SYNCED = "last_synced_at"
#: By so much at most this machine's clock may differ from the service's.
CLOCKS_DIFFER_SECONDS_MAX = 2.0 * DAY_SECONDS
#: A record that is forgotten while something is asked about it leaves its id to another.
_THIS_RECORD = "id = ? AND digest = ?"


def _this(row: PendingRow) -> tuple[int, str]:
    """Values for `_THIS_RECORD`."""
    return row.id, row.digest


def start_delivery(
    db: Connection,
    now: float,
    table_id: str,
    rows: Sequence[PendingRow],
    method: DeliveryMethod,
    job_id: str | None,
) -> int:
    """Write down the intent to send rows, before they are sent."""
    cursor = db.execute(
        "INSERT INTO deliveries (table_id, method, job_id, started_at) VALUES (?, ?, ?, ?)",
        (table_id, method, job_id, now),
    )
    delivery_id = cursor.lastrowid
    assert delivery_id is not None  # noqa: S101 - an INSERT always has one
    db.executemany(
        "UPDATE records SET state = ?, since = ?, delivery_id = ?, sends = sends + 1,"
        f" table_made_at = (SELECT made_at FROM tables WHERE table_id = ?) WHERE {_THIS_RECORD}",
        [(RowState.SENDING, now, delivery_id, table_id, *_this(row)) for row in rows],
    )
    return delivery_id


def end_delivery(db: Connection, now: float, delivery_id: int) -> None:
    """The outcome of a delivery is recorded with its rows; those of long ago are forgotten."""
    db.execute("UPDATE deliveries SET ended_at = ? WHERE id = ?", (now, delivery_id))
    db.execute(
        "DELETE FROM deliveries WHERE ended_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM records c WHERE c.delivery_id = deliveries.id)",
        (now - 2 * DAY_SECONDS,),
    )


def table_changed(db: Connection, now: float, table_id: str) -> float:
    """Note that a table was created or altered: for a while streaming may not know it.

    Returns:
        When it was before, as far as is known; 0 for never.
    """
    before = db.execute("SELECT changed_at FROM tables WHERE table_id = ?", (table_id,)).fetchone()
    db.execute(
        "INSERT INTO tables (table_id, changed_at) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET changed_at = excluded.changed_at",
        (table_id, now),
    )
    return (before[0] if before else None) or 0.0


def note_table(db: Connection, now: float, table_id: str, made_at: float) -> bool:
    """Note when a table was made that a process is going to send to.

    Returns:
        Whether it may have been made just now, so that streaming may not know it yet. The service's clock
        tells only of one that is much older that this cannot be. What was noted by a clock that has been set
        back since counts for nothing beside that.
    """
    young = abs(now - made_at) < CLOCKS_DIFFER_SECONDS_MAX
    db.execute(
        "INSERT INTO tables (table_id, changed_at, made_at) VALUES (:table, :changed, :made)"
        " ON CONFLICT DO UPDATE SET changed_at = iif(:young, :changed, changed_at), made_at = :made",
        {"table": table_id, "changed": now if young else 0.0, "made": made_at, "young": young},
    )
    return young


def accept_rows(
    db: Connection, now: float, rows: Sequence[PendingRow], *, next_attempt_at: float = 0.0
) -> None:
    """The service took these rows: they are not sent again by themselves, and synced once they are read back.

    `next_attempt_at`: when to look for them first.
    """
    db.executemany(
        "UPDATE records SET state = ?, since = ?, accepted_at = ?, next_attempt_at = ?,"
        f" attempts = 0, taken = 1, delivery_id = NULL, cause = NULL, hint = NULL WHERE {_THIS_RECORD}",
        [(RowState.ACCEPTED, now, now, next_attempt_at, *_this(row)) for row in rows],
    )
    _update_runs(db, now, rows)


def confirm_rows(db: Connection, now: float, rows: Sequence[PendingRow], *, by_name: bool = True) -> None:
    """These rows were read back: they are synced.

    A run whose row stood there before anything of it was sent was synced before: what its folder and its
    objects have lost since was removed by somebody, and stays as it is. A newer version of a file that this
    ledger has uploaded is carried all the same. Not so where the run's name alone does not tell that it was
    this run's row (`by_name`).
    """
    stood = dict.fromkeys(
        _runs_of(db, [row for row in rows if row.state is RowState.UNASKED and not row.sends])
    )
    db.executemany(
        "UPDATE files SET stood = 1, attempts = 0, next_attempt_at = 0"
        " WHERE run_id = ? AND state <> 'uploaded' AND NOT ours",
        [(run_id,) for run_id in stood if by_name],
    )
    db.executemany(
        "UPDATE runs SET folder_cause = NULL, folder_hint = NULL, quiet_at = NULL WHERE id = ?",
        [(run_id,) for run_id in stood],
    )
    db.executemany(
        "UPDATE records SET state = ?, since = ?, payload = NULL, attempts = 0, batch_limit = NULL,"
        f" by_load = 0, judge_anew = 0, delivery_id = NULL, cause = NULL, hint = NULL WHERE {_THIS_RECORD}",
        [(RowState.SYNCED, now, *_this(row)) for row in rows],
    )
    _update_runs(db, now, rows)
    if rows:
        set_fact(db, LAST_SYNCED, repr(now))


def permit_rows(db: Connection, now: float, rows: Sequence[PendingRow], *, doubt_until: float) -> None:
    """The table was asked for these rows and does not hold them: they may be sent.

    Where others may have sent one just now, it is in doubt: it is looked for once more at `doubt_until`.
    """
    db.executemany(
        "UPDATE records SET state = iif(taken, ?, ?), since = ?, looked_at = ?,"
        f" next_attempt_at = iif(taken, ?, 0), cause = NULL, hint = NULL WHERE {_THIS_RECORD}",
        [(RowState.IN_DOUBT, RowState.PENDING, now, now, doubt_until, *_this(row)) for row in rows],
    )
    _update_runs(db, now, rows)


def read_back_later(
    db: Connection,
    now: float,
    rows: Sequence[PendingRow],
    problem: Problem | None = None,
    *,
    next_attempt_at: float,
    attempts: int = 0,
) -> None:
    """These rows do not show yet: look again later, after so many more failed `attempts`."""
    db.executemany(
        "UPDATE records SET looked_at = coalesce(looked_at, ?), next_attempt_at = ?, attempts = attempts + ?,"
        f" cause = coalesce(?, cause), hint = coalesce(?, hint) WHERE {_THIS_RECORD}",
        [
            (
                now,
                next_attempt_at,
                attempts,
                problem.cause if problem else None,
                problem.hint if problem else None,
                *_this(row),
            )
            for row in rows
        ],
    )
    if problem:
        _update_runs(db, now, rows)


def note_trouble(db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem) -> None:
    """It cannot be found out now what became of these rows: say why, and leave them as they are."""
    _note_cause(db, problem, [row.id for row in rows])
    _update_runs(db, now, rows)


def _note_cause(db: Connection, problem: Problem, ids: Sequence[int]) -> None:
    db.executemany(
        "UPDATE records SET cause = ?, hint = ? WHERE id = ?",
        [(problem.cause, problem.hint, id_) for id_ in ids],
    )


def note_that_none_can_be_asked(db: Connection, now: float, table_id: str, problem: Problem) -> None:
    """A table cannot be asked now: say so of the rows that it is to be asked for, and hold no files."""
    rows = db.execute(
        "SELECT c.id, c.run_id FROM datasets d CROSS JOIN records c INDEXED BY records_unasked"
        f" WHERE d.table_id = ? AND c.dataset_id = d.id AND {UNASKED} AND c.cause IS NULL",
        (table_id,),
    ).fetchall()
    _note_cause(db, problem, [row["id"] for row in rows])
    update_run_states(db, now, [row["run_id"] for row in rows])


def mark_in_doubt(
    db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem, *, next_attempt_at: float
) -> None:
    """These rows may have been taken: look for them before they are sent again."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, looked_at = NULL, next_attempt_at = ?,"
        f" attempts = attempts + 1, taken = 1, delivery_id = NULL, cause = ?, hint = ? WHERE {_THIS_RECORD}",
        [(RowState.IN_DOUBT, now, next_attempt_at, problem.cause, problem.hint, *_this(row)) for row in rows],
    )
    _update_runs(db, now, rows)


def reschedule_rows(
    db: Connection,
    now: float,
    rows: Sequence[PendingRow],
    problem: Problem | None = None,
    *,
    next_attempt_at: float = 0.0,
    by_load: bool = False,
    batch_limit: int | None = None,
) -> None:
    """These rows were not taken: send them again, with what was learnt.

    It counts as a failed attempt of each row, except without a problem (nothing was tried) and with a
    `batch_limit`: then one of them is at fault, and the others must not run out of attempts meanwhile.
    """
    db.executemany(
        "UPDATE records SET state = ?, since = ?, next_attempt_at = ?, attempts = attempts + ?, taken = 0,"
        " accepted_at = NULL, by_load = max(by_load, ?), batch_limit = coalesce(?, batch_limit),"
        f" delivery_id = NULL, cause = ?, hint = ? WHERE {_THIS_RECORD}",
        [
            (
                RowState.PENDING,
                now,
                next_attempt_at,
                problem is not None and batch_limit is None,
                by_load,
                batch_limit,
                problem.cause if problem else None,
                problem.hint if problem else None,
                *_this(row),
            )
            for row in rows
        ],
    )
    _update_runs(db, now, rows)


def quarantine_rows(db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem) -> None:
    """Quarantine rows: somebody must act."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, attempts = attempts + 1, delivery_id = NULL, cause = ?,"
        f" hint = ? WHERE {_THIS_RECORD}",
        [(RowState.QUARANTINED, now, problem.cause, problem.hint, *_this(row)) for row in rows],
    )
    _update_runs(db, now, rows)


def _update_runs(db: Connection, now: float, rows: Sequence[PendingRow]) -> None:
    update_run_states(db, now, _runs_of(db, rows))


def _runs_of(db: Connection, rows: Sequence[PendingRow]) -> list[int]:
    statement = f"SELECT run_id FROM records WHERE {_THIS_RECORD}"
    return [run_id for row in rows for (run_id,) in db.execute(statement, _this(row))]


def make_rows_due(db: Connection) -> None:
    """Let rows that were rescheduled be sent, or read back, at once, as if that had not failed before."""
    db.execute(
        "UPDATE records SET attempts = 0, next_attempt_at = 0 WHERE state IN (?, ?) AND (attempts > 0"
        " OR next_attempt_at > 0)",
        (RowState.PENDING, RowState.ACCEPTED),
    )


def recover_deliveries(db: Connection, now: float) -> int:
    """At start: streaming inserts that a crash cut off are in doubt. Load jobs are found by their id.

    What waits to be sent is asked for first: this ledger may be an older one, from a backup, and others may
    have been at work. What was rescheduled is due at once: whoever starts the program wants it tried.
    """
    make_rows_due(db)
    failed = (
        "SELECT DISTINCT c.run_id FROM open_records c JOIN runs r ON r.id = c.run_id"
        " WHERE c.state = ? AND (c.cause IS NOT NULL OR r.folder_cause IS NOT NULL)"
    )
    runs = [row["run_id"] for row in db.execute(failed, (RowState.PENDING,)).fetchall()]
    db.execute(
        "UPDATE runs SET held = 1 WHERE id IN (SELECT run_id FROM open_records WHERE state = ?)",
        (RowState.PENDING,),
    )
    db.execute(
        "UPDATE records SET state = ?, cause = NULL, hint = NULL WHERE state = ?",
        (RowState.UNASKED, RowState.PENDING),
    )
    update_run_states(db, now, runs)
    # The clock may have been set while nothing ran: patience with rows in doubt begins anew.
    db.execute(
        "UPDATE records SET looked_at = NULL, next_attempt_at = 0 WHERE state = ?", (RowState.IN_DOUBT,)
    )
    db.execute(
        "UPDATE records SET accepted_at = min(accepted_at, ?) WHERE state = ?", (now, RowState.ACCEPTED)
    )
    return db.execute(
        "UPDATE records SET state = ?, since = ?, looked_at = NULL, next_attempt_at = 0, taken = 1,"
        " delivery_id = NULL"
        " WHERE state = ? AND (SELECT method FROM deliveries WHERE id = delivery_id) = ?",
        (RowState.IN_DOUBT, now, RowState.SENDING, DeliveryMethod.STREAM),
    ).rowcount
