"""Buckets and objects that outlive their process, in one SQLite database.

The emulator writes the list of all objects anew for each upload, and objects into files that a killed process
leaves half written. Here a request writes what it changed, contents and descriptions in one transaction, that
is committed before its answer leaves. So what an object costs does not depend on how many there are, and a
process that is killed loses no more than what it has not answered.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gcp_storage_emulator.settings import STORAGE_DIR
from gcp_storage_emulator.storage import Storage

_DATABASE = "objects.sqlite3"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (path TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS descriptions (
    kind TEXT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (kind, bucket, name)
) WITHOUT ROWID;
"""
_UPSERT = "INSERT INTO descriptions VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
#: What is told of all buckets is little, and written where it differs; of objects, what was touched is.
_OF_BUCKETS = ("buckets", "bucket_iam_policies")
_Key = tuple[str, str, str]


class _Touched(dict[str, Any]):
    """Notes which of its keys were set or taken away."""

    def __init__(self, touched: set[_Key], kind: str, bucket: str, entries: dict[str, Any]) -> None:
        super().__init__(entries)
        self._touched, self._place = touched, (kind, bucket)

    def _touch(self, names: Iterable[str]) -> None:
        self._touched.update((*self._place, name) for name in names)

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401 - whatever the emulator keeps
        self._touch([name])
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._touch([name])
        super().__delitem__(name)


class _Objects(dict[str, Any]):
    """The objects of each bucket, as `_Touched`."""

    def __init__(self, touched: set[_Key]) -> None:
        super().__init__()
        self._touched = touched

    def __setitem__(self, bucket: str, objects: dict[str, Any]) -> None:
        if self.get(bucket) is not objects:
            self.pop(bucket, None)
            self._touched.update(("objects", bucket, name) for name in objects)
            objects = _Touched(self._touched, "objects", bucket, objects)
            super().__setitem__(bucket, objects)

    def pop(self, bucket: str, *default: Any) -> Any:  # noqa: ANN401 - as dict's
        """See `dict`."""
        self._touched.update(("objects", bucket, name) for name in self.get(bucket, ()))
        return super().pop(bucket, *default)


