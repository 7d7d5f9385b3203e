"""Rows that are not synced, and what every table is to be asked or sent next."""

from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from sqlite3 import Connection, Row
from typing import NamedTuple

from msgspec import Struct, field

from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import DatasetKey, DeliveryMethod, RowState, RunKey
from pixaris_sync.rules.planner import TableBacklog

DAY_SECONDS = 24 * 3600
#: The states of rows that a table may hold, and that are not known to be in it; the surest first.
_MAY_STAND = (
    RowState.ACCEPTED,
    RowState.SENDING,
    RowState.IN_DOUBT,
    RowState.UNASKED,
    RowState.QUARANTINED,
)


class PendingRow(NamedTuple):
    """A tracking record whose row is not synced.

    Attributes:
        id: its row in the ledger.
        run, digest, ordinal: which record it is.
        payload: the record as JSON; empty where its line is still to be read.
        found_at: when its line was taken in.
        state, since: where it stands.
        attempts: how many deliveries have failed in a row.
        sends: how many deliveries were ever begun; as many as seconds since the epoch, once it was repaired.
        looked_at: in doubt: when the table was first asked for it and answered; None: not yet.
        accepted_at: when a delivery of it ended well; None: none did.
        table_made_at: when the table was made that it was last sent to, by the service's clock, if known.
    """

    id: int
    run: RunKey
    digest: str
    ordinal: int
    line: int
    payload: str
    found_at: float
    state: RowState
    since: float
    attempts: int
    sends: int
    looked_at: float | None = None
    accepted_at: float | None = None
    table_made_at: float | None = None


def _pending(row: Row) -> PendingRow:
    return PendingRow(
        id=row["id"],
        run=RunKey(row["project"], row["dataset"], row["run_name"]),
        digest=row["digest"],
        ordinal=row["ordinal"],
        line=row["line"],
        payload=row["payload"] or "",
        found_at=row["found_at"],
        state=RowState(row["state"]),
        since=row["since"],
        attempts=row["attempts"],
        sends=row["sends"],
        looked_at=row["looked_at"],
        accepted_at=row["accepted_at"],
        table_made_at=row["table_made_at"],
    )


_SELECT = """
SELECT c.*, d.project, d.dataset FROM datasets d CROSS JOIN
"""
UNASKED = f"c.state = '{RowState.UNASKED}'"


@cache
def _carried(selection: Selection) -> str:
    """Rows of datasets that may be synced; their tables may be asked while the bucket is being listed."""
    return f"c.dataset_id = d.id AND d.cause IS NULL AND {selection.of_runs('c.run_name')}"


def _open(selection: Selection) -> str:
    """Rows against which nothing speaks."""
    return f"{_carried(selection)} AND d.adopted_at IS NOT NULL"


@cache
def _sendable(selection: Selection) -> str:
    """Rows that may be sent or looked for: their files are in the bucket."""
    return f"""
c.ready = 1 AND {_open(selection)} AND (c.state = 'in_doubt' OR c.attempts < :attempts_limit)
"""


@cache
def _table_backlogs(selection: Selection) -> str:
    return f"""
SELECT d.table_id,
       sum(c.state = 'pending' AND c.next_attempt_at <= :now) AS ready,
       max(c.state = 'pending' AND c.next_attempt_at <= :now AND c.by_load) AS by_load,
       sum(c.state = 'pending' AND c.next_attempt_at <= :now AND NOT c.by_load) AS streamable,
       sum(c.state IN ('accepted', 'in_doubt') AND c.next_attempt_at <= :now) AS to_read_back,
       min(iif(c.next_attempt_at > :now, c.next_attempt_at, NULL)) AS next_at,
       min(iif(c.state = 'in_doubt' AND c.next_attempt_at > :now, c.next_attempt_at, NULL)) AS decided_at
FROM datasets d CROSS JOIN open_records c
WHERE c.state IN ('pending', 'accepted', 'in_doubt') AND {_sendable(selection)}
GROUP BY d.table_id
"""


@cache
def _unfinished_loads(selection: Selection) -> str:
    """Whatever becomes of its files: a delivery that was begun comes to its end."""
    return f"""
SELECT x.table_id, x.id FROM deliveries x WHERE x.ended_at IS NULL AND EXISTS (
    SELECT 1 FROM records c INDEXED BY records_by_delivery CROSS JOIN datasets d
    WHERE c.delivery_id = x.id AND c.delivery_id IS NOT NULL AND c.state = 'sending' AND {_open(selection)}
)
"""


@cache
def _tables_to_ask(selection: Selection) -> str:
    return f"""
SELECT DISTINCT d.table_id FROM datasets d
WHERE EXISTS (
    SELECT 1 FROM records c INDEXED BY records_unasked WHERE {UNASKED} AND {_carried(selection)}
)
"""


def table_backlogs(db: Connection, now: float, selection: Selection) -> list[TableBacklog]:
    """What every table has waiting; tables with nothing waiting are left out."""
    asked = {**selection.parameters, "now": now}
    to_ask = {row["table_id"] for row in db.execute(_tables_to_ask(selection), asked).fetchall()}
    unfinished: dict[str, int] = dict(map(tuple, db.execute(_unfinished_loads(selection), asked).fetchall()))
    found = []
    for row in db.execute(_table_backlogs(selection), asked).fetchall():
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
                streamable=row["streamable"],
                to_ask=table_id in to_ask,
                to_read_back=row["to_read_back"],
                unfinished_load=unfinished.pop(table_id, None),
                changed_at=changed[0] if changed else None,
                loads_today=loads,
                next_at=row["next_at"],
                decided_at=row["decided_at"],
            )
        )
    others = to_ask.union(unfinished).difference(backlog.table_id for backlog in found)
    return found + [
        TableBacklog(table_id, to_ask=table_id in to_ask, unfinished_load=unfinished.get(table_id))
        for table_id in sorted(others)
    ]


