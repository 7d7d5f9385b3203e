"""Lines of tracking files: how one is known again, and what becomes of damaged ones."""

from sqlite3 import Connection

from pixaris_sync.model import RowState, Tail

DAMAGED_HINT = (
    "repair or remove the line; where the run's args.json is whole, put its content in the line's place"
)


def ordinal_of(db: Connection, dataset_id: int, digest: str, reading: int) -> int:
    """How many lines of this digest the same reading of the file has seen before."""
    count: int = db.execute(
        "SELECT count(*) FROM records WHERE dataset_id = ? AND digest = ? AND reading = ?",
        (dataset_id, digest, reading),
    ).fetchone()[0]
    return count


def take_in_damaged(db: Connection, now: float, dataset_id: int, tail: Tail, reading: int) -> None:
    """Take in the damaged lines of a reading; those of earlier ones are forgotten at its end."""
    for damaged in tail.damaged:
        db.execute(
            "INSERT INTO records (dataset_id, digest, ordinal, line, reading, state, since, found_at, cause,"
            " hint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET line = excluded.line, reading = excluded.reading, cause = excluded.cause",
            (
                dataset_id,
                damaged.digest,
                ordinal_of(db, dataset_id, damaged.digest, reading),
                damaged.line,
                reading,
                RowState.QUARANTINED,
                now,
                now,
                damaged.cause,
                DAMAGED_HINT,
            ),
        )
    if not tail.more:
        # A damaged line that this reading did not see any more was repaired or removed.
        db.execute(
            "DELETE FROM records WHERE dataset_id = ? AND run_id IS NULL AND reading < ?",
            (dataset_id, reading),
        )
