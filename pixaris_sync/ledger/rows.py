"""Transitions of rows: sending, accepted, synced, in doubt, rescheduled, quarantined; and what is due."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection, Row

from pixaris_sync.ledger.database import set_fact
from pixaris_sync.ledger.runs import update_run_states
from pixaris_sync.ledger.selection import Selection, selected
from pixaris_sync.model import DatasetKey, DeliveryMethod, Problem, RowState, RunKey
from pixaris_sync.rules.planner import TableBacklog

DAY_SECONDS = 24 * 3600
#: The fact when a row was last read back.
LAST_SYNCED = "last_synced_at"


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A tracking record whose row is not synced.

    Attributes:
        id: its row in the ledger.
        run, digest, ordinal: which record it is.
        payload: the record as JSON.
        state, since: where it stands.
        attempts: how many deliveries have failed in a row.
        sends: how many deliveries were ever begun.
    """

    id: int
    run: RunKey
    digest: str
    ordinal: int
    line: int
    payload: str
    state: RowState
    since: float
    attempts: int
    sends: int


def _pending(row: Row) -> PendingRow:
    return PendingRow(
        id=row["id"],
        run=RunKey(row["project"], row["dataset"], row["run_name"]),
        digest=row["digest"],
        ordinal=row["ordinal"],
        line=row["line"],
        payload=row["payload"],
        state=RowState(row["state"]),
        since=row["since"],
        attempts=row["attempts"],
        sends=row["sends"],
    )


_SELECT = """
SELECT c.*, d.project, d.dataset FROM datasets d CROSS JOIN
"""
#: Rows that may be sent or looked for: their files are in the bucket, and nothing speaks against them.
_SENDABLE = f"""
c.dataset_id = d.id AND c.ready = 1
AND d.adopted_at IS NOT NULL AND d.cause IS NULL AND {selected("c.run_name")}
AND (c.state <> 'pending' OR c.attempts < :attempts_limit)
"""
_TABLE_BACKLOGS = f"""
SELECT d.table_id,
       sum(c.state = 'pending' AND c.next_attempt_at <= :now) AS ready,
       max(c.state = 'pending' AND c.next_attempt_at <= :now AND c.by_load) AS by_load,
       sum(c.state IN ('accepted', 'in_doubt') AND c.next_attempt_at <= :now) AS to_read_back,
       min(iif(c.next_attempt_at > :now, c.next_attempt_at, NULL)) AS next_at,
       max(iif(c.state = 'sending', c.delivery_id, NULL)) AS unfinished_load
FROM datasets d CROSS JOIN open_records c
WHERE c.state IN ('pending', 'accepted', 'in_doubt', 'sending') AND {_SENDABLE}
GROUP BY d.table_id
"""


def table_backlogs(db: Connection, now: float, selection: Selection) -> list[TableBacklog]:
    """What every table has waiting; tables with nothing waiting are left out."""
    found = []
    for row in db.execute(_TABLE_BACKLOGS, {**selection.parameters, "now": now}).fetchall():
        table_id = row["table_id"]
        changed = db.execute("SELECT changed_at FROM tables WHERE table_id = ?", (table_id,)).fetchone()
        loads = db.execute(
            "SELECT count(*) FROM deliveries WHERE table_id = ? AND method = ? AND started_at > ?",
            (table_id, DeliveryMethod.LOAD, now - DAY_SECONDS),
        ).fetchone()[0]
        found.append(
            TableBacklog(
                table_id=table_id,
                ready=row["ready"],
                by_load=bool(row["by_load"]),
                to_read_back=row["to_read_back"],
                unfinished_load=row["unfinished_load"],
                changed_at=changed[0] if changed else None,
                loads_today=loads,
                next_at=row["next_at"],
            )
        )
    return found


def ready_rows(
    db: Connection, now: float, selection: Selection, table_id: str, count: int
) -> list[PendingRow]:
    """Up to `count` rows of a table that may be sent now, newest runs first.

    While the bad row of a refused batch is looked for, the batch is no larger than the rows in it allow.
    """
    rows: list[Row] = []
    # One dataset at a time, because its index is in this order; mostly there is one.
    for (dataset_id,) in db.execute("SELECT id FROM datasets WHERE table_id = ?", (table_id,)).fetchall():
        rows += db.execute(
            f"{_SELECT} records c INDEXED BY records_in_order WHERE d.id = :dataset_id"
            f" AND c.state = 'pending' AND c.state <> 'synced' AND {_SENDABLE}"
            " AND c.next_attempt_at <= :now"
            " ORDER BY coalesce(c.batch_limit, 1000000), c.run_name DESC, c.line LIMIT :count",
            {**selection.parameters, "now": now, "dataset_id": dataset_id, "count": count},
        )
    rows = sorted(rows, key=lambda row: str(row["run_name"]), reverse=True)
    rows = sorted(rows, key=lambda row: row["batch_limit"] or 1_000_000)[:count]
    limit = rows[0]["batch_limit"] if rows and rows[0]["batch_limit"] else count
    return [_pending(row) for row in rows[:limit]]


