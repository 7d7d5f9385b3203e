"""Keeps finished runs small: the files of each are packed into one value, and unused space is given back.

While a run is carried, each of its files is a row in ``files`` with all that an upload may have to know. Once
the run is synced, only this is asked of it any more: which files it had, as they were then, and which objects
they became. `pack_finished` writes that into one value for each run, and deletes the rows.

Invariant: a run's files are all in ``files``, or all in its pack. ``runs.packed_files`` says which: NULL, or
how many the pack holds; a run without files needs none. Every file in a pack is uploaded and nothing is wrong
with it; the object is ours where its checksum is known. A run in which a file was added or has changed leaves
its pack (`restore`) before anything else happens to it, so no transition of a file ever meets a packed one. A
run that is as it was is only compared.

Format: a zlib stream, whose checksum tells a damaged one, of a JSON array of six equally long arrays, one for
each field of `PackedFile`. Those of `_BY_STEPS` hold the first value, then each one's difference from the one
before it: times, inodes and generations of one run are close to each other. The files are in order of their
paths. A pack that cannot be read counts as empty: the run's files are then taken in anew, and found in the
bucket.

Size, measured over 1,000 runs of 20 images: a row takes 275 bytes, a packed file 26 (23 with 200 images in a
run, 65 with two); and each run with its record 500, whatever its files. So a ledger of finished runs comes to
55 bytes a file instead of 302. At worst, where nothing can be compressed, a packed file takes the length of
its path and `PACKED_FILE_BYTES_MAX`. A ledger smaller than `PACKED_FROM_BYTES` is left as it is. Packing
takes about 4 microseconds of processor time a file, rows, value and commit together; comparing takes 2.

Space: what the rows took is used again by whatever comes, and where much of the database is unused, it is
shortened (`pages_to_give_back`, `give_pages_back`). For that it is made with ``auto_vacuum = INCREMENTAL``;
a ledger made before that was so keeps its length. Packing and giving back go in steps, each a transaction of
its own: a crash between two loses nothing.
"""

import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from sqlite3 import Connection
from typing import NamedTuple

from pixaris_sync.ledger.datasets import count_new_files
from pixaris_sync.model import FileState, FileVersion

log = logging.getLogger(__name__)

#: What a packed file takes at most, beside its path as JSON; the pack itself takes as much once more.
PACKED_FILE_BYTES_MAX = 120
#: From this size of the database on, finished runs are packed.
PACKED_FROM_BYTES = 1024 * 1024
#: Runs packed in one transaction: so long do others wait.
PACKED_RUNS_LIMIT = 100
#: Unused space is given back when it is more than both, that share of the database and so many bytes.
UNUSED_SHARE_MAX = 0.25
UNUSED_BYTES_MAX = 1024 * 1024
#: Pages given back in one transaction.
GIVEN_BACK_PAGES_LIMIT = 1000

#: Packs are small: with zlib's usual window and memory, making room for them would take longest.
_ZLIB = {"level": 1, "wbits": 12, "memLevel": 5}
_AUTO_VACUUM_INCREMENTAL = 2

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class PackedFile(NamedTuple):
    """A file of a finished run: as it was when it was uploaded, and the object that it became."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    crc32c: int | None
    generation: int

    @property
    def version(self) -> FileVersion:
        """What the local file looked like; one without inode is content that stood inline in the record."""
        return FileVersion(self.size, self.mtime_ns, self.inode, None if self.inode else self.crc32c)


#: Columns of numbers that are close to each other.
_BY_STEPS = [name in ("mtime_ns", "inode", "generation") for name in PackedFile._fields]

_TO_PACK = """
SELECT r.id FROM runs r INDEXED BY runs_to_pack WHERE r.state = 'synced' AND r.packed_files IS NULL
    AND NOT EXISTS (SELECT 1 FROM open_files f WHERE f.run_id = r.id)
ORDER BY r.id LIMIT ?
"""
_UPLOADED = f"""
SELECT {", ".join(PackedFile._fields)} FROM files WHERE run_id = ? ORDER BY path
"""
_RESTORE = """
INSERT INTO files
    (run_id, dataset_id, path, run_name, size, mtime_ns, inode, content_crc32c, crc32c, generation,
    state, since, ours)
