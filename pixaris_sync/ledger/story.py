"""All that is known of one run."""

from collections.abc import Iterable, Mapping
from sqlite3 import Connection, Row
from typing import Final

from msgspec import Struct

from pixaris_sync.ledger.packs import packed_files
from pixaris_sync.ledger.selection import ANYBODY, Work
from pixaris_sync.ledger.waiting import left_out, waits_for, with_left_out
from pixaris_sync.model import FileState, RunKey, RunState


class FileStory(Struct, frozen=True):
    """Where a file of a run stands, since when, and how often in a row it failed."""

    path: str
    size: int
    state: str
    since: float
    attempts: int
    next_attempt_at: float
    cause: str
    hint: str


class RowStory(Struct, frozen=True):
    """Where a row of a run stands.

    Attributes:
        line: of the tracking file.
        found_at: when the line was taken in.
        state, since: where it stands.
        accepted_at: when a delivery of it ended well; None: none did, or nothing is known of it.
        sends: how many deliveries were begun.
        attempts: how many failed in a row.
        next_attempt_at: when it is tried again; 0: when it is its turn.
    """

    line: int
    found_at: float
    state: str
    since: float
    accepted_at: float | None
    sends: int
    attempts: int
    next_attempt_at: float
    cause: str
    hint: str


class RunStory(Struct, frozen=True):
    """All that is known of a run: where it stands, since when and why, its files and its rows.

    The cause of a pending run is what it waits for. `pruned_at`: since when files of it are gone from here;
    None: none is.
    """

    run: RunKey
    state: str
    since: float
    cause: str
    hint: str
    files: tuple[FileStory, ...]
    rows: tuple[RowStory, ...]
    pruned_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took from its first line to its last row; None: it is not synced."""
        if self.state != RunState.SYNCED or not self.rows:
            return None
        return max(0.0, max(row.since for row in self.rows) - min(row.found_at for row in self.rows))


_RUN: Final = """
SELECT r.*, d.project, d.dataset FROM runs r JOIN datasets d ON d.id = r.dataset_id WHERE r.id = ?
"""


def run_stories(db: Connection, run_ids: Iterable[int], at_work: Work | None = ANYBODY) -> list[RunStory]:
    """The stories of runs, by the ids that `retry.find_runs` finds; `at_work` as for `overview.overview`."""
    found = (db.execute(_RUN, (run_id,)).fetchone() for run_id in run_ids)
    left = left_out(db, at_work)
    return [_story(db, row, at_work, left) for row in found if row is not None]


def _story(db: Connection, run: Row, at_work: Work | None, left: Mapping[str, str]) -> RunStory:
    if run["packed_files"] is not None:
        files = [
            FileStory(file.path, file.size, FileState.UPLOADED, run["since"], 0, 0.0, "", "")
            for file in packed_files(db, run["id"])
        ]
    else:
        files = [
            FileStory(
                row["path"],
                row["size"],
                row["state"],
                row["since"],
                row["attempts"],
                row["next_attempt_at"],
                row["cause"] or "",
                row["hint"] or "",
            )
            for row in db.execute("SELECT * FROM files WHERE run_id = ? ORDER BY path", (run["id"],))
        ]
    rows = [
        RowStory(
            line=row["line"],
            found_at=row["found_at"],
            state=row["state"],
            since=row["since"],
            accepted_at=row["accepted_at"],
            sends=row["sends"],
            attempts=row["attempts"],
            next_attempt_at=row["next_attempt_at"],
            cause=row["cause"] or "",
            hint=row["hint"] or "",
        )
        for row in db.execute("SELECT * FROM records WHERE run_id = ? ORDER BY line", (run["id"],))
    ]
    key = RunKey(run["project"], run["dataset"], run["name"])
    return RunStory(
        key,
        run["state"],
        run["since"],
        run["cause"] or waits_for(db, run["id"], at_work),
        with_left_out(run["hint"] or "", left.get(str(key))),
        tuple(files),
        tuple(rows),
        run["pruned_at"],
    )