def rows_to_read_back(
    db: Connection, now: float, selection: Selection, table_id: str, count: int
) -> list[PendingRow]:
    """Up to `count` rows of a table that are due to be read back."""
    rows = db.execute(
        f"{_SELECT} open_records c WHERE c.state IN ('accepted', 'in_doubt') AND {_SENDABLE}"
        " AND c.next_attempt_at <= :now AND d.table_id = :table_id"
        " ORDER BY c.next_attempt_at, c.id LIMIT :count",
        {**selection.parameters, "now": now, "table_id": table_id, "count": count},
    ).fetchall()
    return [_pending(row) for row in rows]


def equal_synced(db: Connection, rows: Sequence[PendingRow]) -> dict[int, dict[DatasetKey, int]]:
    """By row id, how many equal records are synced in each dataset of its table: their rows are taken.

    Where datasets share a table, a record that was copied from one to another stands in both.
    """
    return {
        row.id: {
            DatasetKey(equal["project"], equal["dataset"]): equal["count"]
            for equal in db.execute(
                "SELECT d.project, d.dataset, count(*) AS count FROM datasets d CROSS JOIN records c"
                " WHERE d.table_id = (SELECT table_id FROM datasets WHERE project = ? AND dataset = ?)"
                " AND c.dataset_id = d.id AND c.digest = ? AND c.state = ? GROUP BY d.id",
                (row.run.project, row.run.dataset, row.digest, RowState.SYNCED),
            )
        }
        for row in rows
    }


def rows_and_equals(
    db: Connection, now: float, selection: Selection, table_id: str, count: int
) -> tuple[list[PendingRow], dict[int, dict[DatasetKey, int]]]:
    """`rows_to_read_back`, and their `equal_synced`.

    The latter stay the same until those rows are confirmed, as long as a table has one step at a time.
    """
    rows = rows_to_read_back(db, now, selection, table_id, count)
    return rows, equal_synced(db, rows)


def delivered_by(db: Connection, delivery_id: int) -> tuple[str, str | None, list[PendingRow]]:
    """Method, job id and rows of a delivery whose end is not known."""
    delivery = db.execute("SELECT method, job_id FROM deliveries WHERE id = ?", (delivery_id,)).fetchone()
    rows = db.execute(
        "SELECT c.*, d.project, d.dataset FROM records c JOIN datasets d ON d.id = c.dataset_id"
        " WHERE c.delivery_id = ? AND c.state = ? ORDER BY c.id",
        (delivery_id, RowState.SENDING),
    ).fetchall()
    return delivery["method"], delivery["job_id"], [_pending(row) for row in rows]


def waiting_records(db: Connection, table_id: str) -> "array[int]":
    """The ids of all records that wait for a table, in commit order: as they stand in the tracking file.

    Whether files of their runs are still missing does not matter, nor which runs a pass is about. Those of
    datasets that share the table come one dataset after another.
    """
    datasets = db.execute(
        "SELECT id FROM datasets WHERE table_id = ? AND cause IS NULL ORDER BY project, dataset", (table_id,)
    ).fetchall()
    ids = array("q")
    for (dataset_id,) in datasets:
        # The index alone answers, in time that grows with what waits.
        found = db.execute(
            "SELECT id FROM records INDEXED BY records_in_order WHERE dataset_id = ?"
            " AND state <> 'synced' AND state <> 'quarantined' ORDER BY line, id",
            (dataset_id,),
        )
        ids.extend(record_id for (record_id,) in found)
    return ids


def records_of(db: Connection, ids: Sequence[int]) -> list[PendingRow]:
    """Records by their ids, in that order; those that have come to their end meanwhile are left out."""
    found = [
        db.execute(f"{_SELECT} records c WHERE c.id = ? AND d.id = c.dataset_id", (one,)).fetchone()
        for one in ids
    ]
    return [_pending(row) for row in found if row is not None and row["payload"] is not None]


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
        "UPDATE records SET state = ?, since = ?, delivery_id = ?, sends = sends + 1 WHERE id = ?",
        [(RowState.SENDING, now, delivery_id, row.id) for row in rows],
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