SELECT id, dataset_id, :path, name, :size, :mtime_ns, :inode, :content_crc32c, :crc32c, :generation,
    :state, since, :crc32c IS NOT NULL
FROM runs WHERE id = :run_id
"""


def pack(files: Iterable[Sequence[object]]) -> bytes:
    """Pack the files of a run, given as `PackedFile` or as rows of its fields; at least one."""
    columns = [
        [column[0], *map(sub, column[1:], column)] if by_steps else column
        for column, by_steps in zip(zip(*files, strict=True), _BY_STEPS, strict=True)
    ]
    compressor = zlib.compressobj(_ZLIB["level"], zlib.DEFLATED, _ZLIB["wbits"], _ZLIB["memLevel"])
    return compressor.compress(_encode(columns).encode()) + compressor.flush()


def unpack(packed: bytes) -> list[PackedFile]:
    """The files of a run, in order of their paths; none where the value is damaged."""
    try:
        columns = json.loads(zlib.decompress(packed))
        return [
            PackedFile._make(values)
            for values in zip(
                *(
                    accumulate(column) if by_steps else column
                    for column, by_steps in zip(columns, _BY_STEPS, strict=True)
                ),
                strict=True,
            )
        ]
    except (zlib.error, ValueError, TypeError):
        log.warning("a finished run cannot be read from the ledger: its files are looked for in the bucket")
        return []


def pack_finished(db: Connection) -> bool:
    """Pack finished runs, a limited number of them.

    Returns:
        Whether there may be more.
    """
    if _pragma(db, "page_count") * _pragma(db, "page_size") < PACKED_FROM_BYTES:
        return False
    run_ids = [row[0] for row in db.execute(_TO_PACK, (PACKED_RUNS_LIMIT,)).fetchall()]
    packs, counts = [], []
    for run_id in run_ids:
        files = db.execute(_UPLOADED, (run_id,)).fetchall()
        counts.append((len(files), run_id))
        if files:
            packs.append((run_id, pack(files)))
    db.executemany("INSERT INTO packs (run_id, packed) VALUES (?, ?)", packs)
    db.executemany("DELETE FROM files WHERE run_id = ?", [(run_id,) for run_id, _ in packs])
    db.executemany("UPDATE runs SET packed_files = ? WHERE id = ?", counts)
    return len(run_ids) == PACKED_RUNS_LIMIT


def packed_files(db: Connection, run_id: int) -> list[PackedFile]:
    """The files of a run's pack; none where it has none."""
    row = db.execute("SELECT packed FROM packs WHERE run_id = ?", (run_id,)).fetchone()
    return unpack(row[0]) if row else []


def restore(db: Connection, run_id: int) -> None:
    """Let a run's files stand in ``files``, where it has a pack: something about them is going to change."""
    run = db.execute(
        "UPDATE runs SET packed_files = NULL WHERE id = ? AND packed_files IS NOT NULL RETURNING dataset_id",
        (run_id,),
    ).fetchone()
    if run is None:
        return
    files = packed_files(db, run_id)
    count_new_files(db, run["dataset_id"], [file.size for file in files], uploaded=True)
    of_all = {"run_id": run_id, "state": FileState.UPLOADED}
    db.executemany(
        _RESTORE,
        [{**file._asdict(), "content_crc32c": file.version.content_crc32c, **of_all} for file in files],
    )
    db.execute("DELETE FROM packs WHERE run_id = ?", (run_id,))


def pages_to_give_back(db: Connection) -> int:
    """How many unused pages the database should be shortened by: all, where they are many, else none."""
    unused, pages = _pragma(db, "freelist_count"), _pragma(db, "page_count")
    many = unused > pages * UNUSED_SHARE_MAX and unused * _pragma(db, "page_size") > UNUSED_BYTES_MAX
    return unused if many and _pragma(db, "auto_vacuum") == _AUTO_VACUUM_INCREMENTAL else 0


def give_pages_back(db: Connection) -> None:
    """Shorten the database by unused pages, a limited number of them."""
    for _ in range(min(GIVEN_BACK_PAGES_LIMIT, _pragma(db, "freelist_count"))):
        # SQLite gives back one page each time that it is asked to go on, and Python asks once a statement.
        db.execute("PRAGMA incremental_vacuum(1)").close()


def _pragma(db: Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
