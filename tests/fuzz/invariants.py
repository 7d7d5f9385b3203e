"""What must be true after a pass over a hostile folder."""

import hashlib
import json
import logging
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pixaris_sync.cli.console import LineFormatter
from pixaris_sync.cli.report import as_json, status_document, status_text
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import Overview, overview
from pixaris_sync.model import RemoteObject, RunState
from tests.engine.machine import Machine
from tests.fakes.row_table import StoredRow
from tests.fuzz.folder import IMAGES, TRACKING_FILE, HostileFolder

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HASHED_BYTES_MAX: Final = 16 * 1024 * 1024

Snapshot = dict[str, tuple[Any, ...]]


class Log(logging.Handler):
    """Everything that is logged, ours at every level, as one line each."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(LineFormatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @contextmanager
    def listening(self) -> Iterator[None]:
        ours = logging.getLogger("pixaris_sync")
        level = ours.level
        logging.getLogger().addHandler(self)
        ours.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            ours.setLevel(level)
            logging.getLogger().removeHandler(self)


class ArrivalCheck:
    """Sees every object and every row in the instant they arrive."""

    def __init__(self, hostile: HostileFolder) -> None:
        self._pit = hostile

    def saw_object(self, remote: RemoteObject, content: bytes, before: bytes | None) -> None:
        """Nothing forbidden arrives, and nothing is overwritten: no file has changed."""
        check_clean(self._pit, f"object {remote.name!r}", content)
        assert before is None, f"{remote.name!r} was overwritten"

    def saw_row(self, table: str, row: StoredRow) -> None:
        """Nothing forbidden arrives."""
        check_clean(self._pit, f"a row of {table!r}", json.dumps(row.cells))


def snapshot(*tops: Path) -> Snapshot:
    """Everything below folders as it stands on disk, without following a link."""
    found: Snapshot = {}
    for top in tops:
        for folder, folders, files in os.walk(top):
            for name in (*folders, *files, "."):
                path = os.path.join(folder, name)  # noqa: PTH118 - names of all kinds, and many of them
                found[path] = _looks(path)
    return found


def _looks(path: str) -> tuple[Any, ...]:
    status = os.lstat(path)
    looks = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, status.st_nlink)
    if stat.S_ISLNK(status.st_mode):
        return (*looks, str(Path(path).readlink()))
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o400 and status.st_size < _HASHED_BYTES_MAX:
        return (*looks, hashlib.sha256(Path(path).read_bytes()).hexdigest())
    return looks


def check(hostile: HostileFolder, machine: Machine, told: Sequence[str]) -> None:
    """Judge the cloud, the ledger, and what was `told` to people."""
    _check_objects(hostile, machine)
    _check_rows(hostile, machine)
    with machine.ledger() as ledger:
        document = status_document(_check_ledger(hostile, ledger), machine.clock.now())
    told = [*told, status_text(document)]
    for line in "\n".join(told).split("\n"):
        assert not _CONTROL.search(line), f"not for the eyes of a terminal: {line!r}"
    check_clean(hostile, "what is told", "\n".join(told))
    check_clean(hostile, "status", as_json(document))
    check_clean(hostile, "a request", "\n".join(call.name for call in machine.store.calls))


def check_clean(hostile: HostileFolder, where: str, text: str | bytes) -> None:
    """Nothing of what is forbidden to read stands in a text."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    for canary in hostile.canaries:
        assert canary.encode() not in content, f"{where} holds what stands outside: {canary}"