def table_changed(db: Connection, now: float, table_id: str) -> None:
    """Note that a table was created or altered: for a while streaming may not know it."""
    db.execute(
        "INSERT INTO tables (table_id, changed_at) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET changed_at = excluded.changed_at",
        (table_id, now),
    )


def accept_rows(db: Connection, now: float, rows: Sequence[PendingRow]) -> None:
    """The service took these rows; they are not synced until they were read back."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, next_attempt_at = 0, taken = 1, delivery_id = NULL,"
        " cause = NULL, hint = NULL WHERE id = ?",
        [(RowState.ACCEPTED, now, row.id) for row in rows],
    )
    _update_runs(db, now, rows)


def confirm_rows(db: Connection, now: float, rows: Sequence[PendingRow]) -> None:
    """These rows were read back: they are synced."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, payload = NULL, attempts = 0, batch_limit = NULL,"
        " by_load = 0, delivery_id = NULL, cause = NULL, hint = NULL WHERE id = ?",
        [(RowState.SYNCED, now, row.id) for row in rows],
    )
    _update_runs(db, now, rows)
    if rows:
        set_fact(db, LAST_SYNCED, repr(now))


def read_back_later(db: Connection, rows: Sequence[PendingRow], *, next_attempt_at: float) -> None:
    """These rows cannot be seen yet: look again later."""
    db.executemany(
        "UPDATE records SET next_attempt_at = ? WHERE id = ?", [(next_attempt_at, row.id) for row in rows]
    )


def note_trouble(db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem) -> None:
    """It cannot be found out now what became of these rows: say why, and leave them as they are."""
    db.executemany(
        "UPDATE records SET cause = ?, hint = ? WHERE id = ?",
        [(problem.cause, problem.hint, row.id) for row in rows],
    )
    _update_runs(db, now, rows)


def mark_in_doubt(
    db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem, *, next_attempt_at: float
) -> None:
    """These rows may have been taken: look for them before they are sent again."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, next_attempt_at = ?, attempts = attempts + 1, taken = 1,"
        " delivery_id = NULL, cause = ?, hint = ? WHERE id = ?",
        [(RowState.IN_DOUBT, now, next_attempt_at, problem.cause, problem.hint, row.id) for row in rows],
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
        " by_load = max(by_load, ?), batch_limit = coalesce(?, batch_limit), delivery_id = NULL,"
        " cause = ?, hint = ? WHERE id = ?",
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
                row.id,
            )
            for row in rows
        ],
    )
    _update_runs(db, now, rows)


def quarantine_rows(db: Connection, now: float, rows: Sequence[PendingRow], problem: Problem) -> None:
    """Quarantine rows: somebody must act."""
    db.executemany(
        "UPDATE records SET state = ?, since = ?, attempts = attempts + 1, delivery_id = NULL, cause = ?,"
        " hint = ? WHERE id = ?",
        [(RowState.QUARANTINED, now, problem.cause, problem.hint, row.id) for row in rows],
    )
    _update_runs(db, now, rows)


def _update_runs(db: Connection, now: float, rows: Sequence[PendingRow]) -> None:
    run_ids = [db.execute("SELECT run_id FROM records WHERE id = ?", (row.id,)).fetchone()[0] for row in rows]
    update_run_states(db, now, run_ids)


def recover_deliveries(db: Connection, now: float) -> int:
    """At start: streaming inserts that a crash cut off are in doubt. Load jobs are found by their id.

    What was rescheduled is due at once: whoever starts the program wants it tried.
    """
    db.execute(
        "UPDATE records SET attempts = 0, next_attempt_at = 0 WHERE state = ?"
        " AND (attempts > 0 OR next_attempt_at > 0)",
        (RowState.PENDING,),
    )
    # The clock may have been set while nothing ran: patience with rows that were sent begins anew.
    db.execute(
        "UPDATE records SET since = ?, next_attempt_at = 0 WHERE state IN (?, ?)",
        (now, RowState.ACCEPTED, RowState.IN_DOUBT),
    )
    return db.execute(
        "UPDATE records SET state = ?, since = ?, next_attempt_at = 0, taken = 1, delivery_id = NULL"
        " WHERE state = ? AND (SELECT method FROM deliveries WHERE id = delivery_id) = ?",
        (RowState.IN_DOUBT, now, RowState.SENDING, DeliveryMethod.STREAM),
    ).rowcount
