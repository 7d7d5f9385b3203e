"""What was done since the ledger was made, by all processes that worked with it."""

from sqlite3 import Connection
from typing import NamedTuple


class Totals(NamedTuple):
    """What was done since the ledger was made, by all processes that worked with it.

    Attributes:
        files_sent, bytes_sent: sent to the bucket, each time that it was.
        files_found, bytes_found: to be sent, and found there.
    """

    files_sent: int
    bytes_sent: int
    files_found: int
    bytes_found: int


def add_to_totals(db: Connection, **counts: int) -> None:
    """Count what was done; the names are those of `Totals`."""
    db.executemany(
        "UPDATE totals SET value = value + ? WHERE name = ?",
        [(count, name) for name, count in counts.items() if count],
    )


def totals(db: Connection) -> Totals:
    """What was done so far."""
    found = {row["name"]: row["value"] for row in db.execute("SELECT name, value FROM totals")}
    return Totals(**{name: found.get(name, 0) for name in Totals._fields})