def _check_objects(hostile: HostileFolder, machine: Machine) -> None:
    for name, stored in machine.store.objects.items():
        top, project, dataset, *rest = name.split("/")
        path = rest[-2:] if len(rest) > 2 and rest[-2] == IMAGES else rest[-1:]
        assert top == "results"
        assert not {"", ".", ".."} & {project, dataset, *rest}, name
        here = hostile.root
        for part in (project, dataset):
            here /= part
            assert stat.S_ISDIR(here.lstat().st_mode), f"{name!r} is of no dataset's folder"
        run = folder_of(here, "/".join(rest[: -len(path)]))
        local = _spelled(images_of(run) if len(path) > 1 else run, path[-1])
        below = local.parent.is_dir() and not local.parent.is_symlink()
        if below and _is_regular(local) and local.read_bytes() == stored.content:
            continue
        metric = len(path) == 1 and name.endswith(".json")
        assert metric, f"{name!r} is no file of its run"
        if hostile.root / project / dataset in hostile.mutated:
            assert isinstance(json.loads(stored.content), dict)
        else:
            assert stored.content.decode("ascii") in hostile.metrics, (
                f"{name!r} is neither a file nor a metric"
            )


def folder_of(dataset: Path, run: str) -> Path:
    """The folder of a run on the disk, no part of the way being a link."""
    here = dataset
    for part in run.split("/"):
        here = _spelled(here, part)
        assert stat.S_ISDIR(here.lstat().st_mode), f"{run!r} is no folder of {dataset.name!r}"
    return here


def _spelled(folder: Path, name: str) -> Path:
    """An entry by its name, or, where none is called so, by the name with its letters taken apart."""
    exact = folder / name
    return exact if os.path.lexists(exact) else folder / unicodedata.normalize("NFD", name)


def images_of(run: Path) -> Path:
    """Where a run's images lie: pixaris 0.1.0 had another place for them."""
    return run / IMAGES if os.path.lexists(run / IMAGES) else run / "images"


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False  # No such file, or a name longer than any can be.


def _check_rows(hostile: HostileFolder, machine: Machine) -> None:
    tables = {f"{path.parent.name}_{path.name}_experiment_results": path for path in hostile.root.glob("*/*")}
    for table in machine.sink.tables:
        rows = machine.sink.stored(table)
        assert table in tables, f"{table!r} is the table of no dataset"
        assert len({row.row_id for row in rows}) == len(rows), f"a row of {table!r} came twice"
        for row in rows:
            run = row.cells["experiment_run_name"]
            _check_files_came_first(machine, tables[table], run)


def _check_files_came_first(machine: Machine, dataset: Path, run: str) -> None:
    images = images_of(folder_of(dataset, run))
    for path in images.iterdir() if images.is_dir() and not images.is_symlink() else ():
        wanted = path.suffix.lower() in (".png", ".jpg", ".jpeg") and not path.name.startswith(".")
        if wanted and _is_regular(path):
            name = "/".join(("results", *dataset.parts[-2:], run, IMAGES, path.name))
            assert name in machine.store.objects, f"the row of {run!r} came without {path.name!r}"


def _check_ledger(hostile: HostileFolder, ledger: Ledger) -> Overview:
    found: Overview = ledger.read(lambda db: overview(db, TRACKING_FILE))
    states: dict[tuple[str, str, str], str] = {}
    for row in ledger._connection.execute(
        "SELECT d.project, d.dataset, r.* FROM runs r JOIN datasets d ON d.id = r.dataset_id"
    ):
        key = (row["project"], row["dataset"], row["name"])
        assert key not in states, f"{key} is there twice"
        states[key] = RunState(row["state"])
        explained = row["cause"] or row["state"] == RunState.SYNCED
        assert explained, f"nothing says why {key} is {row['state']}"
    for run in hostile.sound:
        project, dataset, *name = run.relative_to(hostile.root).parts
        state = states[project, dataset, "/".join(name)]
        assert state == RunState.SYNCED, f"{run} was sound and is {state}"
    for problem in found.problems:
        assert problem.cause
    told = {problem.run for problem in found.problems}
    untold = {str(path.relative_to(hostile.root)) for path in hostile.too_deep} - told
    assert not untold, f"nothing says that these are not carried: {untold}"
    for table in [
        row[0] for row in ledger._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    ]:
        for row in ledger._connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the schema's own name
            for value in row:
                if isinstance(value, str | bytes):
                    check_clean(hostile, f"the ledger's {table}", value)
    return found