class _Contents:
    """What the emulator keeps files in, as it calls it; paths are kept as they are."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def makedirs(self, path: str) -> None:
        """There are no folders."""

    def write_bytes(self, path: str, content: bytes) -> None:
        """Keep a content under a path."""
        self._db.execute(
            "INSERT INTO contents VALUES (?, ?) ON CONFLICT DO UPDATE SET content = excluded.content",
            (path, content),
        )

    def read_bytes(self, path: str) -> bytes:
        """The content under a path.

        Raises:
            FileNotFoundError: there is none.
        """
        row = self._db.execute("SELECT content FROM contents WHERE path = ?", (path,)).fetchone()
        if row is None:
            raise FileNotFoundError(path)
        content: bytes = row[0]
        return content

    def exists_file(self, path: str) -> bool:
        """Whether there is a content under a path."""
        return self._db.execute("SELECT 1 FROM contents WHERE path = ?", (path,)).fetchone() is not None

    def remove_file(self, path: str) -> None:
        """Remove a content.

        Raises:
            FileNotFoundError: there is none.
        """
        if not self._db.execute("DELETE FROM contents WHERE path = ?", (path,)).rowcount:
            raise FileNotFoundError(path)

    def remove_tree(self, path: str) -> None:
        """Remove what is below a path."""
        # By the index: what is below sorts before the next character after the slash.
        self._db.execute("DELETE FROM contents WHERE path >= ? AND path < ?", (f"{path}/", f"{path}0"))

    def listdir(self, _: str = "") -> list[str]:
        """The first parts of all paths."""
        paths = self._db.execute("SELECT path FROM contents").fetchall()
        return sorted({path.partition("/")[0] for (path,) in paths})


class KeptStorage(Storage):  # type: ignore[misc]  # the emulator has no types
    """The emulator's buckets and objects in a folder.

    Args:
        folder: where the database is, or is to be made.

    What an older version kept there as files is taken over.
    """

    def __init__(self, folder: Path) -> None:
        self._touched: set[_Key] = set()
        super().__init__(use_memory_fs=True)
        folder.mkdir(parents=True, exist_ok=True)
        # Requests come in threads, one at a time.
        self._db = sqlite3.connect(folder / _DATABASE, check_same_thread=False, isolation_level=None)
        # Without waiting for the disk: what a process has written outlives it.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        self._store = _Contents(self._db)
        self._written: dict[_Key, str] = {}
        self._db.execute("BEGIN")
        self._read()
        self._take_over(folder)
        self.commit()

    def commit(self) -> None:
        """Make durable what was changed: to be called before an answer leaves."""
        for kind in _OF_BUCKETS:
            found = {(kind, name, ""): json.dumps(value) for name, value in getattr(self, kind).items()}
            known = {key for key in self._written if key[0] == kind}
            self._touched.update(known - found.keys())
            self._touched.update(key for key, text in found.items() if self._written.get(key) != text)
        for key in self._touched:
            value = self._value(key)
            if value is None:
                self._db.execute("DELETE FROM descriptions WHERE (kind, bucket, name) = (?, ?, ?)", key)
                self._written.pop(key, None)
                continue
            text = json.dumps(value)
            self._db.execute(_UPSERT, (*key, text))
            if key[0] in _OF_BUCKETS:
                self._written[key] = text
        self._touched.clear()
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def _value(self, key: _Key) -> Any:  # noqa: ANN401 - whatever the emulator keeps
        kind, bucket, name = key
        entries: dict[str, Any] = getattr(self, kind)
        if kind in _OF_BUCKETS:
            return entries.get(bucket)
        return (entries if kind == "resumable" else entries.get(bucket, {})).get(name)

    def _read(self) -> None:
        self.wipe_memory()
        rows = self._db.execute("SELECT kind, bucket, name, value FROM descriptions").fetchall()
        for kind, bucket, name, text in rows:
            if kind in _OF_BUCKETS:
                getattr(self, kind)[bucket] = json.loads(text)
                self._written[kind, bucket, name] = text
            elif kind == "resumable":
                self.resumable[name] = json.loads(text)
            else:
                of_kind = getattr(self, kind)
                if bucket not in of_kind:
                    of_kind[bucket] = {}
                of_kind[bucket][name] = json.loads(text)
        self._touched.clear()

    def wipe_memory(self) -> None:
        """Hold nothing."""
        self.buckets: dict[str, Any] = {}
        self.bucket_iam_policies: dict[str, Any] = {}
        self.soft_deleted: dict[str, Any] = {}
        self.objects = _Objects(self._touched)
        self.resumable = _Touched(self._touched, "resumable", "", {})

    def _take_over(self, folder: Path) -> None:
        """Take in what an older version kept here as files, once, and remove them."""
        old = folder / STORAGE_DIR
        if not (old / ".meta").exists():
            return
        before = Storage(data_dir=str(folder.resolve()))
        for bucket, description in before.buckets.items():
            self.buckets.setdefault(bucket, description)
            for name, of_object in before.objects.get(bucket, {}).items():
                self.create_file(bucket, name, before.get_file(bucket, name), of_object)
        self.bucket_iam_policies.update(before.bucket_iam_policies)
        self.commit()
        shutil.rmtree(old)

    # -- as the emulator calls it ------------------------------------------------------------------------

    def _write_config_to_file(self) -> None:
        """What was touched is written by `commit`."""

    def _object_path(self, bucket_name: str, file_name: str) -> str:
        return f"{bucket_name}/{file_name}"

    def delete_file(self, bucket_name: str, file_name: str) -> None:
        """Delete an object; it can be restored for some days."""
        self._touched.add(("soft_deleted", bucket_name, file_name))
        super().delete_file(bucket_name, file_name)

    def _remove_soft_deleted_generation(self, bucket_name: str, file_name: str, generation: str) -> None:
        self._touched.add(("soft_deleted", bucket_name, file_name))
        super()._remove_soft_deleted_generation(bucket_name, file_name, generation)

    def delete_bucket(self, bucket_name: str) -> None:
        """Delete a bucket that is empty."""
        gone = self.soft_deleted.get(bucket_name, {})
        self._touched.update(("soft_deleted", bucket_name, name) for name in gone)
        super().delete_bucket(bucket_name)

    def wipe(self, keep_buckets: bool = False) -> None:  # noqa: FBT001, FBT002 - as the emulator's
        """Forget everything."""
        kept = dict(self.buckets) if keep_buckets else {}
        self._db.execute("DELETE FROM contents")
        self._db.execute("DELETE FROM descriptions")
        self._written.clear()
        self.wipe_memory()
        self._touched.clear()
        self.buckets.update(kept)