def ready_rows(
    db: Connection, now: float, selection: Selection, table_id: str, count: int, *, by_load: bool = True
) -> list[PendingRow]:
    """Up to `count` rows of a table that may be sent now, newest runs first.

    `by_load`: also those that must go by a load job.

    While the bad row of a refused batch is looked for, the batch is no larger than the rows in it allow.
    """
    rows: list[Row] = []
    # One dataset at a time, because its index is in this order; mostly there is one.
    for (dataset_id,) in db.execute("SELECT id FROM datasets WHERE table_id = ?", (table_id,)).fetchall():
        rows += db.execute(
            f"{_SELECT} records c INDEXED BY records_in_order WHERE d.id = :dataset_id"
            f" AND c.state = 'pending' AND c.state <> 'synced' AND {_sendable(selection)}"
            f" AND c.next_attempt_at <= :now{'' if by_load else ' AND NOT c.by_load'}"
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
        f"{_SELECT} open_records c WHERE c.state IN ('accepted', 'in_doubt') AND {_sendable(selection)}"
        " AND c.next_attempt_at <= :now AND d.table_id = :table_id"
        " ORDER BY c.next_attempt_at, c.id LIMIT :count",
        {**selection.parameters, "now": now, "table_id": table_id, "count": count},
    ).fetchall()
    return [_pending(row) for row in rows]


def rows_to_ask_for(db: Connection, selection: Selection, table_id: str, count: int) -> list[PendingRow]:
    """Up to `count` rows of a table of which it is not known whether the table holds them, newest first."""
    rows: list[Row] = []
    for (dataset_id,) in db.execute("SELECT id FROM datasets WHERE table_id = ?", (table_id,)).fetchall():
        rows += db.execute(
            f"{_SELECT} records c INDEXED BY records_unasked WHERE d.id = :dataset_id AND {UNASKED}"
            f" AND {_carried(selection)} ORDER BY c.run_name DESC LIMIT :count",
            {**selection.parameters, "dataset_id": dataset_id, "count": count},
        )
    return [_pending(row) for row in sorted(rows, key=lambda row: str(row["run_name"]), reverse=True)[:count]]


class RowsOfRun(Struct):
    """The records of one run name, in all datasets of a table.

    Attributes:
        wanted: those that may have a row, and are not known to have it; the surest first.
        taken: how many are synced, by dataset: each has a row.
    """

    wanted: list[PendingRow] = field(default_factory=list)
    taken: dict[DatasetKey, int] = field(default_factory=dict)


def rows_of_runs(db: Connection, table_id: str, names: Sequence[str]) -> dict[str, RowsOfRun]:
    """What the ledger knows of the rows of these runs.

    It stays the same until those rows are confirmed, as long as a table has one step at a time.
    """
    found = {name: RowsOfRun() for name in names}
    of_runs = (
        f"{_SELECT} runs r CROSS JOIN records c WHERE d.table_id = ? AND r.dataset_id = d.id"
        f" AND r.name IN ({_marks(names)}) AND c.run_id = r.id"
    )
    for row in db.execute(of_runs, (table_id, *names)):
        known, key = found[row["run_name"]], DatasetKey(row["project"], row["dataset"])
        if row["state"] == RowState.SYNCED:
            known.taken[key] = known.taken.get(key, 0) + 1
        elif row["state"] in _MAY_STAND:
            known.wanted.append(_pending(row))
    for known in found.values():
        # A row that was taken is there, even where it cannot be read back and is quarantined for that.
        known.wanted.sort(key=lambda row: (row.accepted_at is None, _MAY_STAND.index(row.state)))
    return found


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
    rows = db.execute(
        "SELECT c.*, d.project, d.dataset FROM records c CROSS JOIN datasets d"
        f" WHERE c.id IN ({_marks(ids)}) AND d.id = c.dataset_id AND c.payload IS NOT NULL",
        ids,
    )
    found = {row["id"]: _pending(row) for row in rows}
    return [found[one] for one in ids if one in found]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def read_wholly(db: Connection, keys: Iterable[DatasetKey]) -> bool:
    """Whether all records of these datasets are known."""
    known = "SELECT 1 FROM datasets WHERE project = ? AND dataset = ? AND read_whole"
    return all(db.execute(known, (key.project, key.dataset)).fetchone() for key in keys)


def was_sent_to(db: Connection, table_id: str) -> bool:
    """Whether a table was there once, and sent to."""
    known = "SELECT 1 FROM tables WHERE table_id = ? AND made_at IS NOT NULL"
    return db.execute(known, (table_id,)).fetchone() is not None


def delivered_by(db: Connection, delivery_id: int) -> tuple[str, str | None, list[PendingRow]]:
    """Method, job id and rows of a delivery whose end is not known."""
    delivery = db.execute("SELECT method, job_id FROM deliveries WHERE id = ?", (delivery_id,)).fetchone()
    rows = db.execute(
        "SELECT c.*, d.project, d.dataset FROM records c JOIN datasets d ON d.id = c.dataset_id"
        " WHERE c.delivery_id = ? AND c.state = ? ORDER BY c.id",
        (delivery_id, RowState.SENDING),
    ).fetchall()
    return delivery["method"], delivery["job_id"], [_pending(row) for row in rows]
