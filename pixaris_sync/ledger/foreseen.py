"""What a preview foresees of each file and row, noted beside its copy of the ledger.

It stands in a temporary table of that copy: as much as there is to carry does not fit into memory twice.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from sqlite3 import Connection

from msgspec import Struct

from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import RunKey, RunState


class Fate(StrEnum):
    """What becomes of a file or a row."""

    #: It is sent.
    SENT = "sent"
    #: Others had put it there.
    FOUND = "found"
    #: This ledger has sent it before.
    DONE = "done"


class ForeseenFile(Struct, frozen=True):
    """A file of a run: `mtime_ns` or, of what stood in the record, `crc32c` tells versions apart."""

    path: str
    size: int
    mtime_ns: int
    crc32c: int | None
    fate: Fate


class ForeseenRow(Struct, frozen=True):
    """A row of a run: `digest` tells its record from others."""

    line: int
    digest: str
    fate: Fate


class ForeseenRun(Struct, frozen=True):
    """A run that would be synced in the end, with all of its files and rows."""

    run: RunKey
    files: tuple[ForeseenFile, ...]
    rows: tuple[ForeseenRow, ...]


def begin(db: Connection, selection: Selection) -> None:
    """Note which of the selected runs are open, and what was sent of them before."""
    db.execute("CREATE TEMP TABLE foreseen_runs (id INTEGER PRIMARY KEY)")
    db.execute(
        "CREATE TEMP TABLE fates (kind TEXT, id INTEGER, fate TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID"
    )
    db.execute(
        "INSERT INTO foreseen_runs SELECT r.id FROM open_runs r JOIN datasets d ON d.id = r.dataset_id"
        f" WHERE r.committed AND {selection.of_runs()}",
        selection.parameters,
    )
    db.execute(
        f"INSERT INTO fates SELECT 'row', c.id, iif(c.state = 'synced' OR c.sends > 0, '{Fate.DONE}',"
        f" '{Fate.FOUND}') FROM foreseen_runs s CROSS JOIN records c ON c.run_id = s.id"
    )


def note(db: Connection, kind: str, ids: Iterable[int], fate: Fate) -> None:
    """Note what becomes of files (kind ``file``) or rows (``row``)."""
    db.executemany("INSERT OR REPLACE INTO fates VALUES (?, ?, ?)", [(kind, one, fate) for one in ids])


def foreseen_runs(db: Connection) -> Iterator[ForeseenRun]:
    """The runs that were open at the beginning and are synced now, by their names."""
    runs = db.execute(
        "SELECT r.id, d.project, d.dataset, r.name FROM foreseen_runs s"
        " CROSS JOIN runs r ON r.id = s.id CROSS JOIN datasets d ON d.id = r.dataset_id"
        " WHERE r.state = ? ORDER BY d.project, d.dataset, r.name",
        (RunState.SYNCED,),
    ).fetchall()
    fate = "coalesce((SELECT t.fate FROM fates t WHERE t.kind = ? AND t.id = {}), 'done') AS fate"
    for run in runs:
        files = db.execute(
            f"SELECT f.path, f.size, f.mtime_ns, f.content_crc32c, {fate.format('f.id')} FROM files f"
            " WHERE f.run_id = ? ORDER BY f.path",
            ("file", run["id"]),
        )
        rows = db.execute(
            f"SELECT c.line, c.digest, {fate.format('c.id')} FROM records c WHERE c.run_id = ?"
            " ORDER BY c.line, c.digest",
            ("row", run["id"]),
        )
        yield ForeseenRun(
            RunKey(run["project"], run["dataset"], run["name"]),
            tuple(
                ForeseenFile(
                    one["path"], one["size"], one["mtime_ns"], one["content_crc32c"], Fate(one["fate"])
                )
                for one in files.fetchall()
            ),
            tuple(ForeseenRow(row["line"], row["digest"], Fate(row["fate"])) for row in rows.fetchall()),
        )
